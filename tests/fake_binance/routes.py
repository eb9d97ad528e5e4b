"""Which request is answered by what, how much it weighs, and whether it has to be signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.fake_binance import public, trading

if TYPE_CHECKING:
    from tests.fake_binance.service import Venue


@dataclass(frozen=True)
class Route:
    """One thing the venue does."""

    weight: int
    act: Callable[..., Any]
    signed: bool = True
    orders: int = 0
    known: str = ""


def of_account(act: Callable[..., Any]) -> Callable[..., Any]:
    """Return a deed that needs the engine and an account."""
    return lambda venue, account, params: act(venue.engine, account, params)


def of_market(act: Callable[..., Any]) -> Callable[..., Any]:
    """Return a deed that needs the engine only."""
    return lambda venue, account, params: act(venue.engine, params)


def exchange_info(venue: Venue, account: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the rules."""
    return public.exchange_info(venue.engine, venue.limits, params)


def restrictions(venue: Venue, account: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what a key may do."""
    return {
        "ipRestrict": account.ip_restricted,
        "createTime": 1_698_645_219_000,
        "enableReading": True,
        "enableSpotAndMarginTrading": account.can_trade,
        "enableWithdrawals": account.can_withdraw,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enablePortfolioMarginTrading": False,
    }


def order_counts(venue: Venue, account: Any, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tell how many orders were placed."""
    return venue.limits.state(venue.clock.now_ms(), of_orders=True)[:2]


LISTS: dict[str, Route] = {
    kind: Route(
        1, of_account(partial(trading.place_list, kind=kind)), orders=3 if kind in ("otoco", "opoco") else 2, known=kind
    )
    for kind in trading.KINDS
}
PING = Route(1, lambda venue, account, params: {}, signed=False)
TIME = Route(1, lambda venue, account, params: {"serverTime": venue.clock.now_ms()}, signed=False)
EXCHANGE_INFO = Route(20, exchange_info, signed=False)
KLINES = Route(2, of_market(public.klines), signed=False)
PRICE = Route(2, of_market(public.price), signed=False)
BOOK_TICKER = Route(2, of_market(public.book_ticker), signed=False)
DAY_TICKER = Route(2, of_market(public.day_ticker), signed=False)
DEPTH = Route(5, of_market(public.depth), signed=False)
AVERAGE = Route(2, of_market(public.average), signed=False)
NEW = Route(1, of_account(trading.new_order), orders=1, known="new")
TEST = Route(1, of_account(trading.test_order), known="test")
QUERY = Route(4, of_account(trading.query_order), known="query")
CANCEL = Route(1, of_account(trading.cancel_order), known="cancel")
CANCEL_ALL = Route(1, of_account(trading.cancel_all), known="cancel_all")
REPLACE = Route(1, of_account(trading.cancel_replace), orders=1, known="replace")
OPEN = Route(6, of_account(trading.open_orders), known="open")
ALL = Route(20, of_account(trading.all_orders), known="all")
TRADES = Route(20, of_account(trading.my_trades), known="trades")
ACCOUNT = Route(20, of_account(trading.account_info), known="account")
COMMISSION = Route(20, of_account(trading.commission))
COUNTS = Route(40, order_counts)
QUERY_LIST = Route(4, of_account(trading.query_list), known="query_list")
CANCEL_LIST = Route(1, of_account(trading.cancel_list), known="cancel_list")
ALL_LISTS = Route(20, of_account(trading.all_lists))
OPEN_LISTS = Route(6, of_account(trading.open_lists))

REST: dict[tuple[str, str], Route] = {
    ("GET", "ping"): PING,
    ("GET", "time"): TIME,
    ("GET", "exchangeInfo"): EXCHANGE_INFO,
    ("GET", "klines"): KLINES,
    ("GET", "ticker/price"): PRICE,
    ("GET", "ticker/bookTicker"): BOOK_TICKER,
    ("GET", "ticker/24hr"): DAY_TICKER,
    ("GET", "depth"): DEPTH,
    ("GET", "avgPrice"): AVERAGE,
    ("POST", "order"): NEW,
    ("POST", "order/test"): TEST,
    ("GET", "order"): QUERY,
    ("DELETE", "order"): CANCEL,
    ("DELETE", "openOrders"): CANCEL_ALL,
    ("POST", "order/cancelReplace"): REPLACE,
    ("GET", "openOrders"): OPEN,
    ("GET", "allOrders"): ALL,
    ("GET", "myTrades"): TRADES,
    ("GET", "account"): ACCOUNT,
    ("GET", "account/commission"): COMMISSION,
    ("GET", "rateLimit/order"): COUNTS,
    ("GET", "orderList"): QUERY_LIST,
    ("DELETE", "orderList"): CANCEL_LIST,
    ("GET", "allOrderList"): ALL_LISTS,
    ("GET", "openOrderList"): OPEN_LISTS,
} | {("POST", f"orderList/{kind}"): route for kind, route in LISTS.items()}

NOTHING = Route(1, lambda venue, account, params: [])
WALLET: dict[tuple[str, str], Route] = {
    ("GET", "account/apiRestrictions"): Route(1, restrictions),
    ("GET", "capital/config/getall"): NOTHING,
    ("GET", "margin/allPairs"): NOTHING,
    ("GET", "margin/isolated/allPairs"): NOTHING,
}

SOCKET: dict[str, Route] = {
    "ping": PING,
    "time": TIME,
    "exchangeInfo": EXCHANGE_INFO,
    "klines": KLINES,
    "ticker.price": PRICE,
    "ticker.book": BOOK_TICKER,
    "ticker.24hr": DAY_TICKER,
    "depth": DEPTH,
    "avgPrice": AVERAGE,
    "order.place": NEW,
    "order.test": TEST,
    "order.status": QUERY,
    "order.cancel": CANCEL,
    "order.cancelReplace": REPLACE,
    "openOrders.cancelAll": CANCEL_ALL,
    "openOrders.status": OPEN,
    "allOrders": ALL,
    "myTrades": TRADES,
    "account.status": ACCOUNT,
    "account.commission": COMMISSION,
    "account.rateLimits.orders": COUNTS,
    "orderList.status": QUERY_LIST,
    "orderList.cancel": CANCEL_LIST,
    "allOrderLists": ALL_LISTS,
    "openOrderLists.status": OPEN_LISTS,
} | {f"orderList.place.{kind}": route for kind, route in LISTS.items()}
