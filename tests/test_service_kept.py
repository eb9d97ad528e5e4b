"""Answers that are given again: one computation for all who ask, and nobody given what is not theirs."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from test_service_http import TOKEN, check_problem, environment, make_runtime, running

from orbiquant.core import DataError, configure_logging, endpoint
from orbiquant.domain import Caller, SeriesId
from orbiquant.market.store import DeltaBarStore
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.service.factory import create_app, needs
from orbiquant.service.kept import COMPUTING, FRESH_S, MOST_ANSWERS, MOST_BYTES, question_of
from orbiquant.service.keys import create_api_key
from orbiquant.service.known import KNOWN_S

OWNER = {"X-API-Key": TOKEN}
SLOW_S = 0.5


class Counted:
    """An application whose routes count how often they were asked, and how many of them ran at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running = self.most = 0
        self.fail = False
        self.lock = threading.Lock()

    def slow(self, name: str = "x", seconds: float = SLOW_S) -> dict[str, str]:
        with self.lock:
            self.asked.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(seconds)
        with self.lock:
            self.running -= 1
        if self.fail:
            raise DataError("bad")
        return {"name": name}

    def app(self) -> FastAPI:
        app = create_app(
            public=["/open"], kept=["/slow", "/open", "/large", "/of/{name:path}"], computing=["/slow", "/jobs"]
        )
        app.add_api_route("/slow", lambda name="x": self.slow(name), dependencies=[needs("read")])
        app.add_api_route("/of/{name:path}", lambda name: self.slow(name, 0), dependencies=[needs("trade")])
        app.add_api_route("/open", lambda: self.slow("open", 0))
        app.add_api_route("/large", lambda: self.slow("x" * MOST_BYTES, 0), dependencies=[needs("read")])
        app.add_api_route("/jobs", lambda: self.slow("job"), methods=["POST"], dependencies=[needs("read")])
        return app


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Counted, httpx.Client, Runtime]]:
    configure_logging("ERROR")
    counter, runtime = Counted(), make_runtime(tmp_path, requests_per_minute=1_000_000)
    limits = httpx.Limits(max_connections=200)
    with running(counter.app(), runtime) as url, httpx.Client(base_url=url, timeout=60, limits=limits) as client:
        yield counter, client, runtime


def test_sixty_who_ask_the_same_have_one_computation(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: client.get("/slow", headers=OWNER), range(60)))
    assert {(a.status_code, a.text) for a in answers} == {(200, '{"name":"x"}')} and counter.asked == ["x"]
    assert len({a.headers["x-request-id"] for a in answers}) == 60


def test_what_is_computed_takes_turns_and_holds_up_nothing_else(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    client.get("/slow?name=kept", headers=OWNER)
    with ThreadPoolExecutor(60) as pool:
        cold = [pool.submit(client.get, f"/slow?name={n}", headers=OWNER) for n in range(20)]
        cold += [pool.submit(client.post, "/jobs", headers=OWNER) for _ in range(20)]
        took = []
        while not all(job.done() for job in cold):
            for path in ("/open", "/slow?name=kept", "/api/nothing"):
                began = time.perf_counter()
                client.get(path, headers=OWNER)
                took.append(time.perf_counter() - began)
        assert {job.result().status_code for job in cold} == {200}
    assert counter.most <= COMPUTING + 1, "the kept one is made anew beside them, once a second"
    assert len(took) > 50 and max(took) < SLOW_S + 0.7, max(took)


def test_an_answer_is_kept_for_a_second_and_then_made_anew(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    for _ in range(3):
        client.get("/open")
    assert counter.asked == ["open"]
    time.sleep(FRESH_S)
    client.get("/open")
    assert counter.asked == ["open", "open"]


def test_another_question_is_another_answer(counted: tuple[Counted, httpx.Client, Runtime]):
    _, client, _ = counted
    for name in ("a", "b", "a%2Fb", "a+b", "%C3%A9"):
        assert (
            client.get(f"/slow?name={name}", headers=OWNER).json()["name"] == httpx.QueryParams(f"name={name}")["name"]
        )


def test_a_kept_answer_is_given_to_nobody_who_may_not_have_it(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, runtime = counted
    reader = create_api_key(runtime.engine, "r", "ana", "free", ["read"], runtime.clock)
    assert client.get("/of/eur", headers=OWNER).status_code == 200
    problem = check_problem(client.get("/of/eur", headers={"X-API-Key": reader}), 403, "FORBIDDEN")
    assert "'trade'" in problem["message"] and counter.asked == ["eur"]
    check_problem(client.get("/of/eur"), 401, "UNAUTHORIZED")
    check_problem(client.get("/of/eur", headers={"X-API-Key": "wrong"}), 401, "UNAUTHORIZED")
    time.sleep(FRESH_S)  # and who may not have it cannot spoil it for those who may
    check_problem(client.get("/of/eur", headers={"X-API-Key": reader}), 403, "FORBIDDEN")
    assert client.get("/of/eur", headers=OWNER).status_code == 200


def test_those_who_wait_for_one_who_may_not_have_it_are_answered(counted: tuple[Counted, httpx.Client, Runtime]):
    _, client, runtime = counted
    writer = {"X-API-Key": create_api_key(runtime.engine, "w", "ana", "free", ["write"], runtime.clock)}
    with ThreadPoolExecutor(20) as pool:
        callers = [writer if n % 2 == 0 else OWNER for n in range(20)]
        answers = list(pool.map(lambda headers: client.get("/slow", headers=headers), callers))
    assert [answer.status_code for answer in answers] == [403, 200] * 10


def test_an_error_is_told_to_all_and_not_kept(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    counter.fail = True
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/slow", headers=OWNER), range(8)))
    assert {answer.status_code for answer in answers} == {422} and counter.most <= COMPUTING
    counter.fail = False
    assert client.get("/slow", headers=OWNER).status_code == 200


def test_a_key_in_the_address_is_no_part_of_the_question(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    assert client.get(f"/of/eur?token={TOKEN}").status_code == 200
    assert client.get(f"/of/eur?%74oken={TOKEN}").status_code == 200
    assert client.get("/of/eur", headers=OWNER).status_code == 200 and counter.asked == ["eur"]
    scope = {"path": "/x", "query_string": f"a=1&%74oken={TOKEN}&b=%20".encode()}
    assert question_of(scope) == ("/x", b"a=1&b=+")
    assert question_of({"path": "/x", "query_string": b"token=1&token=1"}) != question_of(
        {"path": "/x", "query_string": b""}
    )


def test_few_are_kept_and_no_large_one(counted: tuple[Counted, httpx.Client, Runtime]):
    counter, client, _ = counted
    for _ in range(2):
        client.get("/large", headers=OWNER)
    assert len(counter.asked) == 2, "too large to be kept"
    for n in range(MOST_ANSWERS + 1):
        client.get(f"/of/{n}", headers=OWNER)
    before = len(counter.asked)
    client.get("/of/0", headers=OWNER)
    assert len(counter.asked) == before + 1, "the oldest was forgotten"


def test_a_key_is_looked_up_once_a_second_and_refused_a_second_after_another_process_revoked_it(
    counted: tuple[Counted, httpx.Client, Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from orbiquant.service import gate

    _, client, runtime = counted
    looked_up, verify = [], gate.authenticate
    monkeypatch.setattr(gate, "authenticate", lambda *what: (looked_up.append(1), verify(*what))[1])
    key = create_api_key(runtime.engine, "k", "ana", "free", ["read"], runtime.clock)
    headers = {"X-API-Key": key}
    began = time.monotonic()
    while time.monotonic() < began + 2 * KNOWN_S:
        assert client.get("/slow", headers=headers).status_code == 200
    assert 2 <= len(looked_up) <= 4
    url = f"sqlite:///{tmp_path}/o.db"
    words = [sys.executable, "-c", "from orbiquant.cli import main; main()", "service", "keys", "revoke", key[3:11]]
    subprocess.run(words, env=environment(tmp_path) | {"ORBIQUANT_WORKSPACE_DATABASE_URL": url}, check=True)
    revoked = time.monotonic()
    while client.get("/slow", headers=headers).status_code == 200:
        assert time.monotonic() < revoked + KNOWN_S + 0.2
    check_problem(client.get("/slow", headers=headers), 401, "UNAUTHORIZED")


WRITE = """
import sys
from orbiquant.domain import SeriesId
from orbiquant.market.store import DeltaBarStore
from orbiquant.market.synthetic import synthetic_market
DeltaBarStore(sys.argv[1]).upsert(SeriesId.parse("EURUSD", "1h"), synthetic_market(500, "1h", seed=7).bars)
"""


def test_what_another_process_writes_is_served_within_a_second(tmp_path: Path):
    from orbiquant.app import app

    runtime, series = make_runtime(tmp_path, requests_per_minute=1_000_000), SeriesId.parse("EURUSD", "1h")
    bars = synthetic_market(500, "1h", seed=7).bars
    DeltaBarStore(f"{tmp_path}/store").upsert(series, bars.iloc[:-1])
    paths = {"/api/market_data?symbol=EURUSD&bars=1": lambda told: told["data"][-1]["close"]}
    paths["/api/analysis?symbol=EURUSD"] = lambda told: told["current_price"]
    with running(app, runtime) as url, httpx.Client(base_url=url, timeout=60, headers=OWNER) as client:
        assert {read(client.get(path).json()) for path, read in paths.items()} == {bars["close"].iloc[-2]}
        subprocess.run([sys.executable, "-c", WRITE, f"{tmp_path}/store"], env=environment(tmp_path), check=True)
        time.sleep(FRESH_S)
        assert {read(client.get(path).json()) for path, read in paths.items()} == {bars["close"].iloc[-1]}


def test_an_analysis_is_computed_once_for_every_spelling_and_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from orbiquant.app import app
    from orbiquant.desk import market

    computed, describe = [], market.describe_market
    monkeypatch.setattr(market, "describe_market", lambda *what: (computed.append(1), describe(*what))[1])
    runtime, series = make_runtime(tmp_path, requests_per_minute=1_000_000), SeriesId.parse("EURUSD", "1h")
    runtime.store.upsert(series, synthetic_market(500, "1h", seed=7).bars)
    with running(app, runtime) as url, httpx.Client(base_url=url, timeout=60, headers=OWNER) as client:
        with ThreadPoolExecutor(12) as pool:
            spellings = ["EURUSD", "eurusd", "EUR/USD", "eur-usd"] * 3
            told = list(pool.map(lambda name: client.get("/api/analysis", params={"symbol": name}).json(), spellings))
        ages = [answer.pop("age_s") for answer in told]
        assert all(answer == told[0] for answer in told) and max(ages) - min(ages) < 10
        time.sleep(FRESH_S)
        later = client.get("/api/analysis?symbol=EURUSD").json()
        assert later["age_s"] > min(ages) and len(computed) == 1


def test_an_answer_of_one_caller_cannot_be_marked_as_kept():
    from orbiquant.service.build import route_parameters
    from orbiquant.service.marks import BuildError, Marked

    for method, function in (("GET", mine), ("POST", ours)):
        info = endpoint(method, "/x", kept=True)(function).__orbiquant_endpoint__
        with pytest.raises(BuildError, match="the same for everybody: a GET without a Caller"):
            route_parameters(Marked(function, info, sys.modules[__name__]))


def mine(
    caller: Caller,  # who asks
) -> str:
    "Say who asks."
    return caller.user_id


def ours() -> str:
    "Say nothing."
    return ""
