"""`python -m tests.fake_binance FOLDER`: the venue as a program, which prints its port and logs into the folder."""

import argparse
import asyncio
from pathlib import Path

from aiohttp import web

from tests.fake_binance.control import add_control
from tests.fake_binance.rest import VENUE, add_rest
from tests.fake_binance.service import Venue
from tests.fake_binance.socket_api import serve_socket
from tests.fake_binance.streams import serve_stream


def made_app(venue: Venue) -> web.Application:
    """Return the venue with all its doors."""
    app = web.Application()
    app[VENUE] = venue
    add_rest(app)
    add_control(app)
    app.router.add_get("/ws-api/v3", serve_socket)
    app.router.add_get("/ws", serve_stream)
    app.router.add_get("/ws/{names:.*}", serve_stream)
    app.router.add_get("/stream", serve_stream)
    return app


async def run(venue: Venue, port: int) -> None:
    """Serve until the program is ended."""
    runner = web.AppRunner(made_app(venue), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    if venue.tick_s:
        venue.start(venue.tick())
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="fake_binance", description="A spot venue for tests.")
    parser.add_argument("folder", type=Path, help="where its log goes")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0, help="of the faults drawn by client id")
    parser.add_argument("--rate", type=float, default=0.0, help="share of requests with a drawn fault")
    parser.add_argument("--ping", type=float, default=20.0, help="seconds between pings")
    parser.add_argument("--tick", type=float, default=0.0, help="seconds between bars told again; 0 for never")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(Venue(told.folder, told.seed, told.rate, told.ping, told.tick), told.port))


main()
