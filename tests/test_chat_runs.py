"""A turn lives apart from its request: clients vanish, come back, come twice, read slowly, come to another process."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, func, select
from test_service_http import check_problem

from orbiquant.copilot.conversation_tables import (
    conversation_entries,
    conversations,
    drop_conversations,
    turn_events,
    turn_runs,
)
from orbiquant.copilot.run_book import Batch, KeptRun, begin_run, find_kept_run, keep_runs
from orbiquant.core import SystemClock, configure_logging
from orbiquant.desk.study import store_sample
from orbiquant.persistence import engine, migrate, writing
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import create_api_key
from tests.tools.postgres import migrated_postgres
from tests.tools.programs import run_program
from tests.tools.slow_chat import count, slow_runtime

Event = tuple[str, Any]  # its id, and what came


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = slow_runtime(tmp_path_factory.mktemp("runs"))
    with using(made):
        store_sample()
    return made


def keyed(runtime: Runtime, address: str, user: str, *scopes: str) -> httpx.Client:
    """Return a client with a key of its own."""
    allowed = scopes or ("read", "write", "trade")
    key = create_api_key(runtime.engine, "test", user, "pro", allowed, runtime.clock)
    return httpx.Client(base_url=address, timeout=30, headers={"X-API-Key": key})


@pytest.fixture
def ana(runtime: Runtime, address: str) -> Iterator[httpx.Client]:
    with keyed(runtime, address, "ana") as client:
        yield client


def events(response: httpx.Response) -> Iterator[Event]:
    """Yield the events of a stream as they come, comments left out."""
    id_ = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            id_ = line[4:]
        elif line.startswith("data: "):
            yield id_, line[6:] if line == "data: [DONE]" else json.loads(line[6:])


@contextmanager
def asked(client: httpx.Client, talk: str, message: str) -> Iterator[httpx.Response]:
    """Yield the stream that answers a message."""
    body = {"message": message, "conversation_id": talk, "stream": True}
    with client.stream("POST", "/api/v1/chat", json=body) as response:
        assert response.status_code == 200, response.read()
        yield response


def leave_at(client: httpx.Client, talk: str, message: str, number: int) -> list[Event]:
    """Return the first events of an answer, whose client then vanishes."""
    seen: list[Event] = []
    with asked(client, talk, message) as response:
        for event in events(response):
            seen.append(event)
            if len(seen) == number:
                break
    return seen


def come_back(client: httpx.Client, talk: str, last: str | None = None) -> list[Event]:
    """Return the rest of a turn."""
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", f"/api/v1/chat/{talk}/stream", headers=headers) as response:
        assert response.status_code == 200, response.read()
        return [*events(response)]


def text_of(seen: list[Event]) -> str:
    """Return what events say."""
    return "".join(event.get("delta", "") for _, event in seen if isinstance(event, dict))


def check_numbers(seen: list[Event]) -> None:
    """Assert that events are of one run from its first on, none missing and none twice."""
    runs, numbers = zip(*(id_.rsplit("-", 1) for id_, _ in seen), strict=True)
    assert len(set(runs)) == 1 and [int(each) for each in numbers] == [*range(1, len(seen) + 1)]


def check_whole(seen: list[Event], words: int) -> None:
    """Assert that events are one run from its first to its last, none missing and none twice."""
    check_numbers(seen)
    assert text_of(seen) == "".join(f"w{number} " for number in range(1, words + 1))
    assert seen[-1][1] == "[DONE]"


def said(client: httpx.Client, talk: str) -> str:
    """Return what the copilot said last in a conversation that is kept."""
    last = client.get(f"/api/v1/chat/{talk}").raise_for_status().json()["messages"][-1]
    assert last["role"] == "assistant"
    return "".join(part.get("text", "") for part in last["parts"])


# --- one process ---


def test_who_leaves_at_an_event_and_comes_back_misses_nothing(ana: httpx.Client):
    seen = leave_at(ana, "leaves", count(60, 10), 20)
    rest = come_back(ana, "leaves", seen[-1][0])
    check_whole(seen + rest, 60)
    assert said(ana, "leaves") == text_of(seen + rest)


def test_who_leaves_before_the_first_event_finds_the_turn_on_its_way(ana: httpx.Client):
    with asked(ana, "early", count(30, 10)) as response:
        assert response.headers["x-conversation-id"] == "early" and len(response.headers["x-run-id"]) == 32
    check_whole(come_back(ana, "early"), 30)


def test_the_turn_goes_on_when_nobody_comes_back(ana: httpx.Client):
    leave_at(ana, "alone", count(20, 10), 3)
    until(lambda: len(ana.get("/api/v1/chat/alone").json()["messages"]) == 2)
    assert said(ana, "alone").endswith("w20 ")


def until(true: Any, at_most_s: float = 10) -> None:
    """Wait until something is so."""
    end = time.monotonic() + at_most_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_second_message_meets_a_busy_conversation(ana: httpx.Client):
    seen = leave_at(ana, "busy", count(60, 10), 5)
    again = ana.post("/api/v1/chat", json={"message": "hello?", "conversation_id": "busy", "stream": True})
    check_problem(again, 409, "CONFLICT")
    check_whole(seen + come_back(ana, "busy", seen[-1][0]), 60)


def test_who_comes_back_after_the_end_is_told_so(ana: httpx.Client):
    with asked(ana, "over", count(5, 1)) as response:
        seen = [*events(response)]
    assert come_back(ana, "over", seen[2][0]) == seen[3:]
    for last in (None, seen[-1][0]):
        told = ana.get("/api/v1/chat/over/stream", headers={"Last-Event-ID": last} if last else {})
        assert told.status_code == 204 and told.content == b""


def test_nobody_reads_the_turn_of_somebody_else(runtime: Runtime, address: str, ana: httpx.Client):
    seen = leave_at(ana, "private", count(40, 10), 3)
    with keyed(runtime, address, "eve") as eve:
        for headers in ({}, {"Last-Event-ID": seen[-1][0]}):
            foreign = check_problem(eve.get("/api/v1/chat/private/stream", headers=headers), 404, "NOT_FOUND")
            absent = check_problem(eve.get("/api/v1/chat/nothing/stream", headers=headers), 404, "NOT_FOUND")
            assert foreign["message"].replace("private", "nothing") == absent["message"]
        check_problem(eve.get("/api/v1/chat/private/stream?user_id=ana"), 403, "FORBIDDEN")
    check_whole(seen + come_back(ana, "private", seen[-1][0]), 40)


@pytest.mark.parametrize(
    "last", ["20", "x-1", "0" * 32 + "-+1", "0" * 32 + "-1e3", "0" * 32 + "-" + "9" * 30, "a" * 5000]
)
def test_an_id_that_is_none_is_refused(ana: httpx.Client, last: str):
    talk = uuid4().hex
    leave_at(ana, talk, count(1, 1), 1)
    for sent in ({"headers": {"Last-Event-ID": last}}, {"params": {"last_event_id": last}}):
        check_problem(ana.get(f"/api/v1/chat/{talk}/stream", **sent), 422, "OPTION_INVALID")


def test_a_run_that_is_not_kept_is_gone(ana: httpx.Client):
    leave_at(ana, "gone", count(1, 1), 1)
    check_problem(ana.get("/api/v1/chat/gone/stream", headers={"Last-Event-ID": "0" * 32 + "-3"}), 410, "GONE")


def test_several_read_one_turn_and_a_slow_one_holds_nobody_up(ana: httpx.Client, address: str):
    with asked(ana, "many", count(80, 10)) as response, ThreadPoolExecutor(4) as pool:
        run = response.headers["x-run-id"]
        headers = dict(ana.headers)
        others = [pool.submit(read_raw, address, headers, "many", f"{run}-{after}") for after in (0, 0, 5)]
        slow = pool.submit(read_raw, address, headers, "many", f"{run}-0", 1.0)
        seen = [*events(response)]
        took_s = time.monotonic()
        check_whole(seen, 80)
        heard = [each.result() for each in others]
        assert time.monotonic() - took_s < 5
        assert [text_of(each) for each in heard[:2]] == [text_of(seen)] * 2 and heard[2] == seen[5:]
        assert slow.result() < 100, "bytes, of which it took one a second"


def read_raw(address: str, headers: dict[str, str], talk: str, last: str, pause_s: float = 0) -> Any:
    """Return the events after one; or, a byte a time, how many bytes came until the others had long been done."""
    asked_for = {"headers": headers | {"Last-Event-ID": last}, "timeout": 30}
    with httpx.stream("GET", f"{address}/api/v1/chat/{talk}/stream", **asked_for) as response:
        if not pause_s:
            return [*events(response)]
        taken = 0
        for _ in zip(range(3), response.iter_raw(1), strict=False):
            taken += 1
            time.sleep(pause_s)
        return taken


def test_the_client_that_asked_for_no_stream_may_vanish_too(ana: httpx.Client):
    body = {"message": count(20, 20), "conversation_id": "whole"}
    with pytest.raises(httpx.ReadTimeout):
        ana.post("/api/v1/chat", json=body, timeout=0.2)
    seen = come_back(ana, "whole")
    check_whole(seen, 20)
    assert said(ana, "whole") == text_of(seen)


def test_a_turn_is_stopped_while_its_client_is_away(ana: httpx.Client):
    seen = leave_at(ana, "stopped", count(2000, 5), 10)
    assert ana.post("/api/v1/chat/stopped/stop").json() == {"status": "stopped"}
    rest = come_back(ana, "stopped", seen[-1][0])
    assert "abort" in [event["type"] for _, event in rest[:-1]] and rest[-1][1] == "[DONE]"
    assert said(ana, "stopped").startswith("w1 w2 ") and len(rest) < 1000
    assert ana.post("/api/v1/chat/stopped/stop").json() == {"status": "idle"}


def test_a_conversation_that_is_deleted_takes_its_runs_along(ana: httpx.Client, runtime: Runtime):
    seen = leave_at(ana, "deleted", count(5, 1), 3)
    until(lambda: ana.get("/api/v1/chat/deleted/stream").status_code == 204)
    assert ana.delete("/api/v1/context/ana/deleted").json() == {"status": "cleared"}
    told = ana.get("/api/v1/chat/deleted/stream", headers={"Last-Event-ID": seen[-1][0]})
    check_problem(told, 404, "NOT_FOUND")
    with runtime.engine.connect() as connection:
        left = connection.scalar(select(func.count()).where(turn_runs.c.conversation_id == "deleted"))
    assert left == 0


def test_a_page_that_opens_in_the_middle_draws_what_was_before_and_follows(ana: httpx.Client):
    first = leave_at(ana, "page", count(2, 1), 100)
    seen = leave_at(ana, "page", count(60, 10), 5)
    shown = ana.get("/api/v1/chat/page").raise_for_status().json()
    assert set(shown) == {"conversation_id", "messages", "tickets", "run", "said", "state"}
    assert shown["run"] == seen[0][0].rpartition("-")[0] and shown["said"] == count(60, 10)
    assert [each["role"] for each in shown["messages"]] == ["user", "assistant"] and shown["state"]["busy"] is True
    check_whole(come_back(ana, "page"), 60)
    after = ana.get("/api/v1/chat/page").json()
    assert (after["run"], after["said"], after["state"]["busy"]) == (None, None, False) and len(after["messages"]) == 4
    told = ana.get("/api/v1/chat/page/stream", headers={"Last-Event-ID": first[2][0]})
    assert told.status_code == 200 and told.text.count("id: ") == len(first) - 3, "an earlier run that is known"
    (line,) = [each for each in ana.get("/api/v1/chat").json()["conversations"] if each["id"] == "page"]
    assert line["title"] == count(2, 1) and line["pending"] == 0


def test_a_name_that_no_header_can_hold_is_told_as_an_address(ana: httpx.Client):
    with asked(ana, "año 日本", "hola") as response:
        assert unquote(response.headers["x-conversation-id"]) == "año 日本"
    unnamed = ana.post("/api/v1/chat", json={"message": count(3, 1), "stream": True})
    named = unnamed.headers["x-conversation-id"]
    assert said(ana, named) == "w1 w2 w3 "


def test_an_event_source_that_connects_again_and_again_comes_to_an_end(ana: httpx.Client):
    """A browser's `EventSource` knows no end of a stream: it comes back with the last id until it is told 204."""
    leave_at(ana, "source", count(30, 5), 1)
    last, rounds = "", 0
    texts: list[Event] = []
    while rounds < 100:
        rounds += 1
        with ana.stream("GET", "/api/v1/chat/source/stream", headers={"Last-Event-ID": last}) as response:
            if response.status_code == 204:
                break
            texts += [event for _, event in zip(range(7), events(response), strict=False)]
            last = texts[-1][0]
    check_whole(texts, 30)
    assert 3 < rounds < 30 and response.status_code == 204


@pytest.mark.slow
def test_two_hundred_runs_at_once(ana: httpx.Client, runtime: Runtime):
    names = [f"crowd-{number}" for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        firsts = [*pool.map(lambda name: leave_at(ana, name, count(5, 20), 2), names)]
        rests = [*pool.map(lambda name, seen: come_back(ana, name, seen[-1][0]), names, firsts)]
    for first, rest in zip(firsts, rests, strict=True):
        check_whole(first + rest, 5)
    with runtime.engine.connect() as connection:
        crowd = turn_runs.c.conversation_id.startswith("crowd-")
        kept = select(func.count()).where(crowd, turn_runs.c.whole)
        until(lambda: connection.rollback() or connection.scalar(kept) == 200)


def test_a_user_who_is_erased_in_the_middle_of_a_turn_leaves_nothing(runtime: Runtime, address: str):
    with keyed(runtime, address, "gone") as gone:
        seen = leave_at(gone, "last", count(2000, 5), 10)
        check_problem(gone.post("/api/v1/users/gone/erase", json={"confirm": "other"}), 422, "OPTION_INVALID")
        erased = gone.post("/api/v1/users/gone/erase", json={"confirm": "gone"}).raise_for_status().json()
        assert erased["rows"]["conversations"] == erased["rows"]["turn_runs"] == 1
        time.sleep(0.6)  # longer than events are held back
        told = gone.get("/api/v1/chat/last/stream", headers={"Last-Event-ID": seen[-1][0]})
        check_problem(told, 404, "NOT_FOUND")
        assert gone.get("/api/v1/chat").json() == {"conversations": []}
    with runtime.engine.connect() as connection:
        for table in (turn_runs, turn_events, conversations, conversation_entries):
            assert connection.scalar(select(func.count()).where(table.c.user_id == "gone")) == 0, table.name


# --- several processes ---


Program = tuple["subprocess.Popen[str]", str]  # a service in a process of its own, and where it is


@pytest.fixture(scope="module")
def programs(runtime: Runtime, address: str) -> Iterator[list[Program]]:
    """Yield services in processes of their own over the same workspace, started at the same time."""
    command = [sys.executable, "-m", "tests.tools.slow_chat", runtime.settings.workspace.data_dir, ""]
    with ExitStack() as stack:
        started = [stack.enter_context(run_program(command, stdout=subprocess.PIPE, text=True)) for _ in range(3)]
        try:
            places = [each.stdout.readline().partition("/docs")[0].strip() for each in started if each.stdout]
            assert all(places), "a service did not start"
            yield [*zip(started, places, strict=True)]
        finally:
            for each in started:
                each.kill()


@pytest.fixture
def elsewhere(programs: list[Program]) -> str:
    """Return where the service is that no test ends."""
    return programs[0][1]


def test_the_rest_is_read_in_another_process(runtime: Runtime, ana: httpx.Client, elsewhere: str):
    seen = leave_at(ana, "across", count(100_000, 10), 20)
    with keyed(runtime, elsewhere, "ana") as there, keyed(runtime, elsewhere, "eve") as eve:
        check_problem(there.post("/api/v1/chat", json={"message": "hi", "conversation_id": "across"}), 409, "CONFLICT")
        headers = {"Last-Event-ID": seen[-1][0]}
        check_problem(eve.get("/api/v1/chat/across/stream", headers=headers), 404, "NOT_FOUND")
        assert eve.post("/api/v1/chat/across/stop").json() == {"status": "idle"}, "nobody stops somebody else's"
        with there.stream("GET", "/api/v1/chat/across/stream", headers=headers) as response:
            seen += [event for _, event in zip(range(30), events(response), strict=False)]
        assert there.post("/api/v1/chat/across/stop").json() == {"status": "stopped"}
        rest = come_back(there, "across", seen[-1][0])
        check_numbers(seen + rest)
        assert "abort" in [event["type"] for _, event in rest[:-1]] and rest[-1][1] == "[DONE]"
        assert said(there, "across").startswith(text_of(seen + rest)), "what was shown is kept"
        assert come_back(there, "across", seen[0][0]) == [*seen[1:], *rest] == come_back(ana, "across", seen[0][0])
        assert there.get("/api/v1/chat/across/stream", headers={"Last-Event-ID": rest[-1][0]}).status_code == 204


def test_a_turn_is_stopped_from_another_process(runtime: Runtime, ana: httpx.Client, elsewhere: str):
    with keyed(runtime, elsewhere, "ana") as there, asked(ana, "far", count(2000, 5)) as response:
        reading = events(response)
        next(reading)
        begin = time.monotonic()
        assert there.post("/api/v1/chat/far/stop").json() == {"status": "stopped"}
        kinds = [event["type"] for _, event in reading if isinstance(event, dict)]
        assert "abort" in kinds and time.monotonic() - begin < 2
        until(lambda: there.post("/api/v1/chat/far/stop").json() == {"status": "idle"})


def test_a_process_that_is_killed_leaves_an_end(runtime: Runtime, ana: httpx.Client, programs: list[Program]):
    process, place = programs[1]
    with keyed(runtime, place, "ana") as there:
        with asked(there, "killed", count(2000, 10)) as response:
            reading, seen = events(response), []
            while len(seen) < 80:
                seen.append(next(reading))
            process.kill()
            process.wait()
        begin = time.monotonic()
        rest = come_back(ana, "killed", seen[20][0])
        assert time.monotonic() - begin < 3
        assert rest[:20] == seen[21:41], "what was kept comes first"
        assert [event["type"] for _, event in rest[-3:-1]] == ["error", "finish"] and "broke off" in str(rest[-3])
        numbers = [int(id_.rpartition("-")[2]) for id_, _ in seen[:21] + rest]
        assert numbers == [*range(1, len(numbers) + 1)]
        after_all = come_back(ana, "killed", rest[-4][0])
        assert after_all == rest[-3:], "and the end stays where it is"
        assert ana.get("/api/v1/chat/killed/stream").status_code == 204
        assert ana.post("/api/v1/chat", json={"message": "hi", "conversation_id": "killed"}).status_code == 200


def test_a_service_that_ends_stops_its_turns_and_tells_their_readers(
    runtime: Runtime, ana: httpx.Client, programs: list[Program]
):
    process, place = programs[2]
    with keyed(runtime, place, "ana") as there:
        with asked(there, "ends", count(2000, 5)) as response:
            reading = events(response)
            seen = [next(reading) for _ in range(20)]
            process.send_signal(signal.SIGTERM)
            seen += reading
        assert process.wait(timeout=30) == 0
    assert "abort" in [event["type"] for _, event in seen[:-1]] and seen[-1][1] == "[DONE]"
    assert said(ana, "ends").startswith(text_of(seen)) and text_of(seen)
    assert come_back(ana, "ends", seen[3][0]) == seen[4:]


# --- the book of runs, on both databases ---


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "postgresql":
        with migrated_postgres() as made:
            yield made
        return
    made = engine(f"sqlite:///{tmp_path_factory.mktemp('book')}/o.db")
    migrate(made)
    yield made
    made.dispose()


CLOCK = SystemClock()
WORDS = [{"type": "text-delta", "id": "1", "delta": f"w{number} "} for number in range(1, 1001)]


def hear(kept: KeptRun, after: int = 0) -> list[tuple[int, Any]]:
    """Return the events of a kept run, to its end."""

    async def listen() -> list[tuple[int, Any]]:
        return [each async for each in kept.read(after)]

    return asyncio.run(listen())


def test_a_kept_run_is_read_from_anywhere_and_ends_once(database: Engine):
    id_ = uuid4().hex
    begin_run(database, CLOCK, id_, "bea", "talk", "¿el oro?")
    for first in range(0, 1000, 100):
        keep_runs(database, CLOCK, [Batch(id_, "bea", first + 100, WORDS[first : first + 100], False)], [id_])
    kept = find_kept_run(database, CLOCK, "bea", "talk")
    assert kept is not None and kept.count == 1000 and not kept.closed and not kept.running, "nobody holds it"
    with ThreadPoolExecutor(4) as pool:
        heard = [*pool.map(lambda after: hear(kept, after), (0, 0, 555, 1000))]
    assert heard[0] == heard[1] and [number for number, _ in heard[0]] == [*range(1, 1004)]
    assert heard[2] == heard[0][555:] and heard[3] == heard[0][1000:], "four found it dead, one wrote its end"
    assert heard[0][1000][1]["errorText"].startswith("La respuesta se")
    late = keep_runs(database, CLOCK, [Batch(id_, "bea", 1100, WORDS[:100], True)], [])
    assert late == (set(), {id_}), "a process that comes back to life adds nothing behind the end"
    assert find_kept_run(database, CLOCK, "ben", "talk", id_) is None


def test_a_reader_that_saw_more_than_was_kept_gets_the_end(database: Engine):
    id_ = uuid4().hex
    begin_run(database, CLOCK, id_, "bea", "more")
    keep_runs(database, CLOCK, [Batch(id_, "bea", 10, WORDS[:10], False)], [id_])
    kept = find_kept_run(database, CLOCK, "bea", "more")
    assert kept is not None and [number for number, _ in hear(kept, after=17)] == [18, 19, 20]
    again = find_kept_run(database, CLOCK, "bea", "more", id_)
    assert again is not None and again.closed and again.count == 20


def test_nothing_is_kept_behind_a_deletion(database: Engine):
    id_ = uuid4().hex
    begin_run(database, CLOCK, id_, "bea", "dropped", "x")
    keep_runs(database, CLOCK, [Batch(id_, "bea", 1, WORDS[:1], False)], [id_])
    with writing(database) as connection:
        drop_conversations(connection, "bea", ["dropped"])
    assert keep_runs(database, CLOCK, [Batch(id_, "bea", 2, WORDS[1:2], False)], [id_]) == (set(), {id_})
    with database.connect() as connection:
        assert connection.scalar(select(func.count()).where(turn_events.c.run_id == id_)) == 0


def test_what_it_costs_to_keep_an_event(database: Engine):
    id_ = uuid4().hex
    begin_run(database, CLOCK, id_, "bea", "cost")
    begin = time.perf_counter()
    for last in range(20, 1001, 20):
        keep_runs(database, CLOCK, [Batch(id_, "bea", last, WORDS[last - 20 : last], False)], [id_])
    each_us = (time.perf_counter() - begin) * 1e6 / 1000
    print(f"{database.dialect.name}: {each_us:.0f} µs an event")
    assert each_us < 20_000
