"""The database: exact values, migrations up and down, leases; on SQLite and on a real PostgreSQL."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, getcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BLANK_SCHEMA,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Engine,
    Float,
    Integer,
    MetaData,
    Numeric,
    Table,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

import orbiquant
from orbiquant import persistence
from orbiquant.core import DataError, FixedClock, SettingsError
from orbiquant.leases import acquire_lease, release_lease, renew_lease
from orbiquant.persistence import (
    INVESTMENT,
    ExactDecimal,
    UtcDateTime,
    database_location,
    engine,
    joined,
    migrate,
    migration_steps,
    writing,
)
from tests.tools.postgres import find_binaries, running_postgres

MINUTE = timedelta(minutes=1)
STEPS = Path(persistence.__file__).parent / "migrations" / "versions"
NEWEST = max(path.name[:4] for path in STEPS.glob("0*.py"))
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
PACKAGE = Path(orbiquant.__file__).parent
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
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])
moments = st.datetimes(datetime(1901, 1, 1), datetime(2199, 12, 31), timezones=zones)


@settings(max_examples=60, deadline=None)
@given(amount=amounts, moment=moments)
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


def test_a_text_that_not_every_database_can_hold_is_refused(database: Engine):
    with pytest.raises(DataError, match="NUL"), database.connect() as connection:
        connection.execute(text("SELECT name FROM scheduled_jobs WHERE name = :name"), {"name": "a\0b"})
    with database.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1, "and the connection is as good as before"


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


def test_what_stays_of_a_part_that_fails(database: Engine):
    before = row_count(database)
    with writing(database) as connection:
        for fails in (True, False, True):
            try:
                with joined(database) as part:
                    assert part is connection
                    part.execute(insert(VALUES).values(amount=Decimal(1)))
                    with joined(database) as inner:
                        inner.execute(insert(VALUES).values(amount=Decimal(1)))
                    if fails:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                continue
    assert row_count(database) == before + 2


def test_a_transaction_that_the_database_has_given_up_takes_nothing_more(tmp_path: Path):
    made = engine(f"sqlite:///{tmp_path}/orbi.db")
    VALUES.create(made)
    doubled = text("INSERT OR ROLLBACK INTO test_values (id) VALUES (1)")
    with pytest.raises(SQLAlchemyError), writing(made) as connection:
        connection.execute(doubled)
        with pytest.raises(IntegrityError), joined(made) as part:
            part.execute(doubled)
        connection.execute(insert(VALUES).values(id=2))
    assert row_count(made) == 0
    made.dispose()


def declared() -> MetaData:
    """Return the tables of the whole package, every module that declares some having been loaded."""
    for path in PACKAGE.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        if "persistence import" in code and "metadata" in code and "migrations" not in path.parts:
            import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    return persistence.metadata


def declared_for(database: Engine) -> MetaData:
    """Return the declared tables as a database has them: SQLite knows no schemas."""
    if database.dialect.name == "postgresql":
        return declared()
    flat = MetaData(naming_convention=persistence.NAMING)
    for table in declared().sorted_tables:
        table.to_metadata(flat, schema=None, referred_schema_fn=lambda *_: BLANK_SCHEMA)
    return flat


def differences(database: Engine, tables: MetaData) -> list[Any]:
    """Return what differs between a database and declared tables."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    own = lambda name, kind, _: name in (None, INVESTMENT) if kind == "schema" else name != "test_values"  # noqa: E731
    opts = {"compare_type": True, "include_schemas": True, "include_name": own}
    with database.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts=opts), tables)


def test_the_migrations_build_what_the_code_declares(database: Engine):
    tables = declared_for(database)
    assert {"leases", "api_keys", "trials", "journal_entries"} <= {table.name for table in tables.tables.values()}
    assert differences(database, tables) == []
    Table("planted", tables, Column("id", Integer, primary_key=True))
    assert [kind for kind, *_ in differences(database, tables)] == ["add_table"]
    tables.remove(tables.tables["planted"])


def schema_of(connection: Connection) -> list[tuple[Any, ...]]:
    """Return all that a database is made of, but for Alembic's own table and PostgreSQL's."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master WHERE tbl_name != 'alembic_version'"))
        return sorted(map(tuple, rows))
    asked = (
        "SELECT nspname FROM pg_namespace",
        "SELECT table_schema, table_name, column_name, data_type, is_nullable, is_identity, character_maximum_length, "
        "numeric_precision, numeric_scale FROM information_schema.columns",
        "SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes",
        "SELECT connamespace::regnamespace::text, conname, pg_get_constraintdef(oid) FROM pg_constraint",
        "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT pronamespace::regnamespace::text, proname, prosrc FROM pg_proc",
    )
    found = [tuple(map(str, row)) for query in asked for row in connection.execute(text(query))]
    own = [row for row in found if not row[0].startswith(("pg_", "information_schema"))]
    return sorted(row for row in own if "alembic_version" not in " ".join(row))


def fill(connection: Connection) -> dict[str, int]:
    """Write a row into every table that has none, and return how many each has."""
    found = MetaData()
    for schema in (None, INVESTMENT) if connection.dialect.name == "postgresql" else (None,):
        found.reflect(connection, schema=schema)
    values = {Boolean: True, Integer: 1, DateTime: NOON, Date: NOON.date(), Numeric: Decimal(1), Float: 1.0}
    counts = {}
    for table in (each for each in found.sorted_tables if each.name != "alembic_version"):
        if not connection.execute(select(table)).first():
            row = {c.name: next((v for kind, v in values.items() if isinstance(c.type, kind)), "1") for c in table.c}
            connection.execute(insert(table).values(row))
        counts[table.name] = len(connection.execute(select(table)).all())
    return counts


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"])
def test_every_step_goes_up_and_down_and_up_again(backend: str, tmp_path: Path, request: pytest.FixtureRequest):
    from alembic import command
    from alembic.script import ScriptDirectory

    url = f"sqlite:///{tmp_path}/orbi.db" if backend == "sqlite" else fresh_database(request, "walked")
    made = engine(url)

    def go(move: Any, revision: str) -> list[tuple[Any, ...]]:
        with writing(made) as connection:
            move(migration_steps(connection), revision)
            return schema_of(connection)

    def count() -> dict[str, int]:
        with writing(made) as connection:
            return fill(connection)

    with writing(made) as connection:
        script = ScriptDirectory.from_config(migration_steps(connection))
        steps, schemas = [each.revision for each in script.walk_revisions()][::-1], [schema_of(connection)]
    for step, before in zip(steps, ["base", *steps], strict=False):
        schemas.append(go(command.upgrade, step))
        rows = count()
        assert schemas[-1] != schemas[-2], f"{step} builds nothing"
        assert go(command.downgrade, before) == schemas[-2], f"{step} leaves something"
        assert {name: rows[name] for name in count()} == count(), f"{step} takes rows of others away"
        assert go(command.upgrade, step) == schemas[-1]
        assert count() == rows == dict.fromkeys(rows, 1)
    assert len(steps) >= 3 and {"journal_entries", "api_keys"} <= set(rows)
    for before, schema in zip([*steps[-2::-1], "base"], schemas[-2::-1], strict=True):
        assert go(command.downgrade, before) == schema
    assert go(command.upgrade, "head") == schemas[-1]
    made.dispose()


INEXACT = ("Numeric", "NUMERIC", "DECIMAL", "Float", "FLOAT", "REAL", "Double", "DOUBLE", "DOUBLE_PRECISION", "MONEY")
NO_MONEY = {"mean_r", "sharpe", "skew", "kurtosis", "confidence", "r"}  # columns of figures: in R, or probabilities
NO_MONEY |= {"close", "fired_price"}  # of bars that alerts were held against


def inexact_columns(tables: MetaData) -> set[str]:
    """Return the columns that would round an amount, or make it a float."""
    columns = [column for table in tables.tables.values() for column in table.columns]
    return {column.name for column in columns if isinstance(column.type, Numeric | Float)}


def inexact_in(code: str) -> set[str]:
    """Return the columns of such a type that a source declares; one whose name is no text counts as "?"."""
    found = set()
    for node in (each for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Call)):
        name, *types = node.args or [None]
        words = {getattr(part, "attr", getattr(part, "id", "")) for each in types for part in ast.walk(each)}
        if ast.unparse(node.func).rpartition(".")[2] == "Column" and words & set(INEXACT):
            found.add(name.value if isinstance(name, ast.Constant) else "?")
    return found


def test_no_amount_lies_in_a_column_that_rounds():
    assert "mean_r" in (found := inexact_columns(declared()))
    assert found <= NO_MONEY
    planted = MetaData()
    Table("bills", planted, Column("sum", Numeric(38, 18)), Column("paid", Float), Column("exact", ExactDecimal))
    assert inexact_columns(planted) == {"sum", "paid"}


def test_no_source_makes_such_a_column():
    found = {name for path in PACKAGE.rglob("*.py") for name in inexact_in(path.read_text(encoding="utf-8"))}
    assert "mean_r" in found
    assert found <= NO_MONEY
    planted = "sa.Column('sum', sa.Numeric(38, 18)); Column('paid', Double); Column(each, sa.REAL); Column('ok', Money)"
    assert inexact_in(planted) == {"sum", "paid", "?"}


def test_migrating_again_changes_nothing(database: Engine):
    assert migrate(database) == migrate(database)


WAIT = """
import sys
from orbiquant.leases import acquire_lease
from orbiquant.persistence import engine, migrate
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


def fresh_database(request: pytest.FixtureRequest, name: str = "fresh") -> str:
    """Return the URL of a database that nobody has migrated."""
    url = request.getfixturevalue("postgres_url")
    made = engine(url)
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    made.dispose()
    return url.replace("/postgres", f"/{name}")


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
