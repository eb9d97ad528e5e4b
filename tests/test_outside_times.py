"""Times of a file from outside that cannot be: refused by the file's and the column's name."""

from pathlib import Path

import pandas as pd
import pytest

from orbiquant.core import DataError
from orbiquant.research.files import read_signals_file


def test_a_time_told_twice_is_refused(tmp_path: Path):
    hours = pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC", name="time")
    pd.DataFrame({"time": [1, 2], "side": [1, -1]}, hours).to_parquet(tmp_path / "both.parquet")
    with pytest.raises(DataError, match=r"both\.parquet must tell `time` once, had it as index and as column"):
        read_signals_file(tmp_path / "both.parquet")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_infinite_time_is_refused(tmp_path: Path, ending: str):
    path, table = tmp_path / f"far.{ending}", pd.DataFrame({"time": [1704171600000.0, float("inf")], "side": [1, 1]})
    table.to_parquet(path) if ending == "parquet" else table.to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"far\.{ending} must hold finite times in `time`, had infinite ones"):
        read_signals_file(path)
