"""How late a bar is at each of many WebSockets, from the commit in the store on, and whether any of them misses one.

Run `python -m tests.benchmarks.bench_streams` from the root of the repository; it takes about half a minute. The
service is a process of its own; the store is written by this one, as by a pull, and read by its watcher.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import psutil
from websockets.asyncio.client import ClientConnection, connect

from orbiquant.domain import SeriesId
from orbiquant.market.store import DeltaBarStore
from orbiquant.market.synthetic import synthetic_market
from tests.tools.programs import run_program

COINS = ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX", "LINK", "LTC")
CLIENTS, PER_S, SECONDS = 200, 10, 10
STORED = 200  # bars of each before the first that is told


class StreamPace(NamedTuple):
    """What came of a run."""

    clients: int
    sent: int  # bars that were written
    heard: int  # messages at all clients
    missing: int  # of them; 0 is the promise
    twice: int
    seconds: float  # from the first write to the last message
    p50_ms: float
    p99_ms: float
    server_cpu: float  # cores that the service took
    server_mb: float

    def __str__(self) -> str:
        rate = self.heard / self.seconds
        return (
            f"{self.clients} clients, {self.sent} bars: {rate:,.0f} messages/s, {self.missing} missing, "
            f"{self.twice} twice; from commit to client p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms; "
            f"service {self.server_cpu:.2f} cores, {self.server_mb:.0f} MB"
        )


class Load:
    """Ten series of one minute, of which one bar after another is written."""

    def __init__(self, folder: Path, sent: int) -> None:
        self.store = DeltaBarStore(f"{folder}/store")
        self.bars = synthetic_market(STORED + sent // len(COINS) + 1, "1m", seed=3).bars
        self.series = [SeriesId.parse(f"{coin}USDT", "1m") for coin in COINS]
        self.written: dict[tuple[str, str], float] = {}
        self.sent = sent
        for each in self.series:
            self.store.upsert(each, self.bars.iloc[:STORED])

    def write(self, per_s: float) -> None:
        """Write them at a pace, as far as the store keeps up."""
        begin = time.perf_counter()
        for number in range(self.sent):
            series = self.series[number % len(self.series)]
            at = STORED + number // len(self.series)
            time.sleep(max(0.0, begin + number / per_s - time.perf_counter()))
            self.store.upsert(series, self.bars.iloc[at : at + 1])
            stamp = f"{self.bars.index[at]:%Y-%m-%dT%H:%M:%SZ}"
            self.written[series.symbol, stamp] = time.perf_counter()


async def listen(line: ClientConnection, sent: int) -> list[tuple[int, str, str, float]]:
    """Return number, symbol, time and moment of all that a client hears."""
    heard: list[tuple[int, str, str, float]] = []
    async for text in line:
        told = json.loads(text)
        if told["type"] == "bar":
            heard.append((told["seq"], told["symbol"], told["bar"]["time"], time.perf_counter()))
        if len(heard) == sent:
            break
    return heard


async def ask(address: str, token: str, load: Load, clients: int, per_s: float) -> tuple[list[Any], float]:
    """Return what each client heard of a load, and how long it took."""
    symbols = ",".join(each.symbol for each in load.series)
    async with AsyncExitStack() as stack:
        lines = []
        for _ in range(clients):
            place = f"ws://{address}/ws/market?token={token}&symbols={symbols}&timeframe=1m"
            lines.append(await stack.enter_async_context(connect(place, open_timeout=30, compression=None)))
        for line in lines:
            while json.loads(await line.recv())["type"] != "subscribed":
                pass
        begin = time.perf_counter()
        tasks = [asyncio.create_task(listen(line, load.sent)) for line in lines]
        await asyncio.to_thread(load.write, per_s)
        await asyncio.wait(tasks, timeout=30)
        took = time.perf_counter() - begin
        return [task.result() if task.done() else [] for task in tasks], took


def measure_streams(
    clients: int = CLIENTS, per_s: float = PER_S, seconds: float = SECONDS, redis: str = ""
) -> StreamPace:
    """Return what many clients hear of bars that are written at a pace."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        load = Load(Path(name), int(per_s * seconds))
        command = [sys.executable, "-m", "tests.tools.stream_desk", name, redis]
        with run_program(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            place = urlsplit(process.stdout.readline().strip())
            token, known = parse_qs(place.query)["token"][0], psutil.Process(process.pid)
            before = known.cpu_times()
            heard, took = asyncio.run(ask(f"{place.hostname}:{place.port}", token, load, clients, per_s))
            after, memory = known.cpu_times(), known.memory_info().rss
            process.terminate()
            process.wait(20)
    late = [1000 * (at - load.written[symbol, time_]) for each in heard for _, symbol, time_, at in each]
    seen: list[dict[tuple[str, str], int]] = [defaultdict(int) for _ in heard]
    for counts, each in zip(seen, heard, strict=True):
        for _, symbol, time_, _ in each:
            counts[symbol, time_] += 1
    cuts = quantiles(late, n=100)
    cpu = (after.user + after.system - before.user - before.system) / took
    missing, twice = (
        sum(load.sent - len(each) for each in seen), sum(count - 1 for each in seen for count in each.values()),
    )  # fmt: skip
    return StreamPace(clients, load.sent, len(late), missing, twice, took, cuts[49], cuts[98], cpu, memory / 1024**2)


if __name__ == "__main__":
    print(measure_streams())
