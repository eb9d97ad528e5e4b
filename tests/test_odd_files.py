"""What strangers' files hold: each kind of oddity that somebody met, read right or refused with the way on."""

import gzip
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from orbiquant.core import DataError, OptionError
from orbiquant.domain import SeriesId
from orbiquant.market.files import ReadAs, load_file, load_symbols
from orbiquant.market.imports import import_file, import_symbols
from orbiquant.market.reading import read_bars
from orbiquant.market.sources import CsvSource
from orbiquant.market.store import DeltaBarStore
from orbiquant.research.files import read_signals_file

pytest.register_assert_rewrite("contracts")
from contracts.bar_store import random_bars  # noqa: E402

FIRST = pd.Timestamp("2024-01-02", tz="UTC")


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    return DeltaBarStore(tmp_path / "store")


def text_file(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """Write lines as a file."""
    path = tmp_path / "x.csv"
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


HEAD = "time,open,high,low,close,volume"


def test_a_stacked_header_gives_the_columns_of_the_ticker(tmp_path: Path):
    path = text_file(
        tmp_path, "Price,Close,Close,High,High,Low,Low,Open,Open", "Ticker,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT",
        "Date,,,,,,,,", *(f"2024-01-0{day},2,20,3,30,1,10,2,20" for day in (2, 3, 4)))  # fmt: skip
    assert read_bars(path, "1d", "MSFT")["close"].tolist() == [20, 20, 20]
    assert read_bars(path, "1d", "aapl")["high"].tolist() == [3, 3, 3]
    for symbol in (None, "NVDA"):
        with pytest.raises(DataError, match="one of the tickers in the header, which are AAPL, MSFT"):
            read_bars(path, "1d", symbol)
    single = text_file(
        tmp_path, "Price,Close,High,Low,Open", "Ticker,^GSPC,^GSPC,^GSPC,^GSPC", "Date,,,,", "2024-01-02,2,3,1,2"
    )
    assert len(read_bars(single, "1d", "SPX")) == 1


def test_a_header_that_names_a_price_twice_is_refused(tmp_path: Path):
    path = text_file(tmp_path, "time,open,high,low,close,Open", "2024-01-02,1,2,1,2,9")
    with pytest.raises(DataError, match="names open more than once"):
        read_bars(path, "1d")


@pytest.mark.parametrize("first", ["1704153600,.51,.52,.50,.515,100", "1704153600,.51,.52,n/a,.515,100"])
def test_a_first_bar_is_no_header(tmp_path: Path, first: str):
    path = text_file(tmp_path, first, "1704157200,.51,.52,.50,.515,100", "1704160800,.51,.52,.50,.515,100")
    bars = read_bars(path, "1h", columns="time,open,high,low,close,volume", repair=["drop_missing"])
    assert len(bars) == 3 - ("n/a" in first)


def test_tickers_that_look_like_nothing_are_tickers(tmp_path: Path, store: DeltaBarStore):
    rows = [
        f"{stamp},{name},1,2,1,2"
        for name in ("AAPL", "NA", "NULL", "NAN", "^GSPC", "5", "")
        for stamp in ("2024-01-02", "2024-01-03")
    ]
    path = text_file(tmp_path, "time,symbol,open,high,low,close", *rows)
    results = import_symbols(store, path, "1d")
    assert [one.symbol for one in results] == ["AAPL", "NA", "NAN", "NULL"]
    assert any(
        "6 rows of what is no symbol were left out: (blank), 5, ^GSPC" in text
        for one in results
        for text in one.notices
    )
    assert load_file(path, ReadAs("NA")).notices[0].startswith("12 rows of other symbols")


def test_marks_are_judged_by_all_rows_of_a_file(tmp_path: Path):
    rows = [
        '2024-01-02,AAPL,"185,50","186,50","184,50","185,75"',
        '2024-01-02,BRKB,"541,123","541,500","540,111","541,250"',
    ]
    table = load_symbols(text_file(tmp_path, "time,symbol,open,high,low,close", *rows))
    assert table["BRKB"].rows["open"].item() == 541.123 and table["AAPL"].rows["open"].item() == 185.5
    german = text_file(
        tmp_path,
        "Date,Open,High,Low,Close",
        *(f'0{n}.01.2024,"141,123","142,456","140,111","141,500"' for n in (2, 3, 4)),
    )
    with pytest.raises(DataError, match="can be read in two ways"):
        read_bars(german, "1d")
    assert read_bars(german, "1d", decimal=",")["open"].iloc[0] == 141.123


@pytest.mark.parametrize(
    ("written", "volume"),
    [("58.41M", 58.41e6), ("1.5K", 1500), ("1,54,27,313", 15427313), ("-", 0), ('="1500"', 1500), ("2B", 2e9)],
)
def test_volumes_of_web_pages(tmp_path: Path, written: str, volume: float):
    field = '"' + written.replace('"', '""') + '"'
    path = text_file(
        tmp_path,
        "Date,Price,Open,High,Low,Close,Volume",
        *(f"2024-01-0{n},9,$1.5,$2.5,$1.25,$2,{field}" for n in (2, 3, 4)),
    )
    assert read_bars(path, "1d")["volume"].tolist() == pytest.approx([volume] * 3)
    assert read_bars(path, "1d")["open"].tolist() == [1.5] * 3


def test_a_mean_price_is_no_volume(tmp_path: Path):
    lines = [f"{1704153600 + 3600 * n},42000,42071,41813,41877,41900.5,16.478,17" for n in range(4)]
    with pytest.raises(DataError, match="--columns time,open,high,low,close,-,volume,-"):
        read_bars(text_file(tmp_path, *lines), "1h")
    with pytest.raises(DataError, match="must be the layout of the file, which has 7 columns"):
        read_bars(text_file(tmp_path, *lines), "1h", columns="kraken")


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x0c", "\u0085"])
def test_odd_line_ends_in_a_title_lose_no_bar(tmp_path: Path, mark: str):
    path = text_file(tmp_path, f"Title{mark}foo", HEAD, *(f"2024-01-0{n},1,2,1,2,9" for n in (2, 3, 4)))
    assert len(read_bars(path, "1d")) == 3


def test_a_header_below_a_preamble_with_commas_is_found_for_the_user(tmp_path: Path):
    path = text_file(tmp_path, "# a, b, c, d", HEAD, "2024-01-02,1,2,1,2,9")
    with pytest.raises(DataError, match="a header stands in line 2: --skip-rows 1"):
        read_bars(path, "1d")
    assert len(read_bars(path, "1d", skip_rows=1)) == 1


def test_what_drops_everything_repairs_nothing(tmp_path: Path):
    path = text_file(tmp_path, HEAD, *(f"2024-01-0{n},x1,x2,x1,x2,9" for n in (2, 3, 4)))
    with pytest.raises(DataError, match="most rows cannot be read") as refused:
        read_bars(path, "1d")
    assert "drop_missing" not in refused.value.message
    with pytest.raises(DataError, match="has no bar left after drop_missing"):
        read_bars(path, "1d", repair=["drop_missing"])


def test_a_clock_beside_a_date_under_another_name(tmp_path: Path):
    path = text_file(
        tmp_path, "Date,Timestamp,Open,High,Low,Close", *(f"20240102,0{n}:00:00,1,2,1,2" for n in range(4))
    )
    assert read_bars(path, "1h", source_zone="UTC").index[3] == pd.Timestamp("2024-01-02 03:00", tz="UTC")
    with pytest.raises(OptionError, match="must tell the year"):
        read_bars(path, "1h", time_format="%H:%M:%S", columns="time=Timestamp")


def test_a_first_row_that_is_cut_short_is_refused(tmp_path: Path):
    path = text_file(tmp_path, "Date,Open,High,Low,Close,Timestamp", "20240102,1,2", "20240103,1,2,1,2,00:00:00")
    with pytest.raises(DataError):
        read_bars(path, "1d")


@pytest.mark.parametrize("filler", ["1970-01-01 00:00", "1900-01-01 00:00"])
def test_a_filler_is_no_bar(tmp_path: Path, filler: str):
    path = text_file(tmp_path, HEAD, f"{filler},1,1,1,1,0", *(f"2024-01-02 00:0{n},1,2,1,2,9" for n in range(9)))
    with pytest.raises(DataError, match=r"line 2 has .*, which stands for none"):
        read_bars(path, "1m")


@pytest.mark.parametrize("stamp", ["2024-01-02 1{}:00 AM", "2024-01-02 09-3{}", "nonsense {}"])
def test_times_that_cannot_be_read_say_so(tmp_path: Path, stamp: str):
    path = text_file(tmp_path, HEAD, *(f"{stamp.format(n)},1,2,1,2,9" for n in range(3)))
    with pytest.raises(DataError, match="time_format"):
        read_bars(path, "1h")


def test_compact_times_are_no_counts(tmp_path: Path):
    path = text_file(tmp_path, HEAD, *(f"20240102093{n},1,2,1,2,9" for n in range(3)))
    assert read_bars(path, "1m").index[0] == pd.Timestamp("2024-01-02 09:30", tz="UTC")
    assert read_bars(path, "1m", source_zone="UTC+2").index[0].hour == 7
    frame = pd.DataFrame(
        {"date": [20240102, 20240103, 20240104], **dict.fromkeys(("open", "high", "low", "close"), 1.0)}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    assert read_bars(tmp_path / "x.parquet", "1d").index[0] == FIRST


def test_fractions_beside_whole_seconds(tmp_path: Path):
    path = text_file(tmp_path, HEAD, "2024-01-02T09:30:00.5+00:00,1,2,1,2,9", "2024-01-02T10:30:00+00:00,1,2,1,2,9")
    rows = load_file(path).rows
    assert rows.index[0].microsecond == 500_000 and rows.index[1] == pd.Timestamp("2024-01-02 10:30", tz="UTC")


def test_a_doubled_hour_with_a_hole_is_told_by_the_order_of_rows(tmp_path: Path):
    bars = random_bars("2024-11-03 04:00", 300, "1m")
    bars = bars.drop(bars.index[130:133])
    local = bars.set_axis(bars.index.tz_convert("America/New_York").tz_localize(None).rename("time"), axis=0)
    path = tmp_path / "x.csv"
    local.to_csv(path)
    assert read_bars(path, "1m", source_zone="America/New_York").index.equals(bars.index)
    local[::-1].to_csv(path)
    back = read_bars(path, "1m", source_zone="America/New_York", repair=["sort"])
    assert back.index.equals(bars.index)


def test_windows_text_is_read(tmp_path: Path):
    path = text_file(
        tmp_path,
        "Zeit;Eröffnung;Hoch;Tief;Schluss",
        *(f"2024-01-0{n};1\u00a0234,5;1\u00a0240,0;1\u00a0230,0;1\u00a0235,0" for n in (2, 3)),
        encoding="cp1252",
    )
    bars = read_bars(path, "1d", columns="time=Zeit,open=Eröffnung,high=Hoch,low=Tief,close=Schluss")
    assert bars["open"].tolist() == [1234.5, 1234.5]


@pytest.mark.parametrize("header", ["Date(UTC)", "Time (UTC+2)", "datetime_utc"])
def test_headers_that_name_the_zone(tmp_path: Path, header: str):
    path = text_file(tmp_path, HEAD.replace("time", header), *(f"2024-01-02 0{n}:00,1,2,1,2,9" for n in range(2, 5)))
    held = load_file(path)
    assert held.rows.index[0].hour == (0 if "+2" in header else 2) and held.told_zone


def test_the_only_table_of_an_archive_is_taken(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("DAT.csv", "".join(f"20240102 {hour:02}0000;1;2;1;2;9\n" for hour in range(24)))
        archive.writestr("DAT.txt", "a report")
    assert len(read_bars(tmp_path / "x.zip", "1h", columns="histdata")) == 24
    twice = tmp_path / "y.csv.gz"
    twice.write_bytes(gzip.compress(gzip.compress(b"x")))
    with pytest.raises(DataError, match="packed twice"):
        read_bars(twice, "1h")


def test_an_archive_packed_in_another_way_is_not_called_damaged(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.csv", "1")
    content = (tmp_path / "x.zip").read_bytes()
    for header in (b"PK\x03\x04", b"PK\x01\x02"):
        at = content.index(header) + (8 if header.endswith(b"\x04") else 10)
        content = content[:at] + b"\x63\x00" + content[at + 2 :]  # method 99
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match="packed in a way that is not read here, unpack it first"):
        read_bars(tmp_path / "x.zip", "1h")


def test_signals_may_part_date_and_clock(tmp_path: Path):
    path = text_file(tmp_path, "date,clock,action,entry_price", "2024-01-03,05:00,LONG,1", "2024-01-03,17:00,LONG,1")
    assert read_signals_file(path).index.hour.tolist() == [5, 17]
    moved = read_signals_file(path, ReadAs(source_zone="UTC+2", columns="entry_price=Entry"))
    assert moved.index.hour.tolist() == [3, 15]


def test_a_folder_tells_which_files_it_does_not_know(tmp_path: Path):
    bars = random_bars("2024-01-02", 48)
    for name in ("EURUSD_1h.csv", "BTC-USD_1h.csv", "notes.csv"):
        bars.to_csv(tmp_path / name)
    source = CsvSource(tmp_path)
    assert len(source.bars(SeriesId.parse("EURUSD", "1h"))) == 48
    assert (
        source.take_notices()[-1] == "files that tell no series by their names were left out: BTC-USD_1h.csv, notes.csv"
    )


def test_files_of_a_folder_that_contradict_each_other_are_refused(tmp_path: Path):
    bars = random_bars("2024-01-02", 48)
    bars[:30].to_csv(tmp_path / "EURUSD_1h_1.csv")
    bars[20:].to_csv(tmp_path / "EURUSD_1h_2.csv")
    assert CsvSource(tmp_path).bars(SeriesId.parse("EURUSD", "1h")).index.equals(bars.index)
    late = bars[20:].set_axis((bars.index[20:] + pd.Timedelta("2h")).rename("time"), axis=0)
    late.to_csv(tmp_path / "EURUSD_1h_2.csv")
    with pytest.raises(DataError, match=r"the bars of EURUSD_1h_2\.csv contradict those of the files before it"):
        CsvSource(tmp_path).bars(SeriesId.parse("EURUSD", "1h"))


def test_daily_bars_stamped_with_midnight_in_new_york_are_of_that_date(tmp_path: Path, store: DeltaBarStore):
    lines = [
        f"2024-0{month}-0{day} 00:00:00-0{5 if month < 4 else 4}:00,1,2,1,2,9" for month in (3, 4) for day in (4, 5)
    ]
    done = import_file(store, text_file(tmp_path, HEAD.replace("time", "Date"), *lines), "AAPL", "1d")
    assert store.read(SeriesId.parse("AAPL", "1d")).index.strftime("%m-%d %H").tolist()[0] == "03-04 00"
    assert "daily bars are stored under their session's dates" in done.notices


def test_bars_stamped_with_their_closes_are_another_clock(tmp_path: Path, store: DeltaBarStore):
    bars = random_bars("2024-01-02", 200, "5m")
    bars.to_csv(tmp_path / "x.csv")
    import_file(store, tmp_path / "x.csv", "BTCUSDT", "5m")
    bars.set_axis((bars.index + pd.Timedelta("5min")).rename("time"), axis=0).to_csv(tmp_path / "x.csv")
    with pytest.raises(DataError, match="on another clock"):
        import_file(store, tmp_path / "x.csv", "BTCUSDT", "5m")


def test_another_volume_and_standing_prices_are_no_conflict(tmp_path: Path, store: DeltaBarStore):
    bars = random_bars("2024-01-02", 200, "5m")
    bars.loc[:, ["open", "high", "low", "close"]] = 1.0
    bars.to_csv(tmp_path / "x.csv")
    import_file(store, tmp_path / "x.csv", "USDCUSDT", "5m")
    bars.assign(volume=bars["volume"] + 1).to_csv(tmp_path / "x.csv")
    assert import_file(store, tmp_path / "x.csv", "USDCUSDT", "5m").rows_changed == 200


def test_rules_that_drop_everything_are_not_offered(tmp_path: Path):
    path = text_file(tmp_path, HEAD, *(f"2024-01-0{n},-1,2,-1,2,9" for n in (2, 3, 4)))
    with pytest.raises(DataError) as refused:
        read_bars(path, "1d")
    assert "drop_not_positive" not in refused.value.message
    with pytest.raises(DataError, match="has no bar left after drop_not_positive: every row was dropped"):
        read_bars(path, "1d", repair=["drop_not_positive"])
