"""Where the events of a stream get their numbers: in this process, or in Redis for all processes alike."""

# In Redis a number is given and its event kept in one step, which also looks whether that bar was told already. So two
# processes that both believe to be the one that publishes tell nothing twice, and whoever takes over knows what was told.

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Protocol

from orbiquant.core import get_logger, require_library
from orbiquant.domain import SeriesId
from orbiquant.llm.config import RedisConfig
from orbiquant.service.streams import STREAM_KEPT, Hub, StreamEvent, numbered_text

READ_WAIT_S = 1.0  # that a look for the next event waits; then the epoch is looked at
REDIS_ANSWER_S = 5.0  # that Redis has to answer in
RELAY_AGAIN_S = 1.0  # before it is asked again


class Relay(Protocol):
    "Gives the events of a stream their numbers and brings them to its hub."

    hub: Hub
    ready: asyncio.Event  # the hub knows where the stream is

    async def begin(self, series: SeriesId, time: datetime) -> datetime:
        "Return the last bar of a series that was told; where none was, it is this one from now on."
        ...

    async def publish(self, kind: str, series: SeriesId, time: datetime, body: str) -> None:
        "Tell of a bar, unless it was told."
        ...

    async def run(self) -> None:
        "Bring events to the hub for as long as the service runs."
        ...


class LocalRelay:
    "Counts in this process, for this process."

    def __init__(
        self,
        hub: Hub,  # of the stream
    ) -> None:
        self.hub, self.ready = hub, asyncio.Event()
        self.told: dict[SeriesId, datetime] = {}
        self.ready.set()

    async def begin(self, series: SeriesId, time: datetime) -> datetime:
        "Return the last bar of a series that was told; where none was, it is this one from now on."
        return self.told.setdefault(series, time)

    async def publish(self, kind: str, series: SeriesId, time: datetime, body: str) -> None:
        "Tell of a bar, unless it was told."
        if series in self.told and self.told[series] >= time:
            return
        self.told[series] = time
        seq = self.hub.seq + 1
        self.hub.add(StreamEvent(seq, series, numbered_text(kind, seq, body)))

    async def run(self) -> None:
        "Wait: nothing comes from elsewhere."
        await asyncio.Event().wait()


_BEGIN = (  # epoch and number of a stream, made where there is none; keys: events, state; a fresh epoch
    "if redis.call('HSETNX', KEYS[2], '#epoch', ARGV[1]) == 1 then redis.call('DEL', KEYS[1]) end "
    "return {redis.call('HGET', KEYS[2], '#epoch'), redis.call('HGET', KEYS[2], '#seq') or '0'}"
)
_PUBLISH = (  # keys: events, state; a fresh epoch, series, time, kind, body, most
    "if redis.call('HSETNX', KEYS[2], '#epoch', ARGV[1]) == 1 then redis.call('DEL', KEYS[1]) end "
    "local told = redis.call('HGET', KEYS[2], ARGV[2]) "
    "if told and told >= ARGV[3] then return 0 end "
    "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) "
    "local seq = redis.call('HINCRBY', KEYS[2], '#seq', 1) "
    "redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[6], seq .. '-0', 'e', redis.call('HGET', KEYS[2], '#epoch'), "
    "'s', ARGV[2], 'k', ARGV[4], 'b', ARGV[5]) return seq"
)


def moment(
    time: datetime,  # of a bar
) -> str:
    "Return a time as text that sorts as times do."
    return time.astimezone(UTC).isoformat(timespec="microseconds")


class _OtherEpoch(Exception):
    "Redis has forgotten the stream, and counts anew."


class RedisRelay:
    "Counts in Redis or Valkey, for every process that is served from there."

    def __init__(
        self,
        hub: Hub,  # of the stream
        config: RedisConfig,  # with a URL
    ) -> None:
        require_library("redis", "redis")
        from redis.asyncio import Redis

        self.hub, self.ready = hub, asyncio.Event()
        waits: dict[str, Any] = {"socket_timeout": REDIS_ANSWER_S, "socket_connect_timeout": REDIS_ANSWER_S}
        self.client = Redis.from_url(config.url, db=config.db, decode_responses=True, protocol=2, **waits)
        self.keys = [f"{config.prefix}stream:{hub.name}", f"{config.prefix}stream:{hub.name}:state"]
        self._begin, self._publish = self.client.register_script(_BEGIN), self.client.register_script(_PUBLISH)

    async def begin(self, series: SeriesId, time: datetime) -> datetime:
        "Return the last bar of a series that was told; where none was, it is this one from now on."
        await self._begin(keys=self.keys, args=[token_hex(8)])
        await self.client.hsetnx(self.keys[1], str(series), moment(time))
        return datetime.fromisoformat(str(await self.client.hget(self.keys[1], str(series))))

    async def publish(self, kind: str, series: SeriesId, time: datetime, body: str) -> None:
        "Tell of a bar, unless it was told."
        told: list[str | int] = [token_hex(8), str(series), moment(time), kind, body, STREAM_KEPT]
        await self._publish(keys=self.keys, args=told)

    async def run(self) -> None:
        "Bring events to the hub for as long as the service runs."
        from redis.exceptions import RedisError

        quiet = False
        try:
            while True:
                try:
                    await self._follow()
                except _OtherEpoch:
                    get_logger("streams").warning("the stream was begun anew elsewhere", stream=self.hub.name)
                except (RedisError, OSError, TimeoutError) as error:
                    if self.ready.is_set() or not quiet:
                        reason = type(error).__name__
                        get_logger("streams").warning("Redis does not answer", stream=self.hub.name, reason=reason)
                    quiet = True
                    self.ready.clear()
                    await asyncio.sleep(RELAY_AGAIN_S)
        finally:
            await self.client.aclose()

    async def _follow(self) -> None:
        epoch, seq = await self._begin(keys=self.keys, args=[token_hex(8)])
        if epoch != self.hub.epoch:
            found: Any = await self.client.xrevrange(self.keys[0], max=f"{seq}-0", count=STREAM_KEPT)
            self.hub.begin(epoch, int(seq), [self._event(*each) for each in reversed(found)])
        self.ready.set()
        while True:
            asked: dict[Any, Any] = {self.keys[0]: f"{self.hub.seq}-0"}
            got: Any = await self.client.xread(asked, count=STREAM_KEPT, block=int(1000 * READ_WAIT_S))
            for id_, fields in got[0][1] if got else ():
                if fields["e"] != self.hub.epoch:
                    raise _OtherEpoch
                self.hub.add(self._event(id_, fields))
            if not got and await self.client.hget(self.keys[1], "#epoch") != self.hub.epoch:
                raise _OtherEpoch

    def _event(self, id_: str, fields: dict[str, Any]) -> StreamEvent:
        seq, (symbol, frame) = int(id_.partition("-")[0]), fields["s"].rsplit(" ", 1)
        return StreamEvent(seq, SeriesId.parse(symbol, frame), numbered_text(fields["k"], seq, fields["b"]))
