"""The WebSocket API: requests as JSON, and an account's events."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from aiohttp import WSMsgType, web

from tests.fake_binance import signing
from tests.fake_binance.answers import Refused
from tests.fake_binance.rest import VENUE
from tests.fake_binance.routes import SOCKET, Route
from tests.fake_binance.service import Ask, Hangup, Listener, Page, Venue


class Connection:
    """One client of the WebSocket API."""

    def __init__(self, venue: Venue, socket: web.WebSocketResponse, counted: bool = True) -> None:
        self.venue = venue
        self.counted = counted
        self.socket = socket
        self.listeners: dict[int, Listener] = {}
        self._numbers = itertools.count()
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until either side ends it."""
        self.venue.sockets.add(self)
        writer = asyncio.create_task(self.write())
        try:
            async for message in self.socket:
                if message.type == WSMsgType.TEXT:
                    self.venue.start(self.take(message.data))
        finally:
            self.venue.sockets.discard(self)
            for number in list(self.listeners):
                self.unlisten(number)
            writer.cancel()

    async def write(self) -> None:
        """Send what waits, in its order."""
        while (told := await self._out.get()) is not None:
            if not self.socket.closed:
                await self.socket.send_str(json.dumps(told, ensure_ascii=False))
        await self.socket.close()

    def send(self, told: dict[str, Any]) -> None:
        """Have something sent."""
        self._out.put_nowait(told)

    def end(self) -> None:
        """Have the connection closed after all that waits."""
        self._out.put_nowait(None)

    def hang_up(self) -> None:
        """End the connection as a broken line does."""
        request = self.socket._req
        if request is not None and request.transport is not None:
            request.transport.abort()

    async def take(self, text: str) -> None:
        """Answer one request."""
        try:
            asked = json.loads(text)
            method = str(asked["method"]).removeprefix("v3/")
            params = dict(asked.get("params") or {})
        except (ValueError, KeyError, TypeError):
            self.send({"id": None, "status": 400, "error": {"code": -1135, "msg": "Invalid JSON Request"}})
            return
        payload, signature = signing.socket_payload(params)
        key = params.get("apiKey")
        ask = Ask("ws", method, method, params, payload, signature, key)
        route = SOCKET.get(method)
        counted = params.get("returnRateLimits", self.counted) is not False
        of_orders = bool(route and route.orders)
        try:
            told = {
                "status": 200,
                "result": await self.venue.answer(ask, route or self.about_stream(method, signature)),
            }
        except Refused as refusal:
            told = {"status": refusal.status, "error": self.told_error(refusal)}
        except (Hangup, Page):
            self.hang_up()
            return
        limits = {"rateLimits": self.venue.limits.state(self.venue.clock.now_ms(), of_orders)} if counted else {}
        self.send({"id": asked.get("id")} | told | limits)

    def told_error(self, refusal: Refused) -> dict[str, Any]:
        """Return a refusal as it is sent here: when to come back stands in its data."""
        error = refusal.body()
        if refusal.retry_after_s is not None:
            now_ms = self.venue.clock.now_ms()
            error["data"] = {"serverTime": now_ms, "retryAfter": now_ms + refusal.retry_after_s * 1000}
        return error

    # An account's events

    def about_stream(self, method: str, signature: str | None) -> Route:
        """Return the route of a method about this connection's subscriptions."""
        deeds = {
            "userDataStream.subscribe.signature": self.subscribe,
            "userDataStream.unsubscribe": self.unsubscribe,
            "session.subscriptions": self.tell_subscriptions,
            "session.status": self.tell_status,
        }
        return Route(2, deeds.get(method, self.refuse_method), signed=signature is not None)

    def refuse_method(self, venue: Venue, account: Any, params: dict[str, Any]) -> Any:
        """Refuse what does not exist; `userDataStream.start` is gone."""
        raise Refused(-1020, "This operation is not supported.")

    def subscribe(self, venue: Venue, account: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Begin to send an account's events."""
        if account is None:
            raise Refused(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
        if any(listener.account == account.key for listener in self.listeners.values()):
            raise Refused(-2035, "User Data Stream subscription already active.")
        number = next(self._numbers)
        listener = Listener(account.key, lambda event: self.send({"subscriptionId": number, "event": event}))
        self.listeners[number] = listener
        venue.listeners.append(listener)
        venue.log.write("subscribed", account=account.key, subscription=number)
        return {"subscriptionId": number}

    def unsubscribe(self, venue: Venue, account: Any, params: dict[str, Any]) -> dict[str, Any]:
        """End one subscription or all."""
        told = params.get("subscriptionId")
        ended = list(self.listeners) if told is None else [int(told)]
        if any(number not in self.listeners for number in ended) or not ended:
            raise Refused(-2036, "User Data Stream subscription not active.")
        for number in ended:
            self.listeners[number].send({"e": "eventStreamTerminated", "E": venue.clock.now_ms()})
            self.unlisten(number)
        return {}

    def unlisten(self, number: int) -> None:
        """Forget a subscription."""
        self.venue.listeners.remove(self.listeners.pop(number))

    def terminate(self) -> None:
        """End every subscription as the venue does, and say so."""
        for number in list(self.listeners):
            self.listeners[number].send({"e": "eventStreamTerminated", "E": self.venue.clock.now_ms()})
            self.unlisten(number)

    def tell_subscriptions(self, venue: Venue, account: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Tell which subscriptions there are."""
        return [{"subscriptionId": number} for number in self.listeners]

    def tell_status(self, venue: Venue, account: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Tell about the connection, which nobody has logged on to."""
        status = {"apiKey": None, "authorizedSince": None, "connectedSince": venue.clock.now_ms()}
        return status | {
            "returnRateLimits": True,
            "serverTime": venue.clock.now_ms(),
            "userDataStream": bool(self.listeners),
        }


async def serve_socket(request: web.Request) -> web.WebSocketResponse:
    """Open a connection."""
    venue = request.app[VENUE]
    socket = web.WebSocketResponse(heartbeat=venue.ping_s)
    await socket.prepare(request)
    await Connection(venue, socket, request.query.get("returnRateLimits") != "false").run()
    return socket
