"""Drift: what changed is found and named, what is usual is not, and little data says nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError
from orbiquant.models.drift import (
    DRIFT_COLUMNS,
    MIN_BARS,
    Sketch,
    bins_of,
    compare_column,
    drift_report,
    shape_of,
    sketch_of,
    stability,
    worst_lines,
)


def market(rows: int, seed: int, **changes):
    """Return features, predictions and labels of one made-up market, some of its columns replaced."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=rows, freq="15min", tz="UTC")
    features = {
        "noise": rng.normal(size=rows), "flag": (rng.random(rows) < 0.3).astype(float), "constant": np.ones(rows),
        "holes": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
    }  # fmt: skip
    p = pd.DataFrame(rng.beta(30, 60, size=(rows, 2)), times, ["p_long", "p_short"])
    won = pd.DataFrame((rng.random((rows, 2)) < p).to_numpy(dtype=float), times, ["long", "short"])
    changed = {name: change(rng, rows) for name, change in changes.items() if name in features}
    return pd.DataFrame(features | changed, times), p, won


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    return sketch_of(*market(20_000, 1), horizon=1)


def status(report) -> dict[str, str]:
    """Return the status of each column that is not stable."""
    lines = report.table[~report.table["status"].isin(["stable"])]
    return dict(zip(lines["name"], lines["status"], strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_more_of_the_same_is_stable(sketch, seed):
    report = drift_report(sketch, *market(1_500, 10 + seed))
    assert set(status(report).values()) <= {"watch"} and "drifted" not in report.verdict
    assert list(report.table) == DRIFT_COLUMNS and (report.table.query("kind == 'feature'")["psi"] < 0.1).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("noise", lambda rng, n: rng.normal(1.5, size=n)),
        ("noise", lambda rng, n: 3 * rng.normal(size=n)),
        ("flag", lambda rng, n: np.zeros(n)),
        ("flag", lambda rng, n: np.full(n, 7.0)),
        ("constant", lambda rng, n: np.full(n, 2.0)),
        ("holes", lambda rng, n: np.full(n, np.nan)),
        ("noise", lambda rng, n: np.full(n, np.inf)),
    ],
)
def test_a_column_that_changed_is_named(sketch, name, change):
    report = drift_report(sketch, *market(1_500, 20, **{name: change}))
    assert {column for column, found in status(report).items() if found == "drifted"} == {name}
    assert name in report.verdict and worst_lines(report, 1)["name"].tolist() == [name]


def test_a_shift_has_a_small_p_value_and_sameness_a_large_one(sketch):
    lines = {
        shift: drift_report(sketch, *market(1_500, 30, noise=lambda rng, n, by=shift: rng.normal(by, size=n))).table
        for shift in (0.0, 0.5)
    }
    p = {shift: table.set_index("name").loc["noise", "p"] for shift, table in lines.items()}
    assert p[0.0] > 0.01 and p[0.5] < 1e-6


def test_neighbours_that_share_their_bars_count_less(sketch):
    wide = sketch.model_copy(update={"horizon": 50})
    tables = [
        drift_report(s, *market(1_500, 31, noise=lambda rng, n: rng.normal(0.2, size=n))).table for s in (sketch, wide)
    ]
    narrow_p, wide_p = (table.set_index("name").loc["noise", "p"] for table in tables)
    assert narrow_p < wide_p


def test_probabilities_that_no_longer_come_true_are_found(sketch):
    features, p, won = market(3_000, 40)
    lied = won.assign(long=0.0)
    lines = drift_report(sketch, features, p, lied).table.set_index(["kind", "name"])["status"]
    assert lines["label", "long"] == lines["calibration", "long"] == "drifted"
    assert lines["label", "short"] != "drifted" and lines["calibration", "short"] != "drifted"


def test_open_labels_say_nothing(sketch):
    features, p, won = market(500, 41)
    lines = drift_report(sketch, features, p, won * np.nan).table.set_index(["kind", "name"])["status"]
    assert (lines.loc[["label", "calibration"]] == "too few").all()


@pytest.mark.parametrize("rows", [0, 1, MIN_BARS - 1])
def test_too_few_bars_are_no_verdict(sketch, rows):
    report = drift_report(sketch, *market(rows, 50))
    assert report.table.empty and report.counts == {}
    assert report.verdict == f"no verdict: {rows} newer bars, {MIN_BARS} are needed"


def test_a_missing_feature_is_named(sketch):
    features, p, won = market(500, 51)
    with pytest.raises(ModelError, match="'noise', it is missing"):
        drift_report(sketch, features.drop(columns="noise"), p, won)


def test_what_was_usual_is_not_news():
    """A volatility that comes in spells differs from its whole in every stretch: its own past is the measure."""
    rng = np.random.default_rng(7)
    spells = np.exp(np.repeat(rng.normal(size=60), 500) + 0.2 * rng.normal(size=30_000))
    shape = shape_of(spells)
    assert shape.usual_over(500) > 0.25
    counts = np.bincount(bins_of(spells[:500], shape.quantiles, ()), minlength=len(shape.shares))
    assert float(stability(np.array(shape.shares), counts / 500)) > 0.25


def test_an_empty_column_has_no_shape():
    with pytest.raises(ModelError, match="at least one row"):
        shape_of(np.empty(0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.just(float("nan"))), min_size=1, max_size=300),
    st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.just(float("nan"))), min_size=1, max_size=50),
)
def test_shapes_hold_any_column(then, now):
    shape = shape_of(np.array(then))
    assert sum(shape.shares) == pytest.approx(1)
    assert all(np.isfinite(usual) and usual >= 0 for usual in shape.usual.values())
    bins = bins_of(np.array(now), shape.quantiles, shape.values)
    assert bins.min() >= 0 and bins.max() < len(shape.shares)
    own = np.bincount(bins_of(np.array(then), shape.quantiles, shape.values), minlength=len(shape.shares)) / len(then)
    assert float(stability(np.array(shape.shares), own)) == pytest.approx(0, abs=1e-9)


def test_a_period_that_the_sample_beats_with_is_seen_whole(monkeypatch):
    monkeypatch.setattr("orbiquant.models.drift.SKETCH_ROWS", 1_000)
    hours = np.sin(np.arange(4_000) % 48)  # every fourth row: twelve values
    shape = shape_of(hours)
    assert shape.quantiles and shape.shares[-1] == 0


def test_a_column_that_comes_alive_has_drifted(sketch):
    dead = sketch_of(*market(20_000, 1, noise=lambda rng, n: np.full(n, np.nan)), horizon=1)
    assert status(drift_report(dead, *market(1_500, 10)))["noise"] == "drifted"


def test_values_never_seen_are_not_missing(sketch):
    line = (
        drift_report(sketch, *market(1_500, 10, flag=lambda rng, n: np.full(n, 2.0)))
        .table.set_index("name")
        .loc["flag"]
    )
    assert (line["missing_now"], line["status"]) == (0, "drifted")


def spells(rows: int, seed: int) -> pd.DataFrame:
    """Return thirty columns that all know one volatility, which comes in spells of a few days."""
    rng = np.random.default_rng(seed)
    level = pd.Series(rng.normal(size=rows)).ewm(halflife=60).mean().to_numpy()
    loud = np.exp(6 * level)[:, None] * np.exp(0.4 * rng.normal(size=(rows, 30)))
    return pd.DataFrame(loud, columns=[f"range_{number}" for number in range(30)])


SPELLS = spells(42_000, 7)


@pytest.fixture(scope="module")
def habit() -> Sketch:
    return sketch_of(SPELLS.iloc[:30_000], *market(30_000, 1)[1:], horizon=1)


def reports(habit: Sketch, features: pd.DataFrame, bars: int, count: int = 8) -> list:
    """Return the reports of so many windows of newer bars."""
    cuts = np.linspace(30_000, len(features) - bars, count).astype(int)
    return [drift_report(habit, features.iloc[cut : cut + bars], *market(bars, cut)[1:]) for cut in cuts]


@pytest.mark.parametrize("bars", [100, 150, 300, 500, 1_000, 1_500])
def test_newer_bars_of_the_same_market_are_stable_however_few(habit, bars):
    """Chance may show something in one report of twenty; two of eight would be more than that."""
    assert sum("drifted" in report.counts for report in reports(habit, SPELLS, bars)) <= 1


@pytest.mark.parametrize("bars", [100, 150, 300, 500, 1_000, 1_500])
def test_a_planted_change_is_found_however_few(habit, bars):
    planted = SPELLS.assign(range_7=0.0)
    for report in reports(habit, planted, bars):
        assert "range_7" in report.table.loc[report.table["status"] == "drifted", "name"].tolist()
        assert "range_7" in report.verdict


def test_shorter_stretches_are_further_from_the_whole(habit):
    usual = habit.features["range_0"].usual
    assert list(usual) == [100, 200, 500, 1_000, 2_000, 5_000]
    assert list(usual.values()) == sorted(usual.values(), reverse=True)
    shape = habit.features["range_0"]
    spans = {100: 100, 199: 100, 200: 200, 700: 500, 1_999: 1_000, 9_999: 5_000}
    assert [shape.usual_over(bars) for bars in spans] == [usual[length] for length in spans.values()]
    assert list(shape_of(SPELLS["range_0"].to_numpy()[:4_000]).usual) == [100, 200]
    assert list(shape_of(SPELLS["range_0"].to_numpy()[:60]).usual) == [60]


def test_a_long_span_is_held_against_spans_as_long():
    """A year half as loud again is less than a bad month shows, and more than any year did."""
    whole = spells(55_000, 3)
    habit = sketch_of(whole.iloc[:45_000], *market(45_000, 1)[1:], horizon=1)
    shape = habit.features["range_0"]
    assert shape.usual_over(10_000) < 0.5 * shape.usual_over(1_000)
    later = whole.iloc[45_000:]
    same = drift_report(habit, later, *market(10_000, 2)[1:])
    louder = drift_report(habit, 1.43 * later, *market(10_000, 2)[1:])
    line = louder.table.set_index("name").loc["range_0"]
    assert "drifted" not in same.counts and line["status"] == "drifted" and line["psi"] < shape.usual_over(1_000)


def test_a_span_longer_than_any_stretch_is_cut_into_parts_of_its_length():
    """Each part of a market that comes in spells is far from the whole, all of them together are not."""
    series = spells(32_000, 5)["range_0"].to_numpy()
    shape = shape_of(series[:20_000])
    assert max(shape.usual) == 1_000
    once, parts = (
        compare_column("feature", "range_0", shape, series[20_000:end], 1, 1.0)["psi"] for end in (21_500, 32_000)
    )
    bins = [bins_of(part, shape.quantiles, ()) for part in np.array_split(series[20_000:], 12)]
    shares = [np.bincount(part, minlength=len(shape.shares)) / len(part) for part in bins]
    assert parts == pytest.approx(stability(np.array(shape.shares), np.array(shares)).mean()) and once > 0
