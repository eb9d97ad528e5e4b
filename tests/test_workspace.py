"""A workspace: made once, found from every folder below; its tutorial and first notebook run, its package exports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orbiquant.workspace import is_workspace, make_workspace, workspace
from tests.tools.house import ROOT

BIN = Path(sys.executable).parent
FILES = {"settings.ini", "pyproject.toml", ".gitignore", "tutorial.ipynb", "copilot.ipynb"}
FILES |= {"nbs/00_ideas.ipynb", "nbs/01_routes.ipynb"}


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment, as a person does who has no `ORBIQUANT_HOME`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORBIQUANT_")}
    command = [BIN / words[0], *map(str, words[1:])]
    return subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a workspace with quick models, made by the command."""
    folder = tmp_path_factory.mktemp("people") / "gold desk"
    done = run("orbiquant", "init", folder, "--json", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["made"]) == FILES
    with (folder / "settings.ini").open("a") as settings:
        settings.write("\n[models]\nfolds = 2\nrounds = 10\nmeta = off\n")
    return folder


def test_what_is_there_already_stays(made: Path):
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    done = run("orbiquant", "init", made, cwd=made)
    assert done.returncode == 0 and "left as they were  settings.ini" in done.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_a_lost_file_is_made_again(tmp_path: Path):
    make_workspace(tmp_path / "one")
    (tmp_path / "one" / "tutorial.ipynb").unlink()
    assert [name for name, is_new in make_workspace(tmp_path / "one").items() if is_new] == ["tutorial.ipynb"]


def test_every_command_and_notebook_below_finds_it(made: Path, monkeypatch):
    monkeypatch.delenv("ORBIQUANT_HOME", raising=False)
    (made / "nbs" / "deep").mkdir(exist_ok=True)
    for place in (made, made / "nbs", made / "nbs" / "deep"):
        monkeypatch.chdir(place)
        assert workspace() == made
    told = json.loads(run("orbiquant", "settings", "show", "models", "--json", cwd=made / "nbs").stdout)
    assert told["models"]["folds"] == 2


@pytest.mark.parametrize("content", [b"[DEFAULT]\nlib_name = x\n", b"\xff\xfe", b"", b"# [workspace]\n"])
def test_another_tools_settings_are_no_workspace(tmp_path: Path, monkeypatch, content: bytes):
    monkeypatch.delenv("ORBIQUANT_HOME", raising=False)
    (tmp_path / "settings.ini").write_bytes(content)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert not is_workspace(tmp_path) and workspace() == tmp_path / "below"


def test_a_file_a_closed_folder_and_a_taken_package_are_refused_in_a_line(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    closed = run("orbiquant", "init", "/proc/nothing", cwd=tmp_path)
    file = run("orbiquant", "init", tmp_path / "file", cwd=tmp_path)
    taken = run("orbiquant", "init", tmp_path / "new", "--package", "json", cwd=tmp_path)
    assert "`folder` must be one that can be written to" in closed.stderr
    assert "`folder` must be a folder or a new one, was the file" in file.stderr
    assert "`package` must be a name that Python can import and nothing else has, was 'json'" in taken.stderr
    assert all(done.returncode == 1 and len(done.stderr.splitlines()) <= 3 for done in (closed, file, taken))
    assert not (tmp_path / "new").exists() and (tmp_path / "file").read_text() == "mine"


def test_the_next_steps_run_as_they_are_printed(tmp_path: Path):
    done = run("orbiquant", "init", tmp_path / "a b", cwd=tmp_path)
    steps = done.stdout.partition("Next:\n")[2].splitlines()
    script = "\n".join([*steps[:1], *(f"{step.split()[0]} --help > /dev/null" for step in steps[1:]), "pwd"])
    bare = {"PATH": os.environ["PATH"]}  # as of who read them
    ran = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stdout.strip() == str(tmp_path / "a b"), ran.stderr


def test_a_home_elsewhere_is_told(tmp_path: Path):
    done = run("orbiquant", "init", tmp_path / "new", cwd=tmp_path, ORBIQUANT_HOME=str(tmp_path))
    assert done.returncode == 0 and f"ORBIQUANT_HOME is {tmp_path}" in done.stdout


# --- its notebooks ---


def execute(notebook: Path) -> dict:
    """Run a notebook where it lies, as Lab does, and return it."""
    words = ("--to", "notebook", "--execute", "--output", "ran.ipynb", notebook)
    done = run("jupyter", "nbconvert", *words, cwd=notebook.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((notebook.parent / "ran.ipynb").read_text())


def outputs(notebook: dict) -> list[dict]:
    """Return the outputs of all code cells, those that only print or warn among them."""
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_the_tutorial_goes_from_bars_to_a_signal_with_a_picture_at_every_step(made: Path):
    ran = execute(made / "tutorial.ipynb")
    steps = [cell for cell in ran["cells"] if cell["cell_type"] == "code"]
    shown = [{kind for output in cell["outputs"] for kind in output.get("data", {})} for cell in steps]
    assert len(steps) == 8 and all(kinds & {"application/vnd.plotly.v1+json", "text/html"} for kinds in shown), shown
    assert not [output for output in outputs(ran) if output["output_type"] == "stream"], "no step chatters"
    assert all(len("".join(cell["source"]).splitlines()) <= 5 for cell in steps)
    models = json.loads(run("orbiquant", "models", "list", "--json", cwd=made).stdout)
    assert models and (made / "reports" / "runs").exists() and not (made / "nbs" / "data").exists()


@pytest.mark.slow
def test_the_guide_to_the_copilot_asks_backtests_and_proposes(made: Path):
    ran = execute(made / "copilot.ipynb")
    said = "\n".join(
        "".join(output.get("data", {}).get("text/plain", output.get("text", ""))) for output in outputs(ran)
    )
    assert "1.20075" in said and "run_backtest(symbol=EURUSD, timeframe=1h, strategy=breakout)" in said
    assert "BUY 0.01 lots ORBUSDT" in said, "what nobody decided on is told to be void"
    assert "Chat('my tables')" in said and not [each for each in outputs(ran) if each["output_type"] == "error"]


def test_a_notebook_of_ones_own_ends_in_a_backtest_chart_and_exports_a_package(made: Path):
    ran = execute(made / "nbs" / "00_ideas.ipynb")
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs(ran))
    done = run("nbdev-export", cwd=made / "nbs")
    assert done.returncode == 0, done.stderr
    used = "import orbiquant as oq; from gold_desk.ideas import breakout; print(len(breakout(oq.load_bars('EURUSD'))))"
    asked = run("python", "-c", used, cwd=made, PYTHONPATH=f"{made}{os.pathsep}{ROOT}")
    assert asked.returncode == 0 and int(asked.stdout.split()[-1]) > 20, asked.stderr


@pytest.mark.slow
def test_a_function_of_ones_own_is_served_from_its_notebook(made: Path):
    ran = execute(made / "nbs" / "01_routes.ipynb")
    said = "".join("".join(output.get("text", "")) for output in outputs(ran))
    assert "Serving `ranges` on http://127.0.0.1:" in said and "/ranges/EURUSD'" in said
    assert not [output for output in outputs(ran) if output["output_type"] == "error"]
