"""What the trading wing does fast is what it does slowly: rows that wait, many entries at once, signals bar by bar."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import select

from orbiquant.core import FixedClock
from orbiquant.domain import Costs, SeriesId
from orbiquant.market.sources import SampleSource
from orbiquant.persistence import querying, writing
from orbiquant.signals import to_signal
from orbiquant.trading import tables
from orbiquant.trading.journal import deposit_entry
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.pages import RowWriter
from orbiquant.trading.replay import TableFeed, moments, replay
from tests.tools.desk import begin_of, fresh_database, loose_profile, make_engine, random_signals

SERIES = SeriesId.parse("EURUSD", "1h")


def test_a_row_that_waits_is_told_as_if_it_were_checked():
    bars = SampleSource().bars(SERIES)[:300]
    signals = random_signals(bars, 1, share=0.2)
    clock = FixedClock(begin_of(bars))
    feed, asked = TableFeed({SERIES: signals}, clock), 0
    for time, row in zip(signals.index, signals.to_dict("records"), strict=True):
        clock.advance(time.to_pydatetime() + SERIES.timeframe.delta - clock.now())
        assert feed.latest(SERIES).model_dump() == to_signal(row, time, SERIES, 24, "replay").model_dump()
        asked += row["action"] == "HOLD"
    assert 100 < asked < 300


def test_many_entries_at_once_are_those_one_by_one(tmp_path: Path):
    moment = begin_of(SampleSource().bars(SERIES))
    some = [(deposit_entry(f"a{n % 7}", "paper", "USDT", Decimal(n), moment), f"d:{n}") for n in range(1, 400)]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one, many = (Ledger(fresh_database(tmp_path / name), FixedClock(moment)) for name in "ab")
    with writing(one.engine):
        numbers = [one.post(entry, key) for entry, key in some]
    assert many.post_many(some[:250]) + many.post_many(some[250:]) == numbers
    assert list(many.entries()) == list(one.entries()) and many.balances() == one.balances() and many.check() == []
    assert many.post_many(some) == numbers and many.last_id() == len(some), "heard twice, booked once"


def test_a_replay_in_parts_writes_the_rows_of_one_step_a_commit(tmp_path: Path):
    bars = SampleSource().bars(SERIES)[:250]
    signals, costs, read = random_signals(bars, 3, share=0.1), Costs(fee_bps=0.2), []
    for name in ("whole", "stepped"):
        (tmp_path / name).mkdir()
        database = fresh_database(tmp_path / name)
        made = make_engine(database, {SERIES: signals}, {"nova": loose_profile(SERIES)}, costs, begin_of(bars))
        for part in [bars] if name == "whole" else [bars[n : n + 1] for n in range(len(bars))]:
            if name == "whole":
                replay(made, {SERIES: part})
            else:
                step(made, part, last=part.index[0] == bars.index[-1])
        with querying(database) as connection:
            each = [tables.fills, tables.trades, tables.orders, tables.positions, tables.paper_guards, tables.decisions]
            read.append([sorted(map(str, connection.execute(select(table)).all())) for table in each])
    assert read[0] == read[1] and len(read[0][0]) > 10


def step(made, part, last: bool) -> None:
    """Let an engine live through one bar."""
    for moment, closing in moments({SERIES: part}):
        made.clock.advance(moment - made.clock.now())
        made.step(closing)
        if last:
            for bar in closing.values():
                made.close_all(bar)


def test_a_row_is_written_over_its_own_and_removed(tmp_path: Path):
    database = fresh_database(tmp_path)
    writer, key = RowWriter(tables.checkpoints, database), ("paper", "EURUSD", "1h")
    moment = begin_of(SampleSource().bars(SERIES))
    row = dict(zip(("account", "symbol", "timeframe"), key, strict=True)) | {"time": moment, "price": Decimal("1.10")}
    with writing(database) as connection:
        writer.replace(connection, [row])
        writer.replace(connection, [row | {"price": Decimal("1.2"), "time": moment + timedelta(hours=1)}])
        (found,) = connection.execute(select(tables.checkpoints)).all()
        writer.remove(connection, [key])
        assert connection.execute(select(tables.checkpoints)).all() == []
    assert found.price == Decimal("1.2") and found.time == moment + timedelta(hours=1)
