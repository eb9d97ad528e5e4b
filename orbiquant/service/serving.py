"""Starting the service: one process; the work of a route runs in threads."""

# The socket is opened before anything is printed, so a port in use is an error with a name and the printed address is
# always the true one.

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from orbiquant.core import SettingsError
from orbiquant.runtime import current
from orbiquant.service.auth import is_loopback
from orbiquant.service.keys import has_key
from orbiquant.service.warming import warming


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


def serve(
    app: FastAPI,  # what is served
    host: str | None = None,  # address to listen on; None: the settings'
    port: int | None = None,  # 0: any free one; None: the settings'
    announce: Callable[[str], None] = print,  # told where the service is
    tell: Callable[[str], None] = lambda text: None,  # told what it does before anybody asks
) -> None:
    "Serve until interrupted; raise `SettingsError` when others could reach it and there is no API key."
    runtime = current()
    host, port = host or runtime.settings.service.host, runtime.settings.service.port if port is None else port
    if not is_loopback(host) and not has_key(runtime.engine):
        raise SettingsError(
            f"`host` {host} can be reached by others, and there is no API key yet: "
            "make one with `orbiquant service keys create`, or serve on 127.0.0.1"
        )
    app.state.console_token = secrets.token_urlsafe(32) if is_loopback(host) else None
    with listen(host, port) as listener:
        announce(address(host, listener.getsockname()[1], app.state.console_token))
        config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
        with suppress(KeyboardInterrupt), warming(runtime, tell):
            uvicorn.Server(config).run(sockets=[listener])


def address(
    host: str,  # that is listened on
    port: int,  # that is listened on
    token: str | None,  # the console's token, if there is one
) -> str:
    "Return the address of the API page, ready to be opened."
    place = f"[{host}]" if ":" in host else host
    return f"http://{place}:{port}/docs" + (f"?token={token}" if token else "")
