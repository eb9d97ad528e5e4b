"""A stream's rows are the matrix's rows, bit for bit: random markets, cuts, calendars, holes, halts, clock changes."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import DataError
from orbiquant.domain import Bars, Timeframe
from orbiquant.features.config import IctConfig, PhaseConfig
from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec, warmup_bars
from orbiquant.features.stream import FeatureStream, Tape
from orbiquant.market.bars import empty_bars
from orbiquant.market.calendars import bar_open, expected_times, next_open, to_times
from orbiquant.market.synthetic import BITCOIN_LIKE, SyntheticConfig, synthetic_market
from tests.tools.shared_bars import shared_bars

QUICK = {
    "phases": PhaseConfig(range_bars=8, lookback_bars=60, max_age_bars=24),
    "ict": IctConfig(max_age_bars=30, swing_bars=3),
    "windows": (4, 10, 48),
}
EQUITY = SyntheticConfig(calendar="us_equity", start_price=4000.0, tick_size=0.01)
MARKETS = {
    "1m crypto": (FeatureSpec(timeframe="1m", calendar="crypto", higher=("5m", "15m"), **QUICK), BITCOIN_LIKE),
    "5m crypto": (FeatureSpec(timeframe="5m", calendar="crypto", higher=("30m",), **QUICK), BITCOIN_LIKE),
    "15m forex": (FeatureSpec(timeframe="15m", calendar="forex", higher=("1h",), **QUICK), SyntheticConfig()),
    "1h forex": (FeatureSpec(timeframe="1h", calendar="forex", higher=("4h",), **QUICK), SyntheticConfig()),
    "1h equity": (FeatureSpec(timeframe="1h", calendar="us_equity", higher=("1d",), **QUICK), EQUITY),
    "1d equity": (FeatureSpec(timeframe="1d", calendar="us_equity", **QUICK), EQUITY),
    "1w crypto": (FeatureSpec(timeframe="1w", calendar="crypto", **QUICK), BITCOIN_LIKE),
}


@cache
def market(name: str, seed: int = 3) -> Bars:
    spec, config = MARKETS[name]
    rows = warmup_bars(spec) + 400
    return synthetic_market(rows, timeframe=spec.timeframe, seed=seed, config=config).bars


def check_identity(bars: Bars, spec: FeatureSpec, cut: int) -> None:
    """Assert that seeding with `cut` bars and going on gives every value of the matrix over all bars."""
    whole, stream = build_features(bars, spec), FeatureStream(spec)
    history = stream.seed(bars.iloc[:cut])
    assert stream.columns.equals(whole.columns) and stream.since == bars.index[0]
    pd.testing.assert_frame_equal(history, whole.iloc[:cut], check_exact=True, check_freq=False)
    times, prices = to_times(bars.index), bars.to_numpy()
    live = np.array([stream.advance(int(times[i]), prices[i]) for i in range(cut, len(bars))])
    expected = whole.to_numpy()[cut:]
    same = (live == expected) | (np.isnan(live) & np.isnan(expected))
    assert same.all(), (
        f"{set(whole.columns[~same.all(axis=0)])} differ, first {bars.index[cut + (~same).any(1).argmax()]}"
    )


@pytest.mark.parametrize("name", MARKETS)
def test_bar_by_bar_is_the_matrix(name):
    spec, _ = MARKETS[name]
    check_identity(market(name), spec, warmup_bars(spec) + 1)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(list(MARKETS)), st.integers(0, 1000), st.data())
def test_bar_by_bar_is_the_matrix_for_any_market_and_cut(name, seed, data):
    spec, _ = MARKETS[name]
    bars = market(name, seed)
    check_identity(bars, spec, data.draw(st.integers(len(bars) - 120, len(bars) - 1)))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.6), st.integers(1, 200), st.integers(1, 80))
def test_holes_are_the_same_holes(seed, share, start, length):
    spec, _ = MARKETS["5m crypto"]
    bars = market("5m crypto", seed % 5)
    cut = len(bars) - 250
    kept = np.random.default_rng(seed).random(len(bars)) > share * (np.arange(len(bars)) > cut)
    kept[cut + start : cut + start + length] = False
    check_identity(bars[kept], spec, cut)


@pytest.mark.parametrize("start", ["2024-01-24", "2024-09-18"])
def test_clock_changes_and_weekends_are_no_exception(start):
    index = expected_times(start, pd.Timestamp(start) + pd.Timedelta(days=70), "1h", "forex")
    bars = synthetic_market(len(index), timeframe="1h", seed=6).bars.set_axis(index.rename("time"), axis=0)
    check_identity(bars, MARKETS["1h forex"][0], 600)


def test_a_halt_and_a_feed_without_volume():
    spec, bars = MARKETS["5m crypto"][0], market("5m crypto").copy()
    bars.iloc[-300:-100, :4] = bars["close"].iloc[-301]
    bars.iloc[-300:-100, 4] = 0.0
    check_identity(bars, spec, len(bars) - 350)
    check_identity(bars.assign(volume=0.0), spec, len(bars) - 350)
    dead = bars.assign(open=1.5, high=1.5, low=1.5, close=1.5, volume=1.0)
    check_identity(dead, spec, len(bars) - 50)


def test_a_market_that_rises_for_ever_and_breaks_a_level_from_beyond_the_window():
    spec, bars = MARKETS["5m crypto"][0], market("5m crypto").copy()
    flat = slice(-350, -120)
    bars.iloc[flat, :4] = bars["low"].iloc[-400:].min() * 0.98
    check_identity(bars, spec, len(bars) - 360)


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "EURUSD_15m", "XAUUSD_1h"])
def test_default_features_of_real_bars(name):
    calendar, timeframe = ("crypto" if "USDT" in name else "forex"), name.split("_")[1]
    spec, bars = FeatureSpec(timeframe=timeframe, calendar=calendar), shared_bars(name).iloc[-6000:]
    check_identity(bars, spec, len(bars) - 150)


def test_a_later_beginning_agrees_after_the_warmup():
    spec, bars = MARKETS["15m forex"][0], market("15m forex")
    whole, late = build_features(bars, spec), FeatureStream(spec)
    found = late.seed(bars.iloc[200:])
    pd.testing.assert_series_equal(found.iloc[-1], whole.iloc[-1], rtol=1e-6, atol=1e-6)


# --- what cannot be


def seeded() -> tuple[FeatureStream, Bars, int]:
    spec, bars = MARKETS["1h forex"][0], market("1h forex")
    stream, cut = FeatureStream(spec), len(bars) - 5
    stream.seed(bars.iloc[:cut])
    return stream, bars, cut


def across_a_higher_bound(bar: pd.Series) -> pd.Series:
    """Return the bar half an hour before the next bound of four-hour bars: on the grid, but in two of them."""
    opened = bar_open(pd.DatetimeIndex([bar.name]), Timeframe.H4, "forex", Timeframe.H1)
    return bar.rename(next_open(opened, Timeframe.H4, "forex")[0] - pd.Timedelta("30min"))


WRONG = {
    "cross the bounds of 4h": across_a_higher_bound,
    "unsorted": lambda bar: bar.rename(bar.name - pd.Timedelta("2h")),
    "duplicates": lambda bar: bar.rename(bar.name - pd.Timedelta("1h")),
    "off_grid": lambda bar: bar.rename(bar.name + pd.Timedelta("1min")),
    "missing": lambda bar: bar.drop("low"),
    "infinite": lambda bar: bar.replace(bar["high"], np.inf),
    "not_positive": lambda bar: bar * 0.0,
    "negative_volume": lambda bar: bar * [1, 1, 1, 1, -1],
    "impossible": lambda bar: bar.replace(bar["low"], bar["high"] * 2),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_bar_that_cannot_follow_is_refused_and_leaves_no_trace(fault):
    stream, bars, cut = seeded()
    with pytest.raises(DataError, match=fault):
        stream.update(WRONG[fault](bars.iloc[cut]))
    expected = build_features(bars, stream.spec).iloc[cut]
    pd.testing.assert_series_equal(stream.update(bars.iloc[cut]), expected, check_exact=True)


def test_a_stream_needs_history_and_enough_of_it_and_only_once():
    spec, bars = MARKETS["15m forex"][0], market("15m forex")
    with pytest.raises(DataError, match="must be seeded with history"):
        FeatureStream(spec).update(bars.iloc[0])
    with pytest.raises(DataError, match=f"need at least {warmup_bars(spec) + 1:,} of them"):
        FeatureStream(spec).seed(bars.iloc[: warmup_bars(spec)])
    with pytest.raises(DataError, match="was empty"):
        FeatureStream(spec).seed(empty_bars())
    stream, *_ = seeded()
    with pytest.raises(DataError, match="must be seeded once"):
        stream.seed(bars)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=20))
def test_a_tape_holds_the_last_bars_in_one_piece(keep, parts):
    tape, total = Tape(keep), 0
    for count in parts:
        times = np.arange(total, total + count)
        tape.append(times, np.tile(times.astype("float64"), (8, 1)))
        total += count
        times, values = tape.last(keep)
        assert times.tolist() == list(range(max(total - keep, 0), total)) and (values == times).all()
