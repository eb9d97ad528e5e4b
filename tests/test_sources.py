"""Sources: the contract of every source, samples without their packages, imports, and pulls that are cut off."""

import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import random_bars  # noqa: E402
from contracts.market_data import MarketDataContract  # noqa: E402

from orbiquant.core import DataError, FixedClock, NotFoundError  # noqa: E402
from orbiquant.domain import Bars, SeriesId, Timeframe  # noqa: E402
from orbiquant.market.bars import find_missing, inspect_bars  # noqa: E402
from orbiquant.market.calendars import expected_times  # noqa: E402
from orbiquant.market.files import ReadAs  # noqa: E402
from orbiquant.market.imports import import_file  # noqa: E402
from orbiquant.market.instruments import find_instrument  # noqa: E402
from orbiquant.market.pulls import missing_windows, pull, split_window  # noqa: E402
from orbiquant.market.sources import (  # noqa: E402
    SAMPLES,
    CsvSource,
    ParquetSource,
    SampleSource,
    SyntheticSource,
    parse_name,
    sample_path,
)
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from orbiquant.ports import BarStore, MarketData  # noqa: E402
from tests.tools.shared_bars import SHARED  # noqa: E402

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
BARS = random_bars("2024-02-26", 400)


class TestCsvFile(MarketDataContract):
    """One CSV file that tells nothing about itself."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> MarketData:
        """Return a source of a file with times in New York."""
        path = tmp_path / "export.txt"
        local = BARS.index.tz_convert("America/New_York").tz_localize(None).rename("Date")
        BARS.set_axis(local).to_csv(path, sep=";")
        return CsvSource(path, "EURUSD", "1h", asked=ReadAs(source_zone="America/New_York"))


class TestCsvFolder(MarketDataContract):
    """A folder of CSV files, two of them overlapping parts of the series."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> MarketData:
        """Return a source of a folder."""
        for name, part in (("EURUSD_H1_a.csv", BARS[:210]), ("EURUSD_H1_b.csv", BARS[200:]), ("XAUUSD-1h.csv", BARS)):
            part.to_csv(tmp_path / name)
        (tmp_path / "notes.csv").write_text("not bars at all")
        return CsvSource(tmp_path)


class TestParquetFile(MarketDataContract):
    """One Parquet file, its series told by its name."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> MarketData:
        """Return a source of a file."""
        BARS.to_parquet(tmp_path / "EURUSD_1h.parquet")
        return ParquetSource(tmp_path / "EURUSD_1h.parquet")


class TestLongParquetFile(MarketDataContract):
    """A Parquet file with a symbol column, beside another file."""

    symbol = "GBPUSD"

    @pytest.fixture
    def source(self, tmp_path: Path) -> MarketData:
        """Return a source of a folder."""
        long = pd.concat([BARS.assign(symbol="EUR/USD"), (BARS * 2).assign(symbol="GBP/USD")])
        long.astype({"symbol": "category"}).reset_index().to_parquet(tmp_path / "pairs_1h_long.parquet")
        BARS.to_parquet(tmp_path / "XAUUSD_1h.parquet")
        return ParquetSource(tmp_path)


class TestSample(MarketDataContract):
    """The hourly sample."""

    shared = SampleSource()

    @pytest.fixture
    def source(self) -> MarketData:
        """Return the samples."""
        return self.shared


class TestDailySample(TestSample):
    """A daily sample."""

    symbol, timeframe = "SPX", "1d"

    def test_any_spelling_of_the_symbol_will_do(self, source: MarketData, whole: pd.DataFrame):
        assert source.bars(SeriesId.parse("spx", "1d")).equals(whole)


class TestSynthetic(MarketDataContract):
    """The synthetic market."""

    symbol, timeframe = "ORBUSD", "15m"
    shared = SyntheticSource(rows=300)

    @pytest.fixture
    def source(self) -> MarketData:
        """Return a short market."""
        return self.shared


# --- samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.symbol} {sample.timeframe}")
def test_samples_are_whole(sample):
    bars = SampleSource().bars(SeriesId.parse(sample.symbol, sample.timeframe))
    report = inspect_bars(bars, sample.timeframe, find_instrument(sample.symbol).calendar)
    assert report.ok and len(bars) == {"EURUSD": 6225, "SPX": 5031, "NDX": 5031}[sample.symbol]
    assert report.missing / report.expected < 0.005
    assert (bars["volume"] > 0).mean() > 0.99 and sample.licence and sample.origin and sample.description


def test_the_euro_sample_is_on_the_utc_clock():
    index = SampleSource().bars(EURUSD_1H).index
    inside = expected_times("2017-01-01", "2017-12-24", "1h", "forex")
    year = index[(index >= inside[0]) & (index <= inside[-1])]
    assert year.equals(inside), "bar for bar the forex week, in both clock regimes of New York"
    for zone in ("Europe/London", "Europe/Athens", "America/New_York", "Etc/GMT-1"):
        moved = year.tz_localize(None).tz_localize(zone, ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")
        assert not moved.equals(inside)


def test_daily_samples_are_the_exchange_days():
    for symbol in ("SPX", "NDX"):
        assert find_missing(SampleSource().bars(SeriesId.parse(symbol, "1d")), Timeframe.D1, "us_equity").empty


def test_samples_are_read_without_their_packages():
    code = (
        "import sys, json; from orbiquant.domain import SeriesId;"
        "from orbiquant.market.sources import SampleSource;"
        "[SampleSource().bars(SeriesId.parse(*s)) for s in (('EURUSD', '1h'), ('SPX', '1d'))];"
        "print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {
        "matplotlib",
        "arch",
        "statsmodels",
        "scipy",
        "numba",
        "deltalake",
    }


def test_the_euro_sample_holds_the_very_bars_of_the_package_it_was_taken_from():
    text = gzip.decompress(sample_path(SAMPLES[0]).read_bytes())
    assert hashlib.sha256(text).hexdigest() == "28398b7edff9f74860d35a6f3c263f08e15c55264316dc07737d459d8688d7aa"
    rows = pd.util.hash_pandas_object(SampleSource().bars(EURUSD_1H)).to_numpy().tobytes()
    assert hashlib.sha256(rows).hexdigest() == "ca480fcda347d1c071333ca34c370de74d1a00fd6abb3db79b2caba8a35683d7"


def test_samples_say_whose_they_are():
    notice = sample_path(SAMPLES[0]).with_name("LICENSE.md").read_text()
    assert "MIT License" in notice and "Mohammad Amin Haghpanah" in notice and SAMPLES[0].origin in notice


def test_a_sample_without_its_package_says_which():
    with pytest.raises(NotFoundError, match="needs the package no_such_package"):
        sample_path(SAMPLES[0].model_copy(update={"package": "no_such_package"}))


# --- files and folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("EURUSD_1h.csv", ("EURUSD", "1h")),
        ("EURUSD_M5_201701020000_201712292355.csv", ("EURUSD", "5m")),
        ("XAUUSD_Daily_2012.csv", ("XAUUSD", "1d")),
        ("BTCUSDT-15m-2024-01.zip", ("BTCUSDT", "15m")),
        ("btcusdt.4h.parquet", ("BTCUSDT", "4h")),
        ("notes.csv", (None, None)),
        ("EURUSD.csv", (None, None)),
        ("EURUSD_7h.csv", (None, None)),
        ("._1h.csv", (None, None)),
        ("a_rather_long_name_of_a_file.csv", (None, None)),
        ("averyveryverylongsymbol_1h.csv", (None, "1h")),
    ],
)
def test_a_name_tells_its_series(name: str, series: tuple[str | None, str | None]):
    assert parse_name(name) == series


def test_a_file_that_does_not_tell_its_series_says_how_it_could(tmp_path: Path):
    BARS.to_csv(tmp_path / "export.csv")
    with pytest.raises(DataError, match=r"must be given, or export\.csv be named like EURUSD_1h\.csv"):
        CsvSource(tmp_path / "export.csv").bars(EURUSD_1H)
    assert len(CsvSource(tmp_path / "export.csv", "EURUSD", "1h").bars(EURUSD_1H)) == 400
    with pytest.raises(NotFoundError, match="file that exists"):
        CsvSource(tmp_path / "nothing.csv", "EURUSD", "1h").bars(EURUSD_1H)
    (tmp_path / "broken_1h.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        ParquetSource(tmp_path).bars(EURUSD_1H)
    (tmp_path / "broken_1h.parquet").unlink()
    with pytest.raises(NotFoundError, match="it is empty"):
        ParquetSource(tmp_path).bars(EURUSD_1H)


def test_a_source_sees_that_a_file_has_changed(tmp_path: Path):
    source = CsvSource(tmp_path)
    BARS[:100].to_csv(tmp_path / "EURUSD_1h.csv")
    assert len(source.bars(EURUSD_1H)) == 100
    BARS.to_csv(tmp_path / "EURUSD_1h.csv")
    assert len(source.bars(EURUSD_1H)) == 400
    BARS.set_axis(BARS.index + timedelta(hours=400)).to_csv(tmp_path / "EURUSD_1h_more.csv")
    assert len(source.bars(EURUSD_1H)) == 800


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path):
    BARS[:100].to_csv(tmp_path / "EURUSD_1h_a.csv")
    BARS[90:].set_axis(BARS.index[90:] + timedelta(minutes=30)).to_csv(tmp_path / "EURUSD_1h_b.csv")
    with pytest.raises(DataError, match=r"on another clock|overlapping"):
        CsvSource(tmp_path).bars(EURUSD_1H)


# --- import --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    """Return an empty store."""
    return DeltaBarStore(tmp_path / "store")


def test_an_import_reports_what_it_did(store: DeltaBarStore, tmp_path: Path):
    path = tmp_path / "x.csv"
    pd.concat([BARS[200:], BARS[:150], BARS[:1]]).to_csv(path)
    with pytest.raises(DataError, match=r"rules that would repair it: sort, drop_duplicates"):
        import_file(store, path, "EUR/USD", "1h")
    assert store.series() == [], "a refused file leaves nothing behind"
    done = import_file(store, path, "EUR/USD", "1h", repair=["sort", "drop_duplicates"])
    assert (done.symbol, done.timeframe, done.dialect) == ("EURUSD", "1h", "generic")
    assert (done.rows_read, done.rows_added, done.version) == (351, 350, store.version())
    assert done.repairs["drop_duplicates"] == 1 and done.report.rows == 350 and done.report.gaps >= 1
    again = import_file(store, path, "EURUSD", repair=["sort", "drop_duplicates"])
    assert (again.rows_added, again.version) == (0, done.version)
    more = import_file(store, tmp_path / "x.csv", "XYZ123", "1h", repair=["sort", "drop_duplicates"])
    assert more.report.calendar == "crypto" and "XYZ123 is in no instrument table" in more.notices[-1]


def test_an_import_converts_the_brokers_clock(store: DeltaBarStore, tmp_path: Path):
    server = BARS.index.tz_convert("Europe/Athens").tz_localize(None)
    lines = [
        f"{t:%Y.%m.%d,%H:%M},{o!r},{h!r},{lo!r},{c!r},{v!r}"
        for t, (o, h, lo, c, v) in zip(server, BARS.to_numpy().tolist(), strict=True)
    ]
    (tmp_path / "EURUSD60.csv").write_text("\n".join(lines))
    done = import_file(store, tmp_path / "EURUSD60.csv", "EURUSD", "1h", asked=ReadAs(source_zone="Europe/Athens"))
    assert done.dialect == "mt4" and store.read(EURUSD_1H).equals(BARS)


@pytest.mark.skipif(not SHARED.exists(), reason=f"no market data in {SHARED}; set ORBIQUANT_SAMPLE_DATA")
def test_a_long_real_file_is_imported_in_seconds(store: DeltaBarStore):
    begin = time.process_time()
    done = import_file(store, SHARED / "BTCUSDT_5m.parquet", "BTCUSDT", "5m")
    assert time.process_time() - begin < 6.0  # CPU seconds of all threads
    assert done.rows_added == 630_478 and done.report.ok and done.report.missing > 0
    again = import_file(store, SHARED / "BTCUSDT_5m.parquet", "BTCUSDT", "5m")
    assert (again.rows_added, again.version) == (0, done.version)


# --- pull ----------------------------------------------------------------------------------------------------------

NOW = FixedClock(datetime(2024, 6, 1, tzinfo=UTC))
EARLY, LATE = BARS.index[100].to_pydatetime(), BARS.index[300].to_pydatetime()


class Recorder:
    """Serve `BARS`, remember what was asked for, and break off when told to."""

    def __init__(self, bars: Bars = BARS, breaks_after: int | None = None) -> None:
        self.held, self.asked, self.breaks_after = bars, [], breaks_after

    def bars(self, series: SeriesId, start: datetime | None = None, end: datetime | None = None) -> Bars:
        """Return the bars of a window."""
        if self.breaks_after is not None and len(self.asked) >= self.breaks_after:
            raise ConnectionError("the line is dead")
        self.asked.append((start, end))
        index = self.held.index
        inside = (index >= (start or index[0])) & (index < (end or index[-1] + timedelta(days=1)))
        return self.held[inside]


def run(store: BarStore, source: MarketData, **options) -> int:
    """Pull with small chunks, and return how many bars were added."""
    return pull(store, source, EURUSD_1H, **{"chunk_bars": 50, "clock": NOW} | options).rows_added


def test_a_pull_brings_everything_and_then_nothing(store: DeltaBarStore):
    seen: list[tuple[int, int, str]] = []
    told = {"progress": lambda *step: seen.append(step), "chunk_bars": 50, "clock": NOW}
    result = pull(store, Recorder(), EURUSD_1H, **told)
    assert (result.rows_read, result.rows_added, result.symbol) == (400, 400, "EURUSD")
    assert (result.first, result.last) == (BARS.index[0], BARS.index[-1])
    assert store.read(EURUSD_1H).equals(BARS)
    assert [done for done, _, _ in seen] == list(range(1, 9)) and {total for _, total, _ in seen} == {8}
    assert seen[0][2] == "EURUSD 1h 2024-02-26 to 2024-02-28, 50 bars"
    version = store.version()
    assert run(store, Recorder()) == 0 and store.version() == version == result.version


def test_a_pull_goes_on_where_the_store_ends(store: DeltaBarStore):
    assert run(store, Recorder(), start=EARLY, end=LATE) == 200
    source = Recorder()
    assert run(store, source, start=EARLY) == 100
    assert source.asked[0][0] == BARS.index[287], "the last stored bars are asked for again, to compare their scale"


@pytest.mark.parametrize("breaks_after", [1, 4, 8])
@pytest.mark.parametrize("begun", [False, True])
def test_a_pull_that_was_cut_off_is_finished_by_the_next(begun: bool, breaks_after: int, store: DeltaBarStore):
    start = BARS.index[0].to_pydatetime()
    if begun:
        run(store, Recorder(), start=EARLY, end=EARLY + timedelta(hours=20))
    with pytest.raises(ConnectionError):
        run(store, Recorder(breaks_after=breaks_after), start=start)
    held = store.read(EURUSD_1H)
    assert len(held) >= 50 and held.index.equals(BARS.loc[held.index[0] : held.index[-1]].index), "one run, no hole"
    run(store, Recorder(), start=start)
    assert store.read(EURUSD_1H).equals(BARS)


def test_a_pull_takes_what_came_before_too(store: DeltaBarStore):
    run(store, Recorder(), start=EARLY, end=LATE)
    source = Recorder()
    assert run(store, source) == 200
    assert (None, BARS.index[112]) in source.asked, "and the first ones"
    assert store.read(EURUSD_1H).equals(BARS)


def test_corrections_are_taken_when_asked_for(store: DeltaBarStore):
    run(store, Recorder())
    corrected = BARS.copy()
    corrected.iloc[50, 4] = 999.0
    assert run(store, Recorder(corrected)) == 0 and store.read(EURUSD_1H).equals(BARS)
    assert run(store, Recorder(corrected), again=True) == 0
    assert store.read(EURUSD_1H).equals(corrected)


def test_only_closed_bars_are_pulled(store: DeltaBarStore):
    for minutes, last in ((59, 9), (60, 10)):
        clock = FixedClock((BARS.index[10] + timedelta(minutes=minutes)).to_pydatetime())
        run(store, Recorder(), clock=clock)
        assert store.read(EURUSD_1H).index[-1] == BARS.index[last]
    run(store, Recorder(), end=BARS.index[200].to_pydatetime(), clock=clock)
    assert store.read(EURUSD_1H).index[-1] == BARS.index[10], "a later end does not reach into the future"


def test_a_pull_of_nothing_is_an_answer(store: DeltaBarStore):
    result = pull(store, Recorder(), EURUSD_1H, datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC))
    assert (result.rows_read, result.rows_added, result.first, result.last) == (0, 0, None, None)
    with pytest.raises(NotFoundError, match="did you mean 'EURUSD 1h'"):
        pull(store, SampleSource(), SeriesId.parse("EURUSQ", "1h"))
    with pytest.raises(DataError, match="`start` must carry a time zone"):
        pull(store, SampleSource(), EURUSD_1H, datetime(2017, 1, 1))
    assert store.version() == 0


def test_invalid_bars_of_a_source_are_refused(store: DeltaBarStore):
    broken = BARS.copy()
    broken.iloc[120, 1] = 0.0
    with pytest.raises(DataError, match="impossible"):
        run(store, Recorder(broken))
    assert store.read(EURUSD_1H).equals(BARS[:100]), "the chunks before it are there"


def test_windows_split_without_hole_or_overlap():
    window = (BARS.index[0], BARS.index[333])
    chunks = split_window(window, timedelta(hours=50))
    assert chunks[0][0] == window[0] and chunks[-1][1] == window[1]
    assert all(a[1] == b[0] for a, b in pairwise(chunks))
    assert split_window(window, timedelta(hours=50), backwards=True) == chunks[::-1]
    assert split_window((window[0], window[0]), timedelta(hours=50)) == []
    assert missing_windows(None, None, window) == [window]
    assert missing_windows(window[0], window[1], window) == []


@pytest.mark.parametrize("make", [SampleSource, lambda: SyntheticSource(rows=3000)])
def test_every_source_can_be_pulled(make: Callable[[], MarketData], store: DeltaBarStore):
    series = EURUSD_1H if make is SampleSource else SeriesId("ORBUSD", Timeframe.M15)
    pull(store, make(), series, chunk_bars=1000)
    assert store.read(series).equals(make().bars(series))
