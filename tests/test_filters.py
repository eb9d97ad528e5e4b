"""Filters beside random filters of equal retention: exact means, honest p-values, silence when there is too little."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.filters import FEWEST, filter_value, holm, phase_filters, turned_means
from orbiquant.core import DataError


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 80), st.integers(0, 1000))
def test_turned_means_are_those_of_a_loop(rows, seed):
    rng = np.random.default_rng(seed)
    r, kept = rng.normal(size=rows), rng.random(rows) < 0.5
    kept[0] = True
    assert np.allclose(turned_means(r, kept), [r[np.roll(kept, turn)].mean() for turn in range(rows)], atol=1e-9)


def test_without_an_edge_p_values_are_uniform():
    """Moody trades, moody filters, nothing in common: one in ten is below 0.1, not more."""
    rng = np.random.default_rng(1)
    values = []
    for _ in range(400):
        mood, filtered = (np.roll(np.repeat(rng.random(40) < 0.5, 10), rng.integers(400)) for _ in range(2))
        values.append(filter_value(pd.Series(rng.normal(size=400) + mood), pd.Series(filtered))["p_value"])
    assert 0.06 < np.mean(np.array(values) < 0.1) < 0.15 and 0.42 < np.mean(values) < 0.58


def test_an_edge_is_found():
    rng = np.random.default_rng(2)
    kept = pd.Series(np.repeat(rng.random(60) < 0.5, 10))
    found = filter_value(pd.Series(rng.normal(size=600)) + 0.4 * kept, kept)
    assert found["p_value"] < 0.01 and found["gain_r"] > 0.1 and found["retention"] == kept.mean()


@pytest.mark.parametrize("count", [0, FEWEST - 1, 200 - FEWEST + 1, 200])
def test_too_few_kept_or_dropped_is_no_answer(count):
    r = pd.Series(np.linspace(-1, 1, 200))
    found = filter_value(r, pd.Series(np.arange(200) < count))
    assert found["kept"] == count and np.isnan(found["p_value"]) and np.isnan(found["gain_r"])


def test_no_trades_and_bad_tables():
    empty = filter_value(pd.Series(dtype=float), pd.Series(dtype=bool))
    assert empty["trades"] == 0 and np.isnan(empty["retention"])
    with pytest.raises(DataError, match="`kept` must have the index of `r`"):
        filter_value(pd.Series([1.0]), pd.Series([True, False]))
    with pytest.raises(DataError, match="`r` must be finite"):
        filter_value(pd.Series([1.0, np.nan]), pd.Series([True, False]))


def test_holm_is_the_textbooks():
    assert holm(pd.Series([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(pd.Series([np.nan, 0.6])).tolist()[1] == 0.6


def test_a_list_without_trades_has_empty_filters():
    trades = pd.DataFrame({"r": [], "side": [], "direction": [], "amd_phase": []})
    assert phase_filters(trades)["kept"].eq(0).all()
