"""Market data streams: trades, best prices and bars, by `/ws` and `/stream`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

from tests.fake_binance.market import LENGTHS_MS, opened_at
from tests.fake_binance.rest import VENUE
from tests.fake_binance.service import PAGE, Venue


class Watcher:
    """One client of the market data streams."""

    def __init__(self, venue: Venue, socket: web.WebSocketResponse, combined: bool, names: list[str]) -> None:
        self.venue = venue
        self.socket = socket
        self.combined = combined
        self.names = set(names)
        self._out: asyncio.Queue[dict[str, Any] | str | None] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until either side ends it."""
        self.venue.watchers.add(self)
        writer = asyncio.create_task(self.write())
        try:
            async for message in self.socket:
                if message.type == WSMsgType.TEXT:
                    self._out.put_nowait(self.take(message.data))
        finally:
            self.venue.watchers.discard(self)
            writer.cancel()

    async def write(self) -> None:
        """Send what waits, in its order."""
        while (told := await self._out.get()) is not None:
            if not self.socket.closed:
                await self.socket.send_str(told if isinstance(told, str) else json.dumps(told, ensure_ascii=False))
        await self.socket.close()

    def end(self) -> None:
        """Have the connection closed after all that waits."""
        self._out.put_nowait(None)

    def take(self, text: str) -> dict[str, Any]:
        """Return the answer to a control message."""
        try:
            asked = json.loads(text)
            method, number, params = asked["method"], asked.get("id"), asked.get("params") or []
        except (ValueError, KeyError, TypeError):
            return {"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}}
        result: Any = None
        if method == "SUBSCRIBE":
            self.names |= set(params)
        elif method == "UNSUBSCRIBE":
            self.names -= set(params)
        elif method == "LIST_SUBSCRIPTIONS":
            result = sorted(self.names)
        else:
            return {"error": {"code": 2, "msg": f"Invalid request: unknown variant `{method}`"}, "id": number}
        return {"result": result, "id": number}

    def hear(self, topic: str, payload: dict[str, Any]) -> None:
        """Send on what this client watches."""
        if not topic.endswith("@kline"):
            if topic in self.names:
                self.tell(topic, payload)
            return
        for name in self.names:
            head, _, interval = name.partition("@kline_")
            if f"{head}@kline" == topic and interval in LENGTHS_MS:
                self.tell(name, self.bar(interval, **payload))

    def bar(self, interval: str, symbol: str, opened_ms: int, closed: bool) -> dict[str, Any]:
        """Return the event of a bar of a length."""
        market = self.venue.engine.markets[symbol]
        start = opened_at(opened_ms, interval)
        end = start + LENGTHS_MS[interval] - 1
        row = market.klines(interval, start, start, 1)[0]
        done = closed and opened_ms + LENGTHS_MS["1m"] - 1 >= end
        told = {"t": start, "T": end, "s": symbol, "i": interval, "f": 1, "L": market.trade_id}
        told |= {"o": row[1], "c": row[4], "h": row[2], "l": row[3], "v": row[5], "n": row[8], "x": done}
        told |= {"q": row[7], "V": row[9], "Q": row[10], "B": "0"}
        return {"e": "kline", "E": self.venue.clock.now_ms(), "s": symbol, "k": told}

    def tell(self, name: str, payload: dict[str, Any]) -> None:
        """Have an event sent."""
        self._out.put_nowait({"stream": name, "data": payload} if self.combined else payload)

    def say(self, text: str) -> None:
        """Have a text sent as it is."""
        self._out.put_nowait(text)

    def shut_down(self) -> None:
        """Say that the server goes away."""
        self.tell("!serverShutdown", {"e": "serverShutdown", "E": self.venue.clock.now_ms()})


async def serve_stream(request: web.Request) -> web.StreamResponse:
    """Open a connection, or send the page that a gateway sends."""
    venue = request.app[VENUE]
    if venue.paged:
        return web.Response(text=PAGE, content_type="text/html")
    socket = web.WebSocketResponse(heartbeat=venue.ping_s)
    await socket.prepare(request)
    combined = request.path.startswith("/stream")
    told = request.query.get("streams", "") if combined else request.match_info.get("names", "")
    names = [name for name in told.split("/") if name and not name.isdigit()]
    await Watcher(venue, socket, combined, names).run()
    return socket
