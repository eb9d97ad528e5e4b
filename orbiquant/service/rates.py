"""How much one caller may ask in a minute: a sliding count in memory, or over all processes where there is a Redis."""

# Counted by hand in memory: the storage that the library has for it looks at all callers at each request, 1.1 ms with ten
# thousand of them, which is what a stranger with many addresses would want; a count of ours takes two microseconds. Over
# all processes the library counts. A process claims a sixtieth of a limit at once and uses that up without asking again,
# so no two of them let more pass than one would, and a plan with many requests does not wait for the network at each.

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from orbiquant.core import get_logger, require_library
from orbiquant.llm.config import RedisConfig

WINDOW_S = 60
CLAIMS = 60  # of a limit: what is claimed at once is that part of it
SHARED_ANSWER_S = 0.25  # that the server has to answer in
SHARED_AGAIN_S = 5.0  # before one that was away is asked again


class RateStanding(NamedTuple):
    "How a caller stands after a request."

    policy: str  # its name: a plan, or that an address is counted
    limit: int  # in a minute
    remaining: int  # of it
    reset_s: int  # until the minute is over
    wait_s: int  # until one more may pass; 0: this one did

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        "Return the fields of the IETF's draft: the policy, and what is left of it."
        left = b'"%b";r=%d;t=%d' % (self.policy.encode(), self.remaining, self.reset_s)
        return [(b"ratelimit-policy", rate_policy(self.policy, self.limit)), (b"ratelimit", left)]


@lru_cache(16)
def rate_policy(
    name: str,  # of the policy
    limit: int,  # in a minute
) -> bytes:
    "Return a policy as the header has it."
    return b'"%b";q=%d;w=%d' % (name.encode(), limit, WINDOW_S)


def past_count(
    before: int,  # requests in the minute before
    elapsed_s: float,  # of this minute
) -> int:
    "Return how many requests of the minute before count still."
    return int(before * (WINDOW_S - elapsed_s) / WINDOW_S)


def wait_for(
    before: int,  # requests in the minute before
    taken: int,  # and in this one
    limit: int,  # in a minute
    elapsed_s: float,  # of this minute
) -> int:
    "Return the seconds until one more request fits."
    if taken < limit:  # the minute before is in the way, and passes
        wait_s = WINDOW_S * (1 - (limit - taken) / max(before, 1)) - elapsed_s
    else:
        wait_s = WINDOW_S - elapsed_s + WINDOW_S * (1 - limit / taken)
    return max(1, math.floor(wait_s + 1e-6) + 1)  # later than that moment, at which it does not fit yet


@dataclass
class Tally:
    "What is known of a caller's requests in this minute."

    before: int  # in the minute before
    taken: int = 0  # in this one, by all processes
    spare: int = 0  # of those, claimed by this process and not used yet
    full_until: float = 0.0  # when a claim may be tried again


class SharedCounts:
    "Counts of all processes, in Redis or Valkey."

    def __init__(
        self,
        config: RedisConfig,  # with a URL
    ) -> None:
        redis = require_library("redis.asyncio", "redis")
        from limits.aio.storage import RedisStorage
        from limits.errors import StorageError

        waits = {"socket_timeout": SHARED_ANSWER_S, "socket_connect_timeout": SHARED_ANSWER_S}
        self.pool = redis.ConnectionPool.from_url(config.url, db=config.db, **waits)
        place, prefix = f"async+{config.url}", f"{config.prefix}rate"
        self.storage = RedisStorage(place, True, "redispy", prefix, connection_pool=self.pool)
        self.faults = (StorageError, OSError)  # of a server that is away
        self.asked_again_at = 0.0  # by the monotonic clock; 0: the server answers

    @property
    def up(self) -> bool:
        "Say whether the server may be asked."
        return time.monotonic() >= self.asked_again_at

    async def claim(
        self,
        tally: Tally,  # gets what was claimed
        who: str,  # is counted
        limit: int,  # in a minute
        moment: float,  # seconds since 1970
    ) -> bool:
        "Claim some requests, none when there are none left; return False when the server is away."
        window, elapsed = divmod(moment, WINDOW_S)
        here, size = f"{who}/{window:.0f}", max(1, limit // CLAIMS)
        self.asked_again_at, away = (time.monotonic() + SHARED_AGAIN_S, True) if self.asked_again_at else (0.0, False)
        try:
            total = await self.storage.incr(here, 2 * WINDOW_S, size)
            if not tally.taken:
                tally.before = await self.storage.get(f"{who}/{window - 1:.0f}")
            past = past_count(tally.before, elapsed)
            got = min(size, max(0, limit - past - (total - size)))
            if got < size:
                total = await self.storage.incr(here, 2 * WINDOW_S, got - size)
        except self.faults as error:  # nobody is refused for it
            if not away and not self.asked_again_at:  # others may have failed at the same time
                reason = type(error).__name__
                get_logger("service").warning("requests are counted in this process alone", reason=reason)
            self.asked_again_at = time.monotonic() + SHARED_AGAIN_S
            return False
        if away:
            self.asked_again_at = 0.0
            get_logger("service").info("requests are counted over all processes again")
        tally.taken, tally.spare = total, tally.spare + got
        return True

    async def close(self) -> None:
        "Leave the server."
        with suppress(OSError):
            await self.pool.aclose()


class Rates:
    "Counts requests by caller, and says how each stands."

    def __init__(
        self,
        shared: SharedCounts | None = None,  # None: in this process alone
    ) -> None:
        self.shared, self.window = shared, 0
        self.now: dict[str, Tally] = {}
        self.last: dict[str, Tally] = {}

    async def hit(
        self,
        who: str,  # is counted: a user on a plan, or an address
        policy: str,  # that names the limit
        limit: int,  # in a minute
    ) -> RateStanding:
        "Count one request, unless it is one too many, and return how the caller stands."
        moment = time.time()
        tally, elapsed = self._tally(who, int(moment // WINDOW_S)), moment % WINDOW_S
        past = past_count(tally.before, elapsed)
        if not tally.spare:
            if self.shared and self.shared.up and moment >= tally.full_until:
                claimed = await self.shared.claim(tally, who, limit, moment)
                past = past_count(tally.before, elapsed)
            else:
                claimed = False
            if not claimed and tally.full_until <= moment and past + tally.taken < limit:
                tally.taken, tally.spare = tally.taken + 1, 1
        reset_s = math.ceil(WINDOW_S - elapsed)
        if not tally.spare:
            wait_s = wait_for(tally.before, tally.taken, limit, elapsed)
            if self.shared:
                tally.full_until = max(tally.full_until, moment + min(wait_s, 1))
            return RateStanding(policy, limit, 0, reset_s, wait_s)
        tally.spare -= 1
        return RateStanding(policy, limit, max(0, limit - past - tally.taken + tally.spare), reset_s, 0)

    def _tally(self, who: str, window: int) -> Tally:
        if window != self.window:
            self.last = self.now if window == self.window + 1 else {}
            self.now, self.window = {}, window
        tally = self.now.get(who)
        if tally is None:
            old = self.last.get(who)
            tally = self.now[who] = Tally(old.taken - old.spare if old else 0)
        return tally

    async def close(self) -> None:
        "Leave the server, if there is one."
        if self.shared:
            await self.shared.close()
