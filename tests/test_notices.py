"""People are told of fills, halts and days; receivers answer, refuse, hang and drip, and trading never waits."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from test_heard import SECRET, Floor, last_of

from orbiquant.core import FixedClock
from orbiquant.desk.agents import room_of
from orbiquant.desk.periods import DayTeller, schedule_accounts
from orbiquant.jobs.schedule import run_due
from orbiquant.notices.courier import Courier
from orbiquant.notices.outbox import FILLED, PAUSES, Notice, deliver, list_notices, put_notice
from orbiquant.notices.signing import check_webhook
from orbiquant.persistence import engine, migrate
from orbiquant.trading import engine as engine_module
from tests.tools.postgres import migrated_postgres

HOOK_SECRET, TOKEN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "42:the-token-of-the-bot"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Receiver:
    """A webhook's receiver and a bot's server."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                receiver.heard.append((self.path, headers, content))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "11")
                self.end_headers()
                self.wfile.write(b'{"ok":true}')

            def log_message(self, *said: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Return the webhooks of a kind, as programs read them."""
        bodies = [json.loads(content) for path, _, content in self.heard if path == "/hook"]
        return [body for body in bodies if body["type"] == kind]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hung() -> Iterator[str]:
    """The address of a receiver that takes a connection and never says anything."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a receiver that answers a letter at a time and never ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        line, _ = listener.accept()
        try:
            line.recv(65536)
            for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
                line.sendall(bytes([letter]))
                time.sleep(0.05)
        except OSError:
            return

    threading.Thread(target=drip, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def ways(url: str, channels: str = "webhook", **changes: Any) -> dict[str, Any]:
    """Return settings by which people are told at an address."""
    made = {"webhook_url": f"{url}/hook", "webhook_secret": HOOK_SECRET, "telegram_url": url, "telegram_token": TOKEN}
    return made | {"telegram_chat": "7", "channels": channels, "answer_s": 5} | changes


def trading(folder: Path, notices: dict[str, Any]) -> Floor:
    """Return a floor whose agent has begun and is about to be filled."""
    floor = Floor(folder, last_of("neutral", "distribution", "accumulation", "invalidated"), notices)
    floor.start()
    floor.said()
    return floor


def halt(floor: Floor, reason: str) -> None:
    """Halt Atlas, as a breach does."""
    with room_of(floor.runtime).at("paper-usdt") as made:
        made.halt(next(agent for agent in made.crew() if agent.name == "atlas"), reason)


# --- what is told ---


def test_a_fill_is_told_once_signed_and_in_words(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url, "webhook, telegram"))
    floor.close()
    assert floor.runtime.courier.rest(20)
    (told,) = receiver.told("order.filled")
    held = floor.engine.books.positions("atlas")[0]
    assert (told["data"]["symbol"], told["data"]["side"], told["data"]["owner"]) == ("BTCUSDT", "BUY", "atlas")
    assert told["data"]["quantity"] == f"{held.quantity.normalize():f}" and "(webhook)" in told["data"]["text"]
    for path, headers, content in receiver.heard:
        if path == "/hook":
            stamp = dict(headers)["webhook-timestamp"]
            moment = datetime.fromtimestamp(int(stamp), UTC)
            check_webhook([SecretStr(HOOK_SECRET)], headers, content, moment, timedelta(minutes=1))
        else:
            assert path == f"/bot{TOKEN}/sendMessage" and json.loads(content)["text"] == told["data"]["text"]
    before = len(receiver.heard)
    floor.restart()
    floor.turn()
    floor.runtime.courier.rest(20)
    assert len(receiver.heard) == before == 2


def test_a_halt_says_why_and_what_ends_it_and_no_secret(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url))
    halt(floor, f"the venue refused {SECRET} and {TOKEN}")
    halt(floor, "again")
    floor.runtime.courier.wake()
    assert floor.runtime.courier.rest(20)
    (told,) = receiver.told("agent.halted")
    assert told["data"]["text"].startswith("atlas is halted: the venue refused *** and ***. It opens nothing until")
    assert "`orbiquant agent resume atlas`" in told["data"]["text"]
    said = b"".join(content for _, _, content in receiver.heard).decode()
    assert SECRET not in said and TOKEN not in said and HOOK_SECRET not in said


def test_what_fails_half_way_is_not_told(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url))
    with pytest.MonkeyPatch.context() as patch:

        def die(*args: Any, **more: Any) -> None:
            raise OSError("the power goes")

        patch.setattr(engine_module.TradingEngine, "flush", die)
        with pytest.raises(OSError, match="power"):
            floor.close()
    assert [each for each in list_notices(floor.runtime.engine) if each.kind == FILLED] == []
    floor.turn()
    assert len([each for each in list_notices(floor.runtime.engine) if each.kind == FILLED]) == 1


def test_only_what_somebody_wants_to_hear_is_told(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url, tell="halts"))
    floor.close()
    halt(floor, "drawdown 5.1 %")
    assert {each.kind for each in list_notices(floor.runtime.engine)} == {"agent.halted"}


# --- receivers that do not do their part ---


@pytest.mark.parametrize("kind", ["hung", "dripping"])
def test_a_receiver_that_does_not_end_delays_neither_an_engine_nor_another_way(
    tmp_path: Path, receiver: Receiver, request: pytest.FixtureRequest, kind: str
):
    slow = {"webhook_url": request.getfixturevalue(kind), "answer_s": 40}
    floor = trading(tmp_path, ways(receiver.url, "webhook, telegram") | slow)
    took = []
    for _ in range(4):
        begun = time.monotonic()
        floor.close()
        took.append(time.monotonic() - begun)
    until = time.monotonic() + 20
    while not receiver.heard and time.monotonic() < until:
        time.sleep(0.05)
    assert max(took) < 20, "a look takes as long as it does, not the forty seconds that a receiver is waited for"
    assert receiver.heard[0][0] == f"/bot{TOKEN}/sendMessage"
    waits = [each for each in list_notices(floor.runtime.engine) if each.way == "webhook"]
    assert waits and not waits[-1].sent_at


def test_a_receiver_that_fails_is_asked_again_under_the_same_id(tmp_path: Path, receiver: Receiver):
    receiver.statuses = [500, 503]
    floor = trading(tmp_path, ways(receiver.url))
    floor.close()
    floor.runtime.courier.rest(20)
    for pause in PAUSES[:2]:
        floor.clock.advance(pause)
        floor.runtime.courier.wake()
        assert floor.runtime.courier.rest(20)
    ids = [dict(headers)["webhook-id"] for _, headers, _ in receiver.heard]
    assert len(ids) == 3 and len(set(ids)) == 1 and list_notices(floor.runtime.engine)[0].attempts == 3


def test_nobody_listens_and_the_agent_trades_on(tmp_path: Path):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    floor = trading(tmp_path, ways(url))
    floor.close()
    floor.runtime.courier.rest(20)
    assert floor.engine.books.positions("atlas") and list_notices(floor.runtime.engine)[0].fault


# --- no more than people read ---


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        with migrated_postgres() as made:
            yield made
        return
    made = engine(f"sqlite:///{tmp_path / 'notices.db'}")
    migrate(made)
    yield made
    made.dispose()


def test_a_way_carries_so_many_a_minute_and_sums_up_fills(database: Engine):
    clock, heard = FixedClock(START), list[Notice]()
    for number in range(200):
        put_notice(database, clock, f"fill_{number:03}", FILLED, "atlas", f"fill {number}", {}, ["log"])
    put_notice(database, clock, "halt", "agent.halted", "atlas", "atlas is halted", {}, ["log"])
    for _ in range(3):
        deliver(database, clock, {"log": heard.append}, per_minute=20)
    assert len(heard) == 20 and heard[0].id == "halt"
    assert heard[-1].text == "and 182 more orders were filled: the journal has them all"
    assert sum(each.kind == FILLED for each in heard) + heard[-1].facts["count"] == 200
    assert all(each.sent_at for each in list_notices(database, 1000)), "nothing waits for ever"
    for number in range(30):
        put_notice(database, clock, f"alert_{number:02}", "alert.fired", "ana", f"{number}", {}, ["log"])
    for minute in range(3):
        clock.advance(timedelta(seconds=61))
        deliver(database, clock, {"log": heard.append}, per_minute=20)
        assert len(heard) == (40, 50, 50)[minute], "what people wait for is sent one by one"


def test_two_processes_sum_up_each_fill_once(database: Engine):
    clock, heard = FixedClock(START), list[Notice]()
    for number in range(300):
        put_notice(database, clock, f"fill_{number:03}", FILLED, "atlas", f"{number}", {}, ["log"])
    couriers = [Courier(database, clock, {"log": heard.append}, per_minute=10) for _ in range(2)]
    for each in couriers:
        each.wake()
    assert all(each.rest(30) for each in couriers)
    clock.advance(timedelta(minutes=2))
    for each in couriers:
        each.wake()
        each.rest(30)
    fills = [each.id for each in heard if each.kind == FILLED]
    more = sum(int(str(each.facts["count"])) for each in heard if each.kind != FILLED)
    assert len(fills) == len(set(fills)) and len(fills) + more == 300


# --- a day ---


def test_whoever_only_runs_agents_is_told_the_day_once(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url))
    floor.close()
    day = floor.clock.now().date()

    def trades() -> None:
        room = room_of(floor.runtime)
        room.beside = DayTeller(floor.runtime).look
        for _ in range(2):
            assert not room.looks()[0].said
        assert floor.runtime.courier.rest(20)

    trades()
    assert not receiver.told("day.summary"), "the agent began today"
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    floor.clock.advance(midnight + timedelta(seconds=10) - floor.clock.now())
    for holder in ("one", "two"):
        floor.restart()
        trades()
        schedule_accounts(floor.runtime)
        run_due(floor.runtime.engine, holder, floor.clock, floor.runtime)
        assert floor.runtime.courier.rest(20)
    (told,) = receiver.told("day.summary")
    assert told["data"]["day"] == f"{day}" and [each["agent"] for each in told["data"]["agents"]] == ["atlas"]


def test_a_day_is_told_once_whatever_restarts(tmp_path: Path, receiver: Receiver):
    floor = trading(tmp_path, ways(receiver.url))
    schedule_accounts(floor.runtime)
    floor.close()
    halt(floor, "daily loss of 3 % reached")
    day: date = floor.clock.now().date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    floor.clock.advance(midnight + timedelta(seconds=10) - floor.clock.now())
    for holder in ("one", "two", "three"):
        floor.restart()
        run_due(floor.runtime.engine, holder, floor.clock, floor.runtime)
        floor.runtime.courier.rest(20)
    (told,) = receiver.told("day.summary")
    (atlas,) = told["data"]["agents"]
    assert (told["data"]["day"], atlas["agent"], atlas["halted"]) == (f"{day}", "atlas", "daily loss of 3 % reached")
    assert "HALTED: daily loss of 3 % reached" in told["data"]["text"] and float(atlas["open_risk"]) > 0
    equity = float(floor.engine.standing.equity_of("atlas"))
    assert atlas["equity"] == pytest.approx(equity, abs=100) and abs(atlas["profit"]) < 200
