"""What goes wrong on purpose: told by a test, or drawn from a seed and the client id."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

REQUEST_KINDS = (
    "drop",  # hang up, nothing accepted
    "delay",  # wait `seconds` before looking at it
    "cut",  # accept, then hang up instead of answering
    "timeout_late",  # answer −1007 at once, accept after `seconds`
    "timeout_never",  # answer −1007, never accept
    "event_first",  # accept, answer `seconds` after the events
    "event_late",  # answer, send the events `seconds` after
    "blind",  # answer −2013, whether the order is there or not: queries may lag behind the engine
    "race",  # fill the order just before its cancel is looked at
    "timestamp",  # answer −1021
    "too_many",  # answer 429 with Retry-After `seconds`
    "banned",  # answer 418 with Retry-After `seconds`, and everybody until then
    "unavailable",  # answer 503, nothing accepted
    "html",  # answer a page for people
)
EVENT_KINDS = (
    "event_drop",  # the event is not sent
    "event_twice",  # it is sent twice
    "event_again",  # it is sent again after `seconds`
)
SEEDED_KINDS = ("drop", "delay", "cut", "timeout_late", "event_first", "event_late", "event_drop", "event_twice")
SECONDS = {
    "delay": 0.3,
    "timeout_late": 0.5,
    "event_first": 0.2,
    "event_late": 0.3,
    "event_again": 0.5,
    "too_many": 1.0,
    "banned": 2.0,
}
ID_NAMES = ("newClientOrderId", "origClientOrderId", "workingClientOrderId", "listClientOrderId")


@dataclass
class Rule:
    """One thing that is to go wrong, for whatever fits."""

    kind: str
    count: int | None = 1
    seconds: float | None = None
    method: str | None = None
    path: str | None = None
    client_id: str | None = None
    symbol: str | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (*REQUEST_KINDS, *EVENT_KINDS):
            raise ValueError(f"`kind` must be one of {', '.join((*REQUEST_KINDS, *EVENT_KINDS))}, was '{self.kind}'")

    @property
    def wait_s(self) -> float:
        """Return how long it takes, in seconds of the venue."""
        return SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds

    def fits(self, **facts: str) -> bool:
        """Say whether it is meant for this; a client id and a path fit by how they begin and end."""
        return (
            self.method in (None, facts.get("method"))
            and (self.path is None or facts.get("path", "").endswith(self.path))
            and (self.client_id is None or facts.get("client_id", "").startswith(self.client_id))
            and self.symbol in (None, facts.get("symbol"))
            and self.event in (None, facts.get("event"))
        )


@dataclass
class Faults:
    """Every rule, and the seeded ones."""

    seed: int = 0
    rate: float = 0.0
    kinds: tuple[str, ...] = SEEDED_KINDS
    rules: list[Rule] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, **told: Any) -> None:
        """Take a rule."""
        self.rules.append(Rule(**told))

    def use(self, kinds: Iterable[str], **facts: str) -> list[Rule]:
        """Return what goes wrong now, and count it."""
        found = []
        for rule in list(self.rules):
            if rule.kind in kinds and rule.fits(**facts):
                found.append(rule)
                if rule.count is not None:
                    rule.count -= 1
                    if rule.count <= 0:
                        self.rules.remove(rule)
        return found

    def of_request(self, **facts: str) -> list[Rule]:
        """Return what goes wrong with a request; the seed speaks of requests about a client id only."""
        found = self.use(REQUEST_KINDS, **facts)
        if found or not self.rate or not facts.get("client_id"):
            return found
        kind = self.drawn(f"{facts['method']} {facts['path']} {facts['client_id']}")
        return [Rule(kind)] if kind in REQUEST_KINDS else []

    def of_event(self, **facts: str) -> list[Rule]:
        """Return what goes wrong with an event."""
        found = self.use(EVENT_KINDS, **facts)
        if found or not self.rate or not facts.get("client_id"):
            return found
        kind = self.drawn(f"event {facts['event']} {facts['client_id']}")
        return [Rule(kind)] if kind in EVENT_KINDS else []

    def drawn(self, what: str) -> str:
        """Return the kind that the seed draws for the next of something, or nothing."""
        self.seen[what] += 1
        digest = hashlib.sha256(f"{self.seed} {what} {self.seen[what]}".encode()).digest()
        chance, pick = int.from_bytes(digest[:8]) / 2**64, int.from_bytes(digest[8:12])
        return self.kinds[pick % len(self.kinds)] if chance < self.rate else ""


def client_id_of(params: dict[str, Any]) -> str:
    """Return the client id that a request is about."""
    return next((str(params[name]) for name in ID_NAMES if params.get(name)), "")
