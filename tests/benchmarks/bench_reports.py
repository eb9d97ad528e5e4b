"""What a report costs over the bare notebook, and six of them on two cores, written to reports/benchmarks/reports.md.

Run `python -m tests.benchmarks.bench_reports` from the root of the repository, best when nothing else runs.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from orbiquant.core import atomic_write, code_version
from orbiquant.desk.study import store_sample
from orbiquant.reports import ReportRun, find_report, run_report
from orbiquant.reports.batch import run_reports
from orbiquant.reports.ground import report_environment
from tests.benchmarks.bench_line import Figure, cpu_model, timed

SETS, AT_ONCE = 6, 2
GOAL_S, GOAL_SHARE = 4.0, 0.6
BATCHED = {"symbol": "EURUSD", "timeframe": "1h", "strategy": "breakout", "last": 3000}  # of one thread, as a core is
PARAMETERS = {"symbol": "EURUSD", "timeframe": "1h", "last": 2000, "folds": 2, "rounds": 20, "seed": 7}
BARE = """
import sys, nbformat, papermill
papermill.execute_notebook(sys.argv[1], sys.argv[2], eval(sys.argv[3]), kernel_name="orbiquant", progress_bar=False)
"""
OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "reports.md"


def bare_s(folder: Path) -> float:
    """Return the seconds of papermill alone on the report's notebook, in a process of its own."""
    private = folder / "bare"
    private.mkdir()
    words = [
        sys.executable,
        "-c",
        BARE,
        str(find_report("research").path),
        str(private / "out.ipynb"),
        repr(PARAMETERS),
    ]
    seconds = timed(
        lambda: subprocess.run(words, check=True, capture_output=True, env=report_environment(private), cwd=folder)
    )
    shutil.rmtree(private)
    return seconds


def checked(run: ReportRun) -> ReportRun:
    """Return a run that succeeded; end the measurement at another."""
    if run.status != "succeeded":
        raise SystemExit(f"{run.name} {run.status}: {run.error}")
    return run


def overhead_figures(folder: Path, runs: int) -> Iterator[Figure]:
    """Yield a report beside its bare notebook, taken in turns so that both meet the same load, and what a PDF adds."""
    bare, whole = list[float](), list[float]()
    for _ in range(runs):
        bare.append(bare_s(folder))
        whole.append(timed(lambda: checked(run_report("research", PARAMETERS, folder / "runs"))))
    gaps = [over - alone for over, alone in zip(whole, bare, strict=True)]
    told = f"median of {runs}, in turns" if runs > 1 else "one run each"
    yield Figure("report", "bare notebook, papermill alone", f"{statistics.median(bare):.1f} s", told)
    yield Figure(
        "report", "run_report: check, process, page, figures, index", f"{statistics.median(whole):.1f} s", told
    )
    yield Figure(
        "report", "of which over the bare notebook", f"{statistics.median(gaps):.1f} s", f"goal {GOAL_S:.0f} s"
    )
    from orbiquant.reports.pdf import print_page

    page = next((folder / "runs").glob("*/report.html"))
    yield Figure("report", "its page as a PDF", f"{timed(lambda: print_page(page)):.1f} s", "one run")


def batch_figures(folder: Path) -> Iterator[Figure]:
    """Yield six sets of parameters one after the other, and two at a time."""
    sets = [BATCHED | {"seed": seed} for seed in range(SETS)]
    took = {}
    for at_once in (1, AT_ONCE):
        place = folder / f"batch{at_once}"
        took[at_once] = timed(
            lambda n=at_once, p=place: [checked(run) for run in run_reports("backtest_tearsheet", sets, n, p)]
        )
        yield Figure("batch", f"{SETS} sets, {at_once} at a time", f"{took[at_once]:.1f} s", "one run")
    share = took[AT_ONCE] / took[1]
    yield Figure(
        "batch", f"{AT_ONCE} at a time, of one after the other", f"{share:.2f}", f"goal {GOAL_SHARE:.1f} on 2 cores"
    )


def main() -> None:
    """Measure, print and write the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=3, help="of the report, and of its bare notebook")
    runs = asked.parse_args().runs
    before, figures = os.getloadavg()[0], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ORBIQUANT_HOME"] = name
        bars = store_sample("EURUSD", "1h")
        checked(run_report("backtest_tearsheet", BATCHED, folder / "warm"))  # compiled functions are kept from here on
        for figure in chain(batch_figures(folder), overhead_figures(folder, runs)):
            print(*figure, sep="  ", flush=True)
            figures.append(figure)
    facts = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Code": code_version(),
        "Machine": f"{os.cpu_count()} × {cpu_model()}",
        "Python": platform.python_version(),
        "Bars": f"{bars:,} of EURUSD 1h, the packaged sample",
        "Report": "research, " + ", ".join(f"{name} {value}" for name, value in PARAMETERS.items()),
        "Batch": "backtest_tearsheet, " + ", ".join(f"{name} {value}" for name, value in BATCHED.items()),
        "Load average": f"{before:.2f} before, {os.getloadavg()[0]:.2f} after; the run itself keeps 1 to 2 busy",
    }
    lines = ["# What a report costs", "", "Written by `make bench-reports`; wall time.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| part | what | took | how |", "|---|---|---:|---|"]
    lines += [f"| {' | '.join(figure[:4])} |" for figure in figures]
    lines += ["", "Both run the same notebook in a kernel of their own; a load beside them is in the figures."]
    atomic_write(OUTPUT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
