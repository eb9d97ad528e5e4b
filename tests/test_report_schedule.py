"""Reports that run by themselves: one run a due time however many work, tried again, and told when they fail."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from sqlalchemy import update
from test_crew import ORBIQUANT
from test_hostile import drive
from test_reports import write_report

from orbiquant.jobs.records import list_job_runs
from orbiquant.jobs.schedule import find_job, scheduled_jobs
from orbiquant.notices.outbox import list_notices
from orbiquant.persistence import writing
from orbiquant.reports import api, list_runs
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.programs import run_program

TELL = "from orbiquant.reports import record\nrecord(rows=rows or 7)"
SECOND = "from pathlib import Path\nseen = Path('../seen')\nif not seen.exists():\n    seen.touch()\n    1 / 0"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_report(tmp_path / "reports", "study", new_markdown_cell("## Tell"), new_code_cell(TELL))
    write_report(tmp_path / "reports", "broken", new_code_cell("1 / 0"))
    write_report(tmp_path / "reports", "second", new_code_cell(SECOND))
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def schedule(name: str, report: str, *words: str) -> Any:
    """Schedule a report and return what was said."""
    said = drive("report", "schedule", "add", name, report, "--schedule=@daily", *words, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def bring_due(*names: str) -> Runtime:
    """Let a day pass for some schedules."""
    runtime = Runtime(load_settings())
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with writing(runtime.engine) as connection:
        named = update(scheduled_jobs).where(scheduled_jobs.c.name.in_(names))
        connection.execute(named.values(next_due=yesterday))
    return runtime


def test_what_is_due_runs_once_and_is_told(home: Path):
    assert "No report runs by itself" in drive("report", "schedule", "list").out
    made = schedule("morning", "study", "--param", "rows=5", "--tries", "2")
    assert made["arguments"] | {"user_id": ""} == {
        "user_id": "", "name": "study", "parameters": {"rows": "5"}, "tries": 2, "timeout_s": None,
    }  # fmt: skip
    assert "No report is due" in drive("report", "schedule", "run-due").err
    runtime = bring_due("morning")
    ran = drive("report", "schedule", "run-due", "--json")
    told = json.loads(ran.out)
    assert ran.code == 0 and told["job"] == "morning" and told["result"]["metrics"] == {"rows": 5}
    assert "No report is due" in drive("report", "schedule", "run-due").err
    assert len(list_job_runs(runtime.engine, "morning")) == 1
    (notice,) = list_notices(runtime.engine)
    assert (notice.kind, notice.text) == ("report.ended", "report morning (study): succeeded")
    listed = drive("report", "schedule", "list").out
    assert "morning" in listed and "rows=5" in listed
    assert find_job(runtime.engine, "morning").next_due > datetime.now(UTC)
    assert drive("report", "schedule", "remove", "morning").code == 0
    gone = drive("report", "schedule", "remove", "morning")
    assert gone.code == 1 and "morning" in gone.err


@pytest.mark.slow
def test_a_report_that_fails_is_told_and_one_that_may_be_tried_again_is(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "TRY_AGAIN_S", 0.0)
    schedule("bad", "broken")
    schedule("shaky", "second", "--tries", "2")
    runtime = bring_due("bad", "shaky")
    ran = drive("report", "schedule", "run-due", "--json")
    ended = {told["job"]: told["result"] for told in map(json.loads, ran.out.splitlines())}
    assert ran.code == 1 and ended["bad"]["status"] == "failed" and "ZeroDivisionError" in ended["bad"]["error"]
    assert ended["shaky"]["status"] == "succeeded"
    assert len([*(home / "reports" / "runs").glob("*second*")]) == 2, "the try that failed is kept, too"
    assert {run.status for run in list_job_runs(runtime.engine)} == {"done"}
    told = {notice.text for notice in list_notices(runtime.engine)}
    assert told == {"report bad (broken): failed. division by zero", "report shaky (second): succeeded"}


def test_what_could_never_run_is_not_scheduled(home: Path):
    for words, said in (
        (("morning", "stduy", "--schedule=@daily"), "did you mean 'study'"),
        (("morning", "study", "--schedule=@often"), "schedule"),
        (("morning", "study", "--schedule=@daily", "--param", "rows=many"), "`rows`"),
        (("morning", "study", "--schedule=@daily", "--param", "rwos=1"), "rwos"),
        (("morning", "study", "--schedule=@daily", "--zone", "Europe/Madird"), "Europe/Madrid"),
        (("morning", "research", "--schedule=@daily"), "holds no EURUSD 1h"),
    ):
        refused = drive("report", "schedule", "add", *words)
        assert refused.code != 0 and said in refused.err, (words, refused.err)
    assert "No report runs by itself" in drive("report", "schedule", "list").out


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["", "local"], ids=["threads", "dask"])
def test_a_batch_runs_every_combination_and_one_that_fails_stops_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
):
    monkeypatch.setenv("ORBIQUANT_CLUSTER_SCHEDULER", scheduler)
    ran = drive("report", "batch", "study", "--vary", "rows=1,2", "--vary", "mode=plain,broken", "--json")
    runs = json.loads(ran.out)
    assert ran.code == 0 and [run["metrics"]["rows"] for run in runs] == [1, 1, 2, 2]
    wrong = drive("report", "batch", "study", "--vary", "rows=1,many")
    assert wrong.code == 1 and "`rows`" in wrong.err and len([*(home / "reports" / "runs").glob("*study*")]) == 4
    assert drive("report", "batch", "broken", "--vary", "rows=1,2").code == 1


@pytest.mark.slow
def test_a_batch_that_is_interrupted_ends_what_runs(home: Path):
    write_report(home / "reports", "slow", new_code_cell("import time\ntime.sleep(600)"))
    command = [*ORBIQUANT, "report", "batch", "slow", "--vary", "rows=1,2,3"]
    with run_program(command, env=os.environ.copy()) as program:
        until = time.monotonic() + 60
        while len([*(home / "reports" / "runs").glob("*slow*/worker.log")]) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(3)
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=20) == 130
    assert {run.status for run in list_runs(home / "reports" / "runs")} == {"interrupted"}


@pytest.mark.slow
def test_two_daemons_run_each_due_time_once(home: Path):
    schedule("morning", "study")
    schedule("evening", "study", "--param", "rows=9")
    runtime = bring_due("morning", "evening")
    command = [*ORBIQUANT, "report", "schedule", "daemon", "--json"]
    with run_program(command, env=os.environ.copy()) as one, run_program(command, env=os.environ.copy()) as two:
        until = datetime.now(UTC) + timedelta(seconds=60)
        while datetime.now(UTC) < until and sum(run.status == "done" for run in list_job_runs(runtime.engine)) < 2:
            signal.sigtimedwait([], 0.2)
        for each in (one, two):
            each.send_signal(signal.SIGINT)
            assert each.wait(timeout=30) == 0
    runs = list_job_runs(runtime.engine)
    assert sorted((run.job, run.status) for run in runs) == [("evening", "done"), ("morning", "done")]
    assert len([*(home / "reports" / "runs").glob("*study*")]) == 2
