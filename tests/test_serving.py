"""Starting, ending, holding out: signals at any moment, connections that do nothing, a database nobody can write."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine
from test_service_http import TOKEN, check_problem, environment, make_runtime, running

from orbiquant.core import configure_logging
from orbiquant.persistence import engine, migrate
from orbiquant.runtime import Runtime
from orbiquant.service.connections import MAX_HEADER_BYTES, MAX_REQUEST_BYTES
from orbiquant.service.factory import create_app, needs
from orbiquant.service.keys import authenticate, create_api_key, list_api_keys
from tests.tools.programs import run_program

PROGRAM = [str(Path(sys.executable).parent / "orbiquant"), "serve", "--port", "0", "--no-work"]
KEY = {"X-API-Key": TOKEN}


# --- Ctrl-C ---


def check_quiet_end(process: "subprocess.Popen[str]", said: str = "") -> None:
    """Assert that a process that was interrupted ends at once, as interrupted or done, and without a traceback."""
    said += process.communicate(timeout=60)[1]
    assert process.returncode in (0, 130, -signal.SIGINT), said  # a shell says 130 for the last
    assert "Traceback" not in said and "Exception ignored" not in said, said


@pytest.mark.parametrize("after_s", [0, 0.05, 0.1, 0.3])
def test_an_interrupt_while_python_itself_starts_meets_nothing_of_ours(tmp_path: Path, after_s: float):
    with run_program(PROGRAM, stderr=-1, stdout=-1, text=True, env=environment(tmp_path)) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.send_signal(signal.SIGINT)  # Python may have dropped the first, and said so
        said = process.communicate(timeout=60)[1]
    ours = [line for line in said.splitlines() if re.search("/orbiquant/(?!__init__|_version|_caches)", line)]
    assert ours == [], said


OURS = """
import sys
class Loading:
    def find_spec(self, name, *_):
        if name == "orbiquant.cli.program":
            print("ours", flush=True)
sys.meta_path.insert(0, Loading())
from orbiquant.cli import main
main(["serve", "--port", "0", "--no-work"])
"""


@pytest.mark.parametrize("after_s", [0, 0.01, 0.05, 0.1, 0.2, 0.35, 0.6, 1])
def test_an_interrupt_while_it_starts_ends_it_quietly(tmp_path: Path, after_s: float):
    with run_program(
        [sys.executable, "-c", OURS], stderr=-1, stdout=-1, text=True, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ours\n"
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        check_quiet_end(process)


@pytest.mark.parametrize("after_s", [0.02, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 0.1, 0.3, 1))])
def test_an_interrupt_once_it_serves_ends_it_quietly(tmp_path: Path, after_s: float):
    with run_program(PROGRAM, stderr=-1, stdout=-1, text=True, env=environment(tmp_path)) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Serving on http://127.0.0.1:"), line
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        check_quiet_end(process, line)


# --- SIGTERM ---

SLOW = """
import asyncio, time
from orbiquant.core import configure_logging
from orbiquant.service.factory import create_app
from orbiquant.service.serving import serve
configure_logging("ERROR")
app = create_app(public=["/quick", "/long", "/waiting", "/begun"])

def stay(seconds):
    print("begun\\n", end="", flush=True)
    time.sleep(seconds)

async def waiting():
    print("begun\\n", end="", flush=True)
    await asyncio.sleep(60)

async def pieces():
    yield b"first"
    print("begun\\n", end="", flush=True)
    await asyncio.sleep(60)

def begun():
    from fastapi.responses import StreamingResponse
    return StreamingResponse(pieces())

app.add_api_route("/quick", lambda: stay(1))
app.add_api_route("/long", lambda: stay(60))
app.add_api_route("/waiting", waiting)
app.add_api_route("/begun", begun)
serve(app, port=0, announce=lambda url: print(url, flush=True))
"""


def test_an_end_answers_what_is_in_flight_and_takes_under_five_seconds(tmp_path: Path):
    answers: dict[str, Any] = {}

    def ask(url: str, path: str) -> None:
        try:
            answers[path] = httpx.get(url + path, timeout=30)
        except httpx.HTTPError as error:
            answers[path] = error

    with run_program(
        [sys.executable, "-c", SLOW], stderr=-1, stdout=-1, text=True, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("/docs")[0]
        assert url.startswith("http"), process.stderr
        asked = [threading.Thread(target=ask, args=(url, path)) for path in ("/quick", "/long", "/waiting", "/begun")]
        for thread in asked:
            thread.start()
        assert [process.stdout.readline() for _ in asked] == ["begun\n"] * 4
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
        took_s = time.monotonic() - begun
        for thread in asked:
            thread.join()
    assert (process.returncode, took_s < 5) == (0, True), (said, took_s)
    assert "Traceback" not in said, said
    assert answers["/quick"].status_code == 200
    for path in ("/long", "/waiting"):
        problem = check_problem(answers[path], 503, "UNAVAILABLE")
        assert "the service is ending" in problem["message"]
    assert isinstance(answers["/begun"], httpx.RemoteProtocolError), "what has begun cannot become an error"


def test_who_interrupts_twice_waits_for_nothing(tmp_path: Path):
    with run_program(
        [sys.executable, "-c", SLOW], stderr=-1, stdout=-1, text=True, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("/docs")[0]
        answers: list[httpx.Response] = []
        asked = threading.Thread(target=lambda: answers.append(httpx.get(url + "/long", timeout=30)))
        asked.start()
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        asked.join()
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert time.monotonic() - begun < 5
    check_problem(answers[0], 503, "UNAVAILABLE")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_service_ends_at_once(tmp_path: Path, number: int):
    with run_program(PROGRAM, stderr=-1, stdout=-1, text=True, env=environment(tmp_path)) as process:
        assert process.stderr is not None
        url = re.search("http://[0-9.:]+", process.stderr.readline())
        assert url
        with httpx.Client() as client:  # stays connected
            assert client.get(f"{url[0]}/health", timeout=30).status_code == 200
            process.send_signal(number)
            said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert not re.search("Traceback|error|Exception", said), said


# --- connections that do nothing ---


def small_app() -> FastAPI:
    """Return an application with something that takes longer than a client's patience is long."""
    app = create_app(public=["/open", "/slow"])
    app.add_api_route("/open", lambda: 1)
    app.state.begun = []  # slow requests

    def slow() -> None:
        app.state.begun.append(time.monotonic())
        time.sleep(2.5)

    app.add_api_route("/slow", slow)

    def take(words: list[str]) -> int:
        return len(words)

    app.add_api_route("/take", take, methods=["POST"], dependencies=[needs("read")])
    return app


@contextmanager
def held(tmp_path: Path, patience_s: float = 1, **service: Any) -> Iterator[tuple[FastAPI, str]]:
    """Yield an application and the address it is served at."""
    configure_logging("ERROR")
    app = small_app()
    with running(app, make_runtime(tmp_path, requests_per_minute=100_000, **service), patience_s=patience_s) as url:
        yield app, url


def line_to(url: str) -> socket.socket:
    """Return an open connection."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_all(line: socket.socket) -> bytes:
    """Return what comes until the other side ends it."""
    found = b""
    with suppress(ConnectionResetError):
        while piece := line.recv(65536):
            found += piece
    return found


def drip(line: socket.socket, piece: bytes, stop: threading.Event) -> None:
    """Send a piece again and again."""
    with suppress(OSError):
        while not stop.wait(0.2):
            line.sendall(piece)


POST = f"POST /take HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\nContent-Type: application/json\r\n".encode()
HALVES = {
    "silent": (b"", b"", b""),
    "half a header": (b"GET /open HTTP/1.1\r\nHost: loc", b"", b"408"),
    "a header without end": (b"GET /open HTTP/1.1\r\nHost: localhost\r\n", b"X-More: 1\r\n", b"408"),
    "half a body": (POST + b'Content-Length: 100\r\n\r\n["a"', b"", b"408"),
    "a body by drops": (POST + b"Content-Length: 100000\r\n\r\n[", b" ", b"408"),
    "chunks without end": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"408"),
    "trailers without end": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", b"X-More: 1\r\n", b"408"),
    "a next header without end": (b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\nGET /op", b"e", b"200"),
    "a body nobody reads": (
        b"POST /take HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n", b"x", b"401",
    ),
    "lines before a request": (b"", b"\r\n", b"408"),
}  # fmt: skip


def test_whoever_never_finishes_a_request_is_not_waited_for(tmp_path: Path):
    stop = threading.Event()
    with held(tmp_path) as (app, url):
        lines = {name: line_to(url) for name in HALVES}
        for name, (start, more, _) in HALVES.items():
            lines[name].sendall(start)
            if more:
                threading.Thread(target=drip, args=(lines[name], more, stop), daemon=True).start()
        begun = time.monotonic()
        answers = {name: read_all(line) for name, line in lines.items()}
        took_s = time.monotonic() - begun
        stop.set()
        assert took_s < 10
        for name, (_, _, status) in HALVES.items():
            assert answers[name].startswith(b"HTTP/1.1 " + status) if status else not answers[name], name
        problem = json.loads(answers["half a body"].partition(b"\r\n\r\n")[2])
        assert problem["error"] == "REQUEST_TIMEOUT" and "within 1 s" in problem["message"]
        assert app.state.connections.timed_out == len(HALVES)
        assert httpx.get(f"{url}/open").status_code == 200
    for line in lines.values():
        line.close()


def test_whoever_does_their_part_is_left_alone(tmp_path: Path):
    with held(tmp_path) as (app, url), httpx.Client(base_url=url, timeout=30) as client:
        ends, connections = time.monotonic() + 3, set()
        while time.monotonic() < ends:
            answer = client.get("/open")
            assert answer.status_code == 200
            connections.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(0.05)
        assert len(connections) == 1, "one connection, kept alive"
        assert client.get("/slow").status_code == 200
        assert app.state.connections.timed_out == 0


def test_an_answer_that_is_not_taken_is_not_kept(tmp_path: Path):
    with held(tmp_path) as (app, url), closing(line_to(url)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = f"GET /docs/assets/swagger-ui-bundle.js?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        line.sendall(ask * 30)
        ends = time.monotonic() + 15
        while not app.state.connections.timed_out and time.monotonic() < ends:
            time.sleep(0.1)
        assert app.state.connections.timed_out == 1


def test_a_full_house_lets_go_who_waits_longest(tmp_path: Path):
    with held(tmp_path, patience_s=60, connections=5) as (app, url):
        idle = [line_to(url) for _ in range(5)]
        assert httpx.get(f"{url}/open").status_code == 200
        assert (app.state.connections.let_go, app.state.connections.refused) == (1, 0)
        assert read_all(idle[0]) == b"", "who came first"
        for line in idle:
            line.close()


def test_a_flood_of_half_requests_keeps_nobody_out(tmp_path: Path):
    stop = threading.Event()

    def flood() -> None:
        lines = []
        while not stop.wait(0.01):
            with suppress(OSError):
                lines.append(line_to(url))
                lines[-1].sendall(b"GET /open HTTP/1.1\r\nHost: l")
        for line in lines:
            line.close()

    with held(tmp_path, patience_s=60, connections=100) as (app, url):
        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + 15
        while not app.state.connections.let_go and time.monotonic() < ends:
            time.sleep(0.05)
        codes = [httpx.get(f"{url}/open", timeout=20).status_code for _ in range(20)]
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [200] * 20


FEW_FILES = """
import resource, socket, sys, threading, time
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
from orbiquant.core import configure_logging
from orbiquant.service.factory import create_app
from orbiquant.service.serving import serve
configure_logging("ERROR")
app = create_app(public=["/open"])
app.add_api_route("/open", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
serve(app, port=0, announce=lambda url: print(url, flush=True))
"""


def test_a_service_does_not_run_out_of_files(tmp_path: Path):
    with run_program(
        [sys.executable, "-c", FEW_FILES], stderr=-1, stdout=-1, text=True, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("/docs")[0]
        idle = [line_to(url) for _ in range(300)]
        assert httpx.get(f"{url}/open", timeout=30).json() == 200
        for line in idle:
            line.close()
        process.send_signal(signal.SIGINT)
        check_quiet_end(process)


def test_a_house_full_of_work_says_so(tmp_path: Path):
    with held(tmp_path, patience_s=60, connections=2) as (app, url):
        asked = [threading.Thread(target=httpx.get, args=(f"{url}/slow",), kwargs={"timeout": 30}) for _ in range(2)]
        for thread in asked:
            thread.start()
        ends = time.monotonic() + 15
        while len(app.state.begun) < 2 and time.monotonic() < ends:
            time.sleep(0.01)
        with closing(line_to(url)) as line:
            answer = read_all(line)
        assert answer.startswith(b"HTTP/1.1 503") and b'"error":"UNAVAILABLE"' in answer
        assert app.state.connections.refused == 1
        for thread in asked:
            thread.join()


def test_a_header_and_a_request_have_a_size(tmp_path: Path):
    with held(tmp_path, patience_s=60) as (_, url):
        with closing(line_to(url)) as line, suppress(OSError):
            line.sendall(b"GET /open HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(MAX_HEADER_BYTES // 1000 + 10):
                line.sendall(b"X-More: " + b"a" * 1000 + b"\r\n")
                time.sleep(0.001)
            assert read_all(line).startswith(b"HTTP/1.1 431")
        with closing(line_to(url)) as line:
            line.sendall(b"GET /" + b"a" * (MAX_HEADER_BYTES - 1000) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 401")
        sent = 0
        with closing(line_to(url)) as line, pytest.raises(OSError):
            line.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n")
            while sent < 4 * MAX_REQUEST_BYTES:
                line.sendall(b"X-More: " + b"a" * 65000 + b"\r\n")
                sent += 65000
        assert httpx.get(f"{url}/open").status_code == 200


def test_what_is_no_http_is_answered_in_our_form_and_fills_no_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with held(tmp_path) as (app, url):
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET /open HTTP/9.9\r\n\r\n"):
            with closing(line_to(url)) as line:
                line.sendall(noise)
                head, _, body = read_all(line).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400") and b"application/json" in head
            assert set(json.loads(body)) == {"error", "message", "details"}
        assert app.state.connections.malformed == 3
    assert capfd.readouterr() == ("", "")


# --- a database that cannot be written ---


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_key_is_known_while_the_database_is_locked(tmp_path: Path, begin: str):
    runtime = make_runtime(tmp_path)
    key = create_api_key(runtime.engine, "k", "ana", "free", ["read"], runtime.clock)
    with running(small_app(), runtime) as url, closing(sqlite3.connect(tmp_path / "o.db")) as other:
        other.isolation_level = None
        other.execute(begin)
        begun = time.monotonic()
        answers = [httpx.get(f"{url}/docs", headers={"X-API-Key": key}, timeout=60) for _ in range(5)]
        took_s = time.monotonic() - begun
        assert [answer.status_code for answer in answers] == [200] * 5
        assert took_s < 5, "each request waits for nothing"
        assert list_api_keys(runtime.engine)[0].last_used_at is None
        other.execute("ROLLBACK")


def test_a_key_is_known_when_its_file_cannot_be_written(tmp_path: Path):
    runtime = make_runtime(tmp_path)
    key = create_api_key(runtime.engine, "k", "ana", "free", ["read"], runtime.clock)
    runtime.engine.dispose()
    read_only = create_engine(f"sqlite:///file:{tmp_path}/o.db?mode=ro&uri=true")
    assert authenticate(read_only, key, runtime.clock).user_id == "ana"
    read_only.dispose()
    with closing(sqlite3.connect(tmp_path / "o.db")) as found:
        assert found.execute("SELECT last_used_at FROM api_keys").fetchall() == [(None,)]


def test_a_use_is_recorded_when_the_database_can_be_written_again(tmp_path: Path):
    runtime: Runtime = make_runtime(tmp_path)
    key = create_api_key(runtime.engine, "k", "ana", "free", ["read"], runtime.clock)
    authenticate(runtime.engine, key, runtime.clock)
    assert list_api_keys(runtime.engine)[0].last_used_at is not None
    runtime.engine.dispose()


# --- whose files they are ---


def rights(path: Path) -> str:
    """Return who may do what with a file."""
    return f"{path.stat().st_mode & 0o777:o}"


def test_the_database_is_its_owners_alone(tmp_path: Path):
    made = engine(f"sqlite:///{tmp_path}/new/o.db")
    previous = os.umask(0)
    try:
        migrate(made)
        with made.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM api_keys").all()
            files = {path.name: rights(path) for path in (tmp_path / "new").iterdir()}
    finally:
        os.umask(previous)
    made.dispose()
    assert files == {"o.db": "600", "o.db-wal": "600", "o.db-shm": "600"}


def test_a_database_that_others_could_read_is_narrowed(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "o.db")) as old:
        old.execute("CREATE TABLE t (a)")
    (tmp_path / "o.db").chmod(0o664)
    made = engine(f"sqlite:///{tmp_path}/o.db")
    with made.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM t").all()
    made.dispose()
    assert rights(tmp_path / "o.db") == "600"


# --- who asks ---


def test_a_forged_address_changes_nothing(tmp_path: Path):
    with running(small_app(), make_runtime(tmp_path, requests_per_minute=5)) as url:
        codes = [
            httpx.get(f"{url}/docs", headers={"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.0.1.{n}"})
            for n in range(7)
        ]
        assert [answer.status_code for answer in codes] == [401] * 5 + [429] * 2


def test_a_proxy_that_is_named_is_believed(tmp_path: Path):
    runtime = make_runtime(tmp_path, requests_per_minute=5, trusted_proxies=("127.0.0.1",))
    with running(small_app(), runtime) as url:
        codes = [httpx.get(f"{url}/docs", headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(7)]
        assert codes == [401] * 7


def test_nothing_of_a_forged_place_comes_back(tmp_path: Path):
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"}
    with running(small_app(), make_runtime(tmp_path)) as url, httpx.Client(base_url=url, headers=KEY) as client:
        for path in ("/", "/docs", "/docs/", "/openapi.json", "/open/", "/docs/assets", "/nothing"):
            answer = client.get(path, headers=forged)
            assert "evil" not in answer.text + str(answer.headers), path
            assert not re.match("https?:", answer.headers.get("location", "")), path
