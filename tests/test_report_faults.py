"""Reports where something is wrong: what is recorded, how a notebook ends, what the machine lacks."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from orbiquant import _caches
from orbiquant.cli.program import program
from orbiquant.core import DataError, NotFoundError, OptionError
from orbiquant.reports import ReportRun, read_run, run_report
from orbiquant.reports.catalogue import read_parameters
from orbiquant.reports.ground import check_ground, report_environment, sockets_root
from orbiquant.reports.result import FILE_MIME, RESULT_MIME, attach, check_metric, open_run, record
from orbiquant.reports.run import conclude
from orbiquant.reports.worker import CurrentCell

KERNEL = {"kernelspec": {"name": "no-such-kernel", "display_name": "gone", "language": "python"}}
PARAMETERS = """symbol: str = 'EURUSD'
sizes: list[float] = []
terms: dict = {}
folds: int = 5
parts: list = []"""


def write_report(folder: Path, name: str, *cells: nbformat.NotebookNode) -> None:
    """Write a report notebook into a workspace."""
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    tagged = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(f"# {name}"), tagged, *cells], metadata=KERNEL)
    nbformat.write(notebook, folder / "reports" / f"{name}.ipynb")


# --- what is recorded ---


class Odd:
    """A foreign object whose own text cannot be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        print,
        lambda: 1,
        pd.DataFrame({"r": [1.0]}),
        pd.Series([1.0]),
        {"curve": {"deep": pd.Series([1.0])}},
        np.array([Odd()], dtype=object),
        Odd(),
        object(),
        "\ud800",
        {"\ud800": 1},
        b"\xff",
        LOOP,
        [0.5] * 100_000,
        "x" * 70_000,
        np.zeros(50_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_no_figure_is_refused_by_name(value: object):
    with pytest.raises(DataError, match=r"^`equity` must be") as caught:
        record(equity=value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), None),
        (math.inf, None),
        (np.float64("nan"), None),
        (pd.NaT, None),
        (pd.NA, None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        ({"a": (1, 2.5)}, {"a": [1, 2.5]}),
        (10**30, 10**30),
    ],
)
def test_figures_are_kept_as_json_knows_them(value: object, kept: object):
    assert check_metric("r", value) == kept


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"seed": "seven"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"data_version": [1]}, "data_version"),
        ({"stage_seconds": {"features": "long"}}, "stage_seconds.features"),
        ({"stage_seconds": 3}, "stage_seconds"),
    ],
)
def test_facts_of_a_run_have_their_types(given: dict[str, Any], name: str):
    with pytest.raises(DataError, match=f"^`{name}"):
        record(**given)


# --- how a run ends ---


def conclude_with(
    root: Path, data: dict[str, Any] | None = None, before: Callable[[ReportRun], None] = lambda run: None
) -> ReportRun:
    """Conclude a run that succeeded and whose second cell holds an output."""
    with open_run("odd", {}, root) as run:
        cells = [new_code_cell("1"), new_code_cell("show()"), new_code_cell("print('end')")]
        cells[2].outputs = [new_output("stream", text="the end is shown")]
        notebook = new_notebook(cells=cells)
        if data is not None:
            cells[1].outputs = [{"output_type": "display_data", "metadata": {}, "data": data}]
        run.notebook.write_text(json.dumps(notebook))
        before(run)
        conclude(run, "succeeded")
    return read_run(run.id, root)


HANDED_OVER = [
    7,
    [1],
    {"status": "succeeded"},
    {"folder": "/etc"},
    {"seed": "x"},
    {"metrics": [1]},
    {"stage_seconds": {"a": None}},
]


@pytest.mark.parametrize("given", HANDED_OVER, ids=str)
def test_what_a_notebook_displays_as_a_result_is_checked_too(tmp_path: Path, given: object):
    run = conclude_with(tmp_path, {RESULT_MIME: given})
    assert (run.status, run.error.type, run.error.cell) == ("failed", "DataError", 2)
    assert "the end is shown" in run.html.read_text() and "This run failed in cell [2]" in run.html.read_text()


@pytest.mark.parametrize("mime", ["application/vnd.plotly.v1+json", "image/png", "text/html", FILE_MIME])
@pytest.mark.parametrize("value", [7, ["a"], {"b": 1}, None, "\ud800"], ids=repr)
def test_whatever_an_output_holds_there_is_a_page_and_a_result(tmp_path: Path, mime: str, value: object):
    run = conclude_with(tmp_path, {mime: value})
    assert run.status in ("succeeded", "failed") and (run.error is None or run.error.cell == 2)
    assert "the end is shown" in run.html.read_text()


def replace_by_folder(run: ReportRun) -> None:
    """Put folders where files belong."""
    for name in ("report.html", "result.json"):
        (run.folder / name / "inside").mkdir(parents=True)


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (replace_by_folder, "succeeded"),
        (lambda run: shutil.rmtree(run.folder), "succeeded"),
        (lambda run: run.notebook.write_bytes(b"\xff\xfe"), "succeeded"),
        (lambda run: run.notebook.write_text("[]"), "succeeded"),
        (lambda run: (run.folder / "run.json").unlink(), "succeeded"),
    ],
    ids=["folders", "no folder", "no text", "no notebook", "no run"],
)
def test_whatever_a_notebook_did_to_its_folder_there_is_a_page_and_a_result(
    tmp_path: Path, before: Callable[[ReportRun], None], status: str
):
    run = conclude_with(tmp_path, before=before)
    assert (
        run.status == status
        and run.html.is_file()
        and json.loads((run.folder / "result.json").read_text())["id"] == run.id
    )


def test_a_page_without_its_template_is_still_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orbiquant.reports.run.render", lambda notebook, run: 1 / 0)
    run = conclude_with(tmp_path)
    assert (run.status, run.error.type) == ("failed", "ZeroDivisionError")
    assert "division by zero" in run.html.read_text() and "The page could not be made" in run.html.read_text()


def test_a_table_is_attached_as_a_file_and_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attach("trades.csv", pd.DataFrame({"r": [1.5]}))
    assert "attached: trades.csv" in capsys.readouterr().out
    told = {"name": "trades.csv", "text": "r\n1.5\n", "what": "<b>"}
    run = conclude_with(tmp_path, {FILE_MIME: told})
    page = run.html.read_text()
    assert (run.folder / "trades.csv").read_text() == "r\n1.5\n"
    assert (
        'download="trades.csv" href="data:text/csv;base64,cgoxLjUK"' in page.replace("&#34;", '"')
        and "&lt;b&gt;" in page
    )


ENDS = {
    "exit(0)": "import sys; sys.exit(0)",
    "exit()": "import sys; sys.exit()",
    "exit(3)": "import sys; sys.exit(3)",
    "raise": "raise SystemExit",
    "quit": "quit()",
    "_exit": "import os; os._exit(0)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "worker": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(30)",
    "surrogate": "raise ValueError('\\ud800')",
    "interrupt": "raise KeyboardInterrupt",
    "record": "from orbiquant.reports import record\nrecord(curve=print)",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ReportRun]]:
    """Run one report a way to end, three at once, and yield the runs by name."""
    from concurrent.futures import ThreadPoolExecutor

    home = tmp_path_factory.mktemp("ends")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setenv("ORBIQUANT_HOME", str(home))
        for number, source in enumerate(ENDS.values()):
            write_report(home, f"way{number}", new_markdown_cell("## Leave"), new_code_cell(source))
        runs = [pool.submit(run_report, f"way{number}", timeout_s=100) for number in range(len(ENDS))]
        yield {name: run.result() for name, run in zip(ENDS, runs, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_a_notebook_that_leaves_has_failed_in_the_cell_where_it_left(ended: dict[str, ReportRun], name: str):
    run = ended[name]
    assert (run.status, run.error.cell, run.error.heading) == ("failed", 3, "Leave")
    assert "This run failed in “Leave”, cell [3]" in run.html.read_text()
    assert json.loads((run.folder / "result.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_leaving_is_told_in_words(ended: dict[str, ReportRun]):
    assert {ended[name].error.message for name in ("exit(0)", "exit()", "raise", "quit")} == {
        "the cell left the notebook before its end (exit 0)"
    }
    assert ended["exit(3)"].error.message.endswith("(exit 3)") and ended["exit(3)"].error.type == "SystemExit"
    assert (
        ended["record"].error.message.startswith("`curve` must be a number, text or time")
        and ended["record"].error.type == "DataError"
    )


def test_a_kernels_answer_says_whether_it_was_left():
    place = CurrentCell(lambda at: None)
    place.leave({"content": {"status": "ok", "payload": []}})
    assert not place.left
    place.leave({"content": {"status": "ok", "payload": [{"source": "ask_exit"}]}})
    assert place.left


# --- parameters ---


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("sizes", "[1, 2.5]", [1.0, 2.5]),
        ("sizes", "1, 2.5", [1.0, 2.5]),
        ("parts", '[1, "a", {"b": [null]}]', [1, "a", {"b": [None]}]),
        ("parts", "a, b", ["a", "b"]),
        ("terms", '{"a": {"b": [1.5]}}', {"a": {"b": [1.5]}}),
        ("terms", {"a": 1}, {"a": 1}),
    ],
)
def test_lists_and_dicts_take_json(name: str, value: object, kept: object):
    (parameter,) = [each for each in read_parameters(PARAMETERS) if each.name == name]
    assert parameter.parse(value) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sizes", text) for text in ("[1, NaN]", "1, nan", "[1e999]", "1e999", [math.inf])),
        *(("terms", text) for text in ('{"a": NaN}', '{"a": [1e999]}', '{"a": -Infinity}', "[1]", "{")),
        *(("terms", given) for given in ('{"a": 1, "a": 2}', '{"x": {"a": 1, "a": 1}}', {"a": [math.nan]}, {1: 2})),
        *(("parts", given) for given in ("[NaN]", [math.nan], "[" * 5000, [[[math.inf]]], ["\udcff"])),
        ("symbol", "\udcff"), ("folds", "1e999"), ("folds", "9" * 6000),
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_what_json_cannot_say_is_refused_by_name(name: str, value: object):
    (parameter,) = [each for each in read_parameters(PARAMETERS) if each.name == name]
    with pytest.raises(DataError, match=f"^`{name}` must be") as caught:
        parameter.parse(value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "words",
    [
        ("--param", "folds=3", "--param", "folds=4"),
        ("--param", "folds=3", "--param", " folds =3"),
        ("--symbol", "EURUSD", "--param", "symbol=EURUSD"),
    ],
)
def test_a_parameter_is_given_once(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    done = CliRunner().invoke(program, ["report", "run", "research", *words])
    assert done.exit_code == 2 and "once" in done.output and not (tmp_path / "reports" / "runs").exists()


# --- what the machine lacks ---


@pytest.mark.slow
def test_a_deep_temporary_folder_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert len(str(sockets_root())) < 60
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path / "work"))
    monkeypatch.setenv("TMPDIR", str(deep))
    write_report(tmp_path / "work", "plain", new_code_cell("from orbiquant.reports import record\nrecord(done=1)"))
    assert run_report("plain", timeout_s=100).metrics == {"done": 1}


def test_no_place_for_sockets_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [tmp_path / ("d" * 120), Path("/nowhere")]
    monkeypatch.setattr("orbiquant.reports.ground.temporary_folders", lambda: iter(folders))
    with pytest.raises(OptionError, match="`TMPDIR` must name a folder that can be written to"):
        check_ground(tmp_path / "runs")


def test_a_runs_folder_that_cannot_be_made_is_said_before_the_work(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"`\[workspace\] reports_dir` must be"):
        run_report("research", root=tmp_path / "file" / "runs")


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_a_report_runs_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None):
    monkeypatch.delenv("HOME", raising=False) if home is None else monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    write_report(
        tmp_path,
        "plain",
        new_code_cell("import os\nfrom orbiquant.reports import record\nrecord(home=os.environ['HOME'])"),
    )
    run = run_report("plain", timeout_s=100)
    assert run.status == "succeeded" and Path(str(run.metrics["home"])).name.startswith("orbiquant-")


def test_a_persons_own_set_up_changes_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".ipython" / "profile_default" / "startup").mkdir(parents=True)
    (tmp_path / ".ipython" / "profile_default" / "startup" / "00.py").write_text("raise RuntimeError('mine')\nmine = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    told = report_environment(tmp_path / "private")
    assert told["IPYTHONDIR"] == str(tmp_path / "private" / "ipythondir")


PROBE = """
import os, orbiquant
print(os.environ.get("NUMBA_CACHE_DIR"), orbiquant.__file__)
bars = orbiquant.synthetic_market(2200, "1h", seed=7).bars
orbiquant.build_features(bars, orbiquant.FeatureSpec(timeframe="1h", calendar="forex"))
"""


@pytest.mark.slow
def test_a_read_only_installation_keeps_its_compiled_loops_elsewhere(tmp_path: Path):
    package, installed = Path(_caches.__file__).parent, tmp_path / "installed" / "orbiquant"
    shutil.copytree(package, installed, ignore=shutil.ignore_patterns("__pycache__"))
    folders = [installed, *(folder for folder in installed.rglob("*") if folder.is_dir())]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bound = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    if bound and not shutil.which("setpriv"):
        pytest.skip("root writes everywhere, and there is no setpriv to keep it from that")
    environment = os.environ | {"PYTHONPATH": str(installed.parent), "TMPDIR": str(scratch), "HOME": "/proc/nowhere"}
    for name in (_caches.VARIABLE, "ORBIQUANT_HOME", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    for folder in folders:
        folder.chmod(0o555)
    command = [*bound, sys.executable, "-P", "-c", PROBE]
    done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True)
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    kept = scratch / f"orbiquant-{os.getuid()}" / "numba"
    assert done.stdout.split() == [str(kept), str(installed / "__init__.py")] and any(kept.rglob("*.nbi"))


def test_compiled_loops_are_never_kept_where_others_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.delenv(_caches.VARIABLE, raising=False)
    monkeypatch.setattr(_caches, "are_writable", lambda: False)
    monkeypatch.setattr(_caches, "folders", lambda name: iter([shared, own]))
    _caches.choose_cache()
    assert os.environ[_caches.VARIABLE] == str(own) and own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(_caches, "folders", lambda: iter([]))
    _caches.choose_cache()
    assert os.environ[_caches.VARIABLE] == str(own), "one that is set stays"
    monkeypatch.delenv(_caches.VARIABLE)


def test_doctor_looks_at_what_a_report_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from orbiquant.cli.doctor import look, see_compiled, see_report_ground

    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    assert look("report runs", see_report_ground).status == "ok"
    monkeypatch.setenv(_caches.VARIABLE, "/proc/nothing")
    found = look("compiled loops", see_compiled)
    assert found.status == "problem" and "`NUMBA_CACHE_DIR` must name a folder of your own" in found.detail
    assert not (tmp_path / "reports").exists(), "a look changes nothing"
    (tmp_path / "reports").write_text("in the way")
    assert "reports_dir" in look("report runs", see_report_ground).detail


def test_a_report_of_an_unknown_series_ends_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    done = CliRunner().invoke(program, ["report", "run", "research", "--symbol", "NOPE", "--timeframe", "1h"])
    assert isinstance(done.exception, NotFoundError) and "NOPE 1h" in str(done.exception)
    assert not (tmp_path / "reports").exists(), "no run was begun"


def test_a_screen_of_nothing_traded_has_no_empty_draws_and_no_nan():
    from orbiquant.cli.research import held_told, tables_told

    signals = pd.DataFrame({"reason": ["low confidence"] * 3, "action": "HOLD"})
    (table,) = held_told(SimpleNamespace(signals=signals))
    assert [[str(cell) for cell in each.cells] for each in table.columns][:3] == [["low confidence"], ["3"], ["100.0%"]]
    assert held_told(SimpleNamespace(signals=signals.drop(columns="reason"))) == []
    few = {"monte_carlo": {"draws": 0, "quantiles": {"total_r": {"5%": None}}}, "cost_sensitivity": [{"trades": 3}]}
    (costs,) = tables_told(few)
    assert [column.header for column in costs.columns] == ["trades"]
