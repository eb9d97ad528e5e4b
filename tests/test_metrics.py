"""Metrics: against independent formulas, on edges, and never infinite."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.robustness import (
    LEAST_BOOTSTRAP,
    block_length,
    cost_sensitivity,
    draw_blocks,
    examine_trades,
    gain_share,
    growth_factors,
    monte_carlo,
    path_figures,
    reliability,
    share_interval,
    wilson_interval,
)
from orbiquant.backtest.simulate import BacktestResult, simulate, summarise
from orbiquant.core import DataError
from orbiquant.domain import Costs
from orbiquant.performance import (
    ANNUAL,
    account_days,
    by_group,
    confidence_bucket,
    daily_returns,
    drawdown_r,
    money_figures,
    monthly,
    r_figures,
    why_missing,
)
from orbiquant.wire import without_gaps


def trade_list(r, times=None, **columns):
    r = np.asarray(r, dtype=float)
    times = times if times is not None else pd.date_range("2024-01-15", periods=len(r), freq="1D", tz="UTC")
    table = {"exit_time": times, "side": 1, "confidence": 0.62, "r": r, "r_gross": r + 0.1, "cost_r": 0.1, "bars": 2}
    table |= {"entry": 100.0, "risk": 1.0}
    return pd.DataFrame(table | columns)


def backtest(trades, equity):
    return BacktestResult(trades, equity, {"in position": 3}, Costs(), 0.01, 10_000.0, None, {}, 30.0, "plan")


def equity_of(values, freq="1D"):
    index = pd.date_range("2024-01-01", periods=len(values), freq=freq, tz="UTC")
    return pd.Series(np.asarray(values, dtype=float), index, name="equity")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), max_size=60))
def test_r_figures_against_plain_arithmetic(values):
    figures = r_figures(pd.Series(values, dtype=float))
    n, wins, losses = len(values), [v for v in values if v > 0], [-v for v in values if v <= 0]
    assert figures["trades"] == n and figures["total_r"] == pytest.approx(sum(values))
    assert not any(np.isinf(list(figures.values())))
    if n:
        assert figures["win_rate"] == len(wins) / n
        assert figures["expectancy_r"] == pytest.approx(sum(values) / n)
    if sum(losses) > 0:
        assert figures["profit_factor"] == pytest.approx(sum(wins) / sum(losses))
    else:
        assert np.isnan(figures["profit_factor"])
    if n > 1 and np.std(values) > 1e-9:
        error = np.std(values, ddof=1) / np.sqrt(n)
        assert figures["standard_error_r"] == pytest.approx(error)
        assert figures["t_statistic"] == pytest.approx(np.mean(values) / error)
    peak = deepest = running = 0.0
    for value in values:
        running += value
        peak = max(peak, running)
        deepest = max(deepest, peak - running)
    assert figures["max_drawdown_r"] == pytest.approx(deepest)


def test_sqn_caps_the_count_at_a_hundred():
    r = pd.Series(np.tile([2.0, -1.0], 200))
    assert r_figures(r)["sqn"] == pytest.approx(r_figures(r)["t_statistic"] / 2)
    assert drawdown_r(pd.Series([-1.0, -1.0, 5.0])) == 2


def test_money_figures_against_plain_arithmetic():
    rng = np.random.default_rng(1)
    equity = equity_of(10_000 * np.exp(rng.normal(0.0005, 0.01, 24 * 400).cumsum() / 5), "1h")
    figures = money_figures(equity, 10_000)
    days = equity.iloc[23::24].to_numpy()
    returns = np.diff(np.concatenate([[10_000], days])) / np.concatenate([[10_000], days[:-1]])
    assert figures["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(365.25))
    downside = np.sqrt(np.mean(np.minimum(returns, 0) ** 2))
    assert figures["sortino"] == pytest.approx(returns.mean() / downside * np.sqrt(365.25))
    path = np.concatenate([[10_000], equity])
    assert figures["max_drawdown"] == pytest.approx((1 - path / np.maximum.accumulate(path)).max())
    assert figures["calmar"] == pytest.approx(figures["yearly_return"] / figures["max_drawdown"])
    assert figures["total_return"] == pytest.approx(equity.iloc[-1] / 10_000 - 1)


@pytest.mark.parametrize(("hours", "annual"), [(1, False), (24, False), (29 * 24, False), (29 * 24 + 1, True)])
def test_nothing_is_annualised_under_thirty_days_and_the_reason_is_given(hours, annual):
    equity = equity_of(10_000 * 1.05 ** np.sin(np.arange(hours)), "1h")
    figures = money_figures(equity, 10_000) | {"days": account_days(equity), "trades": 9.0}
    assert all(np.isnan(figures[name]) != annual for name in ANNUAL)
    assert figures["max_drawdown"] >= 0 and np.isfinite(figures["total_return"])
    said = why_missing(figures)
    assert set(said) == (set() if annual else set(ANNUAL))
    assert all(f"{-(-hours // 24)} days are fewer than the 30" in reason for reason in said.values())


def test_a_violent_span_overflows_nothing_and_loses_no_other_figure():
    bars, _ = random_walk(n=6000)
    side = np.sign(bars["close"].shift(-1) - bars["open"].shift(-1)).fillna(0).astype(int)  # the next bar's own
    signals = pd.DataFrame({"side": side, "stop_distance": bars["close"] * 0.001, "confidence": 0.7}, bars.index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = simulate(bars, signals, Costs(), max_holding_bars=1, risk_per_trade=0.5, max_leverage=1e6)
        figures, odds = summarise(result), monte_carlo(result)
    assert figures["trades"] > 2000 and figures["total_r"] > 2000 and figures["sqn"] > 10
    assert np.isnan(figures["final_equity"]) and not np.isinf(result.equity).any()
    assert why_missing(figures)["final_equity"] == "the account grew beyond the largest number there is"
    assert set(odds.probability().values()) == {0.0}  # no trade of such signals loses, so no draw does
    steep = money_figures(equity_of(10_000 * 1e9 ** np.arange(31)), 10_000)
    assert np.isnan(steep["yearly_return"]) and steep["sharpe"] > 0 and np.isfinite(steep["total_return"])


def test_every_figure_that_is_missing_has_a_reason():
    bars, signals = random_walk(n=400)
    for rows in (signals, signals.iloc[:12], signals.iloc[:1], signals.assign(action="HOLD")):
        for part in (bars, bars.iloc[:20], bars.iloc[:1]):
            figures = summarise(simulate(part, rows.loc[rows.index.isin(part.index)], Costs(fee_bps=1)))
            said = why_missing(figures)
            assert set(said) == {name for name, value in figures.items() if np.isnan(value)}
            assert all(said.values())


def test_weekends_do_not_move_the_sharpe_ratio():
    rng = np.random.default_rng(3)
    weekdays = pd.bdate_range("2014-01-01", "2023-12-31", tz="UTC")
    growth = rng.normal(0.0004, 0.01, len(weekdays))
    equity = pd.Series(10_000 * np.cumprod(1 + growth), weekdays)
    by_trading_days = growth.mean() / growth.std(ddof=1) * np.sqrt(len(weekdays) / 10)
    assert money_figures(equity, 10_000)["sharpe"] == pytest.approx(by_trading_days, rel=0.01)


def test_what_cannot_be_said_is_nan_and_none_in_json():
    one_day = money_figures(equity_of([10_000, 10_100], "1h"), 10_000)
    assert one_day["total_return"] == pytest.approx(0.01)
    assert all(np.isnan(one_day[name]) for name in ("sharpe", "sortino", "calmar", "yearly_return", "volatility"))
    nothing = summarise(backtest(trade_list([]), equity_of([])))
    assert nothing["trades"] == 0 and nothing["final_equity"] == 10_000
    text = json.dumps(without_gaps(nothing), allow_nan=False)
    assert json.loads(text)["win_rate"] is None
    ruined = money_figures(equity_of([10_000, *[0] * 40]), 10_000)
    assert ruined["max_drawdown"] == 1 and ruined["yearly_return"] == -1
    assert not any(np.isinf(list(ruined.values())))
    assert (daily_returns(equity_of([5_000, 0, 0]), 10_000) == [-0.5, -1, 0]).all()


def test_summary_counts_exposure_costs_and_pace():
    trades = trade_list([1.9, -1.1, 0.4])
    figures = summarise(backtest(trades, equity_of(np.linspace(10_000, 10_500, 12 * 61), "2h")))
    assert figures["exposure"] == pytest.approx(6 / (12 * 61))
    assert figures["total_cost_r"] == pytest.approx(0.3)
    assert figures["gross_total_r"] == pytest.approx(figures["total_r"] + 0.3)
    assert figures["trades_a_month"] == pytest.approx(3 / (61 / 30.4375), rel=0.01)
    assert figures["skipped_signals"] == 3 and figures["average_bars"] == 2


def test_groups_add_up_and_keep_rows_without_a_label():
    trades = trade_list([1, -1, 2, -1], amd_phase=["distribution", None, "distribution", "accumulation"])
    trades["side"] = [1, -1, -1, 1]
    trades["confidence"] = [0.60, 0.6499, 0.65, np.nan]
    for column in ("amd_phase", "side", "confidence"):
        table = by_group(trades, column)
        assert table["trades"].sum() == 4 and table["total_r"].sum() == pytest.approx(1)
    assert by_group(trades, "side").loc["long", "total_r"] == 0
    assert by_group(trades, "confidence").loc["0.60–0.65", "trades"] == 2
    assert by_group(trades.iloc[:0], "side").empty
    with pytest.raises(DataError, match="`column` must be one of"):
        by_group(trades, "phase")


@given(st.floats(0, 1))
def test_a_bucket_holds_its_confidence(value):
    (name,) = confidence_bucket(pd.Series([value]))
    low, high = map(float, name.split("–"))
    assert low - 1e-9 <= value <= high


def test_months_hold_every_trade_where_it_closed():
    times = pd.to_datetime(["2023-11-30 23:59", "2024-01-01 00:00", "2024-01-31 12:00", "2024-03-05 08:00"], utc=True)
    table = monthly(trade_list([1.0, 2.0, -0.5, -1.0], times))
    assert table.loc[2023, "Nov"] == 1 and table.loc[2023, "Dec"] == 0 and np.isnan(table.loc[2023, "Oct"])
    assert table.loc[2024, "Jan"] == 1.5 and table.loc[2024, "Feb"] == 0 and table.loc[2024, "Mar"] == -1
    assert np.isnan(table.loc[2024, "Apr"]) and list(table["total"]) == [1, 0.5]
    empty = monthly(trade_list([]))
    assert empty.empty and list(empty.columns) == list(table.columns)


def test_a_real_empty_backtest_has_figures():
    bars = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0),
        index=pd.date_range("2024-01-01", periods=50, freq="1h", tz="UTC"),
    )
    hold = pd.DataFrame({"action": "HOLD", "entry_price": 1.0, "stop_loss": 1.0, "take_profit": 1.0}, bars.index)
    result = simulate(bars, hold, Costs())
    figures = summarise(result)
    assert figures["total_r"] == 0 and figures["exposure"] == 0 and figures["total_return"] == 0
    assert monthly(result.trades).empty and by_group(result.trades, "amd_phase").empty


# --- what else the trades could have come to ---


def random_walk(seed=7, n=3000, drift=0.0, confidence=0.5):
    """Bars of a walk with coin-flip signals, two to one."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2023-01-02", periods=n, freq="1h", tz="UTC", name="time")
    close = pd.Series(100 * np.exp(rng.normal(drift, 0.002, n).cumsum()), index)
    opened = close.shift(fill_value=100.0)
    high, low = np.maximum(opened, close) * 1.0005, np.minimum(opened, close) * 0.9995
    bars = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close})
    side = rng.choice([1, -1], n)
    levels = {"stop_loss": close * (1 - side * 0.005), "take_profit": close * (1 + side * 0.01)}
    action = np.where(rng.random(n) < 0.2, np.where(side > 0, "LONG", "SHORT"), "HOLD")
    labels = {"confidence": confidence, "amd_phase": "neutral", "killzone": "none"}
    return bars, pd.DataFrame({"action": action, "entry_price": close, **levels, **labels})


def test_blocks_are_neighbours_and_every_trade_is_drawn_as_often():
    drawn = draw_blocks(np.random.default_rng(1), 30, 4000, 5)
    assert drawn.shape == (4000, 30)
    assert ((np.diff(drawn.reshape(4000, 6, 5), axis=2) % 30) == 1).all()
    counts = np.bincount(drawn.ravel(), minlength=30)
    assert np.abs(counts / 4000 - 1).max() < 0.1
    assert [block_length(n) for n in (1, 8, 9, 27, 1000)] == [1, 2, 3, 3, 10]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30))
def test_a_path_is_reckoned_as_by_hand(values):
    total, fall, growth, drawdown, lowest = path_figures(np.array([values]), 1 + 0.1 * np.array([values]))[0]
    assert total == pytest.approx(sum(values), abs=1e-9)
    assert fall == pytest.approx(drawdown_r(pd.Series(values)), abs=1e-9)
    equity, peak, deepest, least = 1.0, 1.0, 0.0, 1.0
    for value in values:
        equity *= 1 + 0.1 * value
        peak, least = max(peak, equity), min(least, equity)
        deepest = max(deepest, 1 - equity / peak)
    assert (growth, drawdown, lowest) == pytest.approx((equity - 1, deepest, least), abs=1e-9)


def test_drawn_totals_spread_as_the_standard_error_says():
    bars, signals = random_walk()
    result = simulate(bars, signals, Costs(fee_bps=1))
    drawn = monte_carlo(result, draws=4000, block=1)
    r = result.trades["r"]
    assert drawn.paths["total_r"].mean() == pytest.approx(r.sum(), abs=4 * r.std() * np.sqrt(len(r) / 4000))
    assert drawn.paths["total_r"].std() == pytest.approx(r.std() * np.sqrt(len(r)), rel=0.05)
    assert np.prod(growth_factors(result)) == pytest.approx(result.equity.iloc[-1] / 10_000)
    losing = drawn.probability()["loss"]
    assert losing == pytest.approx((drawn.paths["total_r"] <= 0).mean()) and 0 < losing < 1


def test_blocks_keep_streaks_together():
    r = np.tile(np.repeat([1.0, -1.0], 20), 10)
    times = pd.date_range("2024-01-01", periods=400, freq="1h", tz="UTC")
    streaks = backtest(trade_list(r, times, pnl=100 * r), equity_of([10_000] * 400, "1h"))
    torn, kept = (monte_carlo(streaks, block=block).paths["max_drawdown_r"].median() for block in (1, 20))
    assert kept > 1.5 * torn


def test_monte_carlo_in_parts_is_whole_and_the_same_by_seed(monkeypatch):
    from orbiquant.backtest import robustness

    result = simulate(*random_walk(), Costs())
    first = monte_carlo(result).paths
    assert first.equals(monte_carlo(result).paths) and not first.equals(monte_carlo(result, seed=8).paths)
    monkeypatch.setattr(robustness, "_CELLS", 1000)
    parts = monte_carlo(result).paths
    assert len(parts) == len(first) and parts.notna().all(axis=None)


@pytest.mark.parametrize("terms", [{"draws": 0}, {"block": 0}])
def test_draws_of_nothing_are_refused(terms):
    result = simulate(*random_walk(), Costs())
    with pytest.raises(DataError, match="`draws` and `block` must be at least 1"):
        monte_carlo(result, **terms)


def test_costs_are_scaled_and_the_backtest_is_run_again():
    bars, signals = random_walk()
    result = simulate(bars, signals, Costs(fee_bps=2, slippage_bps=1), max_holding_bars=30, risk_from="fill")
    table = cost_sensitivity(bars, signals, result)
    assert list(table.index) == [0, 0.5, 1, 2]
    assert table.loc[1, "total_r"] == pytest.approx(result.trades["r"].sum())
    free = simulate(bars, signals, Costs(), max_holding_bars=30, risk_from="fill").trades
    assert table.loc[0, "total_r"] == pytest.approx(free["r"].sum()) and table.loc[0, "cost_r"] == 0
    assert table.loc[2, "cost_r"] == pytest.approx(2 * table.loc[1, "cost_r"], rel=0.02)
    assert result.costs_in_r["median"] == pytest.approx(6e-4 / 0.005, rel=0.05)


def test_multiples_that_no_cost_can_have_are_left_out():
    bars, signals = random_walk()
    result = simulate(bars, signals, Costs(fee_bps=2600, slippage_bps=1), max_holding_bars=30)
    assert list(cost_sensitivity(bars, signals, result).index) == [0, 0.5, 1]
    nothing = cost_sensitivity(bars, signals, result, scales=(2.0,))
    assert nothing.empty and list(nothing) == list(cost_sensitivity(bars, signals, result))


def test_wilson_against_known_values_and_gain_share_by_hand():
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2130), abs=1e-4)
    assert wilson_interval(50, 100) == pytest.approx((0.4188, 0.5812), abs=1e-4)
    assert np.isnan(wilson_interval(0, 0)).all() and np.isnan(gain_share(np.array([])))
    assert gain_share(np.array([[2.0, -1.0, -1.0], [0, 0, 0]])) == pytest.approx([0.5, np.nan], nan_ok=True)
    assert np.isnan(share_interval(np.ones(LEAST_BOOTSTRAP - 1), 1)).all()


def test_true_confidence_is_called_true_and_a_boast_is_not():
    rng = np.random.default_rng(3)
    stated = rng.uniform(0.6, 0.8, 3000)
    p = stated / (stated + 2 * (1 - stated))  # share of gains at two to one
    r = np.where(rng.random(3000) < p, 2.0, -1.0)
    times = pd.date_range("2024-01-01", periods=3000, freq="1h", tz="UTC")
    trades = trade_list(r, times, confidence=stated, r_gross=r)
    honest = reliability(trades)
    assert honest["trades"].iloc[:-1].sum() == honest.loc["all", "trades"] == 3000
    assert honest.loc["all", "true"] and honest["true"].sum() >= len(honest) - 1
    assert honest.loc["all", "realised"] == pytest.approx(stated.mean(), abs=0.03)
    boast = reliability(trades.assign(confidence=stated + 0.15))
    assert not boast["true"].any()
    assert reliability(trades.assign(confidence=np.nan)).loc["all", "trades"] == 0


def test_everything_of_a_backtest_is_json_whatever_its_length():
    bars, signals = random_walk(confidence=0.63)
    for rows in (signals, signals.iloc[:30], signals.assign(action="HOLD"), signals.drop(columns="confidence")):
        result = simulate(bars, rows, Costs(fee_bps=1))
        found = json.loads(json.dumps(examine_trades(bars, rows, result), allow_nan=False, default=lambda x: x.item()))
        count = len(result.trades)
        assert sum(row["trades"] for row in found["by_phase"]) == count
        assert found["cost_sensitivity"][2]["trades"] == count
        assert found["monte_carlo"]["draws"] == (2000 if count >= LEAST_BOOTSTRAP else 0)
        drawn = found["monte_carlo"]["quantiles"]["total_r"]["50%"]
        assert (drawn is None) == (count < LEAST_BOOTSTRAP)
