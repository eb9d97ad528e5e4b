"""Files: every dialect as brokers and exchanges write it, clocks, and refusals that name the line."""

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.core import DataError, NotFoundError, OptionError
from orbiquant.domain import SeriesId
from orbiquant.market.bars import infer_timeframe, series_of
from orbiquant.market.clocks import from_wall, parse_zone, to_moments
from orbiquant.market.files import ReadAs, load_file
from orbiquant.market.reading import read_bars
from tests.tools.shared_bars import SHARED

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no market data in {SHARED}; set ORBIQUANT_SAMPLE_DATA")

MT4 = """\
2017.01.02,00:00,1.05155,1.05197,1.05100,1.05170,123
2017.01.02,00:15,1.05170,1.05200,1.05150,1.05190,98
2017.01.02,00:30,1.05190,1.05210,1.05160,1.05165,77
2017.01.02,00:45,1.05165,1.05180,1.05120,1.05130,110
"""
MT5 = """\
<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>
2017.01.02\t00:00:00\t1.05155\t1.05197\t1.05100\t1.05170\t123\t0\t7
2017.01.02\t00:15:00\t1.05170\t1.05200\t1.05150\t1.05190\t98\t0\t8
2017.01.02\t00:30:00\t1.05190\t1.05210\t1.05160\t1.05165\t77\t0\t7
2017.01.02\t00:45:00\t1.05165\t1.05180\t1.05120\t1.05130\t110\t0\t9
"""
DUKASCOPY_GMT = """\
Gmt time,Open,High,Low,Close,Volume
02.01.2017 00:00:00.000,1.05155,1.05197,1.05100,1.05170,123
02.01.2017 00:15:00.000,1.05170,1.05200,1.05150,1.05190,98
02.01.2017 00:30:00.000,1.05190,1.05210,1.05160,1.05165,77
02.01.2017 00:45:00.000,1.05165,1.05180,1.05120,1.05130,110
"""
DUKASCOPY_LOCAL = DUKASCOPY_GMT.replace("Gmt", "Local").replace("02.01.2017 00", "02.01.2017 09")
DUKASCOPY_LOCAL = DUKASCOPY_LOCAL.replace(".000,", ".000 GMT+0900,")
DUKASCOPY_UTC = """\
Etc/UTC,Open,High,Low,Close,Volume
2017-01-02T00:00:00+00:00,1.05155,1.05197,1.051,1.0517,123
2017-01-02T00:15:00+00:00,1.0517,1.052,1.0515,1.0519,98
2017-01-02T00:30:00+00:00,1.0519,1.0521,1.0516,1.05165,77
2017-01-02T00:45:00+00:00,1.05165,1.0518,1.0512,1.0513,110
"""
DUKASCOPY_ZURICH = DUKASCOPY_UTC.replace("Etc/UTC", "Europe/Zurich").replace("T00:", "T01:").replace("+00:00", "+01:00")
JFOREX = """\
Time (EET),Open,High,Low,Close,Volume\x20
2017.01.02 02:00:00,1.05155,1.05197,1.05100,1.05170,123
2017.01.02 02:15:00,1.05170,1.05200,1.05150,1.05190,98
2017.01.02 02:30:00,1.05190,1.05210,1.05160,1.05165,77
2017.01.02 02:45:00,1.05165,1.05180,1.05120,1.05130,110
"""
TAIL = ",1483315199999,1.0,5,1.0,1.0,0"
BINANCE_MS = f"""\
1483315200000,1.05155,1.05197,1.05100,1.05170,123{TAIL}
1483316100000,1.05170,1.05200,1.05150,1.05190,98{TAIL}
1483317000000,1.05190,1.05210,1.05160,1.05165,77{TAIL}
1483317900000,1.05165,1.05180,1.05120,1.05130,110{TAIL}
"""
BINANCE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
BODY = [line.split(",", 2)[2] for line in MT4.splitlines()]


def generic(header: str, times: list[str], separator: str = ",", decimal: str = ".") -> str:
    """Return a generic export of the same four bars."""
    rows = zip(times, BODY, strict=True)
    lines = [separator.join([time, *(value.replace(".", decimal) for value in body.split(","))]) for time, body in rows]
    return "\n".join([header, *lines]) + "\n"


QUARTERS = ["00:00", "00:15", "00:30", "00:45"]
ISO = [f"2017-01-02 {clock}" for clock in QUARTERS]
EPOCH = [1483315200 + 900 * i for i in range(4)]
FILES = {
    "mt4": MT4,
    "mt4 with seconds and semicolons": re.sub(r"(:\d\d),", r"\1:00,", MT4).replace(",", ";"),
    "mt5": MT5,
    "dukascopy gmt": DUKASCOPY_GMT,
    "dukascopy local": DUKASCOPY_LOCAL,
    "dukascopy utc": DUKASCOPY_UTC,
    "dukascopy zurich": DUKASCOPY_ZURICH,
    "jforex": JFOREX,
    "binance": BINANCE_MS,
    "binance with header": BINANCE_HEADER + BINANCE_MS,
    "binance microseconds": BINANCE_MS.replace("00000,1.", "00000000,1."),
    "binance spliced": BINANCE_MS.replace("1483317900000", "1483317900000000"),
    "iso": generic("time,open,high,low,close,volume", ISO),
    "iso with Z": generic("Timestamp,Open,High,Low,Close,Volume", [f"{t.replace(' ', 'T')}:00Z" for t in ISO]),
    "iso with UTC": generic("datetime,open,high,low,close,volume", [f"{t}:00 UTC" for t in ISO]),
    "iso with offset": generic("Date,O,H,L,C,V", [f"2017-01-01 19:{c[3:]}:00-05:00" for c in QUARTERS]),
    "pandas index without a name": generic(",open,high,low,close,volume", [f"{t}:00+00:00" for t in ISO]),
    "seconds": generic("TIME,OPEN,HIGH,LOW,CLOSE,VOLUME", [str(t) for t in EPOCH]),
    "milliseconds": generic("open_time,open,high,low,close,volume", [f"{t}000" for t in EPOCH]),
    "microseconds": generic("timestamp,open,high,low,close,volume", [f"{t}000000" for t in EPOCH]),
    "nanoseconds": generic("timestamp,open,high,low,close,volume", [f"{t}000000000" for t in EPOCH]),
    "fractional seconds": generic("unix,open,high,low,close,volume", [f"{t}.0" for t in EPOCH]),
    "decimal commas": generic("Date;Open;High;Low;Close;Volume", ISO, ";", ","),
    "tabs": generic("date\topen\thigh\tlow\tclose\tvolume", ISO, "\t"),
    "date and time": generic("Date,Time,Open,High,Low,Close,Volume", [t.replace(" ", ",") for t in ISO]),
    "compact date and time": generic(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        [f"EURUSD,15,20170102,{c.replace(':', '')}00" for c in QUARTERS],
    ),
    "columns in another order": "close,volume,time,low,high,open\n"
    + "\n".join(
        f"{c},{v},{t},{lo},{h},{o}" for t, (o, h, lo, c, v) in zip(ISO, (b.split(",") for b in BODY), strict=True)
    ),
    "byte order mark, carriage returns, blank lines": "\ufeff\n"
    + generic("time,open,high,low,close,volume", ISO).replace("\n", "\r\n")
    + "\r\n\r\n",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file and returns its path."""

    def put(content: str | bytes, name: str = "EURUSD_15m.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


@pytest.fixture
def expected() -> pd.DataFrame:
    """Return the four bars that every file here holds."""
    index = pd.date_range("2017-01-02", periods=4, freq="15min", tz="UTC", unit="us", name="time")
    columns = ["open", "high", "low", "close", "volume"]
    return pd.DataFrame([[float(v) for v in body.split(",")] for body in BODY], index=index, columns=columns)


@pytest.mark.parametrize("name", FILES)
def test_every_dialect_reads_as_the_same_bars(name: str, write: Callable[..., Path], expected: pd.DataFrame):
    path = write(FILES[name])
    bars = read_bars(path, "15m")
    pd.testing.assert_frame_equal(bars, expected, check_exact=True, check_freq=False)
    assert read_bars(path).equals(bars), "the timeframe is found by the step"
    assert series_of(read_bars(path, symbol="eur/usd")) == SeriesId.parse("EURUSD", "15m")
    known = name.split()[0].replace("jforex", "dukascopy")
    assert load_file(path).dialect == (known if known in {"mt4", "mt5", "binance", "dukascopy"} else "generic")


def test_quoted_decimal_commas(write: Callable[..., Path], expected: pd.DataFrame):
    rows = [
        ",".join([time, *(f'"{v}"' for v in body.replace(".", "§").split(","))])
        for time, body in zip(ISO, BODY, strict=True)
    ]
    text = "time,open,high,low,close,volume\n" + "\n".join(rows).replace("§", ",")
    assert np.array_equal(read_bars(write(text), "15m").to_numpy(), expected.to_numpy())


@pytest.mark.parametrize("packed", ["gz", "zip", "utf-16"])
def test_packed_and_wide_files(packed: str, write: Callable[..., Path], tmp_path: Path, expected: pd.DataFrame):
    if packed == "zip":
        path = tmp_path / "BTCUSDT-15m-2017-01.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("BTCUSDT-15m-2017-01.csv", BINANCE_MS)
    else:
        path = write(gzip.compress(MT5.encode()) if packed == "gz" else MT5.encode("utf-16"))
    assert np.array_equal(read_bars(path, "15m").to_numpy(), expected.to_numpy())


def test_volume_is_real_where_a_broker_reports_it(write: Callable[..., Path]):
    real = MT5.replace("\t0\t", "\t5000\t")
    assert read_bars(write(real), "15m")["volume"].tolist() == [5000.0] * 4
    assert read_bars(write(MT5), "15m")["volume"].tolist() == [123.0, 98.0, 77.0, 110.0]
    blank = re.sub(r",[^,\n]+\n", ",\n", FILES["iso"]).replace("close,\n", "close,volume\n")
    assert read_bars(write(blank), "15m")["volume"].tolist() == [0.0] * 4
    assert read_bars(write(re.sub(r",\d+\n", ",1 000\n", FILES["iso"])), "15m")["volume"].tolist() == [1000.0] * 4
    with pytest.raises(DataError, match="line 2: volume is '1 0000'"):
        read_bars(write(re.sub(r",\d+\n", ",1 0000\n", FILES["iso"])), "15m")
    without = "\n".join(",".join(line.split(",")[:5]) for line in FILES["iso"].splitlines())
    assert read_bars(write(without), "15m")["volume"].tolist() == [0.0] * 4


LAYOUTS = {
    "a title above": "https://www.example.com\n" + generic("time,open,high,low,close,volume", ISO),
    "a separator line": "sep=;\n" + generic("Date;Open;High;Low;Close;Volume", ISO, ";", ","),
    "the offset in hours": generic(
        "time,open,high,low,close,volume", [f"2017-01-02 02:{c[3:]}:00+02" for c in QUARTERS]
    ),
    "yfinance": "Price,Open,High,Low,Close,Volume\nTicker,EURUSD,EURUSD,EURUSD,EURUSD,EURUSD\nDate,,,,,\n"
    + generic("", ISO).lstrip(),
    "utf-16 little": FILES["mt5"].encode("utf-16-le"),
    "utf-16 big": FILES["mt5"].encode("utf-16-be"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_with_something_around_the_bars_are_read(name: str, write: Callable[..., Path], expected: pd.DataFrame):
    bars = read_bars(write(LAYOUTS[name]), "15m")
    pd.testing.assert_frame_equal(bars, expected, check_exact=True, check_freq=False)


def test_what_macos_puts_into_an_archive_is_no_file(write: Callable[..., Path], tmp_path: Path, expected: pd.DataFrame):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("bars/", "")
        archive.writestr("bars/EURUSD_15m.csv", FILES["iso"])
        archive.writestr("__MACOSX/bars/._EURUSD_15m.csv", b"\x00\x05")
        archive.writestr("bars/.DS_Store", b"\x00")
    assert read_bars(tmp_path / "a.zip", "15m").equals(expected)


def test_a_row_is_never_taken_for_a_title(write: Callable[..., Path]):
    with pytest.raises(DataError, match=r"has no known dialect, it begins\n  '2017\.01\.02,00:00,x,1,1,1,9'"):
        read_bars(write("2017.01.02,00:00,x,1,1,1,9\n" + MT4))


def test_every_spelling_of_a_symbol_is_it_and_others_are_counted(write: Callable[..., Path]):
    names = ["EUR/USD", "eurusd", "$PAC/USDT", "EURUSD"]
    rows = [f"{time},{name},1,2,1,2,9" for time, name in zip(ISO, names, strict=True)]
    file = write("time,symbol,open,high,low,close,volume\n" + "\n".join(rows))
    held = load_file(file, ReadAs("EURUSD", "UTC"))
    assert len(held.rows) == 3 and held.notices == ("1 rows of other symbols were left out: $PAC/USDT",)
    with pytest.raises(DataError, match=r"must name one of the 2 in EURUSD_15m.csv, such as \$PAC/USDT, EURUSD"):
        load_file(file)


def test_a_file_of_what_is_no_symbol_says_so(write: Callable[..., Path]):
    rows = [f"{time},$PAC/USDT,1,2,1,2,9" for time in ISO]
    with pytest.raises(DataError, match="`symbol` must be letters and digits"):
        read_bars(write("time,symbol,open,high,low,close,volume\n" + "\n".join(rows)))


@pytest.mark.parametrize("year", ["0001", "1650", "9999"])
def test_years_that_no_bar_has_are_refused_before_anything_is_written(write: Callable[..., Path], year: str):
    file = write(generic("time,open,high,low,close,volume", [*ISO[:3], f"{year}-01-02 00:45"]))
    with pytest.raises(DataError, match=r"must hold times from 1800 to \d{4}, had 1 others, first .* in line 5"):
        read_bars(file, "15m")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("2017-01-02 00:00,1.05,1.06,1.04,1.05,9\n", "'2017-01-02 00:00,1.05,1.06,1.04,1.05,9'"),
        ("time,bid,ask\n2017-01-02,1,2\n", "'time,bid,ask'"),
        ("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\n", "<BID>"),
        ("just some words\n", "'just some words'"),
        ("\x89PNG\r\n\x1a\n\x00\x00" * 999, "PNG"),
    ],
)
def test_an_unknown_dialect_is_refused_with_its_first_line(content: str | bytes, seen: str, write: Callable[..., Path]):
    with pytest.raises(DataError) as refused:
        read_bars(write(content), "15m")
    assert seen in refused.value.message
    assert "--columns time,open,high,low,close,volume" in refused.value.message and len(refused.value.message) < 1000


def test_what_is_no_file_says_what_it_is(write: Callable[..., Path], tmp_path: Path):
    path = write(MT4)
    with pytest.raises(NotFoundError, match=r"file that exists.*did you mean 'EURUSD_15m\.csv'"):
        read_bars(tmp_path / "EURUSD_15.csv", "15m")
    with pytest.raises(NotFoundError, match="file that exists"):
        read_bars(tmp_path / "no" / "such" / "folder.csv", "15m")
    with pytest.raises(DataError, match="must be a file, was the folder"):
        read_bars(path.parent, "15m")
    for empty in (b"", b"\n\n  \n", "\ufeff"):
        with pytest.raises(DataError, match="is empty"):
            read_bars(write(empty), "15m")
    for header_only in ("time,open,high,low,close\n", BINANCE_HEADER + "\n\n", MT5.splitlines()[0]):
        with pytest.raises(DataError, match="has a header but no bars"):
            read_bars(write(header_only), "15m")
    for broken in (gzip.compress(MT4.encode())[:-20], b"PK\x03\x04 and then nothing more"):
        with pytest.raises(DataError, match="cannot be unpacked"):
            read_bars(write(broken), "15m")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_bars(write(b"PAR1 and then nothing more", "x.parquet"), "15m")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", MT4)
        archive.writestr("b.csv", MT4)
    with pytest.raises(DataError, match=r"must hold one file, was a\.csv, b\.csv"):
        read_bars(tmp_path / "two.zip", "15m")


@pytest.mark.parametrize("told", ["1m", "5m", "30m", "1h", "1d"])
def test_a_wrong_timeframe_is_refused(told: str, write: Callable[..., Path]):
    with pytest.raises(DataError, match=f"`timeframe` must be 15m, .*EURUSD_15m.csv, was '{told}'"):
        read_bars(write(MT4), told)


def test_bars_of_no_timeframe_are_refused(write: Callable[..., Path]):
    odd = MT4.replace("00:15", "02:00").replace("00:30", "04:00").replace("00:45", "06:00")
    for told in ("1h", None):
        with pytest.raises(DataError, match="was 0 days 02:00:00"):
            read_bars(write(odd), told)
    with pytest.raises(DataError, match="`timeframe` must be given"):
        read_bars(write(MT4.splitlines()[0]))
    assert len(read_bars(write(MT4.splitlines()[0]), "15m")) == 1


def test_weekends_and_missing_bars_do_not_hide_the_step():
    week = pd.date_range("2024-01-05 10:00", "2024-01-05 21:45", freq="15min", tz="UTC")
    monday = pd.date_range("2024-01-08", periods=10, freq="15min", tz="UTC")
    assert infer_timeframe(week.append(monday)) == "15m"
    assert infer_timeframe(week.append(monday)[::-1]) == "15m"
    thin = pd.date_range("2024-01-01", periods=3000, freq="1min", tz="UTC")
    assert infer_timeframe(thin[np.random.default_rng(7).random(3000) < 0.3]) == "1m"
    days = pd.bdate_range("2024-01-01", periods=30, tz="UTC")
    assert infer_timeframe(days) == "1d"
    two_a_day = pd.DatetimeIndex([day + pd.Timedelta(hours=h) for day in days for h in (9, 13)])
    assert infer_timeframe(two_a_day) == "4h"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (",1.05190,1.05210", ",abc,1.05210", "line 3: open is 'abc'"),
        ("2017.01.02,00:30", "2017.13.02,00:30", "line 3: time is '2017.13.02 00:30'"),
        ("1.05165,77", "1.05165,x", "line 3: volume is 'x'"),
        (",1.05165,77", "", "line 3: close is missing"),
        ("1.05210", "1.00000", "impossible.*line 3"),
        ("1.05210", "-1.05210", "not_positive.*line 3"),
        (",77", ",-77", "negative_volume.*line 3"),
        ("00:30", "00:15", "duplicates.*line 2"),
        ("00:45", "00:15", "unsorted.*line 4"),
        ("00:30", "00:31", "off_grid.*line 3"),
    ],
)
def test_a_bad_row_is_named_by_line(old: str, new: str, named: str, write: Callable[..., Path]):
    path = write(MT4.replace(old, new))
    with pytest.raises(DataError, match=named) as refused:
        read_bars(path, "15m")
    assert "rules that would repair it:" in refused.value.message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (MT4.replace(",77", ",77,5"), "line 3, saw 8"),
        (MT5.replace("77\t0\t7", "77\t0\t7\t5"), "line 4, saw 10"),
        (generic("time,open,high,low,close", ISO), "line 2 must have 5 fields, was 6"),
        (generic("time,open,high,low,close,volume", ISO, decimal=","), "line 2 must have 6 fields, was 10"),
    ],
)
def test_a_row_with_too_many_fields_is_named_by_line(content: str, named: str, write: Callable[..., Path]):
    with pytest.raises(DataError, match=named):
        read_bars(write(content), "15m")


def test_lines_are_counted_with_header_and_blank_lines(write: Callable[..., Path]):
    text = "\n\n" + MT5.replace("1.05190\t1.05210", "1.05190\toops").replace("2017.01.02\t00:15", "\n2017.01.02\t00:15")
    with pytest.raises(DataError, match="line 7: high is 'oops'"):
        read_bars(write(text), "15m")


def test_named_rules_repair_and_nothing_else_does(write: Callable[..., Path], expected: pd.DataFrame):
    lines = MT4.splitlines()
    path = write("\n".join([lines[2], lines[0], lines[1], "2017.01.02,00:40,x,1,1,1,1", lines[3], lines[3]]))
    for rules in ([], ["sort"], ["sort", "drop_missing"], ["drop_missing", "drop_duplicates"]):
        with pytest.raises(DataError):
            read_bars(path, "15m", repair=rules)
    repaired = read_bars(path, "15m", repair=["sort", "drop_missing", "drop_duplicates"])
    assert np.array_equal(repaired.to_numpy(), expected.to_numpy())
    with pytest.raises(OptionError, match="did you mean 'drop_missing'"):
        read_bars(path, "15m", repair=["drop_mising"])


# --- clocks --------------------------------------------------------------------------------------------------------


def test_a_broker_clock_becomes_utc(write: Callable[..., Path]):
    path = write(MT5)
    assert read_bars(path, "15m", source_zone="UTC+2").index[0] == pd.Timestamp("2017-01-01 22:00", tz="UTC")
    assert read_bars(path, "15m", source_zone="UTC-05:30").index[0] == pd.Timestamp("2017-01-02 05:30", tz="UTC")
    for zone in ("Europe/Athens", "EET", "America/New_York+7", "GMT+2"):
        assert read_bars(path, "15m", source_zone=zone).index[0] == pd.Timestamp("2017-01-01 22:00", tz="UTC")


def test_a_new_york_close_server_keeps_its_midnight_at_17_all_year():
    midnights = pd.date_range("2023-01-02", "2025-12-31", freq="B")
    closes = from_wall(midnights, "America/New_York+7").tz_convert("America/New_York")
    assert set(closes.strftime("%H:%M")) == {"17:00"}
    athens = from_wall(midnights, "Europe/Athens").tz_convert("America/New_York")
    assert set(athens.strftime("%H:%M")) == {"17:00", "18:00"}, "Europe and New York disagree for some weeks"


@pytest.mark.parametrize(
    "zone", ["Europe/Athens", "America/New_York", "America/New_York+7", "Atlantic/Azores", "Asia/Tokyo"]
)
@pytest.mark.parametrize("freq", ["5min", "1h"])
def test_any_clock_round_trips_through_both_changes(zone: str, freq: str):
    utc = pd.date_range("2024-01-01", "2025-01-01", freq=freq, tz="UTC", unit="us")
    base, ahead = parse_zone(zone)
    wall = utc.tz_convert(base).tz_localize(None) + ahead
    assert from_wall(wall, zone).equals(utc.rename(None))
    assert from_wall(wall[::-1], zone).equals(utc[::-1]), "newest first, as some exports are"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Europe/Athens", "America/New_York+7", "UTC+3", "Asia/Kathmandu"]),
    st.integers(0, 50 * 365 * 24),
    st.integers(2, 400),
)
def test_any_stretch_of_hours_round_trips(zone: str, begin: int, rows: int):
    first, (base, ahead) = pd.Timestamp("1980-01-01", tz="UTC") + pd.Timedelta(hours=begin), parse_zone(zone)
    utc = pd.date_range(first, periods=rows, freq="1h", unit="us")
    around = pd.date_range(first - pd.Timedelta(hours=1), periods=rows + 2, freq="1h").tz_convert(base)
    offsets = [moment.utcoffset() for moment in around[[0, 1, -2, -1]]]
    try:
        assert from_wall(utc.tz_convert(base).tz_localize(None) + ahead, zone).equals(utc)
    except DataError as error:
        assert "twice" in error.message
        assert offsets[0] != offsets[1] or offsets[2] != offsets[3], "half of a doubled hour: nobody can know which"


def test_times_that_a_clock_cannot_show_are_refused():
    with pytest.raises(DataError, match=r"which skips 1 of them, first 2024-03-31 03:30:00 \(row 1\)"):
        from_wall(pd.DatetimeIndex(["2024-03-31 02:30", "2024-03-31 03:30", "2024-03-31 04:30"]), "Europe/Athens")
    with pytest.raises(DataError, match="shows twice what the file has once for 1 of them, first 2024-10-27 03:00:00"):
        from_wall(pd.DatetimeIndex(["2024-10-27 02:00", "2024-10-27 03:00", "2024-10-27 04:00"]), "Europe/Athens")
    times = pd.DatetimeIndex(["2024-10-27 02:00", None, "2024-10-27 04:00"])
    assert from_wall(times, "Europe/Athens").isna().tolist() == [False, True, False]


@pytest.mark.parametrize("zone", ["Europe/Athen", "UTC+", "+2", "Server", "", "UTC+2:5"])
def test_an_unknown_clock_is_refused(zone: str):
    with pytest.raises(DataError, match="`source_zone` must be UTC, an IANA zone"):
        parse_zone(zone)


@pytest.mark.parametrize("name", ["binance", "dukascopy gmt", "dukascopy local", "jforex", "iso with Z", "seconds"])
def test_a_file_that_tells_its_zone_takes_no_other(name: str, write: Callable[..., Path]):
    with pytest.raises(DataError, match="`source_zone` must be left out"):
        read_bars(write(FILES[name]), "15m", source_zone="Europe/Athens")


def test_ambiguous_dates_need_a_format(write: Callable[..., Path], expected: pd.DataFrame):
    american = generic("Date,Open,High,Low,Close,Volume", [f"1/2/2017 {clock}" for clock in QUARTERS])
    with pytest.raises(DataError, match="'1/2/2017 00:00'; for any other form give `time_format`"):
        read_bars(write(american), "15m")
    assert read_bars(write(american), "15m", time_format="%m/%d/%Y %H:%M").index.equals(expected.index)
    assert read_bars(write(american), "15m", time_format="%d/%m/%Y %H:%M").index[0].month == 2


def test_a_format_may_tell_the_zone():
    times = pd.Series(["01/02/24 10:00 +0100", "01/02/24 10:00 -0500", "oops"])
    moments = to_moments(times, time_format="%d/%m/%y %H:%M %z")
    assert moments[:2].hour.tolist() == [9, 15] and moments.isna().tolist() == [False, False, True]
    with pytest.raises(DataError, match="must all have the form"):
        to_moments(times, time_format="%Q")


def test_zones_are_told_by_all_times_or_none():
    mixed = pd.Series(["2024-01-01 00:00:00", "2024-01-01 00:05:00+02:00"])
    with pytest.raises(DataError, match="tell their zone all or none"):
        to_moments(mixed)
    assert to_moments(mixed[::-1]).isna().tolist() == [False, True]


# --- Parquet -------------------------------------------------------------------------------------------------------


def as_column(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.reset_index()


PARQUET: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "column": as_column,
    "index": lambda bars: bars,
    "index without a name": lambda bars: bars.rename_axis(None),
    "nanoseconds": lambda bars: bars.set_axis(bars.index.as_unit("ns")),
    "milliseconds": lambda bars: bars.set_axis(bars.index.as_unit("ms")),
    "naive": lambda bars: bars.tz_localize(None),
    "another zone": lambda bars: bars.tz_convert("Asia/Tokyo"),
    "epoch milliseconds": lambda bars: as_column(bars).assign(time=bars.index.as_unit("ms").asi8),
    "text": lambda bars: as_column(bars).assign(time=bars.index.strftime("%Y-%m-%d %H:%M:%S")),
    "float32 volume": lambda bars: bars.astype({"volume": "float32"}),
    "whole numbers": lambda bars: bars.assign(volume=bars["volume"].astype("int64")),
    "capitals, more columns": lambda bars: (
        bars.assign(trades=5, vwap=1.0).rename(columns=str.capitalize).rename_axis("Date")
    ),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_in_every_form(name: str, tmp_path: Path, expected: pd.DataFrame):
    path = tmp_path / "bars.parquet"
    PARQUET[name](expected).to_parquet(path)
    assert load_file(path).dialect == "parquet"
    pd.testing.assert_frame_equal(read_bars(path, "15m"), expected, check_exact=True, check_freq=False)


def test_a_long_file_needs_the_symbol(tmp_path: Path, expected: pd.DataFrame):
    long = pd.concat([expected.assign(symbol="EUR/USD"), (expected * 2).assign(symbol="GBP/USD")]).reset_index()
    long.to_parquet(tmp_path / "long.parquet")
    long.to_csv(tmp_path / "long.csv", index=False)
    for name in ("long.parquet", "long.csv"):
        path = tmp_path / name
        assert np.array_equal(read_bars(path, "15m", "GBPUSD").to_numpy(), 2 * expected.to_numpy())
        assert series_of(read_bars(path, "15m", "gbp/usd")) == SeriesId.parse("GBPUSD", "15m")
        assert np.array_equal(read_bars(path, "15m", "eur/usd").to_numpy(), expected.to_numpy())
        with pytest.raises(DataError, match=f"`symbol` must name one of the 2 in {name}, such as EURUSD, GBPUSD"):
            read_bars(path, "15m")
        with pytest.raises(NotFoundError, match="holds no GBPUSQ, did you mean 'GBPUSD'"):
            read_bars(path, "15m", "GBPUSQ")


def test_parquet_without_prices_is_refused(tmp_path: Path, expected: pd.DataFrame):
    expected.drop(columns="high").to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="must have a time and open, high, low, close, was open, low, close"):
        read_bars(tmp_path / "x.parquet", "15m")
    expected.iloc[:0].to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no bars"):
        read_bars(tmp_path / "x.parquet", "15m")
    expected.assign(close=[1.0, np.nan, 1.0, 1.0]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="line 2: close is missing"):
        read_bars(tmp_path / "x.parquet", "15m")


def test_numbers_that_are_no_time_become_none():
    for wrong in (np.inf, -np.inf, np.nan, 1e300):
        moments = to_moments(pd.Series([1_704_067_200.0, wrong]))
        assert moments[0] == pd.Timestamp("2024-01-01", tz="UTC") and moments.isna().tolist() == [False, True]
    assert to_moments(pd.Series([2**64 - 1], dtype="uint64")).isna().all()


# --- any bars, any dialect -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6, allow_nan=False), min_size=4, max_size=30),
    st.sampled_from(["%Y-%m-%d %H:%M:%S", "%Y.%m.%d %H:%M", "%d.%m.%Y %H:%M:%S", "%Y%m%d %H%M%S", "epoch"]),
    st.sampled_from([(",", "."), (";", ","), ("\t", "."), ("\t", ",")]),
)
def test_any_bars_survive_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, prices: list[float], form: str, style: tuple[str, str]
):
    separator, decimal = style
    index = pd.date_range("2024-10-26 12:00", periods=len(prices), freq="1h", tz="UTC", unit="us", name="time")
    bars = pd.DataFrame({"open": prices, "high": prices, "low": prices, "close": prices, "volume": prices}, index=index)
    times = index.asi8 // 1000 if form == "epoch" else index.strftime(form)
    path = tmp_path_factory.mktemp("files") / "x.csv"
    bars.set_axis(pd.Index(times, name="time")).to_csv(path, sep=separator, decimal=decimal)
    pd.testing.assert_frame_equal(read_bars(path, "1h"), bars, check_exact=True, check_freq=False)


@needs_shared
@pytest.mark.parametrize("file", ["BTCUSDT_1m", "ETHUSDT_5m", "EURUSD_15m", "EURUSD_1h", "EURUSD_4h", "XAUUSD_1h"])
def test_real_files_are_read_whole(file: str):
    raw = pd.read_parquet(SHARED / f"{file}.parquet")
    bars = read_bars(SHARED / f"{file}.parquet", file.split("_")[1])
    assert len(bars) == len(raw) and np.array_equal(bars["close"].to_numpy(), raw["close"].to_numpy())


@needs_shared
def test_one_symbol_of_a_long_real_file():
    path = SHARED / "USDT136_1h_long.parquet"
    assert len(read_bars(path, "1h", "BTC/USDT")) > 5000
    with pytest.raises(DataError, match="`symbol` must name one of the 136"):
        read_bars(path, "1h")


@pytest.mark.parametrize("kind", ["date", "datetime64[us]", "str"])
def test_a_table_with_date_and_time_apart_is_read_whatever_their_types(kind: str, tmp_path: Path):
    index = pd.date_range("2024-01-01", periods=48, freq="1h")
    days = pd.Series(index.date) if kind == "date" else pd.Series(index.date).astype(kind)
    prices = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 1.0}
    pd.DataFrame({"date": days, "time": index.time, **prices}).to_parquet(tmp_path / "EURUSD_1h.parquet")
    assert load_file(tmp_path / "EURUSD_1h.parquet").rows.index.equals(index.tz_localize("UTC").as_unit("us"))
