"""The ledger: entries and postings that nobody changes, and the balances that come of them."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, ExactDecimal, UtcDateTime

revision = "0003"
down_revision = "0002"

APPEND_ONLY = ("journal_entries", "journal_postings")
SAID = "the journal is append-only: correct an entry by reversing it"


def upgrade() -> None:
    """Build the three tables, and what keeps the first two as they are."""
    schema = schema_of(op.get_bind())
    if schema:
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    op.create_table(
        "journal_entries",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("payload", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(200), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("reference", sa.String(200), nullable=False),
        sa.Column("reverses", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_journal_entries"),
        sa.UniqueConstraint("key", name="uq_journal_entries_key"),
        sa.UniqueConstraint("reverses", name="uq_journal_entries_reverses"),
        schema=schema,
    )
    op.create_table(
        "journal_postings",
        sa.Column("entry_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("line", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("asset", sa.String(20), nullable=False),
        sa.Column("amount", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "line", name="pk_journal_postings"),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            [f"{schema}.journal_entries.id" if schema else "journal_entries.id"],
            name="fk_journal_postings_entry_id_journal_entries",
        ),
        schema=schema,
    )
    op.create_table(
        "journal_balances",
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("asset", sa.String(20), nullable=False),
        sa.Column("amount", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("account", "asset", name="pk_journal_balances"),
        schema=schema,
    )
    if schema:
        guard_on_server(schema)
    else:
        guard_in_file()


def downgrade() -> None:
    """Take the tables away, and the schema with them."""
    schema = schema_of(op.get_bind())
    for table in ("journal_balances", "journal_postings", "journal_entries"):
        op.drop_table(table, schema=schema)
    if schema:
        op.execute(f"DROP FUNCTION {schema}.refuse_change()")
        op.execute(f"DROP SCHEMA {schema}")


def schema_of(connection: sa.Connection) -> str | None:
    """Return the schema of what moves money; a SQLite file has none."""
    return INVESTMENT if connection.dialect.name == "postgresql" else None


def guard_on_server(schema: str) -> None:
    """Refuse changes on PostgreSQL."""
    op.execute(
        f"CREATE FUNCTION {schema}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{SAID}'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.{table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change()"
        )


def guard_in_file() -> None:
    """Refuse changes on SQLite, and what would replace a row by inserting another."""
    same = {
        "journal_entries": ("id = NEW.id OR key = NEW.key", "IGNORE"),  # under a key that is taken nothing is booked
        "journal_postings": ("entry_id = NEW.entry_id AND line = NEW.line", f"ABORT, '{SAID}'"),
    }
    for table in APPEND_ONLY:
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{SAID}'); END"
            )
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same[table][0]}) BEGIN SELECT RAISE({same[table][1]}); END"
        )
