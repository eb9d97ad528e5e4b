"""The copilot over Socket.IO: namespace `/copilot`, the same turns as those of the REST stream."""

# Who opens a socket says who it is in the handshake, `auth: {token}`, and not in a header: so the path is open to all, and
# a connection that has not said so after `SAY_WHO_S` is ended. The transport is a WebSocket and nothing else: polling
# would need every request of a client to reach the same worker. A client that vanishes ends no turn: what it said stands
# in the conversation, and who comes back asks for the rest with `message:resume`.

import asyncio
import logging
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from orbiquant.copilot.api.chat import ChatAnswer, ConversationId, MessageText, begin_turn
from orbiquant.copilot.loop import TurnAnswer, gather
from orbiquant.copilot.run_book import KeptRun
from orbiquant.copilot.runs import TurnRun, runs_of
from orbiquant.copilot.sse import event_id, read_event_id
from orbiquant.core import AuthError, ForbiddenError, NotFoundError, OptionError, OrbiError, get_logger
from orbiquant.domain import Caller
from orbiquant.runtime import Runtime
from orbiquant.service.errors import Problem, UnavailableError, shorten
from orbiquant.service.gate import MAX_BODY_BYTES, Gatekeeper
from orbiquant.wire import without_gaps

SOCKET_PATH, NAMESPACE = "/socket.io/", "/copilot"
NOBODY = ""  # opens each socket, until it says who it is: so few of those at once, too
SAY_WHO_S = 10.0  # for a connection to say whose it is
MOST_STRANGE_BYTES = 65_536  # of a message of somebody who has not said who they are
SOCKET_PING_S, SOCKET_PONG_S = 20, 20  # between two pings; for an answer to one
_LOG = logging.getLogger("orbiquant.socket")
_LOG.setLevel(logging.ERROR)


class SocketMessage(BaseModel):
    "What a user says."

    model_config = ConfigDict(extra="forbid")

    conversationId: ConversationId
    content: MessageText


class SocketReturn(BaseModel):
    "Where a client that lost its connection goes on."

    model_config = ConfigDict(extra="forbid")

    conversationId: ConversationId
    lastEventId: Annotated[str | None, Field(max_length=60)] = None


def _problem(error: OrbiError, conversation: str | None = None) -> dict[str, Any]:
    problem = Problem(error=error.code, message=shorten(error.message), details=error.details)
    return {"conversationId": conversation} | without_gaps(problem.model_dump(mode="json", fallback=str))


def _read(kind: type[BaseModel], data: object) -> Any:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"`{'.'.join(map(str, first['loc']))[:100] or 'message'}`: {first['msg'][:300]}") from None


class CopilotSocket:
    "What the events of the namespace do."

    def __init__(
        self,
        runtime: Runtime,  # its settings
        gatekeeper: Gatekeeper,  # knows the keys
        server: Any,  # of Socket.IO
    ) -> None:
        self.runtime, self.gatekeeper, self.server = runtime, gatekeeper, server
        self.reading = dict[str, set[asyncio.Task[None]]]()  # by connection
        for name, function in {
            "connect": self.connect, "disconnect": self.disconnect,
            "message:send": self.send, "message:resume": self.resume,
        }.items():  # fmt: skip
            server.on(name, function, namespace=NAMESPACE)

    async def connect(
        self,
        sid: str,  # the connection
        environ: dict[str, Any],  # of its opening
        auth: object = None,  # {token}
    ) -> None:
        "Let somebody in who has a key; others are told why not."
        from socketio.exceptions import ConnectionRefusedError

        scope, connection = environ["asgi.scope"], HTTPConnection(environ["asgi.scope"])
        key = auth.get("token") if isinstance(auth, dict) else None
        try:
            if not isinstance(key, str) or not key:
                raise AuthError("an API key is required: `auth: {token}` of the handshake")
            caller = await self._known(key)
            await self.gatekeeper.count(caller, connection)
            if "said_who" not in scope["state"]:  # counted until the WebSocket ends, whatever is said in it
                self.gatekeeper.take_socket(caller.user_id)
                self.gatekeeper.give_socket(NOBODY)
                scope["state"]["said_who"] = caller.user_id
        except (AuthError, ForbiddenError) as error:
            await self.gatekeeper.count(None, connection)
            raise ConnectionRefusedError(error.message, _problem(error)) from None
        except OrbiError as error:
            raise ConnectionRefusedError(error.message, _problem(error)) from None
        await self.server.save_session(sid, {"key": key, "user": caller.user_id}, namespace=NAMESPACE)

    async def disconnect(
        self,
        sid: str,  # the connection
        reason: str = "",  # for the log
    ) -> None:
        "Stop telling somebody who has left; their turn goes on."
        for task in self.reading.pop(sid, ()):
            task.cancel()

    async def send(
        self,
        sid: str,  # the connection
        data: object = None,  # {conversationId, content}
    ) -> dict[str, Any]:
        "Begin a turn, whose events follow; return its run, or why there is none."
        try:
            caller = await self._caller(sid)
            asked: SocketMessage = _read(SocketMessage, data)
            run = await begin_turn(caller, asked.conversationId, asked.content)
        except OrbiError as error:
            return await self._refuse(sid, data, error)
        return self._tell(sid, run, 0)

    async def resume(
        self,
        sid: str,  # the connection
        data: object = None,  # {conversationId, lastEventId}
    ) -> dict[str, Any]:
        "Send the rest of a turn that runs, or ended lately."
        try:
            caller = await self._caller(sid)
            asked: SocketReturn = _read(SocketReturn, data)
            seen = read_event_id(asked.lastEventId)
            run = await runs_of(self.runtime).look_up(caller.user_id, asked.conversationId, seen[0] if seen else None)
            if run is None:
                raise NotFoundError(f"no turn of the conversation {asked.conversationId!r} is kept")
        except OrbiError as error:
            return await self._refuse(sid, data, error)
        return self._tell(sid, run, seen[1] if seen else 0)

    async def _known(self, key: str) -> Caller:
        caller = await self.gatekeeper.owner_of(key)
        caller.require("write")
        return caller

    async def _caller(self, sid: str) -> Caller:
        session = await self.server.get_session(sid, namespace=NAMESPACE)
        caller = await self._known(session["key"])
        await self.gatekeeper.count(caller, HTTPConnection(self.server.get_environ(sid, NAMESPACE)["asgi.scope"]))
        return caller

    async def _refuse(self, sid: str, data: object, error: OrbiError) -> dict[str, Any]:
        named = data.get("conversationId") if isinstance(data, dict) else None
        problem = _problem(error, shorten(named) if isinstance(named, str) else None)
        await self.server.emit("agent:error", problem, to=sid, namespace=NAMESPACE)
        return problem

    def _tell(self, sid: str, run: TurnRun | KeptRun, after: int) -> dict[str, Any]:
        task = asyncio.create_task(self._read_run(sid, run, after))
        tasks = self.reading.setdefault(sid, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return {"conversationId": run.conversation_id, "runId": run.id}

    async def _read_run(self, sid: str, run: TurnRun | KeptRun, after: int) -> None:
        whole, named = TurnAnswer(), {"conversationId": run.conversation_id}
        try:
            async with aclosing(run.read()) as events:
                async for number, event in events:
                    gather(whole, event)
                    if number > after and event["type"] == "text-delta":
                        chunk = named | {"chunk": event["delta"], "id": event_id(run.id, number)}
                        await self.server.emit("agent:stream", chunk, to=sid, namespace=NAMESPACE)
        except Exception as error:
            get_logger("copilot").error("a turn was not told to its end", exc_info=error)
            whole.error = "the rest of this turn could not be read; it stands in the conversation"
        if whole.error:
            problem = Problem(error="TURN_FAILED", message=whole.error).model_dump()
            await self.server.emit("agent:error", named | problem, to=sid, namespace=NAMESPACE)
            return
        told = ChatAnswer.of(run.conversation_id, whole)
        complete = named | {"response": told.response, "toolsUsed": told.tools_used, "tickets": told.tickets}
        await self.server.emit("agent:complete", without_gaps(complete), to=sid, namespace=NAMESPACE)


def open_socket(
    runtime: Runtime,  # its settings
    gatekeeper: Gatekeeper,  # knows the keys
) -> Any:
    "Return the ASGI application of the namespace, for one event loop."
    import socketio

    redis, manager = runtime.settings.redis, None
    if redis.url:
        options = {"db": redis.db, "protocol": 2}
        channel = f"{redis.prefix}socketio"
        manager = socketio.AsyncRedisManager(redis.url, channel=channel, redis_options=options)
    server = socketio.AsyncServer(
        async_mode="asgi", transports=["websocket"], client_manager=manager, namespaces=[NAMESPACE],
        logger=_LOG, engineio_logger=_LOG,  # its own would write past the log of this process
        cors_allowed_origins=[],  # `Origins` has looked at them
        max_http_buffer_size=MAX_BODY_BYTES, ping_interval=SOCKET_PING_S, ping_timeout=SOCKET_PONG_S,
    )  # fmt: skip
    CopilotSocket(runtime, gatekeeper, server)
    return socketio.ASGIApp(server, socketio_path=None)


async def _serve_socket(scope: Scope, receive: Receive, send: Send) -> None:
    "Serve one connection; one that does not say whose it is in time is over."
    state, late = scope["state"], asyncio.get_running_loop().time() + SAY_WHO_S
    gatekeeper: Gatekeeper = scope["app"].state.gatekeeper
    if scope["type"] == "http":  # is told that there is no polling here
        await scope["app"].state.socket(scope, receive, send)
        return
    try:
        gatekeeper.take_socket(NOBODY)
    except UnavailableError:
        await send({"type": "websocket.close", "code": 1013})
        return

    async def read() -> Message:
        if state.get("said_who"):
            return await receive()
        try:
            async with asyncio.timeout_at(late):
                message = await receive()
        except TimeoutError:
            return await receive() if state.get("said_who") else {"type": "websocket.disconnect", "code": 1008}
        if len(message.get("text") or message.get("bytes") or "") > MOST_STRANGE_BYTES and not state.get("said_who"):
            return {"type": "websocket.disconnect", "code": 1009}
        return message

    try:
        await scope["app"].state.socket(scope, read, send)
    finally:
        gatekeeper.give_socket(state.get("said_who", NOBODY))


def add_socket(
    app: FastAPI,  # gets /socket.io/
) -> None:
    "Add the namespace."
    app.router.routes.append(Mount(SOCKET_PATH.rstrip("/"), app=_serve_socket))
