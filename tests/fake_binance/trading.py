"""What an account may ask for: placing, cancelling, replacing and looking at orders."""

from __future__ import annotations

from typing import Any

from tests.fake_binance import lists, views
from tests.fake_binance.answers import Refused, missing, no_such_order, rejected, unknown_order, unsupported
from tests.fake_binance.engine import Engine
from tests.fake_binance.orders_in import (
    Params,
    client_id,
    market_of,
    read_oco,
    read_order,
    read_triggered,
    trading_market,
    whole,
)
from tests.fake_binance.records import ZERO, Account, Order, OrderList, Trade, text

FORMS = ("ACK", "RESULT", "FULL")
KINDS = {"oco": "oco", "oto": "oto", "otoco": "oto", "opo": "opo", "opoco": "opo"}
CANCEL_KINDS = ("ONLY_NEW", "ONLY_PARTIALLY_FILLED")


def form_of(params: Params, order: Order) -> str:
    """Return how much of an order its answer tells."""
    told = params.get("newOrderRespType") or ("FULL" if order.type in ("LIMIT", "MARKET") else "ACK")
    if told not in FORMS:
        raise Refused(-1130, "Data sent for parameter 'newOrderRespType' is not valid.")
    return str(told)


def may_trade(account: Account) -> None:
    """Refuse an account that is shut."""
    if not account.can_trade:
        raise rejected("This account may not place or cancel orders.")


def new_order(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Place an order."""
    order = read_order(params, trading_market(engine.markets, params))
    form = form_of(params, order)
    may_trade(account)
    engine.check_new(account, [order])
    trades = engine.place(account, order)
    return views.placed(order, trades, form)


def test_order(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Check an order without placing it."""
    order = read_order(params, trading_market(engine.markets, params))
    engine.check_new(account, [order])
    return {}


def find(account: Account, params: Params, id_name: str = "orderId", client_name: str = "origClientOrderId") -> Order:
    """Return the order that a request names by its number, its client id or both."""
    number, told = whole(params, id_name), params.get(client_name)
    if number is None and not told:
        raise Refused(-1102, f"Param '{client_name}' or '{id_name}' must be sent, but both were empty/null!")
    symbol = str(params["symbol"])
    if number is None:
        order = account.by_client.get((symbol, str(told)))
    else:
        order = account.orders.get(number)
        if order is not None and told and order.client_id != told:
            order = None
    if order is None or order.symbol != symbol:
        raise no_such_order()
    return order


def find_open(account: Account, params: Params, *names: str) -> Order:
    """Return the order that a cancel names, if it still stands."""
    try:
        order = find(account, params, *names)
    except Refused as refusal:
        raise unknown_order() if refusal.code == -2013 else refusal from None
    if not order.is_open:
        raise unknown_order()
    wanted = params.get("cancelRestrictions")
    if wanted is not None and wanted not in CANCEL_KINDS:
        raise Refused(-1145, "Invalid cancelRestrictions")
    if wanted is not None and f"ONLY_{order.status}" != wanted:
        raise Refused(-2011, "Order was not canceled due to cancel restrictions.")
    return order


def query_order(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Tell of an order."""
    market_of(engine.markets, params)
    return views.queried(find(account, params))


def cancel_order(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Cancel an order, and the list it belongs to."""
    market_of(engine.markets, params)
    may_trade(account)
    return do_cancel(engine, account, find_open(account, params), client_id(params, "newClientOrderId"))


def do_cancel(engine: Engine, account: Account, order: Order, cancel_id: str) -> dict[str, Any]:
    """Cancel an order that stands, and tell as the venue does: a whole list when it is of one."""
    engine.cancel(account, order, cancel_id)
    held = account.lists.get(order.list_id)
    return views.cancelled(order, cancel_id) if held is None else told_cancelled(held, cancel_id)


def told_cancelled(held: OrderList, cancel_id: str) -> dict[str, Any]:
    """Return the answer to the cancel of a list."""
    reports = [views.cancelled(order, cancel_id) for order in held.orders]
    return views.listed(held) | {"orderReports": reports}


def cancel_all(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Cancel everything that stands on a symbol."""
    market = market_of(engine.markets, params)
    assert market is not None
    standing = account.open_orders(market.symbol.name)
    if not standing:
        raise unknown_order()
    cancel_id = client_id(params, "newClientOrderId")
    return [do_cancel(engine, account, order, cancel_id) for order in standing if order.is_open]


def cancel_replace(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Cancel an order and place another; filters first, then one after the other."""
    order = read_order(params, trading_market(engine.markets, params))
    mode = params.get("cancelReplaceMode")
    if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
        raise missing("cancelReplaceMode")
    may_trade(account)
    form = form_of(params, order)
    engine.check_new(account, [order])
    ended: Any
    placed: Any = None
    try:
        old = find_open(account, params, "cancelOrderId", "cancelOrigClientOrderId")
        ended = do_cancel(engine, account, old, client_id(params, "cancelNewClientOrderId"))
        was_cancelled = True
    except Refused as refusal:
        ended, was_cancelled = refusal.body(), False
    attempted, was_placed = was_cancelled or mode == "ALLOW_FAILURE", False
    if attempted:
        try:
            placed, was_placed = views.placed(order, engine.place(account, order), form), True
        except Refused as refusal:
            placed = refusal.body()
    told = {
        "cancelResult": "SUCCESS" if was_cancelled else "FAILURE",
        "newOrderResult": ("SUCCESS" if was_placed else "FAILURE") if attempted else "NOT_ATTEMPTED",
        "cancelResponse": ended,
        "newOrderResponse": placed,
    }
    if was_cancelled and was_placed:
        return told
    if was_cancelled or was_placed:
        raise Refused(-2021, "Order cancel-replace partially failed.", status=409, data=told)
    raise Refused(-2022, "Order cancel-replace failed.", data=told)


def open_orders(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Tell of every order that stands."""
    market = market_of(engine.markets, params, needed=False)
    return [views.queried(order) for order in account.open_orders(market.symbol.name if market else None)]


def all_orders(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Tell of a symbol's orders, the newest or from a number on."""
    market = market_of(engine.markets, params)
    assert market is not None
    first, since, until = whole(params, "orderId"), whole(params, "startTime"), whole(params, "endTime")
    found = [order for order in account.orders.values() if order.symbol == market.symbol.name]
    found = [order for order in found if first is None or order.id >= first]
    found = [order for order in found if (since or 0) <= order.time_ms <= (until or order.time_ms)]
    found.sort(key=lambda order: order.id)
    return [views.queried(order) for order in page(found, params, forward=first is not None or since is not None)]


def my_trades(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Tell of a symbol's fills, the newest or from a number on."""
    market = market_of(engine.markets, params)
    assert market is not None
    first, number = whole(params, "fromId"), whole(params, "orderId")
    since, until = whole(params, "startTime"), whole(params, "endTime")
    if first is not None and (since is not None or until is not None):
        raise Refused(-1128, "Combination of optional parameters invalid.")

    def wanted(trade: Trade) -> bool:
        timely = (since or 0) <= trade.time_ms <= (until or trade.time_ms)
        return timely and (first is None or trade.id >= first) and number in (None, trade.order.id)

    found = [trade for trade in account.trades if trade.order.symbol == market.symbol.name and wanted(trade)]
    return [views.own_trade(trade) for trade in page(found, params, forward=first is not None or since is not None)]


def page(found: list[Any], params: Params, forward: bool) -> list[Any]:
    """Return the first or the last of what was found, as many as were asked for."""
    limit = min(whole(params, "limit") or 500, 1000)
    return found[:limit] if forward else found[-limit:]


def place_list(engine: Engine, account: Account, params: Params, kind: str) -> dict[str, Any]:
    """Place an order list of a kind."""
    market = trading_market(engine.markets, params)
    symbol = market.symbol
    allowed = {"oco": symbol.oco, "oto": symbol.oto, "opo": symbol.opo}
    if not allowed[KINDS[kind]]:
        raise unsupported(kind.upper())
    held = (
        read_oco(params, market)
        if kind == "oco"
        else read_triggered(params, market, paired=kind.endswith("oco"), pays=kind.startswith("opo"))
    )
    may_trade(account)
    engine.check_new(account, held.orders, as_list=True)
    trades = lists.place_list(engine, account, held)
    form = str(params.get("newOrderRespType") or "RESULT")
    return views.listed(held) | {"orderReports": reports(held, trades, form)}


def reports(held: OrderList, trades: list[Trade], form: str) -> list[dict[str, Any]]:
    """Return the orders of a placed list; pending ones are told as they were placed, whatever came of them."""
    told = []
    for order in held.orders:
        answer = views.placed(order, [trade for trade in trades if trade.order is order], form)
        if order in held.pending and form != "ACK":
            answer |= {"status": "PENDING_NEW", "executedQty": text(ZERO), "workingTime": -1}
            answer.pop("expiryReason", None)
            if held.pays:
                answer.pop("origQty", None)
        told.append(answer)
    return told


def find_list(account: Account, params: Params, client_name: str) -> OrderList:
    """Return the list that a request names."""
    number, told = whole(params, "orderListId"), params.get(client_name)
    if number is None and not told:
        raise Refused(-1102, f"Param '{client_name}' or 'orderListId' must be sent, but both were empty/null!")
    for held in reversed(account.lists.values()):
        if number in (None, held.id) and told in (None, held.client_id):
            return held
    raise no_such_order()


def query_list(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Tell of an order list."""
    try:
        return views.listed(find_list(account, params, "origClientOrderId"))
    except Refused as refusal:
        raise Refused(-2018, "Order list does not exist.") if refusal.code == -2013 else refusal from None


def cancel_list(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Cancel an order list."""
    market_of(engine.markets, params)
    try:
        held = find_list(account, params, "listClientOrderId")
    except Refused as refusal:
        raise unknown_order() if refusal.code == -2013 else refusal from None
    standing = [order for order in held.orders if order.is_open]
    if not standing or held.symbol != params["symbol"]:
        raise unknown_order()
    cancel_id = client_id(params, "newClientOrderId")
    engine.cancel(account, standing[0], cancel_id)
    return told_cancelled(held, cancel_id)


def all_lists(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Tell of every order list."""
    first = whole(params, "fromId") or 0
    return [views.listed(held) for held in account.lists.values() if held.id >= first]


def open_lists(engine: Engine, account: Account, params: Params) -> list[dict[str, Any]]:
    """Tell of every order list of which something stands."""
    return [views.listed(held) for held in account.lists.values() if held.order_status == "EXECUTING"]


def account_info(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Tell of money and rights."""
    return views.account_view(account, str(params.get("omitZeroBalances")).lower() == "true")


def commission(engine: Engine, account: Account, params: Params) -> dict[str, Any]:
    """Tell of fee rates."""
    market = market_of(engine.markets, params)
    assert market is not None
    return views.commission_view(account, market.symbol.name)
