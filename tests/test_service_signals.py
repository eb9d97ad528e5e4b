"""Signals over real HTTP from a model that was really trained, on bars that really grow."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from test_service_http import TOKEN, make_runtime, running

from orbiquant.copilot.magics import load_magics, unload_magics
from orbiquant.core import configure_logging
from orbiquant.desk import series as desk_series
from orbiquant.desk.signals import SIDES
from orbiquant.domain import Action, SeriesId, Signal
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.spec import ResearchSpec
from orbiquant.research.train import prepare, train
from orbiquant.runtime import Runtime, using
from orbiquant.service.kept import FRESH_S
from orbiquant.service.keys import create_api_key

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
    free = create_api_key(runtime.engine, "test", "ben", "free", ("read",), runtime.clock)
    seen = client.get("/api/analysis?symbol=EURUSD", headers={"X-API-Key": free}).raise_for_status().json()
    assert seen["recent_signals"] == [] and seen["current_price"], "right after who may see it was answered"
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


# --- the calls of systems that already ask, and what they read ---


def test_agents_read_their_signals(client: httpx.Client):
    """They send names and trade on `action`, `price` and `timestamp` of each answer."""
    answer = client.post("/api/v1/signals/batch", json=["EURUSD"]).raise_for_status().json()
    latest = client.get("/api/v1/signals/latest/EURUSD").raise_for_status().json()
    for told in (answer["signals"]["EURUSD"], latest["signal"]):
        assert told["symbol"] == "EURUSD" and told["action"] in ("buy", "sell", "hold")
        assert told["direction"] in ("LONG", "SHORT", "HOLD") and 0 <= told["confidence"] <= 1
        moment = datetime.fromisoformat(told["timestamp"])
        assert isinstance(told["price"], float) and moment.utcoffset() == timedelta(0)
        closed = pd.Timestamp(told["time"]) + pd.Timedelta("1h")
        assert moment == closed and told["stale"] is True
        assert abs((datetime.now(UTC) - moment).total_seconds() - told["age_s"]) < 5


def test_the_copilot_reads_its_signal_and_analysis(client: httpx.Client):
    told = client.get("/api/signal", params={"symbol": "EURUSD", "timeframe": "1h"}).raise_for_status().json()
    assert told["action"] in ("LONG", "SHORT", "HOLD") and told["entry_price"] > 0
    assert {"stop_loss", "take_profit", "confidence", "amd_phase", "killzone", "reasoning", "age_s"} <= set(told)
    seen = client.get("/api/analysis", params={"symbol": "EURUSD", "timeframe": "1h"}).raise_for_status().json()
    assert seen["volatility"] in ("low", "medium", "high") and seen["trend"] in ("bullish", "bearish", "neutral")
    assert seen["recent_signals"][0]["action"] == told["action"] and seen["stale"] and seen["age_s"] > 0


def test_the_magic_shows_the_signal_that_the_service_tells(client: httpx.Client, runtime: Runtime):
    told = of_the_moment(client.get("/api/signal", params={"symbol": "EURUSD", "timeframe": "1h"}).json())
    shell = InteractiveShell.instance()
    load_magics(shell)
    try:
        with using(runtime):
            shown = [shell.run_line_magic("signal", line) for line in ("EURUSD 1h", "eur/usd")]
            ran = shell.run_cell("view = %signal EURUSD 1h\nview.signal.action.value")
    finally:
        unload_magics(shell)
        InteractiveShell.clear_instance()
    names = ("action", "entry_price", "stop_loss", "take_profit", "confidence", "model_version")
    wanted = [SIDES[Action(told["action"])], *(told[name] for name in names[1:])]
    for each in shown:
        signal = each.signal.model_dump(mode="json")
        assert [signal[name] for name in names] == wanted
    assert ran.success and ran.result == told["action"]


def test_charts_read_bars(client: httpx.Client):
    asked = {"symbol": "EURUSD", "timeframe": "1h", "bars": 100}
    told = client.get("/api/market_data", params=asked).raise_for_status().json()
    assert list(told) == ["symbol", "timeframe", "data"] and len(told["data"]) == 100
    assert list(told["data"][0]) == ["time", "open", "high", "low", "close", "volume"]
    times = pd.DatetimeIndex([bar["time"] for bar in told["data"]])
    assert times.is_monotonic_increasing and times.tz is not None
    assert client.get("/api/market_data?symbol=EURUSD").json() == told


def test_monitors_read_health_without_a_key(client: httpx.Client):
    simple = httpx.get(client.base_url.join("/api/health")).raise_for_status().json()
    assert simple == {"status": "healthy", "llm_status": "router"}
    whole = httpx.get(client.base_url.join("/health")).raise_for_status().json()
    assert whole["status"] == "healthy" and whole["agents_running"] == 0
    assert set(whole["components"]) == {"store", "database", "models"} and whole["stale"] is True


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
