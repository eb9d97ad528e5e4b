"""The tools over MCP for other machines and other programs: streamable HTTP behind the same gate as the service."""

# Identity, rate, body limit and the names that we answer to are the service's own. What is added is the protocol's rule
# that a page of another origin may not even ask: a browser sends such a request without asking anybody first. A request
# says all there is to know, so that there are no sessions and no streams that stay open.

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from orbiquant.copilot.mcp import McpOffer, mcp_server
from orbiquant.core import AuthError, ForbiddenError
from orbiquant.domain import Caller
from orbiquant.runtime import Runtime, current
from orbiquant.service.errors import on_http_error
from orbiquant.service.gate import MAX_BODY_BYTES, Gate, Gatekeeper
from orbiquant.service.origins import Origins
from orbiquant.service.serving import serve_app, url_of

MCP_PATH = "/mcp"


def mcp_caller(
    request: Any,  # of HTTP, has been through the gate
) -> Caller:
    "Return who is behind a request; whoever has the token that was printed is this server's, and not the console's."
    caller: Caller | None = request.state.caller if request is not None else None
    if caller is None:
        raise AuthError("an API key is needed, was none")
    return replace(caller, id="mcp") if caller.id == "console" else caller


class Posted:
    "Lets requests pass that are posted by programs, or by pages of ours: there is no stream to be opened otherwise."

    def __init__(
        self,
        app: ASGIApp,  # the protocol
        pages: Origins,  # knows whose pages may ask
    ) -> None:
        self.app, self.pages = app, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Pass one request on, or refuse it."
        if scope["type"] == "http" and scope["path"] == MCP_PATH:
            headers = Headers(scope=scope)
            if not self.pages.may_open(headers):
                page = headers["origin"][:100]
                raise ForbiddenError(f"pages of {page!r} may not ask; `[service] origins` may name them")
            if scope["method"] != "POST":
                wrong = await on_http_error(Request(scope), HTTPException(405, headers={"Allow": "POST"}))
                await wrong(scope, receive, send)
                return
        await self.app(scope, receive, send)


def mcp_app(
    runtime: Runtime,  # settings, database
    offer: McpOffer,  # what is switched on
    host: str,  # that is listened on
    token: str | None,  # accepted besides keys
) -> Starlette:
    "Return the protocol behind the gate: stateless, so that no session is there to be stolen."
    from mcp.server.transport_security import TransportSecuritySettings

    config = runtime.settings.service
    app = mcp_server(runtime, offer, mcp_caller).streamable_http_app(
        streamable_http_path=MCP_PATH, stateless_http=True, max_request_body_size=MAX_BODY_BYTES, host=host,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # `Origins` does it
    )  # fmt: skip
    protocol = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Any]:
        gatekeeper = app.state.gatekeeper = Gatekeeper(runtime, token)
        async with protocol(app) as state:
            yield state
        await gatekeeper.close()

    app.router.lifespan_context = lifespan
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_middleware(Posted, pages=Origins(app, host, config.origins))
    app.add_middleware(Gate)
    return app


def serve_mcp(
    offer: McpOffer,  # what is switched on
    host: str,  # address to listen on
    port: int,  # 0: any free one
    announce: Callable[[str, str | None], None],  # told the address, and a token that is accepted besides keys
) -> None:
    "Serve until interrupted; raise `SettingsError` when others could reach it and there is no API key."
    runtime = current()

    def told(bound: int, token: str | None) -> None:
        announce(url_of(host, bound, MCP_PATH), token)

    serve_app(lambda token: mcp_app(runtime, offer, host, token), host, port, told)
