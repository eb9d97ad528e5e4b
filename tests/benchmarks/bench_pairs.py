"""The research line over many pairs: seconds and memory a pair, and what two Dask workers make of it.

Run `python -m tests.benchmarks.bench_pairs` from the root of the repository (`--pairs 12` for a part of them); all take
an hour on two cores. It writes reports/benchmarks/pairs.md.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from orbiquant.compute import Failure, run_tasks
from orbiquant.core import atomic_write, code_version, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.bars import with_series
from orbiquant.market.instruments import instrument_of
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.study import study_bars
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.shared_bars import SHARED

SOURCE = SHARED / "USDT136_1h_long.parquet"
OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "pairs.md"
WORKERS, GOAL, SEED = 2, 0.8, 7


class Pair(NamedTuple):
    """What the line took of one pair, and what it came to."""

    symbol: str
    rows: int
    seconds: float
    rss_mb: float  # of the process, when the pair was done
    trades: int
    total_r: float  # net of costs


def resident_mb() -> float:
    """Return how much memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def research(source: str, symbol: str) -> Pair:
    """Take one pair through features, phases, walk-forward training, signals and backtest, each in one thread."""
    configure_logging("ERROR")
    began = time.perf_counter()
    rows = pd.read_parquet(source, filters=[("symbol", "==", symbol)]).drop(columns="symbol").set_index("time")
    series = SeriesId.parse(symbol, "1h")
    bars = with_series(rows.astype("float64").set_axis(rows.index.as_unit("us"), axis=0), series)
    with TemporaryDirectory(ignore_cleanup_errors=True) as home:
        places = {"database_url": f"sqlite:///{home}/db.sqlite", "data_dir": home}
        runtime = Runtime(load_settings(workspace=places, models={"threads": 1}))
        instrument, _ = instrument_of(series.symbol, bars.index)
        spec = ResearchSpec.from_settings(runtime.settings, series, instrument, policy="primary", seed=SEED)
        trades = study_bars(runtime, bars, spec, instrument).trades
        runtime.engine.dispose()
    return Pair(symbol, len(bars), time.perf_counter() - began, resident_mb(), len(trades), float(trades["r"].sum()))


def over(symbols: Sequence[str], workers: int) -> tuple[list[Pair], float]:
    """Return what became of every pair, and the seconds of all, here (0 workers) or on a cluster of this machine."""
    found: list[Pair] = []

    def keep(symbol: str, pair: Pair | Failure) -> None:
        if isinstance(pair, Failure):
            raise SystemExit(f"{symbol}: {pair.reason}")
        found.append(pair)
        print(f"{len(found)} of {len(symbols)}: {symbol} {pair.seconds:.1f} s, {pair.rss_mb:.0f} MB", file=sys.stderr)

    began = time.perf_counter()
    tasks = {symbol: (symbol,) for symbol in symbols}
    run_tasks(research, str(SOURCE), tasks, keep, threads=max(1, workers), scheduler="local" if workers else "")
    return found, time.perf_counter() - began


def tell(symbols: Sequence[str]) -> str:
    """Measure, and return the page."""
    research(str(SOURCE), symbols[0])  # what is compiled on first use is compiled
    alone, alone_s = over(symbols, 0)
    together, together_s = over(symbols, WORKERS)
    assert {pair[4:] for pair in alone} == {pair[4:] for pair in together}, "both came to the same"
    seconds, memory = [pair.seconds for pair in alone], [pair.rss_mb for pair in alone]
    half = (len(memory) + 1) // 2
    early, late = np.median(memory[:half]), np.median(memory[-half:])
    trades, total_r = sum(pair.trades for pair in alone), sum(pair.total_r for pair in alone)
    share, rows = alone_s / together_s / WORKERS, np.mean([pair.rows for pair in alone])
    lines = [
        "# The research line over many pairs",
        "",
        f"{len(symbols)} pairs of {SOURCE.name}, 1h, {rows:,.0f} bars each: features, phases, walk-forward training of",
        f"every model, signals, backtest (`primary`), one thread a pair, seed {SEED}, default costs.",
        f"{datetime.now(UTC):%Y-%m-%d}, code {code_version()}.",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        f"| a pair, alone | median {np.median(seconds):.1f} s, slowest {max(seconds):.1f} s | printed |",
        f"| memory of the process, first and last half of the pairs | {early:.0f}, {late:.0f} MB | flat |",
        f"| all, alone and on {WORKERS} Dask workers of this machine | {alone_s:.0f} s, {together_s:.0f} s:"
        f" {share:.2f} of ideal | ≥ {GOAL} |",
        f"| what came of it, out of sample, net | {trades:,} trades, mean {total_r / max(1, trades):+.3f} R | none |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="the first so many in the order of their names; all")
    asked = parser.parse_args()
    if not SOURCE.exists():
        raise SystemExit(f"no {SOURCE.name} in {SHARED}; set ORBIQUANT_SAMPLE_DATA")
    names = sorted(pd.read_parquet(SOURCE, columns=["symbol"])["symbol"].unique())
    page = tell(names[: asked.pairs])
    atomic_write(OUTPUT, page.encode())
    print(page)
