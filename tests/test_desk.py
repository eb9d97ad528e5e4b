"""The desk's own work: which series is meant, how its last bars are read, and what is kept between requests."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from orbiquant.core import FixedClock, NotFoundError
from orbiquant.desk.health import check_component
from orbiquant.desk.market import analyse
from orbiquant.desk.series import choose_series, live_of
from orbiquant.desk.signals import ServedSignal, for_agents
from orbiquant.domain import Bars, SeriesId, Timeframe
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.live import recent_bars
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings

EURUSD_1H = SeriesId.parse("EURUSD", "1h")

NOON = datetime(2025, 6, 2, 12, tzinfo=UTC)
KEY = ("EURUSD", "1h")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    loaded = load_settings()
    places = {
        "store_uri": f"{tmp_path}/store",
        "models_dir": tmp_path / "models",
        "database_url": f"sqlite:///{tmp_path}/o.db",
    }
    update = {
        "workspace": loaded.workspace.model_copy(update=places),
        "service": loaded.service.model_copy(update={"signal_cache_s": 60}),
    }
    return Runtime(loaded.model_copy(update=update), FixedClock(NOON))


def gappy(rows: int) -> Bars:
    """Return bars that thin out at the end, so that no density says how far to read back."""
    bars = synthetic_market(rows, "1h", seed=3).bars
    return pd.concat([bars.iloc[: rows // 2], bars.iloc[rows // 2 :: 40]])


@pytest.mark.parametrize("timeframe, killzone", [("1d", "none"), ("4h", "asia")])
def test_a_day_has_no_killzone(runtime: Runtime, timeframe: str, killzone: str):
    bars = synthetic_market(400, "1h", seed=3).bars
    index = pd.date_range(end="2025-06-02", periods=400, freq=Timeframe(timeframe).delta, tz="UTC", name="time")
    runtime.store.upsert(
        SeriesId.parse("BTCUSDT", timeframe), bars.set_axis(index)
    )  # the last bar opens at 20:00 New York
    found = analyse(runtime, "BTCUSDT", Timeframe(timeframe))
    assert found.ict_context.killzone == killzone


@pytest.mark.parametrize("count", [1, 7, 60, 200, 300, 5000])
def test_the_last_bars_are_the_last_bars_whatever_the_gaps(runtime: Runtime, count: int):
    bars = gappy(500)
    runtime.store.upsert(EURUSD_1H, bars)
    series = choose_series(runtime, "EURUSD", None)
    pd.testing.assert_frame_equal(recent_bars(runtime, series, count), bars.iloc[-count:], check_freq=False)


def test_a_single_bar_is_a_series(runtime: Runtime):
    runtime.store.upsert(EURUSD_1H, gappy(500).iloc[:1])
    assert len(recent_bars(runtime, choose_series(runtime, "EURUSD", None), 10)) == 1


def test_a_timeframe_left_out_is_1h_or_one_with_a_model(runtime: Runtime, tmp_path: Path):
    bars = synthetic_market(50, "1h", seed=3).bars
    for symbol, timeframe in (("EURUSD", "1h"), ("EURUSD", "4h"), ("GBPUSD", "1d"), ("GBPUSD", "4h")):
        step = Timeframe(timeframe).delta
        runtime.store.upsert(
            SeriesId.parse(symbol, timeframe),
            bars.set_axis(pd.date_range("2025-06-02", periods=50, freq=step, tz="UTC", name="time")),
        )
    assert choose_series(runtime, "EURUSD", None).series.timeframe == "1h"
    assert choose_series(runtime, "gbp/usd", None).series.timeframe == "4h"
    (tmp_path / "models" / "EURUSD_4h" / "20250602T120000000000Z-0123abcd").mkdir(parents=True)
    assert choose_series(runtime, "EURUSD", None).series.timeframe == "4h"
    assert choose_series(runtime, "EURUSD", Timeframe.H1).series.timeframe == "1h"
    with pytest.raises(NotFoundError, match=r"no EURUSD 5m \(there is 1h, 4h\)"):
        choose_series(runtime, "EURUSD", Timeframe.M5)


def test_an_empty_store_says_so(runtime: Runtime):
    with pytest.raises(NotFoundError, match="the store is empty"):
        choose_series(runtime, "EURUSD", None)


def test_the_list_of_series_follows_the_store(runtime: Runtime):
    bars = synthetic_market(50, "1h", seed=3).bars
    runtime.store.upsert(EURUSD_1H, bars.iloc[:40])
    live = live_of(runtime)
    first = live.series()
    assert live.series() is first
    runtime.store.upsert(EURUSD_1H, bars)
    assert live.series()[0].rows == 50


def test_a_signal_speaks_both_vocabularies():
    plain = {
        "symbol": "EURUSD", "timeframe": "1h", "time": NOON, "action": "SHORT", "confidence": 0.7, "entry_price": 1.1,
        "stop_loss": 1.2, "take_profit": 0.9, "risk_reward": 2.0, "amd_phase": "distribution", "horizon": "24h",
        "reasoning": [], "features": [], "model_version": "v",
    }  # fmt: skip
    served = ServedSignal(**plain, age_s=0, stale=False)
    sent, flat = for_agents(served).model_dump(mode="json"), served.model_dump(mode="json")
    assert (sent["action"], sent["direction"], flat["action"]) == ("sell", "SHORT", "SHORT")
    assert (sent["price"], sent["timestamp"]) == (1.1, "2025-06-02T13:00:00Z")
    assert for_agents(ServedSignal(**plain | {"action": "HOLD"}, age_s=0, stale=False)).model_dump()["action"] == "hold"
    assert set(flat) | {"direction", "price", "timestamp"} == set(sent)


def test_a_component_that_fails_is_an_error_and_not_a_crash():
    assert [check_component("x", lambda: True), check_component("x", lambda: False)] == ["ok", "empty"]
    assert check_component("x", lambda: bool(1 // 0)) == "error"
