"""One of several processes that serve the same address: `python -m orbiquant.cli.worker`, begun by `orbiquant serve`."""

import json
import socket
import sys

from orbiquant.cli.choosing import chosen_app
from orbiquant.core import configure_logging, get_logger
from orbiquant.runtime import current
from orbiquant.service.crew import end_with_parent
from orbiquant.service.serving import leave, make_server
from orbiquant.service.warming import warming


def serve_handed() -> None:
    "Serve on the socket that was handed over, until told to end."
    told = json.loads(sys.stdin.readline())
    runtime = current()
    logging = runtime.settings.logging
    configure_logging("INFO" if logging.level == "AUTO" else logging.level, logging.json_lines)
    app = chosen_app(**told["chosen"])
    app.state.console_token = told["token"]
    server = make_server(app, runtime.settings.service, told["host"], alone=True)
    end_with_parent()
    with (
        socket.socket(fileno=told["socket"]) as listener,
        server.until_signalled(),
        warming(runtime, lambda text: get_logger("service").info(text)),
    ):
        server.run(sockets=[listener])
    leave(0)


if __name__ == "__main__":
    serve_handed()
