"""A user's own notebooks served: from an empty folder to an answer, beside our routes or alone, and what goes wrong."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbformat
import pytest

from orbiquant.cli.choosing import chosen_app
from orbiquant.core import OptionError, OrbiError, SettingsError
from orbiquant.service.marks import BuildError
from orbiquant.workspace import make_workspace
from tests.tools.house import ROOT
from tests.tools.programs import run_program

BIN = Path(sys.executable).parent
HEAD = """#| export
import pandas as pd

import orbiquant as oq"""
EDGE = """#| export
@oq.endpoint("GET", "/edge/{symbol}", tags=("edge",))
def edge(
    symbol: str,  # in any spelling, e.g. EURUSD
    length: int = 2,  # rows
) -> pd.DataFrame:
    "Return what the edge says."
    times = pd.date_range("2024-05-01", periods=length, freq="h", tz="UTC", name="time")
    return pd.DataFrame({"symbol": symbol, "value": [1.5] * (length - 1) + [float("nan")]}, index=times)"""


def write_notebook(folder: Path, *cells: str, name: str = "01 my edge.ipynb", module: str = "edge") -> None:
    """Write a notebook that exports a module."""
    sources = [f"#| default_exp {module}", *cells]
    made = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
    nbformat.write(made, folder / "nbs" / name)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a person who has no `ORBIQUANT_HOME`, with this tree's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    command = [BIN / "orbiquant", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[httpx.Client, list[str]]]:
    """Serve in a folder; yield a client with the console's token, and what was said."""
    command, said = [BIN / "orbiquant", "serve", "--port", "0", *options], list[str]()
    with run_program(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.strip())
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/docs\?token=(\S+)", line):
                with httpx.Client(base_url=found[1], headers={"X-API-Key": found[2]}, timeout=60) as client:
                    yield client, said
                break
        else:
            raise AssertionError("\n".join(said))
        process.terminate()
        process.communicate(timeout=60)


def test_from_an_empty_folder_to_an_answer(tmp_path: Path):
    begin = time.perf_counter()
    folder = tmp_path / "gold desk"
    make_workspace(folder, "mine")
    write_notebook(folder, HEAD, EDGE, EDGE.removeprefix("#| export\n").replace("edge", "left"))
    with serving(folder, "--export") as (client, said):
        left_out = re.fullmatch(r"`left` \(nbs/01 my edge\.ipynb#cell-id=\w+\) is not served: (.*)", said.pop(0))
        assert left_out and left_out[1] == "begin its cell with `#| export`"
        assert client.get("/left/EURUSD").status_code == 404
        sized = client.post("/sizes", json={"entry": 1.08, "stop": 1.07, "risk": 100})
        assert sized.status_code == 200 and sized.json() == pytest.approx(10_000)
        assert "`body.risk`" in client.post("/sizes", json={"entry": 1.08, "stop": 1.07}).json()["message"]
        answer = client.get("/edge/EURUSD")
        print(f"from an empty folder to an answer: {time.perf_counter() - begin:.1f} s")
        assert answer.status_code == 200 and answer.json() == {
            "index": ["time"],
            "columns": ["symbol", "value"],
            "rows": [
                {"time": "2024-05-01T00:00:00Z", "symbol": "EURUSD", "value": 1.5},
                {"time": "2024-05-01T01:00:00Z", "symbol": "EURUSD", "value": None},
            ],
        }
        assert said[0].startswith("Serving ") and said[0].endswith(" of mine beside those of orbiquant")
        wrong = client.get("/edge/EURUSD", params={"length": "many"})
        assert wrong.status_code == 422 and "query.length" in wrong.json()["message"]
        too_many = client.get("/edge/EURUSD", params={"length": 100_000})
        assert too_many.status_code == 422 and "may have 200,000 cells" in too_many.json()["message"]
        assert httpx.get(client.base_url.join("/edge/EURUSD"), timeout=60).status_code == 401
        said_of_itself = client.get("/health").json()["status"]
        assert said_of_itself in ("healthy", "degraded"), "ours is answered beside it; a busy machine may be late"
        described = client.get("/openapi.json").json()
        assert described["info"] == {"title": "mine", "version": "0.0.1"}
        assert {"/edge/{symbol}", "/agents", "/health"} <= set(described["paths"])
    assert not (folder / "mine" / "app.py").exists(), "serving writes no routes"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace whose package `mine` has a module `desk`, exported."""
    folder = tmp_path_factory.mktemp("people") / "desk"
    make_workspace(folder, "mine")
    (folder / "nbs" / "my_endpoint.ipynb").unlink()
    write_notebook(folder, HEAD, EDGE, module="desk")
    done = subprocess.run([BIN / "nbdev-export"], cwd=folder, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_both_packages_are_one_app_and_alone_is_only_mine(desk: Path):
    with serving(desk) as (client, said):
        assert said[0] == "Serving 1 route of mine beside those of orbiquant"
        assert client.get("/edge/XAUUSD").json()["rows"][0]["symbol"] == "XAUUSD"
        assert client.get("/agents").status_code == 200
    with serving(desk, "--alone") as (client, said):
        assert said[0] == "Serving 1 route of mine"
        assert client.get("/edge/XAUUSD").status_code == 200
        assert [client.get(path).status_code for path in ("/agents", "/chat", "/health")] == [404] * 3
    with serving(desk, "--package", "orbiquant") as (client, said):
        assert said[0].startswith("Serving on") and client.get("/edge/XAUUSD").status_code == 404


@pytest.mark.slow
def test_the_routes_are_written_into_ones_own_package_and_checked(desk: Path):
    built = run("service", "build", cwd=desk)
    assert built.returncode == 0, built.stderr
    source = (desk / "mine" / "app.py").read_text()
    assert "GENERATED by `orbiquant service build --package mine` from" in source
    assert "from mine import desk as mine__desk\n" in source and "as_table(mine__desk.edge(" in source
    assert set(json.loads((desk / "mine" / "openapi.json").read_text())["paths"]) > {"/edge/{symbol}", "/agents"}
    assert run("service", "build", "--check", cwd=desk / "nbs").returncode == 0
    stale = run("service", "build", "--check", "--alone", cwd=desk)
    assert stale.returncode == 1 and "(built)" in stale.stdout
    listed = json.loads(run("endpoint", "list", "--package", "mine", "--json", cwd=desk).stdout)
    [found] = listed
    assert (found["method"], found["path"], found["scope"]) == ("GET", "/edge/{symbol}", "read")
    assert re.fullmatch(r"nbs/01 my edge\.ipynb#cell-id=\w+", found["place"])
    assert len(json.loads(run("endpoint", "list", "--json", cwd=desk).stdout)) > 40


@pytest.mark.slow
def test_a_workspace_installs(desk: Path, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    beside = next(path for path in sys.path if path.endswith("site-packages"))
    words = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", desk)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", *words],
        env=environment(PYTHONPATH=beside), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = "import mine.desk; print(mine.desk.__file__)"
    asked = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", told], cwd=tmp_path,
        env=environment(PYTHONPATH=f"{beside}{os.pathsep}{ROOT}"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.stdout.strip() == str(desk / "mine" / "desk.py"), asked.stderr


# --- what goes wrong ---


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORBIQUANT_HOME", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def refusal(kind: type[OrbiError], package: str | None = None, alone: bool = False, export: bool = True) -> str:
    """Return why nothing is served."""
    with pytest.raises(kind) as refused:
        chosen_app(package, alone, export, lambda text: None)
    return refused.value.message


def test_without_a_project_there_is_nothing_to_export(here: Path):
    assert "`--export` is about a package of yours" in refusal(OptionError)
    assert "`--alone` is about a package of yours" in refusal(OptionError, alone=True, export=False)
    assert "there is no package 'nowhere'" in refusal(BuildError, "nowhere", export=False)
    assert "`package` must be an import name" in refusal(OptionError, "no-name", export=False)


def test_a_project_file_that_cannot_be_meant_is_refused(here: Path):
    make_workspace(here / "one", "one")
    os.chdir(here / "one")
    for wrong, reason in {
        '[tool.nbdev]\nlib_path = "orbiquant"\n': "'orbiquant': that name is taken",
        '[tool.nbdev]\nlib_path = "a-b"\n': "must be a package's folder, was 'a-b'",
        "[tool.nbdev]\n": "must be a package's folder",
        "[tool.nbdev]\nlib_path = \n": "pyproject.toml cannot be read",
    }.items():
        (here / "one" / "pyproject.toml").write_text(wrong)
        assert reason in refusal(SettingsError)
    (here / "one" / "pyproject.toml").write_text('[tool.nbdev]\nlib_path = "json"\n')
    assert "that name is taken by" in refusal(OptionError)
    (here / "one" / "pyproject.toml").write_text('[tool.nbdev]\nlib_path = "one"\nnbs_path = "elsewhere"\n')
    assert "`nbs_path` must be a folder of notebooks" in refusal(BuildError)


CELLS = {
    "syntax": (
        ("#| export\ndef edge(:\n    pass",), r"nbs/01 my edge\.ipynb#cell-id=\w+: this cell is no Python: .*line 2",
    ),
    "a cell magic": (("#| export\n%%endpoint GET /edge\nx = 1",), "a magic cannot be exported .line 2: %%endpoint"),
    "nothing exported": ((EDGE.removeprefix("#| export\n"),), "no cell in .* is exported: begin the first with"),
    "nothing marked": (("#| export\nx = 1",), r"nothing in the package broken_\w+ \(.*is marked: put `#\| export`"),
    "bad import": (("#| export\nimport nowhere\nendpoint = 1",), r"#cell-id=\w+: broken_\w+\.edge cannot be imported"),
    "twice": (
        (HEAD, EDGE, EDGE.replace("/edge", "/other")),
        r"`edge` is defined in nbs/01 my edge\.ipynb#cell-id=\w+ and nbs/01 my edge\.ipynb#cell-id=\w+, and",
    ),
    "taken": (
        (HEAD, EDGE.replace("/edge/{symbol}", "/api/v1/signals/latest/{symbol}")),
        "GET /api/v1/signals/latest/{symbol} is taken by latest_signal .*--alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CELLS)
def test_a_notebook_that_cannot_be_served_names_its_cell(here: Path, case: str):
    cells, reason = CELLS[case]
    package = f"broken_{case.replace(' ', '_')}"
    make_workspace(here / "one", package)
    for template in (here / "one" / "nbs").iterdir():
        template.unlink()
    os.chdir(here / "one")
    write_notebook(here / "one", *cells)
    assert re.search(reason, refusal(BuildError), re.DOTALL)


def test_a_workspace_that_marks_nothing_serves_ours(here: Path):
    from orbiquant.app import app

    make_workspace(here / "one", "quiet_desk")
    os.chdir(here / "one")
    assert chosen_app(None, False, False, lambda text: None) is app, "nothing exported yet"
    (here / "one" / "quiet_desk").mkdir()
    (here / "one" / "quiet_desk" / "__init__.py").write_text("")
    assert chosen_app(None, False, False, lambda text: None) is app, "nothing marked"
