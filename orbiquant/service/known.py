"""Keys and tokens that were verified a moment ago: a revoked one is refused within `KNOWN_S`, one that ends when it ends."""

# Only what was found to be good is remembered, under its hash; a wrong key is looked up every time, and counted.

import hashlib
import time
from collections.abc import Awaitable, Callable

from orbiquant.domain import Caller
from orbiquant.ports import Clock

KNOWN_S = 1.0
MOST_KEYS = 4096


class KnownKeys:
    "Who comes with what, by what was found last."

    def __init__(
        self,
        verify: Callable[[str], Awaitable[Caller]],  # looks closely; raises `AuthError`
        clock: Clock,  # tells how long one is good
    ) -> None:
        self.verify, self.clock = verify, clock
        self._known: dict[bytes, tuple[Caller, float]] = {}

    async def find(
        self,
        key: str,  # what the caller sent
    ) -> Caller:
        "Return whose key it is; raise `AuthError` for one that is not valid."
        name, now = hashlib.sha256(key.encode()).digest(), time.monotonic()
        caller, until = self._known.get(name, (None, 0.0))
        if caller is not None and now < until:
            return caller
        self._known.pop(name, None)
        caller = await self.verify(key)
        if len(self._known) >= MOST_KEYS:
            self._known = {name: entry for name, entry in self._known.items() if now < entry[1]}
        left = KNOWN_S
        if caller.expires_at is not None:
            left = min(left, (caller.expires_at - self.clock.now()).total_seconds())
        self._known[name] = caller, now + left  # counted from before the database was asked
        return caller
