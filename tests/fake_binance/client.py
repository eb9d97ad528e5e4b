"""A bare client of the venue, for tests that look at single answers."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fake_binance.running import RunningBinance
from tests.fake_binance.signing import sign, socket_payload


@dataclass(frozen=True)
class Answer:
    """What the venue answered."""

    status: int
    body: Any
    headers: Any

    @property
    def code(self) -> int:
        """Return the error's code, 0 for none."""
        return self.body.get("code", 0) if isinstance(self.body, dict) else 0


def read(answer: HTTPResponse | HTTPError) -> Answer:
    """Return an answer, which may be a page."""
    raw = answer.read()
    is_json = "json" in (answer.headers.get("Content-Type") or "")
    return Answer(answer.status or 0, json.loads(raw) if is_json else raw.decode(), answer.headers)


@dataclass(frozen=True)
class BareClient:
    """Signs what it sends, and retries nothing."""

    venue: RunningBinance
    key: str
    secret: str

    def send(self, method: str, path: str, signed: bool = True, **params: Any) -> Answer:
        """Send a request and return its answer; a line that is cut raises `RemoteDisconnected`."""
        query = urlencode(params)
        if signed:
            query = urlencode({"timestamp": int(time.time() * 1000)} | params)
            query += f"&signature={sign(self.secret, query)}"
        return self.send_as_is(method, path, query)

    def send_as_is(self, method: str, path: str, query: str, body: str = "") -> Answer:
        """Send just these texts."""
        root = "" if path.startswith("/") else "/api/v3/"
        headers = {"X-MBX-APIKEY": self.key, "Content-Type": "application/x-www-form-urlencoded"}
        url = f"{self.venue.url}{root}{path}?{query}"
        request = Request(url, body.encode() or None, headers, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                return read(answer)
        except HTTPError as error:
            return read(error)

    def order(self, symbol: str = "BTCUSDT", side: str = "BUY", type: str = "LIMIT", **params: Any) -> Answer:
        """Place an order; a limit order is good till cancelled."""
        timed = {"timeInForce": "GTC"} if type in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT") else {}
        return self.send("POST", "order", symbol=symbol, side=side, type=type, **timed | params)

    def query(self, client_id: str, symbol: str = "BTCUSDT") -> Answer:
        """Ask about an order by its client id."""
        return self.send("GET", "order", symbol=symbol, origClientOrderId=client_id)

    def status(self, client_id: str, symbol: str = "BTCUSDT") -> str:
        """Return what an order has come to."""
        return str(self.query(client_id, symbol).body["status"])

    def money(self, asset: str) -> tuple[str, str]:
        """Return what is free and locked of an asset."""
        balances = {held["asset"]: held for held in self.send("GET", "account").body["balances"]}
        held = balances.get(asset, {"free": "0", "locked": "0"})
        return held["free"], held["locked"]


@dataclass
class Listening:
    """A connection to the WebSocket API that hears user data."""

    socket: ClientConnection
    key: str
    secret: str

    def ask(self, method: str, signed: bool = True, **params: Any) -> dict[str, Any]:
        """Send a request and return its answer; events in between are lost."""
        told: dict[str, Any] = dict(params)
        if signed:
            told |= {"apiKey": self.key, "timestamp": int(time.time() * 1000)}
            told["signature"] = sign(self.secret, socket_payload(told)[0])
        self.socket.send(json.dumps({"id": "one", "method": method, "params": told}))
        while True:
            answer: dict[str, Any] = json.loads(self.socket.recv(timeout=10))
            if "id" in answer:
                return answer

    def events(self, wait_s: float = 0.4) -> list[dict[str, Any]]:
        """Return what arrives until nothing does for a while."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                told = json.loads(self.socket.recv(timeout=wait_s))
            except (TimeoutError, ConnectionClosed):
                return found
            found.append(told.get("event", told))


@contextmanager
def listening(venue: RunningBinance, key: str = "", secret: str = "") -> Iterator[Listening]:
    """Yield a connection that hears an account's events."""
    with connect(f"{venue.ws_url}/ws-api/v3", ping_interval=None) as socket:
        heard = Listening(socket, key or venue.key, secret or venue.secret)
        answer = heard.ask("userDataStream.subscribe.signature")
        assert answer["result"] == {"subscriptionId": 0}, answer
        yield heard


def bare(venue: RunningBinance) -> BareClient:
    """Return a client with the first account's keys."""
    return BareClient(venue, venue.key, venue.secret)


__all__ = ["Answer", "BareClient", "Listening", "RemoteDisconnected", "bare", "listening"]
