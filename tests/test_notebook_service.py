"""`oq.serve_notebook()` in a real kernel: marked cells are served, run again they are replaced, no cell is touched."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nbformat
import pytest

from tests.tools.kernel import Kernel, running_kernel

MARKED = """
@oq.endpoint("GET", "/edge/{symbol}")
def edge(
    symbol: str,  # in any spelling, e.g. EURUSD
    length: int = 2,  # rows
) -> pd.DataFrame:
    "Return what the edge says."
    return pd.DataFrame({"symbol": [symbol] * length, "value": VALUE})
"""
FIRST, SECOND = MARKED.replace("VALUE", "1.5"), MARKED.replace("VALUE", 'float("nan")')
FAILING = """
import warnings
from orbiquant.core import get_logger

@oq.endpoint("GET", "/fails")
def fails() -> int:
    "Fail."
    get_logger("mine").warning("nearly there")
    print("said in passing")
    warnings.warn("a warning")
    return 1 // 0
"""

pytestmark = pytest.mark.slow


def save(file: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    nbformat.write(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)]), file)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("served")
    save(home / "study.ipynb", FIRST.strip())
    with running_kernel(home, start="import orbiquant as oq\nimport pandas as pd") as running:
        running.home = home  # type: ignore[attr-defined]
        yield running


def ask(line: str, path: str = "") -> httpx.Response:
    """Ask what a printed curl line asks, or another path with its key."""
    key, url = re.search(r"X-API-Key: (\S+)'", line)[1], re.search(r"(http://[^']+)", line)[1]
    url = re.match(r"http://[^/]+", url)[0] + path if path else url
    return httpx.get(url, headers={"X-API-Key": key}, timeout=30)


def test_a_marked_cell_is_served_and_replaced_when_it_is_run_again(kernel: Kernel):
    nothing = kernel.cell("oq.serve_notebook()")
    assert "nothing in this notebook is marked" in nothing.printed
    kernel.run(FIRST)
    begin = time.perf_counter()
    printed = kernel.run("service = oq.serve_notebook()").splitlines()
    first_s = time.perf_counter() - begin
    assert printed[0].startswith("Serving `edge` on http://127.0.0.1:") and printed[1].endswith("/edge/EURUSD'")
    assert printed[2:] == ["To keep `edge`: `#| export` in its cell, then `orbiquant serve --export`."]
    answer = ask(printed[1])
    assert answer.status_code == 200 and answer.json()["rows"] == [{"symbol": "EURUSD", "value": 1.5}] * 2
    assert httpx.get(re.search(r"(http://[^']+)", printed[1])[1], timeout=30).status_code == 401
    wrong = ask(printed[1], "/edge/EURUSD?length=many")
    assert wrong.status_code == 422 and wrong.json()["error"] == "VALIDATION_ERROR"
    kernel.run(SECOND)
    timed = "import time\nbegin = time.perf_counter()\noq.serve_notebook()\nprint(time.perf_counter() - begin)"
    again = kernel.run(timed)
    *told, took = again.splitlines()
    print(f"first {first_s:.2f} s, again {float(took):.3f} s")
    assert told[:2] == printed[:2] and "`edge` stands otherwise in the saved study.ipynb" in told[2]
    assert ask(printed[1]).json()["rows"] == [{"symbol": "EURUSD", "value": None}] * 2
    assert printed[1].split()[3] not in kernel.cell("service").text, "no token in what is saved"


def test_a_request_writes_into_no_cell_and_a_failure_is_kept(kernel: Kernel):
    kernel.run(FAILING)
    line = kernel.run("oq.serve_notebook()").splitlines()[1]
    busy = kernel.begin("end = time.time() + 3\nwhile time.time() < end: pass")
    begin = time.perf_counter()
    failed = ask(line, "/fails")
    print(f"answered in {time.perf_counter() - begin:.2f} s while a cell computes")
    ran = kernel.end(busy)
    assert failed.status_code == 500 and failed.json()["error"] == "INTERNAL_ERROR"
    assert ran.text.strip() == "" and ran.status == "ok"
    log = kernel.run('print("\\n".join(service.log))')
    assert "GET '/fails' 500" in log and "ZeroDivisionError" in log and "warning: nearly there" in log
    assert "said in passing" in log and "UserWarning: a warning" in log
    shown = kernel.run("from IPython.lib.pretty import pretty\nprint(pretty(service.log))")
    asked = re.search(r"GET '/fails' 500 .*, (\w+)$", log, re.MULTILINE)[1]
    assert "\\n" not in shown and f"{asked} Traceback (most recent call last):\n" in shown
    assert kernel.run("print('to the cell')") == "to the cell"
    assert "Note: mine" in kernel.run('get_logger("mine").warning("mine")'), "the notebook's own notices stay"


def test_saved_and_run_cells_are_compared(kernel: Kernel):
    home: Path = kernel.home  # type: ignore[attr-defined]
    other = FIRST.replace("edge", "other").strip()
    save(home / "study.ipynb", f"#| export\n{SECOND.strip()}", other, "%time 1", f"#| export\n{FAILING.strip()}")
    told = kernel.run("oq.serve_notebook()").splitlines()[2:]
    assert told == ["`other` is marked in the saved study.ipynb, and its cell was not run."]
    (home / "study.ipynb").write_text("{")
    assert "was not compared: study.ipynb cannot be read as a notebook" in kernel.run("oq.serve_notebook()")
    (home / "study.ipynb").unlink()
    assert "Which file this notebook is cannot be told here" in kernel.run("oq.serve_notebook()")


def test_what_cannot_be_served_is_refused_and_what_is_served_stays(kernel: Kernel):
    line = kernel.run("oq.serve_notebook()").splitlines()[1]
    refused = kernel.cell('@oq.endpoint("GET", "/bare")\ndef bare(a): return 1\noq.serve_notebook()')
    assert re.search(r"bare \(cell In\[\d+\]\): every parameter and the return need an annotation", refused.printed)
    assert ask(line).status_code == 200
    twice = kernel.cell('del bare\n@oq.endpoint("GET", "/fails")\ndef newer() -> int:\n    "New."\noq.serve_notebook()')
    assert "`fails` and `newer` are both marked GET /fails" in twice.printed and "`del fails`" in twice.printed
    kernel.run("del newer")


def test_one_name_in_two_cells_is_refused_where_the_saved_notebook_tells_and_named_where_nobody_does(kernel: Kernel):
    one = '@oq.endpoint("GET", "/one")\ndef same() -> int:\n    "Answer."\n    return 1'
    other, file = one.replace("/one", "/other"), kernel.home / "study.ipynb"  # type: ignore[attr-defined]
    kernel.run(one)
    kernel.run(other)
    told = kernel.run("oq.serve_notebook()")
    assert re.search(r"`same` was marked @.*/one'\) in cell \d+ and @.*/other'\) in cell \d+: the last alone", told)
    save(file, other)
    assert "the last alone" not in kernel.run("oq.serve_notebook()"), "one cell, changed and run again"
    save(file, one, other)
    refused = kernel.cell("oq.serve_notebook()").printed
    assert re.search(r"`same` is defined in study\.ipynb#cell-id=\w+ and study\.ipynb#cell-id=\w+, and", refused)
    file.unlink()
    kernel.run("del same")


def test_stopping_ends_it_and_another_begins_with_another_token(kernel: Kernel):
    line = kernel.run("service = oq.serve_notebook()").splitlines()[1]
    assert "stopped: " in kernel.run("service.stop()\nprint(service)")
    assert kernel.run("import sys\nprint(type(sys.stdout).__name__, end='')") == "OutStream"
    with pytest.raises(httpx.ConnectError):
        ask(line)
    port = int(re.search(r":(\d+)/", line)[1])
    anew = kernel.run(f"service = oq.serve_notebook({port})").splitlines()[1]
    assert f":{port}/" in anew and anew.split()[3] != line.split()[3] and ask(anew).status_code == 200
    held = "import socket\nheld = socket.create_server(('127.0.0.1', 0))\nheld_port = held.getsockname()[1]\n"
    taken = kernel.cell(f"{held}oq.serve_notebook(held_port)")
    assert "cannot listen on 127.0.0.1 port" in taken.printed
    assert ask(anew).status_code == 200, "what was served still is"
    moved = kernel.run("held.close()\noq.serve_notebook(held_port)").splitlines()[1]
    assert ask(moved).status_code == 200
    with pytest.raises(httpx.ConnectError):
        ask(anew)
