"""What trades that miss their target are worth, and that confidence counts it."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import ModelError
from orbiquant.market.synthetic import SyntheticConfig, synthetic_market
from orbiquant.models.labels import barrier_distance, triple_barrier
from orbiquant.models.payoff import FULL_LOSS, RestPayoff
from orbiquant.signals import confidence, primary_signals

LABELS = pd.DataFrame(
    {
        "long": [1, 0, 0, 0, np.nan], "long_r": [2.0, -1.0, 0.5, -0.25, np.nan],
        "short": [1, 1, 1, 1, 0], "short_r": [2.0, 2.0, 2.0, 2.0, np.nan],
    }
)  # fmt: skip


def test_the_rest_is_averaged_over_the_misses_that_are_known():
    payoff = RestPayoff().fit(LABELS, LABELS)
    assert payoff.rest_ == {"long": (0.5 / 3, 1.25 / 3), "short": FULL_LOSS}
    said = payoff.predict(pd.DataFrame(index=range(2)))
    assert said.iloc[1].to_dict() == {
        "rest_gain_long": 0.5 / 3, "rest_loss_long": 1.25 / 3, "rest_gain_short": 0.0, "rest_loss_short": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"[]", b'{"long": [1, 2]}', b'{"long": [1], "short": [0, 1]}'])
def test_what_is_no_payoff_is_refused(content):
    with pytest.raises(ModelError, match="stored payoff cannot be read"):
        RestPayoff.from_json(content)


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
    labels = triple_barrier(bars, 24, 2 * stop, stop)
    rest = RestPayoff().fit(bars, labels).rest_["long"]
    said = confidence(pd.Series([labels["long"].mean()]), 2.0, *rest).iloc[0]
    r = labels["long_r"].dropna()
    made = r.clip(lower=0).sum() / r.abs().sum()
    assert abs(said - made) < 0.01 and abs(said - 0.5) < 0.03
    assert confidence(pd.Series([labels["long"].mean()]), 2.0).iloc[0] < 0.45
