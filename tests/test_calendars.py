"""Calendars against independent clocks: zoneinfo one moment at a time, and the days the S&P 500 really traded."""

from datetime import UTC, date, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orbiquant.core import OptionError
from orbiquant.domain import CalendarName, Timeframe
from orbiquant.market.calendars import (
    DAY,
    bar_open,
    expected_times,
    has_session,
    load_sessions,
    next_open,
    open_at,
    parse_calendar,
    same_features,
    to_index,
    to_times,
)

NEW_YORK = ZoneInfo("America/New_York")
TIMEFRAMES = list(Timeframe)
CALENDARS = ["crypto", "forex", "metals", "us_equity", "XLON", "XSAU"]
EXCHANGES = [name for name in CalendarName if name.exchange]
SPRING, AUTUMN = datetime(2024, 3, 10, tzinfo=UTC), datetime(2024, 11, 3, tzinfo=UTC)


def minutes(first: datetime, days: int) -> st.SearchStrategy[datetime]:
    return st.integers(0, days * 1440 - 1).map(lambda m: first + timedelta(minutes=m))


moments = st.one_of(
    minutes(SPRING - timedelta(days=8), 16),
    minutes(AUTUMN - timedelta(days=8), 16),
    minutes(datetime(2000, 1, 1, tzinfo=UTC), 9000),
)


def slow_forex_open(moment: datetime) -> bool:
    local = moment.astimezone(NEW_YORK)
    day, evening = local.weekday(), local.hour >= 17
    return day < 4 or (day == 4 and not evening) or (day == 6 and evening)


def slow_bar_open(moment: datetime, timeframe: Timeframe, calendar: str) -> datetime:
    "The same question, answered one moment at a time with zoneinfo."
    forex = calendar != "crypto"
    zone, hour = (NEW_YORK, 17) if forex else (UTC, 0)
    day = (moment.astimezone(zone).replace(tzinfo=None) - timedelta(hours=hour)).date()
    if timeframe is Timeframe.W1:
        day -= timedelta(days=(day.weekday() - (6 if forex else 0)) % 7)
    start = datetime(day.year, day.month, day.day, hour, tzinfo=zone).astimezone(UTC)
    step = timeframe.delta
    return start if step >= timedelta(days=1) else start + (moment - start) // step * step


@settings(max_examples=300)
@given(st.lists(moments, min_size=1, max_size=20))
@example([SPRING + timedelta(hours=h) for h in (5, 6, 7, 8, 20, 21, 22)])
@example([AUTUMN + timedelta(hours=h) for h in (4, 5, 6, 7, 20, 21, 22)])
def test_forex_hours_agree_with_a_clock_on_the_wall(some: list[datetime]) -> None:
    assert open_at(pd.DatetimeIndex(some), "forex").tolist() == [slow_forex_open(moment) for moment in some]


@settings(max_examples=300)
@given(
    st.lists(moments, min_size=1, max_size=20),
    st.sampled_from(TIMEFRAMES),
    st.sampled_from(["crypto", "forex", "metals"]),
)
@example([SPRING + timedelta(hours=h, minutes=30) for h in range(24)], Timeframe.H4, "forex")
@example([AUTUMN + timedelta(hours=h, minutes=30) for h in range(24)], Timeframe.H4, "forex")
@example([AUTUMN + timedelta(days=d) for d in range(-7, 8)], Timeframe.W1, "forex")
def test_bars_begin_where_zoneinfo_says(some: list[datetime], timeframe: Timeframe, calendar: str) -> None:
    expected = [slow_bar_open(moment, timeframe, calendar) for moment in some]
    assert bar_open(pd.DatetimeIndex(some), timeframe, calendar).tolist() == expected


@settings(max_examples=150, deadline=None)  # a calendar is read when it is asked first
@given(moments, st.integers(0, 20), st.sampled_from(TIMEFRAMES), st.sampled_from(CALENDARS))
def test_expected_times_are_the_open_points_of_the_grid(
    start: datetime, days: int, timeframe: Timeframe, calendar: str
) -> None:
    end = start + timedelta(days=days)
    times = expected_times(start, end, timeframe, calendar)
    assert times.is_monotonic_increasing and times.is_unique
    assert ((times >= start) & (times < end)).all()
    assert bar_open(times, timeframe, calendar).equals(times)
    assert (has_session if parse_calendar(calendar).exchange else open_at)(times, calendar, timeframe).all()
    assert (next_open(times, timeframe, calendar)[:-1] <= times[1:]).all()


@pytest.mark.parametrize("timeframe", ["1m", "15m", "1h"])
def test_expected_forex_times_leave_nothing_out(timeframe: str) -> None:
    every = pd.date_range(
        SPRING - timedelta(days=9), SPRING + timedelta(days=9), freq=Timeframe(timeframe).delta, inclusive="left"
    )
    wanted = every[[slow_forex_open(moment) for moment in every]]
    assert (
        expected_times(every[0], every[-1] + Timeframe(timeframe).delta, timeframe, "forex").tolist() == wanted.tolist()
    )


@pytest.mark.parametrize(("first", "opens", "closes"), [("2024-03-04", 22, 21), ("2024-10-28", 21, 22)])
def test_a_clock_change_moves_the_forex_week(first: str, opens: int, closes: int) -> None:
    start = pd.Timestamp(first, tz="UTC")
    days = expected_times(start, start + pd.Timedelta(days=14), "1d", "forex")
    assert [stamp.hour for stamp in days] == [opens] * 4 + [closes] * 5 + [closes] * (len(days) - 9)
    for timeframe, count in (("1m", 7200), ("1h", 120), ("4h", 30), ("1d", 5), ("1w", 1)):
        week = expected_times(days[4], days[4] + pd.Timedelta(days=6), timeframe, "forex")
        assert len(week) == count


def test_crypto_never_closes() -> None:
    week = expected_times("2024-03-04", "2024-03-11", "5m", "crypto")
    assert len(week) == 7 * 288
    assert expected_times("2024-03-05", "2024-03-20", "1w", "crypto").strftime("%a %H:%M").tolist() == ["Mon 00:00"] * 2


@pytest.mark.parametrize(("package", "name"), [("sp500", "S&P 500"), ("nasdaq", "NASDAQ")])
def test_nyse_days_are_the_days_that_traded(package: str, name: str) -> None:
    source = resources.files("arch") / "data" / package / f"{package}.csv.gz"
    with resources.as_file(source) as path:
        traded = pd.DatetimeIndex(pd.read_csv(path, parse_dates=["Date"])["Date"]).tz_localize("UTC")
    expected = expected_times(traded[0], traded[-1] + pd.Timedelta(days=1), "1d", "us_equity")
    assert len(traded) > 4000, name
    assert expected.symmetric_difference(traded).empty, name


def test_nyse_holidays_of_2021_to_2025() -> None:
    traded = load_sessions(CalendarName.US_EQUITY).dates
    weekdays = pd.bdate_range("2021-01-01", "2025-12-31", tz="UTC")
    closed = weekdays[~np.isin(to_times(weekdays) // DAY, traded)]
    assert [stamp.date() for stamp in closed if stamp.year == 2022] == [
        date(2022, m, d) for m, d in ((1, 17), (2, 21), (4, 15), (5, 30), (6, 20), (7, 4), (9, 5), (11, 24), (12, 26))
    ]
    found = {str(stamp.date()) for stamp in closed}
    assert "2021-12-31" not in found, "a Saturday's New Year is not made up for"
    assert "2021-06-18" not in found, "Juneteenth came in 2022"
    assert "2025-01-09" in found, "a day of mourning"


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("1992-11-27", "09:30", "14:00"),  # half days were longer
        ("1993-11-26", "09:30", "13:00"),
        ("1996-01-08", "11:00", "14:00"),  # a blizzard
        ("1996-07-05", "09:30", "13:00"),  # the day after the fourth, not the one before
        ("1997-10-27", "09:30", "15:30"),  # halted
        ("2002-07-05", "09:30", "13:00"),
        ("2002-09-11", "12:00", "16:00"),
        ("2003-12-26", "09:30", "13:00"),
        ("2013-07-03", "09:30", "13:00"),
        ("2013-07-05", "09:30", "16:00"),
        ("1973-06-01", "10:00", "15:30"),
    ],
)
def test_hours_of_the_nyse_are_those_of_the_day(day: str, opens: str, closes: str) -> None:
    minutes = expected_times(day, pd.Timestamp(day) + pd.Timedelta(days=1), "1m", "us_equity").tz_convert(NEW_YORK)
    assert [minutes[0].strftime("%H:%M"), (minutes[-1] + pd.Timedelta("1min")).strftime("%H:%M")] == [opens, closes]


@pytest.mark.parametrize("calendar", EXCHANGES)
def test_every_exchange_has_its_sessions(calendar: CalendarName) -> None:
    sessions = load_sessions(calendar)
    edges = np.stack([sessions.opens, sessions.closes], axis=1).ravel()
    assert (np.diff(edges) > 0).all(), "a pause lies between two spans"
    years = to_index(sessions.dates * DAY).year.value_counts()
    assert years[range(2022, 2027)].between(225, 260).all()
    spans = to_index(sessions.opens).tz_convert(sessions.zone)
    assert (to_times(spans) // DAY - sessions.dates[-1] <= 1).all()
    day = to_index([sessions.opens[-1]])
    first = expected_times(day[0] - pd.Timedelta("1h"), day[0] + pd.Timedelta("2h"), "1h", calendar)
    assert len(first) and open_at(day, calendar).all()


def test_exchanges_of_other_weeks_and_lunches() -> None:
    week = expected_times("2024-03-10", "2024-03-17", "1d", "XSAU")
    assert week.day_of_week.tolist() == [6, 0, 1, 2, 3], "Riyadh trades from Sunday to Thursday"
    assert expected_times("2024-03-01", "2024-04-01", "1w", "XSAU").day_of_week.unique().tolist() == [6]
    tokyo = expected_times("2024-03-12", "2024-03-13", "30m", "XTKS").tz_convert("Asia/Tokyo")
    assert [stamp for stamp in tokyo.strftime("%H:%M") if "11" < stamp < "13"] == ["11:00", "12:30"]
    assert load_sessions(CalendarName.XTAE).week_start == 6
    golden = expected_times("2024-09-23", "2024-10-14", "1w", "XSHG")
    assert [stamp.day for stamp in golden] == [23, 30, 7]
    india = expected_times("2024-03-12", "2024-03-13", "1h", "XBOM").tz_convert("Asia/Kolkata")
    assert india[0].strftime("%H:%M") == "09:15" and len(india) == 7


@pytest.mark.parametrize("name", ["NYSE", "nyse", "XNYS", "US_EQUITY", "us_equity"])
def test_the_nyse_has_several_names(name: str) -> None:
    assert parse_calendar(name) is CalendarName.US_EQUITY and parse_calendar("xlon") is CalendarName.XLON


def quiet_hours(first: str, last: str, calendar: str) -> list[str]:
    hours = expected_times(first, last, "1h", calendar)
    quiet = hours[~has_session(hours, calendar, Timeframe.H1)].tz_convert(NEW_YORK)
    return quiet.strftime("%d %H").tolist()


def test_the_week_of_metals_has_a_pause_a_day_in_both_clocks() -> None:
    for monday in ("2024-03-04", "2024-03-11", "2024-10-28", "2024-11-04"):
        start = pd.Timestamp(monday, tz=NEW_YORK) - pd.Timedelta(hours=12)
        quiet = quiet_hours(str(start), str(start + pd.Timedelta(days=6)), "metals")
        assert [hour[-2:] for hour in quiet] == ["17"] * 5


def test_holidays_of_markets_without_doors_are_quiet_and_not_shut() -> None:
    assert quiet_hours("2019-12-25", "2019-12-26", "forex") == [f"{d} {h:02}" for d, h in [(24, 19), (24, 20)]] + [
        f"24 {h}" for h in (21, 22, 23)
    ] + [f"25 {h:02}" for h in range(18)]
    christmas = expected_times("2019-12-25", "2019-12-26", "1h", "forex")
    assert len(christmas) == 24 and open_at(christmas, "forex").all()
    days = expected_times("2019-12-22", "2019-12-29", "1d", "forex")
    assert days[~has_session(days, "forex", Timeframe.D1)].tz_convert(NEW_YORK).day.tolist() == [24]
    assert has_session(expected_times("2019-12-22", "2019-12-29", "1w", "forex"), "forex", Timeframe.W1).all()


def test_pauses_change_no_features() -> None:
    assert same_features("forex", "metals")
    assert not same_features("us_equity", "XTSE")
    window = (SPRING - timedelta(days=20), AUTUMN + timedelta(days=20))
    for timeframe in ("1h", "4h", "1d", "1w"):
        assert expected_times(*window, timeframe, "forex").equals(expected_times(*window, timeframe, "metals"))


def test_equity_sessions_know_half_days_and_clock_changes() -> None:
    count = lambda day: len(expected_times(f"{day} 00:00", f"{day} 23:59", "5m", "us_equity"))  # noqa: E731
    assert [count(day) for day in ("2024-11-27", "2024-11-28", "2024-11-29", "2024-12-24")] == [78, 0, 42, 42]
    opens = [expected_times(day, f"{day} 23:00", "4h", "us_equity")[0].hour for day in ("2024-03-08", "2024-03-11")]
    assert opens == [14, 13]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'forex'"):
        open_at(pd.DatetimeIndex([SPRING]), "forx")
    with pytest.raises(OptionError, match="did you mean '15m'"):
        expected_times("2024-01-01", "2024-01-02", "15min", "forex")


@pytest.mark.parametrize("calendar", CALENDARS)
def test_no_times_give_no_answers(calendar: str) -> None:
    nothing = to_index([])
    assert len(open_at(nothing, calendar)) == 0
    for timeframe in TIMEFRAMES:
        assert bar_open(nothing, timeframe, calendar).empty and next_open(nothing, timeframe, calendar).empty
        assert expected_times("2024-03-04", "2024-03-04", timeframe, calendar).empty


@given(st.lists(st.integers(-(2**50), 2**50), max_size=20))
def test_integers_and_indexes_are_the_same_times(values: list[int]) -> None:
    assert to_times(to_index(values)).tolist() == values
    assert to_index(np.array(values, dtype="int64")).name == "time"
