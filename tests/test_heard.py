"""What becomes of a signed signal: from the sender's body over the box and the engine to a position with a stop."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from test_webhooks import place_of

from orbiquant.core import FixedClock
from orbiquant.desk.agents import move_agent, room_of
from orbiquant.desk.webhooks import receive_ml_signal
from orbiquant.domain import RawRequest, SeriesId
from orbiquant.features.indicators import atr
from orbiquant.features.phases import detect_phases
from orbiquant.market.synthetic import synthetic_market
from orbiquant.orders import OrderRole
from orbiquant.persistence import writing
from orbiquant.research.room import start_agent
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading.agents import Roster
from orbiquant.trading.decisions import Answered, DecisionJournal
from orbiquant.trading.requests import RequestBox
from tests.tools.programs import run_program

SECRET = "a-secret-that-nobody-could-guess"
BTC, EURO, HOUR = SeriesId.parse("BTCUSDT", "1h"), SeriesId.parse("EURUSD", "1h"), timedelta(hours=1)
BARS = synthetic_market(2600, "1h", seed=11).bars
PHASES = detect_phases(BARS)["phase"]
ATR = atr(BARS, 14)


def last_of(*phases: str, hours: range = range(24)) -> int:
    """Return the last bar of a phase, with a day of bars behind it, that closes at one of some hours (UTC)."""
    closes = (BARS.index + HOUR).hour
    fits = PHASES.isin(phases).to_numpy() & np.isin(closes, list(hours))
    return int(np.flatnonzero(fits[:-48])[-1])


class Floor:
    """A workspace whose bars close when a test says so, and an agent that a sender talks to."""

    def __init__(self, folder: Path, at: int, notices: Mapping[str, Any] = MappingProxyType({}), **atlas: Any) -> None:
        own = {"pairs": "BTC/USDT, ETH/USDT", "policy": "base", "min_confidence": 0.65, "cool_down_bars": 0}
        self.folder, self.at = folder, at + 1
        self.settings = load_settings(
            workspace={"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "data_dir": str(folder),
                       "database_url": f"sqlite:///{folder}/o.db"},
            webhooks={"secret": SECRET}, atlas=own | {"strategies": "ml"} | atlas, nova={"strategies": "ml"},
            notices=dict(notices), risk={"crypto_leverage": 100},  # markets that are made up move less than coins
        )  # fmt: skip
        self.clock = FixedClock((BARS.index[at] + HOUR + timedelta(seconds=5)).to_pydatetime())
        self.restart()
        for series in (BTC, EURO):
            self.runtime.store.upsert(series, BARS.iloc[: self.at])

    def restart(self) -> None:
        """Begin anew, as another process."""
        self.runtime = Runtime(self.settings, self.clock)

    def start(self, name: str = "atlas") -> None:
        """Let an agent trade."""
        start_agent(room_of(self.runtime), name, "paper-usdt", None, "a person")
        self.turn()

    def turn(self) -> None:
        """Let the engine look."""
        assert room_of(self.runtime).turn("paper-usdt").said == ""

    def close(self, count: int = 1) -> None:
        """Let bars close, and the engine look at them."""
        for series in (BTC, EURO):
            self.runtime.store.upsert(series, BARS.iloc[self.at : self.at + count])
        self.at += count
        self.clock.advance(count * HOUR)
        self.turn()

    @property
    def price(self) -> float:
        """Return the last close."""
        return float(BARS["close"].iloc[self.at - 1])

    def send(self, agent: str = "atlas", **changes: Any) -> None:
        """Sign and send a signal of now."""
        signal = {"symbol": "BTCUSDT", "action": "buy", "confidence": 0.85, "price": self.price}
        signal |= {"timestamp": self.clock.now().isoformat()} | changes
        body = json.dumps({"agent_name": agent, "signal": signal}).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        with using(self.runtime):
            receive_ml_signal(RawRequest(body, (("x-ml-signature", signature),)))

    def said(self, **changes: Any) -> Answered:
        """Send a signal, let the engine look, and return the one decision that came of it."""
        before = len(self.journal())
        self.clock.advance(timedelta(seconds=1))
        self.send(**changes)
        self.turn()
        found = self.journal()
        assert len(found) == before + 1, "one decision each"
        assert not RequestBox(self.runtime.engine, self.clock).waiting("paper-usdt")
        return found[0]

    def journal(self) -> list[Answered]:
        """Return all decisions on signals from outside, newest first."""
        return [each for each in DecisionJournal(self.runtime.pages).last() if each.strategy == "webhook"]

    @property
    def engine(self) -> Any:
        """Return the engine, to look at."""
        return room_of(self.runtime).engine_of("paper-usdt")


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    made = Floor(tmp_path, last_of("neutral", "distribution", "accumulation", "invalidated"))
    made.start()
    return made


def test_a_signal_becomes_a_position_with_the_profiles_stop_and_target(floor: Floor):
    taken = floor.said()
    assert (taken.outcome.value, taken.symbol, taken.confidence) == ("taken", "BTCUSDT", 0.85), taken.reason
    price, away = floor.price, 1.5 * float(ATR.iloc[floor.at - 1])
    (waiting,) = floor.engine.sender.waiting.values()
    bracket = waiting.order.bracket
    assert float(bracket.stop_loss) == pytest.approx(price - away, rel=1e-4)
    assert float(bracket.take_profit) == pytest.approx(price + 2 * away, rel=1e-4)
    risk = waiting.order.quantity * (waiting.intent.entry_price - bracket.stop_loss)
    assert 0 < risk <= Decimal(100), "one percent of 10,000"
    floor.close()
    (held,) = floor.engine.books.positions("atlas")
    assert held.bracket.stop_loss and held.strategy == "webhook" and held.side.sign == 1
    twice = floor.said()
    assert (twice.outcome.value, twice.reason) == ("denied", "in position")


def test_hold_does_nothing_and_is_journaled(floor: Floor):
    told = floor.said(action="hold", price=1.0, confidence=0.1)
    assert (told.outcome.value, told.action.value, told.intent_id) == ("hold", "HOLD", None)


def test_a_short_on_spot_closes_what_is_held_and_opens_nothing(floor: Floor):
    alone = floor.said(action="sell")
    assert alone.outcome.value == "denied" and "cannot be sold short" in alone.reason
    assert floor.said().outcome.value == "taken"
    floor.close()
    held = floor.engine.books.positions("atlas")[0].quantity
    closed = floor.said(action="sell")
    assert closed.outcome.value == "closed"
    (waiting,) = floor.engine.sender.waiting.values()
    assert waiting.order.reduce_only and waiting.order.role is OrderRole.CLOSE and waiting.order.quantity == held
    floor.close()
    assert not floor.engine.books.positions() and floor.engine.books.trades("atlas")[0].strategy == "webhook"


def test_a_price_more_than_one_range_off_is_denied(floor: Floor):
    reach = float(ATR.iloc[floor.at - 1])
    for off in (-1.05, 1.05, 40):
        told = floor.said(price=floor.price + off * reach)
        assert told.outcome.value == "denied" and "average true ranges off the last one" in told.reason
    assert floor.said(price=floor.price + 0.95 * reach).outcome.value == "taken"


@pytest.mark.parametrize(
    ("changes", "outcome", "word"),
    [
        ({"confidence": 0.64}, "filtered", "confidence 0.64 is below 0.65"),
        ({"confidence": 0.1}, "filtered", "confidence 0.10"),
        ({"symbol": "SOL/USDT"}, "filtered", "not among the pairs"),
        ({"symbol": "eth-usdt"}, "denied", "holds no ETHUSDT 1h"),
        ({"agent": "nova", "symbol": "EURUSD"}, "denied", "never started"),
    ],
)
def test_what_the_profile_does_not_want_is_said(floor: Floor, changes: dict[str, Any], outcome: str, word: str):
    told = floor.said(**changes)
    assert told.outcome.value == outcome and word in told.reason, told.reason
    assert not floor.engine.sender.waiting


def test_an_agent_of_all_pairs_takes_none_of_another_currency_and_says_what_it_infers(floor: Floor):
    floor.start("nova")
    other = floor.said(agent="nova", symbol="EURUSD")
    assert other.outcome.value == "denied" and "is paid in USD" in other.reason
    assert EURO.symbol not in floor.engine.standing.prices, "its bars are not gone through"
    unknown = floor.said(agent="nova", symbol="FOOUSDT")
    assert unknown.outcome.value == "denied"
    assert (
        "holds no FOOUSDT" in unknown.reason and "FOOUSDT is in no instrument table: taken as crypto" in unknown.reason
    )


def test_the_phase_of_the_profiles_timeframe_filters(tmp_path: Path):
    floor = Floor(tmp_path, last_of("manipulation"))
    floor.start()
    told = floor.said()
    assert (told.outcome.value, told.reason) == ("filtered", "phase manipulation is not traded")


def test_a_phase_that_the_profile_leaves_out_filters(tmp_path: Path):
    floor = Floor(tmp_path, last_of("neutral"), phases="distribution")
    floor.start()
    assert floor.said().reason == "phase neutral is not traded"


def test_the_killzone_is_the_one_in_which_it_was_said(tmp_path: Path):
    at = last_of("neutral", "distribution", "accumulation", hours=range(13, 14))
    floor = Floor(tmp_path, at, killzones="new_york_am")
    floor.start()
    early = floor.said()  # 13:00 UTC is 08:00 or 09:00 in New York
    wall = pd.Timestamp(floor.clock.now()).tz_convert("America/New_York").time()
    assert (early.outcome.value == "filtered") == (wall.hour < 8 or (wall.hour, wall.minute) < (8, 30))
    floor.clock.advance(timedelta(minutes=40))
    later = floor.said()
    assert "killzone" not in later.reason


@pytest.mark.parametrize("move", ["pause", "stop"])
def test_an_agent_that_does_not_run_denies(floor: Floor, move: str):
    move_agent(floor.runtime, "atlas", move, "a person")
    told = floor.said()
    assert told.outcome.value == "denied" and f"the agent is {move}" in told.reason


def test_a_halted_agent_denies_until_a_person_resumes_it(floor: Floor):
    with writing(floor.runtime.engine):
        Roster(floor.runtime.engine, floor.clock).move("atlas", "halt", "drawdown of 5 % reached")
    assert "halted: drawdown" in floor.said().reason
    move_agent(floor.runtime, "atlas", "resume", "a person")
    assert floor.said().outcome.value == "taken"


def test_what_waits_survives_the_process_and_is_done_once(floor: Floor):
    floor.send()
    floor.restart()
    floor.turn()
    floor.restart()
    floor.turn()
    assert [each.outcome.value for each in floor.journal()] == ["taken"]


def test_a_signal_that_waited_too_long_is_denied(floor: Floor):
    floor.send()
    floor.clock.advance(3 * HOUR)
    for series in (BTC, EURO):
        floor.runtime.store.upsert(series, BARS.iloc[floor.at : floor.at + 3])
    floor.turn()
    (told,) = floor.journal()
    assert told.outcome.value == "denied"


def test_a_sender_whose_clock_is_ahead_is_heard(floor: Floor):
    told = floor.said(timestamp=(floor.clock.now() + timedelta(minutes=2)).isoformat())
    assert told.outcome.value == "taken" and told.time + HOUR <= floor.clock.now()


def test_a_moment_has_one_signal_of_a_market(floor: Floor):
    moment = (floor.clock.now() + timedelta(seconds=1)).isoformat()
    assert floor.said(timestamp=moment).outcome.value == "taken"
    floor.send(timestamp=moment, confidence=0.86)
    floor.send(timestamp=moment, action="sell")
    floor.turn()
    assert [each.outcome.value for each in floor.journal()] == ["denied", "denied", "taken"]
    assert len({each.time for each in floor.journal()}) == 3


def test_a_time_without_a_zone_is_utc(floor: Floor):
    told = floor.said(timestamp=(floor.clock.now() + timedelta(seconds=1)).replace(tzinfo=None).isoformat())
    assert told.outcome.value == "taken"


def test_what_cannot_be_written_is_not_half_received(floor: Floor):
    """The disk is full, or the power goes, between the names and the request: both are there, or neither."""
    with pytest.MonkeyPatch.context() as patch:

        def fail(*args: Any) -> None:
            raise OSError("no space left on device")

        patch.setattr(RequestBox, "put", fail)
        with pytest.raises(OSError, match="no space"):
            floor.send()
    floor.send()
    floor.turn()
    assert [each.outcome.value for each in floor.journal()] == ["taken"]


@pytest.mark.slow
def test_one_process_receives_and_another_trades(tmp_path: Path):
    """`orbiquant serve` and `orbiquant agent run` beside each other, and a sender who knows neither."""
    hour = pd.Timestamp.now("UTC").floor("h")
    bars = BARS.iloc[: last_of("neutral", "distribution", "accumulation", "invalidated") + 1]
    bars = bars.set_axis(bars.index + (hour - HOUR - bars.index[-1]))
    own = {
        "ORBIQUANT_HOME": str(tmp_path), "ORBIQUANT_WEBHOOKS_SECRET": SECRET, "ORBIQUANT_ATLAS_POLICY": "base",
        "ORBIQUANT_ATLAS_STRATEGIES": "ml", "ORBIQUANT_ATLAS_PAIRS": "BTC/USDT",
        "ORBIQUANT_RISK_CRYPTO_LEVERAGE": "100",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        runtime = Runtime(load_settings())
        runtime.store.upsert(BTC, bars)
        start_agent(room_of(runtime), "atlas", "paper-usdt", None, "a person")
    program = [sys.executable, "-c", "from orbiquant.cli import main; main()"]
    options: dict[str, Any] = {"env": os.environ | own, "stderr": subprocess.PIPE, "text": True}
    with run_program([*program, "serve", "--port", "0", "--no-work"], **options) as service:
        address = place_of(service)
        with run_program([*program, "agent", "run"], **options) as trader:
            signal = {"symbol": "BTCUSDT", "action": "buy", "confidence": 0.85, "price": float(bars["close"].iloc[-1])}
            signal |= {"timestamp": pd.Timestamp.now("UTC").isoformat()}
            body = json.dumps({"agent_name": "atlas", "signal": signal}).encode()
            headers = {"X-ML-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
            told = httpx.post(f"{address}/webhooks/ml-signals", content=body, headers=headers, timeout=60)
            assert (told.status_code, told.json()) == (200, {"status": "received"})
            journal, until = DecisionJournal(runtime.pages), time.monotonic() + 90
            while not (found := journal.last("atlas", 5)) and time.monotonic() < until:
                time.sleep(0.2)
            trader.terminate()
            trader.communicate(timeout=60)
        service.terminate()
        service.communicate(timeout=60)
    assert [(each.strategy, each.outcome.value) for each in found] == [("webhook", "taken")], found
    runtime.engine.dispose()
