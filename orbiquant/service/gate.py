"""What every request goes through before its function: identity, rate limit, body limit, errors, one log line."""

# A plain ASGI layer in front of routing: identity first, so that a stranger's body is not even read. Three promises: no
# request gets past the gate without a key unless its path is public, nothing a caller sends makes a 5xx, and no key is
# ever logged.

import asyncio
import math
import re
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orbiquant.core import AuthError, log_context
from orbiquant.domain import Caller, local_caller
from orbiquant.ports import Clock
from orbiquant.service.auth import find_credential
from orbiquant.service.errors import RateLimitError, UnavailableError, answer_error
from orbiquant.service.kept import KeptAnswers
from orbiquant.service.known import KnownKeys
from orbiquant.service.metrics import METERS
from orbiquant.service.request_log import RequestLog

if TYPE_CHECKING:
    from sqlalchemy import Engine

MAX_BODY_BYTES = 1_048_576
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Gatekeeper:
    "Knows the keys and counts the requests."

    def __init__(
        self,
        engine: "Engine",  # a migrated database with the keys
        clock: Clock,  # when keys are used
        requests_per_minute: int,  # of one caller
        console_token: str | None = None,  # accepted besides keys; None: keys only
    ) -> None:
        from limits import RateLimitItemPerMinute
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self.engine, self.clock = engine, clock
        self.console_token = console_token
        self.rate = RateLimitItemPerMinute(requests_per_minute)
        self.limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self.known = KnownKeys(self.verify)
        self.log = RequestLog()

    async def verify(
        self,
        key: str,  # what a caller sent
    ) -> Caller:
        "Return whose key it is by the database; raise `AuthError` for one that is not valid."
        from orbiquant.service.keys import authenticate

        return await run_in_threadpool(authenticate, self.engine, key, self.clock)

    async def identify(
        self,
        connection: HTTPConnection,  # a request, or the opening of a WebSocket
        public: bool,  # whether a stranger may pass
    ) -> Caller | None:
        "Return who is calling; raise `AuthError` for a stranger, who is counted by address."
        try:
            caller = await self.find_caller(connection)
            if caller is None and not public:
                raise AuthError(
                    "an API key is required: send it as `Authorization: Bearer …` or `X-API-Key`, "
                    "or open the address that `orbiquant serve` printed, with its token"
                )
        except AuthError:
            await self.count(None, connection)
            raise
        return caller

    async def find_caller(
        self,
        connection: HTTPConnection,  # whose key is looked at
    ) -> Caller | None:
        "Return whose key a request carries, None without one; raise `AuthError` for one that is not valid."
        method = connection.scope.get("method", "GET")
        query = connection.query_params if connection.scope["query_string"] else {}
        key = find_credential(method, connection.headers, query)
        if key is None:
            return None
        if self.console_token and secrets.compare_digest(key.encode(), self.console_token.encode()):
            return local_caller("console")
        return await self.known.find(key)

    async def count(
        self,
        caller: Caller | None,  # a stranger is counted by address
        connection: HTTPConnection,  # which has it
    ) -> None:
        "Count one request; raise `RateLimitError` when there were too many."
        who = caller.id if caller else f"address:{connection.client.host if connection.client else 'unknown'}"
        if not await self.limiter.hit(self.rate, who):
            stats = await self.limiter.get_window_stats(self.rate, who)
            wait_s = max(1, math.ceil(stats.reset_time - time.time()))
            raise RateLimitError(
                f"more than {self.rate.amount} requests a minute; try again in {wait_s} s", retry_after_s=wait_s
            )


class Gate:
    "The ASGI layer that lets a request in, names it, answers what fails and logs it."

    def __init__(
        self,
        app: ASGIApp,  # what is behind the gate
        public: Iterable[str] = (),  # paths that need no key
        kept: Iterable[str] = (),  # paths whose answers are given again
        computing: Iterable[str] = (),  # paths that take their turn
        signed: Iterable[str] = (),  # paths whose signature is the only identity
    ) -> None:
        self.app, self.public, self.marks = app, frozenset(public), (tuple(kept), tuple(computing))
        self.signed = frozenset(signed)
        self.answers = KeptAnswers(app, *self.marks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Pass one connection on."
        if scope["type"] == "lifespan":
            self.answers = KeptAnswers(self.app, *self.marks)  # another life may have another runtime and another loop
            await self.app(scope, until_cancelled(receive), send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        await self.handle(scope, receive, NamedSend(send, request_id))

    async def handle(
        self,
        scope: Scope,  # the connection
        receive: Receive,  # its input
        send: "NamedSend",  # its output
    ) -> None:
        "Let one request in, or answer why not, and log how it ended."
        if scope.get("method") == "HEAD":  # is answered like GET, and the server leaves the body out
            scope = {**scope, "method": "GET", "asked_method": "HEAD"}
        begin, caller, connection = time.perf_counter(), None, HTTPConnection(scope)
        gatekeeper: Gatekeeper = scope["app"].state.gatekeeper
        try:
            if scope["path"] not in self.signed:  # there a key says nothing, be it foreign or broken
                caller = await gatekeeper.identify(connection, scope["path"] in self.public)
            await gatekeeper.count(caller, connection)
            scope.setdefault("state", {})["caller"] = caller
            if answer := self.answers.find(scope):
                answer.check(caller)
                await answer.send_to(send)
            else:
                with log_context(request_id=send.request_id):
                    await self.answers(scope, limit_body(receive), send)
        except asyncio.CancelledError:  # the service is ending
            if scope["type"] == "http" and send.status is None:
                await answer_error(UnavailableError("the service is ending"))(scope, receive, send)
        except Exception as error:
            with log_context(request_id=send.request_id):
                problem = answer_error(error)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            elif send.status is None:
                await problem(scope, receive, send)
        took_s = time.perf_counter() - begin
        method = scope.get("asked_method") or scope.get("method", "WEBSOCKET")
        who = caller.id if caller else None
        gatekeeper.log.write(send.request_id, method, scope["path"], send.status, took_s * 1000, who)
        METERS.count(method, scope, send.status, took_s)


def until_cancelled(
    receive: Receive,  # of the application's own life
) -> Receive:
    "Return an input that ends in order when the server ends without asking: a second Ctrl-C is no error to be told."

    async def read() -> Message:
        try:
            return await receive()
        except asyncio.CancelledError:
            return {"type": "lifespan.shutdown"}

    return read


def limit_body(
    receive: Receive,  # a request's input
) -> Receive:
    "Return an input that ends with status 413 when a body is too large, whatever length it claims."
    size = 0

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body may have {MAX_BODY_BYTES:,} bytes")
        return message

    return read


class NamedSend:
    "A sender that adds the common headers and remembers the status."

    def __init__(
        self,
        send: Send,  # the server's
        request_id: str,  # put in the answer's headers
    ) -> None:
        self.send, self.request_id = send, request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        "Send one message."
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            named = (b"x-request-id", self.request_id.encode())
            message = {**message, "headers": [*message["headers"], *_HEADERS, named]}
        await self.send(message)
