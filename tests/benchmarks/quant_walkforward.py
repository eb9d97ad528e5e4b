"""A row of the quant table: what a walk-forward costs beyond growing its trees, 20 folds × 300 rounds on 200k × 60."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import process_time, thread_time
from typing import Any
from weakref import WeakKeyDictionary

from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec
from orbiquant.models import boosting
from orbiquant.models.config import Phase2Config
from orbiquant.models.phase2 import Phase2Pipeline, Training
from tests.benchmarks.quant_row import Row, shared_rows

BARS, COLUMNS, FOLDS, ROUNDS, SEED = 200_000, 60, 20, 300, 7
GOAL = 0.10


class Meter:
    """CPU seconds of each `xgboost.train` of a pipeline, and of the same bare: on a plain matrix that nobody binned."""

    def __init__(self) -> None:
        self.inside = self.bare = self.extra = 0.0
        self.calls = 0
        self.values: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Measure every call inside the block; what the pipeline gets is unchanged."""
        import xgboost

        train, binned = xgboost.train, boosting.quantile_matrix

        def remembered(rows: boosting.Rows, chosen: Any, reference: Any = None) -> Any:
            matrix = binned(rows, chosen, reference)
            self.values[matrix] = rows.values, chosen
            return matrix

        def timed(params: Any, matrix: Any, rounds: int, **options: Any) -> Any:
            begin = thread_time()
            booster = train(params, matrix, rounds, **options)
            taken = thread_time()
            plain = [self.plain(each) for each in (matrix, *(judged for judged, _ in options.get("evals", ())))]
            bare = thread_time()
            evals = [(judged, "tail") for judged in plain[1:]]
            train(params, plain[0], booster.num_boosted_rounds(), evals=evals, verbose_eval=False)
            end = thread_time()
            self.inside, self.bare, self.extra = (
                self.inside + taken - begin,
                self.bare + end - bare,
                self.extra + end - taken,
            )
            self.calls += 1
            return booster

        xgboost.train, boosting.quantile_matrix = timed, remembered
        try:
            yield
        finally:
            xgboost.train, boosting.quantile_matrix = train, binned

    def plain(self, matrix: Any) -> Any:
        """Return the rows and labels of a binned matrix as a plain one."""
        import xgboost

        values, chosen = self.values[matrix]
        return xgboost.DMatrix(values[chosen], label=matrix.get_label(), nthread=1)


def walk(bars: int, folds: int, rounds: int) -> tuple[Training, Meter, float]:
    """Return a walk-forward of range predictor, classifier and baselines, one job after the other, and its CPU time."""
    history = shared_rows("BTCUSDT_5m", bars + 2_000)
    features = build_features(history, FeatureSpec(timeframe="5m", calendar="crypto"))
    spans = [name for name in features if name.startswith("range_mean_")]
    columns = [*spans, *(name for name in features if name not in spans)][:COLUMNS]
    history, features = history.iloc[-bars:], features[columns].iloc[-bars:]
    config = Phase2Config(folds=folds, rounds=rounds, threads=1, meta="off", seed=SEED)
    Phase2Pipeline(config.model_copy(update={"folds": 1, "rounds": 1})).run(history[-5_000:], features[-5_000:])
    meter, begin = Meter(), process_time()
    with meter.attached():
        training = Phase2Pipeline(config).run(history, features)
    return training, meter, process_time() - begin - meter.extra


def rows() -> Iterator[Row]:
    """Yield the row, in CPU time, which other work on the machine changes least."""
    bars, folds, rounds = (int(os.environ.get(f"BENCH_{key}", value)) for key, value in SIZES.items())
    training, meter, cpu = walk(bars, folds, rounds)
    beyond, stages = cpu / meter.bare - 1, ", ".join(f"{k} {v:.1f}" for k, v in training.seconds.items())
    yield Row(
        f"walk-forward, {folds} folds × {rounds} rounds at most, {bars // 1000}k × {COLUMNS}",
        f"sum of {meter.calls} bare xgb.train on plain matrices",
        f"{cpu:.1f} s CPU",
        f"{meter.bare:.1f} s CPU",
        f"{beyond:+.1%}",
        f"≤ +{GOAL:.0%}",
        beyond <= GOAL,
        f"same rows, labels and rounds; here with labels, binning, predictions, baselines, skill, reliability, sketch "
        f"(wall seconds: {stages}); bare is train alone, which bins a plain matrix itself; beyond its own train calls "
        f"on matrices that were binned before ({meter.inside:.1f} s) the walk takes {cpu / meter.inside - 1:+.1%}",
    )


SIZES = {"BARS": BARS, "FOLDS": FOLDS, "ROUNDS": ROUNDS}
