"""A workspace: made once, found from every folder below; its tutorial and first notebook run, its package exports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from orbiquant.workspace import is_workspace, make_workspace, workspace
from tests.tools.house import ROOT

BIN = Path(sys.executable).parent
FILES = {"settings.ini", "pyproject.toml", ".gitignore", "tutorial.ipynb", "copilot.ipynb"}
FILES |= {"nbs/my_strategy.ipynb", "nbs/my_endpoint.ipynb", "reports/my_report.ipynb"}


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
    """Run a notebook where it lies, as Lab does, and return it, each cell with when it began and ended."""
    options = ("--to", "notebook", "--execute", "--output", "ran.ipynb", "--ExecutePreprocessor.record_timing=True")
    done = run("jupyter", "nbconvert", *options, notebook, cwd=notebook.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((notebook.parent / "ran.ipynb").read_text())


def outputs(notebook: dict) -> list[dict]:
    """Return the outputs of all code cells, those that only print or warn among them."""
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def said_in(notebook: dict) -> str:
    """Return all that its cells show and print, as text."""
    texts = (output.get("data", {}).get("text/plain", output.get("text", "")) for output in outputs(notebook))
    return "\n".join(map("".join, texts))


def seconds_of(cell: dict) -> float:
    """Return how long a cell ran."""
    times = [pd.Timestamp(cell["metadata"]["execution"][f"iopub.{name}"]) for name in ("execute_input", "status.idle")]
    return (times[1] - times[0]).total_seconds()


@pytest.fixture(scope="module")
def tutorial(made: Path) -> dict:
    """Return the tutorial as it ran, once for all that is asked of it."""
    return execute(made / "tutorial.ipynb")


def test_the_tutorial_runs_the_whole_product_with_a_picture_at_every_step(made: Path, tutorial: dict, capsys):
    steps = [cell for cell in tutorial["cells"] if cell["cell_type"] == "code"]
    titles = [text for cell in tutorial["cells"] if (text := "".join(cell["source"]).splitlines()[0]).startswith("## ")]
    shown = [{kind for output in cell["outputs"] for kind in output.get("data", {})} for cell in steps]
    assert len(steps) == 11 and all(kinds & {"application/vnd.plotly.v1+json", "text/html"} for kinds in shown), shown
    chatter = [
        output for cell in steps[:8] + steps[9:] for output in cell["outputs"] if output["output_type"] == "stream"
    ]
    assert not chatter, "no step chatters"
    assert all(len("".join(cell["source"]).splitlines()) <= 12 for cell in steps)
    with capsys.disabled():
        told = [f"{title[3:]} {seconds_of(cell):.1f} s" for title, cell in zip(titles, steps, strict=False)]
        print(f"\n{'; '.join(told)}; in all {sum(map(seconds_of, steps)):.0f} s")
    models = json.loads(run("orbiquant", "models", "list", "--json", cwd=made).stdout)
    assert models and (made / "reports" / "runs").exists() and not (made / "nbs" / "data").exists()


def test_the_tutorial_serves_replays_and_is_answered(tutorial: dict):
    said = said_in(tutorial)
    assert "Serving `reach` on http://127.0.0.1:" in said and "the last day reached 0." in said
    assert "<nova on EURUSD 1h: trades " in said
    assert "phase" in said.rpartition("What is the AMD phase")[2], "the copilot answered"
    assert not [each for each in outputs(tutorial) if each["output_type"] == "error"]


def test_a_report_of_ones_own_runs_by_its_name(made: Path, tutorial: dict):
    words = ("report", "run", "my_report", "--param", "rule=momentum", "--json")
    done = run("orbiquant", *words, cwd=made)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["metrics"]["trades"] > 0 and told["metrics"]["verdict"].startswith("momentum ")


@pytest.mark.slow
def test_the_guide_to_the_copilot_asks_backtests_and_proposes(made: Path):
    ran = execute(made / "copilot.ipynb")
    said = said_in(ran)
    assert "1.20075" in said and "run_backtest(symbol=EURUSD, timeframe=1h, strategy=breakout)" in said
    assert "BUY 0.01 lots ORBUSDT" in said, "what nobody decided on is told to be void"
    assert "Chat('my tables')" in said and not [each for each in outputs(ran) if each["output_type"] == "error"]


@pytest.mark.slow
def test_a_rule_of_ones_own_goes_from_the_idea_to_an_agent(made: Path):
    ran = execute(made / "nbs" / "my_strategy.ipynb")
    said = said_in(ran)
    drawn = [each for each in outputs(ran) if "application/vnd.plotly.v1+json" in each.get("data", {})]
    assert (
        len(drawn) == 3 and "<Combination " in said and "<Prefix replay of my_strategy: No past value changed" in said
    )
    done = run("nbdev-export", cwd=made / "nbs")
    assert done.returncode == 0, done.stderr
    settings = made / "settings.ini"
    before = settings.read_text()
    settings.write_text(before.replace("# modules = gold_desk.my_strategy", "modules = gold_desk.my_strategy"))
    words = ("replay", "EURUSD", "1h", "--agent", "nova", "--strategy", "my_strategy", "--json")
    asked = run("orbiquant", "agent", *words, cwd=made, PYTHONPATH=str(ROOT))
    settings.write_text(before)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert json.loads(asked.stdout)["figures"]["nova"]["trades"] > 20


@pytest.mark.slow
def test_a_function_of_ones_own_is_served_from_its_notebook(made: Path):
    ran = execute(made / "nbs" / "my_endpoint.ipynb")
    said = said_in(ran)
    assert "Serving `ranges` on http://127.0.0.1:" in said and "/ranges/EURUSD'" in said
    assert not [output for output in outputs(ran) if output["output_type"] == "error"]
