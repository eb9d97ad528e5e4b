"""What may be true and hardly is: each oddity is found where it was planted, and real markets have few."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.domain import Bars, Timeframe
from orbiquant.market.calendars import to_times
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


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "AVAXUSDT_5m"])
def test_years_of_real_bars_have_few_oddities(name: str):
    bars = shared_bars(name)
    found = kinds(bars, Timeframe.M5, "crypto")
    assert sum(count for kind, count in found.items() if kind != "flat") <= 10
