"""The fake Binance's own books hold under whatever is asked of it, and its log tells how long a position stood bare."""

import random
import time
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fake_binance import trading
from tests.fake_binance.answers import Refused
from tests.fake_binance.client import bare
from tests.fake_binance.protection import bare_times
from tests.fake_binance.records import ZERO, Account
from tests.fake_binance.running import RunningBinance
from tests.fake_binance.service import KEY, Venue
from tests.fake_binance.venue_log import read_log

SYMBOLS = ("BTCUSDT", "ETHUSDT", "ETHBTC")


def some_order(rng: random.Random, price: Decimal) -> dict[str, str]:
    """Return an order of any kind near a price."""
    kind = rng.choice(["LIMIT", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "LIMIT_MAKER"])

    def near() -> str:
        return format(price * (1 + Decimal(rng.randint(-20, 20)) / 1000), ".2f")

    told = {"type": kind, "side": rng.choice(["BUY", "SELL"]), "quantity": f"0.{rng.randint(1, 30):03d}"}
    told |= {"price": near()} if "LIMIT" in kind else {}
    told |= {"stopPrice": near()} if kind[:4] in ("STOP", "TAKE") else {}
    timed = kind in ("LIMIT", "STOP_LOSS_LIMIT")
    return told | ({"timeInForce": rng.choice(["GTC", "GTC", "IOC", "FOK"])} if timed else {})


def some_list(rng: random.Random, price: Decimal) -> tuple[str, dict[str, str]]:
    """Return a list of any kind around a price."""

    def at(thousandths: int) -> str:
        return format(price * (1 + Decimal(thousandths) / 1000), ".2f")

    quantity, pays = f"0.{rng.randint(1, 30):03d}", rng.random() < 0.5
    exits = {"AboveType": "LIMIT_MAKER", "AbovePrice": at(rng.randint(4, 30))}
    exits |= {"BelowType": "STOP_LOSS", "BelowStopPrice": at(-rng.randint(8, 30))}
    if rng.random() < 0.3:
        pair = {name[0].lower() + name[1:]: value for name, value in exits.items()}
        return "oco", {"side": "SELL", "quantity": quantity} | pair
    told = {"workingType": "LIMIT", "workingSide": "BUY", "workingTimeInForce": "GTC", "workingQuantity": quantity}
    told |= {"workingPrice": at(rng.randint(-6, 3)), "pendingSide": "SELL"}
    told |= {f"pending{name}": value for name, value in exits.items()}
    return ("opoco", told) if pays else ("otoco", told | {"pendingQuantity": quantity})


def do_something(rng: random.Random, venue: Venue, account: Account) -> str:
    """Let something happen to the venue; return what."""
    symbol = rng.choice(SYMBOLS[:2])
    engine, market = venue.engine, venue.engine.markets[symbol]
    standing = account.open_orders()
    deed = rng.choice(["order", "order", "list", "list", "price", "price", "price", "cancel", "fill", "thin"])
    if deed == "order":
        trading.new_order(engine, account, {"symbol": symbol} | some_order(rng, market.last))
    elif deed == "list":
        kind, told = some_list(rng, market.last)
        trading.place_list(engine, account, {"symbol": symbol} | told, kind)
    elif deed == "price":
        step = Decimal(rng.randint(-15, 15)) / 1000
        engine.move(symbol, (market.last * (1 + step)).quantize(market.symbol.tick))
    elif deed == "thin":
        market.liquidity = rng.choice([None, Decimal("0.005"), Decimal("0.02")])
    elif standing:
        order = rng.choice(standing)
        if deed == "cancel":
            trading.cancel_order(engine, account, {"symbol": order.symbol, "orderId": order.id})
        elif order.status != "PENDING_NEW":
            part = max(engine.market(order).symbol.step, (order.left / 2).quantize(Decimal("0.001")))
            engine.fill(account, order, order.price or engine.market(order).last, min(part, order.left), maker=True)
    return deed


def locks_of(account: Account) -> dict[str, Decimal]:
    """Return what open orders hold, each lock once."""
    locks = {id(order.lock): order.lock for order in account.standing.values() if order.lock is not None}
    held: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for lock in locks.values():
        held[lock.asset] += lock.amount
    return held


@pytest.mark.parametrize("seed", range(12))
def test_money_is_neither_made_nor_lost(tmp_path: Path, seed: int) -> None:
    rng, venue = random.Random(seed), Venue(tmp_path)
    account = venue.engine.accounts[KEY]
    account.bnb_fees = seed % 3 == 0
    account.free |= {"BNB": Decimal(2), "BTC": Decimal("0.5"), "ETH": Decimal(1), "USDT": Decimal(50_000)}
    begun, done = dict(account.free), Counter[str]()
    for _ in range(400):
        try:
            done[do_something(rng, venue, account)] += 1
        except Refused as refusal:
            done[str(refusal.code)] += 1
        check_books(account, begun)
    venue.log.close()
    assert len(account.trades) > 30 and done["-2010"] > 0, done
    check_log(read_log(tmp_path / "venue.jsonl"), account)


def check_books(account: Account, begun: dict[str, Decimal]) -> None:
    """Check that holdings follow from trades, and locks from what stands."""
    expected: dict[str, Decimal] = defaultdict(lambda: ZERO, begun)
    for trade in account.trades:
        symbol = trade.order.symbol
        base, quote = (symbol[:3], symbol[3:])
        sign = 1 if trade.order.side == "BUY" else -1
        expected[base] += sign * trade.quantity
        expected[quote] -= sign * trade.quote
        expected[trade.fee_asset] -= trade.fee
    locks = locks_of(account)
    for asset in {*expected, *account.free, *account.locked}:
        free, locked = account.free.get(asset, ZERO), account.locked.get(asset, ZERO)
        assert free + locked == expected[asset], asset
        assert locked == locks[asset] >= 0, asset
        assert free >= 0, asset


def check_log(log: list[dict[str, Any]], account: Account) -> None:
    """Check that the log alone tells what came of every order."""
    last = {record["orderId"]: record for record in log if record["kind"] == "order"}
    assert {number: record["status"] for number, record in last.items()} == {
        number: order.status for number, order in account.orders.items()
    }
    filled: dict[int, Decimal] = defaultdict(lambda: ZERO)
    for record in log:
        if record["kind"] == "trade":
            filled[record["orderId"]] += Decimal(record["qty"])
    assert all(filled[number] == order.executed for number, order in account.orders.items())
    for held in account.lists.values():
        done = held.order_status == "ALL_DONE"
        assert done == (not any(order.is_open for order in held.orders))
        working = [order for order in held.pair if order.executed > 0 or order.triggered]
        assert len(working) <= 1, "one cancels the other"


# How long a position stood bare

ENTRY = {"workingType": "LIMIT", "workingSide": "BUY", "workingTimeInForce": "GTC", "workingQuantity": "0.01"}
ENTRY |= {"workingPrice": "59000", "pendingSide": "SELL", "pendingType": "STOP_LOSS", "pendingStopPrice": "57000"}


def bare_seconds(binance: RunningBinance) -> list[float]:
    """Return how long each bare time since the last start lasted."""
    log = binance.log()
    begun = max(number for number, record in enumerate(log) if record["kind"] == "started")
    return [round(found.seconds(log[-1]["wall_ns"]), 2) for found in bare_times(log[begun:])]


def test_bare_times_come_out_of_the_log(binance: RunningBinance) -> None:
    client = bare(binance)
    client.send("POST", "orderList/opo", symbol="BTCUSDT", **ENTRY)
    binance.price("BTCUSDT", 58_900)
    assert bare_seconds(binance) == [], "a list covers at once what it buys"
    client.order(type="MARKET", quantity="0.01")
    time.sleep(0.3)
    stop = {"side": "SELL", "type": "STOP_LOSS", "quantity": "0.00999"}
    client.order(**stop, stopPrice="57000", newClientOrderId="late")
    first = bare_seconds(binance)
    assert len(first) == 1 and 0.3 <= first[0] < 1.5
    replaced = {"symbol": "BTCUSDT", "cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": "late"}
    assert client.send("POST", "order/cancelReplace", **stop, **replaced, stopPrice="57500").status == 200
    assert len(bare_seconds(binance)) == 1, "cancel-replace leaves no gap"
    ids = [order["orderId"] for order in client.send("GET", "openOrders").body]
    client.send("DELETE", "order", symbol="BTCUSDT", orderId=ids[-1])
    time.sleep(0.2)
    assert len(bare_seconds(binance)) == 2, "cancel, then place, does; and what has not ended is told too"
