"""Bars under fault injection, resampling against properties and an independent feed, real bars at scale."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import DataError, OptionError
from orbiquant.domain import BAR_COLUMNS, Bars, SeriesId, Timeframe
from orbiquant.market.bars import (
    check_bars,
    empty_bars,
    find_missing,
    find_rule,
    inspect_bars,
    known_at,
    series_of,
    with_series,
)
from orbiquant.market.calendars import expected_times
from orbiquant.market.repair import REPAIR_RULES, apply_rules, repair_bars
from orbiquant.market.resampling import resample
from tests.tools.shared_bars import SHARED

CLOCK_CHANGES = {"spring": "2024-03-03", "autumn": "2024-10-27"}
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no market data in {SHARED}; set ORBIQUANT_SAMPLE_DATA")


def make_bars(times: pd.DatetimeIndex, seed: int = 7) -> Bars:
    rng = np.random.default_rng(seed)
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, 1e-4, len(times))))
    open_ = np.concatenate([[1.1], close[:-1]])[: len(times)]
    reach = np.abs(rng.normal(0, 1e-4, (2, len(times))))
    values = [open_, np.maximum(open_, close) + reach[0], np.minimum(open_, close) - reach[1], close]
    return pd.DataFrame(
        dict(zip(BAR_COLUMNS, [*values, rng.integers(1, 1000, len(times)).astype("float64")], strict=True)), index=times
    )


def hours(count: int = 20) -> Bars:
    return make_bars(expected_times("2024-03-04", "2024-03-08", "1h", "forex")[:count])


def shared(name: str) -> Bars:
    return repair_bars(pd.read_parquet(SHARED / f"{name}.parquet").set_index("time"), "1m", ["to_utc", "to_float64"])


def put(row: int, column: str, value: float) -> Callable[[Bars], Bars]:
    def change(bars: Bars) -> Bars:
        changed = bars.copy()
        changed.iloc[row, changed.columns.get_loc(column)] = value
        return changed

    return change


def move(row: int, minutes: int) -> Callable[[Bars], Bars]:
    def change(bars: Bars) -> Bars:
        times = bars.index.to_list()
        times[row] += pd.Timedelta(minutes=minutes)
        return bars.set_axis(pd.DatetimeIndex(times, name="time"), axis=0)

    return change


SCHEMA_FAULTS = {
    "missing_columns": lambda b: b.drop(columns=["volume"]),
    "repeated_columns": lambda b: pd.concat([b, b[["close"]]], axis=1),
    "wrong_dtype": lambda b: b.astype({"volume": "float32"}),
    "wrong_index": lambda b: b.reset_index(drop=True).rename_axis("time"),
    "wrong_name": lambda b: b.rename_axis("date"),
    "wrong_zone": lambda b: b.tz_convert("Europe/Madrid"),
}
ROW_FAULTS = {  # kind: (change, count, first row)
    "missing": (lambda b: put(9, "volume", np.nan)(put(3, "close", np.nan)(b)), 2, 3),
    "infinite": (put(4, "high", np.inf), 1, 4),
    "not_positive": (put(5, "low", 0.0), 1, 5),
    "negative_volume": (put(6, "volume", -1.0), 1, 6),
    "impossible": (lambda b: put(12, "low", 9.0)(put(7, "high", 1.0)(b)), 2, 7),
    "unsorted": (lambda b: b.iloc[[0, 1, 3, 2, *range(4, 20)]], 1, 3),
    "duplicates": (lambda b: b.iloc[[*range(11), 10, *range(11, 20)]], 1, 10),
    "off_grid": (move(8, 7), 1, 8),
    "overlapping": (move(8, 30), 1, 9),
}


@pytest.mark.parametrize("kind", SCHEMA_FAULTS)
def test_a_wrong_shape_is_refused_by_name(kind: str) -> None:
    with pytest.raises(DataError) as caught:
        check_bars(SCHEMA_FAULTS[kind](hours()), "1h")
    assert [issue.kind for issue in caught.value.details["issues"]] == [kind]
    assert kind in caught.value.message


def test_a_naive_index_is_a_wrong_zone() -> None:
    report = inspect_bars(hours().tz_localize(None), "1h", "forex")
    assert [(issue.kind, issue.first) for issue in report.issues] == [("wrong_zone", "None")]
    assert not report.ok and report.missing is None


@pytest.mark.parametrize("kind", ROW_FAULTS)
def test_a_wrong_row_is_refused_with_count_and_first_place(kind: str) -> None:
    change, count, row = ROW_FAULTS[kind]
    broken = change(hours())
    issue = next(issue for issue in inspect_bars(broken, "1h").issues if issue.kind == kind)
    assert (issue.count, issue.row, issue.first) == (count, row, str(broken.index[row]))
    with pytest.raises(DataError, match=rf"{count} × {kind} .*row {row}"):
        check_bars(broken, "1h")


def test_every_fault_is_listed_at_once() -> None:
    broken = hours()
    for change, _, _ in ROW_FAULTS.values():
        broken = change(broken)
    with pytest.raises(DataError) as caught:
        check_bars(broken, "1h")
    assert {issue.kind for issue in caught.value.details["issues"]} == set(ROW_FAULTS)


@pytest.mark.parametrize("kind", [kind for kind in ROW_FAULTS if kind != "unsorted"])
def test_dropping_a_kind_of_fault_leaves_valid_bars(kind: str) -> None:
    change, count, row = ROW_FAULTS[kind]
    broken = change(hours())
    repaired = apply_rules(broken, Timeframe.H1, [f"drop_{kind}"])
    assert repaired.changed == {f"drop_{kind}": count}
    assert len(repaired.bars) == len(broken) - count
    assert broken.index[row] not in repaired.bars.index or kind == "duplicates"
    assert inspect_bars(repaired.bars, "1h").ok


@pytest.mark.parametrize("kind", ["wrong_dtype", "wrong_name", "wrong_zone", *ROW_FAULTS])
def test_a_refusal_names_the_rule_that_helps(kind: str) -> None:
    broken = SCHEMA_FAULTS[kind](hours()) if kind in SCHEMA_FAULTS else ROW_FAULTS[kind][0](hours())
    with pytest.raises(DataError) as caught:
        check_bars(broken, "1h")
    rules = caught.value.message.split("repaired by: ")[1].split(", ")
    assert find_rule(kind) in rules and set(rules) <= set(REPAIR_RULES)
    assert inspect_bars(repair_bars(broken, "1h", rules), "1h").ok


def test_the_duplicate_that_came_last_stays() -> None:
    bars = hours(5)
    late = bars.iloc[[2]].assign(volume=7.0)
    repaired = repair_bars(pd.concat([bars, late]), "1h", ["drop_duplicates", "sort"])
    assert repaired.index.equals(bars.index) and repaired["volume"].iloc[2] == 7.0


def test_high_and_low_are_widened_only_where_they_must() -> None:
    repaired = apply_rules(put(7, "high", 1.0)(hours()), Timeframe.H1, ["clamp_high_low"])
    assert repaired.changed == {"clamp_high_low": 1}
    assert repaired.bars["high"].iloc[7] == hours()[["open", "close"]].iloc[7].max()


def test_zone_name_and_types_are_repaired_by_name() -> None:
    local = hours().astype("float32").tz_convert("Europe/Madrid").rename_axis("date")
    assert repair_bars(local, "1h", ["to_float64", "to_utc"]).index.equals(hours().index)
    with pytest.raises(DataError, match="to_float64"):
        apply_rules(hours().astype({"open": object}).replace({"open": {1.1: "x"}}), Timeframe.H1, ["to_float64"])


@settings(max_examples=30, deadline=None)
@given(st.permutations(["sort", "drop_duplicates", "drop_missing", "drop_impossible", "clamp_high_low"]))
def test_the_order_of_the_rules_does_not_matter(rules: list[str]) -> None:
    broken = hours()
    for kind in ("missing", "impossible", "unsorted", "duplicates"):
        broken = ROW_FAULTS[kind][0](broken)
    assert apply_rules(broken, Timeframe.H1, rules).bars.equals(apply_rules(broken, Timeframe.H1, sorted(rules)).bars)


@pytest.mark.parametrize("rule", REPAIR_RULES)
def test_no_rule_meets_a_shape_it_cannot_read(rule: str) -> None:
    with pytest.raises(DataError, match=r"missing_columns|needs a DatetimeIndex"):
        repair_bars(SCHEMA_FAULTS["missing_columns"](hours()).reset_index(drop=True), "1h", [rule], "forex")


def test_what_the_rules_leave_is_refused() -> None:
    broken = put(6, "volume", -1.0)(hours())
    with pytest.raises(DataError, match="negative_volume"):
        repair_bars(broken, "1h", ["sort"])
    with pytest.raises(OptionError, match="did you mean 'drop_duplicates'"):
        repair_bars(hours(), "1h", ["drop_duplicate"])
    with pytest.raises(DataError, match="needs a calendar"):
        repair_bars(hours(), "1h", ["drop_off_session"])


def test_a_repair_changes_nothing_that_was_right() -> None:
    rules = [rule for rule in REPAIR_RULES if "off_" not in rule]
    repaired = apply_rules(hours(), Timeframe.H1, rules)
    assert repaired.bars.equals(hours()) and not any(repaired.changed.values())


def test_the_callers_frame_is_never_touched() -> None:
    broken = put(7, "high", 1.0)(hours()).tz_localize(None).rename_axis("date")
    before = broken.copy(deep=True)
    apply_rules(broken, Timeframe.H1, [rule for rule in REPAIR_RULES if "off_" not in rule])
    assert broken.equals(before) and broken.index.name == "date"


def test_checked_bars_have_one_shape() -> None:
    odd = hours().assign(spread=1.0)[["volume", "spread", "close", "low", "high", "open"]]
    checked = check_bars(odd.set_axis(odd.index.as_unit("ms"), axis=0), "1h")
    pd.testing.assert_frame_equal(checked, hours(), check_freq=False)
    with pytest.raises(DataError, match="must be a DataFrame"):
        check_bars([1, 2], "1h")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="did you mean '1h'"):
        check_bars(hours(), "1hr")


EURUSD_1H = SeriesId.parse("EURUSD", "1h")


def test_bars_keep_their_series_through_checks_repairs_and_windows(tmp_path: Path) -> None:
    bars = with_series(hours(), EURUSD_1H)
    assert series_of(check_bars(bars, "1h")) == EURUSD_1H
    assert series_of(repair_bars(pd.concat([bars, bars.iloc[-1:]]), "1h", REPAIR_RULES, "forex")) == EURUSD_1H
    assert series_of(bars.iloc[3:9]) == series_of(bars.copy()) == series_of(bars.loc[bars.index[4] :]) == EURUSD_1H
    bars.to_parquet(tmp_path / "bars.parquet")
    assert series_of(pd.read_parquet(tmp_path / "bars.parquet")) == EURUSD_1H
    assert check_bars(hours(), "1h").attrs == {}


@pytest.mark.parametrize("target", ["1h", "4h", "1d"])
def test_resampled_bars_know_their_new_timeframe(target: str) -> None:
    bars, empty = with_series(hours(), EURUSD_1H), with_series(empty_bars(), EURUSD_1H)
    for made in (resample(bars, "1h", target, "forex", partial=True), resample(empty, "1h", target, "forex")):
        assert series_of(made) == SeriesId.parse("EURUSD", target)
    assert series_of(bars) == EURUSD_1H, "those they were made of stay what they were"
    assert series_of(resample(hours(), "1h", target, "forex", partial=True), "EURUSD").timeframe == target


def test_marking_bars_leaves_the_callers_frame_unmarked() -> None:
    bars = hours()
    marked = with_series(bars, EURUSD_1H)
    assert bars.attrs == {} and marked.equals(bars)
    assert series_of(with_series(marked, SeriesId.parse("XAUUSD", "4h"))).symbol == "XAUUSD"
    assert series_of(marked) == EURUSD_1H


def test_bars_that_say_nothing_must_be_told() -> None:
    bars = hours()
    assert series_of(bars, "eur/usd") == series_of(bars, "EURUSD", "1h") == EURUSD_1H, "the step is the timeframe"
    with pytest.raises(DataError, match="`timeframe` must be 1h, the step of the bars, was '5m'"):
        series_of(bars, "EURUSD", "5m")
    with pytest.raises(DataError, match=r"`symbol` must be given for bars that do not tell theirs .*, was None"):
        series_of(bars)
    with pytest.raises(DataError, match="`timeframe` must be given for fewer than two bars"):
        series_of(bars.iloc[:1], "EURUSD")


def test_bars_that_say_something_else_are_refused() -> None:
    bars = with_series(hours(), EURUSD_1H)
    assert series_of(bars, "EUR/USD", "1h") == EURUSD_1H
    with pytest.raises(DataError, match="`symbol` must be EURUSD, which the bars are, was GBPUSD"):
        series_of(bars, "gbp/usd")
    with pytest.raises(DataError, match="`timeframe` must be 1h, which the bars are, was 4h"):
        series_of(bars, timeframe="4h")
    with pytest.raises(OptionError, match="`timeframe` must be one of"):
        series_of(bars, timeframe="7h")


def test_gaps_and_bars_out_of_hours_are_warnings() -> None:
    bars = hours(96).drop(hours(96).index[[5, 6, 7, 50]])
    saturday = bars.iloc[[-1]].set_axis(pd.DatetimeIndex(["2024-03-09 12:00"], tz="UTC", name="time"), axis=0)
    report = inspect_bars(pd.concat([bars, saturday]), "1h", "forex")
    assert report.ok
    found = {issue.kind: (issue.count, issue.severity) for issue in report.issues}
    assert found["off_session"] == (1, "warning") and found["gaps"][1] == "warning"
    assert report.longest_gap is not None and report.longest_gap.bars == 22  # from Friday 00:00 to the close
    assert find_missing(bars, Timeframe.H1, "forex")["bars"].tolist() == [3, 1]
    check_bars(bars, "1h")
    assert len(repair_bars(pd.concat([bars, saturday]), "1h", ["drop_off_session"], "forex")) == len(bars)


def test_a_gap_over_a_weekend_is_one_gap() -> None:
    times = expected_times("2024-03-07", "2024-03-12", "1h", "forex")
    bars = make_bars(times[(times < "2024-03-08 20:00") | (times >= "2024-03-10 23:00")])
    gaps = find_missing(bars, Timeframe.H1, "forex")
    assert gaps["bars"].tolist() == [3], "the first hour of the week is not to be expected"
    assert gaps["end"][0] == pd.Timestamp("2024-03-10 23:00", tz="UTC")
    report = inspect_bars(bars, "1h", "forex")
    assert (report.expected, report.missing, report.gaps) == (len(times) - 1, 3, 1)


def test_server_time_is_noticed_but_not_taken_for_gaps() -> None:
    times = expected_times("2024-03-04", "2024-03-08", "4h", "forex") + pd.Timedelta(hours=1)
    report = inspect_bars(make_bars(times.rename("time")), "4h", "forex")
    assert report.missing == 0 and report.issues[0].kind == "off_anchor"
    with pytest.raises(DataError, match="another clock than the forex calendar"):
        resample(make_bars(times.rename("time")), "4h", "1d", "forex")


def test_a_report_is_json() -> None:
    report = inspect_bars(hours().drop(hours().index[3]), "1h", "forex")
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["ok"] and loaded["missing"] == 1 and loaded["longest_gap"]["start"] == "2024-03-04T03:00:00Z"
    assert type(report).model_validate({k: v for k, v in loaded.items() if k != "ok"}) == report


@pytest.mark.parametrize("calendar", ["crypto", "forex", "us_equity"])
def test_no_bars_are_valid_bars(calendar: str) -> None:
    empty = empty_bars()
    assert check_bars(empty, "1h").empty
    assert repair_bars(empty, "1h", REPAIR_RULES, calendar).empty
    assert resample(empty, "5m", "1d", calendar).equals(empty)
    assert find_missing(empty, Timeframe.H1, calendar).empty and known_at(empty, Timeframe.H1).empty
    report = inspect_bars(empty, "1h", calendar)
    assert report.ok and (report.rows, report.expected, report.missing, report.first) == (0, 0, 0, None)


# --- resampling -----------------------------------------------------------------------------------------------------

PAIRS = [(a.value, b.value) for a in Timeframe for b in Timeframe if a.minutes < b.minutes]


@st.composite
def series(draw: st.DrawFn, timeframe: str, calendar: str) -> Bars:
    start = pd.Timestamp(draw(st.sampled_from(sorted(CLOCK_CHANGES.values()))), tz="UTC")
    times = expected_times(start, start + pd.Timedelta(days=21), timeframe, calendar)
    first = draw(st.integers(0, len(times) - 1))
    times = times[first : draw(st.integers(first + 1, len(times)))]
    seed = draw(st.integers(0, 2**32 - 1))
    holes = draw(st.sampled_from([0.0, 0.02, 0.5]))
    return make_bars(times[np.random.default_rng(seed).random(len(times)) >= holes], seed)


@settings(max_examples=100, deadline=None)
@given(
    st.data(), st.sampled_from([p for p in PAIRS if p[0] != "1m"]), st.sampled_from(["crypto", "forex", "us_equity"])
)
def test_nothing_is_lost_or_made_up(data: st.DataObject, pair: tuple[str, str], calendar: str) -> None:
    bars = data.draw(series(pair[0], calendar))
    coarse = resample(bars, *pair, calendar, partial=True)
    assert np.isclose(coarse["volume"].sum(), bars["volume"].sum())
    if bars.empty:
        return
    assert coarse["open"].iloc[0] == bars["open"].iloc[0] and coarse["close"].iloc[-1] == bars["close"].iloc[-1]
    assert coarse["high"].max() == bars["high"].max() and coarse["low"].min() == bars["low"].min()
    assert set(coarse["open"]) <= set(bars["open"]) and set(coarse["close"]) <= set(bars["close"])
    check_bars(coarse, pair[1])
    closed = resample(bars, *pair, calendar)
    assert closed.equals(coarse.loc[closed.index]) and len(closed) >= len(coarse) - 2


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.sampled_from([("5m", "1h", "4h"), ("15m", "4h", "1d"), ("1h", "1d", "1w")]),
    st.sampled_from(["crypto", "forex"]),
)
def test_two_steps_make_one(data: st.DataObject, frames: tuple[str, str, str], calendar: str) -> None:
    fine, middle, coarse = frames
    bars = data.draw(series(fine, calendar))
    twice = resample(resample(bars, fine, middle, calendar, partial=True), middle, coarse, calendar, partial=True)
    pd.testing.assert_frame_equal(twice, resample(bars, fine, coarse, calendar, partial=True))


@pytest.mark.parametrize("week", CLOCK_CHANGES)
@pytest.mark.parametrize("calendar", ["crypto", "forex"])
def test_two_steps_make_one_without_holes_and_partial_bars(week: str, calendar: str) -> None:
    start = pd.Timestamp(CLOCK_CHANGES[week], tz="UTC")
    bars = make_bars(expected_times(start, start + pd.Timedelta(days=21), "5m", calendar))
    for cut in (1, 13, 100, 1000):
        part = bars.iloc[cut:-cut]
        direct = resample(part, "5m", "4h", calendar)
        pd.testing.assert_frame_equal(resample(resample(part, "5m", "1h", calendar), "1h", "4h", calendar), direct)
        assert direct.index.equals(
            expected_times(direct.index[0], direct.index[-1] + pd.Timedelta(hours=1), "4h", calendar)
        )


@settings(max_examples=100, deadline=None)
@given(
    st.data(),
    st.sampled_from([("15m", "1h"), ("15m", "4h"), ("1h", "1d"), ("1h", "1w")]),
    st.sampled_from(["crypto", "forex"]),
)
def test_the_past_does_not_change_when_bars_arrive(data: st.DataObject, pair: tuple[str, str], calendar: str) -> None:
    bars = data.draw(series(pair[0], calendar))
    cut = data.draw(st.integers(0, len(bars)))
    early, full = resample(bars.iloc[:cut], *pair, calendar), resample(bars, *pair, calendar)
    assert early.equals(full.iloc[: len(early)])
    if cut:  # a bar is there as soon as the time it is known at has been reached
        reached = bars.index[cut - 1] + Timeframe(pair[0]).delta
        assert len(early) >= (known_at(full, Timeframe(pair[1])) <= reached).sum()


def test_a_bar_exists_when_it_has_closed() -> None:
    bars = make_bars(expected_times("2024-03-05 03:00", "2024-03-05 12:00", "5m", "crypto"))
    hour = lambda part: resample(part, "5m", "4h", "crypto").index.hour.tolist()  # noqa: E731
    assert hour(bars) == [4, 8] and hour(bars.iloc[:-1]) == [4]
    assert resample(bars, "5m", "4h", "crypto", partial=True).index.hour.tolist() == [0, 4, 8]


def test_the_forex_week_closes_on_friday() -> None:
    bars = make_bars(expected_times("2024-03-03", "2024-03-08 22:00", "1h", "forex"))
    week = resample(bars, "1h", "1w", "forex")
    assert week.index.strftime("%a %H:%M").tolist() == ["Sun 22:00"]
    assert resample(bars.iloc[:-1], "1h", "1w", "forex").empty
    days = resample(bars, "1h", "1d", "forex")
    assert len(days) == 5 and resample(days, "1d", "1w", "forex").equals(week)


@pytest.mark.parametrize("week", CLOCK_CHANGES)
def test_forex_days_last_from_five_to_five_in_new_york(week: str) -> None:
    start = pd.Timestamp(CLOCK_CHANGES[week], tz="UTC")
    bars = make_bars(expected_times(start, start + pd.Timedelta(days=21), "5m", "forex"))
    days = resample(bars.assign(volume=1.0), "5m", "1d", "forex")
    local = days.index.tz_convert("America/New_York")
    assert (local.hour == 17).all() and set(local.day_of_week) == {6, 0, 1, 2, 3}
    assert (days["volume"] == 288).all() and len(set(days.index.hour)) == 2
    four = resample(bars.assign(volume=1.0), "5m", "4h", "forex").index.tz_convert("America/New_York")
    assert set(four.hour) == {17, 21, 1, 5, 9, 13}


def test_equity_days_are_dates_of_the_regular_session() -> None:
    times = expected_times("2024-11-25", "2024-12-03", "5m", "us_equity")
    early = times[:1] - pd.Timedelta(hours=1)
    bars = make_bars(early.append(times).rename("time")).assign(volume=1.0)
    days = resample(bars, "5m", "1d", "us_equity")
    assert days["volume"].tolist() == [78, 78, 78, 42, 78] and (days.index.hour == 0).all()
    assert days.index.day.tolist() == [25, 26, 27, 29, 2]
    assert days["open"].iloc[0] == bars["open"].iloc[1]  # the trade before the bell belongs to no bar
    assert resample(bars.iloc[:-1], "5m", "1d", "us_equity").equals(days.iloc[:-1])
    assert resample(days, "1d", "1w", "us_equity").index.strftime("%F").tolist() == ["2024-11-25"]


@pytest.mark.parametrize(("source", "target"), [("1h", "15m"), ("1w", "1d"), ("4h", "1h")])
def test_bars_are_not_split(source: str, target: str) -> None:
    with pytest.raises(DataError, match=f"`target` must be a multiple of {source}, was '{target}'"):
        resample(empty_bars(), source, target, "crypto")


def test_broken_bars_are_not_resampled() -> None:
    with pytest.raises(DataError, match="unsorted"):
        resample(hours().iloc[::-1], "1h", "1d", "forex")


# --- real bars ------------------------------------------------------------------------------------------------------


@needs_shared
def test_resampled_minutes_are_the_exchanges_own_bars() -> None:
    minute, five = shared("BTCUSDT_1m"), shared("BTCUSDT_5m")
    made = resample(minute, "1m", "5m", "crypto")
    own = five.loc[made.index[0] : made.index[-1]]
    assert made.index.equals(own.index) and len(made) == len(minute) // 5
    np.testing.assert_array_equal(made[["open", "high", "low", "close"]], own[["open", "high", "low", "close"]])
    np.testing.assert_allclose(made["volume"], own["volume"], rtol=1e-5, atol=1e-4)


@needs_shared
@pytest.mark.parametrize(
    ("name", "timeframe", "calendar"),
    [
        ("BTCUSDT_5m", "5m", "crypto"),
        ("EURUSD_1h", "1h", "forex"),
        ("XAUUSD_1h", "1h", "forex"),
        ("EURUSD_15m", "15m", "forex"),
    ],
)
def test_real_bars_pass_and_their_days_are_whole(name: str, timeframe: str, calendar: str) -> None:
    bars = check_bars(shared(name), timeframe)
    report = inspect_bars(bars, timeframe, calendar)
    assert report.ok and report.expected is not None and report.missing is not None
    outside = next((issue.count for issue in report.issues if issue.kind == "off_session"), 0)
    assert report.expected - report.missing == len(bars) - outside
    days = resample(bars, timeframe, "1d", calendar)
    zone, hour = ("UTC", 0) if calendar == "crypto" else ("America/New_York", 17)
    assert (days.index.tz_convert(zone).hour == hour).all()
    assert days["high"].max() == bars["high"].max()


@needs_shared
def test_six_years_of_five_minutes_are_checked() -> None:
    bars = shared("BTCUSDT_5m")
    report = inspect_bars(check_bars(bars, "5m"), "5m", "crypto")
    assert (report.rows, report.missing, report.gaps) == (630_478, 818, 21)


@needs_shared
def test_stray_friday_bars_are_found_and_dropped_by_name() -> None:
    bars = shared("GBPUSD_1h")
    report = inspect_bars(bars, "1h", "forex")
    strays = next(issue for issue in report.issues if issue.kind == "off_session")
    assert strays.count > 0 and report.ok
    kept = repair_bars(bars, "1h", ["drop_off_session"], "forex")
    assert len(kept) == len(bars) - strays.count


# --- which series ---


def test_bars_that_were_resampled_and_still_tell_their_old_step_are_refused():
    hours = pd.date_range("2024-01-01", periods=400, freq="1h", tz="UTC", name="time")
    bars = pd.DataFrame(1.0, hours, list(BAR_COLUMNS))
    bars.attrs = {"symbol": "BTCUSDT", "timeframe": "1h"}
    assert series_of(bars) == series_of(bars.iloc[::4].head(5)) == SeriesId.parse("BTCUSDT", "1h")
    with pytest.raises(DataError, match="`timeframe` must be 4h, the step of the bars, was '1h'"):
        series_of(bars.resample("4h").last())
    bars.attrs["timeframe"] = "60min"
    with pytest.raises(OptionError, match="`timeframe` must be one of"):
        series_of(bars)


def test_a_table_without_times_is_no_series():
    with pytest.raises(DataError, match="must be a DatetimeIndex of their opens, was RangeIndex"):
        series_of(pd.DataFrame({"close": [1.0, 2.0, 3.0]}), "BTCUSDT")


def test_times_without_a_zone_are_told_the_option_that_says_their_clock() -> None:
    from orbiquant.core import DataError
    from orbiquant.market.bars import check_bars
    from orbiquant.market.synthetic import synthetic_market

    naive = synthetic_market(20, "1h", seed=1).bars.tz_localize(None)
    with pytest.raises(DataError, match=r"`source_zone` \(--zone\)") as refused:
        check_bars(naive, "1h")
    assert "to_utc" not in refused.value.message
