"""Investment accounts: who owns units, what happened to a fund, what follows of it for each account."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, ExactDecimal, UtcDateTime

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Build the tables."""
    _build_accounts()
    _build_funds()
    _build_statements()
    op.create_index("ix_accounts_user_id", "accounts", ["user_id"], schema=INVESTMENT)
    op.create_index("ix_accounts_product_id", "accounts", ["product_id"], schema=INVESTMENT)
    op.create_index("ix_unit_lots_product_id", "unit_lots", ["product_id"], schema=INVESTMENT)


def _build_accounts() -> None:
    """Build what an account is."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(60), nullable=False),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("product_id", sa.String(40), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("currency", sa.String(20), nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("units", ExactDecimal, nullable=False),
        sa.Column("balance", ExactDecimal, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("event", sa.Integer, nullable=False),
        sa.Column("day_opening", ExactDecimal, nullable=False),
        sa.Column("day_profit", ExactDecimal, nullable=False),
        sa.Column("day_trades", sa.Integer, nullable=False),
        sa.Column("day_wins", sa.Integer, nullable=False),
        sa.Column("month_profit", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        schema=INVESTMENT,
    )


def _build_funds() -> None:
    """Build what happened to a fund, and who bought units at which price."""
    op.create_table(
        "fund_events",
        sa.Column("product_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("equity", ExactDecimal, nullable=False),
        sa.Column("units", ExactDecimal, nullable=False),
        sa.Column("nav", ExactDecimal, nullable=False),
        sa.Column("account_id", sa.String(60)),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("reference_id", sa.String(200), nullable=False),
        sa.Column("profit", ExactDecimal),
        sa.PrimaryKeyConstraint("product_id", "number", name="pk_fund_events"),
        sa.UniqueConstraint("product_id", "key", name="uq_fund_events_product_id"),
        schema=INVESTMENT,
    )
    op.create_table(
        "unit_lots",
        sa.Column("account_id", sa.String(60), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("product_id", sa.String(40), nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.Column("mark", ExactDecimal, nullable=False),
        sa.Column("opening", ExactDecimal, nullable=False),
        sa.Column("units", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "number", name="pk_unit_lots"),
        schema=INVESTMENT,
    )


def _build_statements() -> None:
    """Build what follows of it for each account."""
    op.create_table(
        "account_transactions",
        sa.Column("account_id", sa.String(60), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("transaction_type", sa.String(20), nullable=False),
        sa.Column("amount", ExactDecimal, nullable=False),
        sa.Column("balance_before", ExactDecimal, nullable=False),
        sa.Column("balance_after", ExactDecimal, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("reference_type", sa.String(20), nullable=False),
        sa.Column("reference_id", sa.String(200), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "number", name="pk_account_transactions"),
        schema=INVESTMENT,
    )
    op.create_table(
        "performance_snapshots",
        sa.Column("account_id", sa.String(60), nullable=False),
        sa.Column("snapshot_date", sa.Date, nullable=False),
        sa.Column("period_type", sa.String(10), nullable=False),
        sa.Column("opening_balance", ExactDecimal, nullable=False),
        sa.Column("closing_balance", ExactDecimal, nullable=False),
        sa.Column("profit_loss", ExactDecimal, nullable=False),
        sa.Column("total_trades", sa.Integer, nullable=False),
        sa.Column("winning_trades", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "snapshot_date", "period_type", name="pk_performance_snapshots"),
        schema=INVESTMENT,
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_index("ix_unit_lots_product_id", table_name="unit_lots", schema=INVESTMENT)
    op.drop_index("ix_accounts_product_id", table_name="accounts", schema=INVESTMENT)
    op.drop_index("ix_accounts_user_id", table_name="accounts", schema=INVESTMENT)
    for table in ("performance_snapshots", "account_transactions", "unit_lots", "fund_events", "accounts"):
        op.drop_table(table, schema=INVESTMENT)
