"""Processes that live and end with the one that began them: kept alive, ended in order, left by nobody."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import orbiquant.copilot.retention  # noqa: F401 - it registers the job that is queued here
from orbiquant.core import configure_logging
from orbiquant.jobs.handlers import find_handler
from orbiquant.jobs.records import get_job, start_job
from orbiquant.leases import lease_holder
from orbiquant.runtime import Runtime
from orbiquant.service.crew import Crew, Member
from orbiquant.settings import load_settings
from tests.tools.programs import run_program

ORBIQUANT = [str(Path(sys.executable).parent / "orbiquant")]
SIMPLE = """
import json, os, sys
told = json.loads(sys.stdin.readline())
open(told["file"], "a").write(f"{os.getpid()}\\n")
"""


def program(ending: str) -> list[str]:
    """Return a program that says in a file who it is, and then does what is given."""
    return [sys.executable, "-c", SIMPLE + ending]


def until(holds: Callable[[], Any], within_s: float = 20.0) -> Any:
    """Return what holds as soon as it does."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
    return found


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_who_ends_is_begun_again_and_who_lives_is_ended_with_us(tmp_path: Path):
    configure_logging("ERROR")
    short, long = tmp_path / "short", tmp_path / "long"
    members = [
        Member("short", program(""), {"file": str(short)}),
        Member("long", program("sys.stdin.read()"), {"file": str(long)}),
    ]
    with Crew(members):
        assert len(until(lambda: len(pids(short)) >= 2 and pids(short))) >= 2
        [lives] = until(lambda: pids(long))
        assert psutil.pid_exists(lives)
    assert len(pids(long)) == 1 and not psutil.pid_exists(lives)
    begun = len(pids(short))
    time.sleep(1.0)
    assert len(pids(short)) == begun  # nobody begins it any more


def test_who_does_not_end_when_asked_is_killed(tmp_path: Path):
    file = tmp_path / "deaf"
    deaf = program("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    with Crew([Member("deaf", deaf, {"file": str(file)}, patience_s=0.3)]):
        [pid] = until(lambda: pids(file))
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
        time.sleep(0.3)
    assert not psutil.pid_exists(pid)


def test_a_command_that_cannot_be_begun_is_tried_again_and_ends_nobody(tmp_path: Path):
    file = tmp_path / "well"
    absent = Member("absent", [str(tmp_path / "no-such-program")])
    with Crew([absent, Member("well", program("sys.stdin.read()"), {"file": str(file)})]):
        assert until(lambda: pids(file)) and absent.process is None


def told_address(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return the address and the token that a service printed."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"(http://127\.0\.0\.1:\d+)/\S*\?token=(\S+)", line):
            return found[1], found[2]
    raise AssertionError("no address was printed")


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_two_processes_serve_one_address_and_end_with_the_first(tmp_path: Path):
    surroundings = os.environ | {"ORBIQUANT_HOME": str(tmp_path), "ORBIQUANT_LOGGING_LEVEL": "ERROR"}
    command = [*ORBIQUANT, "serve", "--port", "0", "--workers", "2", "--no-work"]
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "env": surroundings}
    with run_program(command, **options) as process:
        address, token = told_address(process)
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=address, headers={"X-API-Key": token}, timeout=60, transport=transport) as client:
            assert client.get("/api/v1/me").json()["user_id"] == "local"
            serving = until(lambda: len(family(process)) == 2 and family(process))
            serving[0].kill()
            again = until(lambda: len(living := family(process)) == 2 and serving[0] not in living and living)
            answered = until(lambda: client.get("/metrics").text, 60)
            assert 'route="/api/v1/me",status="200"} 1.0' in answered, "whoever is asked tells of all"
        process.kill()  # and not in order
        process.wait()
        psutil.wait_procs(again, timeout=15)
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in again)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    return Runtime(load_settings())


@pytest.mark.slow
def test_one_process_trades_and_does_what_is_queued_until_its_input_ends(runtime: Runtime, tmp_path: Path):
    run = start_job(runtime.engine, find_handler("copilot.forget"), {}, runtime.clock)
    surroundings = os.environ | {"ORBIQUANT_HOME": str(tmp_path)}
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": surroundings}
    started = [*ORBIQUANT, "agent", "start", "atlas", "--equity", "1000", "--json"]
    subprocess.run(started, env=surroundings, check=True, capture_output=True)
    with run_program([*ORBIQUANT, "work", "--attached"], **options) as process:
        until(lambda: get_job(runtime.engine, run).status == "done", 40)
        holder = until(lambda: lease_holder(runtime.engine, "engine:paper-usdt"), 20)
        assert f":{process.pid}:" in holder
        _, said = process.communicate("", timeout=30)
        assert process.returncode == 0 and "Trading paper-usdt" in said and "protective stops stay" in said
        assert lease_holder(runtime.engine, "engine:paper-usdt") is None
