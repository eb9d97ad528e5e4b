"""Backtests: trade for trade against a plain loop, and the properties no backtest may break."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest import simulate as module
from orbiquant.backtest.simulate import SKIPS, TRADE_COLUMNS, one_at_a_time, simulate
from orbiquant.core import DataError
from orbiquant.domain import Costs

SHARED = Path(os.environ.get("ORBIQUANT_SAMPLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
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


def oracle(bars, signals, costs, risk=0.01, equity=10_000.0, limit=None, leverage=30.0):
    """The same trades by a plain loop over bars, written without looking at the module's tricks."""
    rows = bars.reset_index().to_dict("records")
    todo = signals.to_dict("index")
    trades, skipped, position = [], dict.fromkeys(SKIPS, 0), None
    worth = []
    for number, bar in enumerate(rows):
        order = todo.get(rows[number - 1]["time"]) if number else None
        busy_at_open = position is not None
        if position and number > position["bar"]:  # the open of a later bar: gaps
            position, equity = leave_at(position, bar["open"], bar["open"], bar["open"], number, equity, trades, costs)
        if order and order["action"] != "HOLD":
            side = 1 if order["action"] == "LONG" else -1
            fill = bar["open"] * (1 + side * costs.slippage)
            if side * (bar["open"] - order["stop_loss"]) <= 0:
                skipped["opened beyond stop"] += 1
            elif side * (order["take_profit"] - fill) <= 0:
                skipped["opened beyond target"] += 1
            elif busy_at_open:
                skipped["in position"] += 1
            else:
                planned = abs(order["entry_price"] - order["stop_loss"])
                size = min(equity * risk / planned, leverage * equity / fill)
                position = {**order, "bar": number, "side": side, "open": bar["open"], "fill": fill, "size": size}
                position |= {"planned": planned, "signal": number - 1}
        if position:
            position, equity = leave_at(position, None, bar["low"], bar["high"], number, equity, trades, costs)
        if position and limit and number == position["bar"] + limit - 1:
            equity = book(position, bar["close"], "time", number, equity, trades, costs)
            position = None
        if position and number == len(rows) - 1:
            equity = book(position, bar["close"], "end", number, equity, trades, costs)
            position = None
        open_profit = 0.0
        if position:
            open_profit = position["size"] * (
                position["side"] * (bar["close"] - position["fill"]) - costs.fee * position["fill"]
            )
        worth.append(max(equity + open_profit, 0))
    if rows and (order := todo.get(rows[-1]["time"])) and order["action"] != "HOLD":
        skipped["no bar after it"] += 1
    return trades, skipped, worth


def leave_at(position, gap, low, high, number, equity, trades, costs):
    side, stop, target = position["side"], position["stop_loss"], position["take_profit"]
    worst, best = (low, high) if side > 0 else (high, low)
    if side * (worst - stop) <= 0:
        return None, book(position, stop if gap is None else gap, "stop", number, equity, trades, costs)
    if side * (best - target) >= 0:
        return None, book(position, target if gap is None else gap, "target", number, equity, trades, costs)
    return position, equity


def book(position, price, reason, number, equity, trades, costs):
    side, fill = position["side"], position["fill"]
    out = price * (1 - side * costs.slippage)
    unit = side * (out - fill) - costs.fee * (out + fill)
    pnl = max(position["size"] * unit, -equity)
    trades.append(
        {
            "bar": position["bar"],
            "exit_bar": number,
            "side": side,
            "entry": fill,
            "exit": out,
            "exit_reason": reason,
            "r": unit / position["planned"],
            "r_gross": side * (price - position["open"]) / position["planned"],
            "pnl": pnl,
            "size": position["size"],
            "confidence": position["confidence"],
        }
    )
    return equity + pnl


def assert_agrees(bars, signals, costs, limit, **terms):
    found = simulate(bars, signals, costs, max_holding_bars=limit, **terms)
    want, skipped, worth = oracle(bars, signals, costs, limit=limit)
    trades = found.trades
    assert len(trades) == len(want)
    assert found.skipped == skipped
    if want:
        want = pd.DataFrame(want)
        assert list(trades["entry_time"]) == list(bars.index[want["bar"]])
        assert list(trades["exit_time"]) == list(bars.index[want["exit_bar"]])
        assert list(trades["signal_time"]) == list(bars.index[want["bar"] - 1])
        assert list(trades["exit_reason"]) == list(want["exit_reason"])
        assert list(trades["bars"]) == list(want["exit_bar"] - want["bar"] + 1)
        for column in ("side", "entry", "exit", "r", "r_gross", "pnl", "size", "confidence"):
            np.testing.assert_allclose(trades[column], want[column], rtol=1e-9, atol=1e-9, err_msg=column)
        np.testing.assert_allclose(trades["cost_r"], want["r_gross"] - want["r"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.equity, worth, rtol=1e-9)
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


@settings(max_examples=60, deadline=None)
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


def test_strips_played_in_parts_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    bars = random_bars(rng, 400)
    signals = random_signals(rng, bars, 0.5)
    whole = simulate(bars, signals, COSTS, max_holding_bars=6)
    monkeypatch.setattr(module, "CELLS", 12 * 7)
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
    assert trade["cost_r"] == pytest.approx((0.3 + 98 * 0.003 + 0.001 * (100.3 + 98 * 0.997)) / 2)


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


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b, s: (b.drop(columns="low"), s), "without low"),
        (lambda b, s: (b, s.drop(columns="stop_loss")), "without stop_loss"),
        (lambda b, s: (b.iloc[::-1], s), "`bars` must be sorted"),
        (lambda b, s: (b, pd.concat([s, s])), "`signals` must be sorted"),
        (lambda b, s: (b.mask(b["open"] > 0), s), "was NaN in 4 of 4 rows, first at 2024-01-01 00:00:00+00:00"),
        (lambda b, s: (b.iloc[1:], s), "was on others in 1 of 1 rows, first at 2024-01-01 00:00:00+00:00"),
        (lambda b, s: (b.tz_localize(None), s), "must stand on times of `bars`"),
        (lambda b, s: (b, s.assign(action="BUY")), "`action` must be one of LONG, SHORT, HOLD"),
        (lambda b, s: (b, s.assign(stop_loss=np.nan)), "must be prices above zero"),
        (lambda b, s: (b, s.assign(take_profit=0.0)), "must be prices above zero"),
        (lambda b, s: (b, s.assign(stop_loss=100.0)), "`stop_loss` must be on the losing side"),
        (lambda b, s: (b, s.assign(take_profit=99.0)), "`take_profit` must be on the winning side"),
    ],
)
def test_wrong_tables_are_refused_with_their_first_place(spoil, words):
    bars = market(*[(100, 101, 99, 100)] * 4)
    bars, signals = spoil(bars, one_signal(bars))
    with pytest.raises(DataError) as caught:
        simulate(bars, signals, FREE)
    assert words in caught.value.message


@pytest.mark.parametrize("terms", [{"risk_per_trade": 0}, {"max_holding_bars": 0}, {"initial_equity": float("nan")}])
def test_wrong_terms_are_refused(terms):
    bars = market((100, 101, 99, 100))
    with pytest.raises(DataError, match="must be above 0"):
        simulate(bars, one_signal(bars), FREE, **terms)


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
    path = SHARED / "EURUSD_15m.parquet"
    if not path.exists():
        pytest.skip("no sample data: set ORBIQUANT_SAMPLE_DATA")
    bars = pd.read_parquet(path).set_index("time").astype(float).iloc[:8000]
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


def test_vectorbt_loads_only_when_something_is_simulated():
    code = "import sys, orbiquant.backtest.metrics; sys.exit('vectorbt' in sys.modules)"
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
