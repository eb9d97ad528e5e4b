"""Starting the service and ending it: one process; the work of a route runs in threads."""

# The socket is opened before anything is printed, so a port in use is an error with a name and the printed address is
# always the true one. Ctrl-C and SIGTERM are ours from before that moment on: whenever they come, what is in flight gets
# its answer or, after `ANSWER_AFTER_S`, is told to come again, and a thread that still computes is not waited for.

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from threading import Event
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from uvicorn.config import LOGGING_CONFIG

from orbiquant.access import ServiceConfig
from orbiquant.copilot.runs import end_runs
from orbiquant.core import SettingsError, get_logger
from orbiquant.runtime import current
from orbiquant.service.auth import is_loopback
from orbiquant.service.connections import (
    CLIENT_TIMEOUT_S,
    Connections,
    GuardedProtocol,
    allowed_connections,
    protocol_for,
)
from orbiquant.service.crew import Crew, Member
from orbiquant.service.gate import MAX_BODY_BYTES
from orbiquant.service.keys import has_key
from orbiquant.service.metrics import FOLDER, shared_folder
from orbiquant.service.origins import Origins
from orbiquant.service.request_log import logs_json
from orbiquant.service.warming import warming

ANSWER_AFTER_S, END_AFTER_S = 2.5, 3  # from the signal on
TURNS_END_S = 2.0  # for turns of the copilot to be stopped and kept
PING_S = 20.0  # between two pings of a WebSocket, and for the answer to one


def listen(
    host: str,  # name or address
    port: int,  # 0: any free one
) -> socket.socket:
    "Open a listening socket; raise `SettingsError` when that cannot be."
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; look at `host`, or try another port"
        ) from error


class Server(uvicorn.Server):
    "uvicorn's server, ended by us."

    def __init__(
        self,
        config: uvicorn.Config,  # how it serves
        guard: Connections,  # counts its connections
        alone: bool = False,  # the process has nothing else to do: threads that still compute need not be waited for
    ) -> None:
        super().__init__(config)
        self.guard, self.alone, self.unfinished = guard, alone, False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        "Leave the signals to `until_signalled`, which begins earlier and raises nothing."
        yield

    @contextmanager
    def until_signalled(self) -> Iterator[None]:
        "Let Ctrl-C and SIGTERM end the service inside the block, and mean nothing else."
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        "End: idle connections at once, others when answered, all of them in time; turns are stopped, and kept."
        late = asyncio.get_running_loop().call_later(ANSWER_AFTER_S, self.answer_late)
        turns = asyncio.create_task(end_runs(TURNS_END_S))
        await super().shutdown(sockets)
        await turns
        late.cancel()
        if self.alone and (self.unfinished or self.server_state.tasks):
            self.answer_late()
            await asyncio.sleep(0.05)  # for what was written to go out
            leave(130 if self.force_exit else 0)

    def answer_late(self) -> None:
        "Answer whoever still waits."
        self.unfinished = bool(self.server_state.tasks)
        for each in list(self.server_state.connections):
            if isinstance(each, GuardedProtocol):
                each.answer_late()


def leave(
    code: int,  # of the process
) -> None:
    "End the process at once: a thread that computes cannot be stopped, and nothing it does needs an end."
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def make_server(
    app: Starlette,  # what is served
    config: ServiceConfig,  # `[service]`
    host: str,  # that is listened on
    patience_s: float = CLIENT_TIMEOUT_S,  # that a client is waited for
    alone: bool = False,  # the process has nothing else to do
) -> Server:
    "Return a server that believes no forwarded header, unless it is told which proxy to."
    guard = app.state.connections = Connections(allowed_connections(config.connections), patience_s)

    async def sweep() -> None:
        try:
            guard.sweep(server.server_state)
        except Exception as error:  # would end the service
            get_logger("service").error("connections not looked at", exc_info=error)

    server = Server(
        uvicorn.Config(
            Origins(app, host, config.origins),
            http=protocol_for(guard),
            ws_max_size=MAX_BODY_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,  # costs memory for each connection
            access_log=False,
            log_config=None if logs_json() else LOGGING_CONFIG,
            log_level="error",  # a warning for each malformed request would let strangers fill the disk
            server_header=False,
            proxy_headers=bool(config.trusted_proxies),
            forwarded_allow_ips=list(config.trusted_proxies),
            timeout_graceful_shutdown=END_AFTER_S,
            callback_notify=sweep,
            timeout_notify=0,  # every second
        ),
        guard,
        alone,
    )
    return server


def serve_app(
    make: Callable[[str | None], Starlette],  # what is served, given the console's token
    host: str,  # address to listen on
    port: int,  # 0: any free one
    announce: Callable[[int, str | None], None],  # told the port that is listened on, and the console's token
    meanwhile: Iterable[AbstractContextManager[object]] = (),  # what is done beside it
) -> None:
    "Serve until interrupted; raise `SettingsError` when others could reach it and there is no API key."
    token = console_token(host)
    server = make_server(make(token), current().settings.service, host, alone=True)
    with listen(host, port) as listener, server.until_signalled(), ExitStack() as beside:
        announce(listener.getsockname()[1], token)
        for each in meanwhile:
            beside.enter_context(each)
        server.run(sockets=[listener])


def console_token(
    host: str,  # address to listen on
) -> str | None:
    "Return a new token for whoever sits here, None when others can reach us; raise `SettingsError` when nobody could ask."
    if is_loopback(host):
        return secrets.token_urlsafe(32)
    runtime = current()
    if not runtime.settings.tokens.on and not has_key(runtime.engine, runtime.clock):
        raise SettingsError(
            f"`host` {host} can be reached by others, and there is no API key yet, nor an issuer of tokens: "
            "make a key with `orbiquant service keys create`, or serve on 127.0.0.1"
        )
    return None


def serve(
    app: FastAPI,  # what is served
    host: str | None = None,  # address to listen on; None: the settings'
    port: int | None = None,  # 0: any free one; None: the settings'
    announce: Callable[[str], None] = print,  # told where the service is
    tell: Callable[[str], None] = lambda text: None,  # told what it does before anybody asks
    beside: Iterable[Member] = (),  # processes that live as long as it does
) -> None:
    "Serve the generated routes until interrupted, and warm up beside it."
    runtime = current()
    config = runtime.settings.service
    place = host or config.host

    def make(token: str | None) -> FastAPI:
        app.state.console_token = token
        return app

    def told(bound: int, token: str | None) -> None:
        announce(address(place, bound, token))

    serve_app(make, place, config.port if port is None else port, told, [warming(runtime, tell), Crew(beside)])


def serve_many(
    worker: Sequence[str],  # command of a process that serves what it is told
    chosen: Mapping[str, Any],  # what that is
    workers: int,  # processes that serve
    host: str | None = None,  # address to listen on; None: the settings'
    port: int | None = None,  # 0: any free one; None: the settings'
    announce: Callable[[str], None] = print,  # told where the service is
    beside: Iterable[Member] = (),  # further processes that live as long as it does
) -> None:
    "Serve from several processes until interrupted: they share the socket, the console's token and the metrics."
    config, ended = current().settings.service, Event()
    place = host or config.host
    token = console_token(place)
    with (
        listen(place, config.port if port is None else port) as listener,
        shared_folder() as shared,
        ending(ended),
    ):
        told = {"chosen": dict(chosen), "socket": listener.fileno(), "host": place, "token": token}
        env = os.environ | {FOLDER: shared}
        serving = [
            Member(f"serve {number}", worker, told, (listener.fileno(),), env, patience_s=END_AFTER_S + 2)
            for number in range(1, workers + 1)
        ]
        announce(address(place, listener.getsockname()[1], token))
        with Crew([*serving, *beside]):
            ended.wait()


@contextmanager
def ending(
    ended: Event,  # set by Ctrl-C and SIGTERM
) -> Iterator[None]:
    "Let Ctrl-C and SIGTERM end what a `with` block waits for, and mean nothing else."
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def url_of(
    host: str,  # that is listened on
    port: int,  # that is listened on
    path: str,  # of a page
) -> str:
    "Return the address of a page."
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def address(
    host: str,  # that is listened on
    port: int,  # that is listened on
    token: str | None,  # the console's token, if there is one
) -> str:
    "Return the address of the API page, ready to be opened."
    return url_of(host, port, "/docs") + (f"?token={token}" if token else "")
