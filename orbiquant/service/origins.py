"""What a browser may do here: which pages may read our answers, and under which names we answer at all."""

# A service on 127.0.0.1 is reached by every page that is open on the machine. Pages of another origin may not read what
# it answers unless `[service] origins` names them. A page whose own name is made to point at 127.0.0.1 (DNS rebinding)
# would count as the same origin: its requests carry its name in `Host`, to which we do not answer there. No cookie is
# ever set or read, so that no request carries a key that the page does not have.

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from orbiquant.service.auth import is_loopback
from orbiquant.service.errors import Problem, respond

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SENT_HEADERS = ("Authorization", "X-API-Key", "X-Request-ID", "Idempotency-Key", "Last-Event-ID")
READ_HEADERS = ("X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy")


def bare_host(
    place: str,  # "host", "host:port", "[::1]:port"
) -> str:
    "Return a host without its port, as it is compared."
    name, _, port = place.rpartition(":")
    return (name if name and (port.isdigit() or not port) and not name.endswith(":") else place).lower().rstrip(".")


class Origins:
    "The outermost ASGI layer: CORS, the origins of WebSockets, and the names that a service on loopback answers to."

    def __init__(
        self,
        app: ASGIApp,  # the whole application
        host: str,  # that is listened on
        origins: Sequence[str],  # whose pages may ask
    ) -> None:
        self.app, self.origins = app, frozenset(origins)
        if origins:
            self.app = CORSMiddleware(app, origins, METHODS, SENT_HEADERS, expose_headers=READ_HEADERS)
        bound = f"[{host}]" if ":" in host else host
        ours = ("localhost", "127.0.0.1", "[::1]", bound, *(urlsplit(origin).netloc for origin in origins))
        self.names = frozenset(map(bare_host, ours)) if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Pass one connection on, or refuse it."
        if scope["type"] != "lifespan" and self.names is not None:
            for name, value in scope["headers"]:
                if name == b"host" and not self.is_ours(value.decode("latin-1")):
                    await self.refuse(scope, receive, send, value.decode("latin-1"))
                    return
        if scope["type"] == "websocket" and not self.may_open(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def is_ours(
        self,
        place: str,  # from `Host`
    ) -> bool:
        "Say whether we answer to a name."
        return self.names is None or bare_host(place) in self.names

    def may_open(
        self,
        headers: Headers,  # of the opening of a WebSocket
    ) -> bool:
        "Say whether a page may open a WebSocket: one of ours or of a named origin; programs tell no origin."
        origin = headers.get("origin")
        return origin is None or origin in self.origins or urlsplit(origin).netloc == headers.get("host", "")

    async def refuse(
        self,
        scope: Scope,  # the connection
        receive: Receive,  # its input
        send: Send,  # its output
        place: str,  # what it calls us
    ) -> None:
        "Answer a request for somebody else."
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        message = f"this service answers to {listed_names(self.names or ())}, not to {place[:100]!r}; `[service] origins` may name more"
        await respond(421, Problem(error="MISDIRECTED_REQUEST", message=message))(scope, receive, send)


def listed_names(
    names: Iterable[str],  # of hosts
) -> str:
    "Return names as a message lists them."
    return ", ".join(sorted(names, key=lambda name: (name != "localhost", name)))
