"""What strangers' files need: columns that are named, clocks that are not, tables of many, bars stored otherwise."""

import gzip
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orbiquant.cli.program import program
from orbiquant.cli.reading import reading_options
from orbiquant.core import DataError, OptionError, OrbiError
from orbiquant.domain import SeriesId
from orbiquant.market.files import ReadAs, load_file, load_symbols
from orbiquant.market.imports import import_file, import_symbols
from orbiquant.market.layouts import LAYOUTS
from orbiquant.market.reading import read_bars
from orbiquant.market.store import DeltaBarStore
from orbiquant.research.files import read_signals_file
from tests.tools.shared_bars import SHARED

pytest.register_assert_rewrite("contracts")
from contracts.bar_store import random_bars  # noqa: E402

BARS = random_bars("2024-01-02 00:00", 48).round(4)
BARS_1H = SeriesId.parse("XYZ", "1h")
FIRST = pd.Timestamp("2024-01-02", tz="UTC")


@pytest.fixture
def store(tmp_path: Path) -> DeltaBarStore:
    return DeltaBarStore(tmp_path / "store")


def lines_of(bars: pd.DataFrame, time: Callable[[pd.Timestamp], str], separator: str = ",", scale: int = 1) -> str:
    """Return bars as headerless text."""
    rows = ([time(at), *(f"{price * scale:.{0 if scale > 1 else 4}f}" for price in row[:4]), f"{row[4]:.0f}"]
            for at, row in zip(bars.index, bars.to_numpy(), strict=True))  # fmt: skip
    return "\n".join(separator.join(row) for row in rows) + "\n"


# --- layouts -------------------------------------------------------------------------------------------------------


def test_histdata_is_on_new_yorks_winter_clock_all_year(tmp_path: Path):
    path = tmp_path / "DAT_ASCII_EURUSD.csv"
    summer = BARS.set_axis(BARS.index + pd.Timedelta(days=180), axis=0)
    path.write_text(lines_of(summer, lambda at: f"{at:%Y%m%d %H%M%S}", ";"))
    bars = read_bars(path, "1h", columns="histdata")
    assert bars.index[0] == summer.index[0] + pd.Timedelta("5h")
    assert np.array_equal(bars.to_numpy(), BARS.to_numpy())
    assert read_bars(path, "1h", columns="histdata", source_zone="UTC").index.equals(summer.index), "a zone wins"


def test_kraken_counts_seconds(tmp_path: Path):
    path = tmp_path / "XBTUSD_60.csv"
    path.write_text(lines_of(BARS, lambda at: str(int(at.timestamp()))).replace("\n", ",17\n"))
    assert np.array_equal(read_bars(path, "1h", columns="kraken").to_numpy(), BARS.to_numpy())
    assert load_file(path, ReadAs(columns="kraken")).notices == ()


def test_lean_counts_milliseconds_of_a_day_and_ten_thousandths(tmp_path: Path):
    minutes = random_bars("2024-07-02 13:30", 60, "1m").round(4)
    text = lines_of(minutes, lambda at: str((at.hour - 4) * 3_600_000 + at.minute * 60_000), scale=10_000)
    path = tmp_path / "20240702_trade.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("20240702_nvda_minute_trade.csv", text)
    pd.testing.assert_frame_equal(read_bars(path, "1m", columns="lean-equity"), minutes, check_freq=False)
    path.rename(tmp_path / "nvda.zip")
    with pytest.raises(DataError, match="must be named after its day"):
        read_bars(tmp_path / "nvda.zip", "1m", columns="lean-equity")


def test_lean_quotes_are_bids(tmp_path: Path):
    path = tmp_path / "20240102_quote.csv"
    ask = ",0,9,9,9,9,0"
    text = lines_of(BARS[:24], lambda at: str(at.hour * 3_600_000)).splitlines()
    path.write_text("\n".join(line.rpartition(",")[0] + ask for line in text))
    held = load_file(path, ReadAs(columns="lean-forex"))
    assert np.array_equal(held.rows[["open", "close"]], BARS[:24][["open", "close"]])
    assert any("tell no zone" in notice for notice in held.notices), "its clock is the market's"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_are_named_by_role_or_from_the_left(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    odd = BARS.reset_index().rename(columns={"time": "Zeit", "open": "Erster", "close": "Letzter"}).assign(close=9.9)
    odd.to_csv(path, index=False) if suffix == "csv" else odd.to_parquet(path)
    named = read_bars(path, "1h", columns="time=Zeit,open=erster,close=Letzter")
    assert np.array_equal(named.to_numpy(), BARS.to_numpy())
    placed = read_bars(path, "1h", columns="time,open,high,low,close,volume,-")
    assert np.array_equal(placed.to_numpy(), BARS.to_numpy()), "a header is left out"
    with pytest.raises(DataError, match=r"--columns|by time=when"):
        read_bars(path, "1h", columns="time=When")


def test_skipped_rows_and_told_marks(tmp_path: Path):
    path = tmp_path / "x.csv"
    header = "Report,of,a,broker,with,commas\n\nTime,Open,High,Low,Close,Volume\n"
    path.write_text(header + lines_of(BARS, lambda at: f"{at:%Y-%m-%d %H:%M}"))
    with pytest.raises(DataError, match="no known dialect"):
        read_bars(path, "1h")
    assert np.array_equal(read_bars(path, "1h", skip_rows=1).to_numpy(), BARS.to_numpy())
    with pytest.raises(DataError, match="nothing below 99 skipped lines"):
        read_bars(path, "1h", skip_rows=99)
    thousand = "time,open,high,low,close,volume\n" + "".join(f"2024-01-0{n},1,2,1,2,1.00{n}\n" for n in range(1, 9))
    path.write_text(thousand)
    assert read_bars(path, "1d", thousands=".")["volume"].tolist() == [1001 + n for n in range(8)]
    assert read_bars(path, "1d", decimal=".")["volume"].iloc[0] == 1.001
    with pytest.raises(OptionError, match="`thousands` must be another mark"):
        read_bars(path, "1d", thousands=".", decimal=".")


@pytest.mark.parametrize(
    "text",
    [
        lines_of(BARS, lambda at: f"{at:%Y%m%d %H%M%S}", ";"),
        lines_of(BARS, lambda at: str(int(at.timestamp()))).replace("\n", ",17\n"),
        lines_of(BARS, lambda at: f"{at:%Y-%m-%d},{at:%H:%M},XYZ"),
        lines_of(BARS, lambda at: f"{at:%Y-%m-%d %H:%M:%S}", "|"),
        "what,do,these,mean,here,now\n" + lines_of(BARS, lambda at: f"{at:%Y-%m-%dT%H:%M}"),
    ],
)
def test_the_options_that_a_refusal_shows_read_the_file(tmp_path: Path, text: str):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="--columns") as refused:
        read_bars(path, "1h")
    words = refused.value.message.rpartition("--columns ")[2].split()
    skip = int(words[2]) if words[1:2] == ["--skip-rows"] else 0
    assert np.array_equal(read_bars(path, "1h", columns=words[0], skip_rows=skip).to_numpy(), BARS.to_numpy())


@pytest.mark.parametrize("columns", ["histdat", "time,open", "time,open,high,low,close,open", "time=", "x=y", "a,b=c"])
def test_a_slip_in_a_layout_is_named_before_the_file_is_opened(tmp_path: Path, columns: str):
    with pytest.raises(OptionError, match="`columns` must"):
        read_bars(tmp_path / "is not there.csv", "1h", columns=columns)


def test_the_help_names_every_layout():
    told = reading_options("a file")["columns"].__metadata__[0].help
    assert told.rpartition("or ")[2] == f"{', '.join(LAYOUTS)}."


def test_every_layout_has_what_bars_need():
    assert all({"time", "open", "high", "low", "close"} <= set(layout.columns) for layout in LAYOUTS.values())


# --- what is no table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><body>login</body></html>", "web page"),
        (b'[{"open": 1}, {"open": 2}]', "JSON"),
        (b'{"error": "rate limit"}', "JSON"),
        (b"%PDF-1.4 ...", "PDF"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "Excel"),
        (b"SQLite format 3\x00" + bytes(99), "SQLite"),
        (gzip.compress(lines_of(BARS, str).encode())[:200], "cannot be unpacked"),
        (b"PAR1" + bytes(600), "cut off"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as refused:
        read_bars(path, "1h")
    assert len(refused.value.message) < 400


def test_a_workbook_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bars.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    with pytest.raises(DataError, match="Excel workbook: save the sheet as CSV"):
        read_bars(tmp_path / "bars.xlsx", "1h")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=5_000), min_size=1, max_size=4),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["", "time,open,high,low,close,volume\n", "time,symbol,open,high,low,close\n"]),
)
def test_messages_stay_short_whatever_a_file_holds(tmp_path_factory, fields: list[str], mark: str, header: str):
    path = tmp_path_factory.mktemp("odd") / "x.csv"
    path.write_text(header + (mark.join(fields) + "\n") * 50, errors="replace")
    try:
        read_bars(path, "1h")
    except OrbiError as error:
        assert len(error.message) < 1000


@pytest.mark.parametrize("header", ["time,symbol,open,high,low,close", "time,open,high,low,close," + "x" * 9_000])
def test_long_names_do_not_fill_a_message(tmp_path: Path, header: str):
    path = tmp_path / "x.csv"
    path.write_text(header + "\n" + f"2024-01-02,{'S' * 9_000},1,2,1,2\n2024-01-03,{'T' * 9_000},1,2,1,{'9' * 9_000}\n")
    with pytest.raises(OrbiError) as refused:
        read_bars(path, "1d", "XYZ")
    assert len(refused.value.message) < 1000


# --- clocks --------------------------------------------------------------------------------------------------------


def local_file(path: Path, zone: str, bars: pd.DataFrame) -> Path:
    """Write bars with what a clock in a zone showed."""
    bars.set_axis(bars.index.tz_convert(zone).tz_localize(None).rename("time"), axis=0).to_csv(path)
    return path


@pytest.mark.parametrize(("zone", "start"), [("Europe/Berlin", "2024-10-26"), ("America/New_York", "2024-11-02")])
def test_a_doubled_hour_hints_at_the_clock(tmp_path: Path, zone: str, start: str):
    bars = random_bars(start, 48)
    path = local_file(tmp_path / "x.csv", zone, bars)
    with pytest.raises(DataError, match=f"--zone {zone}") as refused:
        read_bars(path, "1h")
    assert "drop_duplicates" not in refused.value.message
    assert read_bars(path, "1h", source_zone=zone).index.equals(bars.index)


def test_real_duplicates_are_still_duplicates(tmp_path: Path):
    path = tmp_path / "x.csv"
    pd.concat([BARS, BARS[5:6]]).sort_index().tz_localize(None).to_csv(path)
    with pytest.raises(DataError, match="drop_duplicates"):
        read_bars(path, "1h")


def test_a_skipped_hour_is_noticed(tmp_path: Path, store: DeltaBarStore):
    path = local_file(tmp_path / "x.csv", "Europe/Berlin", random_bars("2024-03-29", 96))
    told = import_file(store, path, "BTCUSDT", "1h").notices
    assert any("hour that clocks skip" in notice and "Europe/Berlin" in notice for notice in told)


@pytest.mark.parametrize("clock", ["0", "93000", "100000", "235900"])
def test_numbers_that_are_clocks_are_padded(tmp_path: Path, clock: str):
    path = tmp_path / "x.csv"
    path.write_text(f"Date,Time,Open,High,Low,Close\n20240102,{clock},1,2,1,2\n20240102,235959,1,2,1,2\n")
    shown = load_file(path, ReadAs(source_zone="UTC")).rows.index[0]
    assert f"{shown:%H%M%S}" == clock.zfill(6)


def test_one_column_of_numbers_without_zeros_is_not_guessed(tmp_path: Path):
    path = tmp_path / "x.csv"
    rows = "".join(f"20240102 {clock},1,2,1,2\n" for clock in ("090000", "10000", "110000"))
    path.write_text("time,open,high,low,close\n" + rows)
    with pytest.raises(DataError, match="line 3: time is '20240102 10000'"):
        read_bars(path, "1h")


def test_a_broker_that_names_no_zone_is_told_its_likely_one(tmp_path: Path, store: DeltaBarStore):
    from orbiquant.market.calendars import expected_times

    hours = expected_times("2024-02-05", "2024-04-12", "1h", "forex")
    bars = random_bars("2024-01-01", len(hours)).set_axis(hours.rename("time"), axis=0)
    wall = bars.set_axis((hours.tz_convert("America/New_York").tz_localize(None) + pd.Timedelta("7h")).rename("time"))
    wall.to_csv(tmp_path / "EURUSD_1h.csv")
    told = import_file(store, tmp_path / "EURUSD_1h.csv", "EURUSD", "1h").notices
    assert any("fit the clock America/New_York+7 and not UTC" in notice for notice in told)
    right = ReadAs(source_zone="America/New_York+7")
    with pytest.raises(DataError, match="on another clock"):
        import_file(store, tmp_path / "EURUSD_1h.csv", "EURUSD", "1h", asked=right)
    assert store.read(SeriesId.parse("EURUSD", "1h")).index.equals(wall.index.tz_localize("UTC")), "nothing was written"
    done = import_file(store, tmp_path / "EURUSD_1h.csv", "EURUSD", "1h", asked=right, stored="replace")
    assert store.read(SeriesId.parse("EURUSD", "1h")).index.equals(hours), "none of the wrong clock is left"
    assert not any("clock" in notice for notice in done.notices)


# --- what is stored otherwise --------------------------------------------------------------------------------------


def put(tmp_path: Path, bars: pd.DataFrame, name: str = "x.csv") -> Path:
    """Write bars as a file."""
    bars.to_csv(tmp_path / name)
    return tmp_path / name


def test_corrections_and_fillings_contradict_nothing(tmp_path: Path, store: DeltaBarStore):
    import_file(store, put(tmp_path, BARS.drop(BARS.index[10:20])), "XYZ", "1h")
    mended = BARS.copy()
    mended.iloc[4, 4] += 1
    done = import_file(store, put(tmp_path, mended), "XYZ", "1h")
    assert (done.rows_added, done.rows_changed, done.rows_equal) == (10, 1, 37)
    with pytest.raises(DataError, match=r"is 0\.1 times the stored one, .*import the whole history"):
        import_file(store, put(tmp_path, BARS[20:40] / 10), "XYZ", "1h")
    split = import_file(store, put(tmp_path, mended / 10), "XYZ", "1h")
    assert (split.rows_added, split.rows_changed) == (0, 48), "an adjusted history takes the place of the old one"


def test_another_record_stops_and_names_the_choices(tmp_path: Path, store: DeltaBarStore):
    import_file(store, put(tmp_path, BARS), "XYZ", "1h")
    other = (BARS * 1.001).drop(BARS.index[7:9])
    for bars, said in (
        (other, "another record"),
        (BARS.set_axis(BARS.index + pd.Timedelta("30min")) * 2, "lie across"),
    ):
        path = put(tmp_path, bars)
        with pytest.raises(DataError, match=said) as refused:
            import_file(store, path, "XYZ", "1h")
        assert all(way in refused.value.message for way in ("--stored replace", "--stored merge", "data remove"))
    assert store.read(BARS_1H).equals(BARS)
    import_file(store, put(tmp_path, other), "XYZ", "1h", stored="merge")
    assert len(store.read(BARS_1H)) == 48
    import_file(store, put(tmp_path, other * 1.001), "XYZ", "1h", stored="replace")
    assert len(store.read(BARS_1H)) == 46


def test_what_lies_outside_the_file_stays(tmp_path: Path, store: DeltaBarStore):
    long = random_bars("2024-01-02", 400)
    store.upsert(BARS_1H, long)
    other = (long[100:300] * 1.001).drop(long.index[150])
    import_file(store, put(tmp_path, other), "XYZ", "1h", stored="replace")
    kept = store.read(BARS_1H)
    assert len(kept) == 399 and kept[:100].equals(long[:100]) and kept[-100:].equals(long[300:])


# --- tables of many ------------------------------------------------------------------------------------------------


def long_table(symbols: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return bars of many symbols below each other."""
    return pd.concat([bars.reset_index().assign(symbol=name) for name, bars in symbols.items()])


@pytest.mark.parametrize("kind", ["csv", "parquet", "category"])
def test_every_symbol_of_a_table_is_stored(tmp_path: Path, store: DeltaBarStore, kind: str):
    table = long_table({"eur/usd": BARS[:24], "EURUSD": BARS[24:], "NVDA": BARS * 2, "1000SATSUSDT": BARS / 1e6})
    path = tmp_path / "many.file"
    if kind == "category":
        table["symbol"] = table["symbol"].astype("category")
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    seen: list[int] = []
    results = import_symbols(store, path, progress=lambda done, total, text: seen.append(done))
    assert {one.symbol: one.rows_added for one in results} == {"1000SATSUSDT": 48, "EURUSD": 48, "NVDA": 48}
    assert seen == [1, 2, 3]
    told = [text.partition(":")[0] for one in results for text in one.notices]
    assert told == ["1000SATSUSDT is in no instrument table", "NVDA is in no instrument table"]
    version = store.version()
    assert all(one.rows_equal == 48 for one in import_symbols(store, path)) and store.version() == version


def test_one_wrong_symbol_keeps_all_out(tmp_path: Path, store: DeltaBarStore):
    wrong = BARS.copy()
    wrong.iloc[3, 1] = -1
    long_table({"AAA": BARS, "BBB": wrong}).to_csv(tmp_path / "many.csv", index=False)
    with pytest.raises(DataError, match=r"(?s)1 of 2 symbols cannot be imported, nothing was stored:\nBBB: .*line 53"):
        import_symbols(store, tmp_path / "many.csv")
    assert store.series() == []
    assert len(import_symbols(store, tmp_path / "many.csv", repair=["drop_not_positive"])) == 2
    with pytest.raises(DataError, match="must have a column `symbol`"):
        load_symbols(put(tmp_path, BARS))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared bars are not here")
@pytest.mark.slow
def test_a_table_of_136_pairs_is_stored_whole(tmp_path: Path, store: DeltaBarStore):
    results = import_symbols(store, SHARED / "USDT136_1h_long.parquet")
    assert len(results) == 136 and sum(one.rows_added for one in results) == 755_566


# --- signals and the command line ----------------------------------------------------------------------------------


def test_signals_are_read_as_bars_are(tmp_path: Path):
    path = tmp_path / "signals.csv.gz"
    text = "When;action;entry_price;stop_loss\n02.07.2024 10:00;LONG;1.234,5;1.200,25\n02.07.2024 11:00;HOLD;;\n"
    path.write_bytes(gzip.compress(text.encode("utf-16")))
    signals = read_signals_file(path, ReadAs(columns="time=When", source_zone="Europe/Berlin"))
    assert signals.index[0] == pd.Timestamp("2024-07-02 08:00", tz="UTC")
    assert signals["entry_price"].iloc[0] == 1234.5 and signals["action"].tolist() == ["LONG", "HOLD"]


def run(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed or raised."""
    done = CliRunner().invoke(program, list(words))
    return done.exit_code, done.stdout or done.stderr or str(done.exception)


def test_every_command_takes_the_options_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path / "home"))
    path = tmp_path / "EURUSD_1h.txt"
    euro = BARS.map(lambda price: f"{price:.4f}".replace(".", ","))
    path.write_text("a title\n" + euro.reset_index().assign(time=euro.index.strftime("%m/%d/%Y %H:%M")).to_csv(
        index=False, header=False, sep=";"))  # fmt: skip
    told = ["--columns", "time,open,high,low,close,volume", "--skip-rows", "1", "--zone", "UTC-5"]
    told += ["--time-format", "%m/%d/%Y %H:%M", "--decimal", ","]
    others = ["--signals-time-format", "%m/%d/%Y %H:%M", "--signals-zone", "UTC-5", "--signals-decimal", ","]
    code, out = run("data", "import", str(path), "--symbol", "XYZ", "--json", *told)
    assert code == 0 and json.loads(out)["rows_added"] == 48
    first = json.loads(run("data", "show", "XYZ", "1h", "--rows", "99", "--json")[1])[0]
    assert first["time"].startswith("2024-01-02T05:00") and first["open"] == BARS["open"].iloc[0]
    free = path.rename(tmp_path / "mybars.csv")
    code, out = run("data", "pull", "csv", "EURUSD", "1h", "--path", str(free), "--json", *told)
    assert code == 0 and json.loads(out)["rows_added"] == 48
    code, out = run("data", "pull", "synthetic", "ORBUSD", "1h", "--zone", "UTC")
    assert code == 1 and "`--zone` is for csv and parquet" in out
    path, signals = free, tmp_path / "s.csv"
    signals.write_text("Time;action;entry_price;stop_loss;take_profit\n01/02/2024 10:00;LONG;99,9;99,0;101,5\n")
    code, out = run("backtest", "--bars", str(path), "--signals", str(signals), "--json", *told, *others)
    assert code == 0 and json.loads(out)["trades"], out
    code, out = run("audit", "delays", "--bars", str(path), "--signals", str(signals), "--json", *told, *others)
    assert "delays" in json.loads(out)
    for words in (
        ["backtest", "--symbol", "XYZ", "--timeframe", "1h", "--zone", "UTC"],
        ["backtest", "--bars", "x", "--signals-zone", "UTC"],
    ):
        assert re.search(r"--(signals-)?zone does not go with", run(*words)[1])


def test_a_pull_of_files_contradicts_the_store_as_an_import_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path / "home"))
    bars = random_bars("2024-01-02", 400)
    path = put(tmp_path, bars.tz_localize(None), "BTCUSDT_1h.csv")
    words = ("data", "pull", "csv", "BTCUSDT", "1h", "--path", str(path), "--json")
    code, out = run(*words)
    assert code == 0 and any("tell no zone" in notice for notice in json.loads(out)["notices"])
    for more in (("--zone", "America/New_York"), ("--zone", "America/New_York", "--again")):
        code, out = run(*words, *more)
        assert code == 1 and "on another clock" in out and "`data import` with --stored replace" in out
    assert len(json.loads(run("data", "show", "BTCUSDT", "1h", "--rows", "999", "--json")[1])) == 400
