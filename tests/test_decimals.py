"""Numbers of every writer: which mark parts thousands is read from whole columns, or asked, and never guessed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbiquant.core import DataError
from orbiquant.market.decimals import NumberMarks, column_vote, decimal_marks, to_numbers
from orbiquant.market.files import ReadAs, load_file
from orbiquant.market.reading import read_bars

TIMES = pd.date_range("2024-01-02", periods=8, freq="1h").strftime("%Y-%m-%d %H:%M")
OPEN, CLOSE = 987.25 + np.arange(8) * 4.5, 989.5 + np.arange(8) * 4.25
BARS = pd.DataFrame({"open": OPEN, "high": 1021.75 + np.arange(8), "low": 980.5 - np.arange(8), "close": CLOSE})


def as_written(value: float, decimal: str, thousands: str, digits: int) -> str:
    """Return a number as people write it."""
    text = f"{value:,.{digits}f}".replace(",", "t").replace(".", "d")
    return text.replace("t", thousands).replace("d", decimal)


def write(folder: Path, separator: str, decimal: str, thousands: str, digits: int = 2, volume: float = 5179.0) -> Path:
    """Write the bars of `BARS`, prices with `digits` decimals and volumes without."""
    lines = ["time,open,high,low,close,volume".replace(",", separator)]
    for row, time in enumerate(TIMES):
        numbers = [as_written(price, decimal, thousands, digits) for price in BARS.iloc[row]]
        numbers.append(as_written(volume + 13 * row, decimal, thousands, 0))
        fields = [time, *(f'"{number}"' if separator in number else number for number in numbers)]
        lines.append(separator.join(fields))
    file = folder / "XYZ_1h.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("decimal", "thousands"), [(".", ","), (",", "."), (".", ""), (",", ""), (".", " "), (",", "\u00a0"), (".", "'")]
)
def test_every_way_to_write_gives_the_same_bars(tmp_path: Path, separator: str, decimal: str, thousands: str):
    bars = read_bars(write(tmp_path, separator, decimal, thousands))
    np.testing.assert_array_equal(bars[["open", "high", "low", "close"]].to_numpy(), BARS.to_numpy())
    assert bars["volume"].tolist() == [5179.0 + 13 * row for row in range(8)]


@given(
    values=st.lists(st.floats(0.01, 9e6), min_size=2, max_size=30),
    marks=st.sampled_from([(".", ","), (",", "."), (".", " "), (",", "'")]),
    digits=st.sampled_from([1, 2, 4, 5]),
)
def test_a_column_is_read_as_it_was_written_whatever_it_holds(values: list[float], marks: tuple[str, str], digits: int):
    column = pd.Series([as_written(value, *marks, digits) for value in values])
    assert column_vote(column, "x") == marks[0]
    read = to_numbers(column, marks[0])  # type: ignore[arg-type]
    assert read.tolist() == [float(f"{value:.{digits}f}") for value in values]


def test_one_comma_far_down_does_not_turn_the_numbers_above_it(tmp_path: Path):
    rows = [f"2024-01-0{1 + day} {hour:02}:00,1.5,2.5,1.25,1.75,{900 + hour}" for day in range(6) for hour in range(24)]
    rows[-1] = '2024-01-06 23:00,1.5,2.5,1.25,1.75,"1,023"'
    file = tmp_path / "XYZ_1h.csv"
    file.write_text("time,open,high,low,close,volume\n" + "\n".join(rows))
    bars = read_bars(file)
    assert bars["volume"].tolist()[-2:] == [922.0, 1023.0] and (bars["close"] == 1.75).all()


def test_what_can_be_read_both_ways_is_asked_and_then_read(tmp_path: Path):
    lines = [
        f"{time};{67500 + row:_};{67600 + row:_};{67400 + row:_};{67550 + row:_};12" for row, time in enumerate(TIMES)
    ]
    file = tmp_path / "XYZ_1h.csv"
    file.write_text("time;open;high;low;close;volume\n" + "\n".join(lines).replace("_", "."))
    with pytest.raises(
        DataError, match=r"the column open of XYZ_1h.csv can be read in two ways, such as '67.500'.*--decimal"
    ):
        read_bars(file)
    assert (
        read_bars(file, decimal=",")["close"].iloc[0] == 67550
        and read_bars(file, decimal=".")["close"].iloc[0] == 67.55
    )


def test_values_without_a_mark_tell_of_those_with_one():
    column = pd.Series(["998", "999", "1,001", "1,002"])
    assert decimal_marks(column.to_frame("close"), NumberMarks(separator=";"), "a.csv") == {"close": "."}
    yen = pd.Series(["0,151", "0,152", "0,153"])
    assert decimal_marks(yen.to_frame("close"), NumberMarks(separator=";"), "a.csv") == {"close": ","}


def test_a_column_of_two_minds_is_refused_with_a_value_of_each():
    with pytest.raises(
        DataError, match=r"the column close of a.csv must write its numbers in one way, had '2.5' and '1,5'"
    ):
        decimal_marks(pd.DataFrame({"close": ["1,5", "2.5"]}), NumberMarks(), "a.csv")


@pytest.mark.parametrize("text", ["abc", "1.2.3", "1,23,4", "", "--", "1..2", "1,234.567,8"])
def test_what_is_no_number_is_nan_and_has_no_say(text: str):
    column = pd.Series(["1,234.50", text])
    assert column_vote(column[:1], "x") == "." and np.isnan(to_numbers(column)[1])


# --- volume ---


def volume_file(folder: Path, header: str, *values: str) -> Path:
    """Write eight bars with some columns of volume, the same in each row."""
    rows = [f"{time},1,2,1,2,{','.join(values)}" for time in TIMES]
    file = folder / "any.csv"
    file.write_text(f"time,open,high,low,close,{header}\n" + "\n".join(rows))
    return file


@pytest.mark.parametrize(
    ("header", "values", "symbol", "volume", "told"),
    [
        ("Volume BTC,Volume USDT", ("5", "210000"), "BTCUSDT", 5, "volume is taken from 'Volume BTC'"),
        ("Volume USDT,Volume_(BTC)", ("210000", "5"), "BTCUSDT", 5, "volume is taken from 'Volume_(BTC)'"),
        ("baseVolume,quoteVolume", ("5", "210000"), None, 5, "volume is taken from 'baseVolume'"),
        ("quoteVolume,volume_base", ("210000", "5"), None, 5, "volume is taken from 'volume_base'"),
        ("tick_volume,spread,real_volume", ("9", "3", "0"), None, 9, "volume is taken from 'tick_volume'"),
        ("tick_volume,real_volume", ("9", "5"), None, 5, "volume is taken from 'real_volume'"),
        ("volume,tick_volume", ("7", "9"), None, 7, None),
        (
            "Volume BTC,Volume USDT",
            ("5", "210000"),
            "ETHEUR",
            0,
            "which of 'Volume BTC', 'Volume USDT' counts the base",
        ),
        ("spread", ("3",), None, 0, "the file tells no volume, 0 stands in every row"),
    ],
)
def test_volume_is_the_base_assets_and_what_was_taken_is_said(
    tmp_path: Path, header: str, values: tuple[str, ...], symbol: str | None, volume: float, told: str | None
):
    held = load_file(volume_file(tmp_path, header, *values), ReadAs(symbol, "UTC"))
    assert (held.rows["volume"] == volume).all()
    assert (not held.notices) if told is None else (told in held.notices[0] and len(held.notices) == 1)


def test_a_bar_without_a_volume_is_kept_and_said(tmp_path: Path):
    file = tmp_path / "any.csv"
    file.write_text("time,open,high,low,close,volume\n2024-01-02 00:00,1,2,1,2,5\n2024-01-02 01:00,1,2,1,2,\n")
    held = load_file(file, ReadAs(source_zone="UTC"))
    assert held.rows["volume"].tolist() == [5, 0]
    assert held.notices == ("volume is missing in 1 rows, first line 3: 0 there",)
