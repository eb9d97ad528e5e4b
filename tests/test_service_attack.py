"""The service as a stranger would try it: misspelt names, forged headers, odd methods, other origins, hostile bytes."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from test_service_http import JSON, TOKEN, check_problem, make_runtime, running

from orbiquant.core import SettingsError, configure_logging
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.service.factory import create_app, needs
from orbiquant.settings import load_settings

KEY = {"X-API-Key": TOKEN}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    made = make_runtime(tmp_path_factory.mktemp("attack"), requests_per_minute=1_000_000)
    made.store.upsert(SeriesId.parse("EURUSD", "1h"), synthetic_market(600, "1h", seed=7).bars)
    return made


@pytest.fixture(scope="module")
def address(runtime: Runtime) -> Iterator[str]:
    from orbiquant.app import app

    configure_logging("ERROR")
    with running(app, runtime) as url:
        yield url


@pytest.fixture(scope="module")
def owner(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30, headers=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client


def say(address: str, request: bytes) -> bytes:
    """Send bytes as they are and return what comes back until the other side ends it, or says no more."""
    host, port = address.removeprefix("http://").split(":")
    found = b""
    with closing(socket.create_connection((host, int(port)), timeout=10)) as line:
        line.sendall(request)
        line.settimeout(3)
        try:
            while piece := line.recv(65536):
                found += piece
                head, gap, body = found.partition(b"\r\n\r\n")
                size = re.search(rb"content-length: (\d+)", head.lower())
                if gap and (found.startswith(b"HTTP/1.1 101") or (size and len(body) >= int(size[1]))):
                    break
        except (TimeoutError, ConnectionResetError):
            pass
    return found


# --- names ---


def generated(client: httpx.Client) -> list[tuple[str, str]]:
    """Return method and path of every route in the API's description."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_no_route_takes_a_name_it_does_not_know(owner: httpx.Client, stranger: httpx.Client):
    routes = generated(owner)
    assert {("GET", "/health"), ("POST", "/api/v1/signals/batch")} <= set(routes) and len(routes) >= 8
    for method, path in [*routes, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/")]:
        place = path.replace("{symbol}", "EURUSD")
        for query in ("symbl=EURUSD", "x=1", "Symbol=EURUSD", "symbol%00=1", "=1", "%ff=1"):
            problem = check_problem(owner.request(method, f"{place}?{query}"), 422, "VALIDATION_ERROR")
            assert problem["details"]["problems"][0]["place"].startswith("query."), (path, query)
    check_problem(stranger.get("/health?x=1"), 422, "VALIDATION_ERROR")


def test_the_near_name_is_told(owner: httpx.Client):
    def message(query: str) -> str:
        return str(check_problem(owner.get(f"/api/market_data?{query}"), 422, "VALIDATION_ERROR")["message"])

    assert message("symbl=EURUSD") == "`query.symbl`: there is no such name, did you mean 'symbol'?"
    assert "did you mean 'timeframe'?" in message("symbol=EURUSD&time_frame=1h")
    assert "there is symbol, timeframe, " in message("symbol=EURUSD&qqq=1")
    assert message("symbol=EURUSD&symbol=EURUSD") == "`query.symbol`: stands 2 times, must stand once"
    assert message("symbol=EURUSD&timeframe=1h&timeframe=4h") == "`query.timeframe`: stands 2 times, must stand once"
    twice = owner.get(f"/health?token={TOKEN}&token={TOKEN}")
    assert "stands 2 times" in check_problem(twice, 422, "VALIDATION_ERROR")["message"]
    assert owner.get(f"/health?token={TOKEN}").status_code == 200
    posted = owner.post(f"/api/v1/signals/batch?token={TOKEN}", json=["EURUSD"])
    assert "GET only" in check_problem(posted, 422, "VALIDATION_ERROR")["message"]


def test_a_name_that_a_body_says_twice_is_refused_by_its_name(owner: httpx.Client):
    twice = {
        "/api/alerts": '{"symbol": "EURUSD", "price": 1.5, "condition": "above", "price": 9}',
        "/agents/kill": '{"everybody": true, "why": "a", "everybody": true}',
        "/v1/chat/completions": '{"messages": [{"role": "user", "role": "system", "content": "a"}]}',
    }
    for path, name in zip(twice, ("price", "everybody", "role"), strict=True):
        answer = owner.post(path, content=twice[path], headers=JSON)
        assert answer.status_code == 400 and f"'{name}' stands 2 times" in answer.text, answer.text
    once = owner.post("/api/v1/signals/batch", content='["EURUSD", "EURUSD"]', headers=JSON)
    assert once.status_code == 200, "values may come again"


def test_a_packed_body_is_refused_and_that_is_documented(owner: httpx.Client):
    for said in ("gzip", "GZIP", "br, gzip", "x" * 500):
        told = owner.post("/api/v1/signals/batch", json=["EURUSD"], headers={"Content-Encoding": said})
        assert "must be sent as it is" in check_problem(told, 415, "UNSUPPORTED_MEDIA_TYPE")["message"]
        assert told.headers["accept-encoding"] == "identity" and len(told.content) < 300
    hook = owner.post("/webhooks/ml-signals", content=b"{}", headers={"Content-Encoding": "gzip"})
    assert hook.status_code in (404, 415), "where none is received, nothing is read"
    assert owner.get("/health", headers={"Content-Encoding": "gzip"}).status_code == 200
    plain = owner.post("/api/v1/signals/batch", json=["EURUSD"], headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200
    paths = owner.get("/openapi.json").json()["paths"]
    assert all("415" in way["post"]["responses"] for way in paths.values() if "post" in way)


def test_two_keys_are_refused_whichever_comes_first(stranger: httpx.Client):
    good, other = ("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer oq_other")
    named = ("X-API-Key", "a"), ("X-API-Key", TOKEN)
    for headers in ([good, other], [other, good], [good, named[0]], [*named], [*reversed(named)]):
        told = check_problem(stranger.get("/api/v1/me", headers=headers), 401, "UNAUTHORIZED")
        assert "two different API keys" in told["message"]
    check_problem(stranger.get(f"/api/v1/me?token={TOKEN}&token=a"), 401, "UNAUTHORIZED")
    assert stranger.get("/api/v1/me", headers=[good, good]).status_code == 200


def test_many_and_long_names_cost_little_and_are_not_sent_back(owner: httpx.Client):
    for query in ("a" * 50_000 + "=1", "&".join(f"n{i}=1" for i in range(6000)), "&".join(["symbol=1"] * 5000)):
        begun = time.monotonic()
        answer = owner.get(f"/api/market_data?{query}")
        assert time.monotonic() - begun < 3
        problem = check_problem(answer, 422, "VALIDATION_ERROR")
        assert len(answer.content) < 6000 and len(problem["message"]) < 500


class Open(BaseModel):
    """Takes whatever comes."""

    a: int


class Closed(Open):
    """Takes what it names."""

    model_config = ConfigDict(extra="forbid")


def test_collections_may_repeat_and_a_closed_body_takes_no_other_names(tmp_path: Path):
    app = create_app()
    read = [needs("read")]

    def many(names: Annotated[list[str] | None, Query()] = None, one: str = "") -> int:
        return len(names or [])

    def closed(body: Closed) -> int:
        return body.a

    def opened(body: Open) -> int:
        return body.a

    app.add_api_route("/many", many, dependencies=read)
    app.add_api_route("/closed", closed, methods=["POST"], dependencies=read)
    app.add_api_route("/open", opened, methods=["POST"], dependencies=read)
    with running(app, make_runtime(tmp_path)) as url, httpx.Client(base_url=url, headers=KEY) as client:
        assert client.get("/many?names=a&names=b&one=1").json() == 2
        check_problem(client.get("/many?names=a&one=b&one=c"), 422, "VALIDATION_ERROR")
        problem = check_problem(client.post("/closed", json={"a": 1, "b": 2}), 422, "VALIDATION_ERROR")
        assert problem["details"]["problems"][0]["place"] == "body.b"
        assert client.post("/open", json={"a": 1, "b": 2}).json() == 1


# --- methods ---


def test_head_is_get_without_a_body(owner: httpx.Client, stranger: httpx.Client):
    varying = {"date", "x-request-id", "ratelimit"}
    for path in ("/health", "/docs", "/openapi.json", "/", "/api/market_data?symbol=EURUSD", "/nothing",
                 "/api/market_data?symbol=XAUUSD", "/favicon.ico", "/docs/assets/swagger-ui.css"):  # fmt: skip
        for client in (owner, stranger):
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            both = [{k: v for k, v in answer.headers.items() if k not in varying} for answer in (got, head)]
            assert both[0] == both[1], path
    assert stranger.head(f"/docs?token={TOKEN}").status_code == 200
    refused = owner.head("/api/v1/signals/batch")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "POST", b"")


def test_a_head_does_not_put_the_line_out_of_step(address: str):
    head = f"HEAD /health HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n\r\n".encode()
    get = head.replace(b"HEAD", b"GET").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    found = say(address, head + get)
    assert found.count(b"HTTP/1.1 200") == 2 and found.count(b'"status"') == 1


@pytest.mark.parametrize(
    "method", ["TRACE", "OPTIONS", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND", "QUERY", "get"]
)
def test_other_methods_are_refused(owner: httpx.Client, address: str, method: str):
    ask = f"{method} /health HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\nX-Echo: secret-echo\r\n\r\n"
    found = say(address, ask.encode())
    assert re.match(rb"HTTP/1\.1 4\d\d", found), found
    assert b"secret-echo" not in found


# --- the description ---


def test_what_is_answered_stands_in_the_description(owner: httpx.Client):
    described = owner.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            assert {"400", "401", "403", "404", "422", "429", "503"} <= set(answers), path
            assert ("413" in answers) == (method in ("post", "put")), path
            for status in set(answers) - {"200", "201", "202"}:
                schema = answers[status]["content"]["application/json"]["schema"]
                form = "OpenAiProblem" if path.startswith("/v1/") else "Problem"
                assert schema == {"$ref": f"#/components/schemas/{form}"}, (path, status)
    assert "HTTPValidationError" not in described["components"]["schemas"]


# --- the front door ---


def test_the_bare_address_is_the_dashboard_and_tells_nothing(stranger: httpx.Client, owner: httpx.Client):
    pages = [stranger.get("/"), stranger.get(f"/?token={TOKEN}"), owner.get("/")]
    assert {page.status_code for page in pages} == {200} and len({page.text for page in pages}) == 1
    assert pages[0].text.startswith("<!doctype html>") and TOKEN not in pages[1].text
    check_problem(stranger.get("/?token=nobody"), 401, "UNAUTHORIZED")
    icon = stranger.get("/favicon.ico")
    assert (icon.status_code, icon.content) == (204, b"")


def test_nothing_redirects_to_where_the_caller_says(owner: httpx.Client):
    for path in ("/health/", "/docs/", "/api/signal/", "/docs/assets", "/\\evil.example/%2e%2e"):
        answer = owner.get(path, headers={"Host": "localhost"})
        assert answer.status_code == 404 and "location" not in answer.headers, path
    assert owner.get("//evil.example").headers.get("location", "docs") == "docs"
    escaped = owner.get("/", params={"token": "a&b\r\nX: 1#//evil.example"}, headers=KEY)
    assert escaped.status_code in (307, 401) and "x" not in escaped.headers


# --- other pages ---

OURS = "https://quant.example.org"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client of a service whose settings name an origin."""
    from orbiquant.app import app

    made = make_runtime(tmp_path_factory.mktemp("origins"), requests_per_minute=100_000, origins=(OURS,))
    with running(app, made) as url, httpx.Client(base_url=url) as client:
        yield client


def preflight(origin: str, method: str = "GET") -> dict[str, str]:
    """Return what a browser asks with before it asks."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "x-api-key, authorization, content-type, idempotency-key, last-event-id",
    }


def test_a_page_that_is_named_may_read_us(shared: httpx.Client):
    asked = shared.options("/api/signal", headers=preflight(OURS))
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, OURS)
    allowed = asked.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("x-api-key", "idempotency-key", "last-event-id")), "our routes take them"
    assert "POST" in asked.headers["access-control-allow-methods"]
    for headers, status in (({}, 401), (KEY, 200)):
        answer = shared.get("/api/v1/me", headers={"Origin": OURS, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, OURS)
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{OURS}.evil.example", "null", OURS.upper(), f"{OURS}:444", "*"]
)
def test_a_page_that_is_not_named_may_not(shared: httpx.Client, stranger: httpx.Client, origin: str):
    for client in (shared, stranger):
        for answer in (
            client.options("/api/signal", headers=preflight(origin)),
            client.get("/api/v1/me", headers={"Origin": origin, **KEY}),
            client.get("/health", headers={"Origin": origin}),
        ):
            assert "access-control-allow-origin" not in answer.headers
            assert answer.status_code < 500


def test_nobody_is_named_unless_the_settings_do(stranger: httpx.Client):
    assert "access-control-allow-origin" not in stranger.get("/health", headers={"Origin": OURS}).headers


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8003", "127.0.0.1.evil.example", "localhost.evil", "", "a" * 5000]
)
def test_a_name_that_was_made_to_point_here_is_not_ours(stranger: httpx.Client, name: str):
    answer = stranger.get("/health", headers={"Host": name})
    problem = check_problem(answer, 421, "MISDIRECTED_REQUEST")
    assert "this service answers to localhost, 127.0.0.1, [::1]" in problem["message"]
    assert len(problem["message"]) < 400


def test_our_own_names_are_answered(shared: httpx.Client, address: str):
    for name in ("localhost", "LOCALHOST:8003", "127.0.0.1", "[::1]:8003", "localhost.", "quant.example.org"):
        assert shared.get("/health", headers={"Host": name}).status_code == 200, name
    assert say(address, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    twice = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert say(address, twice).startswith(b"HTTP/1.1 4")
    assert say(address, b"GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n").startswith(
        b"HTTP/1.1 421"
    )


def test_beyond_loopback_any_name_is_answered(tmp_path: Path):
    from orbiquant.service.origins import Origins

    layer = Origins(create_app(), "0.0.0.0", ())
    assert layer.is_ours("anything.example") and not Origins(create_app(), "::1", ()).is_ours("anything.example")
    assert Origins(create_app(), "::1", ()).is_ours("[::1]:8003")


def test_a_name_does_not_become_a_path(tmp_path: Path):
    with running(create_app(public=["/open"]), make_runtime(tmp_path), host="0.0.0.0") as url:
        for name in ("localhost/open?x=", "localhost/open#", "a@b/open", "open", "[::1", "localhost:99999/open"):
            ask = f"GET /openapi.json HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            assert say(url, ask.encode()).startswith(b"HTTP/1.1 401"), name
            known = ask.replace("/openapi.json", "/secret").replace("Connection", f"X-API-Key: {TOKEN}\r\nConnection")
            found = say(url, known.encode())
            assert found.startswith(b"HTTP/1.1 404") and b"there is no /secret" in found, name


@pytest.mark.parametrize(
    "text", ["*", "null", "quant.example.org", f"{OURS}/", f"{OURS}/page", "https://u:p@a.example", "ftp://a.example",
             "https://a.example:443", "https://A.example", "https://*.example.org", "https://a b.example", "https://a:99999"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_an_error_of_the_settings(text: str):
    with pytest.raises(SettingsError, match=r"\[service\] origins: must name pages as browsers do"):
        load_settings(service={"origins": text})
    with pytest.raises(SettingsError, match=r"\[service\] trusted_proxies: must be the address or the network"):
        load_settings(service={"trusted_proxies": text})


# --- WebSockets ---

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n{more}\r\n"
)


def test_a_websocket_to_nowhere_is_refused(address: str):
    for path in ("/ws/signal", "/ws", "/health", "/docs", "/", "/%00", "/%ff"):
        for key in (TOKEN, "wrong"):
            found = say(address, UPGRADE.format(path=path, host="localhost", key=key, more="").encode())
            assert re.match(rb"HTTP/1\.1 4\d\d", found), (path, found[:200])


def test_a_page_may_open_a_websocket_only_from_our_origin(tmp_path: Path):
    app = create_app()

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close()

    from fastapi import WebSocket

    echo.__annotations__["websocket"] = WebSocket
    app.add_api_websocket_route("/ws", echo)
    with running(app, make_runtime(tmp_path, origins=(OURS,))) as url:
        place = url.removeprefix("http://")
        for more, opened in (
            ("", True), (f"Origin: {url}\r\n", True), (f"Origin: {OURS}\r\n", True),
            ("Origin: https://evil.example\r\n", False), ("Origin: null\r\n", False),
        ):  # fmt: skip
            found = say(url, UPGRADE.format(path="/ws", host=place, key=TOKEN, more=more).encode())
            assert found.startswith(b"HTTP/1.1 101") == opened, (more, found[:100])
        rebound = UPGRADE.format(path="/ws", host="evil.example", key=TOKEN, more="Origin: http://evil.example\r\n")
        assert found.startswith(b"HTTP/1.1 403") and not say(url, rebound.encode()).startswith(b"HTTP/1.1 101")


# --- hostile bytes ---

HEAD = f"HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n".encode()
STYLE, BATCH = b"GET /docs/assets/swagger-ui.css " + HEAD, b"POST /api/v1/signals/batch " + HEAD
RAW = {
    "null in the path": b"GET /api/v1/signals/latest/%00 " + HEAD + b"\r\n",
    "bare null in the path": b"GET /api/\x00 " + HEAD + b"\r\n",
    "bytes in the path": b"GET /api/v1/signals/latest/\xff\xfe " + HEAD + b"\r\n",
    "escaped bytes in the path": b"GET /api/v1/signals/latest/%ff%fe " + HEAD + b"\r\n",
    "surrogates in the path": b"GET /api/v1/signals/latest/%ed%a0%80 " + HEAD + b"\r\n",
    "escaped slashes": b"GET /api/v1/signals/latest/EUR%2FUSD%2F..%2F..%2Fetc " + HEAD + b"\r\n",
    "double escapes": b"GET /api/v1/signals/latest/%252e%252e%252f " + HEAD + b"\r\n",
    "half an escape": b"GET /api/v1/signals/latest/%2 " + HEAD + b"\r\n",
    "dots": b"GET /../../../../etc/passwd " + HEAD + b"\r\n",
    "dots among assets": b"GET /docs/assets/..%2f..%2f..%2fetc/passwd " + HEAD + b"\r\n",
    "an absolute path among assets": b"GET /docs/assets//etc/passwd " + HEAD + b"\r\n",
    "a null among assets": b"GET /docs/assets/%00 " + HEAD + b"\r\n",
    "a long name among assets": b"GET /docs/assets/" + b"a" * 5000 + b" " + HEAD + b"\r\n",
    "a folder among assets": b"GET /docs/assets/. " + HEAD + b"\r\n",
    "ranges": STYLE + b"Range: bytes=" + b",".join([b"0-"] * 9000) + b"\r\n\r\n",
    "a range of none": STYLE + b"Range: bytes=9999999999999-\r\n\r\n",
    "a range that is none": STYLE + b"Range: bytes=\xff-" + b"9" * 5000 + b"\r\n\r\n",
    "an odd date": STYLE + b"If-Modified-Since: \xff\x01\r\n\r\n",
    "no path": b"GET  " + HEAD + b"\r\n",
    "a star": b"OPTIONS * " + HEAD + b"\r\n",
    "another host's path": b"GET http://[ " + HEAD + b"\r\n",
    "a path of an authority": b"CONNECT localhost:22 " + HEAD + b"\r\n",
    "bytes in the query": b"GET /api/signal?symbol=\xff\xfe " + HEAD + b"\r\n",
    "a query of signs": b"GET /api/signal?&&==;;%%%3D&symbol " + HEAD + b"\r\n",
    "bytes in a header": b"GET /health " + HEAD + b"X-Request-ID: \xff\xfe\x80\r\n\r\n",
    "a folded header": b"GET /health " + HEAD + b"X-A: 1\r\n  2\r\n\r\n",
    "a header without a name": b"GET /health " + HEAD + b": 1\r\n\r\n",
    "many headers": b"GET /health " + HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(4000)) + b"\r\n",
    "two lengths": BATCH + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]x",
    "the same length twice": BATCH + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
    "a length below none": BATCH + b"Content-Length: -1\r\n\r\n[]",
    "a huge length": BATCH + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n[]",
    "length and chunks": BATCH
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    "chunks in disguise": BATCH + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    "a chunk below none": BATCH + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n[]\r\n0\r\n\r\n",
    "an odd type": BATCH + b"Content-Type: \xff/\xfe; charset=\x80\r\nContent-Length: 2\r\n\r\n[]",
    "a form": BATCH
    + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n\r\n--x\r\n",
    "HTTP/1.0": f"GET /health HTTP/1.0\r\nX-API-Key: {TOKEN}\r\n\r\n".encode(),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "an upgrade to HTTP/2": b"GET /health " + HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "half a WebSocket": b"GET /health " + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", RAW.values(), ids=RAW.keys())
def test_hostile_bytes_are_the_callers_fault(address: str, stranger: httpx.Client, request_bytes: bytes):
    begun = time.monotonic()
    found = say(address, request_bytes)
    assert re.match(rb"HTTP/1\.[01] [234]\d\d ", found), found[:300]
    assert b"root:" not in found and b"Traceback" not in found
    if re.match(rb"HTTP/1\.[01] 4", found) and b"websocket" not in request_bytes:
        head, _, body = found.partition(b"\r\n\r\n")
        assert b"application/json" in head.lower(), head
        assert set(json.loads(body[: int(re.search(rb"content-length: (\d+)", head.lower())[1])])) == {
            "error", "message", "details",
        }  # fmt: skip
    assert time.monotonic() - begun < 8
    assert stranger.get("/health").status_code == 200


BODIES = {
    "repeated key": b'{"a": 1, "a": 2}',
    "deep": b'{"a":' * 50_000,
    "wide": b"[" + b"0," * 300_000 + b"0]",
    "huge integer": b"[1" + b"0" * 100_000 + b"]",
    "huge float": b"[1e" + b"9" * 1000 + b"]",
    "nan": b'["EURUSD", NaN]',
    "minus infinity": b"-Infinity",
    "escapes": b'["' + b"\\u0000" * 1000 + b'"]',
    "long name": b'["' + b"A" * 900_000 + b'"]',
    "many slashes": b'["' + b"/" * 900_000 + b'"]',
    "many spaces": b'["' + b" " * 900_000 + b'x"]',
    "many digits": b'["' + b"1" * 900_000 + b'!"]',
    "long key": b'{"' + b"k" * 900_000 + b'": 1}',
    "fifty long names": json.dumps(["A" * 20_000 + str(i) for i in range(50)]).encode(),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_hostile_bodies_cost_little_and_are_not_sent_back(owner: httpx.Client, body: bytes):
    begun = time.monotonic()
    answer = owner.post("/api/v1/signals/batch", content=body, headers=JSON)
    assert answer.status_code < 500 and time.monotonic() - begun < 4
    assert len(answer.content) < 60_000, len(answer.content)
    answer.json()


@pytest.mark.parametrize("letter", ["A", "/", "-", " ", "1", "_", "é", "İ", "\U0001f600", ".", "A/"])
def test_long_names_cost_little(owner: httpx.Client, letter: str):
    for path, query in (
        ("/api/market_data", {"symbol": letter * 4000}),
        ("/api/signal", {"symbol": "EURUSD", "timeframe": letter * 4000}),
    ):
        begun = time.monotonic()
        answer = owner.get(path, params=query)
        assert time.monotonic() - begun < 2
        assert 400 <= answer.status_code < 500 and len(answer.content) < 2000
    begun = time.monotonic()
    answer = owner.get(f"/api/v1/signals/latest/{letter * 4000}")
    assert time.monotonic() - begun < 2 and 400 <= answer.status_code < 500 and len(answer.content) < 2000


def test_the_application_alone_redirects_nowhere():
    app: FastAPI = create_app()
    assert app.router.redirect_slashes is False
