"""More turns than the model answers at once: who waits is told the place, who has no room is told to come again."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_chat_runs import keyed
from test_service_http import check_problem, running

from orbiquant.core import configure_logging
from orbiquant.runtime import Runtime
from tests.tools.slow_chat import count, slow_runtime

WAIT_S = 15


class Turn(threading.Thread):
    """A turn, read as it comes."""

    def __init__(self, client: httpx.Client, talk: str, message: str) -> None:
        super().__init__(daemon=True)
        self.client, self.body = client, {"message": message, "conversation_id": talk, "stream": True}
        self.events: list[dict[str, Any]] = []
        self.status = 0
        self.start()

    def run(self) -> None:
        """Read until it ends."""
        with self.client.stream("POST", "/api/v1/chat", json=self.body) as answer:
            self.status = answer.status_code
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.events.append(json.loads(line[6:]))

    @property
    def kinds(self) -> list[str]:
        """Return the types of what came."""
        return [each["type"] for each in self.events]

    def until(self, kind: str) -> "Turn":
        """Wait for an event."""
        end = time.monotonic() + WAIT_S
        while kind not in self.kinds:
            assert time.monotonic() < end and (self.is_alive() or kind in self.kinds), self.events
            time.sleep(0.01)
        return self

    @property
    def places(self) -> list[int]:
        """Return the places that it was told."""
        return [each["data"]["position"] for each in self.events if each["type"] == "data-queue"]

    @property
    def said(self) -> str:
        """Return the answer."""
        return "".join(each["delta"] for each in self.events if each["type"] == "text-delta")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    folder: Path = tmp_path_factory.mktemp("queue")
    return slow_runtime(folder, turns_at_once=1, turns_waiting=2)


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[httpx.Client]:
    from orbiquant.app import app

    with running(app, runtime) as url, keyed(runtime, url, "ana") as made:
        yield made


def test_who_waits_is_told_the_place_and_who_has_no_room_comes_again(client: httpx.Client):
    first = Turn(client, "one", count(400, 20)).until("text-delta")
    second = Turn(client, "two", count(2, 1)).until("data-queue")
    third = Turn(client, "three", count(2, 1)).until("data-queue")
    assert (second.places, third.places) == ([1], [2]) and "text-delta" not in second.kinds
    for stream in (True, False):
        told = {"message": "hello", "conversation_id": "four", "stream": stream}
        answer = client.post("/api/v1/chat", json=told)
        problem = check_problem(answer, 503, "BUSY")
        assert answer.headers["retry-after"] == "10" and problem["details"] == {"retry_after_s": 10}
    assert client.get("/api/v1/chat/four").json()["messages"] == [], "and nothing of it was kept"
    assert client.get("/api/v1/me").status_code == 200, "what is no turn does not wait"
    client.post("/api/v1/chat/one/stop").raise_for_status()
    for each in (first, second, third):
        each.join(WAIT_S)
        assert not each.is_alive(), each.events
    assert second.said.split() == third.said.split() == ["w1", "w2"]
    assert third.places == [2, 1] and second.places == [1]


def test_one_that_waits_can_be_stopped_and_keeps_nobody_behind_it(client: httpx.Client):
    first = Turn(client, "five", count(400, 20)).until("text-delta")
    second = Turn(client, "six", count(400, 20)).until("data-queue")
    third = Turn(client, "seven", count(2, 1)).until("data-queue")
    client.post("/api/v1/chat/six/stop").raise_for_status()
    second.join(WAIT_S)
    assert not second.is_alive() and first.is_alive() and "w1" not in second.said
    until = time.monotonic() + WAIT_S
    while third.places != [2, 1] and time.monotonic() < until:
        time.sleep(0.01)
    assert third.places == [2, 1]
    client.post("/api/v1/chat/five/stop").raise_for_status()
    third.join(WAIT_S)
    first.join(WAIT_S)
    assert third.said.split() == ["w1", "w2"]


def test_a_whole_answer_waits_without_a_word(client: httpx.Client):
    Turn(client, "eight", count(20, 20)).until("text-delta")
    told = client.post("/api/v1/chat", json={"message": count(2, 1), "conversation_id": "nine"}).json()
    assert told["response"].split() == ["w1", "w2"] and told["error"] == ""


def test_users_take_turns_and_a_completion_needs_a_place_too(client: httpx.Client, runtime: Runtime):
    first = Turn(client, "long", count(100, 20)).until("text-delta")
    second = Turn(client, "second", count(1, 1)).until("data-queue")
    with keyed(runtime, str(client.base_url), "bob") as other:
        third = Turn(other, "bob's", count(50, 20)).until("data-queue")
        assert third.places == [1], "before the second turn of somebody who has one"
        asked = {"messages": [{"role": "user", "content": count(1, 1)}]}
        refused = other.post("/v1/chat/completions", json=asked)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "BUSY")
        third.until("text-delta")
        assert "text-delta" not in second.kinds
        for each in (first, second, third):
            each.join(WAIT_S)
        assert (
            other.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"].startswith("w1")
        )
