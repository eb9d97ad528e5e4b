"""Local servers that speak the providers' documented formats, and misbehave when they are told to."""

import json
import lzma
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
import pandas as pd

from orbiquant.domain import Bars, normalise_symbol
from orbiquant.market.dukascopy import CANDLE, TICK

Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


class Request(NamedTuple):
    """What was asked."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


# --- faults: what happens to an answer ---


def reply(status: int = 200, body: bytes = b"", kind: str = "application/json", **headers: str) -> Fault:
    """Send another answer."""

    def act(handler: BaseHTTPRequestHandler, ignored: bytes) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Break the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) + 10))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


class FakeProvider(ABC):
    """One server with one series; `rows` is what it has of it, in the order it sends it."""

    def __init__(self, symbol: str, rows: Bars) -> None:
        self.symbol, self.rows, self.honest = symbol, rows, True
        self.page_size = 1_000_000
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self.url = ""

    @abstractmethod
    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Return a status and a body: bytes, or what becomes JSON."""

    def window(self, start: pd.Timestamp, end: pd.Timestamp) -> Bars:
        """Return the rows of a window, and more of them when the server lies."""
        more = pd.Timedelta(hours=0 if self.honest else 20)
        after = self.rows.index >= start - more if start.year > 1970 else self.rows.index >= start
        return self.rows[after & (self.rows.index < end + more)]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or do what the next fault says."""
        parts, headers = urlsplit(handler.path), {k.lower(): v for k, v in handler.headers.items()}
        asked = Request(unquote(parts.path), dict(parse_qsl(parts.query)), headers)
        self.requests.append(asked)
        status, body = self.answer(*asked)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        act = self.faults.popleft() if self.faults else reply(status, content)
        act(handler, content)

    @contextmanager
    def running(self) -> Iterator["FakeProvider"]:
        """Serve for the length of a `with` block."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.handle(self)

            def log_message(self, *said: object) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *who: object) -> None:
                """Keep quiet when a client that was killed hangs up."""

        with Server(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            try:
                yield self
            finally:
                server.shutdown()


def moment(text: str | float) -> pd.Timestamp:
    """Return a time of a query: milliseconds since 1970, or ISO."""
    ms = str(text)
    return pd.Timestamp(int(ms), unit="ms", tz="UTC") if ms.lstrip("-").isdigit() else pd.Timestamp(ms)


class FakeBinance(FakeProvider):
    """`/api/v3/exchangeInfo` and `/api/v3/klines`."""

    base, quote = "BTC", "USDT"

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as Binance does."""
        market = {"symbol": self.symbol, "baseAsset": self.base, "quoteAsset": self.quote, "status": "TRADING"}
        if path == "/api/v3/exchangeInfo":
            facts = {"filters": [], "permissions": ["SPOT"], "isSpotTradingAllowed": True}
            return 200, {"timezone": "UTC", "serverTime": 0, "symbols": [market | facts]}
        if path != "/api/v3/klines" or query.get("symbol") != self.symbol:
            return 400, {"code": -1121, "msg": "Invalid symbol."}
        rows = self.window(moment(query.get("startTime", 0)), pd.Timestamp("2100-01-01", tz="UTC"))
        return 200, [self.kline(*row) for row in rows[: min(int(query["limit"]), self.page_size)].itertuples()]

    @staticmethod
    def kline(time: pd.Timestamp, *values: float) -> list[Any]:
        """Return a candle."""
        opened = int(time.timestamp() * 1000)
        return [opened, *(v if isinstance(v, str) else repr(v) for v in values), opened + 59_999, "1", 9, "1", "1", "0"]


class FakeForgetful(FakeBinance):
    """An exchange with Binance's routes that sends its newest candles to whoever asks for older ones than it keeps."""

    keeps = 100  # candles, however many there are
    reaches = 0  # how much earlier than its newest page it can be asked for, in candles

    def window(self, start: pd.Timestamp, end: pd.Timestamp) -> Bars:
        """Return the newest rows for a start before what can be asked for."""
        kept = self.rows[-self.keeps - self.reaches :]
        return super().window(start, end) if start >= kept.index[0] else kept[-self.keeps :]


class FakeOkx(FakeProvider):
    """`/api/v5/public/instruments` and `/api/v5/market/…candles`, which answer by time span and newest first."""

    others: ClassVar[list[tuple[str, str]]] = []  # base and quote of what else is listed
    listed_ms = ""  # since when the market is listed; empty: not told

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as OKX does."""
        if path == "/api/v5/public/instruments":
            named = [("BTC", "USDT"), *self.others]
            return 200, {"code": "0", "msg": "", "data": [self.instrument(base, quote) for base, quote in named]}
        rows = self.rows[(self.rows.index > moment(query["before"])) & (self.rows.index < moment(query["after"]))]
        page = rows[::-1][: min(int(query["limit"]), 300)]
        data = [[str(int(row[0].timestamp() * 1000)), *map(str, row[1:]), "1", "1", "1"] for row in page.itertuples()]
        return 200, {"code": "0", "msg": "", "data": data}

    def instrument(self, base: str, quote: str) -> dict[str, str]:
        """Return a line of the list."""
        names = {"instType": "SPOT", "instId": f"{base}-{quote}", "baseCcy": base, "quoteCcy": quote, "state": "live"}
        return names | {"tickSz": "0.1", "lotSz": "0.1", "minSz": "0.1", "listTime": self.listed_ms}


class FakePolygon(FakeProvider):
    """`/v2/aggs/ticker/…`, paged by `next_url`, and `/v3/reference/tickers`."""

    ticker, key = "C:EURUSD", "polygon-key-8Zq"
    others: ClassVar[list[str]] = []  # what else is listed
    foreign_host = "https://api.polygon.io"  # as the real service writes next_url, whatever host was asked

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as Polygon does."""
        if headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"status": "ERROR", "error": f"Unknown API Key {headers.get('authorization')}"}
        if path == "/v3/reference/tickers":
            held = [ticker for ticker in (self.ticker, *self.others) if query["search"] in ticker]
            return 200, {"results": [{"ticker": ticker} for ticker in held], "status": "OK", "count": len(held)}
        _, _, _, _, ticker, _, _, _, since, until = path.split("/")
        if ticker != self.ticker:
            return 200, {"ticker": ticker, "status": "OK", "resultsCount": 0, "queryCount": 0}
        rows, skipped = self.window(moment(since), moment(int(until) + 1)), int(query.get("cursor", 0))
        size = min(int(query.get("limit", 5000)), self.page_size)
        page = rows[skipped : skipped + size]
        names = ("o", "h", "l", "c", "v")
        results = [
            dict(zip(names, row[1:], strict=True), t=int(row[0].timestamp() * 1000)) for row in page.itertuples()
        ]
        more = f"{self.foreign_host}{path}?cursor={skipped + size}&limit={query.get('limit')}&apiKey=x"
        following = {"next_url": more} if skipped + size < len(rows) else {}
        return 200, {"ticker": ticker, "status": "OK", "results": results, "resultsCount": len(page), **following}


class FakeAlpaca(FakeProvider):
    """`/v1beta3/crypto/us/bars` and `/v2/stocks/{symbol}/bars`, paged by `next_page_token`."""

    pair, stock, key, secret = "BTC/USD", "AAPL", "alpaca-key-7Hd", "alpaca-secret-Q2x"

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as Alpaca does."""
        if (headers.get("apca-api-key-id"), headers.get("apca-api-secret-key")) != (self.key, self.secret):
            return 403, {"message": f"forbidden for {headers.get('apca-api-secret-key')}"}
        if path not in ("/v1beta3/crypto/us/bars", f"/v2/stocks/{self.stock}/bars"):
            return 200, {"bars": None, "symbol": path.split("/")[3], "next_page_token": None}
        if "symbols" in query and query["symbols"] != self.pair:
            return 400, {"code": 40010001, "message": f"invalid symbol: {query['symbols']}"}
        last = moment(query["end"]) + pd.Timedelta(microseconds=1)  # the end is inclusive
        rows, skipped = self.window(moment(query["start"]), last), int(query.get("page_token", "x0")[1:])
        size = min(int(query.get("limit", 1000)), self.page_size)
        names = ("o", "h", "l", "c", "v")
        page = [
            dict(zip(names, row[1:], strict=True), t=row[0].isoformat().replace("+00:00", "Z"), n=1, vw=1)
            for row in rows[skipped : skipped + size].itertuples()
        ]
        token = f"x{skipped + size}" if skipped + size < len(rows) else None
        return 200, {"bars": {self.pair: page} if "symbols" in query else page, "next_page_token": token}


class FakeDukascopy(FakeProvider):
    """`SYMBOL/YYYY/MM/DD/BID_candles_min_1.bi5` and `…/HHh_ticks.bi5`, the month from 00."""

    scale, spread = 100_000, 12

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer as Dukascopy's file server does."""
        _, symbol, year, month, day, file = path.split("/")
        midnight = pd.Timestamp(int(year), int(month) + 1, int(day), tz="UTC")
        rows = self.rows[self.rows.index.floor("D") == midnight]
        if normalise_symbol(symbol) != self.symbol or rows.empty:
            return 404, b""
        if file.endswith("h_ticks.bi5"):
            return 200, self.ticks(rows, midnight + pd.Timedelta(hours=int(file[:2])))
        return 200, self.candles(rows, midnight, self.spread if file.startswith("ASK") else 0)

    def candles(self, rows: Bars, midnight: pd.Timestamp, more: int) -> bytes:
        """Return a file of minute candles."""
        points = (rows[["open", "close", "low", "high"]] * self.scale).round().astype("int64") + more
        seconds = (rows.index - midnight).total_seconds().astype(int)
        return pack(CANDLE, [seconds, *points.to_numpy().T, rows["volume"]])

    def ticks(self, rows: Bars, hour: pd.Timestamp) -> bytes:
        """Return a file of ticks: four a minute, one for each price."""
        inside = rows[rows.index.floor("h") == hour]
        ms = ((inside.index - hour).total_seconds() * 1000).astype(int).to_numpy()
        points = (inside[["open", "high", "low", "close"]] * self.scale).round().astype("int64").to_numpy()
        times, bids = (ms[:, None] + np.arange(4) * 10_000).ravel(), points.ravel()
        volumes = np.repeat(inside["volume"].to_numpy() / 4, 4)
        return pack(TICK, [times, bids + self.spread, bids, volumes, volumes])


def pack(record: np.dtype, columns: list[Any]) -> bytes:
    """Return records as a .bi5 file; none are an empty file."""
    if not len(columns[0]):
        return b""
    return lzma.compress(np.rec.fromarrays(columns, dtype=record).tobytes(), lzma.FORMAT_ALONE)
