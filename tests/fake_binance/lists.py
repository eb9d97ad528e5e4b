"""Orders that hang together: one cancels the other, one triggers or pays the other."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from tests.fake_binance import filters
from tests.fake_binance.answers import BAD_RELATION, INSUFFICIENT, Refused, rejected
from tests.fake_binance.records import ZERO, Account, Lock, Order, OrderList, Trade

if TYPE_CHECKING:
    from tests.fake_binance.engine import Engine


def check_pair(engine: Engine, below: Order, above: Order) -> None:
    """Refuse a pair whose prices do not lie on both sides of the last price."""
    last = engine.market(above).last
    if not far_price(below) < last < far_price(above):
        raise rejected(BAD_RELATION)


def far_price(order: Order) -> Decimal:
    """Return the price that the rule about a pair looks at: a limit's price, a stop's stop price."""
    if order.type in ("LIMIT_MAKER", "TAKE_PROFIT_LIMIT"):
        return order.price
    return order.stop_price


def check_list_id(account: Account, client_id: str) -> None:
    """Refuse a list's client id that an open list has."""
    if any(held.client_id == client_id and held.order_status == "EXECUTING" for held in account.lists.values()):
        raise rejected("Duplicate order sent.")


def place_list(engine: Engine, account: Account, held: OrderList) -> list[Trade]:
    """Take a list, and return what its working order traded at once."""
    check_list_id(account, held.client_id)
    for order in held.orders:
        engine.check_id(account, order)
    if held.contingency == "OCO":
        check_pair(engine, *held.orders)
        fund_pair(engine, account, held.orders)
    else:
        engine.check_prices(held.orders[0])
        engine.fund(account, held.orders[0])
    held.id = engine.number("list")
    account.lists[held.id] = held
    for order in held.orders:
        order.list_id, order.id = held.id, engine.number("order")
    engine.report_list(account, held)
    seen = len(account.trades)
    start(engine, account, held)
    return account.trades[seen:]


def start(engine: Engine, account: Account, held: OrderList) -> None:
    """Let a list's first orders stand, and the others wait."""
    for order in held.pending:
        order.status = "PENDING_NEW"
        order.time_ms = order.updated_ms = engine.clock.now_ms()
        account.remember(order)
    working = held.pair if held.contingency == "OCO" else held.orders[:1]
    for order in working:
        engine.enter(account, order)
    for order in held.pending:
        engine.report(account, order, "NEW")
    for order in working:
        engine.work(account, order)


def fund_pair(engine: Engine, account: Account, pair: list[Order]) -> None:
    """Set money aside once for both of a pair."""
    asset, amount = max(engine.needed(order) for order in pair)
    if account.free.get(asset, ZERO) < amount:
        raise rejected(INSUFFICIENT)
    share_lock(pair, account.hold(asset, amount))


def share_lock(orders: list[Order], lock: Lock) -> None:
    """Let orders stand on the same money."""
    for order in orders:
        order.lock = lock


def other_of(account: Account, order: Order) -> Order | None:
    """Return the order that this one cancels."""
    held = account.lists.get(order.list_id)
    if held is None or order not in held.pair:
        return None
    return next(one for one in held.pair if one is not order)


def before_fill(engine: Engine, account: Account, order: Order) -> None:
    """Expire the other of a pair when this one starts to work; the money stays with this one."""
    other = other_of(account, order)
    if other is not None and other.is_open and other.status != "PENDING_NEW":
        other.lock = None
        engine.end(account, other, "EXPIRED", "OCO_TRIGGER")


def receive(engine: Engine, account: Account, order: Order, asset: str, amount: Decimal, fee: Decimal) -> None:
    """Give an account what a fill brought; what pays for pending orders is set aside for them, fees first from free."""
    held = account.lists.get(order.list_id)
    account.add(asset, amount)
    kept = amount
    if held is None or not held.pays or order is not held.working:
        account.add(asset, -fee)
        return
    if asset == "BNB" or account.free[asset] - amount < fee:
        kept -= fee
    account.add(asset, -fee)
    lock = held.pending[0].lock
    fresh = account.hold(asset, kept)
    if lock is not None:
        fresh.amount += lock.amount
    share_lock(held.pending, fresh)


def after_fill(engine: Engine, account: Account, order: Order) -> None:
    """Let what waited for an order stand once it is filled."""
    held = account.lists.get(order.list_id)
    if held is None or order.is_open:
        return
    if order is held.working:
        activate(engine, account, held)
    settle(engine, account, held)


def activate(engine: Engine, account: Account, held: OrderList) -> None:
    """Put the pending orders on the book; those the engine does not take expire."""
    pending = [order for order in held.pending if order.status == "PENDING_NEW"]
    try:
        if held.pays:
            size_pending(engine, account, held)
        if len(pending) == 2:
            check_pair(engine, *pending)
        for order in pending:
            filters.check_order(order, engine.market(order))
            engine.check_prices(order)
        fund_pending(engine, account, pending)
    except Refused as refusal:
        engine.log.write("pending_refused", account=account.key, list=held.id, code=refusal.code, msg=refusal.message)
        for order in pending:
            engine.end(account, order, "EXPIRED", "REJECTED")
        return
    for order in pending:
        order.triggered = False
        engine.enter(account, order)
    engine.report_list(account, held)
    for order in pending:
        engine.work(account, order)


def fund_pending(engine: Engine, account: Account, pending: list[Order]) -> None:
    """Set money aside for orders that begin to stand, if it is not already."""
    if not pending or pending[0].lock is not None:
        return
    if len(pending) == 2:
        fund_pair(engine, account, pending)
    else:
        engine.size_by_quote(pending[0])
        engine.fund(account, pending[0])


def size_pending(engine: Engine, account: Account, held: OrderList) -> None:
    """Size orders by what was received, down to a whole lot; the crumbs become free."""
    lock = held.pending[0].lock
    if lock is None:
        return
    quantity = filters.largest_lot(lock.amount, engine.market(held.pending[0]).symbol)
    account.release(lock, lock.amount - quantity)
    for order in held.pending:
        order.quantity, order.sized = quantity, True


def after_end(engine: Engine, account: Account, order: Order) -> None:
    """Expire what waited for an order that ended without being filled."""
    held = account.lists.get(order.list_id)
    if held is None:
        return
    if order is held.working:
        for other in held.pending:
            if other.is_open:
                engine.end(account, other, "EXPIRED", "OTO_PHASE_ONE_EXPIRED")
    settle(engine, account, held)


def settle(engine: Engine, account: Account, held: OrderList) -> None:
    """Close a list of which nothing stands any more."""
    if held.order_status == "EXECUTING" and not any(order.is_open for order in held.orders):
        held.status_type = held.order_status = "ALL_DONE"
        engine.report_list(account, held)
