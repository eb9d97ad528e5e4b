"""One line of the table that `make bench-quant` prints, and the tools to measure it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from orbiquant.domain import Bars
from tests.tools.shared_bars import SHARED


class Seconds(NamedTuple):
    """The fastest run of some work."""

    wall: float
    cpu: float


class Row(NamedTuple):
    """One line of the table: some work beside a peer's, in one run on the same bars."""

    work: str  # what is done, on how much
    peer: str  # who does the same
    own: str  # what it takes here
    theirs: str  # what it takes there
    measured: str  # the ratio, or the figure that the goal is about
    goal: str  # as the issue words it, e.g. "≥ 1,000×"
    met: bool
    note: str = ""  # what is equal, how it was measured


RowSource = Callable[[], Iterator[Row]]  # measures and yields its rows, one by one


def best_of(work: Callable[[], Any], repeats: int) -> Seconds:
    """Return the least wall time and the least CPU time of some runs; warm the work up beforehand."""
    took = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        took.append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return Seconds(min(t.wall for t in took), min(t.cpu for t in took))


def in_words(seconds: float) -> str:
    """Return a duration in the unit that reads best."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def times_faster(work: str, peer: str, own: float, theirs: float, goal: float, note: str = "") -> Row:
    """Return the row of a goal that is a ratio of two durations in seconds."""
    ratio = theirs / own
    return Row(work, peer, in_words(own), in_words(theirs), f"{ratio:,.1f}×", f"≥ {goal:,g}×", ratio >= goal, note)


def shared_rows(name: str, rows: int) -> Bars:
    """Return the last `rows` of a shared series; raise `SystemExit` where it is absent."""
    path = SHARED / f"{name}.parquet"
    if not path.exists():
        raise SystemExit(f"no {Path(path).name}: the table needs the shared bars, set ORBIQUANT_SAMPLE_DATA")
    bars = pd.read_parquet(path).set_index("time").astype("float64").tail(rows)
    return bars.set_axis(bars.index.as_unit("us"), axis=0)
