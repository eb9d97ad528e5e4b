"""A workspace to look at: two markets, a model, an agent that has decided, a position, alerts."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, WebSocketRoute

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk.agents import step_agents
from orbiquant.domain import SeriesId
from orbiquant.jobs.handlers import JobContext
from orbiquant.market.resampling import resample
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime
from orbiquant.service.keys import create_api_key
from orbiquant.settings import load_settings
from tests.test_service_http import TOKEN, running

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
EURUSD, EURUSD_4H, BITCOIN = (SeriesId.parse(*each) for each in (("EURUSD", "1h"), ("EURUSD", "4h"), ("BTCUSDT", "1h")))
BARS = synthetic_market(2600, "1h", seed=11).bars
HELD_BACK = 60
ATTACK = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"
STREAM = re.compile(r"/ws/(market|signals)")


class Stream:
    """The service's streams, as their contract has them, told by the test."""

    def __init__(self, page: Page) -> None:
        self.opened: dict[str, list[WebSocketRoute]] = {"market": [], "signals": []}
        self.refuses, self.epoch, self.seq = False, "one", 5
        page.route_web_socket(STREAM, self.open)

    def open(self, socket: WebSocketRoute) -> None:
        """Greet whoever comes."""
        name = STREAM.search(socket.url)[1]  # type: ignore[index]
        self.opened[name].append(socket)
        if self.refuses:
            socket.close()
        else:
            socket.send(f'{{"type":"hello","stream":"{name}","epoch":"{self.epoch}","seq":{self.seq}}}')

    def say(self, text: str, name: str = "market") -> None:
        """Tell whoever came last."""
        self.opened[name][-1].send(text)

    def tell_signal(self, address: str) -> None:
        """Tell a signal to buy, by the one that the service serves."""
        made = httpx.get(f"{address}/api/signal?symbol=EURUSD", headers={"X-API-Key": TOKEN}).raise_for_status().json()
        price = made["entry_price"]
        changed = {"action": "LONG", "confidence": 0.81, "stop_loss": price - 0.003, "take_profit": price + 0.006}
        event = {"type": "signal", "seq": self.seq + 1, "symbol": "EURUSD", "timeframe": "1h"}
        self.say(json.dumps(event | {"signal": made | changed | {"reasoning": [ATTACK]}}), "signals")


class DashboardHome:
    """A workspace whose bars close when a test says so."""

    def __init__(self, folder: Path, stored: bool = True) -> None:
        configure_logging("ERROR")
        shutil.copytree(MODELS, folder / "models")
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        settings = load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"},
            service={"requests_per_minute": 100_000},
            llm={"provider": "router"},
            atlas={"pairs": "EURUSD", "strategies": "ml"},
        )
        self.at = len(BARS) - HELD_BACK
        self.clock = FixedClock((BARS.index[self.at - 1] + timedelta(hours=1, seconds=5)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        if stored:
            self.runtime.store.upsert(EURUSD, BARS.iloc[: self.at])
            self.runtime.store.upsert(EURUSD_4H, resample(BARS.iloc[: self.at], "1h", "4h", "crypto"))
            self.runtime.store.upsert(BITCOIN, (BARS.iloc[: self.at] * 60_000).round(2))

    def close(self, count: int = 1) -> None:
        """Let bars close, and the engine's job look at them."""
        self.runtime.store.upsert(EURUSD, BARS.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(timedelta(hours=count))
        step_agents(JobContext("1", None, self.clock.now(), self.clock, shared=self.runtime))

    def key(self, user: str, plan: Any, *scopes: str) -> str:
        """Return a key of somebody's own."""
        return create_api_key(self.runtime.engine, "test", user, plan, scopes, self.clock)

    def fill(self, address: str) -> None:
        """Let an agent decide, hold a position and set alerts."""
        price = float(BARS["close"].iloc[self.at - 1])
        order = {
            "symbol": "EURUSD",
            "action": "BUY",
            "size": 0.05,
            "stop_loss": round(price * 0.97, 5),
            "take_profit": round(price * 1.09, 5),
        }
        with httpx.Client(base_url=address, timeout=180, headers={"X-API-Key": TOKEN}) as client:
            client.post("/agents/atlas/start", json={"initial_equity": 10_000}).raise_for_status()
            client.post("/api/trade", json=order).raise_for_status()
            self.close()
            for condition, share in (("above", 1.02), ("below", 0.97)):
                alert = {"symbol": "EURUSD", "condition": condition, "price": round(price * share, 4)}
                client.post("/api/alerts", json=alert | {"message": "look at the range"}).raise_for_status()
        self.close(6)


@contextmanager
def dashboard_home(folder: Path, stored: bool = True) -> Iterator[tuple[DashboardHome, str]]:
    """Yield a workspace and the address of its service."""
    from orbiquant.app import app

    home = DashboardHome(folder, stored)
    with running(app, home.runtime) as address:
        if stored:
            home.fill(address)
        yield home, address
