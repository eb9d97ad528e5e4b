"""Local servers that speak as News API, Alpha Vantage, alternative.me and ApeWisdom document it."""

import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pandas as pd

from tests.tools.fake_providers import FakeProvider, Fault, reply

KEY = "hunter2+secret/key"  # what an address must escape
PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>hunter2+secret/key</body></html>"


def hang(seconds: float) -> Fault:
    """Say nothing for a while, then hang up."""

    def act(handler: BaseHTTPRequestHandler, ignored: bytes) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return act


def html(status: int) -> Fault:
    """Send a page for people."""
    return reply(status, PAGE, "text/html")


class FakeVendor(FakeProvider):
    """A server without bars."""

    def __init__(self) -> None:
        super().__init__("", pd.DataFrame())


def article(title: str | None, minute: int = 0, **more: Any) -> dict[str, Any]:
    """Return an article as News API sends it."""
    return {
        "source": {"id": None, "name": "Example Times"},
        "author": None,
        "title": title,
        "description": "What happened, in a sentence.",
        "url": "https://news.example/a",
        "urlToImage": None,
        "publishedAt": f"2026-11-27T09:{minute:02d}:00Z",
        "content": "What happened… [+1200 chars]",
    } | more


class FakeNews(FakeVendor):
    """`/v2/everything`."""

    def __init__(self, articles: Any = ()) -> None:
        super().__init__()
        self.articles = [*articles] if isinstance(articles, list | tuple) else articles

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as News API does."""
        if headers.get("x-api-key") != KEY:
            return 401, {"status": "error", "code": "apiKeyInvalid", "message": "Your API key is invalid or incorrect."}
        if path != "/v2/everything" or "q" not in query:
            return 400, {"status": "error", "code": "parametersMissing", "message": "Required parameters are missing."}
        count = len(self.articles) if isinstance(self.articles, list) else 0
        return 200, {"status": "ok", "totalResults": count, "articles": self.articles}


APPLE = {
    "Symbol": "AAPL",
    "AssetType": "Common Stock",
    "Name": "Apple Inc",
    "Description": "Apple Inc. is …",
    "Exchange": "NASDAQ",
    "Currency": "USD",
    "Country": "USA",
    "Sector": "TECHNOLOGY",
    "Industry": "CONSUMER ELECTRONICS",
    "LatestQuarter": "2026-09-30",
    "MarketCapitalization": "3471000000000",
    "PERatio": "34.2",
    "PriceToBookRatio": "60.5",
    "EPS": "6.61",
    "RevenueTTM": "400366002000",
    "ProfitMargin": "0.243",
    "QuarterlyEarningsGrowthYOY": "0.1",
    "QuarterlyRevenueGrowthYOY": "0.049",
    "DividendYield": "0.0044",
    "AnalystTargetPrice": "235.3",
    "AnalystRatingStrongBuy": "7",
    "AnalystRatingBuy": "21",
    "AnalystRatingHold": "13",
    "AnalystRatingSell": "2",
    "AnalystRatingStrongSell": "2",
}
CALENDAR = """symbol,name,reportDate,fiscalDateEnding,estimate,currency
AAPL,Apple Inc,2027-01-28,2026-12-31,2.35,USD
AAPL,Apple Inc,2027-05-01,2027-03-31,1.62,USD
"""


class FakeAlphaVantage(FakeVendor):
    """`/query` with OVERVIEW and EARNINGS_CALENDAR."""

    def __init__(self, **companies: dict[str, str]) -> None:
        super().__init__()
        self.companies, self.calendar = companies or {"AAPL": APPLE}, CALENDAR

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as Alpha Vantage does: always with 200."""
        if query.get("apikey") != KEY:
            said = "the parameter apikey is invalid or missing. Please claim your free API key on (https://…)."
            return 200, {"Error Message": said}
        if query["function"] == "EARNINGS_CALENDAR":
            return 200, self.calendar.encode()
        return 200, self.companies.get(query["symbol"], {})


class FakeFear(FakeVendor):
    """`/fng/`."""

    value: Any = "27"

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as alternative.me does."""
        reading = {"value": self.value, "value_classification": "Fear", "timestamp": "1795737600"}
        reading["time_until_update"] = "4000"
        return 200, {"name": "Fear and Greed Index", "data": [reading], "metadata": {"error": None}}


class FakeForums(FakeVendor):
    """`/api/v1.0/filter/…/page/1`."""

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as ApeWisdom does."""
        line = {"rank": 1, "name": "Apple", "ticker": "AAPL", "mentions": 210, "upvotes": 900}
        if "crypto" in path:
            line |= {"name": "Bitcoin", "ticker": "BTC.X"}
        line |= {"rank_24h_ago": None, "mentions_24h_ago": None}
        return 200, {"count": 1, "pages": 1, "current_page": 1, "results": [line]}
