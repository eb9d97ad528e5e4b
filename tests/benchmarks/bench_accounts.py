"""How long ten thousand accounts take: deposits, the price of a unit, a month's fee and distribution, their statements.

`bench_trading` calls `account_figures`; `python -m tests.benchmarks.bench_accounts` prints them alone.
"""

import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, select

from orbiquant.core import FixedClock, configure_logging
from orbiquant.domain import Costs, SeriesId
from orbiquant.market.instruments import find_instrument
from orbiquant.persistence import engine, joined, migrate, querying, writing
from orbiquant.trading import tables
from orbiquant.trading.brokers.paper import PaperBroker
from orbiquant.trading.brokers.terms import PaperTerms
from orbiquant.trading.engine import TradingEngine
from orbiquant.trading.fund_entries import received_entry, subscription_entry
from orbiquant.trading.fund_state import FundEvent
from orbiquant.trading.funds import Fund
from orbiquant.trading.funds_closing import close_month
from orbiquant.trading.marks import mark_days
from orbiquant.trading.pages import Pages, RowWriter
from orbiquant.trading.products import Product
from orbiquant.trading.standing import Standing
from orbiquant.trading.statements import enter_account, statement_faults, sync_statements
from orbiquant.trading.switches import Switches
from orbiquant.trading.units import Lot, units_of
from tests.tools.desk import FREE, loose_profile
from tests.tools.postgres import running_postgres

ACCOUNTS, BEGIN, MONTH_END = 10_000, datetime(2026, 3, 20, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
CENT, FEE = Decimal("0.01"), Decimal("0.2")
BTC = SeriesId.parse("BTCUSDT", "1h")


@contextmanager
def timed(figures: dict[str, Any], name: str) -> Iterator[None]:
    """Keep how many seconds a block takes, by the wall and of this process."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures[name] = round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2)


def open_fund(database: Engine, folder: Path) -> Fund:
    """Return a product that pays out, on an account that nobody has touched."""
    clock, pages = FixedClock(BEGIN), Pages(database)
    terms = lambda symbol: PaperTerms(find_instrument(symbol), Costs())  # noqa: E731
    broker = PaperBroker(pages, "paper-usdt", "USDT", terms, clock)
    switches = Switches(database, folder / "switches", clock)
    standing = Standing(pages, broker, "paper-usdt", "USDT", terms, switches, clock)
    product = Product(
        id="atlas-conservative", agent="atlas", currency="USDT", performance_fee=FEE, distribution="pay_out",
        minimum_deposit=Decimal(10), cent=CENT,
    )  # fmt: skip
    desk = TradingEngine(standing, {"atlas": loose_profile(BTC)}, FREE, {}, products={"atlas": product})
    return Fund(desk, product)


def pay_in(fund: Fund, count: int, parts: int = 5) -> None:
    """Let accounts pay in amounts that differ, a part of them at each price: as `Fund.subscribe` does, many at once."""
    database, product, now = fund.database, fund.product, fund.standing.clock.now()
    fund.wake("first")
    number = 0
    for part in range(parts):
        before, units, nav = fund.equity, fund.units, fund.nav
        entries, lots, events, accounts, whole = [], [], [], [], Decimal(0)
        for _ in range(count // parts):
            number += 1
            name, amount = f"inv-{number:05}", Decimal(1000) + Decimal(number % 997) / 100
            bought = units_of(amount, nav)
            priced = (now, before + whole, units + sum_units(lots[-1:]), nav)
            event = FundEvent(product.id, number, f"subscribe:{name}", "subscription", *priced, name)
            entries.append((received_entry(fund.paths, name, amount, now), f"received:{name}"))
            entry = subscription_entry(fund.paths, (name, 1), amount, bought, now, event.name)
            entries.append((entry, f"subscribe:{name}"))
            lots.append(Lot(name, 1, nav, nav, nav, bought))
            events.append(event._asdict())
            accounts.append(name)
            whole += amount
        with joined(database) as connection:
            RowWriter(tables.fund_events, database).add(connection, events)
        for name in accounts:
            enter_account(database, name, name, product, now)
        fund.book(entries, whole, before, lots)
        gain = Decimal("1234.56")  # the book gains: no units are issued for it
        fund.books.deposit("atlas", "USDT", gain, now, f"gain:{part}")
        fund.engine.broker.deposit(gain)


def sum_units(lots: list[Lot]) -> Decimal:
    """Return the units of lots."""
    return sum((lot.units for lot in lots), Decimal(0))


def lost_cents(fund: Fund) -> int:
    """Return by how many cents accounts and the whole differ: fees told and earned, shares and what left the book."""
    ledger, sums = fund.ledger, {"fee": Decimal(0), "distribution": Decimal(0)}
    table = tables.account_transactions
    with querying(fund.database) as connection:
        asked = select(table.c.transaction_type, table.c.amount).where(table.c.transaction_type.in_([*sums]))
        for kind, amount in connection.execute(asked):
            sums[kind] += amount
    earned = -ledger.balance(fund.paths.fees, "USDT")
    paid = ledger.balance(fund.paths.bank, "USDT")
    return int((abs(sums["fee"] - earned) + abs(sums["distribution"] - paid)) / CENT)


def account_figures(database: Engine, folder: Path, count: int = ACCOUNTS) -> dict[str, Any]:
    """Return what so many accounts take, in seconds, and the cents that were lost."""
    figures: dict[str, Any] = {"database": database.dialect.name, "accounts": count}
    fund = open_fund(database, folder)
    pages, clock = fund.engine.pages, fund.standing.clock
    with timed(figures, "deposits_s"), writing(database), pages.together():
        pay_in(fund, count)
    with writing(database), pages.together():
        fund.books.deposit("atlas", "USDT", Decimal(count) * 30, clock.now(), "a good month")
        fund.engine.broker.deposit(Decimal(count) * 30)
    with timed(figures, "nav_s"):
        nav = fund.nav
        worth = sum((lot.units * nav for lot in fund.lots()), Decimal(0))
    with timed(figures, "month_end_s"), writing(database), pages.together():
        fees, paid = close_month(fund, MONTH_END)
    assert isinstance(clock, FixedClock)
    clock.advance(timedelta(days=13))
    with writing(database), pages.together():
        mark_days(fund, clock.now())
    with timed(figures, "statements_s"):
        rows = sync_statements(database, fund.product)
    with timed(figures, "nothing_new_s"):
        assert sync_statements(database, fund.product) == 0
    with timed(figures, "check_s"):
        faults = [*statement_faults(database, fund.product), *fund.ledger.check()]
    left = fund.equity - fund.nav * fund.units
    figures |= {"rows": rows, "fees": f"{fees:f}", "distributed": f"{paid:f}", "faults": len(faults)}
    figures |= {"lost_cents": lost_cents(fund), "beyond_units": f"{left:.1E}", "worth": f"{worth:.2f}"}
    return figures


def main(count: int = ACCOUNTS) -> None:
    """Print the figures of both databases, synced to the disk at each commit."""
    configure_logging("ERROR")
    with TemporaryDirectory() as folder:
        file = engine(f"sqlite:///{folder}/desk.db")
        migrate(file)
        print(json.dumps(account_figures(file, Path(folder), count)), flush=True)
    with TemporaryDirectory() as folder, running_postgres(durable=True) as url:
        server = engine(url)
        migrate(server)
        print(json.dumps(account_figures(server, Path(folder), count)), flush=True)
        server.dispose()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
