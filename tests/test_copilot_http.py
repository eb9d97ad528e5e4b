"""The copilot as other systems ask it: the documented clients' calls."""

from collections.abc import Iterator

import httpx
import pytest
from test_service_http import TOKEN, make_runtime, running

from orbiquant.core import configure_logging
from orbiquant.desk.study import store_sample
from orbiquant.runtime import Runtime, using


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = make_runtime(tmp_path_factory.mktemp("copilot"), requests_per_minute=1_000_000)
    with using(made):
        store_sample()
    return made


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[httpx.Client]:
    from orbiquant.app import app

    with (
        running(app, runtime) as url,
        httpx.Client(base_url=url, timeout=60, headers={"X-API-Key": TOKEN}) as opened,
    ):
        yield opened


@pytest.mark.parametrize("path", ["/api/v1/chat", "/api/chat"])
def test_a_question_is_answered_by_a_tool(client: httpx.Client, path: str):
    said = client.post(path, json={"message": "what is the price of EURUSD?"}).raise_for_status().json()
    assert said["tools_used"] == ["get_price"] and "EURUSD" in said["response"]
