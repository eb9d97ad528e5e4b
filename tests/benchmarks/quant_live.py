"""What a served signal costs for one new bar: the warm line alone, and with the store it asks."""

import tempfile
import time
from collections.abc import Iterator

import numpy as np

from orbiquant.core import configure_logging
from orbiquant.domain import Bars, SeriesId
from orbiquant.market.bars import with_series
from orbiquant.market.store import DeltaBarStore
from orbiquant.ports import BarStore
from orbiquant.research.live import LiveLine
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.train import prepare, train
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.benchmarks.quant_row import Row, shared_rows

SERIES = SeriesId.parse("BTCUSDT", "5m")
ROWS, NEW, GOAL_MS = 40_000, 200, 10.0


def served(bars: Bars, folder: str) -> Runtime:
    """Return a workspace that holds the bars and a model trained on them with the shipped settings, in fewer folds."""
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    runtime = Runtime(load_settings(workspace=places, models={"folds": 1}))
    runtime.store.upsert(SERIES, bars)
    spec = ResearchSpec.from_settings(runtime.settings, SERIES)
    train(runtime, prepare(runtime, spec), spec)
    return runtime


def begun_cold(runtime: Runtime) -> float:
    """Return the milliseconds of a first answer."""
    begin = time.perf_counter()
    LiveLine(runtime, SERIES).latest()
    return 1e3 * (time.perf_counter() - begin)


def answered(runtime: Runtime, writer: BarStore, bars: Bars) -> tuple[list[float], list[float]]:
    """Return the milliseconds of a warm line for each bar that is stored and asked about, and those of its steps."""
    live, asked, stepped = LiveLine(runtime, SERIES), [], []
    live.latest()
    step = live._stream.step

    def timed(bar):
        begin = time.perf_counter()
        decision = step(bar)
        stepped.append(1e3 * (time.perf_counter() - begin))
        return decision

    live._stream.step = timed
    for row in range(len(bars)):
        writer.upsert(SERIES, bars.iloc[row : row + 1])
        begin = time.perf_counter()
        signal = live.latest()
        asked.append(1e3 * (time.perf_counter() - begin))
        assert signal.time == bars.index[row] and signal.reasoning and signal.features
    return asked, stepped


def rows() -> Iterator[Row]:
    """Yield two rows: a bar that has just been stored, by the same process or by another, as signal with reasons."""
    configure_logging("ERROR")
    bars = with_series(shared_rows(SERIES.symbol + "_5m", ROWS + 2 * NEW), SERIES)
    with tempfile.TemporaryDirectory() as folder:
        runtime = served(bars.iloc[:ROWS], folder)
        writers = {"the same": runtime.store, "another": DeltaBarStore(f"{folder}/store")}
        for number, (who, writer) in enumerate(writers.items()):
            begin = ROWS + number * NEW
            asked, stepped = answered(runtime, writer, bars.iloc[begin : begin + NEW])
            own, cold = float(np.median(asked)), float(np.median([begun_cold(runtime) for _ in range(5)]))
            note = (
                f"wall time of {NEW} bars, p99 {np.percentile(asked, 99):.1f} ms; of it features, models and decision "
                f"{np.median(stepped):.1f} ms"
            )
            yield Row(
                f"a bar that {who} process stored → `Signal` with reasons", "begun cold: model and history loaded",
                f"{own:.1f} ms", f"{cold:.0f} ms", f"p50 {own:.1f} ms", f"p50 ≤ {GOAL_MS:g} ms", own <= GOAL_MS, note,
            )  # fmt: skip
        runtime.engine.dispose()
