"""The copilot's chat in a real kernel: first word, Stop, the loop that cells run on, and what a page has to load.

Run `python -m tests.benchmarks.bench_faces` from the root of the repository. The model is scripted: what is measured is
the way from the model's word to the comm, and what streaming costs the cells beside it.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.test_live_chart import MANY, PAINTED
from tests.tools.browser import running_browser
from tests.tools.kernel import START, Kernel, running_kernel
from tests.tools.lab import running_lab
from tests.tools.slow_chat import count

ROUNDS, WORDS = 5, 2_000
MOST_CHART_MS = 3_000
MOST_FIRST_MS, MOST_STOP_MS, MOST_LAG_MS, MOST_BYTES = 100, 200, 20, 300_000
WATCH = """
import asyncio, json, time
from tests.tools import chat_words
chat, told = oq.Chat("bench"), []
page = chat._talk.page
def heard(each):
    told.append((time.perf_counter(), each))
    page(each)
chat._talk.page = heard
def moment(wanted):
    return next((at for at, each in told if any(wanted(event) for event in each.get("events", ()))), None)
async def lags(while_true):
    late = []
    while while_true():
        due = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        late.append(1000 * (time.perf_counter() - due))
    return sorted(late)
"""
FIRST = """
told.clear(), chat_words.spoken.clear()
chat.say({said!r})
chat.wait(60)
print(1000 * (moment(lambda event: event["type"] == "text-delta") - chat_words.spoken[0]))
"""
STOP = """
told.clear()
chat.say({said!r})
while moment(lambda event: event.get("delta") == "w5 ") is None:
    time.sleep(0.005)
pressed = time.perf_counter()
chat.stop()
while moment(lambda event: event["type"] == "abort") is None:
    time.sleep(0.001)
print(1000 * (moment(lambda event: event["type"] == "abort") - pressed))
chat.wait(60)
"""
LAG = """
until = time.perf_counter() + 3
idle = await lags(lambda: time.perf_counter() < until)
told.clear()
chat.say({said!r})
busy = await lags(lambda: moment(lambda event: event["type"] == "done") is None)
print(json.dumps([each[int(0.95 * len(each))] for each in (idle, busy)] + [len(told)]))
chat.wait(60)
"""


class Line(NamedTuple):
    """A line of the table."""

    what: str
    ours: float
    unit: str
    most: float
    note: str = ""


def measure(kernel: Kernel) -> list[Line]:
    """Return what a kernel takes for it: the worst of some rounds for a time that a person waits."""
    kernel.run(WATCH)
    first = [float(kernel.run(FIRST.format(said=count(20, 20)))) for _ in range(ROUNDS)]
    stop = [float(kernel.run(STOP.format(said=count(1_000, 10)))) for _ in range(ROUNDS)]
    idle, busy, batches = json.loads(kernel.run(LAG.format(said=count(WORDS, 2))))
    size = float(
        kernel.run("from orbiquant.copilot.face_source import face_source\nprint(len(face_source().encode()))")
    )
    return [
        Line("first word sent after the model's, worst", max(first), "ms", MOST_FIRST_MS, f"median {_middle(first)}"),
        Line("stopped after Stop, worst", max(stop), "ms", MOST_STOP_MS, f"median {_middle(stop)}"),
        Line(
            f"lag of the cells' loop, p95, {WORDS:,} words", busy, "ms", MOST_LAG_MS, f"idle {idle:.1f}, {batches} sent"
        ),
        Line("JavaScript of the page", size / 1000, "kB", MOST_BYTES / 1000),
    ]


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}"


def measure_chart(folder: Path) -> Line:
    """Return how long 200,000 bars take from the start of a cell to candles on the screen, in a real JupyterLab."""
    home = {"ORBIQUANT_HOME": str(folder / "lab" / "notebooks")}
    with running_browser() as browser, running_lab(folder / "lab", home) as lab:
        lab.write("chart.ipynb", "import orbiquant as oq")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        notebook = lab.open(page, "chart.ipynb")
        notebook.run_all()
        notebook.execute(MANY)
        took = [float(page.evaluate(PAINTED, "oq.candle_chart(bars)")) for _ in range(ROUNDS)]
    return Line(
        "200,000 bars painted after their cell began, worst", max(took), "ms", MOST_CHART_MS, f"median {_middle(took)}"
    )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        tell(measure_chart(Path(folder)))
    with tempfile.TemporaryDirectory() as home, running_kernel(Path(home), start=START + "oq.store_sample()") as kernel:
        for each in measure(kernel):
            tell(each)


def tell(line: Line) -> None:
    """Print a line."""
    held = "ok" if line.ours <= line.most else "OVER"
    print(f"{held:5}{line.ours:10.1f} {line.unit:3} of {line.most:g}  {line.what}  {line.note}")


if __name__ == "__main__":
    main()
