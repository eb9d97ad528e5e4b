"""Charts: what is drawn is what was given, however much or little of it there is."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from orbiquant import charts
from orbiquant.cards import shown
from orbiquant.core import DataError


def random_bars(n, freq="1h", seed=0):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=n, freq=freq, tz="UTC", name="time")
    close = pd.Series(100 * np.exp(rng.normal(0, 0.002, n).cumsum()), index)
    opened = close.shift(fill_value=100.0)
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.0})


def random_trades(bars, n, seed=1):
    rng = np.random.default_rng(seed)
    entry = np.sort(rng.choice(len(bars) - 10, n, replace=False))
    leave = entry + rng.integers(0, 9, n)
    return pd.DataFrame(
        {
            "entry_time": bars.index[entry],
            "exit_time": bars.index[leave],
            "side": rng.choice([1, -1], n),
            "entry": bars["open"].to_numpy()[entry],
            "exit": bars["close"].to_numpy()[leave],
            "exit_reason": "time",
            "r": rng.normal(0, 1, n),
        }
    )


def random_phases(bars, seed=2):
    names = ["neutral", "accumulation", "manipulation", "distribution", "invalidated"]
    return pd.DataFrame({"phase": np.random.default_rng(seed).choice(names, len(bars))}, bars.index)


def drawn(figure):
    json.loads(figure.to_json())
    return {trace.name: trace for trace in figure.data}


def said(figure):
    """Return a title's text without its marks."""
    return re.sub("<[^>]+>", " ", figure.layout.title.text)


@pytest.mark.parametrize("n", [1, 2, 499, 500, 501, 4999, 5000, 5001])
def test_joined_bars_lose_no_extreme(n):
    bars = random_bars(n)
    candles, size = charts.join_bars(bars, most=500)
    assert len(candles) <= 500 and size == -(-n // 500) and candles.index.is_unique
    assert candles["high"].max() == bars["high"].max() and candles["low"].min() == bars["low"].min()
    assert candles["open"].iloc[0] == bars["open"].iloc[0] and candles["close"].iloc[-1] == bars["close"].iloc[-1]
    labels = charts.candle_of(bars.index, candles)
    assert list(labels) == list(np.repeat(charts.labels_of(candles), size)[:n])


def test_every_trade_and_signal_in_view_is_drawn():
    bars = random_bars(3000, "15min")
    trades, view = random_trades(bars, 200), bars.iloc[1000:2000]
    signals = pd.DataFrame({"action": np.resize(["LONG", "HOLD", "SHORT"], 3000), "entry_price": bars["close"]})
    traces = drawn(charts.price_chart(view, signals, trades, random_phases(bars)))
    seen = trades[trades["entry_time"].between(view.index[0], view.index[-1])]
    assert len(traces["long"].x) + len(traces["short"].x) == len(traces["gain"].x) + len(traces["loss"].x) == len(seen)
    assert len(traces["long signal"].x) == (signals.loc[view.index, "action"] == "LONG").sum()
    assert len(traces["trade"].x) == 3 * len(seen)
    assert set(traces["gain"].x) <= set(traces["price"].x)
    phases = ("accumulation", "manipulation", "distribution", "invalidated")
    neutral = (random_phases(bars).loc[view.index, "phase"] == "neutral").sum()
    assert sum(len(traces[phase].x) for phase in phases) == len(view) - neutral
    assert all(traces[phase].visible is True for phase in phases)


def test_a_long_history_is_joined_and_says_so():
    bars = random_bars(30_000, "5min")
    figure = charts.price_chart(bars, trades=random_trades(bars, 300), phases=random_phases(bars), title="A · 5m")
    traces = drawn(figure)
    assert figure.layout.title.text.startswith("A · 5m<br>") and "each candle joins 20 bars" in said(figure)
    assert len(traces["price"].x) == 1500 and traces["accumulation"].visible == "legendonly"
    assert len(figure.to_json()) < 400_000
    assert max(traces["price"].high) == pytest.approx(bars["high"].max(), abs=0.01)


def test_gaps_take_no_room():
    bars = random_bars(300)
    week = bars[bars.index.day_of_week < 5]
    figure = charts.price_chart(week)
    assert figure.layout.xaxis.type == "category"
    assert list(drawn(figure)["price"].x) == list(week.index.strftime("%Y-%m-%d<br>%H:%M"))


def test_equity_keeps_its_last_value_and_deepest_fall():
    rng = np.random.default_rng(4)
    times = pd.date_range("2024-01-01", periods=20_001, freq="5min", tz="UTC")
    equity = pd.Series(10_000 * np.exp(rng.normal(0, 0.001, len(times)).cumsum()), times)
    traces = drawn(charts.equity_chart(equity))
    assert len(traces["equity"].x) <= 1500
    assert traces["equity"].y[-1] == round(equity.iloc[-1], 2)
    assert min(traces["drawdown"].y) == pytest.approx(100 * (equity / equity.cummax() - 1).min(), abs=0.001)


@pytest.mark.parametrize("r", [[0.0], [-1.0, -1.0], [2.0], [-25.3, 0.2, 3.999, 4.0], list(np.linspace(-3, 3, 97))])
def test_every_result_is_in_the_histogram(r):
    figure = charts.r_chart(pd.DataFrame({"r": r}))
    traces = drawn(figure)
    assert sum(traces["loss"].y) == sum(value <= 0 for value in r)
    assert sum(traces["gain"].y) == sum(value > 0 for value in r)
    assert f"mean {shown(np.mean(r), '+.2f')}" in said(figure) and figure.layout.shapes[0].x0 == pytest.approx(
        np.mean(r)
    )


def test_months_are_labelled_with_their_total():
    table = pd.DataFrame([[np.nan, 1.0], [-2.0, 0.0]], index=[2023, 2024], columns=["Jan", "Feb"])
    trace = charts.monthly_chart(table.assign(total=[1.0, -2.0])).data[0]
    assert list(trace.y) == ["2023<br>+1.0 R", "2024<br>−2.0 R"] and trace.zmax == 2 == -trace.zmin
    assert trace.text[0][0] == "" and trace.text[1][0] == "−2.0"
    flat = pd.DataFrame([[0.0]], index=[2023], columns=["Jan"]).assign(total=0.0)
    assert charts.monthly_chart(flat).data[0].zmax == 1


def test_a_skill_whose_interval_holds_zero_is_no_win():
    skill = pd.DataFrame(
        {
            "target": ["a", "b", "c", "d"],
            "metric": "pinball_bps",
            "skill": [0.1, -0.2, 0.05, 0.3],
            "low": [0.02, -0.3, -0.01, np.nan],
            "high": [0.2, -0.1, 0.1, np.nan],
        }
    )
    figure = charts.skill_chart(skill)
    traces = drawn(figure)
    assert {name: list(trace.y) for name, trace in traces.items()} == {
        "better than the baseline": ["a · pinball loss"],
        "worse than the baseline": ["b · pinball loss"],
        "not shown": ["c · pinball loss", "d · pinball loss"],
    }
    assert traces["better than the baseline"].marker.color == charts.BLUE != traces["not shown"].marker.color
    assert "1 of 4 rows better beyond doubt" in said(figure)
    assert list(traces["better than the baseline"].error_x.arrayminus) == [8.0]
    assert "skill +10.0 %<br>90 % interval +2.0 to +20.0 %" in traces["better than the baseline"].text[0]
    bare = drawn(charts.skill_chart(skill[["target", "metric", "skill"]]))
    assert set(bare) == {"not shown"}, "without an interval nothing is shown"


def test_reliability_is_near_the_diagonal_when_it_should_be():
    rng = np.random.default_rng(6)
    told = pd.Series(rng.uniform(0.1, 0.9, 20_000))
    came = pd.Series((rng.random(20_000) < told).astype(float)).mask(rng.random(20_000) < 0.1)
    traces = drawn(charts.reliability_chart(told, came))
    curve = traces["model"]
    assert np.abs(np.asarray(curve.x) - np.asarray(curve.y)).max() < 0.05
    assert sum(curve.customdata) == came.notna().sum() == sum(traces["model, rows"].y)
    assert min(curve.error_y.array) > 0 and min(curve.error_y.arrayminus) > 0
    constant = drawn(charts.reliability_chart(pd.Series([0.3] * 50), pd.Series([1.0, 0.0] * 25)))["model"]
    assert np.allclose(constant.x, 0.3)
    assert len(drawn(charts.reliability_chart(pd.Series([0.4]), pd.Series([1.0])))["model"].x) == 1
    with pytest.raises(DataError, match="equally long"):
        charts.reliability_chart(told, came.iloc[:5])


def test_nothing_to_draw_is_said():
    bars, trades = random_bars(40), random_trades(random_bars(40), 3)
    none = pd.Series(dtype=float)
    for figure in (
        charts.calibration_chart(pd.DataFrame(columns=["predicted", "observed", "rows"])),
        charts.importance_chart(pd.DataFrame()),
        charts.contribution_chart(pd.DataFrame({"a": [0.0, 0.0]})),
        charts.fold_chart(pd.DataFrame(columns=["fold", "train_start", "train_end", "test_start", "test_end"])),
        charts.sweep_chart(pd.DataFrame(columns=["stop_atr", "risk_reward", "expectancy_r", "trades"])),
        charts.edge_chart(pd.DataFrame(columns=["policy", "mean_r", "standard_error_r"])),
        charts.chance_chart({}, pd.DataFrame()),
        charts.price_chart(bars.iloc[:0]),
        charts.equity_chart(none),
        charts.r_chart(trades.iloc[:0]),
        charts.monthly_chart(pd.DataFrame(columns=["Jan", "total"])),
        charts.skill_chart(pd.DataFrame(columns=["target", "metric", "skill"])),
        charts.reliability_chart(none, none),
    ):
        assert isinstance(figure, go.Figure) and not figure.data and figure.layout.annotations[0].text
    later = random_trades(bars, 3).assign(entry_time=bars.index[-1] + pd.Timedelta(days=9))
    quiet = charts.price_chart(bars, trades=later, phases=random_phases(bars).iloc[:0])
    assert [trace.name for trace in quiet.data] == ["price"]


def test_one_bar_is_a_chart():
    bars = random_bars(1)
    phases = pd.DataFrame({"phase": ["accumulation"]}, bars.index)
    assert {trace.name for trace in charts.price_chart(bars, phases=phases).data} == {"accumulation", "price"}


def test_plotly_loads_only_when_something_is_drawn():
    code = "import sys, orbiquant.charts.prices, orbiquant.charts.learning; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
