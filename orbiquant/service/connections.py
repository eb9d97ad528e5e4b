"""Connections that cost us more than whoever opened them: timed out, bounded, counted, and answered when we leave."""

# uvicorn ends a connection that says nothing between two requests. What it lets go on for ever is a request that is never
# finished (a header a minute, a body that does not end, an answer that is not read), and a header as large as somebody
# likes. A request costs nothing more for it: once a second all connections are looked at, and one that has not moved on
# since `CLIENT_TIMEOUT_S` waits on its client. Connections are bounded in all and not by address: behind a proxy everybody has
# one address.

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from orbiquant.core import get_logger
from orbiquant.service.errors import Problem, respond

CLIENT_TIMEOUT_S = 10.0  # for a header, for a body, for a piece of an answer to be taken
MAX_HEADER_BYTES = 65_536  # the one of h11, the other parser of uvicorn
MAX_REQUEST_BYTES = 16_777_216  # with what is not read: more than a body may have, so that its size is told
FILES_BESIDE = 150  # open files that are no connections: the store's, the database's, libraries'


def allowed_connections(
    most: int,  # wished for
) -> int:
    "Return how many connections this process can hold, its limit of open files raised where that is allowed."
    try:
        import resource
    except ImportError:  # another system, with no such limit
        return most
    soft, hard = (limit if limit >= 0 else sys.maxsize for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(most + FILES_BESIDE, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard if hard < sys.maxsize else resource.RLIM_INFINITY))
            soft = wanted
    return max(1, min(most, soft - FILES_BESIDE))


def raw_answer(
    status: int,  # HTTP status
    code: str,  # to switch on
    message: str,  # to read
    body: bool = True,  # False: the answer to a HEAD
) -> bytes:
    "Return a whole answer as it goes over the line, after which the connection ends."
    made = respond(status, Problem(error=code, message=message), cache_control="no-store", connection="close")
    lines = [f"HTTP/1.1 {status} {code.replace('_', ' ').title()}".encode()]
    lines += [name + b": " + value for name, value in made.raw_headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (bytes(made.body) if body else b"")


@dataclass
class Connections:
    "Counts what was ended, and ends it."

    most: int  # that may be open at once
    patience_s: float = CLIENT_TIMEOUT_S
    timed_out: int = 0
    let_go: int = 0  # for a new one when it was full
    refused: int = 0
    malformed: int = 0  # what was no HTTP
    # What each had done and since when; who stands still for longest comes first, who is new last.
    moved: dict["GuardedProtocol", tuple[Any, float]] = field(default_factory=dict)
    closing: WeakKeyDictionary[Any, float] = field(default_factory=WeakKeyDictionary)  # WebSockets, and since when

    def sweep(
        self,
        state: ServerState,  # knows what is open
    ) -> None:
        "End what has waited for its client too long."
        now, late = time.monotonic(), 0
        moved: dict[GuardedProtocol, tuple[Any, float]] = {}
        for each in list(state.connections):
            if not isinstance(each, GuardedProtocol):  # a WebSocket: has a ping of its own, until it is being ended
                self._end_closing(each, now)
                continue
            done = each.progress()
            known, since = self.moved.get(each, (None, now))
            since = since if known == done else now
            moved[each] = done, since
            if done is not None and now - since >= self.patience_s:
                late += 1
                each.give_up(408, "REQUEST_TIMEOUT", f"a request must be sent within {self.patience_s:g} s")
        self.moved = dict(sorted(moved.items(), key=lambda item: item[1][1]))
        if late:
            self.timed_out += late
            get_logger("service").warning("connections timed out", now=late, ever=self.timed_out, open=len(moved))

    def _end_closing(self, socket: Any, now: float) -> None:
        "Tear a WebSocket that is being ended, and whose client does not take what was still to be said."
        transport = getattr(socket, "transport", None)
        if transport is None or not transport.is_closing():
            return
        since = self.closing.setdefault(socket, now)
        if now - since >= self.patience_s:
            transport.abort()

    def make_room(
        self,
        state: ServerState,  # with the new one in it
        new: "GuardedProtocol",  # just opened
    ) -> None:
        "Let go whoever waits for longest when it is full; refuse the new one when nobody waits."
        self.moved[new] = None, time.monotonic()
        if len(state.connections) <= self.most:
            return
        waits = (each for each in self.moved if each is not new and each in state.connections and each.waits())
        longest, said = next(waits, None), "too many connections; try again"
        if longest:
            self.let_go += 1
            longest.give_up(503, "UNAVAILABLE", said)
        else:
            self.refused += 1
            new.give_up(503, "UNAVAILABLE", said, say=True)


class GuardedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    "uvicorn's own protocol with a bound on what it takes in."

    guard: Connections  # set by the class that `protocol_for` makes
    cycle: Any
    transport: Any
    server_state: ServerState

    def __init__(
        self,
        config: Config,  # uvicorn's
        server_state: ServerState,  # uvicorn's
        app_state: dict[str, Any],  # uvicorn's
        _loop: asyncio.AbstractEventLoop | None = None,  # uvicorn's
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.taken, self.taken_for = 0, self.cycle

    def connection_made(self, transport: asyncio.Transport) -> None:
        "Count a new connection."
        super().connection_made(transport)
        self.guard.make_room(self.server_state, self)

    def connection_lost(self, exc: Exception | None) -> None:
        "Keep nothing of a connection that is gone, also when it was torn."
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.guard.moved.pop(self, None)

    def data_received(self, data: bytes) -> None:
        "Take what came; end a request whose header or whole is too large."
        if self.cycle is not self.taken_for:
            self.taken, self.taken_for = 0, self.cycle
        self.taken += len(data)
        super().data_received(data)
        if self.taken > MAX_HEADER_BYTES and self.cycle is self.taken_for:
            if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
                said = f"a header may have {MAX_HEADER_BYTES:,} bytes"
                self.give_up(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", said, say=True)
            elif self.taken > MAX_REQUEST_BYTES:
                self.give_up(413, "CONTENT_TOO_LARGE", f"a request may have {MAX_REQUEST_BYTES:,} bytes")

    def send_400_response(self, msg: str) -> None:
        "Answer what is no HTTP in the form of every other error."
        self.guard.malformed += 1
        self.give_up(400, "BAD_REQUEST", "this is no valid HTTP request", say=True)

    def progress(self) -> Any:
        "Return what changes as a client does its part; None while we are at work."
        cycle, left = self.cycle, self.transport.get_write_buffer_size()
        if cycle is not None and not cycle.response_complete and not cycle.more_body and not left:
            return None
        return cycle, cycle is not None and cycle.response_complete, left

    def waits(self) -> bool:
        "Say whether a connection waits for its client and is not being ended already."
        return not self.transport.is_closing() and self.progress() is not None

    def give_up(
        self,
        status: int,  # said unless an answer has begun
        code: str,  # to switch on
        message: str,  # to read
        say: bool = False,  # also when no request has begun, as far as we know
    ) -> None:
        "End a connection, and say why when something was asked."
        cycle = self.cycle
        asked = cycle is not None and not cycle.response_complete
        if (asked and cycle.response_started) or self.transport.get_write_buffer_size():
            self.transport.abort()  # what was begun cannot be finished
            return
        if asked or say or (self.taken and self.cycle is self.taken_for):
            body = not asked or cycle.scope["method"] != "HEAD"
            self.transport.write(raw_answer(status, code, message, body))
        if asked:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def answer_late(self) -> None:
        "Answer a request that will not be done before the service ends."
        if self.cycle is not None and not self.cycle.response_complete:
            self.give_up(503, "UNAVAILABLE", "the service is ending; ask again when it is back")


def protocol_for(
    guard: Connections,  # counts for one server
) -> type[asyncio.Protocol]:
    "Return the protocol class of a server."
    return type("Guarded", (GuardedProtocol,), {"guard": guard})
