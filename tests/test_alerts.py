"""Alerts: as many firings as alerts whose price was crossed, by an oracle, whatever restarts and however many look."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from sqlalchemy import Engine, func, select, text

from orbiquant.core import ConflictError, FixedClock
from orbiquant.domain import Bars, SeriesId, Timeframe
from orbiquant.notices import alerts as module
from orbiquant.notices.alerts import add_alert, judge_alerts, list_alerts, price_alerts
from orbiquant.notices.config import NoticeConfig
from orbiquant.notices.crossings import AlertStatus, Condition, first_crossing
from orbiquant.notices.outbox import PAUSES, Notice, deliver, list_notices, put_notice
from orbiquant.notices.signing import sign_webhook
from orbiquant.notices.telling import senders_of
from orbiquant.persistence import engine, migrate, writing
from tests.tools.postgres import migrated_postgres

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)
BTC = SeriesId.parse("BTCUSDT", "1h")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TABLES = "price_alerts, alert_marks, notices"


@pytest.fixture(scope="module")
def server() -> Iterator[Engine]:
    """A migrated PostgreSQL."""
    with migrated_postgres() as made:
        yield made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A migrated SQLite."""
    made = engine(f"sqlite:///{tmp_path_factory.mktemp('alerts') / 'alerts.db'}")
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue("file" if request.param == "sqlite" else "server")


def forget(database: Engine) -> None:
    """Empty the tables of alerts."""
    with writing(database) as connection:
        for table in TABLES.split(", "):
            connection.execute(text(f"DELETE FROM {table}"))


# --- the rule, against every way that fits a bar ---


def ways(bar: tuple[float, float, float, float]) -> list[list[float]]:
    """Return the two shortest ways through a bar's four prices: up first, and down first."""
    opened, high, low, close = bar
    return [[opened, high, low, close], [opened, low, high, close]]


def crosses(before: float, path: list[float], price: float, above: bool) -> bool:
    """Say whether a way crosses a price: from the other side, to it."""
    sign = 1 if above else -1
    points = [before, *path]
    return any(sign * a < sign * price <= sign * b for a, b in pairwise(points))


PRICE = st.integers(90, 110).map(float)


@st.composite
def one_bar(draw: Any) -> tuple[float, float, float, float]:
    opened, close = draw(PRICE), draw(PRICE)
    high, low = max(opened, close) + draw(st.integers(0, 4)), min(opened, close) - draw(st.integers(0, 4))
    return opened, high, low, close


def frame(rows: list[tuple[float, float, float, float]], start: datetime = START) -> Bars:
    """Return bars of one hour."""
    index = pd.date_range(start, periods=len(rows), freq="h", name="time")
    return pd.DataFrame(rows, index, ["open", "high", "low", "close"], dtype=float).assign(volume=1.0)


@given(bar=one_bar(), before=PRICE, price=PRICE, above=st.booleans())
def test_a_crossing_is_told_when_every_way_through_the_bar_makes_it(
    bar: tuple[float, float, float, float], before: float, price: float, above: bool
):
    condition = Condition.ABOVE if above else Condition.BELOW
    told = first_crossing(frame([bar]), Timeframe.H1, before, price, condition, START)
    assert (told is not None) == all(crosses(before, path, price, above) for path in ways(bar))
    partly = first_crossing(frame([bar]), Timeframe.H1, before, price, condition, START + HOUR / 2)
    assert (partly is not None) == crosses(before, [bar[3]], price, above)
    assert first_crossing(frame([bar]), Timeframe.H1, before, price, condition, START + HOUR) is None


# --- an alert's life, against the oracle ---


def oracle(rows: list[Any], price: float, above: bool, since: int) -> int | None:
    """Return the number of the first bar that crosses for certain, of those that opened after `since` bars."""
    for number in range(max(since, 1), len(rows)):
        if all(crosses(rows[number - 1][3], path, price, above) for path in ways(rows[number])):
            return number
    return None


ALERTS = st.lists(st.tuples(st.integers(1, 19), PRICE, st.booleans()), min_size=1, max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(one_bar(), min_size=20, max_size=20), asked=ALERTS, data=st.data())
def test_as_many_fire_as_were_crossed_whatever_restarts(database: Engine, rows: list[Any], asked: Any, data: Any):
    forget(database)
    bars, clock = frame(rows), FixedClock(START)
    expected = {}
    for number in range(1, 21):
        clock.advance(START + number * HOUR - clock.now())
        for since, price, above in asked:
            if since == number:  # set as the bar before closes: what opens from now on counts
                side = Condition.ABOVE if above else Condition.BELOW
                made = add_alert(database, clock, "ana", "BTCUSDT", side, Decimal(price))
                expected[made.id] = oracle(rows, price, above, since)
        look = data.draw(st.sampled_from(["none", "once", "twice", "crash"]))
        if look == "crash":
            crash(database, clock, bars)
        for _ in range({"none": 0, "once": 1, "twice": 2, "crash": 1}[look]):
            judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
    judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
    found = {each.id: each for each in list_alerts(database, "ana")}
    fired = {name: each.fired_at for name, each in found.items() if each.status is AlertStatus.FIRED}
    assert fired == {name: START + (bar + 1) * HOUR for name, bar in expected.items() if bar is not None}
    told = [each.id for each in list_notices(database)]
    assert sorted(told) == sorted(f"alert_{name}" for name in fired), "each has one notice"


def crash(database: Engine, clock: FixedClock, bars: Bars) -> None:
    """Judge, and die before the commit: nothing of it may be left."""
    kept, was = [], module._move_mark
    with pytest.MonkeyPatch.context() as patch:

        def die(*args: Any) -> None:
            was(*args)
            kept.append(1)
            raise RuntimeError("power cut")

        patch.setattr(module, "_move_mark", die)
        try:
            judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
        except RuntimeError:
            assert kept


def test_two_alerts_on_one_price_both_fire_and_a_gap_fires_once(database: Engine):
    forget(database)
    clock = FixedClock(START + HOUR)
    twins = [add_alert(database, clock, who, "BTCUSDT", Condition.ABOVE, Decimal(105)) for who in ("ana", "ana", "ben")]
    bars = frame([(100, 101, 99, 100), (110, 112, 108, 109), (104, 106, 103, 104), (106, 107, 104, 106)])
    clock.advance(3 * HOUR)
    fired = judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
    assert {each.id for each in fired} == {each.id for each in twins} and {each.fired_price for each in fired} == {
        110.0
    }
    assert judge_alerts(database, clock, BTC, lambda since: bars.loc[since:]) == []


def test_who_sets_one_while_bars_are_judged_sees_them_as_past(database: Engine):
    """A clock that is behind makes nothing of what was judged count again."""
    forget(database)
    clock, late = FixedClock(START + 3 * HOUR), FixedClock(START + HOUR)
    bars = frame([(100, 101, 99, 100), (100, 106, 99, 100), (100, 101, 99, 100), (100, 106, 99, 100)])
    add_alert(database, clock, "ana", "BTCUSDT", Condition.ABOVE, Decimal(200))
    judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
    made = add_alert(database, late, "ana", "BTCUSDT", Condition.ABOVE, Decimal(105))
    assert made.made_at == START + 3 * HOUR
    clock.advance(HOUR)
    (fired,) = judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])
    assert fired.fired_at == START + 4 * HOUR


JUDGE = """
import sys
from datetime import datetime, timedelta
import pandas as pd
from orbiquant.core import FixedClock
from orbiquant.domain import SeriesId
from orbiquant.notices.alerts import judge_alerts
from orbiquant.persistence import engine

url, path, start = sys.argv[1:]
bars = pd.read_pickle(path)
clock, database = FixedClock(datetime.fromisoformat(start)), engine(url)
fired = 0
sys.stdin.readline()
for number in range(len(bars)):
    clock.advance(timedelta(hours=1))
    fired += len(judge_alerts(database, clock, SeriesId.parse("BTCUSDT", "1h"), lambda since: bars.loc[since:]))
print(fired)
"""


def test_two_processes_fire_each_alert_once(database: Engine, tmp_path: Path):
    forget(database)
    chance, clock = np.random.default_rng(7), FixedClock(START)
    close = 100 + np.cumsum(chance.normal(0, 1, 60)).round()
    rows = [(a, max(a, b) + 1, min(a, b) - 1, b) for a, b in zip([100, *close[:-1]], close, strict=True)]
    bars = frame(rows)
    bars.to_pickle(tmp_path / "bars.pkl")
    prices = [(int(price), above) for price in chance.integers(90, 111, 40) for above in (True, False)]
    made = [
        add_alert(
            database, clock, "ana", "BTCUSDT", Condition.ABOVE if above else Condition.BELOW, Decimal(price), most=99
        )
        for price, above in prices
    ]
    expected = sum(oracle([(100, 100, 100, 100), *rows], price, above, 1) is not None for price, above in prices)
    one_less = sum(oracle(rows, price, above, 1) is not None for price, above in prices)
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", JUDGE, url, str(tmp_path / "bars.pkl"), START.isoformat()]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for each in running:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    counts = [int(each.communicate(timeout=120)[0]) for each in running]
    fired = [each for each in list_alerts(database, "ana") if each.status is AlertStatus.FIRED]
    assert sum(counts) == len(fired) == len(list_notices(database, 1000)) and len(made) == 80
    assert one_less <= len(fired) <= expected, "the first bar has none before it"


# --- the outbox and the ways ---


class Receiver:
    """A webhook's receiver and a bot's server that fail as told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.faults: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append((self.path, {n.lower(): v for n, v in self.headers.items()}, content))
                status = receiver.faults.pop(0) if receiver.faults else 200
                said = b'{"ok": true}' if status == 200 else f"no, {self.path}".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *said: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def config(receiver: Receiver, *ways: str) -> NoticeConfig:
    given = {"webhook_url": f"{receiver.url}/hook", "webhook_secret": SECRET, "telegram_url": receiver.url}
    return NoticeConfig.model_validate(given | {"telegram_token": "42:hunter2", "telegram_chat": "7", "channels": ways})


def test_what_nobody_takes_is_sent_again_under_the_same_id(database: Engine, receiver: Receiver):
    forget(database)
    clock, set_up = FixedClock(START), config(receiver, "webhook", "telegram")
    put_notice(database, clock, "alert_1", "alert.fired", "ana", "BTC is above 1", {"alert_id": "1"}, set_up.channels)
    senders = senders_of(set_up, clock)
    receiver.faults = [500, 401, 302, 400]
    sent = [deliver(database, clock, senders)]
    for pause in PAUSES[:2]:
        clock.advance(pause)
        sent.append(deliver(database, clock, senders))
    assert [(each.sent, each.failed) for each in sent] == [(0, 2), (0, 2), (2, 0)]
    clock.advance(timedelta(days=9))
    assert deliver(database, clock, senders).sent == 0, "what was taken is not sent again"
    hooks = [(headers, body) for path, headers, body in receiver.heard if path == "/hook"]
    assert {headers["webhook-id"] for headers, _ in hooks} == {"alert_1"} and len({body for _, body in hooks}) == 1
    for headers, body in hooks:
        then = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert (
            headers["webhook-signature"] == sign_webhook(SecretStr(SECRET), "alert_1", then, body)["webhook-signature"]
        )
    assert "hunter2" not in json.dumps([each.fault for each in list_notices(database)])


def test_a_secret_is_in_no_fault_and_in_no_log(
    database: Engine, receiver: Receiver, capsys: pytest.CaptureFixture[str]
):
    forget(database)
    clock, set_up = FixedClock(START), config(receiver, "webhook", "telegram")
    put_notice(database, clock, "a", "alert.fired", "ana", "x", {}, set_up.channels)
    senders = senders_of(set_up, clock)
    receiver.faults = [401, 404]
    deliver(database, clock, senders)
    receiver.server.shutdown()
    receiver.server.server_close()
    clock.advance(timedelta(minutes=5))
    deliver(database, clock, senders)
    said = json.dumps([each.fault for each in list_notices(database)]) + "".join(capsys.readouterr()) + repr(set_up)
    assert "hunter2" not in said and "MfKQ" not in said and all(each.fault for each in list_notices(database))


def test_of_two_who_send_one_has_a_notice(database: Engine):
    forget(database)
    clock, heard = FixedClock(START), list[str]()
    for number in range(20):
        put_notice(database, clock, f"n{number}", "alert.fired", "ana", f"{number}", {}, ["log"])
    begin = threading.Barrier(2)

    def send() -> None:
        begin.wait()
        deliver(database, clock, {"log": lambda notice: heard.append(notice.text)})

    threads = [threading.Thread(target=send) for _ in range(2)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert sorted(heard, key=int) == [str(number) for number in range(20)]


def test_a_way_that_is_chosen_must_be_complete():
    for wrong in (
        {"channels": "webhook"},
        {"channels": "telegram", "telegram_token": "1:x"},
        {"channels": "pigeon"},
        {"channels": ""},
        {"webhook_secret": "hunter2"},
        {"webhook_url": "ftp://x"},
        {"alerts": 0},
        {"answer_s": "NaN"},
    ):
        with pytest.raises(ValidationError) as refused:
            NoticeConfig.model_validate(wrong)
        assert "hunter2" not in refused.value.errors()[0]["msg"]


def test_a_sender_that_breaks_otherwise_is_no_way_to_lose_a_notice(database: Engine):
    forget(database)
    clock = FixedClock(START)
    put_notice(database, clock, "n", "alert.fired", "ana", "x", {}, ["log"])

    def breaks(notice: Notice) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        deliver(database, clock, {"log": breaks})
    clock.advance(timedelta(minutes=1))
    heard: list[str] = []
    assert deliver(database, clock, {"log": lambda notice: heard.append(notice.id)}).sent == 1 and heard == ["n"]


def test_only_those_that_wait_count_towards_the_limit(database: Engine):
    forget(database)
    clock = FixedClock(START + HOUR)
    for _ in range(3):
        add_alert(database, clock, "ana", "BTCUSDT", Condition.ABOVE, Decimal(105), most=3)
    with pytest.raises(ConflictError, match="at most 3 alerts"):
        add_alert(database, clock, "ana", "BTCUSDT", Condition.ABOVE, Decimal(105), most=3)
    clock.advance(HOUR)
    bars = frame([(100, 101, 99, 100), (100, 106, 99, 100)])
    assert len(judge_alerts(database, clock, BTC, lambda since: bars.loc[since:])) == 3
    add_alert(database, clock, "ana", "BTCUSDT", Condition.ABOVE, Decimal(105), most=3)
    with database.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(price_alerts)) == 4
