"""The copilot's chat in a real kernel: first word, Stop, the loop that cells run on, and what a page has to load.

Run `python -m tests.benchmarks.bench_faces` from the root of the repository. The model is scripted: what is measured is
the way from the model's word to the comm, and what streaming costs the cells beside it.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.tools.kernel import START, Kernel, running_kernel
from tests.tools.slow_chat import count

ROUNDS, WORDS = 5, 2_000
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


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home, running_kernel(Path(home), start=START + "oq.store_sample()") as kernel:
        for each in measure(kernel):
            held = "ok" if each.ours <= each.most else "OVER"
            print(f"{held:5}{each.ours:10.1f} {each.unit:3} of {each.most:g}  {each.what}  {each.note}")


if __name__ == "__main__":
    main()
