"""Labels against a slow oracle, on a martingale, and against looking further than they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError
from orbiquant.features.indicators import atr
from orbiquant.models.labels import (
    BARRIER_COLUMNS,
    average_uniqueness,
    barrier_distance,
    label_end,
    range_targets,
    triple_barrier,
)


def walk(rows: int, seed: int = 7, steps: int = 12, scale: float = 2e-4, gaps: float = 0.0) -> pd.DataFrame:
    """Return a driftless random walk; each bar is `steps` steps, with a jump of `gaps` between bars."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(scale=scale, size=(rows, steps))
    moves[:, 0] += rng.normal(scale=gaps, size=rows) if gaps else 0
    prices = np.exp(moves.cumsum().reshape(moves.shape))
    index = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC", name="time")
    columns = {"open": prices[:, 0], "high": prices.max(1), "low": prices.min(1), "close": prices[:, -1]}
    return pd.DataFrame(columns | {"volume": 1.0}, index)


def slow_exit(bars: pd.DataFrame, t: int, horizon: int, reward: float, risk: float, side: int):
    """Return what one trade comes to, read from the definition bar by bar."""
    path = bars.iloc[t + 1 : t + 1 + horizon]
    entry = path["open"].iloc[0]
    stop, target = entry - side * risk, entry + side * reward
    for held, (o, h, low) in enumerate(zip(path["open"], path["high"], path["low"], strict=True), start=1):
        beyond_stop = o <= stop if side > 0 else o >= stop
        beyond_target = o >= target if side > 0 else o <= target
        if beyond_stop or beyond_target:
            return float(beyond_target), side * (o - entry) / risk, held
        if low <= stop if side > 0 else h >= stop:
            return 0.0, -1.0, held
        if h >= target if side > 0 else low <= target:
            return 1.0, reward / risk, held
    return 0.0, side * (path["close"].iloc[-1] - entry) / risk, horizon


@pytest.mark.parametrize("gaps", [0.0, 3e-3])
@pytest.mark.parametrize("horizon", [1, 7])
def test_triple_barrier_agrees_with_the_definition(horizon, gaps):
    bars = walk(300, gaps=gaps)
    risk = pd.Series(np.random.default_rng(1).uniform(2e-4, 4e-3, len(bars)), bars.index)
    found = triple_barrier(bars, horizon, 1.5 * risk, risk)
    for t in range(len(bars) - horizon):
        for side, name in ((1, "long"), (-1, "short")):
            expected = slow_exit(bars, t, horizon, 1.5 * risk.iloc[t], risk.iloc[t], side)
            row = found.iloc[t][[name, f"{name}_r", f"{name}_bars"]].to_numpy()
            np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-9)


def one_trade(path: list[tuple[float, float, float, float]], reward=2.0, risk=1.0) -> pd.Series:
    """Return the labels of the first row when these bars follow it."""
    index = pd.date_range("2024-01-01", periods=len(path) + 1, freq="1h", tz="UTC")
    bars = pd.DataFrame([(100.0,) * 4, *path], index, ["open", "high", "low", "close"])
    return triple_barrier(bars, len(path), reward, risk).iloc[0]


def test_a_bar_that_touches_both_barriers_is_the_stop_on_both_sides():
    row = one_trade([(100, 103, 97, 102)])
    assert (row["long"], row["short"], row["long_r"], row["short_r"]) == (0, 0, -1, -1)


def test_a_bar_that_opens_beyond_a_barrier_fills_at_that_open():
    below = one_trade([(100, 100.5, 99.5, 100), (97, 104, 96, 103)])
    assert (below["long"], below["long_r"], below["long_bars"]) == (0, -3, 2)
    assert (below["short"], below["short_r"]) == (1, 3)


def test_without_a_touch_the_trade_ends_at_the_close_of_the_horizon():
    row = one_trade([(100, 100.5, 99.5, 100), (100, 100.9, 99.6, 100.4)])
    assert row["long"] == 0 and row["long_r"] == pytest.approx(0.4) and row["short_r"] == pytest.approx(-0.4)
    assert row["long_bars"] == row["short_bars"] == 2


def test_a_touch_to_the_tick_counts():
    assert one_trade([(100, 102, 99.5, 101)])["long"] == 1
    assert one_trade([(100, 101, 99, 100.5)])["long_r"] == -1


@pytest.mark.parametrize("risk_reward", [1.0, 2.0, 3.0])
def test_on_a_martingale_the_target_comes_first_as_often_as_it_should(risk_reward):
    bars = walk(60_000, steps=40, scale=1e-4)
    distance = 0.002
    found = triple_barrier(bars, 400, risk_reward * distance, distance)
    ended = found[(found["long_bars"] < 400) & (found["short_bars"] < 400)]
    expected = 1 / (1 + risk_reward)
    independent = average_uniqueness(found["long_bars"]).sum()
    tolerance = 4 * np.sqrt(expected * (1 - expected) / independent) + 0.02
    assert abs(ended["long"].mean() - expected) < tolerance
    assert abs(ended["short"].mean() - expected) < tolerance
    assert abs(found["long_r"].mean()) < 3 * risk_reward / np.sqrt(independent) + 0.05


def test_a_short_is_a_long_on_the_mirrored_price():
    bars = walk(2_000)
    mirrored = pd.DataFrame(
        {"open": 4 - bars["open"], "high": 4 - bars["low"], "low": 4 - bars["high"], "close": 4 - bars["close"]}
    )
    straight, mirror = triple_barrier(bars, 12, 0.002, 0.001), triple_barrier(mirrored, 12, 0.002, 0.001)
    assert (straight["long"].dropna() == mirror["short"].dropna()).mean() > 0.999
    np.testing.assert_allclose(straight["long_r"].iloc[:-12].mean(), mirror["short_r"].iloc[:-12].mean(), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(horizon=st.integers(1, 30), row=st.integers(0, 168), seed=st.integers(0, 99))
def test_a_label_uses_the_next_horizon_bars_and_nothing_else(horizon, row, seed):
    bars = walk(200, seed)
    whole = pd.concat([triple_barrier(bars, horizon, 0.002, 0.001), range_targets(bars, horizon)], axis=1)
    kept = bars.copy()
    kept.iloc[:row, :4] *= 1.5
    kept.iloc[row + horizon + 1 :, :4] *= 0.5
    again = pd.concat([triple_barrier(kept, horizon, 0.002, 0.001), range_targets(kept, horizon)], axis=1)
    pd.testing.assert_series_equal(whole.iloc[row], again.iloc[row])
    touched = bars.copy()
    touched.iloc[row + horizon, :4] = [2.0, 9.0, 0.1, 2.0]
    assert not range_targets(touched, horizon).iloc[row].equals(whole.iloc[row][["up", "down"]])


@pytest.mark.parametrize("rows", [0, 1, 24, 25])
def test_incomplete_horizons_have_no_label_whatever_happened_before(rows):
    bars = walk(max(rows, 1)).iloc[:rows]
    for labels in (triple_barrier(bars, 24, 1e-9, 1e-9), range_targets(bars, 24)):
        assert len(labels) == rows and labels.iloc[-24:].isna().all(axis=None)
        assert labels.iloc[:-24].notna().all(axis=None)
    assert list(triple_barrier(bars, 24, 1.0, 1.0)) == BARRIER_COLUMNS


def test_without_a_distance_there_is_no_label():
    bars = walk(100)
    stop = barrier_distance(bars, 1.5)
    assert stop.isna().sum() == 14 and np.allclose(stop, 1.5 * atr(bars, 14), equal_nan=True)
    labels = triple_barrier(bars, 5, 2 * stop, stop)
    assert labels[stop.isna()].isna().all(axis=None) and labels[stop.notna()].iloc[:-5].notna().all(axis=None)
    assert triple_barrier(bars, 5, 0.0, 0.001).isna().all(axis=None)


def test_range_targets_are_distances_from_the_close():
    bars = walk(500)
    targets = range_targets(bars, 10)
    for t in (0, 100, 489):
        ahead = bars.iloc[t + 1 : t + 11]
        assert targets["up"].iloc[t] == pytest.approx(ahead["high"].max() / bars["close"].iloc[t] - 1)
        assert targets["down"].iloc[t] == pytest.approx(1 - ahead["low"].min() / bars["close"].iloc[t])


def test_label_end_is_the_open_of_the_last_bar_used_across_gaps():
    index = walk(50).index.delete(slice(20, 30))
    ends = label_end(index, 5)
    assert ends.iloc[18] == index[23] and ends.iloc[-5:].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0, 1.0), "`horizon` must be at least 1 bar, was 0"),
        ((5, 1.0, -1.0), "`stop_loss` must not be negative, was -1.0"),
        ((5, pd.Series([1.0]), 1.0), "`take_profit` must have the bars' index"),
    ],
)
def test_bad_parameters_are_refused_by_name(arguments, message):
    with pytest.raises(ModelError, match=message):
        triple_barrier(walk(50), *arguments)


@pytest.mark.parametrize("stop_atr", [0, -1, float("nan")])
def test_a_stop_needs_a_size(stop_atr):
    with pytest.raises(ModelError, match="`stop_atr` must be above 0"):
        barrier_distance(walk(50), stop_atr)


def slow_uniqueness(held: list[float]) -> list[float]:
    """Return average uniqueness from López de Prado's definition."""
    used = [set(range(t + 1, t + 1 + int(h))) if h == h else set() for t, h in enumerate(held)]
    on = lambda bar: sum(bar in other for other in used)  # noqa: E731
    return [np.mean([1 / on(bar) for bar in own]) if own else np.nan for own in used]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 9).map(float), st.just(float("nan"))), max_size=40))
def test_uniqueness_agrees_with_the_definition(held):
    found = average_uniqueness(pd.Series(held, dtype=float))
    np.testing.assert_allclose(found, slow_uniqueness(held), rtol=1e-9)
