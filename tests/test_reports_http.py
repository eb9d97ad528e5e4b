"""Reports over real HTTP: the list, a run that is queued, worked on in a kernel of its own, and its page."""

from collections.abc import Iterator

import httpx
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from test_reports import write_report
from test_service_http import TOKEN, check_problem, make_runtime, running

from orbiquant.app import app
from orbiquant.jobs.records import claim_next
from orbiquant.jobs.running import run_claimed
from orbiquant.runtime import Runtime, using
from orbiquant.service.keys import create_api_key

TELL = "from orbiquant.reports import record\nrecord(rows=rows or 7)"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("reports")
    write_report(folder / "reports", "study", new_markdown_cell("## Tell"), new_code_cell(TELL))
    write_report(folder / "reports", "broken", new_code_cell("1 / 0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBIQUANT_HOME", str(folder))
        yield make_runtime(folder)


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[httpx.Client]:
    app.state.console_token = TOKEN
    with (
        using(runtime),
        running(app, runtime) as address,
        httpx.Client(base_url=address, headers={"X-API-Key": TOKEN}, timeout=30) as client,
    ):
        yield client


def work(runtime: Runtime) -> None:
    """Do what is queued, as `orbiquant jobs work` does."""
    while run := claim_next(runtime.engine, "here", "long", runtime.clock):
        run_claimed(runtime.engine, run, runtime.clock, runtime)


def test_a_report_is_queued_run_and_shown(client: httpx.Client, runtime: Runtime):
    listed = {report["name"]: report for report in client.get("/reports").json()["reports"]}
    assert {"study", "broken", "research"} <= listed.keys()
    assert {each["name"] for each in listed["study"]["parameters"]} == {"symbol", "mode", "rows", "symbols"}
    queued = client.post("/reports/study/runs", json={"parameters": {"rows": 5}})
    assert queued.status_code == 202 and queued.json()["status"] == "queued" and queued.json()["html"] is None
    way = f"/reports/runs/{queued.json()['id']}"
    check_problem(client.get(f"{way}/page"), 404, "NOT_FOUND")
    broken = client.post("/reports/broken/runs").json()
    work(runtime)
    ended = client.get(way).json()
    assert ended["status"] == "succeeded" and ended["result"] == {"rows": 5} and ended["error"] is None
    page = client.get(ended["html"])
    assert page.headers["content-type"].startswith("text/html") and "The study report" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox")  # a script in it has no origin
    failed = client.get(f"/reports/runs/{broken['id']}").json()
    assert failed["status"] == "failed" and "ZeroDivisionError" in failed["error"]
    assert client.get(failed["html"]).status_code == 200
    assert [run["id"] for run in client.get("/reports/runs").json()["runs"]] == [broken["id"], ended["id"]]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/reports/nothing/runs", None, 404, "NOT_FOUND"),
        ("/reports/..%2f..%2fetc%2fpasswd/runs", None, 404, "NOT_FOUND"),
        ("/reports/study/runs", {"parameters": {"row": 5}}, 422, "DATA_INVALID"),
        ("/reports/study/runs", {"parameters": {"rows": "many"}}, 422, "DATA_INVALID"),
        ("/reports/study/runs", {"rows": 5}, 422, "VALIDATION_ERROR"),
        ("/reports/study/runs", {"parameters": {str(number): 1 for number in range(40)}}, 422, "VALIDATION_ERROR"),
    ],
)
def test_what_cannot_be_run_is_refused_where_it_is_asked(client: httpx.Client, path, body, status, code):
    check_problem(client.post(path, json=body), status, code)


def test_a_run_is_its_owners_and_needs_the_plan(client: httpx.Client, runtime: Runtime):
    mine = client.post("/reports/study/runs").json()["id"]
    keys = {
        plan: create_api_key(runtime.engine, plan, "ben", plan, ["read", "write"], runtime.clock)
        for plan in ("pro", "premium")
    }
    for path in (f"/reports/runs/{mine}", f"/reports/runs/{mine}/page"):
        check_problem(client.get(path, headers={"X-API-Key": keys["premium"]}), 404, "NOT_FOUND")
    assert client.get("/reports/runs", headers={"X-API-Key": keys["premium"]}).json() == {"runs": []}
    refused = client.post("/reports/study/runs", headers={"X-API-Key": keys["pro"]})
    check_problem(refused, 403, "PLAN_REQUIRED")
    check_problem(client.get("/reports/runs/..%2f..%2fsettings.ini"), 404, "NOT_FOUND")
