"""Every route asked what its description allows and what it does not: never a 5xx, always as described."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_service_http import EURUSD_1H, TOKEN, make_runtime, running

from orbiquant.app import app
from orbiquant.core import configure_logging
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import using

CASES = int(os.environ.get("TEST_API_CASES", "2"))  # of each route and mode; `TEST_API_CASES=130` asks about 20,000
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
DESCRIBED = json.loads((Path(__file__).parents[1] / "orbiquant" / "openapi.json").read_text(encoding="utf-8"))
SCHEMA = schemathesis.openapi.from_dict(DESCRIBED)
ASKED = [
    (operation, mode)
    for operation in (each.ok() for each in SCHEMA.get_all_operations())
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or {"parameters", "requestBody"} & operation.definition.raw.keys()
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    configure_logging("ERROR")
    runtime = make_runtime(tmp_path_factory.mktemp("cases"), requests_per_minute=(10**9,) * 3)
    runtime.store.upsert(EURUSD_1H, synthetic_market(300, "1h", seed=7).bars)
    app.state.console_token = TOKEN
    with (
        using(runtime),
        running(app, runtime) as address,
        httpx.Client(base_url=address, headers={"X-API-Key": TOKEN}, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("operation", "mode"), ASKED, ids=[f"{o.method.upper()} {o.path} {m.name.lower()}" for o, m in ASKED]
)
def test_every_answer_is_one_that_is_described(client: httpx.Client, operation: Any, mode: GenerationMode):
    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=str(client.base_url), headers={"X-API-Key": TOKEN}, checks=CHECKS)

    ask()
