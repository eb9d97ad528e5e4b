"""The examples for other schedulers run as they are printed, by the packages that they are written for."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

import orbiquant as oq
from orbiquant.core import OrbiError

BOOK = Path(__file__).parents[1] / "nbs" / "95_howto.orchestrators.ipynb"
PROSE = "\n".join(cell.source for cell in nbformat.read(BOOK, 4).cells if cell.cell_type == "markdown")
SYMBOLS = ["EURUSD", "XAUUSD"]
pytestmark = pytest.mark.filterwarnings("default")  # theirs


class Runs(list[tuple[str, dict[str, Any]]]):
    """What reports were asked for; one symbol fails."""

    def run(self, name: str, parameters: dict[str, Any]) -> SimpleNamespace:
        """Note a run, and return its end."""
        self.append((name, parameters))
        bad = parameters["symbol"] == "BAD"

        def end() -> SimpleNamespace:
            if bad:
                raise OrbiError("report research failed")
            return SimpleNamespace(html=Path("report.html"), metrics={"verdict": "no edge"})

        return SimpleNamespace(raise_for_status=end)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Return the report and symbol of each."""
        return sorted((name, parameters["symbol"]) for name, parameters in self)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runs]:
    made = Runs()
    monkeypatch.setattr(oq, "run_report", made.run, raising=False)
    monkeypatch.chdir(tmp_path)
    yield made


def example(heading: str) -> str:
    """Return the Python below a heading."""
    found = re.search(rf"^## {heading}\n.*?```python\n(.*?)```", PROSE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


@pytest.mark.parametrize("heading", ["Prefect", "Dagster", "Airflow"])
def test_an_example_is_python_that_asks_for_a_report_and_lets_a_failure_raise(heading: str):
    source = example(heading)
    compile(source, heading, "exec")
    assert "oq.run_report(" in source and ".raise_for_status()" in source


def test_prefect_runs_its_example(runs: Runs):
    pytest.importorskip("prefect")
    made: dict[str, Any] = {"__name__": "example"}
    exec(example("Prefect"), made)
    assert made["morning"](SYMBOLS) == ["report.html"] * 2
    assert runs.asked == [("research", symbol) for symbol in SYMBOLS]
    made["report"].retries = 0
    with pytest.raises(OrbiError):
        made["morning"](["BAD"])


def test_dagster_runs_its_example(runs: Runs):
    dagster = pytest.importorskip("dagster")
    made: dict[str, Any] = {"__name__": "example"}
    exec(example("Dagster"), made)
    ended = made["definitions"].resolve_job_def("morning").execute_in_process(partition_key="XAUUSD")
    assert ended.success and runs.asked == [("research", "XAUUSD")]
    due = made["weekdays"](dagster.build_schedule_context())
    assert [request.partition_key for request in due] == SYMBOLS


def test_airflow_runs_its_example(runs: Runs):
    pytest.importorskip("airflow")
    made: dict[str, Any] = {"__name__": "example"}
    exec(example("Airflow").replace("\nmorning()\n", "\nfound = morning()\n"), made)
    task = made["found"].get_task("report")
    assert task.python_callable("EURUSD") == "report.html" and task.retries == 2
    assert runs.asked == [("research", "EURUSD")]
    with pytest.raises(OrbiError):
        task.python_callable("BAD")
