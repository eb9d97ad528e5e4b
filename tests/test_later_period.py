"""A year that nobody has trained on: hourly bitcoin to the end of 2023, judged in 2024 (needs the shared bars)."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.domain import CalendarName, Timeframe
from orbiquant.features.spec import FeatureSpec
from orbiquant.line import Line, LineSpec
from orbiquant.market.resampling import resample
from orbiquant.models.baselines import HarRange, log_range, volatility_inputs
from orbiquant.models.bundle import ModelBundle, to_content
from orbiquant.models.config import Phase2Config
from orbiquant.models.labels import range_targets
from orbiquant.models.phase2 import OutOfFold, Phase2Pipeline, Training
from orbiquant.models.skill import quantile_weights
from orbiquant.models.traded import TradedRows
from orbiquant.policies import find_policy
from orbiquant.research.confidence import promised_rows
from tests.tools.shared_bars import shared_bars

pytestmark = pytest.mark.slow
FIRST, LATER = (pd.Timestamp(day, tz="UTC") for day in ("2021-01-01", "2024-01-01"))
CONFIG = Phase2Config()


class Scene:
    """Bars, the line that describes them, and a training on all before the year."""

    def __init__(self) -> None:
        fine = shared_bars("BTCUSDT_5m")
        self.bars = resample(fine, Timeframe.M5, Timeframe.H1, CalendarName.CRYPTO)
        features = FeatureSpec(timeframe=Timeframe.H1, calendar=CalendarName.CRYPTO)
        self.line = Line(LineSpec(features=features, training=CONFIG))
        self.described = self.line.describe(self.bars)
        self.past = (self.bars.index >= FIRST) & (self.bars.index < LATER)
        self.training: Training = Phase2Pipeline(CONFIG).run(self.bars[self.past], self.described.features[self.past])

    def traded(self, predictor: ModelBundle | OutOfFold, rows: np.ndarray, floor: float | None = None) -> TradedRows:
        """Return what the base policy's rows promised and what came, or those above another floor."""
        table = promised_rows(self.line, self.described, predictor, find_policy("base"))[rows]
        if floor is not None:
            table = table.assign(traded=table["confidence"] >= floor)
        return TradedRows.of("base", table, CONFIG.horizon_bars)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_the_log_range_of_the_year_is_told_without_bias_and_better_than_by_any_har(scene):
    bars, horizon = scene.bars, CONFIG.horizon_bars
    moves, inputs = range_targets(bars, horizon), volatility_inputs(bars, horizon)
    year = (bars.index >= LATER) & moves["up"].notna().to_numpy()
    rows = scene.past & inputs.notna().all(axis=1).to_numpy()
    rows[bars.index.searchsorted(LATER) - horizon :] = False  # purged: their labels reach into the year
    happened, learned = (log_range(*moves[some].to_numpy().T) for some in (year, rows))
    spans = [name for name in inputs if name.startswith("range_")]
    har = HarRange(spans, horizon=horizon).fit(inputs[rows], moves[rows]).predict(inputs[year])
    served = scene.training.bundle.predict(scene.described.features[year])
    design = np.log(inputs[["range_24", "range_120", "range_528"]]).assign(constant=1.0).to_numpy()
    taught = design[year] @ np.linalg.lstsq(design[rows], learned, rcond=None)[0]
    weights = quantile_weights(CONFIG.quantiles)
    means = [served[[f"{way}_{q}" for q in CONFIG.quantiles]].to_numpy() @ weights for way in ("up", "down")]
    said = {"served": served["log_range"], "har": har["log_range"], "taught": taught, "of means": log_range(*means)}
    explained = {name: 1 - np.mean((happened - each) ** 2) / happened.var() for name, each in said.items()}
    assert explained["served"] > explained["har"] > explained["taught"]
    assert explained["served"] > explained["of means"] + 0.03 and explained["har"] > 0.29
    assert abs(np.mean(served["log_range"] - happened)) < 0.05 < np.mean(said["of means"] - happened)


def test_the_served_fit_is_not_more_eager_in_the_year_than_its_folds_were(scene):
    """Left to itself this fit promises 0.64 of six hundred rows, of which its folds had three in three years."""
    training, year = scene.training, scene.bars.index >= LATER
    alone = ModelBundle.of({name: to_content(model) for name, model in training.bundle.models.items()})
    alone.tpsl.shrinkage_, alone.meta.shrinkage_ = {}, None
    folds = scene.traded(OutOfFold(training.predictions), scene.past)
    eager, served = scene.traded(alone, year), scene.traded(training.bundle, year)
    assert eager.rows > 100 and eager.said > eager.high, "what is guarded against is not there: choose other years"
    assert served.rows / served.judged <= 3 * folds.rows / folds.judged + 1e-3
    assert served.said is None or served.low is None or served.low <= served.said <= served.high


def test_what_it_promises_at_a_floor_that_it_reaches_comes(scene):
    found = scene.traded(scene.training.bundle, scene.bars.index >= LATER, floor=0.55)
    assert found.rows > 30 and found.low is not None and found.low <= found.said
    everything = scene.traded(scene.training.bundle, scene.bars.index >= LATER, floor=0.0)
    assert everything.rows > 8_000 and abs(everything.said - everything.came) < 0.06
