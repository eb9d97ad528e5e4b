"""How much may be asked for: weight a minute, orders in ten seconds, and what follows when it is passed."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.fake_binance.answers import Refused

MINUTE_MS, TEN_SECONDS_MS, DAY_MS = 60_000, 10_000, 86_400_000


@dataclass
class Limits:
    """Counts of one address, which a loopback venue has only one of."""

    weight_limit: int = 6_000
    orders_limit: int = 100
    orders_day_limit: int = 200_000
    patience: int = 10
    used: dict[int, int] = field(default_factory=dict)
    orders: deque[int] = field(default_factory=deque)
    banned_until_ms: int = 0
    ignored: int = 0

    def weigh(self, weight: int, now_ms: int) -> None:
        """Count a request, and refuse it when there were too many."""
        if now_ms < self.banned_until_ms:
            raise self.ban_words(now_ms)
        minute = now_ms // MINUTE_MS
        used = self.used.get(minute, 0) + weight
        self.used = {minute: used}
        if used <= self.weight_limit:
            self.ignored = 0
            return
        self.ignored += 1
        if self.ignored > self.patience:
            self.ban(120.0, now_ms)
            raise self.ban_words(now_ms)
        words = f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE."
        raise Refused(-1003, f"{words} {ADVICE}", status=429, retry_after_s=60 - now_ms // 1000 % 60)

    def ban(self, seconds: float, now_ms: int) -> None:
        """Refuse everything for a while."""
        self.banned_until_ms = now_ms + int(seconds * 1000)

    def ban_words(self, now_ms: int) -> Refused:
        """Return what a banned address hears."""
        wait_s = max(1, -(-(self.banned_until_ms - now_ms) // 1000))
        words = f"Way too much request weight used; IP banned until {self.banned_until_ms}."
        return Refused(-1003, f"{words} {ADVICE}", status=418, retry_after_s=wait_s)

    def count_orders(self, count: int, now_ms: int) -> None:
        """Count new orders, and refuse them when there were too many."""
        while self.orders and self.orders[0] <= now_ms - TEN_SECONDS_MS:
            self.orders.popleft()
        if len(self.orders) + count > self.orders_limit:
            words = f"Too many new orders; current limit is {self.orders_limit} orders per 10 SECOND."
            raise Refused(-1015, words, status=429, retry_after_s=10)
        self.orders.extend([now_ms] * count)

    def give_back(self, count: int) -> None:
        """Let orders that traded count no more."""
        for _ in range(min(count, len(self.orders))):
            self.orders.pop()

    def rules(self) -> list[dict[str, Any]]:
        """Return the limits as `exchangeInfo` tells them."""
        return [
            limit("REQUEST_WEIGHT", "MINUTE", 1, self.weight_limit),
            limit("ORDERS", "SECOND", 10, self.orders_limit),
            limit("ORDERS", "DAY", 1, self.orders_day_limit),
            limit("RAW_REQUESTS", "MINUTE", 5, 61_000),
        ]

    def state(self, now_ms: int, of_orders: bool) -> list[dict[str, Any]]:
        """Return the counts that a WebSocket API reply carries."""
        weight = self.used.get(now_ms // MINUTE_MS, 0)
        told = [limit("REQUEST_WEIGHT", "MINUTE", 1, self.weight_limit) | {"count": weight}]
        if of_orders:
            ten = limit("ORDERS", "SECOND", 10, self.orders_limit) | {"count": len(self.orders)}
            told = [ten, limit("ORDERS", "DAY", 1, self.orders_day_limit) | {"count": len(self.orders)}, *told]
        return told

    def headers(self, now_ms: int, of_orders: bool) -> dict[str, str]:
        """Return the counts that a REST answer carries."""
        weight = str(self.used.get(now_ms // MINUTE_MS, 0))
        told = {"X-MBX-USED-WEIGHT": weight, "X-MBX-USED-WEIGHT-1M": weight}
        if of_orders:
            told |= {"X-MBX-ORDER-COUNT-10S": str(len(self.orders)), "X-MBX-ORDER-COUNT-1D": str(len(self.orders))}
        return told


ADVICE = "Please use WebSocket Streams for live updates to avoid polling the API."


def limit(kind: str, interval: str, number: int, most: int) -> dict[str, Any]:
    """Return one limit."""
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}
