"""The application around the generated routes: who is asking, what a route needs, the API page."""

# What a route needs stands in the route: `dependencies=[needs("trade")]`. The three ways to send a key are declared with
# it, so that the API page can offer them. That page is served from the package, not from a content network: it works
# offline, nobody else learns of it, and what is tried on it is sent with the key the page was opened with.

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from string import Template
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer, SecurityScopes
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from orbiquant._version import __version__
from orbiquant.core import OrbiError, Plan, Scope
from orbiquant.domain import Caller, RawRequest
from orbiquant.runtime import current
from orbiquant.service.chat_page import CHAT_PATHS, add_chat_page
from orbiquant.service.dashboard import DASHBOARD_PATHS, add_dashboard
from orbiquant.service.errors import Problem, on_error, on_http_error, on_invalid
from orbiquant.service.gate import Gate, Gatekeeper
from orbiquant.service.kept import PLAN_MARK, check_needs
from orbiquant.service.memory import give_back_regularly
from orbiquant.service.metrics import add_metrics
from orbiquant.service.openai_form import OpenAiErrors
from orbiquant.service.routes import NamedRoute, described_refusal
from orbiquant.service.socket import SOCKET_PATH, add_socket, open_socket
from orbiquant.service.stream_routes import Streams, add_streams

BEARER_KEY = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key, a signed token (JWT) or the console's token.")
HEADER_KEY = APIKeyHeader(auto_error=False, scheme_name="header", name="X-API-Key")
QUERY_KEY = APIKeyQuery(auto_error=False, scheme_name="query", name="token", description="On GET only.")
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: described_refusal(text)
    for status, text in {
        400: "Not readable",
        401: "No valid key",
        403: "Wrong scope",
        404: "Nothing of this name",
        409: "Not as things stand",
        410: "No longer kept",
        422: "Not valid",
        429: "Too many requests",
        501: "A library that is not installed here",
        503: "Not now: no usable model, too many turns wait, or the service is ending",
        504: "Takes longer than the service waits; it may still be carried out",
    }.items()
}


async def caller_of(
    request: Request,  # has been through the gate
) -> Caller | None:
    "Return the `Caller` behind a request, None for a stranger on a public path."
    return request.state.caller


async def raw_request_of(
    request: Request,  # has been through the gate
) -> RawRequest:
    "Return a request as it came, for a route that looks at its bytes."
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400, "the body ended before its end") from error
    return RawRequest(
        body, tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
    )


async def check_scope(
    needed: SecurityScopes,  # what the route asks for
    request: Request,  # has been through the gate
    bearer: Annotated[Any, Security(BEARER_KEY)],  # declared for the API page
    header: Annotated[Any, Security(HEADER_KEY)],  # declared for the API page
    query: Annotated[Any, Security(QUERY_KEY)],  # declared for the API page
) -> None:
    "Raise `AuthError` for a stranger, `ForbiddenError` unless the caller has every scope and the plan."
    caller: Caller | None = request.state.caller
    request.state.needed = needed.scopes  # whoever is given the same answer again must have them too
    check_needs(caller, needed.scopes)  # the gate lets a stranger pass for another method of this path


def needs(
    scope: Scope,  # "read", "write" or "trade"
    plan: Plan = "free",  # the cheapest that may ask
) -> Any:
    "Return the dependency that lets only callers with a scope, and on a plan, pass."
    return Security(check_scope, scopes=[scope] if plan == "free" else [scope, f"{PLAN_MARK}{plan}"])


@asynccontextmanager
async def lifespan(
    app: FastAPI,  # gets its gatekeeper
) -> AsyncIterator[None]:
    "Open what the settings name before the first request."
    runtime = current()
    gatekeeper = app.state.gatekeeper = Gatekeeper(runtime, getattr(app.state, "console_token", None))
    app.state.streams, app.state.socket = Streams(runtime), open_socket(runtime, gatekeeper)
    memory = asyncio.create_task(give_back_regularly())
    yield
    memory.cancel()
    await app.state.streams.close()
    await gatekeeper.close()


class DescribedApp(FastAPI):
    "An application whose description has the model of a problem once, to which every refusal refers."

    def openapi(self) -> dict[str, Any]:
        "Return the description of the API."
        if self.openapi_schema is None:
            models = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            models["Problem"] = Problem.model_json_schema()
        return super().openapi()


def create_app(
    public: Iterable[str] = (),  # paths that need no key
    kept: Iterable[str] = (),  # paths whose answers are given again
    computing: Iterable[str] = (),  # paths that take their turn
    signed: Iterable[str] = (),  # paths whose signature is the only identity
    title: str = "OrbiQuant",  # of the API
    version: str = __version__,  # of the API
    ours: bool = True,  # whether OrbiQuant's own pages and streams are there
) -> FastAPI:
    "Return the application around the generated routes."
    app = DescribedApp(
        title=title,
        version=version,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,  # they would go to wherever `Host` says
        responses=REFUSALS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.router.route_class = NamedRoute
    open_to_all = [*public, "/favicon.ico"]
    if ours:
        open_to_all += [*CHAT_PATHS, *DASHBOARD_PATHS, SOCKET_PATH]  # who opens a socket says who it is in it
    app.add_middleware(Gate, public=open_to_all, kept=kept, computing=computing, signed=signed)
    app.add_middleware(OpenAiErrors)  # around the gate, whose refusals are told so, too
    app.add_exception_handler(OrbiError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    add_api_page(app, home=not ours)
    if ours:
        add_chat_page(app)
        add_dashboard(app)
        add_streams(app)
        add_socket(app)
    add_metrics(app, needs("read"))
    return app


API_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css?token=$token">
</head>
<body>
<div id="page"></div>
<script src="/docs/assets/swagger-ui-bundle.js?token=$token"></script>
<script>
SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true,
  requestInterceptor: (request) => {
    if (!request.headers.Authorization) request.headers["X-API-Key"] ||= "$token";
    return request;
  },
});
</script>
</body>
</html>
""")


class Assets(StaticFiles):
    "The files of the API page, each as a whole: nobody needs parts of them, and asking for parts can be made costly."

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        "Answer with a file."
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def add_api_page(
    app: FastAPI,  # gets /docs and /openapi.json
    home: bool = False,  # whether `/` leads there
) -> None:
    "Add the description of the API and a page to try it; all need a key like everything else."
    app.mount("/docs/assets", Assets(packages=[("fastapi_offline", "static")]))

    def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    def token_of(request: Request) -> str:
        return quote(request.query_params.get("token", ""), safe="")

    def lead(request: Request) -> RedirectResponse:
        return RedirectResponse(f"docs?token={token}" if (token := token_of(request)) else "docs")

    def icon() -> Response:
        return Response(status_code=204)  # browsers ask for it without a key

    def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(API_PAGE.substitute(title=app.title, token=token_of(request)))

    own: dict[str, Callable[..., Any]] = {"/favicon.ico": icon, "/docs": docs, "/openapi.json": openapi}
    for path, function in (own | ({"/": lead} if home else {})).items():
        app.add_api_route(path, function, include_in_schema=False)
