"""The quant core beside its peers, in one run on the shared bars: prints goals and measured ratios.

Run `make bench-quant`, or `python -m tests.benchmarks.bench_quant [source …]` for some rows, which writes no page.
Writes `reports/benchmarks/quant.md`.

The shape of a row source, so that each part of the table stands in a file of its own (`quant_<name>.py`): a function
`rows()` without arguments that loads its own bars (`quant_row.shared_rows`), warms up, measures itself and its peers
(`best_of`), and yields `quant_row.Row`s (`times_faster` makes one of two durations). To add one, import it here and
name it in `SOURCES`.
"""

import os

os.environ |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numba and NumPy

import ctypes
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from orbiquant.core import atomic_write
from tests.benchmarks import quant_features, quant_ict, quant_live, quant_sweep, quant_walkforward
from tests.benchmarks.bench_line import machine_facts
from tests.benchmarks.quant_row import Row, RowSource, shared_rows

OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "quant.md"
SOURCES: dict[str, RowSource] = {
    "ict": quant_ict.rows,
    "features": quant_features.rows,
    "sweep": quant_sweep.rows,
    "walkforward": quant_walkforward.rows,
    "live": quant_live.rows,
}


def to_markdown(facts: dict[str, str], rows: Iterable[Row]) -> str:
    """Return the page."""
    lines = ["# How fast the quant core is, beside its peers", "", "Written by `make bench-quant`, one core.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| work | peer | here | there | measured | goal | met | how |", "|---|---|--:|--:|--:|--:|---|---|"]
    lines += [f"| {' | '.join((*row[:6], 'yes' if row.met else '**no**', row.note))} |" for row in rows]
    return "\n".join(lines) + "\n"


def measure(names: Iterable[str]) -> list[Row]:
    """Return the rows of some sources, each printed as soon as it is measured."""
    found = []
    for name in names:
        for row in SOURCES[name]():
            print(*row, sep="  ", flush=True)
            found.append(row)
    return found


def keep_memory() -> None:
    """Let the process keep what it frees, ours and the peers' alike: or page faults are what is measured."""
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3
        for option in (trim_threshold, mmap_threshold):
            ctypes.CDLL(None).mallopt(option, 1 << 30)


def main(wanted: list[str]) -> None:
    """Measure and print; write the page when everything was measured."""
    warnings.simplefilter("ignore")
    keep_memory()
    facts = machine_facts(shared_rows("BTCUSDT_5m", 630_478), "BTCUSDT 5m")
    load = os.getloadavg()[0]
    rows = measure(wanted or SOURCES)
    facts["Load average"] = f"{load:.2f} before, {os.getloadavg()[0]:.2f} after"
    page = to_markdown(facts, rows)
    if not wanted:
        atomic_write(OUTPUT, page)
    print(f"\n{page}")


if __name__ == "__main__":
    main(sys.argv[1:])
