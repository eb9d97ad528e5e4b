"""How fast the service answers beside a bare FastAPI route that returns the same bytes, in one run, round by round.

Run `python -m tests.benchmarks.bench_service` from the root of the repository; it takes about three minutes. Both are
processes of their own with the same server flags; the client speaks HTTP by hand, so that it takes little of the time.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from orbiquant.domain import SeriesId
from orbiquant.market.store import DeltaBarStore
from orbiquant.market.synthetic import synthetic_market

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
PROGRAM = Path(sys.executable).with_name("orbiquant")
SERIES = SeriesId.parse("EURUSD", "1h")
PATHS = {"health": "/health", "signal": "/api/v1/signals/latest/EURUSD", "analysis": "/api/analysis?symbol=EURUSD"}
CLIENTS = (1, 4, 16)
ROUNDS, ROUND_S = 7, 1.0
GOAL = 0.70
MOST_MEMORY_MB, MOST_FIRST_S = 200, 5.0

BARE = """
import sys
from pathlib import Path
import uvicorn
from fastapi import FastAPI, Response
from orbiquant.service.serving import listen

app = FastAPI()


def route(content):
    async def answer():
        return Response(content, media_type="application/json")

    return answer


for place in sys.argv[1:]:
    app.add_api_route("/" + Path(place).stem, route(Path(place).read_bytes()))
with listen("127.0.0.1", 0) as listener:
    print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]}/", file=sys.stderr, flush=True)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])
"""


class Server(NamedTuple):
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """Return the megabytes it holds in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


class Pace(NamedTuple):
    """What a server did in one round."""

    answers_per_s: float
    server_us: float  # CPU of the server, each answer
    client_us: float  # CPU of the client, each answer


# --- a client that takes little of the time ---


class Line(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until, self.answers, self.left = request, until, 0, 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.wire: Any = None
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self.wire = transport
        self.wire.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count an answer when its last byte is there, and ask again."""
        if self.left == 0:
            self.head += data
            head, found, body = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(SystemExit(f"{self.request!r} was answered {head!r} {body[:300]!r}"))
                return
            low = head.lower()
            at = low.index(b"content-length:") + 15
            self.left = int(low[at : low.find(b"\r", at) if b"\r" in low[at:] else None]) - len(body)
            self.head = b""
        else:
            self.left -= len(data)
        if self.left == 0:
            self.answers += 1
            if time.perf_counter() < self.until:
                self.wire.write(self.request)
            elif not self.done.done():
                self.wire.close()
                self.done.set_result(self.answers)


async def ask_on(port: int, request: bytes, clients: int, seconds: float) -> int:
    """Return how many answers some connections had in so many seconds."""
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    lines = [(await loop.create_connection(lambda: Line(request, until), "127.0.0.1", port))[1] for _ in range(clients)]
    return sum([await line.done for line in lines])


def run_client(port: str, path: str, key: str, clients: str, seconds: str) -> None:
    """Ask, and print the answers counted, the seconds they took and the CPU seconds of this process."""
    import uvloop

    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{f'X-API-Key: {key}' if key else 'Accept: */*'}\r\n\r\n"
    busy, began = time.process_time(), time.perf_counter()
    answers = uvloop.run(ask_on(int(port), request.encode(), int(clients), float(seconds)))
    print(json.dumps([answers, time.perf_counter() - began, time.process_time() - busy]))


def measure_pace(server: Server, path: str, key: str, clients: int, seconds: float) -> Pace:
    """Return how a server did with some clients, which live in another process."""
    busy = server.cpu_s
    words = [sys.executable, __file__, "client", str(server.port), path, key, str(clients), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    answers, took, client_s = json.loads(done.stdout)
    return Pace(answers / took, 1e6 * (server.cpu_s - busy) / answers, 1e6 * client_s / answers)


# --- the servers ---


@contextmanager
def started(words: Sequence[str | Path], home: Path, log: Path) -> Iterator[Server]:
    """Yield a server once it says where it listens."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    plain |= {"ORBIQUANT_HOME": str(home), "ORBIQUANT_SERVICE_REQUESTS_PER_MINUTE": "100000000"}
    with log.open("w") as output, subprocess.Popen(words, cwd=home, env=plain, stderr=output) as process:
        try:
            yield Server(process, wait_for_port(process, log))
        finally:
            process.terminate()


def wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port that a server says it listens on."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"Serving on http://[\w.]+:(\d+)/", log.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")


def get(port: int, path: str, key: str) -> bytes:
    """Return one answer's body."""
    link = HTTPConnection("127.0.0.1", port, timeout=300)
    link.request("GET", path, headers={"X-API-Key": key} if key else {})
    answer = link.getresponse()
    body = answer.read()
    link.close()
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}: {body[:500]!r}")
    return body


def make_home(home: Path) -> str:
    """Fill a workspace with bars and a kept model, and return a key to its service."""
    DeltaBarStore(home / "data" / "store").upsert(SERIES, synthetic_market(3000, "1h", seed=11).bars)
    shutil.copytree(MODELS / "EURUSD_1h", home / "data" / "models" / "EURUSD_1h")
    plain = os.environ | {"ORBIQUANT_HOME": str(home)}
    words = [PROGRAM, "service", "keys", "create", "bench", "--json"]
    made = subprocess.run(words, cwd=home, env=plain, capture_output=True, text=True, check=True)
    return str(json.loads(made.stdout)["key"])


# --- the table ---


def compare(ours: Server, bare: Server, name: str, key: str, clients: int) -> str:
    """Return one line of the table: some rounds, one server after the other in each."""
    asked = "" if name == "health" else key
    pairs = [
        (
            measure_pace(bare, f"/{name}", asked, clients, ROUND_S),
            measure_pace(ours, PATHS[name], asked, clients, ROUND_S),
        )
        for _ in range(ROUNDS)
    ]
    ratios = [own.answers_per_s / other.answers_per_s for other, own in pairs]
    other, own = (
        [statistics.median(pair[side][field] for pair in pairs) for field in range(len(Pace._fields))]
        for side in (0, 1)
    )
    return (
        f"| {PATHS[name]} | {clients} | {other[0]:,.0f} | {own[0]:,.0f} | {statistics.median(ratios):.0%} "
        f"| {min(ratios):.0%} to {max(ratios):.0%} | {other[1]:.0f} | {own[1]:.0f} | {own[2]:.0f} |"
    )


def main() -> None:
    """Print the table."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        key = make_home(home)
        with started([PROGRAM, "serve", "--port", "0", "--no-work"], home, home / "serve.log") as ours:
            memory = ours.memory_mb
            began, busy = time.perf_counter(), ours.cpu_s
            get(ours.port, PATHS["signal"], key)
            first, busy = time.perf_counter() - began, ours.cpu_s - busy
            print(f"Memory at start: {memory:.0f} MB (goal: below {MOST_MEMORY_MB})")
            print(f"First signal after start: {first:.2f} s, {busy:.2f} s of CPU (goal: {MOST_FIRST_S:g})", flush=True)
            get(ours.port, PATHS["analysis"], key)
            places = [home / f"{name}.json" for name in PATHS]
            for name, place in zip(PATHS, places, strict=True):
                place.write_bytes(get(ours.port, PATHS[name], "" if name == "health" else key))
            with started([sys.executable, "-c", BARE, *map(str, places)], home, home / "bare.log") as bare:
                print(f"\n{ROUNDS} rounds of {ROUND_S:g} s, bare and ours in turn; goal: {GOAL:.0%} of bare\n")
                print("| path | clients | bare/s | ours/s | ours of bare | rounds | bare µs | ours µs | client µs |")
                print("|---|---:|---:|---:|---:|---|---:|---:|---:|")
                for name in PATHS:
                    for clients in CLIENTS:
                        print(compare(ours, bare, name, key, clients), flush=True)
            print(f"\nMemory afterwards: {ours.memory_mb:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        run_client(*sys.argv[2:])
    else:
        main()
