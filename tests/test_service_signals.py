"""Signals over real HTTP from a model that was really trained, on bars that really grow."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pandas as pd
import pytest
from test_service_http import TOKEN, make_runtime, running

from orbiquant.core import configure_logging
from orbiquant.desk import series as desk_series
from orbiquant.desk.signals import SIDES
from orbiquant.domain import Action, SeriesId, Signal
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.train import prepare, train
from orbiquant.runtime import Runtime
from orbiquant.service.kept import FRESH_S

EURUSD_1H = SeriesId.parse("EURUSD", "1h")

BARS = synthetic_market(2500, "1h", seed=7).bars
HELD_BACK = 5


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = make_runtime(tmp_path_factory.mktemp("signals"), requests_per_minute=1_000_000)
    made.store.upsert(EURUSD_1H, BARS.iloc[:-HELD_BACK])
    spec = ResearchSpec.from_settings(made.settings, SeriesId.parse("EURUSD", "1h"), folds=1, rounds=5)
    train(made, prepare(made, spec), spec)
    return made


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[httpx.Client]:
    from orbiquant.app import app

    with (
        running(app, runtime) as url,
        httpx.Client(base_url=url, timeout=60, headers={"X-API-Key": TOKEN}) as opened,
    ):
        yield opened


def of_the_moment(signal: dict[str, Any]) -> dict[str, Any]:
    """Return a signal without its age, which two questions may see a second apart."""
    return {name: value for name, value in signal.items() if name != "age_s"}


def test_one_signal_has_one_answer_on_every_path(client: httpx.Client, runtime: Runtime):
    flat = of_the_moment(client.get("/api/signal", params={"symbol": "eur/usd"}).json())
    latest = of_the_moment(client.get("/api/v1/signals/latest/EURUSD").json()["signal"])
    again = client.get("/api/v1/signals/latest/EUR/USD?timeframe=1h").json()
    assert list(again) == ["signal"] and of_the_moment(again["signal"]) == latest
    batch = client.post("/api/v1/signals/batch", json=["EURUSD", "XAUUSD"]).json()["signals"]
    assert of_the_moment(batch["EURUSD"]) == latest
    assert batch["XAUUSD"]["error"] == "NOT_FOUND"
    (recent,) = client.get("/api/analysis?symbol=EURUSD").json()["recent_signals"]
    assert of_the_moment(recent) == flat
    words = {"action": SIDES[Action(flat["action"])], "direction": flat["action"], "price": flat["entry_price"]}
    assert latest == flat | words | {"timestamp": f"{BARS.index[-HELD_BACK]:%Y-%m-%dT%H:%M:%SZ}"}
    assert set(flat) == set(Signal.model_fields) | {"stale"}
    assert flat["model_version"] == runtime.registry.list(EURUSD_1H)[0].version
    assert pd.Timestamp(flat["time"]) == BARS.index[-HELD_BACK - 1]
    assert flat["features"] and flat["reasoning"] and flat["stale"]


def test_a_new_bar_is_a_new_signal_within_a_second(client: httpx.Client, runtime: Runtime):
    before = client.get("/api/signal?symbol=EURUSD").json()
    runtime.store.upsert(EURUSD_1H, BARS.iloc[: 1 - HELD_BACK])
    time.sleep(FRESH_S)
    after = client.get("/api/signal?symbol=EURUSD").json()
    assert pd.Timestamp(after["time"]) - pd.Timestamp(before["time"]) == timedelta(hours=1)
    assert after["entry_price"] == pytest.approx(BARS["close"].iloc[-HELD_BACK], abs=1e-5)


def test_health_counts_the_model(client: httpx.Client):
    assert client.get("/health").json()["components"]["models"] == "ok"


def test_a_damaged_model_is_no_server_error_and_no_wrong_signal(client: httpx.Client, runtime: Runtime):
    version = runtime.registry.versions(EURUSD_1H)[-1]
    file = runtime.registry.root / "EURUSD_1h" / version / "tpsl.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    runtime.store.upsert(EURUSD_1H, BARS.iloc[: 2 - HELD_BACK])
    time.sleep(FRESH_S)
    assert client.get("/api/signal?symbol=EURUSD").status_code == 200, "a warm line has what was verified when loaded"
    desk_series._warm.clear()  # as in a process that starts now
    time.sleep(FRESH_S)
    answer = client.get("/api/signal?symbol=EURUSD")
    file.write_bytes(whole)
    assert (answer.status_code, answer.json()["error"]) == (503, "MODEL_ERROR")
    assert client.get("/api/signal?symbol=EURUSD").status_code == 200
