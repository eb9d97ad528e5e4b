"""How fast the whole line is, from stored bars to a served signal, written to reports/benchmarks/line.md.

Run `python -m tests.benchmarks.bench_line` from the root of the repository; it takes some minutes.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from orbiquant.core import atomic_write, code_version
from orbiquant.domain import Bars, SeriesId
from orbiquant.runtime import Runtime
from tests.benchmarks import bench_ict

ROWS, TRAIN_ROWS, SEED = 630_478, 200_000, 7
SYMBOL, TIMEFRAME = "BTCUSDT", "5m"
SERIES = SeriesId.parse(SYMBOL, TIMEFRAME)
REQUESTS, CLIENTS = 300, 4
SLOW_S = 5.0
LIBRARIES = ("pandas", "deltalake", "xgboost", "vectorbt", "numba")
OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "line.md"
PROGRAM = Path(sys.executable).with_name("orbiquant")
ENDPOINTS = {
    "`/health`": "/health",
    "100 bars": "/api/market_data?symbol=EURUSD&timeframe=1h&bars=100",
    "latest signal, kept": "/api/v1/signals/latest/EURUSD",
}


class Figure(NamedTuple):
    """One line of the table."""

    part: str
    what: str
    took: str
    pace: str = ""
    note: str = ""


# --- measuring ---


def timed(work: Callable[[], Any]) -> float:
    """Return the wall seconds of one run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_of(work: Callable[[], Any], runs: int = 3) -> tuple[float, str]:
    """Return the median seconds of some runs, or of one where that is slow, and which it was."""
    took = [timed(work)]
    if took[0] < SLOW_S:
        took += [timed(work) for _ in range(runs - 1)]
    return statistics.median(took), f"median of {len(took)}" if len(took) > 1 else "one run"


def measure(part: str, what: str, work: Callable[[], Any], rows: int, note: str = "") -> Figure:
    """Return the figure of work that goes through `rows` bars."""
    seconds, runs = median_of(work)
    return Figure(
        part, what, f"{seconds:.3f} s", f"{rows / seconds:,.0f} bars/s", "; ".join(filter(None, (note, runs)))
    )


def stages(part: str, seconds: dict[str, float], note: str = "") -> list[Figure]:
    """Return what a stopwatch kept, one figure a stage."""
    return [Figure(part, name.strip(), f"{took:.2f} s", "", note) for name, took in seconds.items()]


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a program that works in `home` with the packaged settings and these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    return plain | {"ORBIQUANT_HOME": str(home)} | settings


# --- store ---


def store_figures(bars: Bars, folder: Path) -> Iterator[Figure]:
    """Yield what the store takes beside one plain Parquet file of the same rows."""
    from orbiquant.market.store import DeltaBarStore
    from orbiquant.market.windows import clip

    fresh = (DeltaBarStore(folder / f"store{i}") for i in range(9))
    store, file = DeltaBarStore(folder / "store0"), folder / "bars.parquet"
    year = bars.index[-1].year - 1
    start, end = pd.Timestamp(f"{year}-01-01", tz="UTC"), pd.Timestamp(f"{year + 1}-01-01", tz="UTC")
    rows, inside = len(bars), [("time", ">=", start), ("time", "<", end)]
    some = len(clip(bars, (start, end)))
    plain, peer = "one unversioned file, nothing checked", "pandas, Parquet"
    yield measure(
        "store",
        "write",
        lambda: next(fresh).upsert(SERIES, bars),
        rows,
        "bars checked, by year",
    )
    yield measure(peer, "write", lambda: bars.to_parquet(file), rows, plain)
    yield measure("store", "read all", lambda: store.read(SERIES), rows)
    yield measure(peer, "read all", lambda: pd.read_parquet(file), rows, plain)
    yield measure(
        "store",
        f"read {year}",
        lambda: store.read(SERIES, start, end),
        some,
        f"{some:,} bars",
    )
    yield measure(peer, f"read {year}", lambda: pd.read_parquet(file, filters=inside), some, f"{some:,} bars")


# --- features, signals, backtest ---


def random_predictions(bars: Bars) -> pd.DataFrame:
    """Return probabilities and ranges that know nothing, one row a bar."""
    rng = np.random.default_rng(SEED)
    chances = {name: rng.beta(4, 8, len(bars)) for name in ("p_long", "p_short")}
    ranges = {"up_0.5": 0.005, "up_0.9": 0.01, "down_0.5": 0.005, "down_0.9": 0.01}
    return pd.DataFrame(chances | ranges, index=bars.index)


def feature_figures(bars: Bars, runtime: Runtime) -> Iterator[Figure]:
    """Yield how fast features and phases are, compiled beforehand."""
    from orbiquant.features.matrix import build_features
    from orbiquant.features.phases import detect_phases
    from orbiquant.research.spec import feature_spec

    spec, few = feature_spec(runtime.settings, SeriesId.parse(SYMBOL, TIMEFRAME)), bars.iloc[-20_000:]
    columns = build_features(few, spec).shape[1]
    detect_phases(few, spec.phases)
    yield measure("features", "whole matrix", lambda: build_features(bars, spec), len(bars), f"{columns} columns")
    yield measure("features", "AMD phases", lambda: detect_phases(bars, spec.phases), len(bars))


def trade_figures(bars: Bars, runtime: Runtime) -> Iterator[Figure]:
    """Yield how fast signals and backtest go over all bars, on random predictions."""
    from orbiquant.backtest.simulate import simulate
    from orbiquant.models.phase2 import OutOfFold
    from orbiquant.policies import find_policy
    from orbiquant.research.spec import ResearchSpec
    from orbiquant.research.train import prepare
    from orbiquant.signals import generate_signals

    spec = ResearchSpec.from_settings(runtime.settings, SeriesId.parse(SYMBOL, TIMEFRAME))
    prepared, models = prepare(runtime, spec), OutOfFold(random_predictions(bars))

    def decide(policy: str) -> pd.DataFrame:
        frames = (prepared.bars, prepared.features, prepared.phases)
        return generate_signals(*frames, models, find_policy(policy), spec.training.stop_atr, spec.training.risk_reward)

    def play(signals: pd.DataFrame) -> Any:
        return simulate(prepared.bars, signals, spec.costs, max_holding_bars=spec.training.horizon_bars)

    for policy in ("primary", "base"):
        signals = decide(policy)
        acts, trades = int((signals["action"] != "HOLD").sum()), len(play(signals).trades)
        yield measure(
            "signals", policy, lambda p=policy: decide(p), len(bars), f"random predictions; {acts:,} long or short"
        )
        yield measure("backtest", policy, lambda s=signals: play(s), len(bars), f"vectorbt loaded; {trades:,} trades")


def research_figures(runtime: Runtime) -> Iterator[Figure]:
    """Yield the stages of training on the last bars and of backtesting what came out."""
    from orbiquant.core import stage_seconds
    from orbiquant.research.spec import ResearchSpec
    from orbiquant.research.train import prepare, trade_model, train

    series = SeriesId.parse(SYMBOL, TIMEFRAME)
    spec = ResearchSpec.from_settings(runtime.settings, series, train_rows=TRAIN_ROWS, folds=5, seed=SEED)
    with stage_seconds() as seconds:
        stored = train(runtime, prepare(runtime, spec), spec)
    shape = spec.training
    size = f"one run; {TRAIN_ROWS:,} bars, {shape.folds} folds, {shape.rounds} rounds, "
    size += f"{len(stored.card.features)} features"
    all_bars = "one run; all bars"
    notes = {"data": all_bars, "features": all_bars, "models": size, "backtest": "one run; primary signal"}
    for name, took in seconds.items():
        yield Figure("train", name, f"{took:.2f} s", "", notes[name])
    with stage_seconds() as again:
        traded = trade_model(runtime, series)[2]
    yield from stages("kept model, backtest", again, f"one run; {len(traded.signals):,} out-of-fold bars")


# --- demonstration, start, service ---


def demo_figures(folder: Path) -> list[Figure]:
    """Return what the demonstration takes in an empty folder, which it fills."""
    folder.mkdir()
    began = time.perf_counter()
    done = subprocess.run(
        [PROGRAM, "demo", "--json"], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=900
    )
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"`orbiquant demo` failed:\n{done.stderr[-2000:]}")
    seconds = json.loads(done.stdout)["seconds"]
    parts = {f"report: {name.strip()}" if name.startswith(" ") else name: took for name, took in seconds.items()}
    return [*stages("demo", {"whole command": whole} | parts, "one run; EURUSD 1h")]


def start_figures(folder: Path) -> Iterator[Figure]:
    """Yield what a fresh interpreter takes, from the start of its process to its end."""
    commands = {
        "Python alone": [sys.executable, "-c", "pass"],
        "`import orbiquant`": [sys.executable, "-c", "import orbiquant"],
        "`import orbiquant.app`": [sys.executable, "-c", "import orbiquant.app"],
        "`import vectorbt`": [sys.executable, "-W", "ignore", "-c", "import vectorbt"],
        "`orbiquant --help`": [PROGRAM, "--help"],
    }
    for name, command in commands.items():
        run = {"env": environment(folder), "check": True, "capture_output": True}
        seconds, runs = median_of(lambda c=command, r=run: subprocess.run(c, **r), 5)
        yield Figure("start", name, f"{seconds:.2f} s", "", runs)


@contextmanager
def served(home: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield host and port of a service in a process of its own, and the headers that carry a key."""
    run = {"cwd": home, "env": environment(home, ORBIQUANT_SERVICE_REQUESTS_PER_MINUTE="1000000")}
    made = subprocess.run(
        [PROGRAM, "service", "keys", "create", "bench", "--json"], **run, capture_output=True, text=True, check=True
    )
    log = home / "serve.log"
    with (
        log.open("w") as output,
        subprocess.Popen([PROGRAM, "serve", "--port", "0", "--no-work"], **run, stderr=output) as server,
    ):
        try:
            yield wait_for_address(log, server), {"X-API-Key": json.loads(made.stdout)["key"]}
        finally:
            server.terminate()


def wait_for_address(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Return host and port that the service says it listens on."""
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        if found := re.search(r"Serving on http://([\w.]+:\d+)/", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise SystemExit(f"the service did not start:\n{log.read_text()[-2000:]}")


def ask(place: str, path: str, headers: dict[str, str], count: int) -> list[float]:
    """Return the seconds of each of `count` requests over one connection."""
    link = HTTPConnection(place, timeout=30)

    def once() -> None:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {body[:500]!r}")

    once()
    took = [timed(once) for _ in range(count)]
    link.close()
    return took


def service_figures(home: Path) -> Iterator[Figure]:
    """Yield how fast the service answers one client and some at once."""
    with served(home) as (place, headers):
        for name, path in ENDPOINTS.items():
            ask(place, path, headers, 20)
            for clients in (1, CLIENTS):
                share = REQUESTS // clients
                began = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    answers = pool.map(lambda _, p=path, n=share: ask(place, p, headers, n), range(clients))
                    took = [seconds for one in answers for seconds in one]
                pace = (len(took) + clients) / (time.perf_counter() - began)
                middle, worst = 1e3 * np.percentile(took, [50, 99])
                who = f"{clients} client{'s' * (clients > 1)}; {len(took)} requests"
                yield Figure(
                    "service", name, f"p50 {middle:.1f} ms, p99 {worst:.1f} ms", f"{pace:,.0f} requests/s", who
                )


# --- the table ---


def cpu_model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def machine_facts(bars: Bars, name: str) -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Code": code_version(),
        "Machine": f"{os.cpu_count()} × {cpu_model()}",
        "Python": platform.python_version(),
        "Libraries": ", ".join(f"{library} {version(library)}" for library in LIBRARIES),
        "Bars": f"{len(bars):,} of {name}, {bars.index[0]:%Y-%m-%d} to {bars.index[-1]:%Y-%m-%d}",
        "Seed": str(SEED),
    }


def to_markdown(facts: dict[str, str], figures: list[Figure]) -> str:
    """Return the page."""
    lines = ["# How fast the line is", "", "Written by `make bench`; wall time.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| part | what | took | pace | how |", "|---|---|---:|---:|---|"]
    lines += [f"| {' | '.join(figure)} |" for figure in figures]
    lines += [
        "",
        "Signals and backtest on random probabilities show speed, not skill. Compiled functions are warm. The service",
        "runs in a process of its own on the loopback interface and checks a key on every request but `/health`; its",
        "clients share the processor with it. Starts are whole processes.",
    ]
    return "\n".join(lines) + "\n"


def measure_all(bars: Bars, folder: Path) -> Iterator[Figure]:
    """Yield every figure, working below `folder`."""
    settings = environment(folder)
    os.environ.clear()
    os.environ.update(settings)
    runtime = Runtime()
    runtime.store.upsert(SERIES, bars)
    yield from store_figures(bars, folder)
    yield from feature_figures(bars, runtime)
    yield from trade_figures(bars, runtime)
    yield from research_figures(runtime)
    yield from demo_figures(folder / "demo")
    yield from service_figures(folder / "demo")
    yield from start_figures(folder)


def main() -> None:
    """Measure, print and write the table, then print that of the ICT layer."""
    warnings.simplefilter("ignore")
    bars, name = bench_ict.load_bars(ROWS)
    bars = bars.set_axis(bars.index.as_unit("us"), axis=0)
    facts, figures, load = machine_facts(bars, name), [], os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        for figure in measure_all(bars, Path(folder)):
            print(*figure, sep="  ", flush=True)
            figures.append(figure)
    facts["Load average"] = f"{load:.2f} before, {os.getloadavg()[0]:.2f} after; the run itself keeps 1 to 2 busy"
    page = to_markdown(facts, figures)
    atomic_write(OUTPUT, page)
    print(f"\n{page}")
    bench_ict.main(100_000)


if __name__ == "__main__":
    main()
