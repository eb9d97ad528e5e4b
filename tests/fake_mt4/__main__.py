"""Run a terminal on a folder until its standard input ends."""

import argparse
import json
import shutil
import sys
import time
from decimal import Decimal
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from tests.fake_mt4.expert import Expert
from tests.fake_mt4.server import BALANCE, SELL, Market, Server, Ticket


class Weather:
    """What a test does to a terminal."""

    def __init__(self, expert: Expert) -> None:
        """Act on an expert advisor and its server."""
        self.expert, self.server = expert, expert.server

    def fresh(self) -> None:
        """Begin anew, with another account and an empty folder."""
        for name in ("server.json", "server.jsonl"):
            (self.expert.folder.parent / name).unlink(missing_ok=True)
        shutil.rmtree(self.expert.folder)
        old = self.expert
        self.server = Server(self.server.path, self.server.offset_h)
        terms = (old.polite, old.most_orders, old.most_lots, old.beat_s)
        old.__init__(old.folder.parent, self.server, *terms)  # type: ignore[misc]
        old.start()

    def hello(self) -> str:
        """Say that the terminal runs."""
        return "ready"

    def price(self, symbol: str, bid: str, ask: str | None) -> None:
        """Move a market."""
        market = self.server.quotes[symbol]
        spread = market.ask - market.bid
        self.server.move(symbol, Decimal(bid), Decimal(bid) + spread if ask is None else Decimal(ask))
        self.server.save()

    def fault(self, on: str, **what: Any) -> None:
        """Let the next request of a kind go wrong."""
        self.expert.faults.setdefault(on, []).append(what)

    def stop(self, wipe: bool = True) -> None:
        """Take the expert advisor off its chart."""
        self.expert.stop(wipe)

    def start(self) -> None:
        """Put it on again."""
        self.expert.start()

    def revive(self) -> None:
        """Put it on again where it died."""
        if not self.expert.running:
            self.expert.start()

    def reboot(self) -> None:
        """Let the machine begin to count its ticks anew."""
        self.expert.stop(wipe=False)
        self.expert.booted = time.monotonic()
        self.expert.start()

    def freeze(self, seconds: float) -> None:
        """Let the expert advisor do nothing for a while, with its files lying there."""
        self.expert.quiet_until = time.monotonic() + seconds

    def tear(self, name: str, seconds: float) -> None:
        """Let a file be half written for a while."""
        self.expert.torn[name] = time.monotonic() + seconds
        self.expert.written.pop(name, None)

    def market(self, open: bool) -> None:
        """Open or close the market, as at a weekend."""
        self.server.open_market = open

    def night(self) -> None:
        """Let a night pass."""
        self.server.rollover()

    def comment(self, number: int, text: str) -> None:
        """Let the server write another comment."""
        every = [*self.server.tickets.values(), *self.server.history]
        next(each for each in every if each.number == number).comment = text

    def manual(self, symbol: str, kind: int, lots: str, comment: str = "") -> int:
        """Let a person open a position in the terminal."""
        none = Decimal(0)
        return self.server.send(symbol, kind, Decimal(lots), none, none, none, comment, 0, 0).number

    def close(self, number: int, lots: str = "0") -> None:
        """Let a person close a position, or a part of it."""
        self.server.close(number, Decimal(lots) or self.server.tickets[number].lots)

    def pay(self, amount: str) -> None:
        """Let money come, which the history shows among the orders."""
        server, none = self.server, Decimal(0)
        server.balance += Decimal(amount)
        paid = Ticket(server.next_number, "", BALANCE, none, none, server.now(), none, none, 0, "Deposit",
                      pnl=Decimal(amount), close_time=server.now())  # fmt: skip
        server.next_number += 1
        server.history.append(paid)

    def coin(self, currency: str, balance: str, symbol: str, price: str) -> None:
        """Let the account be of another currency, and quote a coin in it without a spread: lots of a thousandth."""
        server, bid = self.server, Decimal(price)
        server.currency, server.balance, server.commission = currency, Decimal(balance), Decimal(0)
        most = self.expert.most_lots = Decimal(100_000)
        server.quotes = {symbol: Market(2, Decimal("0.001"), bid, bid, most=most, swap=Decimal(0), quote=currency)}

    def login(self, number: int) -> None:
        """Let the terminal log in to another account."""
        self.server.login = number

    def state(self) -> dict[str, Any]:
        """Return what the server knows."""
        held = {each.number: str(each.lots) for each in self.server.tickets.values() if each.type <= SELL}
        return {"balance": str(self.server.balance), "held": held, "ids": [*self.expert.ids]}


def main() -> None:
    """Tick, and do what is said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--polite", action="store_true", help="write files at once, for clients that die of half a one")
    parser.add_argument("--tick-ms", type=float, default=5)
    parser.add_argument(
        "--beat-ms", type=float, default=1000, help="after which orders are written though none changed"
    )
    parser.add_argument("--most-orders", type=int, default=50)
    parser.add_argument("--most-lots", type=Decimal, default=Decimal(50))
    parser.add_argument("--offset-h", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    server = Server(given.folder / "server.json", given.offset_h)
    server.load()
    expert = Expert(given.folder, server, given.polite, given.most_orders, given.most_lots, given.beat_ms / 1000)
    expert.start()
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=lambda: [*map(lines.put, sys.stdin), lines.put("")], daemon=True).start()
    weather = Weather(expert)
    while True:
        try:
            line = lines.get(timeout=given.tick_ms / 1000)
        except Empty:
            expert.tick()
            continue
        if not line:
            return
        said = json.loads(line)
        try:
            answer = {"answer": getattr(weather, said.pop("do"))(**said)}
            expert.tick()  # what a test did is written when it goes on
        except Exception as error:
            answer = {"fault": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
