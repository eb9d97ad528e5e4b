"""The REST door."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.fake_binance import signing
from tests.fake_binance.answers import Refused
from tests.fake_binance.routes import REST, WALLET, Route
from tests.fake_binance.service import PAGE, Ask, Hangup, Page, Venue


async def hear(request: web.Request) -> Ask:
    """Return a request as the venue takes it: what stands in the query goes before what stands in the body."""
    query = request.raw_path.partition("?")[2]
    body = (await request.read()).decode("utf-8", errors="replace")
    payload, signature = signing.rest_payload(query, body)
    params: dict[str, Any] = dict(parse_qsl(body, keep_blank_values=True))
    params |= dict(parse_qsl(query, keep_blank_values=True))
    key = request.headers.get("X-MBX-APIKEY")
    return Ask("rest", request.method, request.path, params, payload, signature, key)


async def serve(request: web.Request, table: dict[tuple[str, str], Route]) -> web.Response:
    """Answer a REST request."""
    venue: Venue = request.app[VENUE]
    route = table.get((request.method, request.match_info["path"]))
    ask = await hear(request)
    if route is None:
        return web.json_response({"code": -1000, "msg": "Path not found."}, status=404)
    status, headers = 200, {}
    try:
        body = await venue.answer(ask, route)
    except Refused as refusal:
        status, body = refusal.status, refusal.body()
        if refusal.retry_after_s is not None:
            headers["Retry-After"] = str(refusal.retry_after_s)
    except Hangup:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # nobody hears it
    except Page:
        return web.Response(text=PAGE, content_type="text/html", status=502)
    headers |= venue.limits.headers(venue.clock.now_ms(), of_orders=bool(route.orders))
    return web.json_response(body, status=status, headers=headers)


async def serve_spot(request: web.Request) -> web.Response:
    """Answer a request under `/api/v3`."""
    return await serve(request, REST)


async def serve_wallet(request: web.Request) -> web.Response:
    """Answer a request under `/sapi/v1`."""
    return await serve(request, WALLET)


VENUE: web.AppKey[Venue] = web.AppKey("venue", Venue)


def add_rest(app: web.Application) -> None:
    """Open the door."""
    app.router.add_route("*", "/api/v3/{path:.*}", serve_spot)
    app.router.add_route("*", "/sapi/v1/{path:.*}", serve_wallet)
