"""A turn lives apart from its request: clients vanish, come back, come twice, read slowly, come to another process."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from test_service_http import check_problem, running

from orbiquant.core import configure_logging
from orbiquant.desk.study import store_sample
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import create_api_key
from tests.tools.slow_chat import count, slow_runtime

Event = tuple[str, Any]  # its id, and what came


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = slow_runtime(tmp_path_factory.mktemp("runs"))
    with using(made):
        store_sample()
    return made


@pytest.fixture(scope="module")
def address(runtime: Runtime) -> Iterator[str]:
    from orbiquant.app import app

    with running(app, runtime) as url:
        yield url


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


def check_whole(seen: list[Event], words: int) -> None:
    """Assert that events are one run from its first to its last, none missing and none twice."""
    runs, numbers = zip(*(id_.rsplit("-", 1) for id_, _ in seen), strict=True)
    assert len(set(runs)) == 1 and [int(each) for each in numbers] == [*range(1, len(seen) + 1)]
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
    leave_at(ana, "forged", count(1, 1), 1)
    for sent in ({"headers": {"Last-Event-ID": last}}, {"params": {"last_event_id": last}}):
        check_problem(ana.get("/api/v1/chat/forged/stream", **sent), 422, "OPTION_INVALID")


def test_a_run_that_is_not_kept_is_gone(ana: httpx.Client):
    leave_at(ana, "gone", count(1, 1), 1)
    check_problem(ana.get("/api/v1/chat/gone/stream", headers={"Last-Event-ID": "0" * 32 + "-3"}), 410, "GONE")
