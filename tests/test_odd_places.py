"""Folders that are gone, folders with names the store cannot keep apart, and what a report leaves running."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from orbiquant.core import AuthError, ModelError, OptionError, SystemClock
from orbiquant.desk.health import check_component, models_answer
from orbiquant.desk.series import live_of
from orbiquant.domain import SeriesId
from orbiquant.market.store import DeltaBarStore
from orbiquant.persistence import engine, migrate
from orbiquant.reports.run import run_report
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import authenticate, create_api_key
from orbiquant.settings import load_settings

CONSOLE = [sys.executable, "-c", "from orbiquant.cli import main; main()"]
PACKAGE = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["a[b", "a]b", "a^b", "a|b", "a%20b", "a\\b"])
def test_a_store_is_not_made_where_it_could_not_be_written(name: str, tmp_path: Path):
    with pytest.raises(OptionError, match="store_uri` must lie in folders without"):
        DeltaBarStore(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sp ace", "qu'o\"te", "ünï 日本", "50% off", "#?*{}<>&=;:", "-dash", "$HOME`x`"])
def test_a_store_keeps_bars_in_any_other_folder(name: str, tmp_path: Path):
    from orbiquant.domain import Timeframe
    from orbiquant.market.synthetic import synthetic_market

    bars, series = synthetic_market(300, Timeframe.H1, 1).bars, SeriesId.parse("EURUSD", "1h")
    store = DeltaBarStore(tmp_path / name)
    store.upsert(series, bars.iloc[:200])
    store.upsert(series, bars.iloc[100:])
    assert DeltaBarStore(tmp_path / name).read(series).index.equals(bars.index)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def in_a_deleted_folder(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose current folder goes before it begins."""
    gone = tmp_path / "gone"
    gone.mkdir()
    enter = ["bash", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone), *CONSOLE, *words]
    env = {name: value for name, value in os.environ.items() if name != "ORBIQUANT_HOME"}
    return subprocess.run(
        enter, env=env | {"PYTHONPATH": str(PACKAGE)} | variables, capture_output=True, text=True, timeout=60
    )


def test_a_deleted_current_folder_is_named(tmp_path: Path):
    for words in (("data", "list"), ("doctor",)):
        told = in_a_deleted_folder(tmp_path, *words)
        assert told.returncode == 1
        assert told.stderr.startswith(
            "Error: the current folder has been deleted: go to another one, or name a workspace"
        )
    made = in_a_deleted_folder(tmp_path, "init", str(tmp_path / "new"), ORBIQUANT_HOME=str(tmp_path))
    assert made.returncode == 0 and (tmp_path / "new" / "settings.ini").is_file() and "cd " in made.stdout


LEAVES = """
import os, subprocess
away = subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.run(["sh", "-c", "setsid sleep 600 & echo $! > orphan"])
open("child", "w").write(str(away.pid))
"""


def test_what_a_report_started_ends_with_it_even_an_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    other = subprocess.Popen(["sleep", "600"])
    try:
        (tmp_path / "reports").mkdir()
        code = nbformat.v4.new_code_cell(LEAVES)
        nbformat.write(nbformat.v4.new_notebook(cells=[code]), tmp_path / "reports" / "leaves.ipynb")
        run = run_report("leaves", root=tmp_path / "runs", timeout_s=120)
        assert run.status == "succeeded"
        started = [int((tmp_path / name).read_text()) for name in ("child", "orphan")]
        end = time.monotonic() + 5
        while any(map(psutil.pid_exists, started)) and time.monotonic() < end:
            time.sleep(0.05)
        alive = [pid for pid in started if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        assert alive == [] and other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_ends_without_asking_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from orbiquant.app import app

    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    sent: list[str] = []

    async def live() -> None:
        async def receive() -> dict[str, str]:
            if sent:
                await asyncio.sleep(60)
            return {"type": "lifespan.startup"}

        async def send(message: dict[str, str]) -> None:
            sent.append(message["type"])

        with using(Runtime(load_settings())):
            task = asyncio.create_task(app({"type": "lifespan", "app": app, "state": {}}, receive, send))
            while not sent:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            task.cancel()
            await task

    asyncio.run(live())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_database_that_was_put_back_from_a_backup_is_the_one_that_answers(tmp_path: Path):
    served, other = (engine(f"sqlite:///{tmp_path / name}.db") for name in ("served", "other"))
    migrate(served)
    migrate(other)
    old = create_api_key(served, "old", "owner", "free", ["read"], SystemClock())
    new = create_api_key(other, "new", "owner", "free", ["read"], SystemClock())
    assert authenticate(served, old, SystemClock()).plan == "free"
    other.dispose()  # leaves no write-ahead log behind
    (tmp_path / "other.db").replace(tmp_path / "served.db")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"served.db{suffix}").unlink(missing_ok=True)
    assert authenticate(served, new, SystemClock()).plan == "free"
    with pytest.raises(AuthError):
        authenticate(served, old, SystemClock())


def test_a_model_that_cannot_be_loaded_is_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runtime, series = Runtime(load_settings()), SeriesId.parse("EURUSD", "1h")
    live, broken = live_of(runtime), [True]

    class Line:
        def __init__(self, *given: object) -> None:
            pass

        def latest(self) -> None:
            if broken:
                raise ModelError("tpsl.json is not the file that was saved")

    monkeypatch.setattr("orbiquant.research.live.LiveLine", Line)
    assert check_component("models", lambda: models_answer(runtime)) in ("ok", "empty")
    with pytest.raises(ModelError):
        live.latest(series)
    assert check_component("models", lambda: models_answer(runtime)) == "error"
    broken.clear()  # saved again: nobody needs to ask for it first
    assert check_component("models", lambda: models_answer(runtime)) in ("ok", "empty")
    assert live.failing == set()
