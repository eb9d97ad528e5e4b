"""GARCH as a baseline: it finds what was planted, forecasts what arch forecasts, and knows no future."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import ModelError
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.baselines import ScaledRange, pinball_loss, volatility_inputs
from orbiquant.models.garch import RISKMETRICS, Garch, GarchRange, fit_garch, next_variance, over_horizon
from orbiquant.models.labels import range_targets

HORIZON = 12


def garch_returns(rows: int, seed: int = 3, alpha: float = 0.12, beta: float = 0.85) -> np.ndarray:
    """Return returns of a GARCH(1,1) with a deviation of 0.2 % a bar."""
    rng = np.random.default_rng(seed)
    long_run = 0.002**2
    returns, variance = np.empty(rows), long_run
    for t, shock in enumerate(rng.standard_t(8, rows) / np.sqrt(8 / 6)):
        returns[t] = np.sqrt(variance) * shock
        variance = long_run * (1 - alpha - beta) + alpha * returns[t] ** 2 + beta * variance
    return returns


def bars_of(returns: np.ndarray) -> pd.DataFrame:
    """Return 15-minute bars whose closes have these log returns."""
    close = 100 * np.exp(np.cumsum(returns))
    opened = np.append(100.0, close[:-1])
    index = pd.date_range("2024-01-01", periods=len(close), freq="15min", tz="UTC", name="time")
    columns = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    return pd.DataFrame(columns | {"volume": 1.0}, index)


@pytest.fixture(scope="module")
def world():
    bars = bars_of(garch_returns(12_000))
    return volatility_inputs(bars, HORIZON), range_targets(bars, HORIZON)


@pytest.fixture(scope="module")
def fitted(world):
    X, Y = world
    return GarchRange(horizon=HORIZON).fit(X[:8_000], Y[:8_000])


def test_it_finds_the_planted_process(fitted):
    garch = fitted.garch_
    assert abs(garch.alpha - 0.12) < 0.04 and abs(garch.persistence - 0.97) < 0.02
    assert abs(garch.omega / (1 - garch.persistence) / 0.002**2 - 1) < 0.5 and fitted.note_ == ""


def test_where_variance_is_a_garch_it_beats_the_exponential_average(world, fitted):
    X, Y = world
    test = slice(8_000 + HORIZON, len(X) - HORIZON)
    ewma = ScaledRange("ewma").fit(X[:8_000], Y[:8_000])
    columns = ["up_0.1", "up_0.5", "up_0.9"]
    truth = Y["up"][test].to_numpy()
    ours, theirs = (
        pinball_loss(truth, model.predict(X)[test][columns].to_numpy(), (0.1, 0.5, 0.9)).mean()
        for model in (fitted, ewma)
    )
    assert ours < theirs
    assert abs((truth <= fitted.predict(X)[test]["up_0.9"]).mean() - 0.9) < 0.03


def test_filter_and_forecast_are_those_of_arch():
    from arch import arch_model

    returns = garch_returns(3_000) * 100
    garch = Garch(0.02, 0.1, 0.85)
    model = arch_model(returns, mean="Zero", vol="GARCH", dist="t", rescale=False)
    fixed = model.fix([*astuple(garch), 8.0])
    theirs = fixed.forecast(horizon=HORIZON, start=0, reindex=True).variance.to_numpy().sum(axis=1)
    ours = over_horizon(next_variance(returns, fixed.conditional_volatility[0] ** 2, *astuple(garch)), garch, HORIZON)
    assert np.allclose(ours, theirs, rtol=1e-9)


def test_the_future_changes_no_past_forecast(world, fitted):
    X, _ = world
    wild = X.copy()
    wild.iloc[9_000:] *= 7
    assert fitted.predict(wild)[:9_000].equals(fitted.predict(X)[:9_000])
    assert fitted.predict(X[:9_000]).equals(fitted.predict(X)[:9_000])
    assert not fitted.predict(wild)[9_000:].equals(fitted.predict(X)[9_000:])


def test_where_the_filter_starts_is_forgotten(world, fitted):
    X, _ = world
    late, early = fitted.predict(X[9_000:]), fitted.predict(X)[9_000:]
    assert np.allclose(late[600:], early[600:], rtol=1e-6) and not np.allclose(late[:5], early[:5], rtol=1e-3)


def test_same_rows_give_the_same_model(world, fitted):
    X, Y = world
    again = GarchRange(horizon=HORIZON).fit(X[:8_000], Y[:8_000])
    assert again.garch_ == fitted.garch_ and np.array_equal(again.ratios_, fitted.ratios_)


def test_a_missing_return_is_taken_as_expected_and_warm_up_is_not_predicted(world, fitted):
    X, _ = world
    holed = X.copy()
    holed.iloc[9_000:9_003, holed.columns.get_loc("return")] = np.nan
    found = fitted.predict(holed)
    assert found.iloc[: HORIZON - 1].isna().all().all() and found.iloc[HORIZON:].notna().all().all()
    assert fitted.predict(X.iloc[:0]).empty and fitted.predict(X.iloc[: HORIZON - 1]).isna().all().all()


def test_a_sample_without_a_maximum_uses_riskmetrics_and_says_so():
    lonely = np.zeros(400)
    lonely[200] = 0.1
    garch, note = fit_garch(lonely)
    assert garch == RISKMETRICS and "RiskMetrics" in note


def test_constant_and_short_series_are_errors(world):
    X, Y = world
    with pytest.raises(ModelError, match=r"a GARCH needs returns that vary, all of [0-9,]+ were 0"):
        GarchRange(horizon=HORIZON).fit(X.assign(**{"return": 0.0}), Y)
    with pytest.raises(ModelError, match="a GARCH needs at least 200 returns, there are 149"):
        GarchRange(horizon=HORIZON).fit(X[:150], Y[:150])
    with pytest.raises(ModelError, match="must have a column 'return'"):
        GarchRange(horizon=HORIZON).fit(X.drop(columns="return"), Y)


def test_it_runs_on_a_synthetic_market():
    bars = synthetic_market(3_000, timeframe="15m", seed=7).bars
    X, Y = volatility_inputs(bars, HORIZON), range_targets(bars, HORIZON)
    forecast = GarchRange((0.25, 0.75), HORIZON).fit(X[:2_000], Y[:2_000]).predict(X[2_000:])
    assert list(forecast) == ["up_0.25", "up_0.75", "down_0.25", "down_0.75", "log_range"]
    assert (forecast["up_0.25"] <= forecast["up_0.75"]).all() and np.isfinite(forecast).all().all()
