"""What a monitoring system is told: by template and not by path, with a part that fails told beside the others."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_service_http import EURUSD_1H, TOKEN, check_problem, make_runtime, running

from orbiquant.app import app
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import using
from orbiquant.service.metrics import shared_folder
from orbiquant.settings import load_settings

KILLED = """
import os, signal
from orbiquant.service.metrics import shared_folder
with shared_folder() as folder:
    os.kill(os.getpid(), signal.SIGKILL)
"""
Reading = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: httpx.Client) -> Reading:
    """Return every sample by its name and labels, as Prometheus's own parser understands them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def requests_of(reading: Reading, route: str, status: str) -> float:
    labels = frozenset({("method", "GET"), ("route", route), ("status", status)})
    return reading.get(("orbiquant_http_requests_total", labels), 0.0)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    runtime = make_runtime(tmp_path_factory.mktemp("metrics"))
    runtime.store.upsert(EURUSD_1H, synthetic_market(300, "1h", seed=7).bars)
    app.state.console_token = TOKEN
    with (
        using(runtime),
        running(app, runtime) as address,
        httpx.Client(base_url=address, headers={"X-API-Key": TOKEN}, timeout=30) as client,
    ):
        yield client


def test_requests_are_counted_by_template_kept_ones_and_refused_ones_too(client: httpx.Client):
    before = read(client)
    for _ in range(3):
        client.get("/api/market_data?symbol=EURUSD&timeframe=1h")  # the second and third are kept answers
        client.get("/agents/atlas/positions")
    client.get("/agents/nobody/positions")
    client.get("/health", headers={"X-API-Key": "oq_wrong"})
    after = read(client)
    grown = [
        requests_of(after, route, status) - requests_of(before, route, status)
        for route, status in (
            ("/api/market_data", "200"), ("/agents/{name}/positions", "200"), ("/agents/{name}/positions", "404"),
            ("unknown", "401"),
        )
    ]  # fmt: skip
    assert grown == [3, 3, 1, 1]
    took = ("orbiquant_http_request_seconds_count", frozenset({("route", "/api/market_data")}))
    assert after[took] - before.get(took, 0.0) == 3


def test_what_strangers_put_into_paths_makes_no_series(client: httpx.Client):
    first = len(read(client))
    for number in range(100):
        client.get(f"/{number}/../nothing-{number}")
        client.request(f"ODD{number}", "/health")
    assert len(read(client)) <= first + 50  # a route and a method more, and not two hundred


def test_how_things_stand_is_told_with_units(client: httpx.Client):
    reading = {name: value for (name, labels), value in read(client).items()}
    assert reading["orbiquant_bars_age_seconds"] > 0 and reading["orbiquant_agents_running"] == 0
    assert reading["orbiquant_kill_switches"] == 0 and reading["process_resident_memory_bytes"] > 1e7
    assert not any(value for (name, _), value in read(client).items() if name == "orbiquant_part_unreadable")


def test_a_stranger_is_told_nothing(client: httpx.Client):
    check_problem(httpx.get(f"{client.base_url}/metrics"), 401, "UNAUTHORIZED")


def test_a_part_that_cannot_be_read_hides_no_other(tmp_path: Path):
    unset = load_settings(atlas={"broker": "mt4", "pairs": "EURUSD"})  # whose folder no setting names
    runtime = make_runtime(tmp_path)
    runtime = type(runtime)(runtime.settings.model_copy(update={"atlas": unset.atlas}))
    app.state.console_token = TOKEN
    with (
        using(runtime),
        running(app, runtime) as address,
        httpx.Client(base_url=address, headers={"X-API-Key": TOKEN}) as client,
    ):
        reading = read(client)
    unreadable = {
        dict(labels)["part"]: value for (name, labels), value in reading.items() if name == "orbiquant_part_unreadable"
    }
    assert unreadable == {"health": 0, "bars": 0, "jobs": 0, "agents": 1}
    assert ("orbiquant_agents_running", frozenset()) in reading


def test_the_folder_of_a_service_that_was_killed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "orbiquant-metrics-whose").mkdir()
    with shared_folder() as mine:
        subprocess.run([sys.executable, "-c", KILLED], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
        left = {*tmp_path.iterdir()} - {Path(mine), tmp_path / "orbiquant-metrics-whose"}
        assert len(left) == 1, "it could not clean up"
        with shared_folder():
            assert not any(each.exists() for each in left) and Path(mine).exists()
    assert [*tmp_path.iterdir()] == [tmp_path / "orbiquant-metrics-whose"], "what names nobody is left alone"
