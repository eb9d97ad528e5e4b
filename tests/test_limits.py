"""What is too large is refused by the name of the setting, quickly; what is just large is read."""

import gzip
import json
import os
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import random_bars  # noqa: E402

from orbiquant.cli import main  # noqa: E402
from orbiquant.core import DataError, NotFoundError, OrbiError  # noqa: E402
from orbiquant.domain import SeriesId  # noqa: E402
from orbiquant.market import sources  # noqa: E402
from orbiquant.market.config import FileConfig  # noqa: E402
from orbiquant.market.files import ReadAs, load_file, load_symbols  # noqa: E402
from orbiquant.market.sources import CsvSource, ParquetSource  # noqa: E402
from orbiquant.runtime import Runtime, using  # noqa: E402

HEADER = b"time,open,high,low,close,volume\n"
MB = 1_000_000


def bomb(folder: Path, kind: str, size_mb: int = 300) -> Path:
    """Return a small file that unpacks to a large one."""
    file = folder / f"BTCUSDT_1h.csv.{kind}"
    if kind == "gz":
        with gzip.open(file, "wb") as stream:
            stream.write(HEADER)
            for _ in range(size_mb):
                stream.write(bytes(MB))
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as stream:
            stream.write(HEADER)
            for _ in range(size_mb):
                stream.write(bytes(MB))
    return file


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_a_bomb_is_refused_long_before_it_has_unpacked(kind: str, tmp_path: Path):
    file, begin = bomb(tmp_path, kind), time.process_time()
    assert file.stat().st_size < MB
    with pytest.raises(
        DataError, match=rf"{file.name} must not unpack to more than 200 times .*unpacked_ratio"
    ) as said:
        load_file(file)
    assert time.process_time() - begin < 3 and re.search(r"at 5\d MB", said.value.message)
    with pytest.raises(
        DataError, match=r"larger than the 70 MB that `\[files\] unpacked_mb` allows, was 7\d MB or more"
    ):
        load_file(file, ReadAs(limits=FileConfig(unpacked_mb=70, unpacked_ratio=5_000)))


def test_a_zip_that_lies_of_its_size_is_counted(tmp_path: Path):
    content = bytearray(bomb(tmp_path, "zip", 60).read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the central directory tells the sizes
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"lie\.zip"):
        load_file(tmp_path / "lie.zip")


def test_bars_that_pack_well_are_no_bomb(tmp_path: Path):
    bars = random_bars("2000-01-01", 60_000, "1m").assign(open=1.5, high=1.5, low=1.5, close=1.5)
    content = bars.to_csv().encode()
    (tmp_path / "flat.csv.gz").write_bytes(gzip.compress(content, 9))
    assert len(content) > 15 * (tmp_path / "flat.csv.gz").stat().st_size, "flat bars pack well"
    assert len(load_file(tmp_path / "flat.csv.gz").rows) == 60_000


def test_a_plain_file_over_the_limit_is_refused_unread(tmp_path: Path):
    file = tmp_path / "BTCUSDT_1h.csv"
    with file.open("wb") as stream:
        stream.write(HEADER)
        stream.truncate(5_000 * MB)  # a hole on disk
    begin = time.process_time()
    with pytest.raises(DataError, match=r"larger than the 2,000 MB .* was 5,000 MB or more"):
        load_file(file)
    assert time.process_time() - begin < 1


def test_a_parquet_file_of_one_value_repeated_is_refused_unread(tmp_path: Path):
    rows = 2_000_000
    table = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), np.ones(rows)))
    table.insert(0, "time", pd.Timestamp("2024-01-01", tz="UTC"))
    table.to_parquet(tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < MB
    with pytest.raises(DataError, match=r"x\.parquet must not be larger than the 50 MB .* was 96 MB"):
        load_file(tmp_path / "x.parquet", ReadAs(limits=FileConfig(unpacked_mb=50)))


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command in a workspace of its own."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def typed(*words: str) -> tuple[int, str]:
        with using(Runtime()), pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return typed


def test_the_setting_in_the_message_is_the_one_that_counts(
    ask: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = bomb(tmp_path, "gz", 60)
    code, said = ask("data", "import", str(file))
    assert code == 1 and "[files] unpacked_ratio" in said.replace("\n", " ") and len(said) < 1000
    monkeypatch.setenv("ORBIQUANT_FILES_UNPACKED_RATIO", "5000")
    code, said = ask("data", "import", str(file))
    assert code == 1 and "unpacked_ratio" not in said, "it is unpacked, and zeros are no bars"


def many_files(folder: Path, count: int) -> None:
    """Fill a folder with small files, a day each."""
    folder.mkdir()
    bars = random_bars("2024-01-01", 24)
    (folder / "BTCUSDT_1h_00000.csv").write_text(bars.to_csv())
    for number in range(1, count):
        os.link(folder / "BTCUSDT_1h_00000.csv", folder / f"BTCUSDT_1h_{number:05}.csv")


def test_a_folder_of_ten_thousand_files_is_refused_at_once(
    ask: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    many_files(tmp_path / "many", 10_000)
    begin = time.process_time()
    code, said = ask("data", "pull", "csv", "BTCUSDT", "1h", "--path", str(tmp_path / "many"))
    assert code == 1 and time.process_time() - begin < 3
    assert "5,000 files that `[files] folder_files` allows, was 10,000" in said.replace("\n", " ")
    monkeypatch.setenv("ORBIQUANT_FILES_FOLDER_FILES", "20000")
    code, said = ask("data", "pull", "csv", "ETHUSDT", "1h", "--path", str(tmp_path / "many"))
    assert code == 1 and "holds no ETHUSDT 1h" in said.replace("\n", " ")


@pytest.mark.slow
def test_a_folder_of_many_files_is_read_at_a_few_milliseconds_each(tmp_path: Path):
    many_files(tmp_path / "many", 200)
    begin = time.process_time()
    assert len(CsvSource(tmp_path / "many").bars(SeriesId.parse("BTCUSDT", "1h"))) == 24
    assert time.process_time() - begin < 200 * 0.06


def test_a_folder_of_many_series_is_not_listed_in_full(tmp_path: Path):
    for number in range(300):
        (tmp_path / f"COIN{number}_1h.csv").write_text("time,open,high,low,close,volume\n")
    with pytest.raises(NotFoundError, match=r"and 280 more") as said:
        CsvSource(tmp_path).bars(SeriesId.parse("BTCUSDT", "1h"))
    assert len(said.value.message) < 1000


def hundred(count: int, rows: int) -> pd.DataFrame:
    """Return a long table of many symbols."""
    bars = random_bars("2024-01-01", rows).reset_index()
    return pd.concat([bars.assign(symbol=f"COIN{number}USDT") for number in range(count)], ignore_index=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_a_hundred_symbols_is_read_for_one_or_asked_which(kind: str, tmp_path: Path):
    table, file = hundred(100, 2_000), tmp_path / f"all_1h.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    begin = time.process_time()
    held = load_file(file, ReadAs("COIN42USDT"))
    assert len(held.rows) == 2_000 and any("198,000 rows of other symbols" in told for told in held.notices)
    with pytest.raises(DataError, match="`symbol` must name one of the 100 in all_1h"):
        load_file(file)
    assert time.process_time() - begin < 8 and len(load_symbols(file)) == 100


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_no_column_of_symbols_is_named(kind: str, tmp_path: Path):
    table, file = hundred(1_200, 2), tmp_path / f"all_1h.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    with pytest.raises(DataError, match=r"1,000 symbols that `\[files\] table_symbols` allows, was 1,200"):
        load_file(file, ReadAs("COIN7USDT"))
    asked = ReadAs("COIN7USDT", limits=FileConfig(table_symbols=2_000))
    assert len(load_file(file, asked).rows) == 2


def test_a_parquet_source_reads_the_symbols_of_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hundred(3, 50).to_parquet(tmp_path / "all_1h.parquet")
    read, original = [], sources.list_symbols
    monkeypatch.setattr(sources, "list_symbols", lambda file: read.append(file) or original(file))
    source = ParquetSource(tmp_path)
    for number in (0, 1, 2, 0):
        assert len(source.bars(SeriesId.parse(f"COIN{number}USDT", "1h"))) == 50
    assert len(read) == 1
    hundred(4, 50).to_parquet(tmp_path / "all_1h.parquet")
    assert len(source.bars(SeriesId.parse("COIN3USDT", "1h"))) == 50 and len(read) == 2


def test_limits_are_settings(ask: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch):
    shown = json.loads(ask("settings", "show", "--json")[1])
    assert shown["files"] == {
        "unpacked_mb": 2000, "unpacked_ratio": 200, "folder_files": 5000, "table_symbols": 1000}  # fmt: skip
    monkeypatch.setenv("ORBIQUANT_FILES_FOLDER_FILES", "0")
    with pytest.raises(OrbiError, match=r"FOLDER_FILES|folder_files"):
        Runtime()
