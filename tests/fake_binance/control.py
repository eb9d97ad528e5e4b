"""What a test tells the venue: prices, fills, accounts, faults, time, and the end of connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.fake_binance.market import Bar, Market
from tests.fake_binance.records import Account, text
from tests.fake_binance.rest import VENUE
from tests.fake_binance.service import KEY, SECRET, Venue
from tests.fake_binance.symbols import Symbol
from tests.fake_binance.trading import new_order
from tests.fake_binance.views import account_view, queried

Told = dict[str, Any]


def account_of(venue: Venue, told: Told) -> Account:
    """Return the account that is meant, the first when none is named."""
    return venue.engine.accounts[told.get("apiKey", KEY)]


def set_price(venue: Venue, told: Told) -> Any:
    """Let a market trade at a price."""
    venue.engine.move(told["symbol"], Decimal(str(told["price"])), Decimal(str(told.get("quantity", 1))))


def play_bars(venue: Venue, told: Told) -> Any:
    """Let a market go through minutes: rows of open time in ms, open, high, low, close, volume."""
    for opened_ms, *numbers in told["bars"]:
        opened, high, low, close, volume = (Decimal(str(number)) for number in numbers)
        bar = Bar(opened, high, low, close, volume, volume * close, 4)
        venue.engine.play(told["symbol"], int(opened_ms), bar)


def keep_bars(venue: Venue, told: Told) -> Any:
    """Give a market a past: rows as in `play_bars`, which move nothing."""
    market = venue.engine.markets[told["symbol"]]
    for opened_ms, *numbers in told["bars"]:
        opened, high, low, close, volume = (Decimal(str(number)) for number in numbers)
        market.bars[int(opened_ms)] = Bar(opened, high, low, close, volume, volume * close, 4)
        market.last = close


def set_liquidity(venue: Venue, told: Told) -> Any:
    """Say how much there is to take on a market; nothing said means enough for all."""
    market = venue.engine.markets[told["symbol"]]
    market.liquidity = None if told.get("quantity") is None else Decimal(str(told["quantity"]))


def fill_order(venue: Venue, told: Told) -> Any:
    """Fill some of an order, at its own price when none is said."""
    account = account_of(venue, told)
    order = account.by_client[told["symbol"], told["clientOrderId"]]
    if not order.is_open or order.status == "PENDING_NEW":
        raise ValueError(f"an order that is {order.status} cannot be filled")
    price = Decimal(str(told["price"])) if "price" in told else order.price or venue.engine.market(order).last
    quantity = Decimal(str(told.get("quantity", order.left)))
    venue.engine.fill(account, order, price, min(quantity, order.left), maker=True)
    return queried(order)


def expire_order(venue: Venue, told: Told) -> Any:
    """Let the venue cancel an order by itself."""
    account = account_of(venue, told)
    order = account.by_client[told["symbol"], told["clientOrderId"]]
    venue.engine.expire(account, order, "EXCHANGE_CANCELED")
    return queried(order)


def set_symbol(venue: Venue, told: Told) -> Any:
    """Change a pair's rules, or open a new one with a price."""
    name, price = told.pop("symbol"), told.pop("price", None)
    kinds = {field.name: field.type for field in fields(Symbol)}
    given: Told = {key: Decimal(str(value)) if kinds[key] is Decimal else value for key, value in told.items()}
    if name in venue.engine.markets:
        for key, value in given.items():
            setattr(venue.engine.markets[name].symbol, key, value)
        return
    venue.engine.markets[name] = Market(Symbol(name, **given), Decimal(str(price)))


def set_account(venue: Venue, told: Told) -> Any:
    """Open an account or change one: balances, `bnb_fees`, `can_trade`, `can_withdraw`."""
    key = told.pop("apiKey", KEY)
    secret, money = told.pop("secret", SECRET), told.pop("balances", None)
    account = venue.engine.accounts.get(key) or venue.add_account(key, secret, {})
    for asset, amount in (money or {}).items():
        account.free[asset] = Decimal(str(amount))
    for name, value in told.items():
        setattr(account, name, Decimal(str(value)) if name in ("maker", "taker") else value)
    if money:
        venue.engine.report_money(account, *money)
    return account_view(account, without_zeros=True)


def add_fault(venue: Venue, told: Told) -> Any:
    """Let something go wrong: the fields of `faults.Rule`; or `rate` and `kinds` for the seeded ones."""
    if "rate" in told:
        venue.faults.rate = float(told["rate"])
        venue.faults.kinds = tuple(told.get("kinds", venue.faults.kinds))
        venue.faults.seed = int(told.get("seed", venue.faults.seed))
    else:
        venue.faults.add(**told)


def clear_faults(venue: Venue, told: Told) -> Any:
    """Let nothing go wrong any more."""
    venue.faults.rules.clear()
    venue.faults.rate = 0.0
    venue.limits.banned_until_ms = 0


def set_clock(venue: Venue, told: Told) -> Any:
    """Set the venue's clock off, or make it faster."""
    venue.clock.set(float(told.get("offset_ms", 0)), float(told.get("scale", 1)))


def set_limits(venue: Venue, told: Told) -> Any:
    """Change how much may be asked for."""
    for name, value in told.items():
        setattr(venue.limits, name, int(value))


def mute(venue: Venue, told: Told) -> Any:
    """Let market data streams fall silent while their connections and heartbeats go on, or speak again."""
    venue.muted = bool(told.get("on", True))


def page(venue: Venue, told: Told) -> Any:
    """Let whoever opens a market data stream get a page for people instead, or no more."""
    venue.paged = bool(told.get("on", True))


def say(venue: Venue, told: Told) -> Any:
    """Send a text to everybody who watches the market, as it is."""
    for watcher in list(venue.watchers):
        watcher.say(told["text"])


def spoil_account(venue: Venue, told: Told) -> Any:
    """Do to an account what its owner does not know of, once a `number`: coins come, an order or a trade by hand."""
    account, symbol, name = account_of(venue, told), told["symbol"], f"web_{told['number']}"
    market = venue.engine.markets[symbol]
    if told["number"] in venue.spoilt:
        return
    venue.spoilt.add(told["number"])
    if told["act"] == "coins":
        account.add(market.symbol.base, Decimal(1))
        held = account.free[market.symbol.base], account.locked.get(market.symbol.base, Decimal(0))
        told = {"a": market.symbol.base, "f": text(held[0]), "l": text(held[1])}
        venue.log.write("balance", account=account.key, balances=[told])
        return
    order = {"symbol": symbol, "side": "BUY", "quantity": text(1000 * market.symbol.step), "newClientOrderId": name}
    kinds = {"trade": {"type": "MARKET"},
             "order": {"type": "LIMIT", "timeInForce": "GTC", "price": text(market.last // 2)}}  # fmt: skip
    new_order(venue.engine, account, order | kinds[told["act"]])


def reset_venue(venue: Venue, told: Told) -> Any:
    """Begin again."""
    venue.reset()


def reset_account(venue: Venue, told: Told) -> Any:
    """Wipe an account's orders and set its balances, unannounced, as the testnet does about once a month."""
    account = account_of(venue, told)
    money = told.get("balances", {"USDT": 1_000_000, "BTC": 10, "ETH": 100})
    for held in (account.free, account.locked, account.orders, account.standing, account.by_client, account.lists):
        held.clear()
    account.trades.clear()
    account.free |= {asset: Decimal(str(amount)) for asset, amount in money.items()}
    venue.log.write("account_reset", account=account.key, free=account.free)


def shut_down(venue: Venue, told: Told) -> Any:
    """Say on every connection that the server goes away, then end them all."""
    for connection in list(venue.sockets):
        connection.send({"event": {"e": "serverShutdown", "E": venue.clock.now_ms()}})
    for watcher in list(venue.watchers):
        watcher.shut_down()
    end_all(venue)


def end_all(venue: Venue) -> None:
    """End every connection in order."""
    for connection in [*venue.sockets, *venue.watchers]:
        connection.end()


def disconnect(venue: Venue, told: Told) -> Any:
    """End every connection, as after 24 hours; `only` says `user` or `market`."""
    only = told.get("only")
    for connection in [*(venue.sockets if only != "market" else ()), *(venue.watchers if only != "user" else ())]:
        connection.end()


def terminate(venue: Venue, told: Told) -> Any:
    """End every subscription to user data with its event; the connections stay."""
    for connection in list(venue.sockets):
        connection.terminate()


def tell_state(venue: Venue, told: Told) -> Any:
    """Tell what a judge wants to see: accounts, what stands, and who listens."""
    accounts = {
        key: account_view(account, without_zeros=True) | {"open": [queried(order) for order in account.open_orders()]}
        for key, account in venue.engine.accounts.items()
    }
    return {
        "serverTime": venue.clock.now_ms(),
        "accounts": accounts,
        "sockets": len(venue.sockets),
        "listeners": len(venue.listeners),
        "watchers": len(venue.watchers),
        "rules": [vars(rule) for rule in venue.faults.rules],
    }


DEEDS: dict[str, Callable[[Venue, Told], Any]] = {
    "price": set_price,
    "bars": play_bars,
    "history": keep_bars,
    "liquidity": set_liquidity,
    "fill": fill_order,
    "expire": expire_order,
    "symbol": set_symbol,
    "account": set_account,
    "fault": add_fault,
    "faults/clear": clear_faults,
    "clock": set_clock,
    "limits": set_limits,
    "mute": mute,
    "page": page,
    "say": say,
    "spoil": spoil_account,
    "reset": reset_venue,
    "reset_account": reset_account,
    "shutdown": shut_down,
    "disconnect": disconnect,
    "terminate": terminate,
    "state": tell_state,
}


async def serve_control(request: web.Request) -> web.Response:
    """Do what a test says."""
    venue = request.app[VENUE]
    name = request.match_info["name"]
    if name not in DEEDS:
        return web.json_response({"error": f"`{name}` is none of {', '.join(DEEDS)}"}, status=404)
    told = await request.json() if request.can_read_body else {}
    venue.log.write("control", deed=name, told=told)
    try:
        result = DEEDS[name](venue, told)
    except (KeyError, ValueError, TypeError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
    venue.tell()
    return web.json_response({} if result is None else result)


def add_control(app: web.Application) -> None:
    """Open the door for tests."""
    app.router.add_route("*", "/control/{name:.+}", serve_control)
