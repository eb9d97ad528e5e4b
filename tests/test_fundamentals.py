"""Companies: Alpha Vantage, whose errors are words under status 200, and its key, which only an address carries."""

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from test_news import ask, heard, runtime_for

from orbiquant.core import NotAvailable, NotFoundError, configure_logging
from orbiquant.desk.company import get_fundamentals
from orbiquant.market.fundamentals import rate
from orbiquant.runtime import Runtime, using
from tests.tools.fake_providers import cut, reply
from tests.tools.fake_vendors import APPLE, KEY, FakeAlphaVantage, hang, html

__all__ = ["heard"]  # a fixture
PEERS = {
    "MSFT": APPLE | {"Symbol": "MSFT", "PERatio": "36", "QuarterlyRevenueGrowthYOY": "0.18", "DividendYield": "None"},
    "ORCL": APPLE | {"Symbol": "ORCL", "PERatio": "30", "QuarterlyRevenueGrowthYOY": "0.08", "DividendYield": "None"},
    "CSCO": APPLE | {"Symbol": "CSCO", "PERatio": "-", "QuarterlyRevenueGrowthYOY": "0.05", "DividendYield": "0.02"},
}


@pytest.fixture
def vendor() -> Iterator[FakeAlphaVantage]:
    """Yield a running server."""
    with FakeAlphaVantage(AAPL=APPLE, **PEERS).running() as server:
        yield server


@pytest.fixture
def runtime(vendor: FakeAlphaVantage, tmp_path: Path) -> Iterator[Runtime]:
    """Yield a runtime that asks that server."""
    configure_logging("DEBUG")
    told = {"alphavantage_url": vendor.url, "alphavantage_api_key": f" {KEY}\n"}
    with using(runtime_for(tmp_path, **told)) as made:
        yield made


def test_the_answer_has_the_form_of_the_page(runtime: Runtime):
    said = get_fundamentals("aapl").model_dump(by_alias=True, mode="json")
    assert {name: said[name] for name in ("companyName", "sector", "industry", "analystRating", "nextEarnings")} == {
        "companyName": "Apple Inc",
        "sector": "Technology",
        "industry": "Consumer Electronics",
        "analystRating": "buy",
        "nextEarnings": "2027-01-28",
    }
    assert (said["marketCap"], said["peRatio"], said["pbRatio"], said["eps"]) == (3.471e12, 34.2, 60.5, 6.61)
    assert (said["epsGrowth"], said["revenue"], said["revenueGrowth"]) == (0.1, 400366002000, 0.049)
    assert (said["profitMargin"], said["dividendYield"], said["priceTarget"]) == (0.243, 0.0044, 235.3)
    assert said["sectorComparison"] == {
        "sector": "Technology",
        "companies": ["MSFT", "ORCL", "CSCO"],
        "peRatio": 33,
        "pbRatio": 60.5,
        "revenueGrowth": 0.08,
        "profitMargin": 0.243,
        "dividendYield": None,
        "above": ["pe_ratio"],
        "below": ["revenue_growth"],
    }
    assert said["notes"] == [] and said["askedAt"] == "2026-11-27T10:00:00Z"


def test_the_vendor_is_asked_as_it_documents_and_once_a_day(
    vendor: FakeAlphaVantage, runtime: Runtime, heard: Callable[[], str]
):
    first, second = get_fundamentals("AAPL"), get_fundamentals("AAPL")
    assert first == second and {each.path for each in vendor.requests} == {"/query"}
    asked = sorted((each.query["function"], each.query["symbol"], each.query["apikey"]) for each in vendor.requests)
    wanted = [("EARNINGS_CALENDAR", "AAPL"), *(("OVERVIEW", symbol) for symbol in ("AAPL", "CSCO", "MSFT", "ORCL"))]
    assert asked == [(*each, KEY) for each in wanted]
    log = heard()
    assert "/query?" in log and "apikey=***" in log and "hunter2" not in log, "the library logs every address"


def test_no_peer_is_asked_where_none_is_wanted(vendor: FakeAlphaVantage, tmp_path: Path):
    told = {"alphavantage_url": vendor.url, "alphavantage_api_key": KEY, "alphavantage_peers": 0}
    with using(runtime_for(tmp_path, **told)):
        said = get_fundamentals("AAPL")
    assert said.sector_comparison is None and "sector_comparison" in said.notes[0] and len(vendor.requests) == 2


@pytest.mark.parametrize(
    "symbol", ["BTCUSDT", "ETH/USD", "EURUSD", "usd-jpy", "XAUUSD", "XAGUSD", "SPX", "BTCUSDT-PERP"]
)
def test_what_has_no_balance_sheet(symbol: str, vendor: FakeAlphaVantage, runtime: Runtime, tmp_path: Path):
    said = ask("get_fundamentals", symbol=symbol)
    assert said["error"] == "NOT_AVAILABLE" and not vendor.requests
    with using(runtime_for(tmp_path)), pytest.raises(NotAvailable):  # with or without a key
        get_fundamentals(symbol)


@pytest.mark.parametrize("symbol", ["AAPL", "TSLA"])
def test_without_a_key_the_answer_is_how_to_get_one(symbol: str, tmp_path: Path):
    with using(runtime_for(tmp_path)):
        said = ask("get_fundamentals", symbol=symbol)
    assert said["error"] == "NOT_CONFIGURED" and "ORBIQUANT_PROVIDERS_ALPHAVANTAGE_API_KEY" in said["message"]
    assert "https://www.alphavantage.co/support/#api-key" in said["message"]


# --- gaps ---

GAPS = ["None", "-", "", "nan", "inf", "n/a", None, {}, "1e999"]


@pytest.mark.parametrize("gap", GAPS, ids=map(repr, GAPS))
def test_a_gap_is_null_and_not_nought(gap: Any, vendor: FakeAlphaVantage, runtime: Runtime):
    names = {"Symbol", "Name", "Currency", "Sector", "Industry", "AssetType"}
    vendor.companies["AAPL"] = {name: text if name in names else gap for name, text in APPLE.items()}
    said = get_fundamentals("AAPL")
    figures = said.model_dump(exclude={"symbol", "company_name", "currency", "sector", "industry", "notes", "asked_at"})
    assert {name for name, value in figures.items() if value is not None} == {"next_earnings", "sector_comparison"}
    assert said.sector_comparison and said.sector_comparison.above == [] == said.sector_comparison.below


def test_nought_is_nought(vendor: FakeAlphaVantage, runtime: Runtime):
    vendor.companies["AAPL"] = APPLE | {"DividendYield": "0", "ProfitMargin": "-0.3"}
    said = get_fundamentals("AAPL")
    assert said.dividend_yield == 0 and said.profit_margin == -0.3


def test_names_are_text(vendor: FakeAlphaVantage, runtime: Runtime):
    vendor.companies["AAPL"] = APPLE | {
        "Name": "<script>x()</script>Apple\u202e &amp; Co" + "o" * 999,
        "Industry": "None",
    }
    said = get_fundamentals("AAPL")
    assert said.company_name.startswith("Apple & Coo") and len(said.company_name) == 120 and said.industry == ""


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ((1, 0, 0, 0, 0), "strong_buy"),
        ((0, 5, 0, 0, 0), "buy"),
        ((3, 3, 3, 3, 3), "hold"),
        ((0, 0, 2, 2, 0), "sell"),  # between two, the more careful
        ((0, 0, 0, 0, 2), "strong_sell"),
        ((0, 0, 0, 0, 0), None),
        ((None, 4, None, None, None), "buy"),
        ((-1, 0, 0, 0, 0), None),
    ],
)
def test_analysts_come_to_a_word(counts: Any, word: str | None):
    assert rate(counts) == word


@pytest.mark.parametrize(
    ("calendar", "day"),
    [
        ("symbol,name,reportDate,fiscalDateEnding,estimate,currency\n", None),
        ("symbol,name,reportDate\nAAPL,Apple,2026-11-26\n", None),  # that was yesterday
        ("symbol,name,reportDate\nAAPL,Apple,2026-11-27\n", date(2026, 11, 27)),
        ("symbol,name,reportDate\nMSFT,Microsoft,2026-12-01\nAAPL,Apple,2027-02-30\nAAPL,Apple,None\n", None),
        ("symbol,reportDate\r\nAAPL,2027-02-01\r\nAAPL,2027-01-02", date(2027, 1, 2)),
    ],
)
def test_the_next_day_of_earnings(calendar: str, day: date | None, vendor: FakeAlphaVantage, runtime: Runtime):
    vendor.calendar = calendar
    said = get_fundamentals("AAPL")
    assert said.next_earnings == day and said.notes == []


# --- errors ---

LIMIT = (
    f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day. Please subscribe."
)
WORDS: dict[str, tuple[Any, str, str]] = {
    "limit a day": ({"Information": LIMIT}, "LIMIT_REACHED", "25 requests per day"),
    "limit a minute": (
        {"Note": "Thank you for using Alpha Vantage! Our standard API call frequency is 5 calls per minute."},
        "LIMIT_REACHED",
        "5 calls per minute",
    ),
    "spread": (
        {"Information": "Please consider spreading out your free API requests more sparingly (1 request per second)."},
        "LIMIT_REACHED",
        "sparingly",
    ),
    "demo": (
        {"Information": "The **demo** API key is for demo purposes only. Please claim your free API key."},
        "SETTINGS_INVALID",
        "alphavantage_api_key",
    ),
    "premium": ({"Information": "This is a premium endpoint."}, "SETTINGS_INVALID", "what its plan includes"),
    "key": (
        {"Error Message": "the parameter apikey is invalid or missing."},
        "SETTINGS_INVALID",
        "alphavantage_api_key",
    ),
    "symbol": ({"Error Message": "Invalid API call. Please retry."}, "NOT_FOUND", "knows no AAPL"),
    "new words": ({"Note": f"Maintenance. {KEY}"}, "DATA_INVALID", "did not answer"),
    "nothing": ({}, "NOT_FOUND", "knows no company AAPL"),
    "list": ([1], "DATA_INVALID", "unknown form"),
    "text": (f"{KEY}", "DATA_INVALID", "unknown form"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_are_read_and_the_key_is_not_told(
    name: str, vendor: FakeAlphaVantage, runtime: Runtime, heard: Callable[[], str]
):
    body, code, words = WORDS[name]
    vendor.faults.append(reply(200, json.dumps(body).encode()))
    said = ask("get_fundamentals", symbol="AAPL")
    assert said["error"] == code and words in said["message"], said
    assert ask("get_fundamentals", symbol="AAPL") == said and len(vendor.requests) == 1, "it is left alone for a minute"
    assert "hunter2" not in str(said) + heard()


@pytest.mark.parametrize(
    ("fault", "code"),
    [(html(200), "DATA_INVALID"), (html(503), "DATA_INVALID"), (html(403), "SETTINGS_INVALID"), (cut, "DATA_INVALID"),
     (hang(1.5), "DATA_INVALID")],
    ids=["page", "busy", "forbidden", "cut", "hung"],
)  # fmt: skip
def test_pages_and_silence(fault: Any, code: str, vendor: FakeAlphaVantage, runtime: Runtime, heard: Callable[[], str]):
    vendor.faults.extend([fault] * 2)
    said = ask("get_fundamentals", symbol="AAPL")
    assert said["error"] == code and "hunter2" not in str(said) + heard()


def test_a_company_is_told_although_the_rest_fails(vendor: FakeAlphaVantage, runtime: Runtime):
    limit = reply(200, json.dumps({"Information": LIMIT}).encode())
    vendor.faults.extend([lambda handler, body: reply(200, body)(handler, body), *[limit] * 9])
    said = get_fundamentals("AAPL")
    assert said.company_name == "Apple Inc" and said.next_earnings is None and said.sector_comparison is None
    assert len(said.notes) == 2 and "hunter2" not in str(said)
    assert len(vendor.requests) == 3, "after the limit is reached nobody else is asked"


def test_a_peer_that_nobody_knows_is_left_out(vendor: FakeAlphaVantage, runtime: Runtime):
    del vendor.companies["MSFT"]
    said = get_fundamentals("AAPL")
    assert said.sector_comparison and said.sector_comparison.companies == ["ORCL", "CSCO"]


def test_a_company_that_nobody_knows(runtime: Runtime):
    with pytest.raises(NotFoundError, match="knows no company ZZZZ"):
        get_fundamentals("ZZZZ")


def test_a_sector_without_a_list(vendor: FakeAlphaVantage, runtime: Runtime):
    vendor.companies["AAPL"] = APPLE | {"Sector": "SPACE MINING"}
    said = get_fundamentals("AAPL")
    assert said.sector_comparison is None and len(vendor.requests) == 2
