"""Backtests: trade for trade against a plain loop, and the properties no backtest may break."""

import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.backtest import simulate as module
from orbiquant.backtest.simulate import TRADE_COLUMNS, one_at_a_time, simulate
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Costs
from orbiquant.market.synthetic import synthetic_market
from tests.tools.oracle import Terms, replay
from tests.tools.shared_bars import shared_bars

COSTS = Costs(fee_bps=2.0, slippage_bps=1.0, spread_bps=1.0)
FREE = Costs()


def random_bars(rng: np.random.Generator, n: int, gap: float = 0.3) -> pd.DataFrame:
    """A random walk on a tick grid (so that levels are often touched exactly) with gaps between bars."""
    steps = rng.integers(-3, 4, size=(n, 4))
    opened = 100 + np.cumsum(steps[:, 0] + (rng.random(n) < gap) * rng.integers(-6, 7, n))
    opened = np.maximum(opened, 20).astype(float)
    close = opened + steps[:, 1]
    high = np.maximum(opened, close) + np.abs(steps[:, 2])
    low = np.minimum(opened, close) - np.abs(steps[:, 3])
    index = pd.date_range("2024-01-01", periods=n, freq="15min", tz="UTC", name="time")
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.0}, index=index)


def random_signals(rng: np.random.Generator, bars: pd.DataFrame, share: float) -> pd.DataFrame:
    n = len(bars)
    action = rng.choice(["LONG", "SHORT", "HOLD"], size=n, p=[share / 2, share / 2, 1 - share])
    side = np.where(action == "LONG", 1, -1)
    entry = bars["close"].to_numpy()
    return pd.DataFrame(
        {
            "action": action,
            "entry_price": entry,
            "stop_loss": entry - side * rng.integers(1, 8, n),
            "take_profit": entry + side * rng.integers(1, 12, n),
            "confidence": rng.uniform(0.6, 0.9, n),
            "amd_phase": rng.choice(["accumulation", "distribution"], n),
            "killzone": rng.choice(["none", "asia"], n),
        },
        index=bars.index,
    )


def assert_agrees(bars, signals, costs, limit, **terms):
    found = simulate(bars, signals, costs, max_holding_bars=limit, **terms)
    told = replay(bars, signals, Terms(costs.fee, costs.slippage, limit, **terms))
    want, trades = told.trades, found.trades
    assert len(trades) == len(want)
    assert found.skipped == told.skipped
    if want:
        want = pd.DataFrame(want)
        assert list(trades["entry_time"]) == list(bars.index[want["bar"]])
        assert list(trades["exit_time"]) == list(bars.index[want["exit_bar"]])
        assert list(trades["signal_time"]) == list(bars.index[want["bar"] - 1])
        assert list(trades["exit_reason"]) == list(want["exit_reason"])
        assert list(trades["bars"]) == list(want["exit_bar"] - want["bar"] + 1)
        for column in (
            "side",
            "entry",
            "exit",
            "stop_loss",
            "take_profit",
            "risk",
            "r",
            "r_gross",
            "pnl",
            "size",
            "confidence",
        ):
            np.testing.assert_allclose(trades[column], want[column], rtol=1e-9, atol=1e-9, err_msg=column)
        np.testing.assert_allclose(trades["cost_r"], want["r_gross"] - want["r"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.equity, told.worth, rtol=1e-9)
    return found


@pytest.mark.parametrize("limit", [None, 1, 2, 5, 24])
@pytest.mark.parametrize("costs", [FREE, COSTS], ids=["free", "costs"])
def test_agrees_with_a_plain_loop(limit, costs):
    reasons = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        bars = random_bars(rng, 300)
        found = assert_agrees(bars, random_signals(rng, bars, share=rng.uniform(0.02, 0.9)), costs, limit)
        reasons |= set(found.trades["exit_reason"])
    assert {"stop", "target"} <= reasons
    assert ("time" in reasons) == (limit is not None)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    share=st.floats(0, 1),
    gap=st.floats(0, 1),
    limit=st.none() | st.integers(1, 50),
)
def test_agrees_with_a_plain_loop_on_anything(seed, n, share, gap, limit):
    rng = np.random.default_rng(seed)
    bars = random_bars(rng, n, gap)
    assert_agrees(bars, random_signals(rng, bars, share), COSTS, limit)


def with_distances(rng, signals):
    """The same actions with levels that move with the fill; some have no target."""
    n = len(signals)
    target = np.where(rng.random(n) < 0.2, np.nan, rng.uniform(0.5, 9, n))
    bare = signals.drop(columns=["stop_loss", "take_profit"])
    return bare.assign(stop_distance=rng.uniform(0.5, 6, n), target_distance=target)


@pytest.mark.parametrize("limit", [None, 3, 24])
@pytest.mark.parametrize("risk_from", ["plan", "fill"])
def test_every_form_of_levels_agrees_with_a_plain_loop(limit, risk_from):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        bars = random_bars(rng, 300)
        signals = random_signals(rng, bars, share=0.3)
        open_ended = signals.assign(take_profit=signals["take_profit"].where(rng.random(300) < 0.7))
        for form in (signals, open_ended, signals.drop(columns="take_profit"), with_distances(rng, signals)):
            assert_agrees(bars, form, COSTS, limit, risk_from=risk_from)


def test_a_stop_at_a_distance_from_the_fill_loses_one_r_and_costs():
    bars = market((100, 100, 100, 100), (101, 102, 100.8, 101), (101, 101, 95, 96))
    signal = pd.DataFrame({"side": [1], "stop_distance": [2.0], "target_distance": [4.0]}, bars.index[:1])
    (trade,) = simulate(bars, signal, Costs(slippage_bps=10)).trades.to_dict("records")
    assert trade["stop_loss"] == pytest.approx(101.101 - 2) and trade["risk"] == pytest.approx(2)
    assert trade["r"] == pytest.approx((99.101 * 0.999 - 101.101) / 2)
    planned = simulate(bars, one_signal(bars), FREE, risk_from="plan").trades["r"].iloc[0]
    filled = simulate(bars, one_signal(bars), FREE).trades["r"].iloc[0]
    assert (planned, filled) == pytest.approx((-1.5, -1.0))


def test_what_has_one_meaning_is_understood():
    rng = np.random.default_rng(9)
    bars = random_bars(rng, 200)
    signals = random_signals(rng, bars, 0.3)
    want = simulate(bars, signals, COSTS, max_holding_bars=9)
    side = signals["action"].map({"LONG": 1, "SHORT": -1, "HOLD": 0})
    acting = signals[side != 0]
    for b, s in [
        (bars, signals.assign(action=signals["action"].str.lower())),
        (bars, signals.assign(action=signals["action"].astype("category"))),
        (bars, signals.drop(columns="action").assign(side=side.astype(float))),
        (bars, acting),
        (bars, signals.drop(columns="entry_price")),
        (bars, signals.tz_convert("America/New_York")),
        (bars, signals.set_axis(signals.index.as_unit("ms"))),
        (bars.reset_index(), signals.reset_index()),
        (bars.drop(columns="volume"), signals.assign(stop_loss=signals["stop_loss"].where(side != 0))),
    ]:
        found = simulate(b, s, COSTS, max_holding_bars=9)
        pd.testing.assert_frame_equal(found.trades, want.trades, check_dtype=False)
        pd.testing.assert_series_equal(found.equity, want.equity, check_freq=False)


# --- one minute inside five ---

MINUTES = {"open": "first", "high": "max", "low": "min", "close": "last"}


def minute_market(seed, days=10):
    """Synthetic minutes and the five-minute bars they make."""
    minutes = synthetic_market(days * 1440, timeframe="1m", seed=seed).bars
    return minutes, minutes.resample("5min").agg(MINUTES).dropna()


def half_a_year():
    minutes, bars = shared_bars("BTCUSDT_1m"), shared_bars("BTCUSDT_5m")
    return minutes, bars.loc[minutes.index[0] : minutes.index[-1]]


def brackets(rng, bars, share, stop, reward):
    """Random sides with a stop at a fraction of the close and a target at a multiple of it."""
    side = np.where(rng.random(len(bars)) < 0.5, 1, -1)
    distance = bars["close"] * stop * rng.uniform(0.7, 1.4, len(bars))
    action = np.where(rng.random(len(bars)) < share, np.where(side > 0, "LONG", "SHORT"), "HOLD")
    table = {"action": action, "entry_price": bars["close"], "stop_loss": bars["close"] - side * distance}
    return pd.DataFrame(table | {"take_profit": bars["close"] + side * reward * distance})


def compare_with_minutes(bars, minutes, signals, costs, limit, minute_gaps=False):
    """Return the oracle's trades beside `simulate`'s; they must agree wherever five minutes can tell."""
    terms = Terms(costs.fee, costs.slippage, limit, minute_gaps=minute_gaps)
    told = pd.DataFrame(replay(bars, signals, terms, minutes).trades)
    found = simulate(bars, signals, costs, max_holding_bars=limit).trades
    assert len(found) == len(told)
    assert list(found["entry_time"]) == list(bars.index[told["bar"]])
    assert list(found["exit_time"]) == list(bars.index[told["exit_bar"]])
    told["pessimism"] = told["r"] - found["r"].to_numpy()
    if not minute_gaps:
        clear = ~told["ambiguous"].to_numpy(bool)
        assert list(found["exit_reason"][clear]) == list(told["exit_reason"][clear])
        np.testing.assert_allclose(found["exit"][clear], told["exit"][clear], rtol=1e-9)
        np.testing.assert_allclose(found["r"][clear], told["r"][clear], rtol=1e-9, atol=1e-9)
        assert (told["pessimism"] >= -1e-9).all()
        assert (found["exit_reason"][~clear] == "stop").all()
    return told


@pytest.mark.parametrize("limit", [None, 24])
@pytest.mark.parametrize("seed", [1, 2])
def test_agrees_with_the_minutes_inside_synthetic_bars(seed, limit):
    minutes, bars = minute_market(seed)
    rng = np.random.default_rng(seed)
    range_ = float(((bars["high"] - bars["low"]) / bars["close"]).mean())
    told = compare_with_minutes(bars, minutes, brackets(rng, bars, 0.3, range_, 1.2), COSTS, limit)
    assert len(told) > 300 and 0 < told["ambiguous"].mean() < 0.5
    assert (told.loc[told["ambiguous"], "exit_reason"] == "target").any()


@pytest.mark.parametrize(("stop", "reward", "limit"), [(0.001, 1.0, None), (0.002, 2.0, 24), (0.005, 2.0, None)])
def test_agrees_with_the_minutes_inside_real_bars(stop, reward, limit):
    minutes, bars = half_a_year()
    signals = brackets(np.random.default_rng(5), bars.iloc[:9000], 0.3, stop, reward)
    told = compare_with_minutes(bars.iloc[:9001], minutes[: bars.index[9000]], signals, COSTS, limit)
    assert len(told) > 250


def test_strips_played_in_parts_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    bars = random_bars(rng, 400)
    signals = random_signals(rng, bars, 0.5)
    whole = simulate(bars, signals, COSTS, max_holding_bars=6)
    monkeypatch.setattr(module, "_CELLS", 12 * 7)
    parts = simulate(bars, signals, COSTS, max_holding_bars=6)
    pd.testing.assert_frame_equal(whole.trades, parts.trades)
    pd.testing.assert_series_equal(whole.equity, parts.equity)


@pytest.mark.parametrize("limit", [None, 8])
def test_later_bars_never_change_a_closed_trade(limit):
    rng = np.random.default_rng(11)
    bars = random_bars(rng, 400)
    signals = random_signals(rng, bars, 0.3)
    full = simulate(bars, signals, COSTS, max_holding_bars=limit)
    for cut in (1, 50, 133, 250, 399):
        part = simulate(bars.iloc[:cut], signals.iloc[:cut], COSTS, max_holding_bars=limit)
        closed = part.trades[part.trades["exit_reason"] != "end"]
        before = full.trades[full.trades["exit_time"] < bars.index[cut]].iloc[: len(closed)]
        pd.testing.assert_frame_equal(closed, before)
        steady = part.trades["entry_time"].iloc[-1] if len(part.trades) > len(closed) else bars.index[cut - 1]
        pd.testing.assert_series_equal(part.equity[:steady].iloc[:-1], full.equity[:steady].iloc[:-1])


def market(*rows):
    index = pd.date_range("2024-01-01", periods=len(rows), freq="1h", tz="UTC", name="time")
    return pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index, dtype=float).assign(volume=1.0)


def one_signal(bars, action="LONG", stop=98.0, target=104.0):
    row = {"action": action, "entry_price": 100.0, "stop_loss": stop, "take_profit": target}
    return pd.DataFrame([row], index=bars.index[:1])


@pytest.mark.parametrize(
    ("rows", "reason", "exit_price", "r"),
    [
        ([(100, 105, 97, 100)], "stop", 98, -1.0),  # ambiguous, in the bar of entry
        ([(100, 101, 99, 100), (100, 104, 98, 101)], "stop", 98, -1.0),  # touched exactly, both
        ([(100, 101, 99, 100), (96, 99, 95, 97)], "stop", 96, -2.0),  # gap over the stop
        ([(100, 101, 99, 100), (106, 107, 97, 100)], "target", 106, 3.0),  # gap over the target comes first
        ([(100, 104, 99, 100)], "target", 104, 2.0),  # touched exactly
        ([(100, 103.9, 98.1, 101)], "end", 101, 0.5),
    ],
)
def test_one_trade_by_hand(rows, reason, exit_price, r):
    bars = market((100, 100, 100, 100), *rows)
    (trade,) = simulate(bars, one_signal(bars), FREE).trades.to_dict("records")
    assert trade["exit_reason"] == reason
    assert trade["exit"] == pytest.approx(exit_price, rel=1e-12)
    assert trade["r"] == trade["r_gross"] == pytest.approx(r)
    mirrored = market(*[(200 - o, 200 - low, 200 - high, 200 - c) for o, high, low, c in [(100,) * 4, *rows]])
    (short,) = simulate(mirrored, one_signal(mirrored, "SHORT", 102, 96), FREE).trades.to_dict("records")
    assert (short["exit_reason"], short["r"]) == (reason, pytest.approx(r))


def test_costs_are_paid_on_both_sides():
    bars = market((100, 100, 100, 100), (100, 101, 97, 100))
    costs = Costs(fee_bps=10, slippage_bps=20, spread_bps=20)
    (trade,) = simulate(bars, one_signal(bars), costs).trades.to_dict("records")
    assert trade["entry"] == pytest.approx(100.3) and trade["exit"] == pytest.approx(98 * 0.997)
    assert trade["r_gross"] == pytest.approx(-1)
    paid = 0.3 + 98 * 0.003 + 0.001 * (100.3 + 98 * 0.997)
    assert trade["r"] == pytest.approx((-2 - paid) / 2.3) and trade["r"] == trade["r_gross"] - trade["cost_r"]


def test_levels_that_a_fraction_cannot_hold_are_still_touched():
    rng = np.random.default_rng(5)
    rows, signals = [], []
    for number in range(4000):
        close, distance = np.round(rng.uniform(0.5, 3, 2) * (1, 0.01), 5)
        side, to_target = (1, -1)[number % 2], number % 4 < 2
        stop, target = round(close - side * distance, 5), round(close + side * 2 * distance, 5)
        touched = target if to_target else stop
        rows += [(close,) * 4, (close, max(close, touched), min(close, touched), close)]
        signals.append(("LONG" if side > 0 else "SHORT", close, stop, target, "target" if to_target else "stop"))
    bars = market(*rows)
    columns = ["action", "entry_price", "stop_loss", "take_profit", "amd_phase"]
    table = pd.DataFrame(signals, columns=columns, index=bars.index[::2])
    for limit in (None, 1):
        trades = simulate(bars, table, COSTS, max_holding_bars=limit).trades
        assert len(trades) == 4000 and (trades["exit_reason"] == trades["amd_phase"]).all()


@pytest.mark.parametrize("side", [1, -1])
def test_an_open_on_the_stop_up_to_rounding_opens_nothing(side):
    stop = 1.001 - side * 0.002
    opened = round(stop, 3)
    assert (stop != opened) == (side > 0)
    bars = market((1.001,) * 4, (opened, 1.01, 0.99, 1.0), (1.0, 1.01, 0.99, 1.0))
    for last_bits in (-2e-16, 0, 2e-16):
        signal = pd.DataFrame({"side": [side], "stop_loss": [stop * (1 + last_bits)]}, bars.index[:1])
        found = assert_agrees(bars, signal.assign(action="LONG" if side > 0 else "SHORT", entry_price=1.001), COSTS, 1)
        assert found.trades.empty and found.skipped["opened beyond stop"] == 1
    tight = pd.DataFrame({"side": [side], "stop_loss": [stop - side * 1e-9]}, bars.index[:1])
    assert (
        simulate(bars, tight, FREE).skipped["opened near stop"] == 1
    )  # a hair of a stop is no trade, nor is it rounding


def test_a_fill_on_the_target_up_to_rounding_opens_nothing():
    bars, target = market((0.2,) * 4, (0.3, 0.4, 0.2, 0.3), (0.3,) * 4), 0.2 + 0.1
    assert target > 0.3
    signal = pd.DataFrame({"side": [1], "stop_loss": [0.1], "take_profit": [target]}, bars.index[:1])
    assert simulate(bars, signal, FREE).skipped["opened beyond target"] == 1


@pytest.mark.parametrize("tick", [0.1, 0.01, 1e-5])
def test_decimal_ticks_agree_with_a_plain_loop(tick):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        bars, limit = random_bars(rng, 250), [None, 5, 24][seed]
        signals = random_signals(rng, bars, 0.4)
        scaled = bars[["open", "high", "low", "close"]] * tick
        side = np.where(signals["action"] == "LONG", 1, -1)
        far, near = (tick * rng.integers(1, most, 250) for most in (12, 8))  # price ± n · tick misses the grid by a bit
        levels = {"stop_loss": scaled["close"] - side * near, "take_profit": scaled["close"] + side * far}
        costs = (FREE, COSTS)[seed % 2]
        assert_agrees(scaled, signals.assign(entry_price=scaled["close"], **levels), costs, limit)
        bare = signals.drop(columns=["stop_loss", "take_profit"])
        assert_agrees(scaled, bare.assign(stop_distance=near, target_distance=far), costs, limit)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"stop_distance": 20.0}, "`stop_distance` must be .* in price, shorter than the fill of 1.05, was 20 in"),
        ({"stop_distance": 1.05}, "shorter than the fill of 1.05, was 1.05 in 3 of 6 rows"),
        ({"stop_distance": 0.01, "target_distance": 40.0}, "`target_distance` must be .* fill of 1.05, was 40 in 3"),
    ],
)
def test_a_distance_in_pips_is_refused(levels, words):
    bars = market(*[(1.05, 1.06, 1.04, 1.05)] * 7)
    signals = pd.DataFrame({"side": [1, -1] * 3, **levels}, bars.index[:6])
    with pytest.raises(DataError, match=words):
        simulate(bars, signals, COSTS.model_copy(update={"slippage_bps": 0.0, "spread_bps": 0.0}))
    assert simulate(bars.iloc[:1], signals.iloc[:1], FREE).skipped["no bar after it"] == 1  # never filled, never placed


def test_sizes_risk_the_same_share_of_what_is_left():
    rng = np.random.default_rng(2)
    bars = random_bars(rng, 300)
    found = simulate(bars, random_signals(rng, bars, 0.3), COSTS, risk_per_trade=0.02, max_leverage=1e9)
    growth = (1 + 0.02 * found.trades["r"]).cumprod()
    assert found.equity.iloc[-1] == pytest.approx(10_000 * growth.iloc[-1])
    assert found.trades["pnl"].sum() == pytest.approx(found.equity.iloc[-1] - 10_000)


def test_leverage_caps_the_size_and_not_the_r():
    bars = market((100, 100, 100, 100), (100, 101, 99, 100))
    signal = one_signal(bars, stop=99.99, target=104)
    (trade,) = simulate(bars, signal, FREE, max_leverage=5).trades.to_dict("records")
    assert trade["size"] == pytest.approx(500) and trade["r"] == pytest.approx(-1)
    assert trade["pnl"] == pytest.approx(-500 * 0.01)


def test_an_emptied_account_stays_empty():
    flat = (100, 100, 100, 100)
    bars = market(flat, (100, 101, 99, 100), (50, 50, 50, 50), flat, (100, 105, 99, 100))
    signal = one_signal(bars)
    later = signal.set_axis(bars.index[3:4])
    found = simulate(bars, pd.concat([signal, later]), FREE, risk_per_trade=0.05)
    assert list(found.trades["r"]) == pytest.approx([-25, 2])
    assert list(found.trades["pnl"]) == [-10_000, 0]
    assert found.equity.iloc[-1] == 0


def test_nothing_to_do_is_a_typed_empty_result():
    rng = np.random.default_rng(0)
    bars = random_bars(rng, 30)
    signals = random_signals(rng, bars, 0.5)
    some = simulate(bars, signals, COSTS)
    nothing = simulate(bars, signals.assign(action="HOLD"), COSTS, max_holding_bars=4)
    no_bars = simulate(bars.iloc[:0], signals.iloc[:0], COSTS)
    assert (nothing.equity == 10_000).all() and len(no_bars.equity) == 0
    for empty in (nothing, no_bars):
        assert list(empty.trades.columns) == list(TRADE_COLUMNS) and len(empty.trades) == 0
        assert set(empty.skipped.values()) == {0}
        assert empty.trades.dtypes.equals(some.trades.dtypes)


def test_signals_may_cover_a_part_and_lack_labels():
    rng = np.random.default_rng(4)
    bars = random_bars(rng, 100)
    signals = random_signals(rng, bars, 0.4)
    part = signals.iloc[20:60].drop(columns=["confidence", "amd_phase", "killzone"])
    found = simulate(bars, part, COSTS)
    assert found.trades["confidence"].isna().all()
    assert found.trades["signal_time"].between(part.index[0], part.index[-1]).all()


def test_inputs_are_not_changed():
    rng = np.random.default_rng(4)
    bars = random_bars(rng, 100)
    signals = random_signals(rng, bars, 0.4)
    before = bars.copy(), signals.copy()
    simulate(bars, signals, COSTS, max_holding_bars=5)
    pd.testing.assert_frame_equal(bars, before[0])
    pd.testing.assert_frame_equal(signals, before[1])


def put(table, column, row, value):
    table = table.copy()
    table.loc[table.index[row], column] = value
    return table


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b, s: (b.drop(columns="low"), s), "without low"),
        (lambda b, s: (b.astype(str).replace("100.0", "n/a"), s), "`bars` must hold numbers in open, high, low, close"),
        (lambda b, s: (b.iloc[::-1], s), "`bars` must be sorted by time without duplicates, was not, first at"),
        (lambda b, s: (pd.concat([b, b.iloc[-1:]]), s), "was not, first at 2024-01-01 03:00:00+00:00"),
        (lambda b, s: (b.mask(b["open"] > 0), s), "was NaN in 4 of 4 rows, first at 2024-01-01 00:00:00+00:00"),
        (lambda b, s: (put(b, "low", 2, 0.0), s), "must hold prices above zero, was not in 1 of 4 rows"),
        (lambda b, s: (put(b, "high", 2, np.inf), s), "must hold prices above zero, was not in 1 of 4 rows"),
        (
            lambda b, s: (put(b, "high", 1, 99.5), s),
            "`high` and `low` must hold open and close between them, did not in 1",
        ),
        (lambda b, s: (b.tz_localize(None), s), "`bars` must have a DatetimeIndex with a time zone, such as UTC"),
        (lambda b, s: (b, s.tz_localize(None)), "`signals` must have a DatetimeIndex with a time zone, such as UTC"),
        (lambda b, s: (b, s.reset_index(drop=True)), "`signals` must have a DatetimeIndex"),
        (lambda b, s: (b, pd.DataFrame()), "`signals` must have a DatetimeIndex"),
        (lambda b, s: (b, pd.concat([s, s])), "`signals` must be sorted by time without duplicates"),
        (lambda b, s: (b.iloc[1:], s), "was on others in 1 of 1 rows, first at 2024-01-01 00:00:00+00:00"),
        (lambda b, s: (b, s.set_axis(s.index + pd.Timedelta("1min"))), "`signals` must stand on times of `bars`"),
        (
            lambda b, s: (b, s.assign(action="BUY")),
            "`action` must be one of LONG, SHORT, HOLD, was 'BUY' in 1 of 1 rows",
        ),
        (lambda b, s: (b, s.assign(action=None)), "`action` must be one of LONG, SHORT, HOLD, was None"),
        (lambda b, s: (b, s.drop(columns="action")), "must have `action` or `side`, had entry_price"),
        (lambda b, s: (b, s.drop(columns="action").assign(side=2)), "`side` must be one of +1, −1, 0, was 2"),
        (lambda b, s: (b, s.drop(columns="action").assign(side=True)), "`side` must be one of +1, −1, 0, was True"),
        (lambda b, s: (b, s.drop(columns="action").assign(side=np.nan)), "`side` must be one of +1, −1, 0, was nan"),
        (lambda b, s: (b, s.assign(entry_price=np.inf)), "`entry_price` must be above zero and finite"),
        (lambda b, s: (b, s.assign(entry_price="high")), "`signals` must hold numbers in entry_price"),
        (lambda b, s: (b, s.drop(columns="stop_loss")), "must have `stop_loss` or `stop_distance`"),
        (lambda b, s: (b, s.assign(stop_distance=1.0)), "must have `stop_loss` or `stop_distance`, had both"),
        (lambda b, s: (b, s.assign(target_distance=1.0)), "must have `take_profit` or `target_distance`, had both"),
        (lambda b, s: (b, s.assign(stop_loss=np.nan)), "`stop_loss` must be above zero and finite"),
        (lambda b, s: (b, s.assign(stop_loss=-np.inf)), "`stop_loss` must be above zero and finite"),
        (lambda b, s: (b, s.drop(columns="stop_loss").assign(stop_distance=0.0)), "`stop_distance` must be above zero"),
        (lambda b, s: (b, s.assign(take_profit=0.0)), "`take_profit` must be above zero"),
        (lambda b, s: (b, s.assign(take_profit=np.inf)), "`take_profit` must be above zero"),
        (
            lambda b, s: (b, s.assign(stop_loss=100.0)),
            "`stop_loss` must be on the losing side of `entry_price`, was not in 1",
        ),
        (lambda b, s: (b, s.assign(take_profit=99.0)), "`take_profit` must be on the winning side of `entry_price`"),
    ],
)
def test_wrong_tables_are_refused_with_their_first_place(spoil, words):
    bars = market(*[(100, 101, 99, 100)] * 4)
    bars, signals = spoil(bars, one_signal(bars))
    with pytest.raises(DataError) as caught:
        simulate(bars, signals, FREE)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"risk_per_trade": 0}, "must be above 0"),
        ({"risk_per_trade": 5}, "a share of equity, at most 1, was 5"),
        ({"max_holding_bars": 0}, "must be above 0"),
        ({"max_holding_bars": 2.5}, "must be a whole number"),
        ({"initial_equity": float("nan")}, "must be above 0"),
        ({"max_holding_bars": "3"}, "must be above 0, was '3'"),
        ({"risk_per_trade": None}, "must be above 0, was None"),
        ({"max_leverage": float("inf")}, "must be above 0"),
        ({"risk_from": "stop"}, "`risk_from` must be one of plan, fill, was 'stop'"),
    ],
)
def test_wrong_terms_are_refused(terms, words):
    bars = market((100, 101, 99, 100))
    with pytest.raises((DataError, OptionError), match=words):
        simulate(bars, one_signal(bars), FREE, **terms)


@pytest.mark.parametrize("bps", [-1, float("inf"), float("nan"), 5_000])
@pytest.mark.parametrize("name", ["fee_bps", "slippage_bps", "spread_bps"])
def test_costs_that_are_none_are_refused(name, bps):
    with pytest.raises(ValidationError, match=name):
        Costs(**{name: bps})


def test_huge_costs_are_reckoned_and_not_hidden():
    bars = market((100, 100, 100, 100), (100, 101, 99, 100), (100, 101, 97, 100))
    found = simulate(bars, one_signal(bars), Costs(fee_bps=4_999))
    assert found.trades["r"].iloc[0] < -40 and found.equity.iloc[-1] >= 0
    assert found.costs_in_r["median"] == pytest.approx(0.9998 / 0.02)
    assert simulate(bars, one_signal(bars), Costs(slippage_bps=4_999)).skipped["opened beyond target"] == 1


def test_one_bar_and_bars_without_range():
    one = market((100, 101, 99, 100))
    assert simulate(one, one_signal(one), COSTS).skipped["no bar after it"] == 1
    flat = market(*[(100, 100, 100, 100)] * 5)
    (trade,) = simulate(flat, one_signal(flat), FREE).trades.to_dict("records")
    assert (trade["exit_reason"], trade["r"], trade["bars"]) == ("end", 0, 4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), unique_by=lambda pair: pair[0]))
def test_one_at_a_time_is_greedy(pairs):
    entry, held = np.array(sorted(pairs), dtype=int).reshape(-1, 2).T
    taken, free_from = [], -1
    for position, (start, length) in enumerate(zip(entry, held, strict=True)):
        if start > free_from:
            taken.append(position)
            free_from = start + length
    assert list(one_at_a_time(entry, entry + held)) == taken


@pytest.mark.parametrize("limit", [None, 24])
def test_a_market_without_drift_pays_nothing_and_costs_cost(limit):
    rng = np.random.default_rng(8)
    n = 60_000
    path = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, (n, 8)).reshape(-1))).reshape(n, 8)
    opened = np.concatenate([[100.0], path[:-1, -1]])
    index = pd.date_range("2020-01-01", periods=n, freq="5min", tz="UTC", name="time")
    every = np.column_stack([opened, path])
    bars = pd.DataFrame({"open": opened, "high": every.max(1), "low": every.min(1), "close": path[:, -1]}, index=index)
    side = np.where(rng.random(n) < 0.5, 1, -1)
    distance = 0.005 * bars["close"]
    signals = pd.DataFrame(
        {
            "action": np.where(rng.random(n) < 0.3, np.where(side > 0, "LONG", "SHORT"), "HOLD"),
            "entry_price": bars["close"],
            "stop_loss": bars["close"] - side * distance,
            "take_profit": bars["close"] + side * 2 * distance,
        }
    )
    trades = simulate(bars, signals, Costs(fee_bps=1.0), max_holding_bars=limit).trades
    error = trades["r_gross"].std() / np.sqrt(len(trades))
    assert len(trades) > 1000
    assert abs(trades["r_gross"].mean()) < 3 * error + 0.02  # ambiguous bars lean a little against the trader
    assert trades["cost_r"].mean() == pytest.approx(0.04, rel=0.02)


@pytest.mark.parametrize("limit", [None, 24])
def test_agrees_with_a_plain_loop_on_real_bars(limit):
    bars = shared_bars("EURUSD_15m").iloc[:8000]
    rng = np.random.default_rng(1)
    entry = bars["close"]
    side = np.where(rng.random(len(bars)) < 0.5, 1, -1)
    distance = ((bars["high"] - bars["low"]).rolling(14).mean() * 1.5).bfill()
    signals = pd.DataFrame(
        {
            "action": np.where(rng.random(len(bars)) < 0.2, np.where(side > 0, "LONG", "SHORT"), "HOLD"),
            "entry_price": entry,
            "stop_loss": entry - side * distance,
            "take_profit": entry + side * 2 * distance,
            "confidence": 0.7,
        }
    )
    assert_agrees(bars, signals, COSTS, limit)


@pytest.mark.slow
def test_how_pessimistic_five_minutes_are(capsys):
    minutes, bars = half_a_year()
    lines = []
    for stop, reward in [(0.001, 1), (0.001, 2), (0.002, 1), (0.002, 2), (0.005, 2), (0.01, 2)]:
        signals = brackets(np.random.default_rng(7), bars, 0.3, stop, reward)
        told = compare_with_minutes(bars, minutes, signals, FREE, None)
        gaps = compare_with_minutes(bars, minutes, signals, FREE, None, minute_gaps=True)
        share, open_ = told["ambiguous"].mean(), told["unresolved"].mean()
        lines.append(
            (f"{stop:.1%}", reward, len(told), share, open_, told["pessimism"].mean(), gaps["pessimism"].mean())
        )
    heads = ["stop", "reward", "trades", "ambiguous", "in one minute", "R given away", "the same with minute gaps"]
    table = pd.DataFrame(lines, columns=heads)
    with capsys.disabled():
        print(
            "\nBTCUSDT, five-minute bars against their minutes, no costs, seed 7\n",
            table.round(4).to_string(index=False),
        )
    assert (table["R given away"] >= 0).all()
    assert table["ambiguous"].iloc[0] > table["ambiguous"].iloc[-1]


def test_vectorbt_loads_only_when_something_is_simulated():
    code = "import sys, orbiquant.performance; sys.exit('vectorbt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_fast_engine_is_installed():
    from vectorbt._engine import is_rust_available

    assert is_rust_available(), "without vectorbt's rust extra the first backtest compiles for half a minute"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 6])
def test_the_slow_engine_agrees(monkeypatch, limit):
    from vectorbt import _engine

    rng = np.random.default_rng(21)
    bars = random_bars(rng, 500)
    signals = random_signals(rng, bars, 0.3)
    fast = simulate(bars, signals, COSTS, max_holding_bars=limit)
    monkeypatch.setattr(_engine, "_rust_status", False)
    slow = simulate(bars, signals, COSTS, max_holding_bars=limit)
    pd.testing.assert_frame_equal(fast.trades, slow.trades)


@pytest.fixture
def plain() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return random bars and signals of half of them."""
    rng = np.random.default_rng(5)
    bars = random_bars(rng, 80)
    return bars, random_signals(rng, bars, 0.3)


@pytest.mark.parametrize("kind", [object, "Float64", "float64", lambda price: Decimal(str(price))])
def test_prices_of_any_number_type_make_the_same_trades(plain: tuple[pd.DataFrame, pd.DataFrame], kind: object):
    bars, signals = plain
    given = bars.map(kind) if callable(kind) and kind is not object else bars.astype(kind)
    pd.testing.assert_frame_equal(simulate(given, signals, Costs()).trades, simulate(bars, signals, Costs()).trades)


def test_text_and_missing_times_are_refused_by_name(plain: tuple[pd.DataFrame, pd.DataFrame]):
    bars, signals = plain
    with pytest.raises(DataError, match="`bars` must hold numbers in open, high, low, close, was text in open, high"):
        simulate(bars.astype(str), signals, Costs())
    for name, tables in {"bars": (broken(bars), signals), "signals": (bars, broken(signals))}.items():
        with pytest.raises(DataError, match=f"`{name}` must have a time in every row, was NaT in 1 of"):
            simulate(*tables, Costs())


def broken(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose last row has no time."""
    return table.set_axis(table.index[:-1].append(pd.DatetimeIndex([pd.NaT], tz="UTC")))


def test_a_time_limit_may_be_a_whole_float(plain: tuple[pd.DataFrame, pd.DataFrame]):
    found = [simulate(*plain, Costs(), max_holding_bars=limit) for limit in (3, 3.0, np.float64(3))]
    assert [type(each.max_holding_bars) for each in found] == [int] * 3
    assert all(each.trades.equals(found[0].trades) for each in found)
