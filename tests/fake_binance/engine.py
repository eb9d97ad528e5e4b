"""The matching engine: takes orders, fills them as prices move, and moves the money."""

from decimal import ROUND_DOWN, Decimal
from typing import Any

from tests.fake_binance import filters, lists, views
from tests.fake_binance.answers import DUPLICATE, INSUFFICIENT, WOULD_TAKE, WOULD_TRIGGER, rejected
from tests.fake_binance.clock import Clock
from tests.fake_binance.market import Bar, Market, opened_at
from tests.fake_binance.records import CRUMB, PRICED, ZERO, Account, Order, OrderList, Trade, text
from tests.fake_binance.venue_log import VenueLog

BNB_DISCOUNT = Decimal("0.25")


class Engine:
    """Every market and account of the venue. What it has to tell waits in `outbox`."""

    def __init__(self, clock: Clock, log: VenueLog) -> None:
        self.clock = clock
        self.log = log
        self.accounts: dict[str, Account] = {}
        self.markets: dict[str, Market] = {}
        self.outbox: list[tuple[str, dict[str, Any]]] = []
        self.public: list[tuple[str, dict[str, Any]]] = []
        self._numbers = {"order": 0, "list": -1}

    def number(self, kind: str) -> int:
        """Return the next order's or list's number."""
        self._numbers[kind] += 1
        return self._numbers[kind]

    def market(self, order: Order) -> Market:
        """Return the market of an order."""
        return self.markets[order.symbol]

    # What is told

    def report(
        self, account: Account, order: Order, what: str, trade: Trade | None = None, cancel_id: str = ""
    ) -> None:
        """Log an order's change and have its event sent."""
        now_ms = self.clock.now_ms()
        event = views.execution_report(order, what, trade, cancel_id, now_ms)
        self.log.write("order", account=account.key, change=what, **views.queried(order))
        self.outbox.append((account.key, event))

    def report_list(self, account: Account, held: OrderList) -> None:
        """Log a list's change and have its event sent."""
        held.time_ms = self.clock.now_ms()
        self.log.write("list", account=account.key, **views.listed(held))
        self.outbox.append((account.key, views.list_status(held, held.time_ms)))

    def report_money(self, account: Account, *assets: str) -> None:
        """Log balances and have their event sent."""
        account.updated_ms = self.clock.now_ms()
        event = views.position_event(account, set(assets), account.updated_ms)
        self.log.write("balance", account=account.key, balances=event["B"])
        self.outbox.append((account.key, event))

    # Taking orders

    def check_new(self, account: Account, orders: list[Order], as_list: bool = False) -> None:
        """Refuse orders that a filter forbids, before the engine sees any of them."""
        for order in orders:
            filters.check_order(order, self.market(order))
        filters.check_counts(account, self.market(orders[0]).symbol, orders, as_list)

    def check_id(self, account: Account, order: Order) -> None:
        """Refuse a client id that an open order has."""
        other = account.by_client.get((order.symbol, order.client_id))
        if other is not None and other.is_open:
            raise rejected(DUPLICATE)

    def check_prices(self, order: Order) -> None:
        """Refuse a stop that is reached already, and a maker that would take."""
        market = self.market(order)
        if order.waits_for_trigger and reached(order, market.last):
            raise rejected(WOULD_TRIGGER)
        if order.type == "LIMIT_MAKER" and crosses(order, market):
            raise rejected(WOULD_TAKE)

    def needed(self, order: Order) -> tuple[str, Decimal]:
        """Return the asset an order sets aside, and how much."""
        market = self.market(order)
        if order.side == "SELL":
            return market.symbol.base, order.quantity
        price = order.price if order.type in PRICED else order.stop_price or market.ask
        return market.symbol.quote, (price * order.quantity).quantize(CRUMB, rounding=ROUND_DOWN)

    def fund(self, account: Account, order: Order) -> None:
        """Set aside what an order needs."""
        asset, amount = self.needed(order)
        if account.free.get(asset, ZERO) < amount:
            raise rejected(INSUFFICIENT)
        order.lock = account.hold(asset, amount)

    def size_by_quote(self, order: Order) -> None:
        """Give a market order that names an amount of money its quantity."""
        market = self.market(order)
        if order.quote_quantity:
            order.quantity = filters.largest_lot(order.quote_quantity / market.side_price(order.side), market.symbol)

    def place(self, account: Account, order: Order) -> list[Trade]:
        """Take one order, and return what it traded at once."""
        self.size_by_quote(order)
        self.check_id(account, order)
        self.check_prices(order)
        self.fund(account, order)
        self.enter(account, order)
        seen = len(account.trades)
        self.work(account, order)
        return account.trades[seen:]

    def enter(self, account: Account, order: Order) -> None:
        """Give an order its number and let it stand."""
        order.id = order.id or self.number("order")
        order.updated_ms = self.clock.now_ms()
        order.time_ms = order.time_ms or order.updated_ms
        order.status = "NEW"
        if not order.waits_for_trigger:
            order.working_time_ms = order.updated_ms
        account.remember(order)
        self.report(account, order, "NEW")
        if order.lock is not None:
            self.report_money(account, order.lock.asset)

    # Filling

    def work(self, account: Account, order: Order) -> None:
        """Let an order that stands trade as a taker, and end what may not rest."""
        if order.waits_for_trigger or not order.is_open:
            return
        market = self.market(order)
        wanted = self.affordable(account, order) if order.type not in PRICED else order.left
        there = market.takeable(wanted) if order.type not in PRICED or crosses(order, market) else ZERO
        if order.time_in_force == "FOK" and there < order.left:
            self.expire(account, order, "UNFILLED_FOK_ORDER_EXPIRED")
            return
        if there > 0:
            self.fill(account, order, market.side_price(order.side), there, maker=False)
        if not order.is_open:
            return
        if order.type not in PRICED:
            self.expire(account, order, "INSUFFICIENT_LIQUIDITY")
        elif order.time_in_force == "IOC":
            self.expire(account, order, "UNFILLED_IOC_QUANTITY_EXPIRED")

    def affordable(self, account: Account, order: Order) -> Decimal:
        """Return how much of an order without a price its owner can pay, who may have set too little aside."""
        market = self.market(order)
        if order.side == "SELL":
            return order.left
        money = account.free.get(market.symbol.quote, ZERO) + (order.lock.amount if order.lock else ZERO)
        return min(order.left, filters.largest_lot(money / market.ask, market.symbol))

    def fill(self, account: Account, order: Order, price: Decimal, quantity: Decimal, maker: bool) -> Trade:
        """Trade some of an order."""
        lists.before_fill(self, account, order)
        market = self.market(order)
        symbol, now_ms = market.symbol, self.clock.now_ms()
        share = ZERO if order.lock is None else order.lock.amount
        if order.lock is not None and quantity < order.left:
            share = (share * quantity / order.left).quantize(CRUMB, rounding=ROUND_DOWN)
        account.release(order.lock, share)
        gives = (symbol.quote, price * quantity) if order.side == "BUY" else (symbol.base, quantity)
        gets = (symbol.base, quantity) if order.side == "BUY" else (symbol.quote, price * quantity)
        account.add(gives[0], -gives[1])
        fee, fee_asset = self.fee(account, gets[0], gets[1], price * quantity, symbol.quote, maker)
        lists.receive(self, account, order, *gets, fee=fee if fee_asset == gets[0] else ZERO)
        if fee_asset != gets[0]:
            account.add(fee_asset, -fee)
        trade = Trade(market.next_trade(), order, price, quantity, fee, fee_asset, now_ms, maker)
        self.book(account, market, trade)
        self.report_money(account, *{gives[0], gets[0], fee_asset})
        lists.after_fill(self, account, order)
        return trade

    def book(self, account: Account, market: Market, trade: Trade) -> None:
        """Note a trade everywhere it is seen."""
        order = trade.order
        market.take(trade.quantity)
        account.trades.append(trade)
        order.executed += trade.quantity
        order.executed_quote += trade.quote
        order.updated_ms = trade.time_ms
        order.status = "PARTIALLY_FILLED" if order.left > 0 else "FILLED"
        if order.status == "FILLED":
            account.standing.pop(order.id, None)
            account.release(order.lock)
        self.log.write("trade", account=account.key, clientOrderId=order.client_id, **views.own_trade(trade))
        self.report(account, order, "TRADE", trade)
        self.publish_trade(market, trade.id, trade.price, trade.quantity, (order.side == "BUY") == trade.maker)

    def fee(
        self, account: Account, asset: str, amount: Decimal, worth: Decimal, quote: str, maker: bool
    ) -> tuple[Decimal, str]:
        """Return a trade's fee and its asset: BNB where the account wants it and has it, else what was received."""
        rate = account.maker if maker else account.taker
        bnb = self.markets.get(f"BNB{quote}")
        if account.bnb_fees and bnb is not None:
            fee = (worth * rate * (1 - BNB_DISCOUNT) / bnb.last).quantize(CRUMB, rounding=ROUND_DOWN)
            if account.free.get("BNB", ZERO) >= fee:
                return fee, "BNB"
        return (amount * rate).quantize(CRUMB, rounding=ROUND_DOWN), asset

    # Ending

    def expire(self, account: Account, order: Order, reason: str) -> None:
        """End an order by the venue's rules."""
        self.end(account, order, "EXPIRED", reason)
        lists.after_end(self, account, order)

    def cancel(self, account: Account, order: Order, cancel_id: str) -> None:
        """End an order, and with it its whole list, because its owner asks."""
        held = account.lists.get(order.list_id)
        for one in [order] if held is None else held.orders:
            if one.is_open:
                self.end(account, one, "CANCELED", cancel_id=cancel_id)
        if held is not None:
            lists.settle(self, account, held)

    def end(self, account: Account, order: Order, status: str, reason: str = "NONE", cancel_id: str = "") -> None:
        """Close an order, and give back what it held."""
        order.status, order.expiry_reason = status, reason
        order.updated_ms = self.clock.now_ms()
        account.standing.pop(order.id, None)
        lock, order.lock = order.lock, None
        account.release(lock)
        self.report(account, order, status, cancel_id=cancel_id)
        if lock is not None:
            self.report_money(account, lock.asset)

    # Prices

    def move(self, symbol: str, price: Decimal, quantity: Decimal = Decimal(1)) -> None:
        """Let the market trade at a price, and every order that it reaches."""
        market = self.markets[symbol]
        market.last = price
        now_ms = self.clock.now_ms()
        market.note(now_ms, price, quantity)
        self.log.write("price", symbol=symbol, price=price)
        self.publish_trade(market, market.next_trade(), price, quantity, False)
        self.reach(market)
        self.publish_bar(market, opened_at(now_ms, "1m"))

    def play(self, symbol: str, opened_ms: int, bar: Bar) -> None:
        """Let the market go through a whole minute at once: open, the nearer extreme, the other, close."""
        market = self.markets[symbol]
        rises = bar.close >= bar.open
        for price in (bar.open, *((bar.low, bar.high) if rises else (bar.high, bar.low)), bar.close):
            market.last = price
            self.log.write("price", symbol=symbol, price=price, bar_ms=opened_ms)
            self.publish_trade(market, market.next_trade(), price, bar.volume / 4, False)
            self.reach(market)
        market.bars[opened_ms] = bar
        self.publish_bar(market, opened_ms, closed=True)

    def reach(self, market: Market) -> None:
        """Trigger and fill what the last price reaches."""
        for account in self.accounts.values():
            for order in account.open_orders(market.symbol.name):
                if not order.is_open or order.status == "PENDING_NEW":
                    continue
                if order.waits_for_trigger and reached(order, market.last):
                    self.trigger(account, order)
                elif not order.waits_for_trigger and touched(order, market.last):
                    there = market.takeable(order.left)
                    if there > 0:
                        self.fill(account, order, order.price, there, maker=True)

    def trigger(self, account: Account, order: Order) -> None:
        """Turn a stop into the order it stands for."""
        lists.before_fill(self, account, order)
        order.triggered = True
        order.working_time_ms = order.updated_ms = self.clock.now_ms()
        self.report(account, order, "NEW")
        self.work(account, order)

    def publish_trade(self, market: Market, number: int, price: Decimal, quantity: Decimal, buyer_makes: bool) -> None:
        """Have a trade told to whoever watches the market."""
        now_ms = market.traded_ms = self.clock.now_ms()
        name = market.symbol.name
        told = {"e": "trade", "E": now_ms, "s": name, "t": number, "p": text(price), "q": text(quantity)}
        self.public.append((f"{name.lower()}@trade", told | {"T": now_ms, "m": buyer_makes, "M": True}))
        best = market.book_ticker()
        sides = {"b": best["bidPrice"], "B": best["bidQty"], "a": best["askPrice"], "A": best["askQty"]}
        self.public.append((f"{name.lower()}@bookTicker", {"u": market.update_id, "s": name} | sides))

    def publish_bar(self, market: Market, opened_ms: int, closed: bool = False) -> None:
        """Have a bar told to whoever watches it."""
        name = market.symbol.name
        self.public.append((f"{name.lower()}@kline", {"symbol": name, "opened_ms": opened_ms, "closed": closed}))


def reached(order: Order, price: Decimal) -> bool:
    """Say whether a stop's price is reached."""
    upward = (order.side == "BUY") == order.type.startswith("STOP_LOSS")
    return price >= order.stop_price if upward else price <= order.stop_price


def touched(order: Order, price: Decimal) -> bool:
    """Say whether the market trades at or through a resting order's price."""
    return price <= order.price if order.side == "BUY" else price >= order.price


def crosses(order: Order, market: Market) -> bool:
    """Say whether an order with a price would trade at once."""
    return order.price >= market.ask if order.side == "BUY" else order.price <= market.bid
