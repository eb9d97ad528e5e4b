"""Exit plans: a plain loop that shares no line with them, the sweep, the parts, and nothing known before its time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.audit import causality_violations
from orbiquant.backtest.simulate import BacktestResult, simulate
from orbiquant.backtest.sweep import sweep_grid
from orbiquant.backtest.sweep_plan import SweepGrid
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Bars, Costs, Signals
from orbiquant.execution.config import FIXED, ExitPlan, parse_targets, targets_text
from orbiquant.execution.exits import Entered, begin_plan, exit_rule, follow_plan, step_plan
from orbiquant.execution.fills import close_order, make_tape
from tests.test_simulate import random_bars, random_signals, with_distances
from tests.tools.oracle import Terms, replay

FREE, COSTS = Costs(), Costs(fee_bps=2.0, slippage_bps=1.0, spread_bps=1.0)
HALF = ((1.0, 0.5),)
PLANS = {
    "break-even": ExitPlan(break_even_r=1),
    "trailing": ExitPlan(trail_atr=1.5),
    "half at 1 R": ExitPlan(targets=HALF),
    "thirds": ExitPlan(targets=((0.5, 0.3), (1.5, 0.3))),
    "half, then break-even": ExitPlan(break_even_r=1, targets=HALF),
    "everything": ExitPlan(break_even_r=0.5, trail_atr=2, targets=((0.5, 0.25), (1, 0.5)), max_holding_bars=9),
}


def told_by_oracle(bars: Bars, signals: Signals, costs: Costs, limit: int | None, plan: ExitPlan, **terms: str):
    known = Terms(costs.fee, costs.slippage, plan.limit(limit), **terms)
    moving = replace(known, break_even_r=plan.break_even_r, trail_atr=plan.trail_atr, targets=plan.targets)
    return replay(bars, signals, moving)


def assert_agrees(bars: Bars, signals: Signals, costs: Costs, limit: int | None, plan: ExitPlan, **terms: str):
    """Hold a backtest under a plan against the plain loop: trades, parts, skips, equity."""
    found = simulate(bars, signals, costs, max_holding_bars=limit, exits=plan, **terms)
    told = told_by_oracle(bars, signals, costs, limit, plan, **terms)
    trades, want = found.trades, told.trades
    assert found.skipped == told.skipped and len(trades) == len(want)
    assert list(trades["entry_time"]) == [bars.index[one["bar"]] for one in want]
    assert list(trades["exit_time"]) == [bars.index[one["exit_bar"]] for one in want]
    assert list(trades["exit_reason"]) == [one["exit_reason"] for one in want]
    for column in ("side", "entry", "exit", "stop_loss", "risk", "r", "r_gross", "pnl", "size"):
        np.testing.assert_allclose(trades[column], [one[column] for one in want], 1e-9, 1e-9, err_msg=column)
    if not plan.moves:  # the loop keeps no parts of what leaves in one
        return found
    parts = [part | {"trade": number, "side": one["side"]} for number, one in enumerate(want) for part in one["parts"]]
    assert list(found.parts["trade"]) == [part["trade"] for part in parts]
    assert list(found.parts["time"]) == [bars.index[part["exit_bar"]] for part in parts]
    assert list(found.parts["exit_reason"]) == [part["exit_reason"] for part in parts]
    sold = [part["price"] * (1 - part["side"] * costs.slippage) for part in parts]
    np.testing.assert_allclose(found.parts["price"], sold, 1e-12)
    np.testing.assert_allclose(found.parts["share"], [part["share"] for part in parts], 1e-12)
    if want:
        np.testing.assert_allclose(found.parts.groupby("trade")["r"].sum(), trades["r"], 1e-9, 1e-9)
    np.testing.assert_allclose(found.equity, told.worth, rtol=1e-9)
    return found


def with_ranges(rng: np.random.Generator, signals: Signals, unknown: float = 0.0) -> Signals:
    """Return signals that say what a trailing stop counts in, for some of them that nobody knows."""
    ranges = rng.integers(1, 5, len(signals)).astype(float)
    return signals.assign(atr=np.where(rng.random(len(signals)) < unknown, np.nan, ranges))


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("costs", [FREE, COSTS], ids=["free", "costs"])
def test_a_plan_agrees_with_a_plain_loop(name, costs):
    reasons, sides = set(), set()
    for seed, limit in enumerate((None, 1, 5, 24)):
        rng = np.random.default_rng(seed)
        bars = random_bars(rng, 400)
        signals = with_ranges(rng, random_signals(rng, bars, rng.uniform(0.1, 0.9)), 0.1)
        found = assert_agrees(bars, signals, costs, limit, PLANS[name])
        reasons, sides = reasons | set(found.trades["exit_reason"]), sides | set(found.trades["side"])
    assert {"stop", "target", "time"} <= reasons and sides == {1, -1}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    share=st.floats(0, 1),
    gap=st.floats(0, 1),
    limit=st.none() | st.integers(1, 50),
    tick=st.sampled_from([1.0, 0.25, 0.1, 1e-5]),
    plan=st.builds(
        ExitPlan,
        break_even_r=st.sampled_from([None, 0.5, 1.0, 2.0]),
        trail_atr=st.sampled_from([None, 0.5, 1.0, 3.0]),
        targets=st.sampled_from(
            [(), HALF, ((0.5, 0.3), (1.0, 0.3), (3.0, 0.3)), ((0.5, 0.1), (1.0, 0.1), (1.5, 0.1), (2.0, 0.1))]
        ),
        max_holding_bars=st.none() | st.integers(1, 20),
    ),
)
def test_any_plan_agrees_with_a_plain_loop_on_anything(seed, n, share, gap, limit, tick, plan):
    rng = np.random.default_rng(seed)
    bars = random_bars(rng, n, gap)
    signals = with_ranges(rng, random_signals(rng, bars, share), 0.1)
    priced = ["entry_price", "stop_loss", "take_profit", "atr"]
    scaled = signals.assign(**{name: signals[name] * tick for name in priced})
    prices = bars.assign(**{name: bars[name] * tick for name in ("open", "high", "low", "close")})
    assert_agrees(prices, scaled, COSTS, limit, plan)


@pytest.mark.parametrize("risk_from", ["plan", "fill"])
def test_every_form_of_levels_agrees_with_a_plain_loop_under_a_plan(risk_from):
    rng = np.random.default_rng(3)
    bars = random_bars(rng, 400)
    signals = with_ranges(rng, random_signals(rng, bars, share=0.3))
    for form in (signals, signals.drop(columns="take_profit"), with_distances(rng, signals)):
        assert_agrees(bars, form, COSTS, None, PLANS["everything"], risk_from=risk_from)


def test_the_range_is_the_bars_own_where_signals_name_none():
    rng = np.random.default_rng(5)
    bars = random_bars(rng, 300)
    signals = random_signals(rng, bars, 0.4)
    plan = ExitPlan(trail_atr=1)
    found = simulate(bars, signals, COSTS, exits=plan)
    from orbiquant.models.labels import barrier_distance

    named = signals.assign(atr=barrier_distance(bars, 1.0))
    pd.testing.assert_frame_equal(found.trades, simulate(bars, named, COSTS, exits=plan).trades)
    assert (
        found.skipped["no range to trail by"]
        == (signals["action"].iloc[:14] != "HOLD").sum()
        - sum(count for count in simulate(bars.iloc[:16], signals.iloc[:14], COSTS, exits=FIXED).skipped.values())
        + simulate(bars.iloc[:16], signals.iloc[:14], COSTS).skipped["in position"]
    )
    with pytest.raises(DataError, match="`atr` must be above zero"):
        simulate(bars, signals.assign(atr=0.0), COSTS, exits=plan)
    assert len(simulate(bars, signals.assign(atr=0.0), COSTS).trades)  # nobody asked for it


# --- the sweep ---

GRID = SweepGrid(
    stop_atr=(1.0, 2.0),
    risk_reward=(1.0, 3.0),
    max_holding_bars=(None, 12),
    break_even_r=(None, 1.0),
    trail_atr=(None, 2.0),
    targets=((), HALF, ((0.5, 0.25), (1.0, 0.5))),
    min_confidence=(0.0, 0.7),
)


@pytest.mark.parametrize("costs", [FREE, COSTS], ids=["free", "costs"])
def test_a_sweep_of_plans_makes_the_trades_of_simulate_and_of_a_plain_loop(costs):
    rng = np.random.default_rng(11)
    bars = random_bars(rng, 500)
    signals = random_signals(rng, bars, 0.4)
    found = sweep_grid(bars, signals, GRID, costs)
    assert len(found.table) == len(GRID) == 192
    for combination in range(0, len(GRID), 13):
        own, terms = found.trades(combination), found.terms(combination)
        plan = ExitPlan(
            break_even_r=terms["break_even_r"], trail_atr=terms["trail_atr"], targets=parse_targets(terms["targets"])
        )
        fast = found.confirm(combination)
        assert fast.exits == plan and fast.max_holding_bars == terms["max_holding_bars"]
        shared = [column for column in own if column in fast.trades]
        pd.testing.assert_frame_equal(own[shared], fast.trades[shared], rtol=1e-12, atol=1e-12, check_dtype=False)
        told = told_by_oracle(bars, found.signals_of(combination).drop(columns="side", errors="ignore"), costs,
                              terms["max_holding_bars"], plan).trades  # fmt: skip
        np.testing.assert_allclose(own["r"], [one["r"] for one in told], 1e-9, 1e-9)
        assert found.table["trades"][combination] == len(told)


def test_the_fixed_plan_of_a_sweep_is_the_sweep_without_plans():
    rng = np.random.default_rng(12)
    bars = random_bars(rng, 600)
    signals = random_signals(rng, bars, 0.3)
    plain = {name: getattr(GRID, name) for name in ("stop_atr", "risk_reward", "max_holding_bars", "min_confidence")}
    without, with_plans = sweep_grid(bars, signals, SweepGrid(**plain), COSTS), sweep_grid(bars, signals, GRID, COSTS)
    fixed = with_plans.table["break_even_r"].isna() & with_plans.table["trail_atr"].isna()
    same = with_plans.table[fixed & (with_plans.table["targets"] == "none")]
    shared = list(without.table)
    pd.testing.assert_frame_equal(
        same[shared].reset_index(drop=True), without.table.reset_index(drop=True), check_exact=True
    )
    assert without.job.key != with_plans.job.key and "targets" not in without.table


# --- the fixed plan ---


def test_a_plan_that_never_comes_into_play_is_the_fixed_one():
    rng = np.random.default_rng(13)
    for _ in range(6):
        bars = random_bars(rng, 300)
        signals = random_signals(rng, bars, 0.5).assign(atr=1.0)
        for limit in (None, 7):
            want = simulate(bars, signals, COSTS, max_holding_bars=limit)
            for plan in (ExitPlan(break_even_r=1e6), ExitPlan(trail_atr=1e6), ExitPlan(targets=((1e6, 0.5),))):
                found = simulate(bars, signals, COSTS, max_holding_bars=limit, exits=plan)
                pd.testing.assert_frame_equal(found.trades, want.trades, rtol=1e-12, atol=1e-12, check_dtype=False)
                pd.testing.assert_series_equal(found.equity, want.equity, rtol=1e-12)
    assert simulate(bars, signals, COSTS, exits=ExitPlan(max_holding_bars=7)).trades.equals(want.trades)


@pytest.mark.parametrize("side", [1, -1])
def test_the_step_without_a_plan_closes_as_the_rule_of_a_fill_does(side):
    rng = np.random.default_rng(14)
    room, at = np.empty((1, 3)), np.empty(1, np.int64)
    for _ in range(200):
        bars = random_bars(rng, 30)
        fill, stop = bars["open"].iloc[0], bars["open"].iloc[0] - side * rng.integers(1, 8)
        target = fill + side * rng.integers(1, 12)
        trade = Entered(side, fill, float(stop), float(target), 1.0)
        assert follow_plan(make_tape(bars), exit_rule(FIXED), trade, 0, 20, room, at) == 1
        bar, price, reason = close_order(make_tape(bars), 0, 20, side, begin_plan(trade).stop, float(target))
        assert (at[0], room[0, 2]) == (bar, reason) and room[0, 0] == pytest.approx(price, rel=1e-14)


# --- nothing before its time ---


@pytest.mark.parametrize("name", PLANS)
def test_later_bars_never_change_a_closed_trade(name):
    rng = np.random.default_rng(15)
    bars = random_bars(rng, 400)
    signals = with_ranges(rng, random_signals(rng, bars, 0.3))
    full = simulate(bars, signals, COSTS, exits=PLANS[name])
    for cut in (1, 50, 133, 250, 399):
        other = bars.copy()
        other.iloc[cut:] = random_bars(rng, 400 - cut).to_numpy()
        for part in (simulate(bars.iloc[:cut], signals.iloc[:cut], COSTS, exits=PLANS[name]),
                     simulate(other, signals, COSTS, exits=PLANS[name])):  # fmt: skip
            closed = part.trades[part.trades["exit_time"] < bars.index[cut - 1]]
            pd.testing.assert_frame_equal(closed, full.trades[full.trades["exit_time"] < bars.index[cut - 1]])


@pytest.mark.parametrize("name", PLANS)
def test_equity_and_parts_pass_the_prefix_replay(name):
    rng = np.random.default_rng(16)
    bars = random_bars(rng, 300)
    signals = with_ranges(rng, random_signals(rng, bars, 0.2))

    def known(part: Bars) -> pd.DataFrame:
        found: BacktestResult = simulate(part, signals.loc[part.index], FREE, exits=PLANS[name])
        left = found.parts[found.parts["exit_reason"] != "end"]
        r = left.groupby("time")["r"].sum().reindex(part.index, fill_value=0.0)
        return pd.DataFrame({"r": r, "equity": found.equity})

    assert causality_violations(known, bars, [120, 200, 299], 1e-9, every=True).empty


def test_a_live_stepper_sees_what_the_history_saw():
    rng = np.random.default_rng(17)
    bars = random_bars(rng, 200)
    rule = exit_rule(PLANS["everything"])
    trade = Entered(1, 100.0, 95.0, 140.0, 2.0)
    parts, at = np.empty((4, 3)), np.empty(4, np.int64)
    count = follow_plan(make_tape(bars), rule, trade, 0, 199, parts, at)
    state, seen = begin_plan(trade), []
    for bar in bars.itertuples():
        before = state.stop
        state, left = step_plan(rule, trade, state, bar.open, bar.high, bar.low, bar.close)
        seen += left
        assert state.stop >= before and (state.rest == 0 or state.stop < bar.close)
        if state.rest == 0:
            break
    assert seen == [tuple(part) for part in parts[:count]]


# --- the smallest stop ---


@pytest.mark.parametrize("side", [1, -1])
def test_an_open_at_a_sliver_of_its_stop_opens_nothing(side):
    index = pd.date_range("2024-01-01", periods=3, freq="1h", tz="UTC", name="time")
    action = "LONG" if side > 0 else "SHORT"
    for left, count in ((0.0999, 0), (0.1, 1), (0.5, 1)):
        opened = 100 - side * (1 - left) * 10
        bars = pd.DataFrame({"open": [100.0, opened, 100.0]}, index).assign(close=100.0)
        bars = bars.assign(high=bars.max(axis=1) + 0.1, low=bars.min(axis=1) - 0.1, volume=1.0)
        levels = {
            "action": action,
            "entry_price": 100.0,
            "stop_loss": 100.0 - side * 10,
            "take_profit": 100.0 + side * 10,
        }
        signal = pd.DataFrame(levels, index[:1])
        for plan in (FIXED, ExitPlan(break_even_r=1)):
            found = simulate(bars, signal, FREE, exits=plan)
            assert (len(found.trades), found.skipped["opened near stop"]) == (count, 1 - count)
        swept = sweep_grid(bars, signal.assign(distance=10.0), SweepGrid(stop_atr=(1.0,), risk_reward=(1.0,)), FREE)
        assert swept.table["trades"][0] == count
        swept.confirm(0)


# --- what is asked for ---


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1:2",
        "0:0.5",
        "1:0.5,1:0.2",
        "2:0.5,1:0.2",
        "1:0.5,2:0.5",
        "nan:0.5",
        "1:x",
        "1:0.5;",
        "1:0.1,2:0.1,3:0.1,4:0.1,5:0.1",
    ],
)
def test_partial_targets_that_cannot_be_are_refused(text):
    with pytest.raises(OptionError, match="partial targets must be at most 4 R:SHARE"):
        parse_targets(text)


def test_partial_targets_are_written_as_they_are_read():
    for plan in PLANS.values():
        assert parse_targets(targets_text(plan.targets)) == plan.targets


def test_a_plan_goes_with_the_result_and_is_asked_for_again():
    rng = np.random.default_rng(19)
    bars = random_bars(rng, 300)
    signals = with_ranges(rng, random_signals(rng, bars, 0.3))
    for plan in (FIXED, *PLANS.values()):
        found = simulate(bars, signals, COSTS, exits=plan)
        again = simulate(bars, signals, COSTS, **found.terms)
        assert found.exits == plan and again.trades.equals(found.trades) and again.parts.equals(found.parts)
    assert "exits" not in simulate(bars, signals, COSTS).terms
    nothing = simulate(bars, signals.assign(action="HOLD"), COSTS, exits=PLANS["everything"])
    assert nothing.trades.empty and nothing.parts.empty and (nothing.equity == 10_000).all()
