"""An account from its first money to its last unit, as a person goes about it, each figure worked out by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orbiquant.core import FixedClock
from orbiquant.domain import SeriesId, Signal
from orbiquant.research.accounts import (
    account_faults,
    deposit_money,
    find_account,
    open_account,
    performance_of,
    sync_accounts,
    transactions_of,
    withdraw_money,
)
from orbiquant.research.live import Live
from orbiquant.research.room import TradingRoom
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from orbiquant.trading.ledger import Ledger

BTC, HOUR, VENUE = SeriesId.parse("BTCUSDT", "1h"), timedelta(hours=1), "paper-usdt"
BEGIN = datetime(2024, 1, 31, 12, tzinfo=UTC)
CENT, UNIT, LAST = Decimal("0.01"), Decimal("1e-8"), Decimal("1e-18")


def down(amount: Decimal, step: Decimal = CENT) -> Decimal:
    """Return an amount in whole steps, rounded down."""
    return (amount / step).to_integral_value(ROUND_FLOOR) * step


class Said:
    """A feed that wants to buy once, at the close of one bar."""

    moment: datetime | None = None

    def __init__(self, time: datetime) -> None:
        self.time = time

    def latest(self, series: SeriesId) -> Signal | None:
        if self.moment is None or self.moment - HOUR != self.time:
            return None
        return Signal(
            symbol=series.symbol, timeframe=series.timeframe, time=self.time, action="LONG", confidence=0.9,
            entry_price=50_000, stop_loss=49_000, take_profit=52_000, amd_phase="distribution", killzone="london_open",
            horizon="48h", reasoning=["said"], features=[], model_version="test",
        )  # fmt: skip

    def atr(self, series: SeriesId) -> float:
        return 500.0


class House:
    """A runtime of its own, whose clock and bars a test moves."""

    def __init__(self, folder: Path, **products: Any) -> None:
        places = {"database_url": f"sqlite:///{folder}/desk.db", "data_dir": str(folder), "models_dir": str(folder)}
        self.clock = FixedClock(BEGIN)
        atlas = {"strategies": "ml", "pairs": "BTCUSDT", "timeframe": "1h", "min_confidence": 0.6}
        workspace = places | {"store_uri": str(folder / "store")}
        settings = load_settings(workspace=workspace, atlas=atlas, products=products)
        self.runtime = Runtime(settings, self.clock)
        self.rows: list[tuple[float, ...]] = []
        self.hour(), self.hour()
        self.room = TradingRoom(self.runtime, Live(self.runtime))
        self.room.feeds["ml"] = Said(self.clock.now())  # type: ignore[assignment]

    def hour(self, low: float = 50_000, high: float = 50_000, close: float = 50_000) -> None:
        """Let a bar close, and whoever trades look at it."""
        opened = self.clock.now()
        self.clock.advance(HOUR)
        bar = {"open": 50_000.0, "high": float(high), "low": float(low), "close": float(close), "volume": 1e6}
        self.runtime.store.upsert(BTC, pd.DataFrame([bar], index=pd.DatetimeIndex([opened], name="time")))
        if hasattr(self, "room"):
            self.room.turn(VENUE)

    def fills(self) -> list[Any]:
        """Return what the venue filled, oldest first."""
        with self.room.at(VENUE) as engine:
            return engine.broker.fills("BTCUSDT")


@pytest.fixture(params=["reinvest", "pay_out"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    made = House(tmp_path, distribution=request.param)
    yield made
    made.runtime.engine.dispose()


def cash_after(fills: list[Any]) -> Decimal:
    """Return what is left of a thousand, worked out from fills alone."""
    cash = Decimal(1000)
    for fill in fills:
        sign = 1 if fill.side == "BUY" else -1
        cash -= sign * fill.quantity * fill.price + fill.fee
    return cash


@pytest.mark.parametrize("target", [True, False])
def test_a_thousand_goes_in_is_traded_pays_its_fee_and_comes_out_to_the_cent(house: House, target: bool):
    room, runtime = house.room, house.runtime
    account = open_account(room, "ana", "atlas-conservative", Decimal(1000), "ana", "first")
    assert (account.units, account.nav, account.agent_status) == (1000, 1, "running")

    house.hour()  # the signal
    house.hour()  # its fill, at this bar's open
    (entry,) = house.fills()
    costs = runtime.terms("BTCUSDT").costs
    moved = (Decimal(repr(costs.slippage_bps)) + Decimal(repr(costs.spread_bps)) / 2) / 10_000
    assert abs(entry.price - 50_000 * (1 + moved)) <= CENT
    lost_at_stop = entry.quantity * (entry.price - 49_000)
    assert Decimal("0.5") * 10 < lost_at_stop <= 10 + CENT, "one per cent of a thousand is risked"
    value = cash_after([entry]) + entry.quantity * 50_000
    assert find_account(runtime, account.id).nav == down(value / 1000, LAST)

    house.hour(high=52_500, close=52_000) if target else house.hour(low=48_900, close=49_000)
    entry, leave = house.fills()
    assert leave.role == ("target" if target else "stop") and leave.quantity == entry.quantity
    cash, nav = cash_after([entry, leave]), down(cash_after([entry, leave]) / 1000, LAST)
    shown = find_account(runtime, account.id)
    assert (shown.nav, shown.current_balance) == (nav, down(1000 * nav))
    assert (cash > 1000) is target
    with room.at(VENUE) as engine:
        assert engine.broker.account().balance == cash == engine.books.cash_of("atlas", "USDT")
        (trade,) = engine.books.trades()
        assert trade.pnl == cash - 1000
    assert [row.outcome for row in engine.journal.last(agent="atlas", count=9) if row.intent_id] == ["taken"]

    while house.clock.now() < datetime(2024, 2, 1, 1, tzinfo=UTC):  # the month ends
        house.hour(close=52_000 if target else 49_000, high=52_500, low=48_900)
    fee = down(1000 * Decimal("0.2") * max(Decimal(0), nav - 1))
    fee_units = down(fee / nav, UNIT)
    units = 1000 - fee_units
    paid = down(max(Decimal(0), units * nav - 1000)) if runtime.settings.products.distribution == ("pay_out",) else 0
    units -= (paid / nav).quantize(UNIT, ROUND_CEILING)
    shown = find_account(runtime, account.id)
    assert (shown.nav >= nav, shown.units, shown.cash_balance) == (True, units, paid)
    made = performance_of(runtime, account.id)
    assert (made.fees, made.deposits, made.total_trades, made.winning_trades) == (fee, 1000, 1, int(target))

    sync_accounts(runtime)
    rows = transactions_of(runtime, account.id)[::-1]
    assert [row.transaction_type for row in rows][:2] == ["deposit", "profit" if target else "loss"]
    assert all(one.balance_after == two.balance_before for one, two in pairwise(rows))
    assert made.snapshots[0].snapshot_date.isoformat() == "2024-01-31"

    out = withdraw_money(room, account.id, None, "ana")
    assert out.status == "done" and out.amount == down(units * shown.nav) + paid
    empty = find_account(runtime, account.id)
    assert (empty.units, empty.current_balance, empty.cash_balance) == (0, 0, 0)
    assert account_faults(runtime) == [] and Ledger(runtime.engine).check() == []
    assert deposit_money(room, account.id, Decimal(10), "ana", "again").status == "done"
