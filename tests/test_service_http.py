"""The service over real HTTP: who may ask, what comes back, and that nothing a caller sends makes a 5xx."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbiquant.access import ServiceConfig
from orbiquant.core import DataError, OptionError, SettingsError, configure_logging, missing_library
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime, using
from orbiquant.service.build import run_app, write_app
from orbiquant.service.errors import http_status
from orbiquant.service.factory import create_app, needs
from orbiquant.service.gate import MAX_BODY_BYTES
from orbiquant.service.keys import create_api_key, list_api_keys, revoke_api_key
from orbiquant.service.known import KNOWN_S
from orbiquant.service.marks import find_marked
from orbiquant.service.serving import address as page_address
from orbiquant.service.serving import listen, make_server, serve
from orbiquant.settings import load_settings
from tests.tools.programs import run_program

EURUSD_1H = SeriesId.parse("EURUSD", "1h")

TOKEN = "console-token-of-the-tests"
HEAVY = {"vectorbt", "torch", "transformers", "xgboost", "ccxt", "sklearn", "deltalake", "talib", "numba", "plotly"}
JSON = {"Content-Type": "application/json"}


def make_runtime(folder: Path, **service: Any) -> Runtime:
    """Return a runtime that keeps everything in a folder."""
    loaded = load_settings()
    places = {
        "store_uri": f"{folder}/store",
        "models_dir": folder / "models",
        "data_dir": folder / "data",
        "database_url": f"sqlite:///{folder}/o.db",
    }
    update = {
        "workspace": loaded.workspace.model_copy(update=places),
        "service": ServiceConfig.model_validate(loaded.service.model_dump() | service),
    }
    return Runtime(loaded.model_copy(update=update))


@contextmanager
def running(
    app: FastAPI, runtime: Runtime, token: str | None = TOKEN, patience_s: float = 10, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Yield the address of a server in a thread, which thinks that it listens on `host`."""
    app.state.console_token = token
    server = make_server(app, runtime.settings.service, host, patience_s=patience_s)
    with using(runtime), listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            runtime.engine.dispose()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    made = make_runtime(tmp_path_factory.mktemp("service"), requests_per_minute=1_000_000)
    made.store.upsert(EURUSD_1H, synthetic_market(2500, "1h", seed=7).bars)
    return made


@pytest.fixture(scope="module")
def address(runtime: Runtime) -> Iterator[str]:
    from orbiquant.app import app

    configure_logging("ERROR")
    with running(app, runtime) as url:
        yield url


@pytest.fixture(scope="module")
def stranger(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def owner(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is an error in the service's own form, or OpenAI's under /v1, and return it."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"error", "message", "details"}
    told = problem["error"]
    assert (told["code"] if answer.request.url.path.startswith("/v1/") else told) == code
    assert problem["message"]
    return problem


# --- who may ask ---


def test_health_is_open_to_everybody(stranger: httpx.Client):
    for path in ("/health", "/api/v1/health"):
        answer = stranger.get(path)
        assert answer.status_code == 200
        told = answer.json()
        assert told.pop("age_s") > 0
        assert told == {
            "status": "healthy", "agents_running": 0, "warming": False, "stale": False,
            "components": {"store": "ok", "database": "ok", "models": "empty"},
        }  # fmt: skip


def test_everything_else_needs_a_key(stranger: httpx.Client, owner: httpx.Client):
    paths = owner.get("/openapi.json").json()["paths"]
    operations = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(operations) >= 8
    closed = [*operations, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/docs/assets/swagger-ui.css")]
    for method, path in closed:
        if not path.endswith("/health") and path != "/webhooks/ml-signals":  # whose signature is the key
            problem = check_problem(stranger.request(method, path), 401, "UNAUTHORIZED")
            assert "API key is required" in problem["message"]
    assert stranger.get("/docs").headers["www-authenticate"] == "Bearer"


def test_a_stranger_does_not_learn_which_paths_there_are(stranger: httpx.Client):
    check_problem(stranger.get("/nothing/here"), 401, "UNAUTHORIZED")
    check_problem(stranger.put("/api/signal"), 401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic b3JiaTpvcmJp"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Authorization": ""},
        {"X-API-Key": "oq_00000000_" + "a" * 43},
        {"X-API-Key": "x" * 5000},
        {"X-API-Key": "'; DROP TABLE api_keys; --"},
        {"Authorization": f"Bearer {TOKEN}", "X-API-Key": "another"},
    ],
)
def test_a_wrong_key_is_no_key(stranger: httpx.Client, headers: dict[str, Any]):
    check_problem(stranger.get("/api/market_data?symbol=EURUSD", headers=headers), 401, "UNAUTHORIZED")


def test_a_key_may_stand_in_three_places(stranger: httpx.Client, runtime: Runtime):
    key = create_api_key(runtime.engine, "three", "ana", "free", ["read"], runtime.clock)
    path = "/api/market_data?symbol=EURUSD&bars=1"
    assert stranger.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert stranger.get(path, headers={"authorization": f"bearer {key}"}).status_code == 200
    assert stranger.get(path, headers={"X-API-Key": key}).status_code == 200
    assert stranger.get(f"{path}&token={key}").status_code == 200
    check_problem(stranger.post(f"/api/v1/signals/batch?token={key}", json=["EURUSD"]), 401, "UNAUTHORIZED")


def test_a_revoked_key_stops_within_a_second_and_its_use_is_recorded(stranger: httpx.Client, runtime: Runtime):
    key = create_api_key(runtime.engine, "short", "ana", "free", ["read"], runtime.clock)
    headers = {"X-API-Key": key}
    assert stranger.get("/docs", headers=headers).status_code == 200
    shown = next(k for k in list_api_keys(runtime.engine) if k.name == "short")
    assert shown.last_used_at is not None
    revoke_api_key(runtime.engine, shown.prefix, runtime.clock)
    time.sleep(KNOWN_S)
    check_problem(stranger.get("/docs", headers=headers), 401, "UNAUTHORIZED")


def test_a_key_without_the_scope_is_forbidden(stranger: httpx.Client, runtime: Runtime):
    key = create_api_key(runtime.engine, "writer", "ana", "free", ["write"], runtime.clock)
    problem = check_problem(
        stranger.get("/api/market_data?symbol=EURUSD", headers={"X-API-Key": key}), 403, "FORBIDDEN"
    )
    assert "'read'" in problem["message"] and "write" in problem["message"]


def test_keys_are_stored_as_hashes_only(runtime: Runtime):
    key = create_api_key(runtime.engine, "secret", "ana", "free", ["read"], runtime.clock)
    with runtime.engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert key.split("_", 2)[2] not in str(stored)
    assert key not in repr(list_api_keys(runtime.engine))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"plan": "gold"},
        {"scopes": []},
        {"scopes": ["admin"]},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(runtime: Runtime, wrong: dict[str, Any]):
    right = {"name": "n", "user_id": "u", "plan": "free", "scopes": ["read"], "clock": runtime.clock}
    with pytest.raises((DataError, OptionError)):
        create_api_key(runtime.engine, **(right | wrong))


# --- what comes back ---


def test_bars_come_as_records(owner: httpx.Client, runtime: Runtime):
    answer = owner.get("/api/market_data", params={"symbol": "eur/usd", "timeframe": "1h", "bars": 500}).json()
    stored = runtime.store.read(EURUSD_1H).iloc[-500:]
    assert (answer["symbol"], answer["timeframe"], len(answer["data"])) == ("EURUSD", "1h", 500)
    assert [bar["close"] for bar in answer["data"]] == stored["close"].tolist()
    assert answer["data"][-1]["time"] == stored.index[-1].strftime("%Y-%m-%dT%H:%M:%SZ")


def test_an_analysis_has_its_parts(owner: httpx.Client):
    found = owner.get("/api/analysis", params={"symbol": "EURUSD"}).json()
    assert {
        "symbol",
        "current_price",
        "amd_phase",
        "ict_context",
        "key_levels",
        "recent_signals",
        "trend",
        "volatility",
    } <= set(found)
    assert set(found["ict_context"]) == {"killzone", "ote_zone", "score"}
    assert set(found["key_levels"]) == {"resistance", "support"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/market_data", 422, "VALIDATION_ERROR"),
        ("/api/market_data?symbol=EURUSD&bars=0", 422, "VALIDATION_ERROR"),
        ("/api/market_data?symbol=EURUSD&bars=501", 422, "VALIDATION_ERROR"),
        ("/api/market_data?symbol=EURUSD&bars=nan", 422, "VALIDATION_ERROR"),
        (f"/api/market_data?symbol=EURUSD&bars={'9' * 5000}", 422, "VALIDATION_ERROR"),
        ("/api/market_data?symbol=EURUSD&timeframe=2h", 422, "VALIDATION_ERROR"),
        ("/api/market_data?symbol=%00", 422, "DATA_INVALID"),
        ("/api/market_data?symbol=%ff%fe", 422, "DATA_INVALID"),
        ("/api/market_data?symbol=", 422, "DATA_INVALID"),
        ("/api/market_data?symbol=XAUUSD", 404, "NOT_FOUND"),
        ("/api/market_data?symbol=EURUSD&timeframe=5m", 404, "NOT_FOUND"),
        ("/api/v1/signals/latest/EURUSD", 404, "NOT_FOUND"),
        ("/api/v1/signals/latest/EUR/USD", 404, "NOT_FOUND"),
        ("/api/signal?symbol=EURUSD", 404, "NOT_FOUND"),
        ("/nothing", 404, "NOT_FOUND"),
        ("/docs/assets/../../../etc/passwd", 404, "NOT_FOUND"),
        ("/docs/assets/%2e%2e/core.py", 404, "NOT_FOUND"),
    ],
)
def test_a_wrong_question_is_told_why(owner: httpx.Client, path: str, status: int, code: str):
    check_problem(owner.get(path), status, code)


def test_messages_help(owner: httpx.Client):
    assert "did you mean 'EURUSD'?" in owner.get("/api/market_data?symbol=EURUS").json()["message"]
    assert "there is 1h" in owner.get("/api/market_data?symbol=EURUSD&timeframe=5m").json()["message"]
    invalid = owner.get("/api/market_data?symbol=EURUSD&bars=0").json()
    assert invalid["message"].startswith("`query.bars`: ")
    assert invalid["details"]["problems"][0]["place"] == "query.bars"


def test_a_wrong_method_names_itself(owner: httpx.Client):
    answer = owner.delete("/api/signal")
    problem = check_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert problem["message"] == "/api/signal does not take DELETE"
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_batch_answers_each_symbol(owner: httpx.Client):
    answer = owner.post("/api/v1/signals/batch", json=["EURUSD", "GBPUSD", "?", "EURUSD"]).json()
    assert {symbol: entry["error"] for symbol, entry in answer["signals"].items()} == {
        "EURUSD": "NOT_FOUND", "GBPUSD": "NOT_FOUND", "?": "DATA_INVALID",
    }  # fmt: skip


@pytest.mark.parametrize("symbols", [[], ["EURUSD"] * 51, "EURUSD", {"a": 1}, [1], [None], None])
def test_a_batch_must_be_a_list_of_up_to_fifty_names(owner: httpx.Client, symbols: object):
    check_problem(owner.post("/api/v1/signals/batch", json=symbols), 422, "VALIDATION_ERROR")


def test_every_answer_has_its_headers(owner: httpx.Client, stranger: httpx.Client):
    for answer in (owner.get("/health"), owner.get("/nothing"), stranger.get("/nothing"), owner.get("/docs")):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    assert owner.get("/health", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert owner.get("/health", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_the_api_page_needs_no_other_host(stranger: httpx.Client):
    page = stranger.get(f"/docs?token={TOKEN}").text
    assert re.findall(r"https?://[^\"']+", page) == []
    links = re.findall(r"(?:href|src)=\"(/[^\"]+)\"", page)
    assert len(links) == 2
    assert all(stranger.get(link).status_code == 200 for link in links)


def test_the_api_page_repeats_nothing_that_could_be_run(stranger: httpx.Client, runtime: Runtime):
    key = create_api_key(runtime.engine, "page", "ana", "free", ["read"], runtime.clock)
    sent = {"token": '"}</script><script>alert(1)</script>'}
    assert "<script>alert" not in stranger.get("/docs", params=sent, headers={"X-API-Key": key}).text
    assert stranger.get("/docs", params={"token": key}).text.count(key) == 3


# --- nothing a caller sends makes a 5xx ---

BAD_BODIES = {
    "empty": b"",
    "cut": b'["EURUSD"',
    "not utf-8": b'["\xff\xfe"]',
    "utf-16": '["EURUSD"]'.encode("utf-16"),
    "nul": b'["\\u0000"]',
    "lone surrogate": b'["\\ud800"]',
    "nan": b"[NaN]",
    "infinity": b"[Infinity, -Infinity]",
    "huge number": b"[" + b"9" * 5000 + b"]",
    "huge exponent": b"[1e999999]",
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 5000 + b"]" * 5000,
    "surrogate key": b'{"\\ud800": 1}',
    "bom": b'\xef\xbb\xbf["EURUSD"]',
    "text": b"EURUSD",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_malformed_body_is_the_callers_fault(owner: httpx.Client, body: bytes):
    answer = owner.post("/api/v1/signals/batch", content=body, headers=JSON)
    assert 400 <= answer.status_code < 500 or answer.json()["signals"], answer.text
    answer.json()


def test_a_body_of_another_type_is_refused(owner: httpx.Client):
    for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "", "application/json; charset=x"):
        answer = owner.post("/api/v1/signals/batch", content=b"<a/>", headers={"Content-Type": kind})
        assert answer.status_code in (400, 422), answer.text


def test_a_body_too_large_is_refused_by_its_length_and_by_its_content(owner: httpx.Client):
    large = b'["' + b"x" * MAX_BODY_BYTES + b'"]'
    check_problem(owner.post("/api/v1/signals/batch", content=large, headers=JSON), 413, "CONTENT_TOO_LARGE")

    def pieces() -> Iterator[bytes]:
        yield from (large[i : i + 65536] for i in range(0, len(large), 65536))

    check_problem(owner.post("/api/v1/signals/batch", content=pieces(), headers=JSON), 413, "CONTENT_TOO_LARGE")


def test_a_strangers_body_is_not_read(address: str):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /api/v1/signals/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 401")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.sampled_from(["/api/market_data", "/api/v1/signals/batch", "/api/signal", "/docs", "/openapi.json"])
    | st.text(max_size=20).map(lambda text: "/api/v1/signals/latest/" + text.replace("?", "").replace("#", "")),
    query=st.dictionaries(st.sampled_from(["symbol", "timeframe", "bars", "x"]), st.text(max_size=20), max_size=3),
    body=st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
def test_no_request_makes_a_server_error(owner: httpx.Client, method: str, path: str, query: dict, body: bytes):
    try:
        request = owner.build_request(method, path, params=query, content=body, headers=JSON)
    except (httpx.InvalidURL, UnicodeError):
        return
    answer = owner.send(request)
    assert answer.status_code < 500, answer.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.binary(max_size=60))
def test_noise_on_the_line_makes_no_server_error(address: str, line: bytes):
    host, port = address.removeprefix("http://").split(":")
    start = b"GET /api/signal?" + line.replace(b"\r", b"").replace(b"\n", b"") + b" HTTP/1.1\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(start + f"Host: localhost\r\nX-API-Key: {TOKEN}\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 [24]\d\d|$", connection.recv(100))


# --- limits, our own faults, the log ---


def small_app() -> FastAPI:
    """Return an application whose routes misbehave."""
    app = create_app(public=["/open"])
    read = [needs("read")]

    def numbers() -> dict[str, float]:
        return {"nan": float("nan"), "infinity": float("inf")}

    def anything() -> Any:
        return {"nan": float("nan")}

    def broken() -> int:
        raise RuntimeError("the password is swordfish")

    def misset() -> int:
        raise SettingsError("/etc/secret.ini [service] port: bad")

    def lying() -> int:
        return "no number"  # type: ignore[return-value]

    for function in (numbers, anything, broken, misset, lying):
        app.add_api_route(f"/{function.__name__}", function, dependencies=read)
    app.add_api_route("/open", lambda: 1)
    app.add_api_route("/open", lambda: 1, methods=["POST"], dependencies=[needs("write")])
    return app


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[httpx.Client, Runtime]]:
    runtime = make_runtime(tmp_path, requests_per_minute=20)
    with running(small_app(), runtime) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client, runtime


def test_our_own_fault_shows_nothing_of_the_inside(
    small: tuple[httpx.Client, Runtime], capsys: pytest.CaptureFixture[str]
):
    client, _ = small
    configure_logging("ERROR")
    for path in ("/broken", "/misset", "/lying"):
        answer = client.get(path, headers={"X-API-Key": TOKEN, "X-Request-ID": f"fault{path[1:]}"})
        problem = check_problem(answer, 500, "INTERNAL_ERROR")
        assert "swordfish" not in answer.text and "secret.ini" not in answer.text
        assert problem["details"] == {}
        assert answer.headers["x-request-id"] == f"fault{path[1:]}"


def test_a_public_path_is_public_for_its_own_method_alone(small: tuple[httpx.Client, Runtime]):
    client, _ = small
    assert client.get("/open").status_code == 200
    check_problem(client.post("/open"), 401, "UNAUTHORIZED")


def test_floats_that_are_no_numbers_are_null(small: tuple[httpx.Client, Runtime]):
    client, _ = small
    headers = {"X-API-Key": TOKEN}
    assert json.loads(client.get("/numbers", headers=headers).text) == {"nan": None, "infinity": None}
    assert json.loads(client.get("/anything", headers=headers).text, parse_constant=pytest.fail) == {"nan": None}


def test_who_asks_too_often_is_told_when_to_come_back(small: tuple[httpx.Client, Runtime]):
    client, runtime = small
    keys = [create_api_key(runtime.engine, name, name, "free", ["read"], runtime.clock) for name in ("ana", "ben")]
    answers = [client.get("/numbers", headers={"X-API-Key": keys[0]}) for _ in range(22)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 2
    problem = check_problem(answers[-1], 429, "RATE_LIMITED")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert problem["details"] == {"retry_after_s": int(answers[-1].headers["retry-after"])}
    assert client.get("/numbers", headers={"X-API-Key": keys[1]}).status_code == 200


def test_strangers_are_counted_by_address_and_callers_are_not_held_up_by_them(small: tuple[httpx.Client, Runtime]):
    client, _ = small
    guesses = [client.get("/numbers", headers={"X-API-Key": f"guess {n}"}).status_code for n in range(22)]
    assert guesses == [401] * 20 + [429] * 2
    assert client.get("/open").status_code == 429
    assert client.get("/numbers", headers={"X-API-Key": TOKEN}).status_code == 200


def test_a_websocket_without_a_key_is_not_opened(small: tuple[httpx.Client, Runtime]):
    client, _ = small
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "a" * 22 + "==",
    }
    assert client.get("/ws/signals", headers=upgrade).status_code == 403


# --- who is asking ---


def test_everybody_is_told_who_they_are_themselves(stranger: httpx.Client, owner: httpx.Client, runtime: Runtime):
    keys = {
        user: create_api_key(runtime.engine, "me", user, plan, scopes, runtime.clock)
        for user, plan, scopes in (("ana", "pro", ["trade", "read"]), ("ben", "free", ["read"]))
    }
    ana, ben = (stranger.get("/api/v1/me", headers={"X-API-Key": key}).json() for key in keys.values())
    assert ana.pop("id") != ben.pop("id")
    assert ana == {"user_id": "ana", "plan": "pro", "scopes": ["read", "trade"]}
    assert ben == {"user_id": "ben", "plan": "free", "scopes": ["read"]}
    assert owner.get("/api/v1/me").json() == {
        "id": "console", "user_id": "local", "plan": "premium",
        "scopes": ["read", "write", "trade", "operate", "act_for"],
    }  # fmt: skip
    blind = create_api_key(runtime.engine, "blind", "ana", "pro", ["write"], runtime.clock)
    check_problem(stranger.get("/api/v1/me", headers={"X-API-Key": blind}), 403, "FORBIDDEN")


def test_nobody_can_say_they_are_somebody_else(stranger: httpx.Client, runtime: Runtime):
    key = create_api_key(runtime.engine, "ben", "ben", "free", ["read"], runtime.clock)
    claim = {"id": "console", "user_id": "ana", "plan": "premium", "scopes": ["read", "write", "trade"]}
    answers = [
        stranger.request("GET", "/api/v1/me", headers={"X-API-Key": key}, json={**claim, "caller": claim}),
        stranger.get("/api/v1/me", headers={"X-API-Key": key, "caller": json.dumps(claim), "user_id": "ana"}),
    ]
    assert {(answer.status_code, answer.json()["user_id"], answer.json()["plan"]) for answer in answers} == {
        (200, "ben", "free")
    }
    assert key not in "".join(answer.text for answer in answers)
    asked = stranger.get("/api/v1/me", headers={"X-API-Key": key}, params={**claim, "caller": json.dumps(claim)})
    assert len(check_problem(asked, 422, "VALIDATION_ERROR")["details"]["problems"]) == 5


SHOP = """
from orbiquant.core import endpoint
from orbiquant.domain import Caller


@endpoint("GET", "/open", scope="public")
def greet(
    caller: Caller | None,  # who asks
) -> str:
    "Greet whoever asks."
    return f"hello {caller.user_id if caller else 'stranger'}"


@endpoint("POST", "/orders", scope="trade")
async def place_order(
    lots: int = 1,  # how many
    *,
    caller: Caller,  # whose they are
) -> str:
    "Place an order."
    return f"{lots} for {caller.user_id}"
"""


def test_a_generated_route_is_given_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "caller_shop").mkdir()
    (tmp_path / "caller_shop" / "__init__.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    runtime = make_runtime(tmp_path)
    with running(run_app(write_app(find_marked("caller_shop")), "caller_shop"), runtime) as url:
        keys = [create_api_key(runtime.engine, "k", user, "pro", ["trade"], runtime.clock) for user in ("ana", "ben")]
        ana, ben = ({"X-API-Key": key} for key in keys)
        assert [httpx.get(f"{url}/open", headers=headers).json() for headers in ({}, ana, ben)] == [
            "hello stranger", "hello ana", "hello ben",
        ]  # fmt: skip
        assert httpx.post(f"{url}/orders?lots=2", headers=ana).json() == "2 for ana"
        check_problem(httpx.post(f"{url}/orders?caller=ana", headers=ben), 422, "VALIDATION_ERROR")
        assert httpx.post(f"{url}/orders", headers=ben).json() == "1 for ben"
        check_problem(httpx.post(f"{url}/orders"), 401, "UNAUTHORIZED")


# --- starting and stopping ---

SERVE = """
import sys
from orbiquant.app import app
from orbiquant.core import configure_logging
from orbiquant.service.serving import serve
configure_logging("INFO")
serve(app, port=0, announce=lambda url: print(url, flush=True))
"""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that works in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    return kept | {"ORBIQUANT_HOME": str(folder), "PYTHONWARNINGS": "error::ResourceWarning"}


def test_a_started_service_prints_its_address_logs_no_secret_and_ends_on_ctrl_c(tmp_path: Path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(tmp_path)}
    with run_program([sys.executable, "-c", SERVE], **pipes) as process:
        url = process.stdout.readline().strip()
        form = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/docs\?token=([\w-]{43})", url)
        assert form, url + process.stderr.read()
        assert httpx.get(url, timeout=30).status_code == 200
        assert httpx.get(f"{form[1]}/docs?token=wrong", timeout=30).status_code == 401
        assert httpx.get(f"{form[1]}/health%0AFORGED", params={"token": form[2]}, timeout=30).status_code == 404
        process.send_signal(signal.SIGINT)
        out, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert (out, form[2] in log) == ("", False)
    assert len([line for line in log.splitlines() if " request " in line]) == 3
    assert "path=/docs" in log and "status=401" in log
    assert not any(line.startswith("FORGED") for line in log.splitlines())


def test_without_a_key_nobody_else_is_served(tmp_path: Path):
    runtime, app = make_runtime(tmp_path), create_app()
    with using(runtime):
        for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
            with pytest.raises(SettingsError, match="there is no API key yet"):
                serve(app, host, 0)
        key = create_api_key(runtime.engine, "gone", "ana", "free", ["read"], runtime.clock)
        revoke_api_key(runtime.engine, key[3:11], runtime.clock)
        with pytest.raises(SettingsError, match="there is no API key yet"):
            serve(app, "0.0.0.0", 0)
    runtime.engine.dispose()


def test_a_port_in_use_is_a_clear_error(tmp_path: Path):
    runtime = make_runtime(tmp_path)
    with using(runtime), listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            serve(create_app(), "127.0.0.1", port)
    runtime.engine.dispose()


@pytest.mark.parametrize(
    ("host", "token", "page"),
    [
        ("127.0.0.1", "abc", "http://127.0.0.1:8003/docs?token=abc"),
        ("::1", None, "http://[::1]:8003/docs"),
        ("example.org", None, "http://example.org:8003/docs"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, token: str | None, page: str):
    assert page_address(host, 8003, token) == page


def test_an_unset_service_is_not_open(tmp_path: Path):
    runtime = make_runtime(tmp_path)
    with running(create_app(), runtime, token=None) as url:
        assert httpx.get(f"{url}/docs?token=None").status_code == 401
        assert httpx.get(f"{url}/docs?token=").status_code == 401


def test_importing_the_service_loads_nothing_heavy():
    code = "import sys, orbiquant.app; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & HEAVY == set()


def test_an_impossible_wish_and_a_library_that_is_not_installed_are_told_apart():
    wish, lack = OptionError("`policy` must be one of primary, was 'x'"), missing_library("torch", "deep")
    assert (http_status(wish), wish.code) == (422, "OPTION_INVALID")
    assert (http_status(lack), lack.code) == (501, "LIBRARY_MISSING")
