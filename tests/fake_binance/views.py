"""Orders, lists, trades and accounts in the shape the venue sends them."""

from typing import Any

from tests.fake_binance.records import ALGO, ZERO, Account, Order, OrderList, Trade, text


def order_fields(order: Order) -> dict[str, Any]:
    """Return what every longer form of an order tells."""
    quantity = {"origQty": text(order.quantity)} if order.sized else {}
    told: dict[str, Any] = (
        {"price": text(order.price)}
        | quantity
        | {
            "executedQty": text(order.executed),
            "origQuoteOrderQty": text(order.quote_quantity),
            "cummulativeQuoteQty": text(order.executed_quote),
            "status": order.status,
            "timeInForce": order.time_in_force,
            "type": order.type,
            "side": order.side,
        }
    )
    if order.type in ALGO:
        told["stopPrice"] = text(order.stop_price)
    if order.status.startswith("EXPIRED"):
        told["expiryReason"] = order.expiry_reason
    return told


def acknowledged(order: Order) -> dict[str, Any]:
    """Return the `ACK` form."""
    return {
        "symbol": order.symbol,
        "orderId": order.id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        "transactTime": order.updated_ms,
    }


def placed(order: Order, trades: list[Trade], form: str) -> dict[str, Any]:
    """Return the answer to a placed order: `ACK`, `RESULT` or `FULL`."""
    if form == "ACK":
        return acknowledged(order)
    end = {"workingTime": order.working_time_ms, "selfTradePreventionMode": "NONE"}
    result = acknowledged(order) | order_fields(order) | end | order.extras
    return result | {"fills": [fill(trade) for trade in trades]} if form == "FULL" else result


def fill(trade: Trade) -> dict[str, Any]:
    """Return a fill inside of an answer to an order."""
    return {
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "tradeId": trade.id,
    }


def cancelled(order: Order, cancel_id: str) -> dict[str, Any]:
    """Return the answer to a cancel."""
    renamed = {"origClientOrderId": order.client_id, "clientOrderId": cancel_id}
    end = {"selfTradePreventionMode": "NONE"} | order.extras
    return acknowledged(order) | renamed | order_fields(order) | end


def queried(order: Order) -> dict[str, Any]:
    """Return the answer to a query."""
    head = {name: value for name, value in acknowledged(order).items() if name != "transactTime"}
    tail = {
        "icebergQty": text(ZERO),
        "time": order.time_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.working_time_ms >= 0,
        "workingTime": order.working_time_ms,
        "selfTradePreventionMode": "NONE",
    } | order.extras
    return head | {"stopPrice": text(order.stop_price)} | order_fields(order) | tail


def own_trade(trade: Trade) -> dict[str, Any]:
    """Return a trade as `/api/v3/myTrades` sends it."""
    order = trade.order
    return {
        "symbol": order.symbol,
        "id": trade.id,
        "orderId": order.id,
        "orderListId": order.list_id,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.quote),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time_ms,
        "isBuyer": order.side == "BUY",
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def listed(held: OrderList) -> dict[str, Any]:
    """Return an order list as a query answers."""
    named = [{"symbol": o.symbol, "orderId": o.id, "clientOrderId": o.client_id} for o in held.orders]
    return {
        "orderListId": held.id,
        "contingencyType": held.contingency,
        "listStatusType": held.status_type,
        "listOrderStatus": held.order_status,
        "listClientOrderId": held.client_id,
        "transactionTime": held.time_ms,
        "symbol": held.symbol,
        "orders": named,
    }


def account_view(account: Account, without_zeros: bool) -> dict[str, Any]:
    """Return an account as `/api/v3/account` sends it."""
    assets = sorted({*account.free, *account.locked})
    balances = [
        {"asset": asset, "free": text(account.free.get(asset, ZERO)), "locked": text(account.locked.get(asset, ZERO))}
        for asset in assets
        if not without_zeros or account.free.get(asset) or account.locked.get(asset)
    ]
    rates = {"maker": text(account.maker), "taker": text(account.taker), "buyer": text(ZERO), "seller": text(ZERO)}
    return {
        "makerCommission": int(account.maker * 10000),
        "takerCommission": int(account.taker * 10000),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": rates,
        "canTrade": account.can_trade,
        "canWithdraw": account.can_withdraw,
        "canDeposit": True,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": account.updated_ms,
        "accountType": "SPOT",
        "balances": balances,
        "permissions": list(account.permissions),
        "uid": 354937868,
    }


def commission_view(account: Account, symbol: str) -> dict[str, Any]:
    """Return the rates as `/api/v3/account/commission` sends them."""
    none = {side: text(ZERO) for side in ("maker", "taker", "buyer", "seller")}
    standard = none | {"maker": text(account.maker), "taker": text(account.taker)}
    discount = {
        "enabledForAccount": account.bnb_fees,
        "enabledForSymbol": True,
        "discountAsset": "BNB",
        "discount": "0.25000000",
    }
    return {
        "symbol": symbol,
        "standardCommission": standard,
        "specialCommission": none,
        "taxCommission": none,
        "discount": discount,
    }


def execution_report(order: Order, what: str, trade: Trade | None, cancel_id: str, now_ms: int) -> dict[str, Any]:
    """Return the event that tells of an order's change."""
    last = (trade.quantity, trade.price, trade.quote) if trade else (ZERO, ZERO, ZERO)
    told: dict[str, Any] = {
        "e": "executionReport",
        "E": now_ms,
        "s": order.symbol,
        "c": cancel_id or order.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": text(order.quantity),
        "p": text(order.price),
        "P": text(order.stop_price),
        "F": order.extras.get("icebergQty", text(ZERO)),
        "g": order.list_id,
        "C": order.client_id if cancel_id else "",
        "x": what,
        "X": order.status,
        "r": "NONE",
        "i": order.id,
        "l": text(last[0]),
        "z": text(order.executed),
        "L": text(last[1]),
        "n": text(trade.fee) if trade else "0",
        "N": trade.fee_asset if trade else None,
        "T": order.updated_ms,
        "t": trade.id if trade else -1,
        "I": 0,
        "w": order.working_time_ms >= 0 and order.status in ("NEW", "PARTIALLY_FILLED"),
        "m": trade.maker if trade else False,
        "M": False,
        "O": order.time_ms,
        "Z": text(order.executed_quote),
        "Y": text(last[2]),
        "Q": text(order.quote_quantity),
        "V": order.extras.get("selfTradePreventionMode", "NONE"),
    }
    for name, short in (("strategyId", "j"), ("strategyType", "J")):
        if name in order.extras:
            told[short] = order.extras[name]
    if order.working_time_ms >= 0:
        told["W"] = order.working_time_ms
    if order.status.startswith("EXPIRED"):
        told["eR"] = order.expiry_reason
    return told


def list_status(held: OrderList, now_ms: int) -> dict[str, Any]:
    """Return the event that tells of a list's change."""
    return {
        "e": "listStatus",
        "E": now_ms,
        "s": held.symbol,
        "g": held.id,
        "c": held.contingency,
        "l": held.status_type,
        "L": held.order_status,
        "r": "NONE",
        "C": held.client_id,
        "T": held.time_ms,
        "O": [{"s": o.symbol, "i": o.id, "c": o.client_id} for o in held.orders],
    }


def position_event(account: Account, assets: set[str], now_ms: int) -> dict[str, Any]:
    """Return the event that tells of balances."""
    changed = [
        {"a": asset, "f": text(account.free.get(asset, ZERO)), "l": text(account.locked.get(asset, ZERO))}
        for asset in sorted(assets)
    ]
    return {"e": "outboundAccountPosition", "E": now_ms, "u": account.updated_ms, "B": changed}
