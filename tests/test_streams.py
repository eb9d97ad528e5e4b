"""Bars and signals over real WebSockets: who listens, who comes back, who is slow, who may not, and two processes."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import nbformat
import pytest
from test_agents_http import BARS, EURUSD, Market
from test_service_http import TOKEN, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orbiquant.core import configure_logging
from orbiquant.domain import SeriesId
from orbiquant.service import serving, stream_routes
from orbiquant.service.keys import create_api_key, list_api_keys, revoke_api_key
from orbiquant.service.streams import Hub, StreamEvent, StreamListener, numbered_text
from tests.benchmarks.bench_streams import measure_streams
from tests.tools.house import ROOT

GBPUSD = SeriesId.parse("GBPUSD", "1h")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    configure_logging("WARNING")
    made = Market(tmp_path_factory.mktemp("streams"))
    made.runtime.store.upsert(GBPUSD, BARS.iloc[: made.at])
    return made


@pytest.fixture(scope="module")
def address(market: Market) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, market.runtime) as url:
        yield url.replace("http", "ws")


def close(market: Market, series: SeriesId = EURUSD) -> None:
    """Let a bar close, as another process writes it."""
    market.runtime.store.upsert(series, BARS.iloc[market.at : market.at + 1])
    market.at += 1
    market.clock.advance(BARS.index[1] - BARS.index[0])


class Ear:
    """A client of a stream, which looks at every message."""

    def __init__(self, line: ClientConnection) -> None:
        self.line, self.epoch, self.seq = line, "", 0

    async def next(self, kind: str = "") -> dict[str, Any]:
        """Return the next message, or the next of a kind."""
        while True:
            told = json.loads(await asyncio.wait_for(self.line.recv(), 30))
            self.epoch = told.get("epoch", self.epoch)
            if told["type"] in ("bar", "signal"):
                assert told["seq"] > self.seq
            self.seq = told.get("seq", self.seq)
            if kind in ("", told["type"]):
                return told

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.line.send(json.dumps(message))


@asynccontextmanager
async def listening(address: str, stream: str = "market", key: str = TOKEN, **query: Any) -> AsyncIterator[Ear]:
    """Yield a client that has been told hello."""
    asked = "&".join(f"{name}={value}" for name, value in ({"token": key} | query).items())
    async with connect(f"{address}/ws/{stream}?{asked}", open_timeout=10) as line:
        ear = Ear(line)
        assert (await ear.next())["type"] == "hello"
        told = await ear.next("subscribed")
        assert bool(told["series"]) is bool(query.get("symbols"))
        assert told["series"] or "nothing is subscribed yet: send {" in told["message"]
        yield ear


def test_a_bar_and_its_signal_are_told_once_each_has_closed(address: str, market: Market):
    async def main() -> None:
        async with (
            listening(address, symbols="EUR/USD,GBPUSD", timeframe="1h") as bars,
            listening(address, "signals", symbols="EURUSD") as signals,
            listening(address) as later,
        ):
            close(market)
            told = await bars.next()
            assert told["type"] == "bar" and told["symbol"] == "EURUSD" and told["timeframe"] == "1h"
            assert told["seq"] == 1 and list(told["bar"]) == ["time", "open", "high", "low", "close", "volume"]
            assert told["bar"]["close"] == BARS["close"].iloc[market.at - 1]
            said = await signals.next()
            async with httpx.AsyncClient(base_url=address.replace("ws", "http", 1), timeout=30) as http:
                latest = await http.get("/api/v1/signals/latest/EURUSD", headers={"X-API-Key": TOKEN})
            wanted = latest.json()["signal"]
            assert said["type"] == "signal" and said["symbol"] == "EURUSD" and said["seq"] == 1
            assert said["signal"] | {"age_s": 0} == wanted | {"age_s": 0}
            assert said["signal"]["action"] in ("buy", "sell", "hold")
            await later.say(type="subscribe", symbols=["GBPUSD"], timeframe="1h")
            assert (await later.next())["type"] == "subscribed"
            market.at -= 1
            close(market, GBPUSD)
            assert (await bars.next())["seq"] == 2 and (await later.next())["symbol"] == "GBPUSD"
            await later.say(type="unsubscribe", symbols=["GBPUSD"], timeframe="1h")
            assert (await later.next())["type"] == "unsubscribed"

    asyncio.run(main())


def test_the_client_of_the_documentation_hears(address: str, market: Market):
    cells = [cell.source for cell in nbformat.read(ROOT / "nbs" / "94_scale.ipynb", 4).cells]
    [source] = [each for each in cells if "async def follow(" in each]
    made: dict[str, Any] = {}
    exec(source, made)

    async def main() -> list[str]:
        heard: list[str] = []
        async with aclosing(made["follow"](f"{address}/ws/market", TOKEN, "EURUSD")) as stream:
            async for told in stream:
                heard.append(told["type"])
                if told["type"] == "subscribed":
                    close(market)
                if told["type"] == "bar":
                    break
        return heard

    assert asyncio.run(asyncio.wait_for(main(), 60)) == ["hello", "subscribed", "bar"]


def test_who_comes_back_misses_nothing_and_is_told_of_what_is_gone(address: str, market: Market):
    async def main() -> None:
        async with listening(address, symbols="EURUSD", timeframe="1h") as first:
            close(market)
            seen = await first.next()
        close(market)
        close(market)
        async with listening(address, symbols="EURUSD", timeframe="1h", epoch=first.epoch, since=seen["seq"]) as again:
            numbers = [(await again.next())["seq"] for _ in range(2)]
            assert numbers == [seen["seq"] + 1, seen["seq"] + 2]
        async with connect(f"{address}/ws/market?token={TOKEN}&symbols=EURUSD&epoch=another&since=1") as line:
            ear = Ear(line)
            hello, _, gap = [await ear.next() for _ in range(3)]
            assert gap == {"type": "gap", "from": 1, "to": hello["seq"]} and hello["seq"] == numbers[-1]

    asyncio.run(main())


def test_what_is_wrong_is_told_and_again_and_again_is_the_end(address: str, market: Market):
    async def main() -> None:
        async with listening(address, symbols="EURUSD") as ear:
            for text, part in (
                ("{", "JSON object"), ("[1]", "`message`"), ('{"type": "shout", "symbols": ["A"]}', "`type`"),
                ('{"type": "subscribe", "symbols": []}', "symbols"), ("x" * 20_000, "at most"),
                ('{"type": "subscribe", "symbols": ["EURUSX"]}', "did you mean 'EURUSD'"),
                ('{"type": "subscribe", "symbols": ["EURUSD"], "timefame": "1h"}', "did you mean 'timeframe'"),
            ):  # fmt: skip
                await ear.line.send(text)
                told = await ear.next()
                assert told["type"] == "error" and part in told["message"] and told["error"] and told["details"] == {}
            await ear.line.send(b"bytes")
            assert "binary" in (await ear.next())["message"]
            for _ in range(stream_routes.MOST_FAULTS):
                await ear.line.send("{")
            with pytest.raises(ConnectionClosed):
                while True:
                    await ear.next()
            assert ear.line.close_code == 1008
        for query in (
            "since=x",
            "timeframe=2h",
            "epoch=a&epoch=b",
            "symbls=EURUSD",
            "epoch=a&since=1",
            "symbols=EURUSD&since=1",
        ):
            async with connect(f"{address}/ws/market?token={TOKEN}&{query}") as line:
                assert json.loads(await line.recv())["type"] == "error"
                await line.wait_closed()
                assert line.close_code == 1008

    asyncio.run(main())


def test_who_may_not_listen_is_refused(address: str, market: Market):
    def key(plan: str, *scopes: str) -> str:
        return create_api_key(market.runtime.engine, f"test {plan}", "ana", plan, scopes, market.clock)

    async def main() -> None:
        for wrong in ("", "?token=wrong"):
            with pytest.raises(InvalidStatus):
                await connect(f"{address}/ws/market{wrong}").__aenter__()
        with pytest.raises(InvalidStatus):
            await connect(f"{address}/ws/market?token={TOKEN}", origin="https://evil.example").__aenter__()
        for stream, secret, code in (
            ("signals", key("free", "read"), "PLAN_REQUIRED"), ("market", key("pro", "write"), "FORBIDDEN"),
        ):  # fmt: skip
            async with connect(f"{address}/ws/{stream}?token={secret}") as line:
                assert json.loads(await line.recv())["error"] == code
                await line.wait_closed()
                assert line.close_code == 1008
        async with listening(address, key=key("free", "read"), symbols="EURUSD"):
            pass

    asyncio.run(main())


def test_a_key_that_is_withdrawn_hears_no_more(address: str, market: Market, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_routes, "RECHECK_S", 0.1)
    engine = market.runtime.engine
    secret = create_api_key(engine, "withdrawn", "ana", "pro", ("read",), market.clock)

    async def main() -> None:
        async with listening(address, key=secret, symbols="EURUSD") as ear:
            (prefix,) = [each.prefix for each in list_api_keys(engine) if each.name == "withdrawn"]
            revoke_api_key(engine, prefix, market.clock)
            with pytest.raises(ConnectionClosed):
                while True:
                    await ear.next()
            assert ear.line.close_code == 1008

    asyncio.run(main())


def test_of_an_empty_stream_nothing_is_missed():
    hub, back, stays = Hub("market"), StreamListener(), StreamListener()
    hub.join(back, "another", 7)
    hub.join(stays)
    hub.begin("third", 0)
    assert not [text for each in (back, stays) for text in each.waiting if '"gap"' in text]
    hub.begin("fourth", 3)
    hub.begin("fourth", 3)
    gaps = [text for text in stays.waiting if '"gap"' in text]
    assert [json.loads(text) for text in gaps] == [{"type": "gap", "from": 1, "to": 3}], "and once is enough"


def test_who_is_slow_is_let_go_and_nobody_else_notices():
    async def main() -> None:
        hub, slow, quick, other = Hub("market"), StreamListener(1), StreamListener(), StreamListener()
        for each, series in ((slow, EURUSD), (quick, EURUSD), (other, GBPUSD)):
            each.series.add(series)
            hub.join(each)
        for seq in range(1, 101):
            hub.add(StreamEvent(seq, EURUSD, numbered_text("bar", seq, '{"symbol":"EURUSD"}')))
        assert slow.overflow.is_set() and not quick.overflow.is_set() and len(other.waiting) == 1
        seen = [json.loads(await quick.next()) for _ in range(101)]
        assert [each["seq"] for each in seen] == [0, *range(1, 101)]
        late = StreamListener(1)
        late.series.add(EURUSD)
        hub.kept = type(hub.kept)([*hub.kept][-10:], 10)
        hub.join(late, hub.epoch, 50)
        told = [json.loads(await late.next()) for _ in range(12)]
        assert told[0]["seq"] == 50 and told[1] == {"type": "gap", "from": 51, "to": 90}
        assert [each["seq"] for each in told[2:]] == [*range(91, 101)] and not late.overflow.is_set()

    asyncio.run(main())


def handshake(address: str, path: str) -> socket.socket:
    """Return a socket whose WebSocket is open, and whose owner will never read a word."""
    host, port = address.removeprefix("ws://").split(":")
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect((host, int(port)))
    line.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert line.recv(12) == b"HTTP/1.1 101"
    return line


def test_a_client_that_reads_nothing_is_dropped_alone(market: Market):
    from orbiquant.app import app

    async def main(address: str) -> None:
        deaf = handshake(address, f"/ws/market?token={TOKEN}&symbols=EURUSD&timeframe=1h")
        async with listening(address, symbols="EURUSD", timeframe="1h") as ear:
            hub = app.state.streams.hubs["market"]
            while len(hub.listeners) < 2:
                await asyncio.sleep(0.01)
            seq, loop = hub.seq, app.state.streams._tasks[0].get_loop()
            body = json.dumps({"symbol": "EURUSD", "pad": "x" * 20_000})
            for number in range(1, 1_501):
                event = StreamEvent(seq + number, EURUSD, numbered_text("bar", seq + number, body))
                loop.call_soon_threadsafe(hub.add, event)
                assert (await ear.next("bar"))["seq"] == seq + number
            until = time.monotonic() + 10
            while len(hub.listeners) > 1 and time.monotonic() < until:
                await asyncio.sleep(0.02)
            assert len(hub.listeners) == 1, "only the one that reads"
        deaf.close()

    with running(app, market.runtime, patience_s=1.0) as url:
        asyncio.run(main(url.replace("http", "ws")))


def test_a_half_open_client_dies_by_its_missing_pong(market: Market, monkeypatch: pytest.MonkeyPatch):
    from orbiquant.app import app

    monkeypatch.setattr(serving, "PING_S", 0.2)
    with running(app, market.runtime, patience_s=1.0) as url:
        address = url.replace("http", "ws")
        line = handshake(address, f"/ws/market?token={TOKEN}&symbols=EURUSD&timeframe=1h")
        hub, until = app.state.streams.hubs["market"], time.monotonic() + 10
        while not hub.listeners and time.monotonic() < until:
            time.sleep(0.01)
        assert hub.listeners
        while hub.listeners and time.monotonic() < until:
            time.sleep(0.02)
        assert not hub.listeners, "no pong came"
        line.close()


@pytest.mark.slow
def test_many_clients_of_another_process_miss_nothing():
    pace = measure_streams(clients=50, per_s=10, seconds=3)
    assert (pace.missing, pace.twice) == (0, 0), pace
