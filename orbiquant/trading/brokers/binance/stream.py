"""The account's own events: they only wake whoever looks at the venue; what is true, a look says."""

import asyncio
import hmac
import json
from hashlib import sha256
from threading import Event
from time import monotonic, time
from typing import Any
from urllib.parse import quote

from ....core import get_logger, require_library
from .config import BinanceConfig
from .transport import RECV_WINDOW_MS, Transport

URLS = {
    "testnet": "wss://ws-api.testnet.binance.vision/ws-api/v3",
    "demo": "wss://demo-ws-api.binance.com/ws-api/v3",
    "mainnet": "wss://ws-api.binance.com:443/ws-api/v3",
}
QUIET_S = 60.0  # without a sign of life after which a connection is dead: the venue pings every 20 s
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
ENDS = ("serverShutdown", "eventStreamTerminated")


def subscription(
    config: BinanceConfig,  # keys
    now_ms: int,  # the venue's time
) -> dict[str, Any]:
    "Return the request for an account's events, signed."
    parameters = {
        "apiKey": config.api_key.get_secret_value(), "recvWindow": RECV_WINDOW_MS, "timestamp": now_ms,
    }  # fmt: skip
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in sorted(parameters.items()))
    signature = hmac.new(config.api_secret.get_secret_value().encode(), text.encode(), sha256).hexdigest()
    return {
        "id": f"{time():.0f}", "method": "userDataStream.subscribe.signature",
        "params": parameters | {"signature": signature},
    }  # fmt: skip


class UserStream:
    "Listens until it is told to stop, and comes back whenever it is cut off."

    def __init__(
        self,
        transport: Transport,  # loop, clock and keys
        woken: Event,  # set by every event, and whenever one may have been missed
    ) -> None:
        self.transport, self.woken = transport, woken
        self.connected_since: float | None = None  # on the monotonic clock
        self.gaps = 0  # connections that ended: between them anything may have been missed
        self.quiet_s = QUIET_S
        self._task: Any = None

    def start(self) -> None:
        "Begin to listen; once."
        if self._task is None:
            loop = self.transport.threads.loop
            self._task = asyncio.run_coroutine_threadsafe(self._listen(), loop)

    def stop(self) -> None:
        "Listen no more."
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _listen(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began = monotonic()
            try:
                await self._connection()
                said = "the venue ended it"
            except Exception as error:  # its text may hold the signed request
                said = type(error).__name__
            self.connected_since, self.gaps = None, self.gaps + 1
            self.woken.set()
            pause_s = FIRST_PAUSE_S if monotonic() - began > MOST_PAUSE_S else min(MOST_PAUSE_S, 2 * pause_s)
            get_logger("trading.binance").info("the account's events are cut off", reason=said, pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _connection(self) -> None:
        "Listen to one connection until it ends, or is silent for too long."
        aiohttp, config = require_library("aiohttp", "exchange"), self.transport.config
        url = config.stream_url or URLS[config.environment]
        limits = aiohttp.ClientTimeout(total=None, sock_connect=config.timeout_s)
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.ws_connect(url, autoping=False) as socket,
        ):
            await socket.send_json(subscription(config, self.transport.now_ms()))
            while True:
                message = await asyncio.wait_for(socket.receive(), self.quiet_s)
                if message.type is aiohttp.WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    if not self._hear(json.loads(message.data)):
                        return
                elif message.type is not aiohttp.WSMsgType.PONG:
                    return

    def _hear(self, told: Any) -> bool:
        "Wake whoever looks; say whether the connection goes on."
        if "status" in told:  # of the subscription
            if told["status"] != 200:
                raise ConnectionError("not subscribed")
            self.connected_since = monotonic()
            self.woken.set()
            return True
        event = told.get("event", told)
        self.woken.set()
        return event.get("e") not in ENDS
