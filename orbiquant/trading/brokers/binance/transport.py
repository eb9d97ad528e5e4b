"""Signed requests in one thread of their own: the clock agrees with the venue's, pauses it asks for are kept, what is sent is sent once."""

import asyncio
import atexit
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from threading import Lock, Thread
from time import monotonic, time
from typing import Any, TypeVar

from ....core import NotConfigured, get_logger, require_library
from .config import BinanceConfig
from .errors import CLOCK, NotTaken, VenueBusy, VenueRefused, VenueSilent, read_answer, read_fault

_T = TypeVar("_T")
RECV_WINDOW_MS = 5000
RESYNC_S = 1800.0  # between two looks at the venue's clock
READ_TRIES = 3
QUICK_S = 0.4  # an answer that tells the time well enough
WEIGHT, MOST_WEIGHT = "x-mbx-used-weight-1m", 4800  # of 6000 that an address may use in a minute
_QUIET = logging.getLogger(
    "orbiquant.binance.wire"
)  # in the place of the library's own, which writes keys when it debugs
_QUIET.setLevel(logging.CRITICAL)


class LoopThread:
    "An event loop that runs in a thread, for a port that waits."

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, name="binance", daemon=True)
        self._thread.start()

    def run(
        self,
        work: Coroutine[Any, Any, _T],  # of that loop
        timeout_s: float,  # to wait at most
    ) -> _T:
        "Return what a coroutine returns; raise `TimeoutError` where it takes too long."
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        "End what runs in the loop, the loop and its thread."
        if not self.loop.is_closed():
            with suppress(TimeoutError):
                self.run(_end_others(), 5)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(5)
            self.loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def open_client(
    config: BinanceConfig,  # keys and addresses
    used: Callable[[Mapping[str, str]], None],  # told the headers of every answer
    streams: bool = False,  # of the market's prices, for which no key is needed
) -> Any:
    "Return ccxt's client of the environment; what the venue answers is read by us."
    ccxt = require_library("ccxt.pro" if streams else "ccxt.async_support", "exchange")
    keys = (
        {} if streams else {"apiKey": config.api_key.get_secret_value(), "secret": config.api_secret.get_secret_value()}
    )

    class Client(ccxt.binance):  # type: ignore[name-defined]
        "ccxt signs, paces and sends."

        logger = _QUIET

        def handle_errors(
            self, code: int, reason: str, url: str, method: str, headers: Any, body: str, response: Any, *_: Any
        ) -> None:
            "Raise what an answer means."
            used(headers)
            read_answer(code, headers, response)

    client = Client(
        {
            **keys,
            "enableRateLimit": False,  # by what the venue says is used, below: a queue would let an order wait
            "timeout": int(config.timeout_s * 1000),
            "number": str,
            "options": {
                "recvWindow": RECV_WINDOW_MS,
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
                "fetchMargins": False,
                "warnOnFetchOpenOrdersWithoutSymbol": False,
            },
        }
    )
    if config.environment == "testnet":
        client.set_sandbox_mode(True)
    elif config.environment == "demo":
        client.enable_demo_trading(True)
    if config.rest_url:
        client.urls["api"] = {**client.urls["api"], "public": config.rest_url, "private": config.rest_url}
        client.urls["api"]["sapi"] = config.rest_url.replace("/api/v3", "/sapi/v1")
    if streams and config.market_url:
        client.urls["api"]["ws"] = {"spot": config.market_url}
    return client


class Transport:
    "Asks and sends; opened with the first request."

    def __init__(
        self,
        config: BinanceConfig,  # keys and addresses
    ) -> None:
        self.config = config
        self.offset_ms: int | None = None  # of the venue's clock to ours; None: not looked yet
        self.pause_until = 0.0  # on the monotonic clock
        self.spent_until = 0.0  # on the monotonic clock: until then questions are not asked, orders are sent
        self.most_weight = MOST_WEIGHT
        self._looked = 0.0
        self._lock = Lock()
        self._threads: LoopThread | None = None
        self._client: Any = None

    @property
    def threads(self) -> LoopThread:
        "Return the loop that all of it runs in."
        with self._lock:
            if self._threads is None:
                if not self.config.api_key.get_secret_value() or not self.config.api_secret.get_secret_value():
                    raise NotConfigured(
                        "BINANCE_API_KEY and BINANCE_API_SECRET must be set in the environment or in .env, were empty"
                    )
                self._threads = LoopThread()
                self._client = open_client(self.config, self.count)
                atexit.register(self.close)
            return self._threads

    @property
    def client(self) -> Any:
        "Return ccxt's client."
        return self.threads and self._client

    def close(self) -> None:
        "Let go of connections and of the thread."
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is None:
            return
        atexit.unregister(self.close)
        try:
            threads.run(self._client.close(), 5)
        finally:
            threads.close()

    def count(
        self,
        headers: Mapping[str, str],  # of an answer
    ) -> None:
        "Note what was used of this minute's weight: what is left belongs to orders."
        used = next((value for name, value in headers.items() if name.lower() == WEIGHT), "")
        if used.isdecimal() and int(used) > self.most_weight:
            self.spent_until = monotonic() + 60 - self.now_ms() / 1000 % 60

    def now_ms(self) -> int:
        "Return the venue's time."
        return int(time() * 1000) + (self.offset_ms or 0)

    def sync(self) -> None:
        "Look at the venue's clock, again where the answer took long: it is only known to half of that."
        looks: list[tuple[float, int]] = []
        while not looks or (min(looks)[0] > QUICK_S and len(looks) < READ_TRIES):
            before = time()
            answer = self._raw("publicGetTime", {})
            after = time()
            looks.append((after - before, int(answer["serverTime"]) - round((before + after) * 500)))
        self.offset_ms = min(looks)[1]
        self._looked = monotonic()
        self.client.options["timeDifference"] = -self.offset_ms  # what ccxt takes from its own clock

    async def once(
        self,
        ask: Callable[[], Coroutine[Any, Any, _T]],  # sends one request, in this loop
    ) -> _T:
        "Return the answer to a request, unless the venue asks to be left alone."
        if (left := self.pause_until - monotonic()) > 0:
            raise VenueBusy(left)
        try:
            return await ask()
        except VenueBusy as error:
            self.pause_until = max(self.pause_until, monotonic() + error.pause_s)
            get_logger("trading.binance").warning("left alone", pause_s=error.pause_s)
            raise

    def _raw(self, method: str, parameters: Mapping[str, Any]) -> Any:
        "Return the answer to one request, sent once; raise one of the three ways in which it can fail."
        threads, failed = self.threads, ""
        try:
            asked = self.once(lambda: getattr(self._client, method)(dict(parameters)))
            return threads.run(asked, self.config.timeout_s + 30)
        except (VenueBusy, VenueRefused, VenueSilent):
            raise
        except Exception as error:  # its text holds the address with the signature
            failed = type(error).__name__
        raise VenueSilent(failed)

    def _synced(self) -> None:
        if self.offset_ms is None or monotonic() - self._looked > RESYNC_S:
            self.sync()

    def ask(
        self,
        method: str,  # ccxt's name of the endpoint, "privateGetOrder"
        parameters: Mapping[str, Any],  # of the request
        urgent: bool = False,  # about an order or its protection: asked in a spent minute, too
    ) -> Any:
        "Return the answer to a question, asked again where the clock was off or nothing came; raise `VenueRefused`."
        if not urgent and (wait_s := self.spent_until - monotonic()) > 0:
            raise NotTaken(f"this minute's requests are spent, for {wait_s:.0f} s")
        for left in reversed(range(READ_TRIES)):
            try:
                self._synced()
                return self._raw(method, parameters)
            except VenueRefused as error:
                if error.code != CLOCK or not left:
                    raise
                self.offset_ms = None
            except VenueSilent:
                if not left:
                    raise
        raise AssertionError  # the last try returns or raises

    def read(
        self,
        method: str,  # ccxt's name of the endpoint
        parameters: Mapping[str, Any],  # of the request
        urgent: bool = False,  # about an order or its protection
    ) -> Any:
        "Return the answer to a question; raise `BrokerUnavailable`, or `BrokerRejected` for one the venue refuses."
        try:
            return self.ask(method, parameters, urgent)
        except (NotTaken, VenueSilent, VenueRefused) as error:
            fault = read_fault(error)
        raise fault

    def send(
        self,
        method: str,  # ccxt's name of the endpoint
        parameters: Mapping[str, Any],  # of the request
    ) -> Any:
        "Return the answer to an order, sent once; raise one of the three ways in which it can fail."
        try:
            self._synced()
        except (NotTaken, VenueSilent, VenueRefused) as error:
            said = f"the venue's clock cannot be read: {error}"
        else:
            said = ""
        if said:
            raise NotTaken(said)
        try:
            return self._raw(method, parameters)
        except VenueRefused as error:
            if error.code == CLOCK:
                self.offset_ms = None  # looked at again before the next; this one is not sent twice
            raise
