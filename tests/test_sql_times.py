"""Times as tables of vendors tell them: several units in one column, offsets in a text, two columns of times."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.register_assert_rewrite("contracts")

from contracts.bar_store import random_bars  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from sqlalchemy import create_engine, text  # noqa: E402

from orbiquant.core import DataError, FixedClock  # noqa: E402
from orbiquant.domain import Bars, SeriesId, Timeframe  # noqa: E402
from orbiquant.market.clocks import from_epoch, to_moments  # noqa: E402
from orbiquant.market.pulls import pull  # noqa: E402
from orbiquant.market.sql import SqlSource  # noqa: E402
from orbiquant.market.store import DeltaBarStore  # noqa: E402
from tests.tools.postgres import find_binaries, running_postgres  # noqa: E402

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
BARS = random_bars("2024-12-30", 96)
CLOCK = FixedClock(datetime(2025, 2, 1, tzinfo=UTC))
NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

Table = Callable[..., SqlSource]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL."""
    if find_binaries() is None:
        pytest.skip("no PostgreSQL: install the extra `dev`")
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    """Return a function that writes bars to a table, with times of a given type, and opens a source of it."""
    url = f"sqlite:///{tmp_path}/x.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    def written(times: dict[str, list[Any]], held_as: str, bars: Bars = BARS, **settings: Any) -> SqlSource:
        prices = bars[["open", "high", "low", "close", "volume"]].to_dict("records")
        rows = [row | dict(zip(times, told, strict=True)) for row, *told in zip(prices, *times.values(), strict=True)]
        types = dict.fromkeys(times, held_as) | dict.fromkeys(prices[0], "DOUBLE PRECISION")
        columns = ", ".join(f"{name} {of}" for name, of in types.items())
        names = [*times, *prices[0]]
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS quotes"))
            connection.execute(text(f"CREATE TABLE quotes ({columns}, symbol VARCHAR(9) DEFAULT 'EURUSD')"))
            insert = f"INSERT INTO quotes ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
            connection.execute(text(insert), rows)
        engine.dispose()
        asked = {"table": "quotes", "timeframe": Timeframe.H1, "clock": CLOCK, "page_rows": 20} | settings
        return SqlSource(SecretStr(url), **asked)

    return written


def count(index: pd.DatetimeIndex, unit: str) -> list[int]:
    """Return times as numbers since 1970."""
    return [moment.as_unit("ns").value // NS[unit] for moment in index]


@pytest.mark.parametrize("unit", NS)
@pytest.mark.parametrize("named", [True, False])
def test_a_number_tells_its_unit_by_its_size(unit: str, named: bool, table: Table):
    kind = "INTEGER" if unit == "s" else "BIGINT"
    source = table({"time": count(BARS.index, unit)}, kind, epoch=unit if named else "")
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), BARS, check_freq=False)
    part = source.bars(EURUSD_1H, BARS.index[30], BARS.index[50])
    pd.testing.assert_frame_equal(part, BARS[30:50], check_freq=False)


MIXED = {
    "ms, then us": lambda i: count(BARS.index[i : i + 1], "ms" if i < 48 else "us")[0],
    "us, then ms": lambda i: count(BARS.index[i : i + 1], "us" if i < 48 else "ms")[0],
    "row by row": lambda i: count(BARS.index[i : i + 1], [*NS][i % 4])[0],
}


KINDS = ("BIGINT", "NUMERIC(30,3)", "DOUBLE PRECISION")
# Each kind once, each order once, with an epoch and without; the rest is slow.
FAST = {(kind, [*MIXED][place], epoch) for place, kind in enumerate(KINDS) for epoch in ("", "first")}


@pytest.mark.parametrize(
    ("kind", "order", "epoch"),
    [pytest.param(*mix, marks=[] if mix in FAST else pytest.mark.slow) for mix in product(KINDS, MIXED, ("", "first"))],
)
def test_units_mixed_in_one_column_are_read_row_by_row(order: str, epoch: str, kind: str, table: Table, tmp_path: Path):
    told = [MIXED[order](i) for i in range(len(BARS))]
    given = {"ms, then us": "ms", "us, then ms": "us", "row by row": "s"}[order] if epoch else ""
    source = table({"time": told}, kind, epoch=given)
    assert source.begins(EURUSD_1H) == BARS.index[0]
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), BARS, check_freq=False)
    for begin, end in ((10, 20), (40, 60), (90, 96)):
        window = BARS.index[begin], BARS.index[end - 1] + timedelta(hours=1)
        pd.testing.assert_frame_equal(source.bars(EURUSD_1H, *window), BARS[begin:end], check_freq=False)
    source.take_notices()
    done = pull(DeltaBarStore(tmp_path / "store"), source, EURUSD_1H, clock=CLOCK, chunk_bars=30)
    assert done.rows_added == 96
    assert any("since 1970: each is read by its size" in notice for notice in done.notices)


def test_ticks_in_fractions_of_a_second_keep_them(table: Table):
    moments = [1_735_516_800.25, 1_735_516_800.75, 1_735_516_861.5]
    source = table(
        {"time": moments}, "DOUBLE PRECISION", BARS[:3], columns={"price": "close"}, kind="ticks", price="price"
    )
    bars = source.bars(SeriesId.parse("EURUSD", "1m"))
    assert bars["volume"].tolist() == [20, 10] and bars["open"].tolist() == BARS["close"].iloc[[0, 2]].tolist()
    told = from_epoch(pd.Series(moments))
    assert [moment.microsecond for moment in told] == [250_000, 750_000, 500_000]


@pytest.mark.parametrize("form", ["+02", "+0200", "+02:00", " +02", "Z", " UTC"])
@pytest.mark.parametrize("separator", [" ", "T"])
def test_a_text_with_an_offset_is_that_moment(form: str, separator: str, table: Table):
    ahead = timedelta(hours=2 if "02" in form else 0)
    told = [f"{moment + ahead:%Y-%m-%d}{separator}{moment + ahead:%H:%M:%S}{form}" for moment in BARS.index]
    source = table({"time": told}, "VARCHAR(40)", zone="America/New_York")
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), BARS, check_freq=False)
    part = source.bars(EURUSD_1H, BARS.index[23], BARS.index[49])
    pd.testing.assert_frame_equal(part, BARS[23:49], check_freq=False)


def test_offsets_that_change_with_the_season_are_each_its_own(table: Table):
    bars = random_bars("2024-10-26 12:00", 40)
    told = [str(moment) for moment in bars.index.tz_convert("Europe/Berlin")]
    assert {text[-6:] for text in told} == {"+01:00", "+02:00"}
    told = [moment[:-3] for moment in told]  # as PostgreSQL writes them
    source = table({"time": told}, "VARCHAR(40)", bars)
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), bars, check_freq=False)


@pytest.mark.parametrize("first", [True, False])
def test_a_text_column_that_tells_a_zone_here_and_none_there_is_refused(first: bool, table: Table):
    told = [f"{moment:%Y-%m-%d %H:%M:%S}{'+00' if (i < 60) is first else ''}" for i, moment in enumerate(BARS.index)]
    source = table({"time": told}, "VARCHAR(40)", zone="Europe/Berlin")
    with pytest.raises(DataError, match=r"tells (a|no) zone and others do.*look at `sql_zone`"):
        source.bars(EURUSD_1H)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("open_time", "close_time"), "open_time"),
        (("close_time", "open_time"), "open_time"),
        (("time", "close_time"), "time"),
        (("timestamp", "closetime"), "timestamp"),
        (("ts", "updated_at"), "ts"),
    ],
)
def test_of_two_columns_of_times_the_open_is_taken_and_said(
    names: tuple[str, str], taken: str, table: Table, tmp_path: Path
):
    opened, closed = count(BARS.index, "ms"), count(BARS.index + timedelta(minutes=59, seconds=59), "ms")
    other = next(name for name in names if name != taken)
    source = table({name: opened if name == taken else closed for name in names}, "BIGINT")
    done = pull(DeltaBarStore(tmp_path / "store"), source, EURUSD_1H, end=BARS.index[-1], clock=CLOCK)
    (notice,) = done.notices
    assert f"taken from quotes.{taken}, not from {other}" in notice and done.rows_added == 95
    pd.testing.assert_frame_equal(source.bars(EURUSD_1H), BARS, check_freq=False)
    named = table({taken: opened, other: closed}, "BIGINT", columns={"time": taken})
    assert named.bars(EURUSD_1H).equals(source.bars(EURUSD_1H)) and named.take_notices() == ()


def test_a_close_alone_is_no_open(table: Table):
    source = table({"close_time": count(BARS.index, "ms")}, "BIGINT")
    with pytest.raises(DataError, match="`sql_columns` must tell which column of quotes is the time"):
        source.bars(EURUSD_1H)


@pytest.mark.parametrize("unit", NS)
def test_numbers_of_the_seventies_and_of_today_have_one_unit(unit: str):
    days = pd.date_range("1973-03-04", "2100-01-01", freq="191D", tz="UTC", unit="us")
    for numbers in (pd.Series(count(days, unit)), pd.Series(count(days, unit), dtype="float64")):
        apart = np.abs((from_epoch(numbers) - days).total_seconds())
        assert apart.max() < (1e-6 if unit != "ns" else 1e-5)
    assert to_moments(pd.Series([str(number) for number in count(days, unit)])).equals(days)
