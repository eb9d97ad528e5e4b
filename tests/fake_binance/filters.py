"""The rules an order must keep before the engine sees it."""

from collections.abc import Sequence
from decimal import Decimal

from tests.fake_binance.answers import filter_failure, too_precise
from tests.fake_binance.market import Market
from tests.fake_binance.records import ALGO, PRICED, ZERO, Account, Order
from tests.fake_binance.symbols import Symbol

ICEBERG_PARTS = 10


def decimals(number: Decimal) -> int:
    """Return how many decimals a number is written with, zeros at its end left out."""
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def check_precision(order: Order, symbol: Symbol) -> None:
    """Refuse more decimals than the assets have."""
    named = {"price": order.price, "stopPrice": order.stop_price, "quantity": order.quantity}
    for name, number in (named | {"quoteOrderQty": order.quote_quantity}).items():
        if decimals(number) > symbol.precision:
            raise too_precise(name)


def check_price(order: Order, symbol: Symbol) -> None:
    """Refuse a price or stop price outside `PRICE_FILTER`."""
    prices = [order.price] if order.type in PRICED else []
    prices += [order.stop_price] if order.type in ALGO else []
    for price in prices:
        if not symbol.min_price <= price <= symbol.max_price or price % symbol.tick:
            raise filter_failure("PRICE_FILTER")


def check_quantity(order: Order, symbol: Symbol) -> None:
    """Refuse a quantity outside `LOT_SIZE` or `MARKET_LOT_SIZE`."""
    if order.quote_quantity or not order.sized:
        return
    quantity = order.quantity
    if not symbol.min_quantity <= quantity <= symbol.max_quantity or quantity % symbol.step:
        raise filter_failure("LOT_SIZE")
    if order.type in ("MARKET", "STOP_LOSS", "TAKE_PROFIT") and quantity > symbol.max_market_quantity:
        raise filter_failure("MARKET_LOT_SIZE")


def check_iceberg(order: Order) -> None:
    """Refuse an order that would be shown in too many parts."""
    shown = Decimal(order.extras.get("icebergQty", 0))
    if shown and order.quantity > shown * ICEBERG_PARTS:
        raise filter_failure("ICEBERG_PARTS")


def check_distance(order: Order, market: Market) -> None:
    """Refuse a price too far from the average, by `PERCENT_PRICE_BY_SIDE`."""
    if order.type not in PRICED:
        return
    average, symbol = market.average_price(), market.symbol
    if not average * symbol.far_down <= order.price <= average * symbol.far_up:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def check_notional(order: Order, market: Market) -> None:
    """Refuse what is worth too little or too much."""
    if not order.sized:
        return
    symbol, priced = market.symbol, order.type in PRICED
    price = order.price if priced else order.stop_price or market.average_price()
    worth = order.quote_quantity or price * order.quantity
    if worth < symbol.min_notional or (priced and worth > symbol.max_notional):
        raise filter_failure("NOTIONAL")


def check_order(order: Order, market: Market) -> None:
    """Refuse an order that any filter of its symbol forbids."""
    check_precision(order, market.symbol)
    check_price(order, market.symbol)
    check_quantity(order, market.symbol)
    check_iceberg(order)
    check_distance(order, market)
    check_notional(order, market)


def check_counts(account: Account, symbol: Symbol, orders: Sequence[Order], as_list: bool) -> None:
    """Refuse more open orders, stops or lists than an account may have."""
    standing = account.open_orders(symbol.name)
    if len(standing) + len(orders) > symbol.max_orders:
        raise filter_failure("MAX_NUM_ORDERS")
    stops = sum(order.type in ALGO for order in [*standing, *orders])
    if any(order.type in ALGO for order in orders) and stops > symbol.max_algo_orders:
        raise filter_failure("MAX_NUM_ALGO_ORDERS")
    lists = {order.list_id for order in standing if order.list_id >= 0}
    if as_list and len(lists) >= symbol.max_lists:
        raise filter_failure("MAX_NUM_ORDER_LISTS")


def largest_lot(quantity: Decimal, symbol: Symbol) -> Decimal:
    """Return the largest quantity up to this one that `LOT_SIZE` lets through."""
    return max(ZERO, min(quantity - quantity % symbol.step, symbol.max_quantity))
