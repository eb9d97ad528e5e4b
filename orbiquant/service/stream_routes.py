"""`/ws/market` and `/ws/signals`: bars and signals as they become known, to whoever listens."""

# The close codes: 1008 for who may not listen, says nonsense again and again or whose key is no longer valid; 1012 when
# the service ends; 1013 for who reads too slowly, or when Redis is away: come back with the last number that was seen.

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect

from orbiquant.core import AuthError, OptionError, OrbiError, get_logger
from orbiquant.desk.identity import require_plan
from orbiquant.domain import Caller, SeriesId
from orbiquant.runtime import Runtime
from orbiquant.service.errors import UnavailableError
from orbiquant.service.gate import Gatekeeper
from orbiquant.service.stream_relay import LocalRelay, RedisRelay, Relay
from orbiquant.service.stream_watch import StreamWatcher
from orbiquant.service.stream_wire import (
    MOST_SERIES,
    StreamOpening,
    problem_text,
    read_opening,
    read_wish,
    wanted_series,
)
from orbiquant.service.streams import Hub, StreamListener, message_text

STREAMS = ("market", "signals")
READY_S = 3.0  # that a client waits for the stream
MOST_FAULTS = 10  # of a client, one after the other
RECHECK_S = 30.0  # between two looks at a key
LAST_WORD_S = 1.0  # for a client that is let go to be told so
NOTHING_YET = 'nothing is subscribed yet: send {"type": "subscribe", "symbols": ["EURUSD"]}'
CLOSE_REFUSED, CLOSE_LATER = 1008, 1013


class Streams:
    "The streams of one service in one process; they begin with the first client."

    def __init__(
        self,
        runtime: Runtime,  # store, registry, settings
    ) -> None:
        self.runtime, self.hubs = runtime, {name: Hub(name) for name in STREAMS}
        self.relays: dict[str, Relay] = {}
        self.watcher: StreamWatcher | None = None
        self._tasks = list[asyncio.Task[None]]()

    async def hub(
        self,
        name: str,  # "market" or "signals"
    ) -> Hub:
        "Return a stream that knows where it is; raise `UnavailableError` where Redis does not say."
        if self.watcher is None:
            redis = self.runtime.settings.redis
            self.relays = {
                name: RedisRelay(hub, redis) if redis.url else LocalRelay(hub) for name, hub in self.hubs.items()
            }
            market, signals = (self.relays[each] for each in STREAMS)
            self.watcher = StreamWatcher(self.runtime, market, signals, shared=bool(redis.url))
            running = [each.run() for each in self.relays.values()]
            self._tasks = [
                asyncio.create_task(each) for each in (*running, self.watcher.run(), self.watcher.tell_signals())
            ]
        try:
            async with asyncio.timeout(READY_S):
                await self.relays[name].ready.wait()
                await self.watcher.looked.wait()
        except TimeoutError:
            raise UnavailableError("the stream cannot be read now; try again") from None
        return self.hubs[name]

    async def close(self) -> None:
        "End what looks at the store."
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)


class StreamSession:
    "One client of a stream."

    def __init__(
        self,
        websocket: WebSocket,  # accepted
        streams: Streams,  # of the service
        name: str,  # "market" or "signals"
    ) -> None:
        self.websocket, self.streams, self.name = websocket, streams, name
        self.listener, self.faults = StreamListener(), 0
        self.gatekeeper: Gatekeeper = websocket.app.state.gatekeeper

    async def run(self) -> None:
        "Serve the client until it leaves or is let go; others have room, too."
        try:
            caller = self._check(self.websocket.state.caller)
            self.gatekeeper.take_socket(caller.user_id)
        except OrbiError as error:
            await self._refuse(error)
            return
        try:
            await self._serve()
        finally:
            self.gatekeeper.give_socket(caller.user_id)

    async def _serve(self) -> None:
        try:
            opening = read_opening(self.websocket.query_params)
            hub = await self.streams.hub(self.name)
        except OrbiError as error:
            await self._refuse(error)
            return
        try:
            await self._open(hub, opening)
            await self._talk()
        finally:
            hub.leave(self.listener)

    async def _refuse(self, error: OrbiError) -> None:
        await self._end(CLOSE_LATER if isinstance(error, UnavailableError) else CLOSE_REFUSED, error)

    def _check(self, caller: Caller | None) -> Caller:
        if caller is None:
            raise AuthError("an API key is needed, was none")
        caller.require("read")
        if self.name == "signals":
            require_plan(caller.plan, "pro", "a signal")
        return caller

    async def _open(self, hub: Hub, opening: StreamOpening) -> None:
        found, refused = await asyncio.to_thread(
            wanted_series, self.streams.runtime, opening.symbols, opening.timeframe
        )
        self.listener.series |= {*found}
        answers = [*self._answers(found, refused)]
        if not opening.symbols:
            answers.append(message_text("subscribed", series=[], message=NOTHING_YET))
        hub.join(self.listener, opening.epoch, opening.since, answers)

    async def _talk(self) -> None:
        reader, sender = asyncio.create_task(self._read()), asyncio.create_task(self._send())
        slow = asyncio.create_task(self.listener.overflow.wait())
        tasks: set[asyncio.Task[Any]] = {reader, sender, slow}
        try:
            while not (await asyncio.wait(tasks, timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                await self.gatekeeper.identify(self.websocket, public=False)
            for task in tasks - {slow}:
                if task.done():
                    await task
        except AuthError as error:
            await self._stop(tasks)
            await self._end(CLOSE_REFUSED, error)
        except (WebSocketDisconnect, RuntimeError):
            get_logger("streams").debug("a client has left", stream=self.name)
        finally:
            await self._stop(tasks)
        if slow.done() and not slow.cancelled():
            get_logger("streams").warning("a client was too slow", stream=self.name)
            await self._end(CLOSE_LATER, None)

    async def _stop(self, tasks: set["asyncio.Task[Any]"]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _send(self) -> None:
        while True:
            await self.websocket.send_text(await self.listener.next())

    async def _read(self) -> None:
        while self.faults < MOST_FAULTS:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            try:
                await self.gatekeeper.count(self.websocket.state.caller, self.websocket)
                await self._hear(message.get("text"))
                self.faults = 0
            except OrbiError as error:
                self.faults += 1
                self.listener.put(problem_text(error))
        raise AuthError(f"{MOST_FAULTS} messages in a row could not be read")

    async def _hear(self, text: str | None) -> None:
        if text is None:
            raise OptionError("a message must be text, was binary")
        wish = read_wish(text)
        found, refused = await asyncio.to_thread(wanted_series, self.streams.runtime, wish.symbols, wish.timeframe)
        if wish.type == "unsubscribe":
            self.listener.series -= {*found}
        elif len(self.listener.series | {*found}) > MOST_SERIES:
            raise OptionError(f"one client may wait for {MOST_SERIES} series")
        else:
            self.listener.series |= {*found}
        for text in self._answers(found, refused, wish.type + "d"):
            self.listener.put(text)

    def _answers(self, found: list[SeriesId], refused: list[OrbiError], kind: str = "subscribed") -> Iterator[str]:
        if found:
            series = [{"symbol": each.symbol, "timeframe": each.timeframe} for each in found]
            yield message_text(kind, series=series)
        yield from map(problem_text, refused)

    async def _end(self, code: int, error: OrbiError | None) -> None:
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(LAST_WORD_S):
                while error is not None and self.listener.waiting:
                    await self.websocket.send_text(self.listener.waiting.popleft())
                if error is not None:
                    await self.websocket.send_text(problem_text(error))
                await self.websocket.close(code)


def add_streams(
    app: FastAPI,  # gets /ws/market and /ws/signals
) -> None:
    "Add the streams; each is behind the gate like everything else."

    def route(name: str) -> None:
        async def serve(websocket: WebSocket) -> None:
            await websocket.accept()
            await StreamSession(websocket, app.state.streams, name).run()

        app.add_api_websocket_route(f"/ws/{name}", serve, name=f"ws_{name}")

    for name in STREAMS:
        route(name)
