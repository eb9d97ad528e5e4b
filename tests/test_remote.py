"""Remote sources: one contract over every provider, each against a server or database that speaks its format."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr

pytest.register_assert_rewrite("contracts")

import ccxt  # noqa: E402
from contracts.bar_store import random_bars  # noqa: E402
from contracts.remote_source import (  # noqa: E402
    LATER,
    QUICK,
    HttpSourceContract,
    KeyContract,
    KillContract,
    RemoteSourceContract,
    WindowContract,
)
from sqlalchemy import create_engine, text  # noqa: E402

from orbiquant.core import DataError, FixedClock, NotFoundError, SettingsError  # noqa: E402
from orbiquant.domain import Bars, SeriesId, Timeframe  # noqa: E402
from orbiquant.market.alpaca import AlpacaSource  # noqa: E402
from orbiquant.market.calendars import expected_times, open_at  # noqa: E402
from orbiquant.market.dukascopy import FIRST_DAYS, DukascopySource  # noqa: E402
from orbiquant.market.exchanges import ExchangeSource  # noqa: E402
from orbiquant.market.polygon import PolygonSource  # noqa: E402
from orbiquant.market.providers import missing_keys, open_provider  # noqa: E402
from orbiquant.market.pulls import pull  # noqa: E402
from orbiquant.market.remote import RemoteSource  # noqa: E402
from orbiquant.market.resampling import resample  # noqa: E402
from orbiquant.market.sql import SqlSource  # noqa: E402
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from orbiquant.market.vendors import VendorSource  # noqa: E402
from orbiquant.net import HttpClient  # noqa: E402
from orbiquant.settings import load_settings  # noqa: E402
from tests.tools.fake_providers import (  # noqa: E402
    FakeAlpaca,
    FakeBinance,
    FakeDukascopy,
    FakeOkx,
    FakePolygon,
    FakeProvider,
    reply,
)
from tests.tools.postgres import find_binaries, running_postgres  # noqa: E402
from tests.tools.programs import run_program  # noqa: E402

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
EURUSD_4H = SeriesId.parse("EURUSD", "4h")
EURUSD_1M = SeriesId.parse("EURUSD", "1m")
BTCUSDT_1H = SeriesId.parse("BTCUSDT", "1h")
EURUSQ_1H = SeriesId.parse("EURUSQ", "1h")
BTCUSDT_1M = SeriesId.parse("BTCUSDT", "1m")

BARS = random_bars("2024-02-26", 160)
ELSEWHERE = f"""from datetime import datetime
from pydantic import SecretStr
from orbiquant.core import FixedClock
from orbiquant.net import HttpClient
CLOCK = FixedClock(datetime.fromisoformat('{LATER.isoformat()}'))
"""  # begins the script of another process


def options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what every source is opened with."""
    return {"clock": settings.get("clock") or FixedClock(LATER), "repair": settings.get("repair", ())}


def line_to(provider: FakeProvider, waited: list[float], keys: dict[str, str] | None = None) -> HttpClient:
    """Return a line that does not really wait."""
    secrets = {name: SecretStr(key) for name, key in (keys or {}).items()}
    name = type(provider).__name__.removeprefix("Fake").lower()
    return HttpClient(name, provider.url, secrets, "[providers]", 1e9, 5, QUICK, waited.append)


# --- exchanges ---


class Binance:
    """Binance, asked by ccxt."""

    symbol = "BTCUSDT"

    @pytest.fixture
    def provider(self) -> Iterator[FakeProvider]:
        """Yield a running server."""
        with FakeBinance("BTCUSDT", BARS).running() as server:
            yield server

    @pytest.fixture
    def waited(self) -> list[float]:
        """Return the pauses that were made."""
        return []

    @pytest.fixture
    def open_source(self, provider: FakeProvider, waited: list[float]) -> Callable[..., RemoteSource]:
        """Return a function that opens a source."""

        def opened(**settings: Any) -> RemoteSource:
            provider.page_size = settings.get("page", 1_000_000)
            source = ExchangeSource("binance", provider.url, backoff=QUICK, wait=waited.append, **options(settings))
            source._client.exchange.enableRateLimit = False
            return source

        return opened

    @pytest.fixture
    def recipe(self, provider: FakeProvider) -> tuple[str, str]:
        """Return how another process makes the source."""
        imports = f"{ELSEWHERE}from orbiquant.market.exchanges import ExchangeSource"
        return imports, f"ExchangeSource('binance', {provider.url!r}, clock=CLOCK)"


class TestBinance(Binance, HttpSourceContract, WindowContract):
    """The contract, over ccxt."""


class TestBinanceKilled(Binance, KillContract):
    """Killed with -9."""

    timeframe = "1h"
    expected = pytest.fixture(lambda self: BARS)


def test_binance_is_asked_as_it_documents():
    with FakeBinance("BTCUSDT", random_bars("2024-02-26", 2500, "1m")).running() as server:
        source = ExchangeSource("binance", server.url, clock=FixedClock(LATER))
        bars = source.bars(
            SeriesId.parse("BTC/USDT", "1m"), server.rows.index[0], server.rows.index[0] + timedelta(minutes=2500)
        )
    pd.testing.assert_frame_equal(bars, server.rows, check_freq=False)
    pages = [asked.query for asked in server.requests if asked.path == "/api/v3/klines"]
    assert [page["limit"] for page in pages] == ["1000", "1000", "1000"]
    assert {(page["symbol"], page["interval"]) for page in pages} == {("BTCUSDT", "1m")}
    assert all("apikey" not in str(asked.headers).lower() for asked in server.requests)
    assert bars["volume"].eq(10).all(), "base units: the sixth field, not the eighth"


def test_weeks_are_made_of_days_and_begin_on_monday():
    with FakeBinance("BTCUSDT", random_bars("2024-01-01", 70, "1d")).running() as server:
        bars = ExchangeSource("binance", server.url, clock=FixedClock(datetime(2024, 3, 8, tzinfo=UTC))).bars(
            SeriesId.parse("BTCUSDT", "1w")
        )
    assert set(bars.index.day_name()) == {"Monday"} and len(bars) == 9
    assert {asked.query.get("interval") for asked in server.requests} == {None, "1d"}


def test_bars_on_another_clock_are_refused():
    moved = random_bars("2024-01-01 16:00", 30, "1d")
    said = "30 1d bars that begin elsewhere than those of the crypto calendar"
    with FakeBinance("BTCUSDT", moved).running() as server, pytest.raises(DataError, match=said):
        ExchangeSource("binance", server.url, clock=FixedClock(LATER)).bars(SeriesId.parse("BTCUSDT", "1d"))


def test_an_exchange_that_ccxt_does_not_know():
    with pytest.raises(DataError, match="one that ccxt knows, was 'binanse', did you mean 'binance'"):
        ExchangeSource("binanse").bars(BTCUSDT_1H)
    assert len(ccxt.exchanges) > 90


def okx(server: FakeOkx) -> ExchangeSource:
    """Return a source that asks another exchange than Binance."""
    source = ExchangeSource("okx", server.url, clock=FixedClock(LATER), backoff=QUICK)
    source._client.exchange.enableRateLimit = False
    return source


def test_a_quiet_stretch_longer_than_a_small_page_loses_nothing():
    minutes = random_bars("2024-02-26", 2400, "1m")
    there, edges = minutes.drop(minutes.index[600:1000]), (minutes.index[0], minutes.index[-1] + timedelta(minutes=1))
    with FakeOkx("BTCUSDT", there).running() as server:
        source = okx(server)
        pd.testing.assert_frame_equal(source.bars(BTCUSDT_1M, *edges), there, check_freq=False)
        pages = [asked.query for asked in server.requests if "candles" in asked.path]
        assert {page["limit"] for page in pages} == {"300"} and len(pages) <= 2400 // 300 + 1
        assert okx(server).bars(BTCUSDT_1M, minutes.index[700], minutes.index[800]).empty, "listed, and quiet"


@pytest.mark.parametrize("listed", [True, False])
def test_an_exchange_that_answers_by_time_span_is_asked_from_the_listing_or_needs_a_start(listed: bool):
    with FakeOkx("BTCUSDT", BARS).running() as server:
        begin = BARS.index[0] - timedelta(hours=5)
        server.listed_ms = str(int(begin.timestamp() * 1000)) if listed else ""
        source = okx(server)
        if listed:
            assert source.begins(BTCUSDT_1H) == begin.floor("D")
            pd.testing.assert_frame_equal(source.bars(BTCUSDT_1H), BARS, check_freq=False)
        else:
            with pytest.raises(DataError, match=r"`start` \(--since\) must be given: okx does not tell") as refused:
                source.bars(BTCUSDT_1H)
            assert not isinstance(refused.value, NotFoundError), "it is listed"
            assert source.bars(BTCUSDT_1H, BARS.index[0], BARS.index[9]).equals(BARS[:9])


def test_a_listed_name_that_is_no_symbol_is_passed_over(table: Callable[..., SqlSource]):
    odd = ["$PAC", "HARRYPOTTEROBAMASONIC10INU", "币安人生"]
    with FakeOkx("BTCUSDT", BARS).running() as server:
        server.others = [(base, "USDT") for base in odd]
        assert okx(server).bars(BTCUSDT_1H, BARS.index[0], BARS.index[9]).equals(BARS[:9])
        with pytest.raises(NotFoundError, match="okx holds no BTCUSDC 1h, did you mean 'BTCUSDT 1h'"):
            okx(server).bars(SeriesId.parse("BTCUSDC", "1h"))
    with FakePolygon("EURUSD", BARS).running() as server:
        server.others = ["C:EUR$", "C:EURO/$"]
        with pytest.raises(NotFoundError, match="polygon holds no EURUSQ 1h, did you mean 'EURUSD 1h'"):
            PolygonSource(line_to(server, [], Polygon.keys), clock=FixedClock(LATER)).bars(EURUSQ_1H)
    held = [BARS[:3].reset_index().assign(symbol=name, timeframe="1h") for name in ("#AAPL", "EURUSD", "US500.cash+")]
    with pytest.raises(NotFoundError, match="sql holds no EURUSQ 1h, did you mean 'EURUSD 1h'"):
        table(pd.concat(held).astype({"time": "str"})).bars(EURUSQ_1H)


def test_a_library_that_is_missing_names_its_extra():
    script = f"""import sys
sys.modules["ccxt"] = None
{ELSEWHERE}from orbiquant.cli.ending import explain_error
from orbiquant.domain import SeriesId
from orbiquant.market.exchanges import ExchangeSource
try:
    ExchangeSource("binance").bars(SeriesId.parse("BTCUSDT", "1h"))
except Exception as error:
    print(explain_error(error)[0])
try:
    import ccxt
except ImportError as error:
    print(explain_error(error)[0])"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == 2 * "ccxt is not installed: pip install 'orbiquant[exchange]'\n"


@pytest.mark.parametrize("key", ["hunter2\n", "\r\n hunter2 "])
def test_space_around_a_key_is_not_sent(key: str):
    with FakePolygon("EURUSD", BARS).running() as server:
        settings = load_settings(providers={"polygon_api_key": key, "polygon_url": server.url}).providers
        with pytest.raises(SettingsError, match="HTTP 401") as refused:
            open_provider("polygon", settings, FixedClock(LATER)).bars(EURUSD_1H)
    assert server.requests[0].headers["authorization"] == "Bearer hunter2" and "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["hunter2é", "hunt\ner2", "hunt\x7fer2"])
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(key: str, caplog: pytest.LogCaptureFixture):
    settings = load_settings(providers={"polygon_api_key": key}).providers
    with pytest.raises(
        SettingsError, match=r"^\[providers\] polygon_api_key must be printable ASCII, was not"
    ) as refused:
        open_provider("polygon", settings, FixedClock(LATER))
    told = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r} {caplog.text}"
    assert "hunt" not in told and "er2" not in told
    blank = load_settings(providers={"polygon_api_key": " \n"}).providers
    assert missing_keys("polygon", blank) == ["polygon_api_key"]


# --- Dukascopy ---


def quoted_minutes(start: str, days: int) -> Bars:
    """Return minutes of the forex week, on the grid of points."""
    index = expected_times(start, pd.Timestamp(start, tz="UTC") + timedelta(days=days), "1m", "forex")
    rng = np.random.default_rng(7)
    close = 108_000 + rng.integers(-9, 10, len(index)).cumsum()
    opened = np.r_[108_000, close[:-1]]
    high, low = np.maximum(opened, close) + rng.integers(0, 4, len(index)), np.minimum(opened, close) - 2
    columns = {"open": opened, "high": high, "low": low, "close": close}
    return pd.DataFrame({name: points / 100_000 for name, points in columns.items()} | {"volume": 1.5}, index=index)


MINUTES = quoted_minutes("2024-02-26", 7)


@pytest.fixture(autouse=True)
def begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let EURUSD begin with the minutes that are served here."""
    monkeypatch.setitem(FIRST_DAYS, "EURUSD", "2024-02-26")


class Dukascopy:
    """Dukascopy's files; the contract's hours are made of their minutes."""

    symbol, base = "EURUSD", "1m"
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def provider(self) -> Iterator[FakeProvider]:
        """Yield a running server."""
        with FakeDukascopy("EURUSD", MINUTES).running() as server:
            yield server

    @pytest.fixture
    def waited(self) -> list[float]:
        """Return the pauses that were made."""
        return []

    @pytest.fixture
    def expected(self) -> Bars:
        """Return the hours."""
        return resample(MINUTES, "1m", "1h", "forex", partial=True)

    @pytest.fixture
    def open_source(self, provider: FakeProvider, waited: list[float]) -> Callable[..., RemoteSource]:
        """Return a function that opens a source."""

        def opened(**settings: Any) -> RemoteSource:
            return DukascopySource(line_to(provider, waited), connections=1, **self.settings, **options(settings))

        return opened

    @pytest.fixture
    def recipe(self, provider: FakeProvider) -> tuple[str, str]:
        """Return how another process makes the source."""
        imports = f"{ELSEWHERE}from orbiquant.market.dukascopy import FIRST_DAYS, DukascopySource"
        imports += f"\nFIRST_DAYS['EURUSD'] = {FIRST_DAYS['EURUSD']!r}"
        line = f"HttpClient('dukascopy', {provider.url!r}, per_minute=1e9)"
        return imports, f"DukascopySource({line}, clock=CLOCK)"


class TestDukascopy(Dukascopy, HttpSourceContract):
    """The contract, over minute candles of the bid."""


@pytest.mark.slow
class TestDukascopyKilled(Dukascopy, KillContract):
    """Killed with -9."""

    timeframe = "1h"


SIDE = {"bid": 0.0, "ask": 12e-5, "mid": 6e-5}


@pytest.mark.parametrize("price", SIDE)
@pytest.mark.parametrize("detail", ["minutes", "ticks"])
def test_candles_and_ticks_make_the_same_bars_of_each_side(price: str, detail: str):
    minutes = MINUTES[:2880]
    with FakeDukascopy("EURUSD", minutes).running() as server:
        source = DukascopySource(line_to(server, []), price, detail, clock=FixedClock(LATER))
        bars = source.bars(SeriesId.parse("EUR/USD", "15m"), minutes.index[0], minutes.index[-1])
    made = resample(minutes, "1m", "15m", "forex", partial=True)
    prices = made[["open", "high", "low", "close"]] + SIDE[price]
    pd.testing.assert_frame_equal(bars[[*prices]], prices, check_freq=False, atol=1e-9)
    assert bars["volume"].iloc[0] == 22.5 * (2 if price == "mid" else 1)
    kinds = {asked.path.split("/")[-1].split("_")[0] for asked in server.requests}
    assert kinds == ({f"{hour:02d}h" for hour in range(24)} if detail == "ticks" else {
        "bid": {"BID"}, "ask": {"ASK"}, "mid": {"BID", "ASK"}}[price])  # fmt: skip


def test_fillers_of_the_weekend_are_no_bars():
    week = pd.date_range("2024-02-26", "2024-03-05", freq="1min", tz="UTC", inclusive="left", name="time", unit="us")
    whole = MINUTES.reindex(week)
    filled = whole.ffill().assign(volume=whole["volume"].fillna(0.0))
    flat = whole["close"].isna().to_numpy()
    for name in ("open", "high", "low"):
        filled.loc[flat, name] = filled.loc[flat, "close"]
    with FakeDukascopy("EURUSD", filled).running() as server:
        source = DukascopySource(line_to(server, []), clock=FixedClock(LATER))
        bars = source.bars(EURUSD_1M, week[0], week[-1] + timedelta(minutes=1))
        asked = [request.path for request in server.requests]
    assert open_at(bars.index, "forex").all() and bars.index.equals(whole.index[~flat])
    assert len(asked) == 7 and not any("/02/02/" in path for path in asked), "Saturday 2 March is not asked for"


@pytest.mark.parametrize(("start", "opens"), [("2024-03-04", {21, 22}), ("2024-10-28", {21, 22})])
def test_forex_days_end_at_17_new_york_on_both_sides_of_a_clock_change(start: str, opens: set[int]):
    minutes = quoted_minutes(start, 14)
    with FakeDukascopy("EURUSD", minutes).running() as server:
        source = DukascopySource(line_to(server, []), clock=FixedClock(datetime(2024, 12, 1, tzinfo=UTC)))
        parts = [
            source.bars(SeriesId.parse("EURUSD", "1d"), a, a + timedelta(days=3))
            for a in pd.date_range(start, periods=5, freq="3D", tz="UTC")
        ]
    bars = pd.concat(parts)
    assert set(bars.index.hour) == opens and set(bars.index.tz_convert("America/New_York").hour) == {17}
    assert bars.index.equals(expected_times(start, pd.Timestamp(start, tz="UTC") + timedelta(days=14), "1d", "forex"))


def test_an_empty_file_of_an_open_day_is_asked_for_again():
    with FakeDukascopy("EURUSD", MINUTES[:1440]).running() as server:
        server.faults.extend([reply(200, b""), reply(200, b"")])
        source = DukascopySource(line_to(server, []), clock=FixedClock(LATER))
        bars = source.bars(EURUSD_1H, MINUTES.index[0], MINUTES.index[1439])
    assert len(bars) == 24 and len(server.requests) == 3


def test_days_at_the_seam_of_two_windows_are_fetched_once():
    with FakeDukascopy("EURUSD", MINUTES).running() as server:
        source = DukascopySource(line_to(server, []), clock=FixedClock(LATER))
        for day in pd.date_range("2024-02-26", periods=4, freq="D", tz="UTC"):
            source.bars(EURUSD_4H, day, day + timedelta(days=1))
        assert len({asked.path for asked in server.requests}) == len(server.requests)


def test_an_interrupt_does_not_wait_for_the_pauses_of_other_threads():
    with FakeDukascopy("EURUSD", MINUTES).running() as server:
        server.faults.extend([reply(200, b"nonsense"), *[reply(503, Retry_After="50")] * 30])
        line = HttpClient("dukascopy", server.url, per_minute=1e9)
        source = DukascopySource(line, clock=FixedClock(LATER))
        begin = time.monotonic()
        with pytest.raises(DataError):
            source.bars(EURUSD_1H)
    assert time.monotonic() - begin < 10


SILENT = """
import socket, threading
from datetime import datetime
from orbiquant.domain import SeriesId
from orbiquant.market.dukascopy import DukascopySource
from orbiquant.net import HttpClient
with socket.create_server(("127.0.0.1", 0)) as server:
    line = HttpClient("dukascopy", f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=30)
    source = DukascopySource(line)
    lines = []
    def hear():
        while True:
            lines.append(server.accept())
            if len(lines) == 2:
                print("silent", flush=True)
    threading.Thread(target=hear, daemon=True).start()
    window = map(datetime.fromisoformat, ("2024-01-08T00:00Z", "2024-01-12T00:00Z"))
    source.bars(SeriesId.parse("EURUSD", "1h"), *window)
"""


def test_ctrl_c_does_not_wait_for_a_silent_server():
    command = [sys.executable, "-c", SILENT]
    with run_program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "silent\n", "both connections have been taken"
        begin = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    assert "KeyboardInterrupt" in said and time.monotonic() - begin < 5


def test_years_before_a_series_begins_are_not_asked_for_at_any_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeDukascopy, "scale", 10)
    minutes, clock = quoted_minutes("2017-05-08", 1), FixedClock(datetime(2017, 5, 10, 1, tzinfo=UTC))
    with FakeDukascopy("BTCUSD", minutes).running() as server:
        for wanted in (24, 0):
            server.requests.clear()
            source = DukascopySource(line_to(server, []), clock=clock)
            pulled = pull(DeltaBarStore(tmp_path), source, SeriesId.parse("BTCUSD", "1h"), clock=clock)
            assert pulled.rows_added == wanted
            assert len(server.requests) < 12 and all("/2017/04/" in asked.path for asked in server.requests)


@pytest.mark.slow
def test_ctrl_c_in_a_pause_ends_a_pull_at_once_and_leaves_the_store_whole(tmp_path: Path):
    with FakeDukascopy("EURUSD", MINUTES).running() as server:
        serve = server.answer

        def answer(path: str, query: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
            if "/2024/02/" in path:  # March, in the second week that is pulled
                server.faults.append(reply(503, Retry_After="50"))
            return serve(path, query, headers)

        server.answer = answer
        places = {"ORBIQUANT_HOME": str(tmp_path), "ORBIQUANT_PROVIDERS_DUKASCOPY_URL": server.url}
        words = ["data", "pull", "dukascopy", "EURUSD", "1h", "--since", "2024-02-21", "--until", "2024-03-10"]
        command = [str(Path(sys.executable).parent / "orbiquant"), *words]
        with run_program(command, env=os.environ | places, stderr=subprocess.PIPE, text=True) as child:
            while not any("/2024/02/" in asked.path for asked in server.requests):
                assert child.poll() is None
                time.sleep(0.05)
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=20)
    assert child.returncode == 130 and "Interrupted. What was finished is kept" in said
    held = DeltaBarStore(tmp_path / "data" / "store").read(EURUSD_1H)
    assert held.equals(resample(MINUTES, "1m", "1h", "forex", partial=True)[: len(held)]) and len(held) == 48


# --- vendors ---


class Vendor:
    """Hours of one series at a vendor that wants a key."""

    fake: ClassVar[type[FakeProvider]]
    source_class: ClassVar[type[VendorSource]]
    keys: ClassVar[dict[str, str]]  # header → what it must say

    @pytest.fixture
    def provider(self) -> Iterator[FakeProvider]:
        """Yield a running server."""
        with self.fake(self.symbol, BARS).running() as server:
            yield server

    @pytest.fixture
    def waited(self) -> list[float]:
        """Return the pauses that were made."""
        return []

    @pytest.fixture
    def open_source(self, provider: FakeProvider, waited: list[float]) -> Callable[..., RemoteSource]:
        """Return a function that opens a source."""

        def opened(**settings: Any) -> RemoteSource:
            provider.page_size = settings.get("page", 1_000_000)
            return self.source_class(line_to(provider, waited, self.keys), **options(settings))

        return opened

    @pytest.fixture
    def recipe(self, provider: FakeProvider) -> tuple[str, str]:
        """Return how another process makes the source."""
        name, provides = self.source_class.__name__, self.source_class.provider
        keys = f"{{name: SecretStr(key) for name, key in {self.keys!r}.items()}}"
        line = f"HttpClient({provides!r}, {provider.url!r}, {keys}, per_minute=1e9)"
        return f"{ELSEWHERE}from orbiquant.market.{provides} import {name}", f"{name}({line}, clock=CLOCK)"


class Polygon(Vendor):
    """Polygon's aggregates."""

    fake, source_class, symbol, secrets = FakePolygon, PolygonSource, "EURUSD", (FakePolygon.key,)
    keys: ClassVar = {"Authorization": f"Bearer {FakePolygon.key}"}


class TestPolygon(Polygon, HttpSourceContract, WindowContract, KeyContract):
    """The contract, over hours of EURUSD."""


@pytest.mark.slow
class TestPolygonKilled(Polygon, KillContract):
    """Killed with -9."""

    timeframe = "1h"
    expected = pytest.fixture(lambda self: BARS)


class Alpaca(Vendor):
    """Alpaca's crypto bars."""

    fake, source_class, symbol, secrets = FakeAlpaca, AlpacaSource, "BTCUSD", (FakeAlpaca.key, FakeAlpaca.secret)
    keys: ClassVar = {"APCA-API-KEY-ID": FakeAlpaca.key, "APCA-API-SECRET-KEY": FakeAlpaca.secret}


class TestAlpaca(Alpaca, HttpSourceContract, WindowContract, KeyContract):
    """The contract, over hours of BTC/USD."""


@pytest.mark.slow
class TestAlpacaKilled(Alpaca, KillContract):
    """Killed with -9."""

    timeframe = "1h"
    expected = pytest.fixture(lambda self: BARS)


def stock_source(server: FakeProvider) -> RemoteSource:
    """Return a source of the vendor whose server it is."""
    if isinstance(server, FakeAlpaca):
        return AlpacaSource(line_to(server, [], Alpaca.keys), clock=FixedClock(datetime(2025, 1, 1, tzinfo=UTC)))
    return PolygonSource(line_to(server, [], Polygon.keys), clock=FixedClock(datetime(2025, 1, 1, tzinfo=UTC)))


@pytest.fixture(params=[FakePolygon, FakeAlpaca])
def stocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """Yield a server of each vendor that has AAPL."""
    monkeypatch.setattr(FakePolygon, "ticker", "AAPL")
    with request.param("AAPL", BARS).running() as server:
        yield server


def test_days_of_a_stock_carry_the_exchanges_date_in_summer_and_winter(stocks: FakeProvider):
    dates = expected_times("2024-02-26", "2024-03-23", "1d", "us_equity")
    midnights = dates.tz_localize(None).tz_localize("America/New_York").tz_convert("UTC").rename("time")
    stocks.rows = random_bars("2024-01-01", len(dates), "1d").set_axis(midnights)
    bars = stock_source(stocks).bars(SeriesId.parse("aapl", "1d"))
    assert bars.index.equals(dates) and set(midnights.hour) == {4, 5}
    weeks = stock_source(stocks).bars(SeriesId.parse("AAPL", "1w"), dates[0])
    assert len(weeks) == 4 and set(weeks.index.day_name()) == {"Monday"}


@pytest.mark.parametrize("hours", [0, 1, 4, 6])
def test_the_newest_day_of_a_stock_is_there_as_soon_as_it_has_closed(stocks: FakeProvider, hours: int, tmp_path: Path):
    dates = expected_times("2024-01-02", "2024-01-06", "1d", "us_equity")
    midnights = dates.tz_localize(None).tz_localize("America/New_York").tz_convert("UTC").rename("time")
    stocks.rows = random_bars("2024-01-01", len(dates), "1d").set_axis(midnights)
    source, clock = stock_source(stocks), FixedClock(datetime(2024, 1, 5, hours, tzinfo=UTC))
    source.clock = clock
    result = pull(DeltaBarStore(tmp_path), source, SeriesId.parse("AAPL", "1d"), dates[0], clock=clock)
    assert result.last == pd.Timestamp("2024-01-04", tz="UTC") and result.rows_added == 3


def test_hours_of_a_stock_begin_with_the_session_and_leave_the_evening_out(stocks: FakeProvider):
    stocks.rows = random_bars("2024-03-04 09:00", 24 * 2 * 14, "30m")
    bars = stock_source(stocks).bars(SeriesId.parse("AAPL", "1h"))
    opened = bars.index.tz_convert("America/New_York")
    assert {f"{t:%H:%M}" for t in opened} == {f"{hour:02d}:30" for hour in range(9, 16)}
    assert set(opened.day_of_week) == {0, 1, 2, 3, 4} and {t.utcoffset() for t in opened} == {
        timedelta(hours=-5),
        timedelta(hours=-4),
    }


def test_a_key_goes_to_no_other_host():
    with FakePolygon("EURUSD", BARS).running() as server, FakePolygon("EURUSD", BARS).running() as other:
        server.page_size, server.foreign_host = 50, other.url
        bars = PolygonSource(line_to(server, [], Polygon.keys), clock=FixedClock(LATER)).bars(EURUSD_1H)
    assert len(bars) == 160 and other.requests == []
    assert all("apiKey" not in asked.query for asked in server.requests)


@pytest.mark.parametrize("vendor", [Polygon, Alpaca])
def test_a_server_that_leads_round_in_circles_is_stopped(vendor: type):
    kind, symbol = (FakePolygon, "EURUSD") if vendor is Polygon else (FakeAlpaca, "BTCUSD")
    with kind(symbol, BARS).running() as server:
        page = {"results": [], "bars": {}, "next_url": f"{server.url}/v2/aggs/x?cursor=1", "next_page_token": "x1"}
        server.answer = lambda *asked: (200, page)
        source = stock_source(server)
        with pytest.raises(DataError, match=f"the same page of {symbol} again and again"):
            source.bars(SeriesId.parse(symbol, "1h"), BARS.index[0], BARS.index[9])


def test_alpaca_has_no_forex():
    with (
        FakeAlpaca("BTCUSD", BARS).running() as server,
        pytest.raises(NotFoundError, match="alpaca holds no EURUSD 1h"),
    ):
        stock_source(server).bars(EURUSD_1H)
    assert server.requests == []


def test_a_refused_key_says_which_setting_to_look_at():
    with (
        FakePolygon("EURUSD", BARS).running() as server,
        pytest.raises(SettingsError, match=r"look at \[providers\]") as refused,
    ):
        PolygonSource(line_to(server, [], {"Authorization": "Bearer wrong-key-1"}), clock=FixedClock(LATER)).bars(
            EURUSD_1H
        )
    assert "wrong-key-1" not in refused.value.message and "HTTP 401" in refused.value.message


# --- SQL ---


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL."""
    if find_binaries() is None:
        pytest.skip("no PostgreSQL: install the extra `dev`")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module")
def mysql() -> str:
    """Return the URL of an empty database of a real MySQL or MariaDB."""
    url = os.environ.get("TEST_MYSQL_URL", "")
    if not url:
        pytest.skip("no MySQL: set TEST_MYSQL_URL=mysql://user:password@host/database")
    try:
        create_engine(driven(url)).connect().close()
    except Exception as error:
        pytest.fail(f"TEST_MYSQL_URL names no database that answers: {type(error).__name__}", pytrace=False)
    return url


class Sql:
    """A table of bars; subclasses say where it is and how it tells time."""

    symbol = "EURUSD"
    time_type, settings = "TIMESTAMP", {}

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the URL of the database."""
        return f"sqlite:///{tmp_path}/legacy.db"

    @pytest.fixture
    def rows(self) -> Bars:
        """Return what the table has."""
        return BARS

    @pytest.fixture
    def expected(self, rows: Bars) -> Bars:
        """Return the bars that the rows make up."""
        return rows

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them."""
        return list(index.tz_localize(None).strftime("%Y-%m-%d %H:%M:%S"))

    @pytest.fixture
    def serve(self, url: str, rows: Bars) -> Callable[..., None]:
        """Return a function that fills the table, and fill it."""
        engine = create_engine(driven(url))

        def put(rows: Bars, honest: bool = True) -> None:
            columns = ", ".join(f"{name} DOUBLE PRECISION" for name in ("o", "h", "l", "c", "volume"))
            values = [
                {"ts": ts, "pair": pair, "o": row[0], "h": row[1], "l": row[2], "c": row[3], "volume": row[4]}
                for pair in ("eur/usd", "GBP/USD")
                for ts, row in zip(self.told(rows.index), rows.to_numpy().tolist(), strict=True)
            ]
            with engine.begin() as connection:
                if engine.dialect.name == "mysql":
                    connection.execute(text("SET time_zone = '+00:00'"))
                connection.execute(text("DROP TABLE IF EXISTS quotes"))
                connection.execute(text(f"CREATE TABLE quotes (ts {self.time_type}, pair VARCHAR(20), {columns})"))
                connection.execute(text("INSERT INTO quotes VALUES (:ts, :pair, :o, :h, :l, :c, :volume)"), values)

        put(rows)
        yield put
        engine.dispose()

    @pytest.fixture
    def open_source(self, url: str, serve: Callable[..., None]) -> Callable[..., RemoteSource]:
        """Return a function that opens a source."""

        def opened(**settings: Any) -> RemoteSource:
            return SqlSource(
                SecretStr(url), page_rows=settings.get("page", 1000), **self.keywords(), **options(settings)
            )

        return opened

    def keywords(self) -> dict[str, Any]:
        """Return how the table is read."""
        roles = {"time": "ts", "symbol": "pair", "open": "o", "high": "h", "low": "l", "close": "c"}
        return {"table": "quotes", "columns": roles, "timeframe": Timeframe.H1} | self.settings

    @pytest.fixture
    def recipe(self, url: str, serve: Callable[..., None]) -> tuple[str, str]:
        """Return how another process makes the source."""
        imports = f"{ELSEWHERE}from orbiquant.domain import Timeframe\nfrom orbiquant.market.sql import SqlSource"
        given = self.keywords() | {"timeframe": "1h"}
        return imports, f"SqlSource(SecretStr({url!r}), **{given!r} | {{'timeframe': Timeframe.H1}}, clock=CLOCK)"


def driven(url: str) -> str:
    """Return a URL with its driver."""
    return url.replace("postgresql:", "postgresql+psycopg:").replace("mysql:", "mysql+pymysql:")


@pytest.mark.slow
class TestSqliteText(Sql, RemoteSourceContract):
    """SQLite, times as text in UTC."""


class TestSqliteMinutes(Sql, RemoteSourceContract):
    """SQLite, times as text that ends with the minute."""

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them."""
        return list(index.strftime("%Y-%m-%dT%H:%M"))


class TestSqliteServerClock(Sql, RemoteSourceContract):
    """SQLite, times as seconds of a MetaTrader server's clock, through a change of New York's clocks."""

    time_type = "INTEGER"
    settings: ClassVar = {"epoch": "s", "zone": "America/New_York+7"}

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them."""
        return list(
            (index.tz_convert("America/New_York").tz_localize(None) + timedelta(hours=7)).as_unit("s").asi8.tolist()
        )


class TestPostgresAware(Sql, RemoteSourceContract):
    """PostgreSQL, times with a zone."""

    time_type = "TIMESTAMP WITH TIME ZONE"

    @pytest.fixture
    def url(self, postgres: str) -> str:
        """Return the URL of the database."""
        return postgres

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them."""
        return list(index.tz_convert("Asia/Tokyo").to_pydatetime())


class TestMysql(Sql, RemoteSourceContract):
    """MySQL or MariaDB, times as a clock in Athens showed them."""

    time_type, settings = "DATETIME(6)", {"zone": "Europe/Athens"}

    @pytest.fixture
    def url(self, mysql: str) -> str:
        """Return the URL of the database."""
        return mysql

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them."""
        return list(index.tz_convert("Europe/Athens").tz_localize(None).to_pydatetime())


class TestMysqlTimestamp(TestMysql):
    """MySQL's TIMESTAMP, which it tells in the clock of the session."""

    time_type, settings = "TIMESTAMP(6) NULL", {}

    def told(self, index: pd.DatetimeIndex) -> list[Any]:
        """Return times as the table tells them, in a session in UTC, as the test's is set."""
        return list(index.tz_localize(None).to_pydatetime())


@pytest.mark.slow
class TestSqliteKilled(Sql, KillContract):
    """Killed with -9."""

    timeframe = "1h"


TICKS = MINUTES[:1440]


def as_ticks(minutes: Bars) -> pd.DataFrame:
    """Return four ticks a minute, one for each price, and another for each at the same millisecond."""
    spread = pd.concat([minutes[name].rename("bid") for name in ("open", "high", "low", "close")])
    moments = pd.DatetimeIndex(np.concatenate([minutes.index + timedelta(seconds=s) for s in (0, 10, 20, 30)]))
    once = pd.DataFrame({"bid": spread.to_numpy(), "ask": spread.to_numpy() + 2e-4}, index=moments)
    return pd.concat([once, once]).sort_index(kind="stable")


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
@pytest.mark.parametrize("page_rows", [50, 1_000_000])
def test_ticks_of_a_table_make_bars_whatever_the_page(
    place: str, page_rows: int, tmp_path: Path, request: pytest.FixtureRequest
):
    minutes = TICKS if page_rows > 50 else TICKS[:120]
    url = f"sqlite:///{tmp_path}/t.db" if place == "sqlite" else request.getfixturevalue("postgres")
    ticks = as_ticks(minutes)
    frame = ticks.assign(time=ticks.index.as_unit("ms").asi8).reset_index(drop=True)
    engine = create_engine(driven(url))
    frame.to_sql("ticks_eurusd", engine, index_label="id", if_exists="replace")
    source = SqlSource(
        SecretStr(url),
        "ticks_{symbol}",
        kind="ticks",
        price="mid",
        epoch="ms",
        page_rows=page_rows,
        clock=FixedClock(LATER),
    )
    bars, made = source.bars(SeriesId.parse("EUR/USD", "15m")), resample(minutes, "1m", "15m", "forex", partial=True)
    prices = made[["open", "high", "low", "close"]] + 1e-4
    pd.testing.assert_frame_equal(bars[[*prices]], prices, check_freq=False, atol=1e-9)
    assert bars["volume"].eq(15 * 8).all(), "the number of ticks, where no column tells the volume"
    with pytest.raises(NotFoundError, match="sql holds no EURUSQ 15m, did you mean 'EURUSD 15m'"):
        source.bars(SeriesId.parse("EURUSQ", "15m"))
    engine.dispose()


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., SqlSource]:
    """Return a function that writes a frame to a table of SQLite and opens a source of it."""

    def written(frame: pd.DataFrame, **settings: Any) -> SqlSource:
        engine = create_engine(f"sqlite:///{tmp_path}/x.db")
        frame.to_sql("bars", engine, index=False, if_exists="replace")
        engine.dispose()
        return SqlSource(SecretStr(f"sqlite:///{tmp_path}/x.db"), clock=FixedClock(LATER), **settings)

    return written


def test_a_timeframe_column_in_any_spelling_and_hours_for_those_who_ask_for_four(table: Callable[..., SqlSource]):
    held = BARS.reset_index().assign(symbol="EURUSD", timeframe="H1")
    held["time"] = held["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    source = table(held)
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), BARS, check_freq=False)
    fours = source.bars(EURUSD_4H)
    assert fours.equals(resample(BARS, "1h", "4h", "forex", partial=True)[fours.index[0] : fours.index[-1]])
    with pytest.raises(NotFoundError, match="sql holds no EURUSD 15m"):
        source.bars(SeriesId.parse("EURUSD", "15m"))


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d"]
)
def test_no_window_loses_a_bar_however_long_the_text_of_its_times_is(form: str, table: Callable[..., SqlSource]):
    frame = "1d" if form == "%Y-%m-%d" else "1h"
    bars, step = random_bars("2024-01-01", 40, frame), Timeframe(frame).delta
    held = bars.reset_index().assign(symbol="BTCUSDT", timeframe=frame, time=bars.index.strftime(form))
    source = table(held)
    for start, end in [(bars.index[5], bars.index[9]), (bars.index[5] - step / 3, bars.index[8] + step / 3)]:
        window = source.bars(SeriesId.parse("BTCUSDT", frame), start, end)
        pd.testing.assert_frame_equal(window, bars[5:9], check_freq=False)


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (
            {"timeframe": "1h"},
            {"columns": {"open": "first"}},
            "`sql_columns` must tell which column of bars is the open",
        ),
        (
            {"timeframe": "1h"},
            {"table": "bras"},
            "`sql_table` must be a table of the database, was 'bras', did you mean 'bars'",
        ),
        ({}, {}, "`sql_timeframe` must be given"),
        ({"timeframe": "1h", "time": 1_700_000_000}, {"epoch": "ms"}, "`sql_epoch` must be s, the unit of numbers"),
        ({"timeframe": "1h", "time": 28_333_333}, {}, "`sql_epoch` must be s, ms, us, ns, the unit of numbers"),
        (
            {"timeframe": "1h", "time": 1_700_000_000_000},
            {"epoch": "s"},
            "`sql_epoch` must be ms, the unit of numbers since 1970 such as 1700000000000",
        ),
        ({"timeframe": "1h", "time": "yesterday"}, {}, "must hold times or numbers"),
        ({"timeframe": "1h", "time": "2024-03-10 02:30:00"}, {"zone": "America/New_York"}, "which skips 1 of them"),
        ({"timeframe": "1h", "close": "much"}, {}, "must hold numbers"),
    ],
)
def test_a_table_that_cannot_be_read_says_what_to_set(
    change: dict[str, Any], settings: dict[str, Any], said: str, table: Callable[..., SqlSource]
):
    frame = BARS[:1].reset_index().assign(symbol="EURUSD")
    frame["time"] = frame["time"].dt.strftime("%Y-%m-%d %H:%M:%S")
    with pytest.raises(DataError, match=said):
        table(frame.assign(**change), **settings).bars(EURUSD_1H)


@pytest.mark.parametrize("epoch", ["", "s"])
def test_ticks_of_an_hour_that_the_clock_shows_twice_are_refused(epoch: str, table: Callable[..., SqlSource]):
    utc = pd.date_range("2023-10-28 22:30", "2023-10-29 03:00", freq="20s", tz="UTC").repeat(2)
    wall = utc.tz_convert("Europe/Athens").tz_localize(None)
    told = wall.as_unit("s").asi8 if epoch else wall.strftime("%Y-%m-%d %H:%M:%S")
    frame = pd.DataFrame({"time": told, "symbol": "EURUSD", "price": 1.0 + np.arange(len(utc)) / 1e4})
    source = table(frame, kind="ticks", price="price", epoch=epoch, zone="Europe/Athens")
    with pytest.raises(DataError, match=r"ticks of 2023-10-29 03:00 cannot be told .* give them in UTC"):
        source.bars(EURUSD_1M)
    frame["time"] = utc.strftime("%Y-%m-%d %H:%M:%S")
    bars = table(frame, kind="ticks", price="price").bars(EURUSD_1M)
    assert bars["volume"].iloc[:-1].eq(6).all() and bars["close"].is_monotonic_increasing


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_number_that_is_no_time_is_named(zone: str, table: Callable[..., SqlSource]):
    frame = BARS[:3].reset_index().assign(symbol="EURUSD", timeframe="1h")
    frame["time"] = [1_699_999_200, 0, -(10**15)]
    with pytest.raises(DataError, match=r"-1000000000000000 is no time since 1970 in s or ms .*; look at `sql_zone`"):
        table(frame, epoch="s", zone=zone).bars(EURUSD_1H)


def test_a_database_that_is_not_there_is_an_error_without_its_password(tmp_path: Path):
    for url in ("postgresql://orbi:hunter2@127.0.0.1:9/x", "mysql://orbi:hunter2@127.0.0.1:9/x", "sqlite:///none.db"):
        with pytest.raises(DataError, match=r"sql_url") as refused:
            SqlSource(SecretStr(url)).bars(EURUSD_1H)
        assert "hunter2" not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    with pytest.raises(SettingsError, match="percent-encode @ in the password as %40") as refused:
        SqlSource(SecretStr("mysql://orbi:p@hunter2@127.0.0.1/x")).bars(EURUSD_1H)
    assert "hunter2" not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    for url in ("no url", "oracle://x"):
        with pytest.raises(SettingsError, match="`sql_url` must"):
            SqlSource(SecretStr(url)).bars(EURUSD_1H)
