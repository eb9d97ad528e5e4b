"""The log range: forecast and scored as itself, not as a logarithm of means, against a HAR as it is taught."""

import json

import numpy as np
import pandas as pd
import pytest

from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.baselines import (
    SCORED_FLOOR,
    HarRange,
    ScaledRange,
    bars_a_day,
    log_range,
    quantile_columns,
    volatility_inputs,
)
from orbiquant.models.boosting import Boosting
from orbiquant.models.garch import GarchRange
from orbiquant.models.gate import gate
from orbiquant.models.labels import range_targets
from orbiquant.models.range_predictor import RangePredictor
from orbiquant.models.skill import quantile_weights, range_losses, skill_table
from orbiquant.models.splits import purged_tail

QUANTILES = (0.1, 0.5, 0.9)
HORIZON = 12


@pytest.fixture(scope="module")
def market() -> tuple[pd.DataFrame, pd.DataFrame, slice, slice]:
    """Return inputs and targets of made-up half-hours, the rows to fit and, purged, those to judge."""
    bars = synthetic_market(9_000, timeframe="30m", seed=23).bars
    past, future = purged_tail(len(bars) - HORIZON, 0.3, HORIZON)
    return volatility_inputs(bars, HORIZON), range_targets(bars, HORIZON), past, future


@pytest.fixture(scope="module")
def forecasts(market) -> dict[str, pd.DataFrame]:
    """Return what each estimator says of the rows to judge."""
    X, Y, past, future = market
    spans = [name for name in X if name.startswith("range_")]
    made = {
        "range": RangePredictor(QUANTILES, HORIZON, spans, Boosting(rounds=60, leaf_rows=50)),
        "har": HarRange(spans, QUANTILES, HORIZON),
        "atr": ScaledRange("atr", QUANTILES),
        "ewma": ScaledRange("ewma", QUANTILES),
        "garch": GarchRange(QUANTILES, HORIZON),
    }
    return {name: model.fit(X[past], Y[past]).predict(X[future]) for name, model in made.items()}


def happened(market) -> np.ndarray:
    """Return the log range of the rows to judge."""
    return log_range(*market[1][["up", "down"]].to_numpy()[market[3]].T)


def test_the_logarithm_of_a_mean_is_too_high_and_the_stated_log_range_is_not(market, forecasts):
    weights = quantile_weights(QUANTILES)
    for name, said in forecasts.items():
        means = [said[[f"{way}_{q}" for q in QUANTILES]].to_numpy() @ weights for way in ("up", "down")]
        derived, own = log_range(*means) - happened(market), said["log_range"] - happened(market)
        assert derived.mean() > 0.04 + own.mean(), name
        assert abs(own.mean()) < (0.12 if name == "garch" else 0.04) and (own**2).mean() < (derived**2).mean(), name


def test_on_the_training_rows_there_is_no_bias_at_all(market):
    X, Y, past, _ = market
    X, Y = X[past].dropna(), Y[past]
    Y = Y.loc[X.index]
    outcome = log_range(*Y.to_numpy().T)
    for model in (ScaledRange("atr", QUANTILES), ScaledRange("ewma", QUANTILES), HarRange(["atr", "ewma"], QUANTILES)):
        assert abs((model.fit(X, Y).predict(X)["log_range"] - outcome).mean()) < 1e-6


def test_har_is_no_weaker_than_the_one_that_is_taught(market, forecasts):
    """Ordinary least squares of the log range on logarithms of mean ranges of a day, a week and a month."""
    X, Y, past, future = market
    spans = [np.log(X[f"range_{days * 48}"].to_numpy()) for days in (1, 5, 22)]
    design = np.column_stack([*spans, np.ones(len(X))])
    outcome = log_range(*Y[["up", "down"]].to_numpy().T)
    rows = np.isfinite(design).all(axis=1) & (np.arange(len(X)) < past.stop)
    taught = design[future] @ np.linalg.lstsq(design[rows], outcome[rows], rcond=None)[0]
    ours = forecasts["har"]["log_range"]
    assert ((ours - happened(market)) ** 2).mean() < ((taught - happened(market)) ** 2).mean()


@pytest.mark.parametrize(("step", "bars"), [("5min", 288), ("1h", 24), ("4h", 6), ("1D", 1), ("7D", 1)])
def test_a_day_is_so_many_bars(step, bars):
    index = pd.date_range("2024-01-01", periods=300, freq=step, tz="UTC")
    assert bars_a_day(index) == bars == bars_a_day(index.delete([7, 8, 90])) and bars_a_day(index[:1]) == 1


def test_a_month_does_not_keep_young_bars_from_being_trained_on(market):
    X = market[0]
    spans = [name for name in X if name.startswith("range_")]
    assert spans == ["range_2", "range_12", "range_48", "range_60", "range_240", "range_1056"]
    assert X["range_1056"].first_valid_index() == X["range_240"].first_valid_index() == X.index[239]


def test_what_is_not_said_is_not_scored(market, forecasts):
    Y, future = market[1], market[3]
    silent = {name: said.drop(columns="log_range") for name, said in forecasts.items()}
    assert ("log_range", "r2") not in range_losses(Y[future], silent["har"], QUANTILES)
    others = {name: said for name, said in forecasts.items() if name != "range"}
    told = skill_table(Y[future], forecasts["range"], others, QUANTILES, HORIZON)
    line = told.set_index("target").loc["log_range"]
    exact = 1 - np.mean((forecasts["range"]["log_range"] - happened(market)) ** 2) / happened(market).var()
    assert line["model"] == pytest.approx(exact) and line["baseline_name"] in others
    for model, rivals in ((silent["range"], others), (forecasts["range"], {"har": silent["har"]})):
        assert "log_range" not in set(skill_table(Y[future], model, rivals, QUANTILES, HORIZON)["target"])


def test_the_gate_passes_it_on(market, forecasts):
    Y, future = market[1], market[3]
    folds = pd.Series(np.repeat([1, 2], [1_000, len(forecasts["har"]) - 1_000]), forecasts["har"].index)
    three = {"range": forecasts["range"], "har": forecasts["har"], "attention": forecasts["ewma"]}
    found = gate(Y[future], three, folds, QUANTILES, HORIZON)
    assert list(found.predictions) == [*quantile_columns(QUANTILES), "log_range"]
    assert found.choice == "range" and found.predictions["log_range"].equals(forecasts["range"]["log_range"])


def test_a_predictor_from_before_says_what_its_scale_expects(market):
    X, Y, past, future = market
    model = RangePredictor(QUANTILES, HORIZON, ["atr", "ewma"], Boosting(rounds=20)).fit(X[past], Y[past])
    stored = json.loads(model.to_json())
    stored["boosters"].pop("log_range", None)
    before = RangePredictor.from_json(json.dumps(stored).encode())
    said, now = before.predict(X[future]), model.predict(X[future])
    assert said.drop(columns="log_range").equals(now.drop(columns="log_range"))
    assert np.allclose(said["log_range"], np.log(before.scale_.scale(X[future])), atol=1e-6)


def test_a_market_that_stands_still_has_a_finite_log_range():
    index = pd.date_range("2024-01-01", periods=400, freq="1h", tz="UTC")
    still, moves = pd.DataFrame({"atr": 0.001}, index), pd.DataFrame(0.0, index, ["up", "down"])
    said = ScaledRange("atr", QUANTILES).fit(still, moves).predict(still.assign(atr=[0.0, 1.0] * 200))
    assert np.isfinite(said["log_range"]).all() and said["log_range"].iloc[0] < said["log_range"].iloc[1]
    assert HarRange(["atr"], QUANTILES).fit(still, moves).predict(still)["log_range"].iloc[0] == pytest.approx(
        np.log(SCORED_FLOOR), abs=1e-3
    )
