"""HTTP: waits that another thread ends, pauses that a server asks for, a shared pace, keys that are never told."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Timer
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from orbiquant.core import DataError, NotFoundError, SettingsError
from orbiquant.net import Backoff, Busy, HttpClient, Pace, retry, retry_after_s
from tests.tools.fake_providers import FakeProvider, cut, reply

KEY = "hunter2"
QUICK = Backoff(attempts=3, first_pause_s=0.01, max_pause_s=60, advice="ask the weather instead")


class Echo(FakeProvider):
    """Sends back what was asked."""

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """Answer with path and query."""
        return 200, {"path": path, "query": query}


@pytest.fixture
def server() -> Iterator[FakeProvider]:
    """Yield a running server."""
    with Echo("EURUSD", pd.DataFrame()).running() as running:
        yield running


@pytest.fixture
def waited() -> list[float]:
    """Return the pauses that were made."""
    return []


@pytest.fixture
def client(server: FakeProvider, waited: list[float]) -> HttpClient:
    """Return a client that does not really wait."""
    return HttpClient("echo", server.url, {"X-Key": SecretStr(KEY)}, "[x] key", 1e9, 5, QUICK, waited.append)


@pytest.mark.parametrize("fault", [reply(202), reply(429), reply(418), reply(500), reply(503), cut])
def test_what_passes_is_asked_again(fault: Any, server: FakeProvider, client: HttpClient, waited: list[float]):
    server.faults.extend([fault, fault])
    assert client.json("/a", {"b": 1}) == {"path": "/a", "query": {"b": "1"}}
    assert len(server.requests) == 3 and len([pause for pause in waited if pause]) >= 2


def test_a_server_is_left_alone_for_as_long_as_it_asks(server: FakeProvider, client: HttpClient, waited: list[float]):
    server.faults.append(reply(503, Retry_After="7"))
    client.get("/")
    assert max(waited) == 7
    server.faults.append(reply(429, Retry_After="7200"))
    with pytest.raises(DataError, match=r"^echo asks for a pause of 7200 s \(HTTP 429\); ask the weather instead$"):
        client.get("/")
    assert max(waited) == 7, "nobody waits for two hours"


@pytest.mark.parametrize("fault", [reply(503), cut])
def test_what_stays_is_an_error_with_advice_and_without_a_key(fault: Any, server: FakeProvider, client: HttpClient):
    server.faults.extend([fault] * 9)
    with pytest.raises(DataError, match=r"^echo did not answer in 3 attempts, .*; ask the weather instead$") as refused:
        client.get("/")
    assert len(server.requests) == 3
    assert refused.value.__cause__ is None and refused.value.__context__ is None, "an error of httpx holds the key"


@pytest.mark.parametrize("header", ["²", "soon", "", None])
def test_a_wait_that_cannot_be_read_is_none(header: str | None):
    assert retry_after_s(header, datetime.now(UTC)) is None


def test_one_attempt_is_no_retry(server: FakeProvider, waited: list[float]):
    server.faults.append(reply(503))
    once = HttpClient("echo", server.url, per_minute=1e9, backoff=Backoff(attempts=1), wait=waited.append)
    with pytest.raises(DataError, match="in 1 attempts, at last: HTTP 503; try again later"):
        once.get("/")
    assert not [pause for pause in waited if pause > 1e-3]


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, NotFoundError, "echo has no /a"),
        (401, SettingsError, r"look at \[x\] key"),
        (400, DataError, r"HTTP 400: your key \*\*\* is"),
    ],
)
def test_a_refusal_is_not_asked_again_and_quotes_no_key(
    status: int, kind: type[Exception], said: str, server: FakeProvider, client: HttpClient
):
    server.faults.append(reply(status, f"your key\n{KEY} is no good".encode()))
    with pytest.raises(kind, match=said) as refused:
        client.get("/a")
    assert len(server.requests) == 1 and KEY not in f"{refused.value!r} {refused.value.details}"
    assert KEY not in repr(vars(client))


def test_redirects_are_not_followed(server: FakeProvider, client: HttpClient):
    server.faults.append(reply(302, Location="http://127.0.0.1:9/"))
    with pytest.raises(DataError, match=r"refused / \(HTTP 302"):
        client.get("/")


def test_another_thread_ends_the_pauses(server: FakeProvider):
    server.faults.extend([reply(503, Retry_After="50")] * 9)
    client = HttpClient("echo", server.url, per_minute=1e9)
    begin = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        Timer(0.3, client.stopped.set).start()
        asked = [pool.submit(client.get, "/") for _ in range(3)]
        assert all("it was interrupted" in str(one.exception()) for one in asked)
    assert time.monotonic() - begin < 5
    server.faults.clear()
    client.stopped.clear()
    assert client.get("/").status_code == 200, "and it can be asked again"


def test_an_error_that_is_no_busy_and_an_interrupt_pass_at_once():
    asked = []

    def ask(error: BaseException) -> None:
        asked.append(error)
        raise error

    for error in (ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            retry("x", lambda error=error: ask(error), Backoff(), asked.append)
    with pytest.raises(KeyboardInterrupt):  # in a pause
        retry("x", lambda: ask(Busy("later")), Backoff(), lambda pause: ask(KeyboardInterrupt()))
    assert len(asked) == 4


def test_threads_share_a_pace(waited: list[float]):
    pace = Pace(60, waited.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: pace.take_turn(), range(8)))
    assert sorted(round(pause) for pause in waited) == [1, 2, 3, 4, 5, 6, 7]
