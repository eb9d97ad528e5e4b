"""What trades that miss their target are worth, and that confidence counts it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError
from orbiquant.market.synthetic import SyntheticConfig, synthetic_market
from orbiquant.models.boosting import Boosting
from orbiquant.models.labels import barrier_distance, triple_barrier
from orbiquant.models.payoff import RestPayoff, fit_payoff
from orbiquant.models.tpsl import TRADE_SIDES, TPSLClassifier
from orbiquant.signals import confidence, primary_signals

R = np.array([2.0, -1.0, 0.5, -0.25])
MET = R == 2


def test_the_rest_is_averaged_over_the_misses():
    payoff = fit_payoff(R, MET)
    assert (payoff.at, payoff.gain, payoff.loss) == (0.25, 0.5 / 3, 1.25 / 3)
    assert np.allclose(payoff(np.array([0.25])), [[0.5 / 3, 1.25 / 3]])


def worth(payoff: RestPayoff, p: np.ndarray, target: float) -> np.ndarray:
    """Return the confidence that `signals` states at each probability."""
    gain, loss = payoff(p).T
    return confidence(pd.Series(p), target, pd.Series(gain), pd.Series(loss)).to_numpy()


def test_pace_ends_where_every_trade_is_decided_at_the_same_mean_result():
    r = np.repeat([2.0, 0.4, -1.0], [30, 10, 60])
    payoff, end = fit_payoff(r, r == 2), (1 + r.mean()) / 3
    pace = payoff.model_copy(update={"share": 1.0})
    assert np.allclose(pace(np.array([0.3, end])), [[4 / 70, 60 / 70], [0, 1]])
    assert np.allclose(payoff(np.array([end, 0.9])), [[2 / 70, (60 / 70 + 1) / 2]] * 2)
    slower = np.array([0.1, 0.2])
    gain, loss = pace(slower).T
    assert np.allclose(slower * 2 + (1 - slower) * (gain - loss), r.mean())


def test_losses_beyond_the_stop_stay_as_they_were_measured():
    r = np.repeat([2.0, 0.4, -1.3], [30, 5, 65])
    payoff, end = fit_payoff(r, r == 2), (1.3 * 65 / 70 + r.mean()) / (2 + 1.3 * 65 / 70)
    assert payoff.full == payoff.loss == pytest.approx(1.3 * 65 / 70) and payoff.share == 0.5
    assert np.allclose(payoff(np.array([0.05, 0.3, end, 0.9]))[:, 1], payoff.loss)
    assert np.allclose(payoff(np.array([end, 0.9]))[:, 0], payoff.gain / 2)


@pytest.mark.parametrize("wins", [32, 33, 34, 40, 50])
def test_a_base_rate_near_that_of_a_market_without_time_limit_is_no_singularity(wins):
    r = np.repeat([2.0, 0.3, -1.0], [wins, 1, 99 - wins])
    payoff = fit_payoff(r, r == 2)
    stated = payoff(np.linspace(0.1, 0.6, 51))
    assert payoff.share == 0.5 and np.abs(np.diff(stated, axis=0)).max() < 0.1
    assert (np.diff(worth(payoff, np.linspace(0.1, 0.6, 51), 2.0)) > 0).all()


@given(
    st.floats(0, 1), st.floats(0.001, 3), st.floats(0.1, 10), st.floats(0.001, 0.999), st.integers(0, 10_000)
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_likelier_target_is_never_worth_less(timed_out, loss, target, rate, seed):
    """Whatever is measured: misses gain up to the target, lose less or more than one R, and are rare or common."""
    rows = 2_000
    wins = max(int(rate * rows), 1)
    gains = np.random.default_rng(seed).uniform(0, 0.99 * target, int(timed_out * (rows - wins)))
    r = np.concatenate([np.full(wins, target), gains, np.full(rows - wins - len(gains), -loss)])
    payoff = fit_payoff(r, np.arange(rows) < wins)
    p = np.linspace(0, 1, 501)
    stated, said = payoff(p), worth(payoff, p, target)
    assert np.isfinite(stated).all() and (stated >= 0).all() and abs(payoff.slope) <= max(target, payoff.full) + 1e-9
    assert (stated <= [(payoff.gain + target) / 2 + 1e-9, max(payoff.full, payoff.loss) + 1e-9]).all()
    assert (np.diff(said) >= -1e-9).all()
    rate = np.array([payoff.at])
    assert np.allclose(payoff(rate), [[payoff.gain, payoff.loss]])


@pytest.mark.parametrize("r", [[2.0, 2.0], [0.5, 0.25], []])
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_rows_without_a_loss_are_no_evidence_of_riskless_trades(r):
    assert fit_payoff(np.array(r), np.array(r) == 2) == RestPayoff()
    assert RestPayoff()(np.array([0.3])).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("wins", "timed_out"), [(0, 5), (30, 0)])
def test_rows_that_tell_nothing_of_pace_leave_constants(wins, timed_out):
    r = np.repeat([2.0, 0.4, -1.0], [wins, timed_out, 95])
    payoff = fit_payoff(r, r == 2)
    assert payoff.share == 0 and np.allclose(payoff(np.array([0.0, 0.3, 1.0])), [[payoff.gain, payoff.loss]] * 3)


def test_a_stored_classifier_without_payoff_is_refused():
    content = json.loads(fitted().to_json())
    del content["payoffs"]["short"]
    with pytest.raises(ModelError, match="stored classifier cannot be read: KeyError 'short'"):
        TPSLClassifier.from_json(json.dumps(content).encode())


def fitted(results: bool = True) -> TPSLClassifier:
    """Return a classifier fitted to a synthetic market."""
    bars = synthetic_market(3_000, seed=4).bars
    stop = barrier_distance(bars, 1.5)
    labels = triple_barrier(bars, 24, 2 * stop, stop)
    X = pd.DataFrame({"hour": bars.index.hour, "height": np.log(bars["high"] / bars["low"])}, bars.index)
    return TPSLClassifier(24, Boosting(rounds=20)).fit(X, labels if results else labels[["long", "short"]])


def test_a_classifier_says_the_rest_beside_its_probabilities():
    model, plain = fitted(), fitted(results=False)
    X = pd.DataFrame({"hour": [3.0, 14.0], "height": [0.001, 0.004]}, pd.date_range("2024", periods=2, tz="UTC"))
    said, full = model.predict(X), plain.predict(X)
    assert list(said) == model.columns_ and said.filter(like="p_").equals(full.filter(like="p_"))
    for side in TRADE_SIDES:
        rest = model.payoffs_[side](said[f"p_{side}"].to_numpy())
        assert np.array_equal(said[[f"rest_gain_{side}", f"rest_loss_{side}"]], rest) and (rest[:, 1] < 1).all()
    assert (full[["rest_gain_long", "rest_gain_short"]] == 0).all(axis=None)
    assert (full[["rest_loss_long", "rest_loss_short"]] == 1).all(axis=None)
    assert TPSLClassifier.from_json(model.to_json()).predict(X).equals(said)


def test_a_half_is_break_even_whatever_the_rest_is_worth():
    rng = np.random.default_rng(1)
    p, gain, loss = rng.uniform(0.05, 0.6, 50), rng.uniform(0, 0.3, 50), rng.uniform(0.3, 1.2, 50)
    expected = 2 * p + (1 - p) * (gain - loss)
    sure = confidence(pd.Series(p), 2.0, pd.Series(gain), pd.Series(loss))
    assert (np.sign(sure - 0.5) == np.sign(expected)).all()


def test_each_side_counts_its_own_rest_and_full_losses_where_none_is_said():
    bars = synthetic_market(60, seed=2).bars
    predicted = pd.DataFrame({"p_long": 0.2, "p_short": 0.3}, bars.index)
    plain = primary_signals(bars["close"], barrier_distance(bars, 1.5), predicted, 2.0).confidence
    said = predicted.assign(rest_gain_long=0.9, rest_loss_long=0.1, rest_gain_short=0.1, rest_loss_short=0.8)
    said.iloc[:31, 2:] = np.nan
    told = primary_signals(bars["close"], barrier_distance(bars, 1.5), said, 2.0).confidence
    short = (0.3 * 2 + 0.7 * 0.1) / (0.3 * 2 + 0.7 * 0.9)
    assert np.allclose(plain, 0.6 / 1.3) and np.allclose(told[31:], short) and np.allclose(told[:31], 0.6 / 1.3)


def test_stated_confidence_is_what_trades_make_in_a_market_without_an_edge():
    """On a martingale with a time limit, base rate and rest together say one half; full losses would say far less."""
    bars = synthetic_market(30_000, seed=5, config=SyntheticConfig(cycles=False)).bars
    stop = barrier_distance(bars, 1.5)
    labels = triple_barrier(bars, 24, 2 * stop, stop).dropna()
    r = labels["long_r"]
    rest = fit_payoff(r.to_numpy(), labels["long"].to_numpy() == 1)
    said = confidence(pd.Series([labels["long"].mean()]), 2.0, rest.gain, rest.loss).iloc[0]
    made = r.clip(lower=0).sum() / r.abs().sum()
    assert abs(said - made) < 0.01 and abs(said - 0.5) < 0.03
    assert confidence(pd.Series([labels["long"].mean()]), 2.0).iloc[0] < 0.45
