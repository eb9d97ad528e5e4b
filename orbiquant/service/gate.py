"""What every request goes through before its function: identity, rate limit, body limit, errors, one log line."""

# A plain ASGI layer in front of routing: identity first, so that a stranger's body is not even read. Three promises: no
# request gets past the gate without a key unless its path is public, nothing a caller sends makes a 5xx, and no key is
# ever logged.

import asyncio
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orbiquant.core import AuthError, Plan, log_context
from orbiquant.domain import Caller, local_caller
from orbiquant.runtime import Runtime
from orbiquant.service.auth import counted_address, find_credential
from orbiquant.service.errors import RateLimitError, TimedOutError, UnavailableError, answer_error
from orbiquant.service.kept import KeptAnswers
from orbiquant.service.keys import authenticate
from orbiquant.service.known import KnownKeys
from orbiquant.service.metrics import METERS
from orbiquant.service.rates import Rates, RateStanding, SharedCounts
from orbiquant.service.request_log import RequestLog
from orbiquant.service.tokens import TokenReader, looks_signed

MAX_BODY_BYTES = 1_048_576
STRANGERS: Plan = "pro"  # as much as on this plan may be asked from one address without a key
SOCKETS_OF_ONE = 5  # one user may hold one in so many of the connections as sockets
RETRY_READ_S = 5  # before what took too long to read is asked for again
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
NO_QUERY = QueryParams()
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Gatekeeper:
    "Knows the keys and counts the requests."

    def __init__(
        self,
        runtime: Runtime,  # settings, clock, and a migrated database with the keys
        console_token: str | None = None,  # accepted besides keys; None: keys only
    ) -> None:
        settings = runtime.settings
        self.runtime, self.config, self.console_token = runtime, settings.service, console_token
        keys_file = settings.tokens.keys_file
        self.tokens = TokenReader(settings.tokens, runtime.clock, settings.path(keys_file) if keys_file else None)
        self.rates = Rates(SharedCounts(settings.redis) if settings.redis.url else None)
        self.known = KnownKeys(self.verify, runtime.clock)
        self.log, self.sockets = RequestLog(), Counter[str]()  # open sockets, by user

    async def verify(
        self,
        credential: str,  # what a caller sent
    ) -> Caller:
        "Return who comes with a token, or whose key it is by the database; raise `AuthError` for neither."
        if looks_signed(credential):
            return self.tokens.read(credential)
        return await run_in_threadpool(authenticate, self.runtime.engine, credential, self.runtime.clock)

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
        query = connection.query_params if connection.scope["query_string"] else NO_QUERY
        key = find_credential(method, connection.headers, query)
        if key is None:
            return None
        return await self.owner_of(key)

    async def owner_of(
        self,
        key: str,  # what a caller sent
    ) -> Caller:
        "Return whose key it is; raise `AuthError` for one that is not valid."
        if self.console_token and secrets.compare_digest(key.encode(), self.console_token.encode()):
            return local_caller("console")
        return await self.known.find(key)

    async def count(
        self,
        caller: Caller | None,  # a stranger is counted by address
        connection: HTTPConnection,  # which has it
    ) -> None:
        "Count one request; raise `RateLimitError` when there were too many."
        if caller:
            plan, policy, who = caller.plan, str(caller.plan), caller.user_id
        else:
            place = counted_address(connection.client.host) if connection.client else "unknown"
            plan, policy, who = STRANGERS, "address", place
        standing = await self.rates.hit(f"{policy}:{who}", policy, self.config.per_minute(plan))
        connection.scope.setdefault("state", {})["standing"] = standing
        if standing.wait_s:
            said = f"more than {standing.limit} requests a minute; try again in {standing.wait_s} s"
            raise RateLimitError(said, retry_after_s=standing.wait_s)

    def take_socket(
        self,
        user_id: str,  # who opens one
    ) -> None:
        "Count a socket that stays open; raise `UnavailableError` for a user who holds their share: others need room, too."
        most = max(1, self.config.connections // SOCKETS_OF_ONE)
        if self.sockets[user_id] >= most:
            raise UnavailableError(f"you have {most} sockets open here, and may have no more: close one first")
        self.sockets[user_id] += 1

    def give_socket(
        self,
        user_id: str,  # whose is closed
    ) -> None:
        "Count a socket no longer."
        self.sockets[user_id] -= 1
        if not self.sockets[user_id]:
            del self.sockets[user_id]

    async def close(self) -> None:
        "Leave what was opened."
        await self.rates.close()


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
        scope.setdefault("state", {})
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        await self.handle(scope, receive, NamedSend(send, request_id, scope))

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
            scope["state"]["caller"] = caller
            if answer := self.answers.find(scope):
                answer.check(caller)
                await answer.send_to(send)
            else:
                with log_context(request_id=send.request_id), answered_in(gatekeeper.config.request_timeout_s, send):
                    await self.answers(scope, plain_body(scope, receive), send)
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


@contextmanager
def answered_in(
    timeout_s: float,  # from now to the first byte
    send: "NamedSend",  # the output of a request
) -> Iterator[None]:
    "Answer a request that takes too long, whose work goes on inside the block; what it says later is not heard."
    if send.scope["type"] != "http":
        yield
        return
    late = asyncio.get_running_loop().call_later(timeout_s, send.give_up, timeout_s)
    try:
        yield
    finally:
        late.cancel()


def packing_of(
    scope: Scope,  # of a request
) -> str:
    "Return how a request says its body is packed, empty where it is not: nobody unpacks it here."
    said = [value.decode("latin-1").strip().lower() for name, value in scope["headers"] if name == b"content-encoding"]
    return ", ".join(each[:40] for each in said if each not in ("", "identity"))


def plain_body(
    scope: Scope,  # of a request
    receive: Receive,  # its input
) -> Receive:
    "Return an input that ends with status 413 when a body is too large, whatever length it claims, or 415 when packed."
    size, packed = 0, packing_of(scope)

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size and packed:
            raise HTTPException(
                415, f"a body must be sent as it is, was packed: {packed}", {"Accept-Encoding": "identity"}
            )
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
        scope: Scope,  # the connection; its state may hold how its caller stands
    ) -> None:
        self.send, self.request_id, self.scope = send, request_id, scope
        self.status: int | None = None
        self.late: asyncio.Task[None] | None = None  # answers in the place of what takes too long

    async def __call__(self, message: Message) -> None:
        "Send one message."
        if self.late is None:
            await self.pass_on(message)

    async def pass_on(
        self,
        message: Message,  # of the answer that counts
    ) -> None:
        "Send one message with what is added to it."
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            named = (b"x-request-id", self.request_id.encode())
            standing: RateStanding | None = self.scope["state"].get("standing")
            counted = standing.headers if standing else ()
            message = {**message, "headers": [*message["headers"], *_HEADERS, *counted, named]}
        await self.send(message)

    def give_up(
        self,
        waited_s: float,  # until now
    ) -> None:
        "Answer in the place of what takes too long, unless an answer has begun."
        if self.status is not None:
            return
        reading = self.scope["method"] in ("GET", "HEAD")
        told = "ask again in a moment" if reading else "it may still be carried out: look before you ask again"
        again = {"retry_after_s": RETRY_READ_S} if reading else {}
        error = TimedOutError(f"this takes longer than {waited_s:g} s; {told}", **again)

        async def nothing() -> Message:
            return {"type": "http.disconnect"}

        self.late = asyncio.create_task(answer_error(error)(self.scope, nothing, self.pass_on))
