"""Bars kept current: asked for when they have closed and not before, honest about what is late; on a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import random_bars  # noqa: E402

from orbiquant.cli import main  # noqa: E402
from orbiquant.core import FixedClock, NotFoundError, SettingsError  # noqa: E402
from orbiquant.desk.jobs import hears_new_bars  # noqa: E402
from orbiquant.domain import CalendarName, SeriesId  # noqa: E402
from orbiquant.jobs.cron import Schedule  # noqa: E402
from orbiquant.jobs.records import list_job_runs  # noqa: E402
from orbiquant.jobs.schedule import run_due, schedule_job  # noqa: E402
from orbiquant.jobs.work import Worker  # noqa: E402
from orbiquant.market.exchanges import ExchangeSource  # noqa: E402
from orbiquant.market.follow import (  # noqa: E402
    LATE,
    SETTLES_S,
    Followed,
    due_bars,
    follow_bars,
    follow_once,
    next_close,
    pause_after,
)
from orbiquant.market.providers import open_provider  # noqa: E402
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from orbiquant.net import Backoff  # noqa: E402
from orbiquant.runtime import Runtime, using  # noqa: E402
from orbiquant.settings import load_settings  # noqa: E402
from tests.tools.fake_providers import FakeBinance, FakeDukascopy, FakeProvider, reply  # noqa: E402

ORBIQUANT = str(Path(sys.executable).parent / "orbiquant")
BTC, EUR = SeriesId.parse("BTCUSDT", "1h"), SeriesId.parse("EURUSD", "1h")
BARS = random_bars("2024-02-26", 60)
KNOWN = 40  # of them are stored
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
AT_ONCE = Backoff(attempts=2, first_pause_s=0.0)


class Scene:
    """A store with the first bars, an exchange that has more, and a clock that sleeping moves."""

    def __init__(self, folder: Path, server: FakeProvider) -> None:
        self.server, self.store = server, DeltaBarStore(folder)
        self.store.upsert(BTC, BARS.iloc[:KNOWN])
        self.clock = FixedClock(BARS.index[KNOWN].to_pydatetime())  # the last one has just closed
        self.source = ExchangeSource("binance", server.url, clock=self.clock, backoff=AT_ONCE)
        self.source._client.exchange.enableRateLimit = False
        self.looks: list[Followed] = []
        self.pauses: list[float] = []

    def follow(self, looks: int, *listeners: Any, at_look: dict[int, Callable[[], object]] | None = None) -> None:
        """Look so many times; before some of them something happens."""

        def wait(seconds: float) -> None:
            self.pauses.append(seconds)
            self.clock.advance(seconds * SECOND)

        def tell(look: Followed) -> None:
            self.looks.append(look)
            (at_look or {}).get(len(self.looks), lambda: None)()

        follow_bars(*(self.store, self.source, BTC, listeners, tell, self.clock, wait), lambda: len(self.looks) < looks)

    @property
    def asked(self) -> int:
        """Return how often candles were asked for."""
        return sum(request.path.endswith("klines") for request in self.server.requests)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with FakeBinance("BTCUSDT", BARS).running() as server:
        yield Scene(tmp_path, server)


def test_each_bar_is_pulled_when_it_has_closed_and_heard_once(scene: Scene):
    heard: list[pd.Timestamp] = []
    scene.follow(6, lambda series, bars: heard.extend(bars.index))
    assert [look.new for look in scene.looks] == [0, 1, 1, 1, 1, 1]
    assert scene.asked == 5, "a source is not asked for what has not closed"
    assert heard == [*BARS.index[KNOWN : KNOWN + 5]]
    pd.testing.assert_frame_equal(scene.store.read(BTC), BARS.iloc[: KNOWN + 5], check_freq=False)
    assert scene.clock.now() == BARS.index[KNOWN + 5] + SETTLES_S * SECOND and max(scene.pauses) <= 60
    assert scene.looks[-1].told == f"BTCUSDT 1h: 1 new bar; last {BARS.index[KNOWN + 4]:%Y-%m-%d %H:%M}"
    assert scene.looks[0].told.startswith("BTCUSDT 1h: nothing new is due") and scene.looks[-1].late == 0


def test_what_is_late_is_said_and_asked_for_with_growing_pauses(scene: Scene):
    def grow() -> None:
        scene.server.rows = BARS

    scene.server.rows = BARS.iloc[:KNOWN]
    scene.follow(7, at_look={6: grow})
    assert [(look.new, look.late) for look in scene.looks] == [(0, 0), *[(0, 1)] * 5, (1, 0)]
    late = [look.late_s for look in scene.looks[1:6]]
    assert late[0] == SETTLES_S and late == sorted(set(late))
    waits = [b - a for a, b in pairwise(late)]
    assert all(
        LATE.first_pause_s * 2**n / 2 - 1 <= wait <= LATE.first_pause_s * 2**n + 1 for n, wait in enumerate(waits)
    )
    assert "1 bar late, by 0:00:02" in scene.looks[1].told


def test_a_late_bar_does_not_make_the_next_one_late(scene: Scene):
    look = Followed(
        symbol="BTCUSDT", timeframe="1h", new=0, last=BARS.index[KNOWN], late=1, late_s=3590,
        next_close=BARS.index[KNOWN + 3],
    )  # fmt: skip
    now = (BARS.index[KNOWN + 3] - 10 * SECOND).to_pydatetime()
    assert pause_after(look, 12, now) == 12.0
    assert pause_after(look, 2000, now - timedelta(days=1)) <= LATE.max_pause_s


def test_a_server_that_fails_is_told_of_and_waited_for(scene: Scene):
    scene.server.faults.extend([reply(503)] * 4)
    scene.follow(4)
    assert [look.new for look in scene.looks] == [0, 0, 0, 1]
    assert all("did not answer in 2 attempts" in look.failure for look in scene.looks[1:3])
    assert "the source could not be read" in scene.looks[1].told and "1 bar late" in scene.looks[1].told


def test_a_machine_that_slept_catches_up_in_one_look(scene: Scene):
    scene.follow(1)
    scene.clock.advance(10 * HOUR)
    scene.follow(2)
    assert scene.looks[-1].new == 10 and scene.asked == 1


def test_a_clock_that_is_set_back_asks_for_nothing_twice(scene: Scene):
    scene.follow(6, at_look={3: lambda: scene.clock.advance(-5 * HOUR)})
    assert [look.new for look in scene.looks] == [0, 1, 1, 1, 1, 1] and scene.asked == 5
    assert scene.clock.now() == BARS.index[KNOWN + 5] + SETTLES_S * SECOND


def test_a_listener_that_fails_stops_nobody(scene: Scene):
    heard: list[int] = []

    def fail(series: SeriesId, bars: pd.DataFrame) -> None:
        raise ValueError("deaf")

    scene.follow(3, fail, lambda series, bars: heard.append(len(bars)))
    assert heard == [1, 1]


def test_what_no_waiting_helps_is_raised_at_once(scene: Scene):
    with pytest.raises(NotFoundError, match="pull it first"):
        follow_once(scene.store, scene.source, SeriesId.parse("ETHUSDT", "1h"), clock=scene.clock)
    other = SeriesId.parse("BTCUSDQ", "1h")
    scene.store.upsert(other, BARS.iloc[:KNOWN])
    scene.clock.advance(HOUR)
    with pytest.raises(NotFoundError, match="did you mean 'BTCUSDT 1h'"):
        follow_once(scene.store, scene.source, other, clock=scene.clock)
    with pytest.raises(SettingsError, match="POLYGON_API_KEY"):
        open_provider("polygon", load_settings().providers, scene.clock)


def test_a_closed_market_is_not_asked_and_nothing_is_late(tmp_path: Path):
    friday = pd.Timestamp("2024-03-01 21:00", tz="UTC")  # the last hour of the week
    store, saturday = DeltaBarStore(tmp_path), FixedClock(datetime(2024, 3, 2, 15, tzinfo=UTC))
    store.upsert(EUR, random_bars(str(friday.tz_localize(None) - 50 * HOUR), 51))
    with FakeDukascopy("EURUSD", BARS).running() as server:
        settings = load_settings().providers.model_copy(update={"dukascopy_url": server.url})
        look = follow_once(store, open_provider("dukascopy", settings, saturday), EUR, clock=saturday)
    assert (look.new, look.late, server.requests) == (0, 0, [])
    assert look.next_close is not None and str(look.next_close) == "2024-03-04 00:00:00+00:00"
    assert pause_after(look, 0, saturday.now()) > 24 * 3600


@pytest.mark.parametrize(
    ("timeframe", "last", "closes"),
    [
        ("1d", "2025-12-24", "2025-12-27"),  # Christmas is no session
        ("1h", "2025-11-28 17:30", "2025-12-01 15:30"),  # the day after Thanksgiving ends at one o'clock
    ],
)
def test_holidays_and_half_days_of_new_york(timeframe: str, last: str, closes: str):
    series = SeriesId.parse("AAPL", timeframe)
    found = next_close(pd.Timestamp(last, tz="UTC"), series, CalendarName.US_EQUITY)
    assert found == pd.Timestamp(closes, tz="UTC")
    before = found - pd.Timedelta(seconds=1)
    assert due_bars(pd.Timestamp(last, tz="UTC"), series, CalendarName.US_EQUITY, before).empty
    assert len(due_bars(pd.Timestamp(last, tz="UTC"), series, CalendarName.US_EQUITY, found)) == 1


# --- as a job, and at the command line ---


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBinance]:
    """Serve the newest bars of this very hour, of which the workspace has all but the last three."""
    now = pd.Timestamp.now(tz="UTC").floor("min")
    bars = random_bars(str(now.tz_localize(None) - timedelta(minutes=90)), 95, "1m")
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with FakeBinance("BTCUSDT", bars).running() as server:
        monkeypatch.setenv("ORBIQUANT_PROVIDERS_EXCHANGE_URLS", f"binance={server.url}")
        Runtime().store.upsert(SeriesId.parse("BTCUSDT", "1m"), bars.iloc[:87])
        yield server


class Answer(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def ask(workspace: FakeBinance, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """Yield a function that runs a command line in the workspace."""

    def typed(*words: str) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    with using(Runtime()):
        yield typed


def interrupted(number: int, line: str, *words: str) -> tuple[int, str, str]:
    """Start a command, send it a signal when it has printed a line, and return how it ended and what it said."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([ORBIQUANT, *words], env=environment, **pipes)
    stream = process.stderr if line == "Working" else process.stdout
    assert stream is not None
    assert line in stream.readline()
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_one_look_is_a_job(workspace: FakeBinance):
    runtime, heard = Runtime(), list[int]()
    hears_new_bars(listener := lambda series, bars: heard.append(len(bars)))
    try:
        clock = FixedClock(datetime.now(UTC) - timedelta(minutes=2))
        given = {"symbol": "btc/usdt", "timeframe": "1m", "source": "binance"}
        schedule_job(runtime.engine, "btc", "data.follow", Schedule.parse("* * * * *"), clock, given)
        assert run_due(runtime.engine, "me", runtime.clock).ran == (), "it is a long job"
        worker = Worker(runtime.engine, runtime, poll_s=0.05)
        worker._take_due()
        assert worker._take_long()
    finally:
        from orbiquant.desk import jobs

        jobs._listeners.remove(listener)
    (run,) = [run for run in list_job_runs(runtime.engine, "btc") if run.status != "skipped"]
    assert run.status == "done" and run.result["new"] >= 3 and heard == [run.result["new"]], run.error
    assert "new bars" in run.result["told"]


def test_follow_at_the_command_line(workspace: FakeBinance, ask: Callable[..., Answer]):
    refused = ask("data", "follow", "BTCUSDT", "1m")
    assert refused.code == 1 and "`SOURCE` must be one of binance" in refused.err
    assert "must be one that grows" in ask("data", "follow", "BTCUSDT", "1m", "csv").err
    assert "did you mean 'binance'" in ask("data", "follow", "BTCUSDT", "1m", "binanse").err
    assert "pull it first" in ask("data", "follow", "ETHUSDT", "1m", "binance", "--once").err
    once = ask("data", "follow", "btc/usdt", "1m", "binance", "--once", "--json")
    assert json.loads(once.out)["new"] >= 3 and once.code == 0, once.err
    given = [f"--arg={each}" for each in ("symbol=BTCUSDT", "timeframe=1m", "source=binance")]
    assert ask("jobs", "add", "btc", "data.follow", "--schedule", "@every 1m", *given).code == 0
    code, _, complaint = interrupted(signal.SIGINT, "BTCUSDT 1m", "data", "follow", "BTCUSDT", "1m")
    assert code == 0 and "Traceback" not in complaint and complaint.strip().endswith("Ended."), complaint


def test_jobs_at_the_command_line(ask: Callable[..., Answer]):
    assert "Nothing is scheduled" in ask("jobs", "list").out and "No runs yet" in ask("jobs", "history").out
    given = [f"--arg={each}" for each in ("symbol=BTCUSDT", "timeframe=1m", "source=binance")]
    for words, told in (
        (("--schedule", "* * *"), "`schedule` must be five fields"),
        (("--schedule", "@daily", "--zone", "Europe/Madird"), "did you mean 'Europe/Madrid'"),
        (("--schedule", "@daily", "--arg", "sybol=1"), "`arguments` of data.follow must fit"),
        (("--schedule", "@daily", "--arg", "symbol"), "must be name=value"),
    ):
        refused = ask("jobs", "add", "btc", "data.follow", *words)
        assert refused.code in (1, 2) and told in refused.err, refused.err
    assert "`handler` must be one of" in ask("jobs", "add", "btc", "data.folow", "--schedule", "@daily").err
    added = ask("jobs", "add", "btc", "data.follow", "--schedule", "0 9 * * 1", "--zone", "Europe/Madrid", *given)
    assert added.code == 0 and "0 9 * * 1 (Europe/Madrid)" in added.out, added.err
    assert "data.follow" in ask("jobs", "list").out
    run = ask("jobs", "run", "btc")
    assert run.code == 0 and "done" in run.out and "new bars" in run.out, run.err
    (kept,) = json.loads(ask("jobs", "history", "--json").out)
    assert kept["status"] == "done" and kept["result"]["new"] >= 3
    assert "is due no more" in ask("jobs", "disable", "btc").out and "disabled" in ask("jobs", "list").out
    assert "is due at" in ask("jobs", "enable", "btc").out
    failed = ask(
        "jobs", "run", "data.follow", "--arg", "symbol=ETHUSDT", "--arg", "timeframe=1m", "--arg=source=binance"
    )
    assert failed.code == 1 and "failed" in failed.out and "pull it first" in failed.out
    assert "scheduled no more" in ask("jobs", "remove", "btc").out
    assert "no job 'btc' is scheduled" in ask("jobs", "remove", "btc").err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_works_ends_cleanly(workspace: FakeBinance, number: signal.Signals):
    code, _, said = interrupted(number, "Working", "jobs", "work")
    assert code == 0 and "Traceback" not in said and said.strip().endswith("Ended."), said
