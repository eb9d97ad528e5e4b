"""What the service does at a given rate: how late answers are, how many durable writes it takes, whether memory stays.

`python -m tests.benchmarks.bench_load rate` asks 500 reads a second and writes as fast as they go, for two minutes;
`… soak --minutes 120` asks 50 requests a second with agents running.

Requests begin when the clock says so, whether or not earlier ones are answered: an answer that waits behind another is
late by all of that. The client is a process of its own on the same machine, so that its part is in every figure.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil

from tests.benchmarks.bench_service import PROGRAM, make_home, started
from tests.tools.postgres import running_postgres

READS = (
    "/api/v1/signals/latest/EURUSD",
    "/api/market_data?symbol=EURUSD&timeframe=1h&bars=100",
    "/api/v1/me",
    "/health",
)
SOAKED = (
    *READS,
    "/agents",
    "/api/portfolio",
    "/api/alerts",
    "/api/phases?symbol=EURUSD",
    "/metrics",
    "/investment/products",
)
WRITES = {  # a row alone, and one that is looked at beside the newest bar of the store
    "PUT /api/v1/preferences": json.dumps({"changes": {"level": "beginner"}}).encode(),
    "POST /api/alerts": json.dumps({"symbol": "EURUSD", "condition": "above", "price": 9.5, "message": "x"}).encode(),
}


class Latency(NamedTuple):
    """What came of a run."""

    asked: int
    seconds: float
    statuses: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        return (
            f"{self.asked / self.seconds:,.0f}/s, p50 {self.p50_ms:.1f}, p99 {self.p99_ms:.1f}, "
            f"max {self.max_ms:.0f} ms, statuses {self.statuses}"
        )


class Client:
    """Some connections, each with one request at a time."""

    def __init__(self, port: int, key: str, connections: int) -> None:
        self.port, self.key, self.size = port, key, connections
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.took: list[float] = []
        self.statuses = Counter[str]()

    async def open(self) -> None:
        for _ in range(self.size):
            self.free.put_nowait(await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, what: str, due: float, body: bytes = b"") -> None:
        """Ask, and note how long after it was due the answer was there."""
        reader, writer = await self.free.get()
        sent = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{what} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {self.key}\r\n{sent}\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        self.free.put_nowait((reader, writer))
        self.took.append(time.perf_counter() - due)
        self.statuses[answer[9:12].decode()] += 1

    def latency(self, seconds: float) -> Latency:
        at = quantiles(self.took, n=100)
        figures = 1e3 * at[49], 1e3 * at[98], 1e3 * max(self.took)
        return Latency(len(self.took), seconds, dict(self.statuses), *figures)


async def at_rate(port: int, key: str, paths: Sequence[str], per_s: float, seconds: float, connections: int) -> Latency:
    """Ask so many times a second, one path after another."""
    client = Client(port, key, connections)
    await client.open()
    begin, asked = time.perf_counter(), []
    for number in range(int(per_s * seconds)):
        due = begin + number / per_s
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        asked.append(asyncio.create_task(client.ask(f"GET {paths[number % len(paths)]}", due)))
    await asyncio.gather(*asked)
    return client.latency(time.perf_counter() - begin)


async def writing(port: int, key: str, what: str, connections: int, seconds: float) -> Latency:
    """Write as fast as so many clients can who each wait for their answer."""
    client = Client(port, key, connections)
    await client.open()
    begin = time.perf_counter()

    async def keep_on() -> None:
        while time.perf_counter() < begin + seconds:
            await client.ask(what, time.perf_counter(), WRITES[what])

    await asyncio.gather(*(keep_on() for _ in range(connections)))
    return client.latency(time.perf_counter() - begin)


def apart(load: str, port: int, key: str, **facts: Any) -> Latency:
    """Run a load in a process of its own."""
    words = [sys.executable, "-m", "tests.benchmarks.bench_load", "client", json.dumps([load, port, key, facts])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return Latency(*json.loads(done.stdout))


def client_main(text: str) -> None:
    """Be the client of a load."""
    import uvloop

    load, port, key, facts = json.loads(text)
    print(json.dumps(uvloop.run({"rate": at_rate, "writing": writing}[load](port, key, **facts))))


@contextmanager
def served(*options: str, **settings: str) -> Iterator[tuple[psutil.Process, int, str]]:
    """Yield a service with bars, a model and a key for everything: its process, port and key."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        plenty = {"ORBIQUANT_NOTICES_ALERTS": "100000"} | settings
        os.environ |= plenty
        make_home(home)
        words = [PROGRAM, "service", "keys", "create", "load", "--json", *(f"--scope={s}" for s in SCOPES)]
        plain = os.environ | {"ORBIQUANT_HOME": str(home)}
        made = subprocess.run(words, cwd=home, env=plain, capture_output=True, text=True, check=True)
        (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in plenty.items()))
        with started([PROGRAM, "serve", "--port", "0", *options], home, home / "serve.log") as server:
            yield psutil.Process(server.process.pid), server.port, str(json.loads(made.stdout)["key"])


SCOPES = ("read", "write", "trade", "operate")


def measure_rates() -> None:
    """Print how late answers are at 500 a second, and how many durable writes there are."""
    with served("--no-work") as (_, port, key):
        apart("rate", port, key, paths=READS, per_s=50, seconds=5, connections=8)
        print("kept reads, 500/s asked, 32 connections:")
        for path in READS:
            told = apart("rate", port, key, paths=[path], per_s=500, seconds=10, connections=32)
            print(f"  {path}: {told}", flush=True)
    for database in ("sqlite", "postgresql"):
        with running_postgres(durable=True) if database == "postgresql" else nullcontext("") as url:
            said = {"ORBIQUANT_WORKSPACE_DATABASE_URL": url} if url else {}
            with served("--no-work", **said) as (_, port, key):
                for what, clients in product(WRITES, (1, 8, 32)):
                    told = apart("writing", port, key, what=what, connections=clients, seconds=5)
                    print(f"{what} on {database}, {clients} clients: {told}", flush=True)
            os.environ.pop("ORBIQUANT_WORKSPACE_DATABASE_URL", None)


def soak(minutes: float) -> None:
    """Print every minute how late answers were and how much memory is held, with agents running beside."""
    with served() as (process, port, key):
        started_ = apart("rate", port, key, paths=READS, per_s=10, seconds=3, connections=4)
        print(f"warm: {started_}")
        for minute in range(1, int(minutes) + 1):
            told = apart("rate", port, key, paths=SOAKED, per_s=50, seconds=60, connections=16)
            family = [process, *process.children(recursive=True)]
            held = " + ".join(f"{each.memory_info().rss / 1e6:.0f}" for each in family)
            print(f"minute {minute}: {told}; memory {held} MB", flush=True)


def main() -> None:
    """Do what is asked for."""
    if sys.argv[1:2] == ["client"]:
        client_main(sys.argv[2])
        return
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", choices=["rate", "soak"])
    asked.add_argument("--minutes", type=float, default=120)
    given = asked.parse_args()
    measure_rates() if given.what == "rate" else soak(given.minutes)


if __name__ == "__main__":
    main()
