"""How long a position stood without a resident stop, from the venue's log alone."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

from tests.fake_binance.records import ZERO

STOPS = ("STOP_LOSS", "STOP_LOSS_LIMIT")
STANDING = ("NEW", "PARTIALLY_FILLED")


@dataclass(frozen=True)
class Bare:
    """A time in which more was held of a pair than its stops cover."""

    account: str
    symbol: str
    begun_ns: int
    ended_ns: int | None

    def seconds(self, until_ns: int) -> float:
        """Return how long it lasted, up to a time when it has not ended."""
        return ((until_ns if self.ended_ns is None else self.ended_ns) - self.begun_ns) / 1e9


class Watch:
    """What was bought since the log began, and what stops cover, per account and pair."""

    def __init__(self, crumb: Decimal) -> None:
        self.crumb = crumb
        self.held: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self.stops: dict[tuple[str, str], dict[int, Decimal]] = defaultdict(dict)
        self.begun: dict[tuple[str, str], int] = {}
        self.found: list[Bare] = []

    def trade(self, place: tuple[str, str], record: dict[str, Any]) -> None:
        """Count a fill; a fee in what was bought leaves less of it."""
        buys, quantity = record["isBuyer"], Decimal(record["qty"])
        in_base = buys and place[1].startswith(record["commissionAsset"])
        self.held[place] += (quantity if buys else -quantity) - (Decimal(record["commission"]) if in_base else ZERO)

    def order(self, place: tuple[str, str], record: dict[str, Any]) -> None:
        """Count a stop that stands, or no longer."""
        if record["type"] not in STOPS or record["side"] != "SELL":
            return
        if record["status"] in STANDING:
            left = Decimal(record.get("origQty", 0)) - Decimal(record["executedQty"])
            self.stops[place][record["orderId"]] = left
        else:
            self.stops[place].pop(record["orderId"], None)

    def forget(self) -> None:
        """Begin again: the venue did."""
        for known in (self.held, self.stops, self.begun):
            known.clear()

    def look(self, place: tuple[str, str], wall_ns: int) -> None:
        """Begin or end a bare time."""
        bare = self.held[place] - sum(self.stops[place].values(), ZERO) > self.crumb
        if bare and place not in self.begun:
            self.begun[place] = wall_ns
        elif not bare and place in self.begun:
            self.found.append(Bare(*place, self.begun.pop(place), wall_ns))


def bare_times(log: Iterable[dict[str, Any]], crumb: Decimal = Decimal("0.0001")) -> list[Bare]:
    """Return every time in which a position was not covered by stops, but for crumbs of the base asset.

    Only the state after each deed of the venue counts: what an order list fills and covers at once is not bare.
    """
    watch = Watch(crumb)
    for _, records in groupby(log, key=lambda record: record["deed"]):
        touched: dict[tuple[str, str], int] = {}
        for record in records:
            if record["kind"] in ("trade", "order"):
                place = record["account"], record["symbol"]
                (watch.trade if record["kind"] == "trade" else watch.order)(place, record)
                touched[place] = record["wall_ns"]
            elif record["kind"] in ("started", "account_reset"):
                watch.forget()
        for place, wall_ns in touched.items():
            watch.look(place, wall_ns)
    return [*watch.found, *(Bare(*place, begun, None) for place, begun in watch.begun.items())]
