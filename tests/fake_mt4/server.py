"""The trade server: quotes, tickets, margin, commission and swap, in MetaTrader 4's way. It survives its terminal."""

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

BUY, SELL, BUY_LIMIT, SELL_LIMIT, BUY_STOP, SELL_STOP, BALANCE = range(7)
NAMES = ["buy", "sell", "buylimit", "selllimit", "buystop", "sellstop"]
MOST_COMMENT = 31
ERRORS = {
    0: "no error", 1: "no error", 2: "common error", 4: "trade server is busy", 6: "no connection with trade server",
    64: "account disabled", 128: "trade timeout", 129: "invalid price", 130: "invalid stops",
    131: "invalid trade volume", 132: "market is closed", 133: "trade is disabled", 134: "not enough money",
    135: "price changed", 136: "off quotes", 138: "requote",
    145: "modification denied because order too close to market",
    146: "trade context is busy", 4106: "unknown symbol", 4108: "invalid ticket",
}  # fmt: skip


class TradeError(Exception):
    """What the server does not do."""

    def __init__(self, code: int) -> None:
        """Keep the number that MetaTrader gives it."""
        super().__init__(ERRORS.get(code, f"ErrorCode: {code}"))
        self.code = code


@dataclass
class Market:
    """One symbol."""

    digits: int
    contract: Decimal
    bid: Decimal
    ask: Decimal
    stop_level: int = 10  # points
    least: Decimal = Decimal("0.01")  # lots
    most: Decimal = Decimal(100)
    swap: Decimal = Decimal("-0.70")  # a lot and night, in the account's currency
    quote: str = "USD"

    @property
    def point(self) -> Decimal:
        """Return the least difference of a price."""
        return Decimal(1).scaleb(-self.digits)


@dataclass
class Ticket:
    """An order, open or closed; in MetaTrader 4 a position is one, too."""

    number: int
    symbol: str
    type: int
    lots: Decimal
    open_price: Decimal
    open_time: str
    sl: Decimal
    tp: Decimal
    magic: int
    comment: str
    expires: int = 0
    commission: Decimal = Decimal(0)
    swap: Decimal = Decimal(0)
    pnl: Decimal = Decimal(0)
    close_price: Decimal = Decimal(0)
    close_time: str = ""

    @property
    def sign(self) -> int:
        """Return +1 for what buys."""
        return -1 if self.type % 2 else 1


def markets() -> dict[str, Market]:
    """Return what is quoted when a server begins."""
    d = Decimal
    return {
        "EURUSD": Market(5, d(100_000), d("1.10000"), d("1.10010")),
        "GBPUSD": Market(5, d(100_000), d("1.30000"), d("1.30012")),
        "USDJPY": Market(3, d(100_000), d("150.000"), d("150.010"), quote="JPY"),
        "XAUUSD": Market(2, d(100), d("2000.00"), d("2000.30"), swap=d("1.20")),
    }


@dataclass
class Server:
    """Everything that the broker knows of one account."""

    path: Path  # of what survives
    offset_h: int = 2  # of its clock to UTC
    balance: Decimal = Decimal(10_000)
    leverage: int = 100
    currency: str = "USD"
    commission: Decimal = Decimal("-7")  # a lot, there and back
    login: int = 1234567
    open_market: bool = True
    next_number: int = 1001
    quotes: dict[str, Market] = field(default_factory=markets)
    tickets: dict[int, Ticket] = field(default_factory=dict)
    history: list[Ticket] = field(default_factory=list)
    late: list[tuple[float, tuple[Any, ...]]] = field(default_factory=list)

    # --- what survives ---

    def save(self) -> None:
        """Keep the account."""
        kept = {"balance": self.balance, "next": self.next_number, "login": self.login,
                "tickets": [asdict(each) for each in self.tickets.values()],
                "history": [asdict(each) for each in self.history]}  # fmt: skip
        self.path.with_suffix(".new").write_text(json.dumps(kept, default=str))
        self.path.with_suffix(".new").replace(self.path)

    def load(self) -> None:
        """Take up an account that was kept."""
        if not self.path.exists():
            return
        kept = json.loads(self.path.read_text())
        self.balance, self.next_number, self.login = Decimal(kept["balance"]), kept["next"], kept["login"]
        self.tickets = {each["number"]: _ticket(each) for each in kept["tickets"]}
        self.history = [_ticket(each) for each in kept["history"]]

    def log(self, kind: str, ticket: Ticket, **more: Any) -> None:
        """Write down what was done."""
        line = {"kind": kind, "at": time.time()} | asdict(ticket) | more
        with self.path.with_suffix(".jsonl").open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")
        self.save()

    # --- what is asked ---

    def now(self) -> str:
        """Return the server's time, as the terminal writes it."""
        return (datetime.now(UTC) + timedelta(hours=self.offset_h)).strftime("%Y.%m.%d %H:%M:%S")

    def profit(self, ticket: Ticket, price: Decimal) -> Decimal:
        """Return what a position makes at a price, in the account's currency."""
        market = self.quotes[ticket.symbol]
        made = ticket.sign * (price - ticket.open_price) * ticket.lots * market.contract
        return (made if market.quote == self.currency else made / price).quantize(Decimal("0.01"))

    def exit_price(self, ticket: Ticket) -> Decimal:
        """Return what a position is closed at now."""
        market = self.quotes[ticket.symbol]
        return market.bid if ticket.sign > 0 else market.ask

    def equity(self) -> Decimal:
        """Return balance and what is open, costs counted."""
        held = [each for each in self.tickets.values() if each.type <= SELL]
        return self.balance + sum((each.pnl + each.commission + each.swap for each in held), Decimal(0))

    def margin(self) -> Decimal:
        """Return what positions tie up."""
        held = [each for each in self.tickets.values() if each.type <= SELL]
        return sum((self._needed(each.symbol, each.lots) for each in held), Decimal(0)).quantize(Decimal("0.01"))

    def _needed(self, symbol: str, lots: Decimal) -> Decimal:
        market = self.quotes[symbol]
        value = lots * market.contract * (market.ask if market.quote == self.currency else 1)
        return value / self.leverage

    # --- what is ordered ---

    def send(self, symbol: str, kind: int, lots: Decimal, price: Decimal, sl: Decimal, tp: Decimal, comment: str,
             magic: int, expires: int) -> Ticket:  # fmt: skip
        """Open a position, or let an order wait."""
        market = self._market(symbol)
        if lots < market.least or lots > market.most or lots % market.least:
            raise TradeError(131)
        if kind <= SELL:
            price = market.ask if kind == BUY else market.bid
        self._check_levels(market, kind, price, sl, tp)
        if kind <= SELL and self._needed(symbol, lots) > self.equity() - self.margin():
            raise TradeError(134)
        ticket = Ticket(self.next_number, symbol, kind, lots, price, self.now(), sl, tp, magic, comment[:MOST_COMMENT],
                        expires)  # fmt: skip
        self.next_number += 1
        self.tickets[ticket.number] = ticket
        if kind <= SELL:
            self._begin(ticket)
        self.log("send", ticket)
        return ticket

    def modify(self, number: int, price: Decimal, sl: Decimal, tp: Decimal, expires: int) -> None:
        """Put other levels in the place of those that stand."""
        ticket = self._ticket(number)
        market = self._market(ticket.symbol)
        new = (price if ticket.type > SELL else ticket.open_price, sl, tp, expires)
        if new == (ticket.open_price, ticket.sl, ticket.tp, ticket.expires):
            raise TradeError(1)
        entry = self.exit_price(ticket) if ticket.type <= SELL else price
        self._check_levels(market, ticket.type, entry, sl, tp)
        ticket.open_price, ticket.sl, ticket.tp, ticket.expires = new
        self.log("modify", ticket)

    def close(self, number: int, lots: Decimal) -> Ticket:
        """Close a position, or a part of it: the rest goes on under another number."""
        ticket = self._ticket(number)
        self._market(ticket.symbol)
        if ticket.type > SELL:
            raise TradeError(4108)
        if lots > ticket.lots or lots < self.quotes[ticket.symbol].least:
            raise TradeError(131)
        if lots < ticket.lots:
            self._part(ticket, lots)
        self.end(ticket, self.exit_price(ticket))
        return ticket

    def delete(self, number: int, said: str = "cancelled") -> None:
        """Take back an order that waits."""
        ticket = self._ticket(number)
        ticket.close_time, ticket.comment = self.now(), said
        self.history.append(self.tickets.pop(number))
        self.log("delete", ticket)

    def end(self, ticket: Ticket, price: Decimal, mark: str = "") -> None:
        """Close a position at a price."""
        ticket.pnl, ticket.close_price, ticket.close_time = self.profit(ticket, price), price, self.now()
        ticket.comment = f"{ticket.comment[: MOST_COMMENT - len(mark)]}{mark}"
        self.balance += ticket.pnl + ticket.commission + ticket.swap
        self.history.append(self.tickets.pop(ticket.number))
        self.log("close", ticket)

    def _part(self, ticket: Ticket, lots: Decimal) -> None:
        share = lots / ticket.lots
        commission, swap = ((each * share).quantize(Decimal("0.01")) for each in (ticket.commission, ticket.swap))
        rest = Ticket(self.next_number, ticket.symbol, ticket.type, ticket.lots - lots, ticket.open_price,
                      ticket.open_time, ticket.sl, ticket.tp, ticket.magic, f"from #{ticket.number}", 0,
                      ticket.commission - commission, ticket.swap - swap)  # fmt: skip
        self.next_number += 1
        self.tickets[rest.number] = rest
        ticket.lots, ticket.commission, ticket.swap, ticket.comment = lots, commission, swap, f"to #{rest.number}"

    def _begin(self, ticket: Ticket) -> None:
        ticket.commission = (self.commission * ticket.lots).quantize(Decimal("0.01"))
        ticket.pnl = self.profit(ticket, self.exit_price(ticket))

    def _market(self, symbol: str) -> Market:
        if symbol not in self.quotes:
            raise TradeError(4106)
        if not self.open_market:
            raise TradeError(132)
        return self.quotes[symbol]

    def _ticket(self, number: int) -> Ticket:
        if number not in self.tickets:
            raise TradeError(4108)
        return self.tickets[number]

    def _check_levels(self, market: Market, kind: int, price: Decimal, sl: Decimal, tp: Decimal) -> None:
        sign, near = -1 if kind % 2 else 1, market.stop_level * market.point
        side = market.ask if sign > 0 else market.bid
        if kind > SELL:
            beyond = 1 if kind in (BUY_STOP, SELL_LIMIT) else -1
            if beyond * (price - side) < near:
                raise TradeError(130)
        leave = (market.bid if sign > 0 else market.ask) if kind <= SELL else price
        if (sl and sign * (leave - sl) < near) or (tp and sign * (tp - leave) < near):
            raise TradeError(130)

    # --- what happens by itself ---

    def move(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """Let a market trade at another price, and what waits for it happen."""
        market = self.quotes[symbol]
        market.bid, market.ask = bid, ask
        for ticket in [each for each in self.tickets.values() if each.symbol == symbol]:
            if ticket.type > SELL:
                self._trigger(ticket, ask if ticket.sign > 0 else bid)
            if ticket.type <= SELL:
                self._guard(ticket)

    def _trigger(self, ticket: Ticket, price: Decimal) -> None:
        beyond = 1 if ticket.type in (BUY_STOP, SELL_LIMIT) else -1
        if beyond * (price - ticket.open_price) >= 0:
            ticket.open_price = price if ticket.type >= BUY_STOP else ticket.open_price
            ticket.type, ticket.open_time = ticket.type % 2, self.now()
            self._begin(ticket)
            self.log("trigger", ticket)

    def _guard(self, ticket: Ticket) -> None:
        price, sign = self.exit_price(ticket), ticket.sign
        ticket.pnl = self.profit(ticket, price)
        if ticket.sl and sign * (price - ticket.sl) <= 0:
            self.end(ticket, price, "[sl]")  # where it gapped, no better than the gap
        elif ticket.tp and sign * (price - ticket.tp) >= 0:
            self.end(ticket, ticket.tp, "[tp]")

    def rollover(self) -> None:
        """Let a night pass."""
        for ticket in self.tickets.values():
            if ticket.type <= SELL:
                ticket.swap += (self.quotes[ticket.symbol].swap * ticket.lots).quantize(Decimal("0.01"))
        self.save()

    def expire(self) -> None:
        """Carry out what comes late, and take back what has waited for long enough."""
        due = [each for each in self.late if each[0] <= time.time()]
        self.late = [each for each in self.late if each[0] > time.time()]
        for _, order in due:
            self.send(*order)
        for ticket in [each for each in self.tickets.values() if each.type > SELL and each.expires]:
            if time.time() + self.offset_h * 3600 >= ticket.expires:
                self.delete(ticket.number, "expiration")


def _ticket(kept: dict[str, Any]) -> Ticket:
    money = ("lots", "open_price", "sl", "tp", "commission", "swap", "pnl", "close_price")
    return Ticket(**kept | {name: Decimal(kept[name]) for name in money})
