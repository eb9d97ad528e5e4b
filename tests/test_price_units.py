"""The unit of price changes no result in R: what a coin at 0.0000000001 makes, it makes at ten million."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.null_market import market_like, null_bars
from orbiquant.backtest.robustness import cost_sensitivity
from orbiquant.backtest.simulate import simulate, summarise
from orbiquant.backtest.surrogates import SurrogateTest, audit_surrogates, sign_flip
from orbiquant.backtest.sweep import sweep_grid
from orbiquant.backtest.sweep_plan import SweepGrid
from orbiquant.domain import Bars, CalendarName, Costs, Signals, Timeframe
from orbiquant.market.synthetic import synthetic_market
from orbiquant.performance import r_figures
from tests.tools.oracle import Terms, replay

PRICES = ["open", "high", "low", "close"]
FREE, DEAR = Costs(), Costs(fee_bps=4.0, slippage_bps=2.0, spread_bps=3.0)
UNITS = [1e-10, 3e-9, 1e-8, 1e-5, 7.0, 1e4, 1e7]
BARS = synthetic_market(700, "1h", seed=21).bars


def walk(seed: int, rows: int) -> Bars:
    """Return a random walk without a price grid: nothing is touched by the last bit of a product alone."""
    rng = np.random.default_rng(seed)
    path = np.exp(rng.normal(0, 0.004, (rows, 4)).cumsum().reshape(rows, 4))
    opened, closed = path[:, 0], path[:, -1]
    index = pd.date_range("2024-01-01", periods=rows, freq="1h", tz="UTC", name="time")
    prices = {"open": opened, "high": path.max(axis=1), "low": path.min(axis=1), "close": closed}
    return pd.DataFrame(prices, index).assign(volume=1.0)


def guesses(seed: int, bars: Bars) -> Signals:
    """Return random sides with levels of some per mille."""
    rng = np.random.default_rng(seed)
    side = rng.choice([1, -1, 0], len(bars), p=[0.3, 0.3, 0.4])
    distance = bars["close"] * rng.uniform(0.001, 0.02, len(bars))
    stop, target = bars["close"] - side * distance, bars["close"] + side * 1.7 * distance
    action = np.array(["HOLD", "LONG", "SHORT"])[side]
    levels = {"entry_price": bars["close"], "stop_loss": stop, "take_profit": target}
    return pd.DataFrame({"action": action, **levels, "confidence": 0.7})


def in_unit(table: pd.DataFrame, unit: float) -> pd.DataFrame:
    """Return bars or signals with their prices in another unit."""
    names = [name for name in (*PRICES, "entry_price", "stop_loss", "take_profit", "distance") if name in table]
    return table.assign(**{name: table[name] * unit for name in names})


def assert_same(found: pd.DataFrame, base: pd.DataFrame, unit: float) -> None:
    """Hold trades in one unit against those in another."""
    assert len(found) == len(base)
    for name in ("entry_time", "exit_time", "side", "exit_reason", "bars"):
        assert list(found[name]) == list(base[name]), name
    for name in ("entry", "exit", "stop_loss", "take_profit"):
        np.testing.assert_allclose(found[name], base[name] * unit, rtol=1e-12)
    for name in ("r", "r_gross", "cost_r"):
        np.testing.assert_allclose(found[name], base[name], rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 120),
    exponent=st.floats(-10, 7),
    limit=st.none() | st.integers(1, 30),
    costs=st.sampled_from([FREE, DEAR]),
    risk_from=st.sampled_from(["plan", "fill"]),
)
def test_a_backtest_makes_the_same_r_in_any_unit(seed, rows, exponent, limit, costs, risk_from):
    bars, unit = walk(seed, rows), 10.0**exponent
    signals = guesses(seed, bars)
    base = simulate(bars, signals, costs, max_holding_bars=limit, risk_from=risk_from)
    priced, named = in_unit(bars, unit), in_unit(signals, unit)
    found = simulate(priced, named, costs, max_holding_bars=limit, risk_from=risk_from)
    assert_same(found.trades, base.trades, unit)
    assert found.skipped == base.skipped
    np.testing.assert_allclose(found.equity, base.equity, rtol=1e-9)
    told = replay(priced, named, Terms(costs.fee, costs.slippage, limit, risk_from=risk_from)).trades
    np.testing.assert_allclose(found.trades["r"], [trade["r"] for trade in told], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", UNITS)
def test_net_r_is_that_of_the_trade_s_own_prices_and_costs(unit: float):
    bars = in_unit(walk(3, 3000), unit)
    trades = simulate(bars, in_unit(guesses(3, walk(3, 3000)), unit), DEAR, max_holding_bars=12).trades
    assert len(trades) > 250
    profit = trades["side"] * (trades["exit"] - trades["entry"]) - DEAR.fee * (trades["exit"] + trades["entry"])
    np.testing.assert_allclose(trades["r"], profit / trades["risk"], rtol=1e-12)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 120), exponent=st.floats(-10, 7))
def test_a_sweep_makes_the_same_r_in_any_unit_and_vectorbt_confirms_it(seed, rows, exponent):
    bars, unit = walk(seed, rows), 10.0**exponent
    signals = guesses(seed, bars)[["action", "confidence"]].assign(distance=bars["close"] * 0.004)
    grid = SweepGrid(stop_atr=(0.5, 2.0), risk_reward=(1.0, 2.5), max_holding_bars=(None, 5))
    base = sweep_grid(bars, signals, grid, DEAR)
    found = sweep_grid(in_unit(bars, unit), in_unit(signals, unit), grid, DEAR)
    pd.testing.assert_frame_equal(found.table, base.table, rtol=1e-8, atol=1e-8)
    pd.testing.assert_frame_equal(found.returns, base.returns, rtol=1e-8, atol=1e-8)
    for combination in found.table.index:
        assert_same(found.trades(combination), base.trades(combination), unit)
        found.confirm(combination)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.floats(-10, 7), block=st.sampled_from([1, 24, "day"]))
def test_a_surrogate_is_the_same_market_in_any_unit(seed, exponent, block):
    base, found = sign_flip(BARS, seed, block), sign_flip(in_unit(BARS, 10.0**exponent), seed, block)
    np.testing.assert_allclose(found[PRICES], base[PRICES] * 10.0**exponent, rtol=1e-10)


def ten_bar_breakout(bars: Bars) -> dict[str, float]:
    """Return the mean net R of following ten bars, a claim made of trades."""
    way = np.sign(bars["close"].diff(10)).fillna(0).astype(int)
    signals = pd.DataFrame({"side": way, "stop_distance": bars["close"] * 0.003}, bars.index)
    return {"breakout": r_figures(simulate(bars, signals, DEAR, max_holding_bars=10).trades["r"])["expectancy_r"]}


def surrogates_in(unit: float) -> SurrogateTest:
    """Audit the breakout in a unit of price."""
    return audit_surrogates(ten_bar_breakout, in_unit(BARS, unit), count=9, seed=4)


@pytest.mark.parametrize("unit", UNITS)
def test_an_audit_says_the_same_in_any_unit(unit: float):
    base, found = surrogates_in(1.0), surrogates_in(unit)
    pd.testing.assert_frame_equal(found.table, base.table, rtol=1e-6)
    here, there = (market_like(in_unit(BARS, u), Timeframe.H1, CalendarName.FOREX) for u in (1.0, unit))
    assert there.daily_volatility == pytest.approx(here.daily_volatility)
    assert there.start_price == pytest.approx(unit * here.start_price)
    if unit in (1e-10, 1e-8, 1e-5, 1e4, 1e7):  # a power of ten keeps the ticks
        assert there.tick_size == pytest.approx(unit * here.tick_size)
        bars, priced = (null_bars(200, Timeframe.H1, 1, config) for config in (here, there))
        assert priced["close"].nunique() > 100
        np.testing.assert_allclose(priced[PRICES], bars[PRICES] * unit, rtol=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_costs_and_figures_are_the_same_in_any_unit(unit: float):
    bars = walk(8, 900)
    signals = guesses(8, bars)
    base, found = (simulate(in_unit(bars, u), in_unit(signals, u), DEAR, max_holding_bars=12) for u in (1.0, unit))
    assert summarise(found) == pytest.approx(summarise(base), rel=1e-8, nan_ok=True)
    assert found.costs_in_r == pytest.approx(base.costs_in_r, rel=1e-9)
    tables = [cost_sensitivity(in_unit(bars, u), in_unit(signals, u), r) for u, r in ((1.0, base), (unit, found))]
    pd.testing.assert_frame_equal(*tables, rtol=1e-8)


def test_a_coin_that_rose_a_hundred_million_fold_keeps_its_first_trades_right():
    quiet = walk(9, 4000)
    rise = np.geomspace(1e-10, 1e-2, 4000)
    bars = quiet.assign(**{name: quiet[name] * rise for name in PRICES})
    signals = guesses(9, quiet)
    signals = signals.assign(**{name: signals[name] * rise for name in ("entry_price", "stop_loss", "take_profit")})
    found = simulate(bars, signals, DEAR, max_holding_bars=3).trades
    told = replay(bars, signals, Terms(DEAR.fee, DEAR.slippage, 3)).trades
    assert len(found) == len(told) > 80
    np.testing.assert_allclose(found["r"], [trade["r"] for trade in told], rtol=1e-9)
