"""An account at a venue, whole: money in, a signed signal, a trade with its stop at the venue, money out."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from test_agents_http import keyed
from test_heard import BARS, BTC, HOUR, SECRET, last_of
from test_service_http import running

from orbiquant.core import FixedClock, configure_logging
from orbiquant.desk.agents import room_of
from orbiquant.research.accounts import account_faults, sync_accounts
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading.decisions import DecisionJournal
from tests.fake_binance.running import RunningBinance, running_binance

ACCOUNT = "binance-usdt"


class Story:
    """A service whose conservative product trades at the venue, on bars that close when a test says so."""

    def __init__(self, folder: Path, venue: RunningBinance) -> None:
        places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder)}
        keys = {"api_key": venue.key, "api_secret": venue.secret, "rest_url": f"{venue.url}/api/v3"}
        keys |= {"stream_url": f"{venue.ws_url}/ws-api/v3", "environment": "testnet"}
        atlas = {"pairs": "BTCUSDT", "policy": "base", "min_confidence": 0.65, "strategies": "ml", "broker": "binance"}
        settings = load_settings(
            workspace=places | {"database_url": f"sqlite:///{folder}/o.db"}, webhooks={"secret": SECRET}, atlas=atlas,
            binance=keys, service={"requests_per_minute": 100_000},
        )  # fmt: skip
        self.at, self.venue, self.bars = last_of("distribution", hours=range(7, 20)) + 1, venue, BARS.copy()
        self.bars[["open", "high", "low", "close"]] *= 40_000
        begin = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
        shift = pd.Timestamp(begin) - self.bars.index[self.at - 1].normalize()  # a day keeps its hours
        self.bars.index = self.bars.index + shift
        self.clock = FixedClock((self.bars.index[self.at - 1] + HOUR + timedelta(seconds=5)).to_pydatetime())
        self.runtime = Runtime(settings, self.clock)
        self.runtime.store.upsert(BTC, self.bars.iloc[: self.at])
        self.venue.price("BTCUSDT", round(self.price, 2))

    @property
    def price(self) -> float:
        return float(self.bars["close"].iloc[self.at - 1])

    @property
    def engine(self) -> Any:
        return room_of(self.runtime).engine_of(ACCOUNT)

    def turn(self) -> None:
        """Let the engine look at its venue and go through what has closed."""
        self.engine.broker.woken.set()
        assert room_of(self.runtime).turn(ACCOUNT).said == ""

    def close(self, count: int = 1) -> None:
        """Let bars close."""
        self.runtime.store.upsert(BTC, self.bars.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(count * HOUR)
        self.turn()


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    configure_logging("ERROR")
    with running_binance(tmp_path) as venue:
        made = Story(tmp_path, venue)
        yield made
        made.engine.broker.close()
        made.runtime.engine.dispose()


def test_an_account_from_its_deposit_to_its_withdrawal(story: Story):
    from orbiquant.app import app

    scopes = ("read", "write", "trade", "act_for")
    with running(app, story.runtime) as url, keyed(story, url, "backend", "pro", *scopes) as client:

        def get(path: str) -> Any:
            return client.get(path).raise_for_status().json()

        asked = {"user_id": "ana", "product_id": "atlas-conservative", "initial_deposit": 1000}
        account = client.post("/investment/accounts", json=asked).raise_for_status().json()
        place = f"/investment/accounts/{account['id']}"
        assert (account["current_balance"], account["units"], account["agent_status"]) == (1000, 1000, "running")

        signal = {"symbol": "BTCUSDT", "action": "buy", "confidence": 0.85, "price": story.price}
        body = json.dumps({"signal": signal | {"timestamp": story.clock.now().isoformat()}}).encode()
        signed = {"X-ML-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
        heard = httpx.post(f"{url}/webhooks/ml-signals", content=body, headers=signed)
        assert heard.json() == {"status": "received"}, heard.text
        story.turn()
        decision = DecisionJournal(story.runtime.pages).last("atlas")[0]
        assert decision.outcome.value in ("taken", "resized"), decision.reason

        story.turn()
        (held,) = story.engine.books.positions("atlas")
        resting = story.venue.control("state")["accounts"][story.venue.key]["open"]
        assert len(resting) == 2 and held.bracket.stop_loss and held.quantity < held.opened_quantity + 1
        assert get("/agents/atlas/positions")["total_positions"] == 1

        target = float(held.bracket.take_profit)
        story.venue.price("BTCUSDT", round(target * 1.001, 2))
        story.close()
        (trade,) = story.engine.books.trades("atlas")
        assert trade.reason == "target" and trade.pnl > 0 and not story.engine.books.positions("atlas")
        assert not story.engine.watch.differences() and story.engine.books.ledger.check() == []

        story.close(24 * 4)  # over the end of the month
        sync_accounts(story.runtime)
        rows = get(f"{place}/transactions")["transactions"]
        kinds = [row["transaction_type"] for row in rows]
        assert kinds[-2:] == ["profit", "deposit"] and "fee" in kinds, kinds
        assert rows[-2]["reference_type"] == "agent_trade"
        earned = sum(Decimal(str(row["amount"])) for row in rows if row["transaction_type"] == "profit")
        fee = sum(Decimal(str(row["amount"])) for row in rows if row["transaction_type"] == "fee")
        assert 0 < fee <= (earned * Decimal("0.2")).quantize(Decimal("0.01")) + Decimal("0.01")
        seen, made = get(place), get(f"{place}/performance")
        assert seen["current_balance"] == made["current_balance"] == pytest.approx(1000 + float(earned - fee), abs=0.01)
        assert seen["current_balance"] == pytest.approx(seen["units"] * seen["nav"], abs=0.01)
        assert made["total_trades"] == 1 and made["win_rate"] == 1

        out = client.post(f"{place}/withdrawals", json={"amount": "all"}).raise_for_status().json()
        assert out["status"] == "done" and out["amount"] == seen["current_balance"]
        assert get(place)["current_balance"] == 0 and account_faults(story.runtime) == []
        assert story.engine.books.ledger.check() == []
