"""Metrics: against independent formulas, on edges, and never infinite."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.backtest.metrics import (
    by_group,
    confidence_bucket,
    daily_returns,
    drawdown_r,
    json_figures,
    money_figures,
    monthly,
    r_figures,
    summarise,
)
from orbiquant.backtest.simulate import BacktestResult, simulate
from orbiquant.core import DataError
from orbiquant.domain import Costs


def trade_list(r, times=None, **columns):
    r = np.asarray(r, dtype=float)
    times = times if times is not None else pd.date_range("2024-01-15", periods=len(r), freq="1D", tz="UTC")
    table = {"exit_time": times, "side": 1, "confidence": 0.62, "r": r, "r_gross": r + 0.1, "cost_r": 0.1, "bars": 2}
    return pd.DataFrame(table | columns)


def backtest(trades, equity):
    return BacktestResult(trades, equity, {"in position": 3}, Costs(), 0.01, 10_000.0, None, {})


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
    text = json.dumps(json_figures(nothing), allow_nan=False)
    assert json.loads(text)["win_rate"] is None
    ruined = money_figures(equity_of([10_000, 0, 0, 0]), 10_000)
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
