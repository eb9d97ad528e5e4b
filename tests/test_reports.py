"""Reports with real kernels and a real browser: success, failure, timeouts, kills, two at once, the page itself."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from orbiquant.core import DataError, NotFoundError, OptionError, asset
from orbiquant.policies import POLICIES
from orbiquant.reports import ReportRun, find_report, list_reports, list_runs, read_run, run_report
from orbiquant.reports.catalogue import read_parameters, read_report
from orbiquant.reports.html import render
from orbiquant.reports.result import save_run
from orbiquant.reports.worker import CurrentCell
from tests.tools.browser import Witness, running_browser

KERNEL = {"kernelspec": {"name": "no-such-kernel", "display_name": "gone", "language": "python"}}
PARAMETERS = """symbol: str = "EURUSD"  # what is looked at
mode: str = "plain"  # how; choices: plain, slow, broken, dead
rows: int | None = None  # only so many
symbols: list[str] = ["A"]"""
BODY = """
import os, sys, time
from pathlib import Path
Path(f"{mode}-{symbol}.pid").write_text(str(os.getpid()))
print("<script>document.title = 'owned'</script>")
if mode == "slow": time.sleep(120)
if mode == "dead": os._exit(7)
if mode == "broken": [][rows or 3]
"""
RESULT = """
import numpy as np, pandas as pd, plotly.graph_objects as go
from orbiquant.reports import Tiles, record
record(data_version=3, seed=7, stage_seconds={"features": 0.5}, trades=np.int64(210), skill=float("nan"))
record(expectancy_r=0.12)
display(go.Figure(go.Scatter(y=[1, 3, 2])), go.Figure(go.Bar(y=[2, 1])), Tiles({"trades": "210"}))
pd.DataFrame({"name": ["<img src=x onerror=\\"document.title='owned'\\">"]})
"""
HOSTILE = """
import sys
from IPython.display import HTML, Javascript, Markdown
display(HTML("<script>document.title='owned'</script>"))
display(HTML("<img src='http://example.org/a.png' onerror=\\"document.title='owned'\\">"))
display(Javascript("document.title = 'owned'"), Markdown("<script>document.title='owned'</script>"))
display(Markdown(symbols[0]))
print("\\x1b[31m<b onclick='x()'>red</b>", executable := sys.executable)
"""
EVIL = """<b>bold stays</b> <script>document.title='owned'</script> <img src=x onerror="document.title='owned'">
<svg/onload=document.title='owned'> <a href="java&#10;script:document.title='owned'">a way</a>
[away](javascript:owned())

<iframe srcdoc="<script>parent.document.title='owned'</script>"></iframe>

<meta http-equiv="refresh" content="0;url=http://example.org"><base href="http://example.org/">

<form action="http://example.org"><button onclick="document.title='owned'">send</button></form>

<style>main { display: none }</style>
<p style="position: fixed; inset: 0; background: url(http://example.org/b.png)">on top</p>

<math><mtext></form><form><mglyph><style></math><img src onerror="document.title='owned'">

| head |
|---|
| kept |
"""


def write_report(folder: Path, name: str, *cells: nbformat.NotebookNode) -> Path:
    """Write a report notebook that asks for a kernel this machine does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    head = new_markdown_cell(f"# The {name} report\n\n> What it is for.")
    tagged = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[head, tagged, *cells], metadata=KERNEL), folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a workspace, whose path would trip a format string, with two reports of its own."""
    folder = tmp_path_factory.mktemp("work space {x}")
    body, result = new_code_cell(BODY), new_code_cell(RESULT)
    write_report(folder / "reports", "study", new_markdown_cell("## Look"), body, new_markdown_cell("## Tell"), result)
    write_report(folder / "reports", "hostile", new_code_cell(HOSTILE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBIQUANT_HOME", str(folder))
        yield folder


Runs = dict[str, "Future[ReportRun]"]
STEPS: list[tuple[int, int, str]] = []


@pytest.fixture(scope="module")
def runs(home: Path) -> Iterator[Runs]:
    """Start every kind of run, several at once, and yield what each will come to."""
    with ThreadPoolExecutor(3) as pool:

        def start(name: str = "study", timeout_s: float = 100, **parameters: object) -> "Future[ReportRun]":
            follow = None if parameters else lambda *step: STEPS.append(step)
            return pool.submit(run_report, name, parameters, timeout_s=timeout_s, progress=follow)

        yield {
            "plain": start(),
            "hostile": start("hostile", symbol="XAUUSD", rows="5", symbols=json.dumps([EVIL, "B"])),
            "broken": start(mode="broken"),
            "slow": start(mode="slow", timeout_s=12),
            "dead": start(mode="dead"),
        }


def alive(pid: int) -> bool:
    """Return whether a process still runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, within_s: float = 5) -> bool:
    """Return whether a process ends in time."""
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


# --- what a run leaves ---


def test_a_run_leaves_notebook_page_and_result(runs: Runs, home: Path):
    run = runs["plain"].result()
    assert run.status == "succeeded" and run.error is None
    assert run.parameters == {"symbol": "EURUSD", "mode": "plain", "rows": None, "symbols": ["A"]}
    assert run.metrics == {"trades": 210, "skill": None, "expectancy_r": 0.12}
    assert (run.data_version, run.seed, run.stage_seconds) == (3, 7, {"features": 0.5})
    assert run.folder.parent == home / "reports" / "runs"
    result = json.loads((run.folder / "result.json").read_text())
    assert result["status"] == "succeeded" and result["duration_s"] > 0 and result["code_version"]
    executed = nbformat.read(run.notebook, as_version=4)
    nbformat.validate(executed)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert (
        "Fatal" not in (log := (run.folder / "worker.log").read_text()) and "Traceback" not in log and "TCP" not in log
    )


def test_a_page_tells_what_changed_since_the_run_before(runs: Runs, tmp_path: Path):
    now = runs["plain"].result()
    now, notebook = now.model_copy(update={"folder": tmp_path / now.id}), nbformat.read(now.notebook, as_version=4)
    assert "with the same parameters" not in render(notebook, now)
    older = f"20200101T000000Z-{now.name}-000000"
    before = {"id": older, "folder": tmp_path / older, "metrics": now.metrics | {"trades": 200}}
    (tmp_path / older).mkdir()
    (tmp_path / older / "run.json").touch()
    save_run(now.model_copy(update=before))
    page = render(notebook, now)
    assert "with the same parameters: 1 changed" in page and ">200<" in page and ">+10<" in page
    assert "with the same parameters" not in render(notebook, now.model_copy(update={"parameters": {"rows": 1}}))


def test_one_page_leads_to_all_runs(runs: Runs, home: Path):
    ended = [run.result() for run in runs.values()]
    page = (home / "reports" / "runs" / "index.html").read_text()
    assert all(f'href="{run.id}/report.html"' in page for run in ended)
    assert page.count('class="status failed"') >= 2 and page.count('class="status timed_out"') == 1


def test_progress_names_the_heading_and_ends_complete(runs: Runs):
    runs["plain"].result()
    assert [step[2] for step in STEPS] == ["The study report", "The study report", "Look", "Tell", "Tell"]
    assert [step[0] for step in STEPS] == [0, 1, 2, 3, 4] and {step[1] for step in STEPS} == {4}


def test_two_runs_at_once_keep_apart(runs: Runs):
    plain, twin = runs["plain"].result(), runs["hostile"].result()
    assert twin.status == "succeeded" and twin.started < plain.finished
    assert (twin.parameters["symbol"], twin.parameters["rows"], twin.parameters["symbols"]) == (
        "XAUUSD",
        5,
        [EVIL, "B"],
    )
    assert {plain.id, twin.id} <= {run.id for run in list_runs()}


def test_a_failing_cell_gives_a_page_that_says_which_and_why(runs: Runs):
    run = runs["broken"].result()
    assert run.status == "failed" and run.metrics == {}
    assert (run.error.type, run.error.cell, run.error.heading) == ("IndexError", 3, "Look")
    assert "IndexError" in run.error.traceback and "\x1b" not in run.error.traceback
    page = run.html.read_text()
    assert "This run failed in “Look”, cell [3]" in page and "list index out of range" in page
    assert page.count("<details") == 2 and "papermill" not in page.split("<details")[0]
    assert "plotly.js v" not in page, "no chart, no plotly"


def test_the_time_limit_ends_kernel_and_all(runs: Runs, home: Path):
    run = runs["slow"].result()
    assert run.status == "timed_out" and run.duration_s < 60
    assert run.error.message == "not finished after 12 s" and run.error.heading == "Look"
    assert "took too long" in run.html.read_text()
    assert gone(int((home / "slow-EURUSD.pid").read_text()))


def test_a_kernel_that_dies_is_a_failed_run(runs: Runs):
    run = runs["dead"].result()
    assert run.status == "failed" and run.error.heading == "Look" and run.error.cell == 3
    assert run.error.type == "DeadKernelError"
    assert read_run(run.id).status == "failed"


# --- the page ---


class Resources(HTMLParser):
    """Every address that a browser would fetch for a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"src", "data", "poster", "srcset"} | ({"href"} if tag == "link" else set())
        self.found += [value or "" for name, value in attrs if name in wanted]


def test_a_page_names_nothing_to_fetch(runs: Runs):
    page = runs["plain"].result().html.read_text()
    assert [address for address in Resources(page).found if not address.startswith("data:")] == []
    assert page.count("* plotly.js v") == 1 and page.count('<figure class="chart">') == 2
    assert "cdnjs" not in page.replace("plotly.js", "") and "require.min.js" not in page


def test_pages_open_offline_draw_their_charts_and_run_nothing_foreign(runs: Runs):
    plain, hostile = runs["plain"].result(), runs["hostile"].result()
    assert hostile.status == "succeeded"
    with running_browser() as browser:
        page = browser.new_context(offline=True).new_page()
        witness = Witness(page)
        page.goto(plain.html.as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2")
        assert (witness.errors, witness.outside(page)) == ([], [])
        assert page.locator("figure.chart path.js-line").count() == 1
        assert page.locator("figure.chart .bars path").count() == 2
        assert page.title() == "The study report" and page.locator(".tile").count() == 1
        assert page.locator("dl.facts dt", has_text="code").count() == 1
        assert page.locator("td").inner_text().startswith("<img src=x")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone does not scroll sideways"

        page = browser.new_page()
        requests = Witness(page)
        page.goto(hostile.html.as_uri())
        page.wait_for_timeout(300)
        assert page.title() == "The hostile report"
        assert (requests.outside(page), requests.errors) == ([], []), "cleaned, so that not even the policy has to act"
        assert (
            page.locator("main script, main form, main iframe, main meta, main svg, main style, main base").count() == 0
        )
        assert page.locator("main [onclick], main [onerror], main a[href^=javascript]").count() == 0
        assert (
            page.locator("main b", has_text="bold stays").count() == 1
            and page.locator("main td").inner_text() == "kept"
        )
        assert page.locator("main p", has_text="on top").evaluate("part => getComputedStyle(part).position") == "static"


def test_the_kernel_is_this_interpreter(runs: Runs):
    executed = nbformat.read(runs["hostile"].result().notebook, as_version=4)
    printed = "".join(o.text for cell in executed.cells for o in cell.get("outputs", []) if o.output_type == "stream")
    assert sys.executable in printed


# --- where a run stands ---


def test_a_worker_tells_the_number_and_the_heading_of_its_cell():
    told: list[dict[str, object]] = []
    place = CurrentCell(told.append)
    prose = new_markdown_cell("## Train\n\nprose")
    cells = [new_markdown_cell("# Title"), new_code_cell("1"), prose, new_code_cell(""), new_code_cell("2")]
    place.arrive(cells, 1)
    place.arrive(cells, 4)
    assert told == [{"index": 1, "total": 2, "heading": "Title"}, {"index": 2, "total": 2, "heading": "Train"}]
    failure = place.failure(ValueError("no rows")).model_dump(exclude_defaults=True)
    assert failure == {"type": "ValueError", "message": "no rows", "cell": 2, "heading": "Train"}


def test_a_worker_tells_a_notebooks_own_error_as_it_was_raised_there():
    error = papermill.PapermillExecutionError(0, 1, "", "KeyError", "'close'", ["\x1b[31mKeyError\x1b[0m", "'close'"])
    failure = CurrentCell(lambda at: None).failure(error)
    assert (failure.type, failure.message, failure.cell) == ("KeyError", "'close'", None)
    assert failure.traceback == "KeyError\n'close'"


# --- being killed ---

CALLER = (
    "import sys; from orbiquant.reports import run_report; run_report('study', {'mode': 'slow', 'symbol': sys.argv[1]})"
)


def wait_for(path: Path, process: "subprocess.Popen[bytes]", within_s: float = 60) -> None:
    """Wait until a process has written a file."""
    end = time.monotonic() + within_s
    while not (path.exists() and path.read_text()):
        assert process.poll() is None and time.monotonic() < end, "the report never got to its slow cell"
        time.sleep(0.05)


def test_a_caller_that_is_ended_leaves_a_readable_run_and_no_process(home: Path):
    ends = {"KILL": (signal.SIGKILL, "interrupted", ""), "INT": (signal.SIGINT, "failed", "KeyboardInterrupt")}
    callers = {name: subprocess.Popen([sys.executable, "-c", CALLER, name], stderr=subprocess.DEVNULL) for name in ends}
    for name, (sent, status, error) in ends.items():
        wait_for(home / f"slow-{name}.pid", callers[name])
        (run,) = [run for run in list_runs() if run.parameters.get("symbol") == name]
        family = psutil.Process(callers[name].pid).children(recursive=True)
        assert run.status == "running" and len(family) >= 2
        callers[name].send_signal(sent)
        callers[name].wait(30)
        assert all(gone(member.pid) for member in family)
        after = read_run(run.id)
        assert (after.status, after.error.type if after.error else "") == (status, error)
        assert after.html.exists() == (status == "failed")
        assert not after.error or after.error.heading == "Look"


def test_torn_folders_are_listed_as_interrupted(home: Path, tmp_path: Path):
    folder = tmp_path / "20260102T030405Z-study-0a1b2c"
    folder.mkdir()
    (folder / "run.json").write_text('{"id": "2026')
    (folder / "result.json").write_text("")
    (tmp_path / "something else").mkdir()
    (run,) = list_runs(tmp_path)
    assert (run.status, run.name, run.started.isoformat()) == ("interrupted", "study", "2026-01-02T03:04:05+00:00")
    assert list_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "run_id", ["../../etc", "20260102T030405Z-study-0a1b2c", "", "a/b", "20260102T030405Z-../x-0a1b2c"]
)
def test_an_unknown_run_is_not_found(run_id: str, tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no report run"):
        read_run(run_id, tmp_path)


# --- parameters ---


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"symbl": "X"}, "has no parameter 'symbl', did you mean 'symbol'?; it takes symbol, mode, rows, symbols"),
        ({"rows": "many"}, "`rows` must be int or none, was 'many'"),
        ({"rows": 1.5}, "`rows` must be int or none, was 1.5"),
        ({"symbol": 3}, "`symbol` must be str, was 3"),
        ({"symbol": None}, "`symbol` must be str, was None"),
        ({"mode": "slwo"}, "`mode` must be one of plain, slow, broken, dead, was 'slwo', did you mean 'slow'?"),
        ({"symbols": {"a": 1}}, "`symbols` must be list"),
    ],
)
def test_bad_parameters_are_refused_before_anything_starts(home: Path, parameters: dict, message: str):
    before = list_runs()
    with pytest.raises((DataError, OptionError)) as caught:
        run_report("study", parameters)
    assert message in str(caught.value)
    assert [run.id for run in list_runs()] == [run.id for run in before]


def test_an_unknown_report_names_the_nearest(home: Path):
    with pytest.raises(NotFoundError, match="there is no report 'stdy', did you mean 'study'"):
        run_report("stdy")


@pytest.mark.parametrize("cell", ["x = y", "import os", "x: Path = 'a'", "x = (", "x, y = 1, 2", "f(1)"])
def test_a_parameters_cell_holds_plain_assignments_only(cell: str):
    with pytest.raises((DataError, OptionError)):
        read_parameters(cell)


def test_a_wrapped_parameter_keeps_its_comment():
    wrapped, after = read_parameters(
        "policy: str | None = (\n    None  # whose rules; choices: base, bold\n)\nrows: int = 1  # so many"
    )
    assert (wrapped.help, wrapped.choices, wrapped.default) == ("whose rules", ("base", "bold"), None)
    assert (after.help, after.choices) == ("so many", ())


def test_the_research_report_offers_every_policy_and_refuses_another():
    report = find_report("research")
    (policy,) = [parameter for parameter in report.parameters if parameter.name == "policy"]
    assert policy.choices == ("primary", *POLICIES) and policy.help
    with pytest.raises(OptionError, match=r"`policy` must be one of .*'blanced_filter', did you mean 'balanced"):
        report.check({"policy": "blanced_filter"})


def test_the_research_report_names_its_policy_before_it_works():
    cells = nbformat.read(find_report("research").path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    first = next(number for number, source in enumerate(code) if "ResearchSpec.from_settings" in source)
    assert code[first].index("ResearchSpec.from_settings") < code[first].index("find_policy(spec.signals.policy)")
    assert not any("prepare(" in source or "train(" in source for source in code[:first])


def test_a_file_that_is_no_notebook_is_named(tmp_path: Path):
    (tmp_path / "bad.ipynb").write_text("{}")
    with pytest.raises(DataError, match=r"bad\.ipynb is no notebook"):
        read_report(tmp_path / "bad.ipynb")


def test_papermill_reads_the_same_parameters(tmp_path: Path):
    cell = new_code_cell('a: int = 1  # how many\nb: str = "x"\nc = 2.5  # size', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), tmp_path / "r.ipynb")
    theirs = papermill.inspect_notebook(tmp_path / "r.ipynb")
    ours = read_report(tmp_path / "r.ipynb").parameters
    assert [(p.name, repr(p.default), p.help) for p in ours] == [
        (p["name"], p["default"].replace('"', "'"), p["help"]) for p in theirs.values()
    ]


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text()), st.binary()))
def test_any_value_is_parsed_or_refused(value: object):
    for parameter in read_parameters(PARAMETERS + "\nx = 1.0\ny = {}\nz = True"):
        try:
            parsed = parameter.parse(value)
        except (DataError, OptionError) as error:
            assert f"`{parameter.name}` must be" in str(error)
        else:
            assert parameter.parse(parsed) == parsed


# --- the catalogue ---


def test_a_workspace_overrides_and_adds_to_the_shipped_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    shipped = [report.name for report in list_reports()]
    write_report(tmp_path / "reports", "own")
    assert [report.name for report in list_reports()] == sorted([*shipped, "own"])
    for name in shipped[:1]:
        write_report(tmp_path / "reports", name)
        assert find_report(name).path.parent == tmp_path / "reports"


def test_shipped_reports_are_the_repositorys():
    root = Path(__file__).parent.parent / "reports"
    sources = {path.name: path.read_bytes() for path in root.glob("*.ipynb")}
    assert {path.name: path.read_bytes() for path in asset("reports").glob("*.ipynb")} == sources
    assert all(re.fullmatch(r"[a-z0-9_]+\.ipynb", name) for name in sources)
