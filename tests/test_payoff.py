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
from orbiquant.models.tpsl import SIDES, TPSLClassifier
from orbiquant.signals import confidence, primary_signals

R = np.array([2.0, -1.0, 0.5, -0.25])
MET = R == 2


def test_the_rest_is_averaged_over_the_misses():
    payoff = fit_payoff(R, MET)
    assert (payoff.at, payoff.gain, payoff.loss) == (0.25, 0.5 / 3, 1.25 / 3)
    assert np.allclose(payoff(np.array([0.25])), [[0.5 / 3, 1.25 / 3]])


def test_half_the_way_to_a_full_loss_where_every_trade_is_decided():
    r = np.repeat([2.0, 0.4, -1.0], [30, 10, 60])
    payoff = fit_payoff(r, r == 2)
    assert np.allclose(payoff(np.array([0.3, 1 / 3])), [[4 / 70, 60 / 70], [2 / 70, (60 / 70 + 1) / 2]])
    assert (payoff(np.array([0.0, 1.0])) >= 0).all()


@pytest.mark.parametrize("r", [[2.0, 2.0], [0.5, 0.25], []])
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_rows_without_a_loss_are_no_evidence_of_riskless_trades(r):
    assert fit_payoff(np.array(r), np.array(r) == 2) == RestPayoff()
    assert RestPayoff()(np.array([0.3])).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("wins", [0, 40, 50, 90])
def test_a_base_rate_without_room_for_pace_has_no_slope(wins):
    r = np.repeat([2.0, 0.4, -1.0], [wins, 5, 95 - wins])
    payoff = fit_payoff(r, r == 2)
    assert (payoff.gain_slope, payoff.loss_slope) == (0.0, 0.0) and payoff.loss > 0


@given(st.lists(st.sampled_from([2.0, 2.1, -1.0, -1.3, -0.4, 0.2, 1.7]), min_size=4, max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_likelier_target_is_never_worth_less_at_the_base_rate(results):
    r = np.array(results)
    payoff = fit_payoff(r, r >= 2)
    near = payoff.at + np.array([-1e-6, 1e-6])
    gain, loss = payoff(near).T
    worth = near * r[r >= 2].mean() + (1 - near) * (gain - loss) if payoff.gain_slope else near
    assert worth[1] >= worth[0] - 1e-9


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
    for side in SIDES:
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
    plain = primary_signals(bars, predicted, 1.5, 2.0)["confidence"]
    said = predicted.assign(rest_gain_long=0.9, rest_loss_long=0.1, rest_gain_short=0.1, rest_loss_short=0.8)
    said.iloc[:31, 2:] = np.nan
    told = primary_signals(bars, said, 1.5, 2.0)["confidence"]
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
