"""Walk-forward: choices on the past alone, trades of the stretch alone, and nothing earned where nothing is."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.combinations import FIGURES, TakenTrades
from orbiquant.backtest.simulate import simulate
from orbiquant.backtest.strategy_sweep import ParameterGrid, StrategySweep, sweep_strategy
from orbiquant.backtest.sweep import sweep_grid
from orbiquant.backtest.sweep_plan import SweepGrid
from orbiquant.backtest.walk_forward import (
    ForwardPlan,
    ForwardResult,
    Stretch,
    past_figures,
    stretches_of,
    walk_forward,
)
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Bars, Costs, Signals, Value
from orbiquant.execution.config import ExitPlan
from orbiquant.performance import r_figures, r_moments
from orbiquant.strategies.mean_reversion import MeanReversion
from tests.tools.shared_bars import shared_bars

COSTS = Costs(fee_bps=0.5, slippage_bps=0.5)
PLAN = ForwardPlan(stretch="20d", first="60d", min_trades=15)


def walk(seed: int, rows: int = 4000, beat: int = 0, strength: float = 0.0) -> Bars:
    """Return hourly bars of a random walk; every `beat` bars the next ones go on with its sign."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.002, rows)
    if beat:
        for bar in range(beat, rows, beat):
            steps[bar + 1 : bar + 4] += strength * np.sign(steps[bar])
    close = 100 * np.exp(np.cumsum(steps))
    opened = np.append(100.0, close[:-1])
    edge = np.abs(rng.normal(0, 0.0008, (2, rows))) * close
    prices = {"open": opened, "high": np.maximum(opened, close) + edge[0], "low": np.minimum(opened, close) - edge[1]}
    hours = pd.date_range("2024-01-01", periods=rows, freq="1h", tz="UTC", name="time")
    return pd.DataFrame(prices | {"close": close, "volume": 1.0}, hours)


class Beat(Value):
    """Every so many bars: goes with the bar that has just closed. It names no action, only a side."""

    beat: int = 6
    hold: int = 4
    name, exits, reward_to_risk, warmup_bars = (property(lambda self, v=v: v) for v in ("beat", None, 0.0, 1))

    @property
    def max_holding_bars(self) -> int:
        return self.hold

    def batch(self, bars: Bars) -> Signals:
        at = np.arange(len(bars)) % self.beat == 0
        side = np.where(at & (np.arange(len(bars)) > 0), np.sign(bars["close"] - bars["open"]), 0).astype(int)
        return pd.DataFrame({"side": side, "stop_distance": 0.01 * bars["close"]}, bars.index)


GRID = ParameterGrid(strategy="beat", parameters={"beat": (5, 6, 7, 11), "hold": (2, 4)})


def walked(bars: Bars, plan: ForwardPlan = PLAN, costs: Costs = COSTS) -> ForwardResult:
    return walk_forward(sweep_strategy(Beat, bars, GRID, costs), plan, "beat")


def slow_choice(found: StrategySweep, begin: pd.Timestamp, since: pd.Timestamp, plan: ForwardPlan) -> int | None:
    """Return the best combination of the past, from `simulate`'s own trades and plain pandas."""
    scores: dict[int, float] = {}
    for number in found.table.index:
        strategy = Beat(**found.terms(number))
        trades = simulate(found.bars, strategy.batch(found.bars), found.costs, max_holding_bars=strategy.hold).trades
        past = trades[(trades["exit_time"] < begin) & (trades["entry_time"] >= since)]["r"]
        if len(past) >= plan.min_trades:
            scores[number] = (r_figures(past) | r_moments(past))[plan.by]
    known = {number: score for number, score in scores.items() if not np.isnan(score)}
    return max(known, key=lambda number: (known[number], -number)) if known else None


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        ForwardPlan(stretch="700", window="1000", min_trades=10, by="total_r"),
        pytest.param(
            ForwardPlan(stretch="25d", window="40d", min_trades=20, by="profit_factor"), marks=pytest.mark.slow
        ),
        pytest.param(ForwardPlan(stretch="300", first="20d", by="sharpe_per_trade"), marks=pytest.mark.slow),
    ],
)
def test_each_choice_is_that_of_a_slow_one_on_the_past(plan):
    bars = walk(3, 3000)
    found = sweep_strategy(Beat, bars, GRID, COSTS)
    result, stretches = walk_forward(found, plan, "beat"), stretches_of(bars.index, plan)
    chosen = result.choices["combination"]
    for number, stretch in enumerate(stretches):
        slow = slow_choice(found, bars.index[stretch.begin], bars.index[stretch.since], plan)
        assert (None if pd.isna(chosen[number]) else chosen[number]) == slow
    assert chosen.notna().any()


def test_a_stretch_trades_what_simulate_trades_of_the_choice():
    bars = walk(4, 3000)
    result = walked(bars)
    free_from = bars.index[0]
    for number, stretch in enumerate(stretches_of(bars.index, PLAN)):
        own = result.trades[result.trades["stretch"] == number]
        strategy = Beat(**result.found.terms(int(result.choices.at[number, "combination"])))
        signals = strategy.batch(bars)
        entry = pd.Series(np.append(bars.index[1:], bars.index[-1:] + pd.Timedelta(hours=1)), bars.index)
        inside = (entry >= bars.index[stretch.begin]) & (entry <= bars.index[stretch.end - 1]) & (entry > free_from)
        played = simulate(bars, signals[inside.to_numpy()], COSTS, max_holding_bars=strategy.hold).trades
        names = ["entry_time", "exit_time", "side", "entry", "exit", "exit_reason", "r"]
        pd.testing.assert_frame_equal(own[names].reset_index(drop=True), played[names].reset_index(drop=True))
        free_from = own["exit_time"].iloc[-1] if len(own) else free_from


@pytest.mark.slow
def test_one_position_at_a_time_across_seams():
    result = walked(walk(5), ForwardPlan(stretch="50", first="1000", min_trades=15))
    entry, left = result.trades["entry_time"].to_numpy(), result.trades["exit_time"].to_numpy()
    assert (entry[1:] > left[:-1]).all() and len(result.choices) > 50
    over = result.trades["exit_time"] > result.choices["ends"].to_numpy()[result.trades["stretch"]]
    assert over.any()  # some trades do leave in a later stretch


@pytest.mark.parametrize("part", [0.5, 0.8])
def test_what_comes_after_a_stretch_changes_nothing_in_it(part):
    bars = walk(6)
    result, stretches = walked(bars), stretches_of(bars.index, PLAN)
    number = int(part * len(stretches))
    cut = stretches[number].end
    other = bars.copy()
    other.iloc[cut:, :4] = walk(99).iloc[cut:, :4].to_numpy()
    again = walked(other)
    known = ["begins", "ends", "combination", "in_sample_trades", "in_sample_figure"]
    pd.testing.assert_frame_equal(again.choices[known][: number + 1], result.choices[known][: number + 1])
    before = result.trades["exit_time"] < bars.index[cut]
    pd.testing.assert_frame_equal(again.trades[: before.sum()], result.trades[before])


def test_a_planted_edge_is_found_and_kept():
    result = walked(walk(7, 8000, beat=7, strength=0.0015))
    told, chosen = result.headline(), result.choices["combination"].map(lambda n: result.found.terms(n)["beat"])
    assert (chosen == 7).all() and told.figures["t_statistic"] > 4 and told.overfitting.deflated_sharpe > 0.95
    assert 0.5 < told.efficiency < 1.5 and "survives its trials" in told.sentence()


@pytest.mark.slow
def test_a_parameter_that_stops_working_is_left():
    early, late = walk(8, 5000, beat=7, strength=0.002), walk(9, 5000, beat=11, strength=0.004)
    scaled = late.set_axis(early.index[-1] + pd.to_timedelta(np.arange(1, 5001), "h"), axis=0).rename_axis("time")
    scaled.loc[:, ["open", "high", "low", "close"]] *= early["close"].iloc[-1] / late["open"].iloc[0]
    late_phase = np.roll(scaled.to_numpy(), 0)
    bars = pd.concat([early.iloc[: 5000 - 5000 % 77], pd.DataFrame(late_phase, scaled.index, early.columns)])
    bars.index = pd.date_range(early.index[0], periods=len(bars), freq="1h", name="time")
    plan = ForwardPlan(stretch="20d", window="50d", min_trades=15)
    chosen = walked(bars, plan).choices["combination"].map(lambda n: GRID.choices()[n]["beat"]).tolist()
    assert chosen[0] == 7 and chosen[-1] == 11


@pytest.mark.slow
def test_nothing_is_earned_where_nothing_is():
    """Ten random walks without costs: the trades out of sample scatter around zero, the chosen in sample do not."""
    outside, inside = [], []
    for seed in range(20, 30):
        result = walked(walk(seed), costs=Costs())
        outside.append(result.trades["r"])
        inside.append(result.headline().in_sample_r)
    r = pd.concat(outside)
    assert abs(r.mean()) < 3 * r.sem() and len(r) > 3000
    assert np.mean(inside) > 3 * r.sem() > 0  # what the sweep alone would have promised


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_the_past_are_the_backtests(figure):
    rng = np.random.default_rng(1)
    entry = np.sort(rng.choice(np.arange(0, 3000, 5), 200, replace=False))
    taken = TakenTrades(entry, entry + 4, rng.normal(0.1, 1, 200), np.full(200, 0.1))
    for since, begin in ((0, 3005), (400, 2000), (0, 5)):
        past = pd.Series(taken.net[(taken.exit < begin) & (taken.entry >= since)])
        found = past_figures([taken], Stretch(since, begin, begin + 1)).loc[0, figure]
        want = (r_figures(past) | r_moments(past))[figure]
        assert np.isclose(found, want, equal_nan=True) or (len(past) < 2)


@given(st.integers(0, 10_000), st.integers(1, 900), st.integers(1, 900), st.booleans())
@settings(max_examples=60, deadline=None)
def test_stretches_cover_what_follows_the_first_past_once(seed, size, first, days):
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(6000, 2000, replace=False))
    times = pd.date_range("2024-01-01", periods=6000, freq="1h", tz="UTC")[kept]
    unit = "d" if days else ""
    plan = ForwardPlan(stretch=f"{size}{unit}", first=f"{first}{unit}")
    try:
        found = stretches_of(times, plan)
    except DataError:
        assert days and times[0] + pd.Timedelta(days=first) > times[-1]
        return
    assert [each.begin for each in found[1:]] == [each.end for each in found[:-1]] and found[-1].end == len(times)
    if days:
        assert all(times[each.end - 1] - times[each.begin] < pd.Timedelta(days=size) for each in found)
    else:
        assert found[0].begin == first and all(each.end - each.begin == size for each in found[:-1])


def test_equity_ends_where_the_trades_lead():
    result = walked(walk(11))
    assert np.isclose(result.equity.iloc[-1], 10_000 + result.trades["pnl"].sum())
    assert result.equity.index[0] == result.choices["begins"].iloc[0]


def test_trades_too_few_are_no_choice():
    result = walked(walk(12, 2500), ForwardPlan(stretch="20d", first="60d", min_trades=100_000))
    assert result.choices["combination"].isna().all() and result.trades.empty
    assert "traded nothing out of sample" in result.headline().sentence() and result.equity.nunique() == 1
    assert "Walk-forward" in repr(result) and result.plot().data is not None


@pytest.mark.parametrize("field", ["stretch", "window", "first"])
@pytest.mark.parametrize("value", ["0", "-5", "90 days", "d", "1e3", "", "90D"])
def test_spans_that_are_none_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ForwardPlan(**{field: value})


def test_a_history_too_short_is_told():
    with pytest.raises(DataError, match="`first` must leave bars to trade, was 360d of 500 bars"):
        walk_forward(sweep_strategy(Beat, walk(1, 500), GRID, COSTS))


def test_levels_are_walked_forward_as_parameters_are():
    bars = walk(13, 6000, beat=7, strength=0.0015)
    signals = Beat(beat=7).batch(bars)[["side"]]
    grid = SweepGrid(stop_atr=(0.5, 1.0, 3.0), risk_reward=(1.0, 3.0), max_holding_bars=(4,), trail_atr=(None, 2.0))
    found = sweep_grid(bars, signals[signals["side"] != 0], grid, COSTS)
    result = walk_forward(found, PLAN, "signals")
    assert result.choices["combination"].notna().all() and result.headline().figures["t_statistic"] > 3
    best = int(result.choices["combination"].mode()[0])
    alone = found.trades(best)
    mine = result.trades[result.trades["combination"] == best]
    assert mine["entry_time"].isin(alone["entry_time"]).mean() > 0.9  # only seams differ
    both = mine.merge(alone, on="entry_time")
    assert np.allclose(both["r_x"], both["r_y"])


# --- the sweep of a strategy ---


def test_a_sweep_of_a_strategy_trades_as_simulate_does():
    bars = walk(14, 2500)
    plans = (ExitPlan(), ExitPlan(trail_atr=2), ExitPlan(break_even_r=1, max_holding_bars=3))
    grid = ParameterGrid(strategy="beat", parameters={"beat": (5, 7)}, exits=plans)
    found = sweep_strategy(Beat, bars, grid, COSTS, threads=2)
    for number in found.table.index:
        strategy, plan = Beat(beat=found.terms(number)["beat"]), plans[number % 3]
        theirs = simulate(bars, strategy.batch(bars), COSTS, max_holding_bars=4, exits=plan).trades
        assert found.confirm(number).trades["r"].tolist() == theirs["r"].tolist()
        assert np.allclose(found.taken(number).net, theirs["r"]) and found.table.at[number, "trades"] == len(theirs)
    serial = sweep_strategy(Beat, bars, grid, COSTS)
    pd.testing.assert_frame_equal(found.table, serial.table)
    assert len(found.plot().data) == 1


class Bad(Beat):
    """Says what is no side in one row."""

    def batch(self, bars: Bars) -> Signals:
        said = super().batch(bars).astype({"side": float})
        said.iloc[77, 0] = np.nan
        return said


@pytest.mark.parametrize(
    ("make", "parameters", "message"),
    [
        (Bad, {"beat": (5,)}, "strategy beat with beat=5 failed: DataError: `side` must be one of .*, was nan"),
        (Beat, {"baet": (5,)}, "beat has no parameter `baet`, did you mean 'beat'?"),
        (MeanReversion, {"length": (20, 1)}, "`length` of beat: must be greater than or equal to 2, was 1"),
    ],
)
def test_what_cannot_be_is_named(make, parameters, message):
    computed: list[Any] = []
    with pytest.raises((DataError, OptionError), match=message.replace("?", r"\?")):
        sweep_strategy(make, walk(1, 500), ParameterGrid(strategy="beat", parameters=parameters), COSTS,
                       progress=lambda *done: computed.append(done))  # fmt: skip
    assert not computed


def test_a_year_of_real_bars_is_confirmed_trade_for_trade():
    bars = shared_bars("EURUSD_1h").iloc[-9000:]
    grid = ParameterGrid(strategy="mean_reversion", parameters={"length": (10, 20), "threshold": (2.0, 2.5)})
    found = sweep_strategy(MeanReversion, bars, grid, COSTS)
    assert all(len(found.confirm(number).trades) > 100 for number in found.table.index)
    result = walk_forward(found, ForwardPlan(stretch="60d", first="180d"), "mean_reversion")
    assert len(result.trades) > 50 and result.headline().overfitting.trials == 5
