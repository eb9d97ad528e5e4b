"""Charts: what is drawn is what was given, however much or little of it there is."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import orbiquant as oq
from orbiquant import charts
from orbiquant.cards import shown
from orbiquant.core import DataError, OptionError
from orbiquant.features.ict import key_levels
from orbiquant.features.sessions import killzones
from orbiquant.market.synthetic import synthetic_market

FIXTURES = Path(__file__).parent / "fixtures" / "models"
TIME = pd.DatetimeIndex(["2024-01-01"], tz="UTC")


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
        "undecided": ["c · pinball loss", "d · pinball loss"],
    }
    assert traces["better than the baseline"].marker.color == charts.BLUE != traces["undecided"].marker.color
    assert "1 of 4 figures better beyond doubt" in said(figure)
    assert list(traces["better than the baseline"].error_x.arrayminus) == [8.0]
    assert "skill +10.0 %<br>90 % interval +2.0 to +20.0 %" in traces["better than the baseline"].text[0]
    bare = drawn(charts.skill_chart(skill[["target", "metric", "skill"]]))
    assert set(bare) == {"undecided"}, "without an interval nothing is shown"


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


# --- one visual language ---

DEUTERANOPIA = np.array([[0.625, 0.375, 0.0], [0.7, 0.3, 0.0], [0.0, 0.3, 0.7]])  # a common linear approximation
PROTANOPIA = np.array([[0.567, 0.433, 0.0], [0.558, 0.442, 0.0], [0.0, 0.242, 0.758]])


def rgb(colour):
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], float)


@pytest.mark.parametrize("seen", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deuteranopia", "protanopia"])
def test_colours_that_mean_something_are_told_apart_by_every_eye(seen):
    pairs = ((charts.BLUE, charts.ORANGE), (charts.GREEN, charts.ORANGE), (charts.BLUE, charts.GREY))
    for one, other in pairs:
        assert np.linalg.norm(seen @ (rgb(one) - rgb(other))) > 40, (one, other)


def everything(bars, **look):
    events = oq.ict_events(bars)
    signals = pd.DataFrame({"action": np.resize(["LONG", "HOLD", "SHORT"], len(bars)), "confidence": 0.6}, bars.index)
    signals = signals.assign(stop_loss=bars["close"] * 0.99, take_profit=bars["close"] * 1.02)
    zones = pd.Series(np.resize(["asia"] * 5 + ["none"] * 7, len(bars)), bars.index)
    shading = {"phases": random_phases(bars), "sessions": zones, "levels": {"support": [bars["low"].min()]}}
    return charts.price_chart(bars, signals, random_trades(bars, 9), events=events, **shading, **look)


def test_light_and_dark_differ_in_ink_and_paper_only():
    bars = random_bars(300)
    drawn_in = {name: everything(bars, theme=name).to_plotly_json() for name in charts.THEMES}
    inks = {charts.THEMES[name].ink: "ink" for name in charts.THEMES}
    for name, figure in drawn_in.items():
        text = json.dumps(figure, default=lambda each: np.asarray(each).tolist())
        text = text.replace(charts.THEMES[name].ink, "ink").replace(figure["layout"]["paper_bgcolor"], "paper")
        assert not any(ink in text for ink in inks)
        drawn_in[name] = text.replace("rgba(0,0,0,0)", "paper")
    assert drawn_in["auto"] == drawn_in["light"] == drawn_in["dark"]


@pytest.mark.parametrize("theme", ["Dark", "", None])
def test_a_theme_there_is_not_is_refused_by_name(theme):
    with pytest.raises(OptionError, match="`theme` must be one of auto, light, dark"):
        charts.price_chart(random_bars(3), theme=theme)


def test_titles_and_legends_fit_a_phone():
    long = "EURUSD 1h, balanced_filter: the equity of a policy with a long name beside everything else"
    figure = charts.equity_chart(pd.Series([1.0, 2.0], pd.date_range("2024", periods=2, tz="UTC")), long)
    lines = figure.layout.title.text.split("<br>")
    assert len(lines) > 1 and max(map(len, lines)) <= 42 and " ".join(lines) == long
    legend = figure.layout.legend
    assert (legend.orientation, legend.yref, legend.yanchor) == ("h", "container", "bottom"), "it grows upwards"
    assert figure.layout.margin.t > charts.style(go.Figure(), "short").layout.margin.t


# --- prices ---


def test_what_was_found_is_drawn_from_the_tables_as_they_are():
    bars = synthetic_market(1200, "1h", seed=7).bars
    events, phases = oq.ict_events(bars), oq.detect_phases(bars)
    view = bars.iloc[-400:]
    zones, levels = killzones(bars.index), key_levels(bars)
    traces = list(charts.price_chart(view, events=events, phases=phases, sessions=zones, levels=levels).data)
    names = {trace.name for trace in traces}
    assert {"fair value gap", "order block", "BOS", "CHOCH", "sweep", "swing", "asia", "london open"} <= names
    shown_in_legend = [trace.name for trace in traces if trace.showlegend is not False]
    assert len(shown_in_legend) == len(set(shown_in_legend)), "one entry a kind"
    breaks = [t for t in traces if t.name == "BOS" and t.mode == "markers+text"]
    within = events[(events["kind"] == "bos") & (events["event_time"] >= view.index[0])]
    low, high = view["low"].min(), view["high"].max()
    near = within["price_high"].ge(low) & within["price_low"].le(high)
    assert sum(len(trace.x) for trace in breaks) == near.sum() > 0


def test_a_gap_is_a_box_from_when_it_was_known_until_it_was_touched():
    bars = random_bars(60)
    at, price = bars.index, float(bars["close"].iloc[30])
    gap = {"kind": "fair_value_gap", "direction": 1, "origin_time": at[9], "event_time": at[10], "known_time": at[11]}
    gap |= {"price_low": price, "price_high": price * 1.001, "mitigated_time": at[30], "ended_time": at[40]}
    later = gap | {"origin_time": at[57], "event_time": at[58], "known_time": at[59] + pd.Timedelta(hours=1)}
    figure = charts.price_chart(bars, events=pd.DataFrame([gap, later]))
    box = next(trace for trace in figure.data if trace.type == "scatter" and trace.fill == "toself")
    labels = charts.labels_of(bars)
    assert list(box.x) == [labels[11], labels[30], labels[30], labels[11], labels[11], None], "one box, not two"
    assert box.y[0] == pytest.approx(price, abs=1e-4) and box.y[2] == pytest.approx(price * 1.001, abs=1e-4)


def test_a_zone_far_from_the_prices_does_not_flatten_them():
    bars = random_bars(100)
    far = {"kind": "order_block", "direction": 1, "origin_time": bars.index[0], "event_time": bars.index[1]}
    far |= {"known_time": bars.index[2], "price_low": 1.0, "price_high": 2.0, "mitigated_time": pd.NaT}
    figure = charts.price_chart(bars, events=pd.DataFrame([far | {"ended_time": pd.NaT}]), levels={"support": [1.0]})
    low, high = figure.layout.yaxis.range
    assert [trace.name for trace in figure.data] == ["price"] and low > bars["low"].min() * 0.95 and high > low


def test_stops_and_targets_of_signals_are_inside_the_chart():
    bars = random_bars(200)
    at = bars.index[[20, 150]]
    close = bars["close"].loc[at]
    plan = {"side": [1, -1], "stop_loss": close * [0.97, 1.03], "take_profit": close * [1.06, 0.94]}
    traces = drawn(figure := charts.price_chart(bars, pd.DataFrame(plan, at)))
    assert set(traces["stop"].y) - {None} == set(plan["stop_loss"]) and len(traces["target"].y) == 6
    low, high = figure.layout.yaxis.range
    assert low <= min(plan["take_profit"]) and max(plan["take_profit"]) <= high
    assert f"stop {close.iloc[0] * 0.97:.3f}" in traces["long signal"].text[0]
    with_trades = drawn(charts.price_chart(bars, pd.DataFrame(plan, at), random_trades(bars, 5)))
    assert "stop" not in with_trades, "trades show their own levels, and these have none"


def test_two_hundred_thousand_bars_stay_usable_and_nothing_is_left_out_silently():
    bars = random_bars(200_000, "5min")
    signals = pd.DataFrame({"side": np.resize([1, -1], 5000)}, bars.index[::40])
    started = time.perf_counter()
    figure = charts.price_chart(
        bars, signals, random_trades(bars, 4000), random_phases(bars), events=oq.ict_events(bars.iloc[:3000])
    )
    assert time.perf_counter() - started < 20
    assert len(figure.to_json()) < 1_000_000 and len(drawn(figure)["price"].x) <= 1500
    for note in ("each candle joins 134 bars", "ICT is drawn on up to 6,000 bars", "the last 1,000 of 5,000 signals",
                 "the last 1,000 of 4,000 trades", "shading is switched on in the legend"):  # fmt: skip
        assert note in re.sub(r"\s+", " ", said(figure)), note


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"signals": pd.DataFrame({"price": [1.0]}, TIME)}, "`signals` must have `action` or `side`"),
        ({"signals": pd.DataFrame({"side": [1]})}, "`signals` must have an index of times in UTC, was int64"),
        ({"signals": pd.DataFrame({"side": [1]}, TIME.tz_localize(None))}, "`signals` .* was without a zone"),
        ({"trades": pd.DataFrame({"r": [1.0]})}, "`trades` must have the columns entry_time, had r"),
        ({"phases": pd.DataFrame({"x": [1]}, TIME)}, "`phases` must have the columns phase, had x"),
        ({"events": pd.DataFrame({"kind": ["bos"]})}, "`events` must have the columns direction"),
        ({"levels": [1.0]}, "`levels` must be names with their prices, was list"),
        ({"bars": pd.DataFrame({"open": [1.0]})}, "`bars` must have the columns high, low, close, had open"),
        ({"bars": "EURUSD"}, "`bars` must be a DataFrame, was str"),
        ({"most": 0}, "`most` must be at least 1 candle, was 0"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused_by_the_name_of_its_parameter(given, words):
    with pytest.raises(DataError, match=words):
        charts.price_chart(**{"bars": random_bars(5)} | given)


# --- equity, models, sweeps ---


def test_equity_stands_beside_holding_and_chance():
    times = pd.date_range("2024-01-01", periods=5000, freq="h", tz="UTC")
    equity, hold = pd.Series(np.linspace(100, 120, 5000), times), pd.Series(np.linspace(100, 90, 5000), times)
    band = pd.DataFrame({0.05: equity - 30, 0.5: equity, 0.95: equity + 30})
    figure = charts.equity_chart(equity, beside={"buy and hold": hold}, band=band, unit="USD")
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert names == ["random entries, 5 % to 95 %", "their median", "buy and hold", "equity"]
    assert figure.layout.yaxis.title.text == "USD" and figure.layout.yaxis2.title.text == "below peak, %"
    assert min(drawn(figure)["buy and hold, drawdown"].y) == pytest.approx(-10)
    with pytest.raises(DataError, match="`band` must have two columns or more"):
        charts.equity_chart(equity, band=band[[0.5]])
    with pytest.raises(DataError, match=r"`beside\['x'\]` must be a table by time, was list"):
        charts.equity_chart(equity, beside={"x": [1.0]})


def test_a_sweep_shows_the_middle_of_its_neighbours_and_not_their_best():
    rows = [(a, b, c, r) for a in (1.0, 2.0) for b in (1.0, 3.0) for c, r in ((12, -0.1), (24, 0.0), (None, 5.0))]
    table = pd.DataFrame(rows, columns=["stop_atr", "risk_reward", "max_holding_bars", "expectancy_r"])
    table = table.assign(trades=40, filter="all", min_confidence=0.6)
    figure = charts.sweep_chart(table)
    assert np.allclose(np.array(figure.data[0].z), 0.0) and "each cell the median of 3" in said(figure)
    held = charts.sweep_chart(table, x="max_holding_bars", y="stop_atr").data[0]
    assert list(held.x) == ["12", "24", "none"] and np.allclose(np.array(held.z)[0], [-0.1, 0.0, 5.0])
    with pytest.raises(OptionError, match="`x` must be one of"):
        charts.sweep_chart(table, x="stop")
    with pytest.raises(DataError, match="`table` must have the columns sharpe"):
        charts.sweep_chart(table, "sharpe")


def test_contributions_are_ranked_bounded_and_coloured_by_the_features_own_value():
    rng = np.random.default_rng(5)
    values = pd.DataFrame(rng.normal(size=(50_000, 3)), columns=["weak", "strong", "none"])
    moved = values * [0.1, -1.0, 0.0]
    bars = charts.importance_chart(moved).data[0]
    assert list(bars.y) == ["strong", "weak"] and bars.x[0] > bars.x[1] > 0
    figure = charts.contribution_chart(moved, values)
    strong = figure.data[0]
    assert len(strong.x) == 300 and len(figure.to_json()) < 60_000
    assert np.corrcoef(strong.x, strong.marker.color)[0, 1] < -0.9
    assert "300 of 50,000 predictions" in said(figure)
    assert charts.contribution_chart(moved).data[0].marker.color == charts.BLUE


def test_folds_show_train_gap_and_test_and_what_failed():
    folds = pd.read_parquet(next(FIXTURES.glob("*/*/folds.parquet")))
    traces = drawn(charts.fold_chart(folds))
    assert list(traces) == ["train", "gap", "test"]
    hour = pd.Timedelta(hours=1) / pd.Timedelta(milliseconds=1)
    assert traces["test"].x[0] == (folds["test_end"] - folds["test_start"]).iloc[0] / pd.Timedelta(milliseconds=1)
    assert traces["gap"].x[0] >= hour and "1,001 rows" in traces["train"].customdata[0]
    failed = drawn(charts.fold_chart(folds.assign(error="ModelError: <one> class")))["failed"]
    assert failed.y == (f"fold {folds['fold'].iloc[0]}",)


def test_the_kept_tables_of_a_model_are_drawn_as_they_are():
    skill = pd.read_parquet(next(FIXTURES.glob("*/*/skill.parquet")))
    figure = charts.skill_chart(skill)
    assert sum(len(trace.x) for trace in figure.data) == len(skill) and "0 of 14 figures better" in said(figure)
    reliability = pd.read_parquet(next(FIXTURES.glob("*/*/reliability.parquet")))
    traces = drawn(charts.calibration_chart(reliability))
    own = reliability[(reliability["kind"] == "probability") & (reliability["regime"] == "all")]
    assert {"long", "short"} <= set(traces) and len(traces["long"].x) == (own["target"] == "long").sum()


def test_chance_is_a_heap_and_what_was_observed_a_mark():
    draws = pd.DataFrame({"a": np.linspace(-1, 1, 2000)})
    heap, mark = charts.chance_chart({"a": 0.9}, draws).data
    assert len(heap.x) == 400 and mark.x == (0.9,) and "5% of draws reach it" in mark.hovertemplate
    table = pd.DataFrame({"policy": ["x", "y"], "mean_r": [0.5, 0.1], "standard_error_r": 0.1})
    points = charts.edge_chart(table, against=0.0).data[0]
    assert list(points.marker.symbol) == ["circle", "circle-open"], "within two standard errors is no edge"
