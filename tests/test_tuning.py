"""Tuning: sees training rows only, repeats itself, counts every trial, keeps defaults unless beaten by more."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_pinball_loss

from orbiquant.core import ModelError
from orbiquant.models.boosting import Boosting
from orbiquant.models.tpsl import TPSLClassifier
from orbiquant.models.tuning import BOOSTING_SPACE, SearchRange, default_params, forecast_loss, luck_of, tune

RATE = {"rate": SearchRange(low=0.05, high=0.95)}


class Says:
    """Predicts one probability, and remembers what it was shown."""

    def __init__(self, rate, seen):
        self.rate, self.seen = rate, seen

    def fit(self, X, Y):
        self.fitted = X.index
        return self

    def predict(self, X):
        self.seen.append((self.fitted, X.index))
        return pd.DataFrame({"p_long": self.rate, "p_short": self.rate}, X.index)


def coins(rows: int = 3_000, rate: float = 0.3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return no features and wins of one rate."""
    rng = np.random.default_rng(7)
    X = pd.DataFrame({"a": rng.normal(size=rows)})
    return X, pd.DataFrame(rng.random((rows, 2)) < rate, columns=["long", "short"]).astype(float)


def test_the_best_value_is_found_and_proven():
    X, Y = coins()
    tuning = tune(X, Y, lambda p: Says(p["rate"], []), RATE, trials=25, horizon=1, defaults={"rate": 0.8})
    assert tuning.proven and abs(tuning.params["rate"] - 0.3) < 0.05 and tuning.count == 25
    assert tuning.trials["rate"].iloc[0] == 0.8 and (tuning.trials["state"] == "pruned").any()
    complete = tuning.trials[tuning.trials["state"] == "complete"]
    assert complete.loc[complete["loss"].idxmin(), "rate"] == tuning.params["rate"]


def test_defaults_that_are_right_stay():
    X, Y = coins()
    tuning = tune(X, Y, lambda p: Says(p["rate"], []), RATE, trials=25, horizon=1, defaults={"rate": 0.3})
    assert not tuning.proven and tuning.params == {"rate": 0.3} and tuning.count == 25


def test_inner_folds_are_purged_and_rows_behind_the_training_rows_are_never_touched():
    X, Y = coins(2_600)
    seen: list = []
    tune(X[:2_000], Y[:2_000], lambda p: Says(p["rate"], seen), RATE, 6, 7, 24, 10, 3, {"rate": 0.3})
    assert len(seen) >= 6
    for fitted, judged in seen:
        assert judged[0] - fitted[-1] == 24 + 10 + 1 and judged[-1] < 2_000 and fitted[0] == 0


def test_the_same_rows_and_seed_give_the_same_search_and_another_seed_another():
    X, Y = coins()

    def search(seed):
        return tune(X, Y, lambda p: Says(p["rate"], []), RATE, 10, seed, 1, defaults={"rate": 0.5})

    first, again, other = search(7), search(7), search(8)
    pd.testing.assert_frame_equal(first.trials, again.trials, check_exact=True)
    assert first.params == again.params
    assert not first.trials["rate"].equals(other.trials["rate"])


def test_trials_that_fail_count_and_failing_defaults_are_an_error():
    X, Y = coins()

    def fragile(params):
        if params["rate"] > 0.5:
            raise ModelError("`rate` must be small")
        return Says(params["rate"], [])

    tuning = tune(X, Y, fragile, RATE, trials=15, horizon=1, defaults={"rate": 0.4})
    assert tuning.count == 15 and (tuning.trials["state"] == "failed").any()
    assert tuning.trials.loc[tuning.trials["state"] == "failed", "loss"].isna().all()
    with pytest.raises(ModelError, match="`defaults` must give a model that can be fitted"):
        tune(X, Y, fragile, RATE, trials=3, horizon=1, defaults={"rate": 0.9})


def test_trees_are_tuned_from_their_own_defaults_and_nothing_is_logged(caplog):
    X, Y = coins(2_400)
    X["b"] = np.random.default_rng(1).normal(size=len(X))

    def trees(params):
        return TPSLClassifier(1, Boosting(rounds=5, **params))

    with caplog.at_level(logging.DEBUG):
        tuning = tune(X, Y, trees, trials=4, horizon=1)
    assert not [record for record in caplog.records if record.name.startswith("optuna")]
    assert tuning.trials.loc[0, list(BOOSTING_SPACE)].to_dict() == default_params(BOOSTING_SPACE)
    assert Boosting(**tuning.params).max_depth == default_params(BOOSTING_SPACE)["max_depth"]


def test_what_cannot_be_searched_is_refused():
    X, Y = coins()
    with pytest.raises(ModelError, match="`trials` must be at least 1, was 0"):
        tune(X, Y, lambda p: Says(p["rate"], []), RATE, trials=0, defaults={"rate": 0.3})
    with pytest.raises(ModelError, match="need at least"):
        tune(X[:300], Y[:300], lambda p: Says(p["rate"], []), RATE, trials=1, defaults={"rate": 0.3})
    with pytest.raises(ModelError, match="was without 'rate'"):
        tune(X, Y, lambda p: Says(p["rate"], []), RATE, trials=1)
    for low, high, log in ((1, 1, False), (2, 1, False), (0, 1, True)):
        with pytest.raises(ValueError, match="`low` must be below `high`"):
            SearchRange(low=low, high=high, log=log)


def test_losses_are_those_of_scikit_learn():
    rng = np.random.default_rng(7)
    won = pd.DataFrame(rng.random((400, 2)) < 0.4, columns=["long", "short"]).astype(float)
    said = pd.DataFrame(rng.uniform(0.1, 0.9, (400, 2)), columns=["p_long", "p_short"])
    each = [log_loss(won[side], said[f"p_{side}"]) for side in ("long", "short")]
    assert forecast_loss(won, said).mean() == pytest.approx(np.mean(each))
    moves = pd.DataFrame(rng.exponential(size=(400, 2)), columns=["up", "down"])
    levels = pd.DataFrame({f"{t}_{q}": rng.exponential(size=400) for t in ("up", "down") for q in (0.1, 0.9)})
    each = [mean_pinball_loss(moves[t], levels[f"{t}_{q}"], alpha=q) for t in ("up", "down") for q in (0.1, 0.9)]
    assert forecast_loss(moves, levels).mean() == pytest.approx(np.mean(each) / moves.to_numpy().mean())


def test_more_trials_need_a_larger_lead():
    assert luck_of(1) == 1 and 2.2 < luck_of(12) < 2.3 and luck_of(100) > luck_of(20) > 2.4
