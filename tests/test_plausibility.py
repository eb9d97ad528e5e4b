"""What may be true and hardly is: each oddity is found where it was planted, and real markets have few."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.domain import Bars, Timeframe
from orbiquant.market.calendars import expected_times, to_index, to_times
from orbiquant.market.plausibility import examine_bars, find_holes, find_jumps
from orbiquant.market.synthetic import synthetic_market
from tests.tools.shared_bars import shared_bars

MARKET = synthetic_market(3000, "1h", seed=7).bars


def kinds(bars: Bars, timeframe: Timeframe = Timeframe.H1, calendar: str | None = "forex") -> dict[str, int]:
    """Return how often each kind of oddity was found."""
    report = examine_bars(bars, timeframe, calendar)
    assert report.ok
    return {issue.kind: issue.count for issue in report.issues if issue.kind != "gaps"}


def test_an_ordinary_market_has_nothing_odd():
    assert kinds(MARKET) == kinds(MARKET, calendar=None) == {}


@pytest.mark.parametrize(("column", "factor"), [("high", 10.0), ("low", 0.1)])
@pytest.mark.parametrize("row", [1, 700, 2998])
def test_a_bad_tick_is_one_jump_where_it_stands(column: str, factor: float, row: int):
    odd = MARKET.copy()
    odd.loc[odd.index[row], column] *= factor
    assert np.flatnonzero(find_jumps(odd)[0]).tolist() == [row] and kinds(odd) == {"jump": 1}


@pytest.mark.parametrize("factor", [10.0, 0.1, 2.0, 1 / 3])
def test_a_split_is_one_step_that_stays(factor: float):
    odd = MARKET.copy()
    odd.iloc[1200:, :4] *= factor
    assert np.flatnonzero(find_jumps(odd)[1]).tolist() == [1200] and kinds(odd) == {"split_like": 1}


def test_a_whole_bar_that_goes_far_and_comes_back_is_a_jump():
    odd = MARKET.copy()
    odd.iloc[500, :4] *= 3.0
    assert kinds(odd) == {"jump": 1}


def test_the_unit_of_price_changes_nothing():
    odd = MARKET.copy()
    odd.iloc[1200:, :4] /= 10
    for unit in (1e-8, 1.0, 1e7):
        assert kinds(odd * [unit, unit, unit, unit, 1.0]) == {"split_like": 1}


def test_bars_of_another_step_are_found():
    thin = pd.concat([MARKET.iloc[:1000], MARKET.iloc[1000::4]])
    assert 470 < kinds(thin)["other_step"] < 500 and "other_step" not in kinds(MARKET.iloc[::4], Timeframe.H4)


def test_a_price_that_stands_still_is_found_when_it_does_so_for_long():
    odd = MARKET.copy()
    for rows in (slice(100, 105), slice(200, 240)):
        odd.iloc[rows, :4] = odd["close"].iloc[rows.start]
    assert kinds(odd)["flat"] == 40


@pytest.mark.parametrize("weeks", [1, 8])
def test_a_hole_is_found_without_a_calendar_and_weekends_are_none(weeks: int):
    hours = pd.date_range("2024-01-01", periods=24 * 7 * weeks, freq="1h", tz="UTC", name="time")
    open_ = hours[(hours + pd.Timedelta("3h")).day_of_week < 5]
    whole = MARKET.iloc[: len(open_)].set_axis(open_)
    assert len(find_holes(to_times(open_), Timeframe.H1)) == 0
    assert kinds(whole.drop(open_[[30, 31, 50]]), calendar=None)["hole"] == 3
    always = MARKET.iloc[: len(hours)].set_axis(hours)
    assert kinds(always.drop(hours[40:60]), calendar=None)["hole"] == 20


@pytest.mark.parametrize("calendar", ["XSAU", "XTAE", "XLON", "XTKS", "us_equity"])
@pytest.mark.parametrize("weeks", [1, 2, 3, 20])
def test_weekends_of_every_market_are_no_holes(calendar: str, weeks: int):
    for first in pd.date_range("2023-09-04", periods=7, tz="UTC"):
        week = pd.date_range(first, periods=7 * weeks, tz="UTC")
        days = week[~week.day_of_week.isin((4, 5) if calendar in ("XSAU", "XTAE") else (5, 6))]
        assert len(find_holes(to_times(days), Timeframe.D1)) == 0
        hours = pd.date_range(first, periods=24 * 7 * weeks, freq="1h", tz="UTC")
        shut = (4, 5) if calendar in ("XSAU", "XTAE") else (5, 6)
        open_ = hours[~hours.day_of_week.isin(shut)]
        assert len(find_holes(to_times(open_), Timeframe.H1)) == 0
        gone = [h for h in open_ if h.day_of_week == 1 and h.hour in (9, 10)][:2]
        if open_[0] < gone[0] and gone[-1] < open_[-1]:
            found = to_index(find_holes(to_times(open_.drop(gone)), Timeframe.H1))
            assert found.tolist() == gone


def test_a_market_that_changes_its_week_has_no_hole_for_the_day_it_gave_up():
    days = expected_times("2018-01-01", "2026-12-31", "1d", "XTAE")
    holes = to_index(find_holes(to_times(days), Timeframe.D1))
    assert (days[days.year < 2026].day_of_week == 6).any() and not (days[days.year == 2026][7:].day_of_week == 6).any()
    assert not (holes[holes.year == 2026].day_of_week == 6).any() and not (holes.day_of_week == 5).any()
    assert not (holes[holes.year < 2026].day_of_week == 4).any() and len(holes) < 30


def test_a_day_without_a_bar_in_a_week_that_never_rests_is_a_hole():
    hours = pd.date_range("2024-01-01", periods=24 * 14, freq="1h", tz="UTC")
    gone = hours[(hours.day_of_week == 2) & (hours < "2024-01-08")]
    assert len(find_holes(to_times(hours.drop(gone)), Timeframe.H1)) == len(gone) == 24


@pytest.mark.parametrize(("minutes", "count"), [(-61, 2), (-60, 1), (-1, 1), (0, 0), (10_000, 0)])
def test_bars_that_close_after_now_are_told(minutes: int, count: int):
    closed = MARKET.index[-1] + pd.Timedelta("1h")
    report = examine_bars(MARKET, Timeframe.H1, "forex", (closed + pd.Timedelta(minutes=minutes)).to_pydatetime())
    told = {issue.kind: issue.count for issue in report.issues if issue.kind == "unclosed"}
    assert report.ok and told == ({"unclosed": count} if count else {})
    first = [issue.first for issue in report.issues if issue.kind == "unclosed"]
    assert first == ([str(MARKET.index[-count])] if count else [])


def test_one_bar_that_forms_is_told_too():
    assert [issue.kind for issue in examine_bars(MARKET.tail(1), Timeframe.H1, None, MARKET.index[-1]).issues] == [
        "unclosed"
    ]


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "AVAXUSDT_5m"])
def test_years_of_real_bars_have_few_oddities(name: str):
    bars = shared_bars(name)
    found = kinds(bars, Timeframe.M5, "crypto")
    assert sum(count for kind, count in found.items() if kind != "flat") <= 10
