"""What is decided, sent, filled and held; the account on paper."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, ExactDecimal, UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Build the tables."""
    build_agents()
    build_orders()
    build_positions()
    build_paper()


def downgrade() -> None:
    """Take them away."""

    op.drop_index("ix_trades_owner", table_name="trades", schema=INVESTMENT)
    op.drop_table("trades", schema=INVESTMENT)
    op.drop_table("positions", schema=INVESTMENT)
    op.drop_table("paper_orders", schema=INVESTMENT)
    op.drop_table("paper_guards", schema=INVESTMENT)
    op.drop_table("paper_fills", schema=INVESTMENT)
    op.drop_table("paper_accounts", schema=INVESTMENT)
    op.drop_index("ix_orders_state", table_name="orders", schema=INVESTMENT)
    op.drop_table("orders", schema=INVESTMENT)
    op.drop_table("intents", schema=INVESTMENT)
    op.drop_table("fills", schema=INVESTMENT)
    op.drop_table("decisions", schema=INVESTMENT)
    op.drop_table("checkpoints", schema=INVESTMENT)
    op.drop_table("agents", schema=INVESTMENT)


def build_agents() -> None:
    """Build who trades, what is answered, how far bars were gone through."""
    op.create_table(
        "agents",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("peak_equity", ExactDecimal, nullable=False),
        sa.Column("day_equity", ExactDecimal, nullable=False),
        sa.Column("day", UtcDateTime, nullable=False),
        sa.Column("last_loss_at", UtcDateTime),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_agents")),
        schema=INVESTMENT,
    )
    op.create_table(
        "checkpoints",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("timeframe", sa.String(length=4), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("account", "symbol", "timeframe", name="pk_checkpoints"),
        schema=INVESTMENT,
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, sa.Identity(), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("strategy", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("timeframe", sa.String(length=4), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("action", sa.String(length=10), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("intent_id", sa.String(length=36)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("agent", "strategy", "symbol", "timeframe", "time", name="uq_decisions_agent"),
        schema=INVESTMENT,
    )


def build_orders() -> None:
    """Build what is wanted, sent and filled."""
    op.create_table(
        "fills",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("fill_id", sa.String(length=40), nullable=False),
        sa.Column("client_order_id", sa.String(length=36), nullable=False),
        sa.Column("position_id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("quantity", ExactDecimal, nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.Column("fee", ExactDecimal, nullable=False),
        sa.Column("fee_asset", sa.String(length=20), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("account", "symbol", "fill_id", name="pk_fills"),
        schema=INVESTMENT,
    )
    op.create_table(
        "intents",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("strategy", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=10), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intents")),
        schema=INVESTMENT,
    )
    op.create_table(
        "orders",
        sa.Column("client_order_id", sa.String(length=36), nullable=False),
        sa.Column("intent_id", sa.String(length=36), nullable=False),
        sa.Column("position_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("sent_at", UtcDateTime),
        sa.Column("settled_at", UtcDateTime),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_orders")),
        schema=INVESTMENT,
    )
    op.create_index("ix_orders_state", "orders", ["state"], unique=False, schema=INVESTMENT)


def build_positions() -> None:
    """Build what is held, and what it made."""
    op.create_table(
        "positions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("strategy", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("timeframe", sa.String(length=4), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("signal_time", UtcDateTime, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("most_bars", sa.Integer),
        sa.Column("bracket", sa.Text, nullable=False),
        sa.Column("first_stop", ExactDecimal),
        sa.Column("quantity", ExactDecimal, nullable=False),
        sa.Column("opened_quantity", ExactDecimal, nullable=False),
        sa.Column("spent", ExactDecimal, nullable=False),
        sa.Column("proceeds", ExactDecimal, nullable=False),
        sa.Column("fees", ExactDecimal, nullable=False),
        sa.Column("bars", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_positions")),
        schema=INVESTMENT,
    )
    op.create_table(
        "trades",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("strategy", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("timeframe", sa.String(length=4), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("quantity", ExactDecimal, nullable=False),
        sa.Column("entry", ExactDecimal, nullable=False),
        sa.Column("exit", ExactDecimal, nullable=False),
        sa.Column("pnl", ExactDecimal, nullable=False),
        sa.Column("fees", ExactDecimal, nullable=False),
        sa.Column("r", sa.Float, nullable=False),
        sa.Column("reason", sa.String(length=10), nullable=False),
        sa.Column("entry_time", UtcDateTime, nullable=False),
        sa.Column("exit_time", UtcDateTime, nullable=False),
        sa.Column("signal_time", UtcDateTime, nullable=False),
        sa.Column("bars", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trades")),
        schema=INVESTMENT,
    )
    op.create_index("ix_trades_owner", "trades", ["owner"], unique=False, schema=INVESTMENT)


def build_paper() -> None:
    """Build the account on paper."""
    op.create_table(
        "paper_accounts",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("currency", sa.String(length=20), nullable=False),
        sa.Column("cash", ExactDecimal, nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_paper_accounts")),
        schema=INVESTMENT,
    )
    op.create_table(
        "paper_fills",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", "symbol", "number", name="pk_paper_fills"),
        schema=INVESTMENT,
    )
    op.create_table(
        "paper_guards",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("quantity", ExactDecimal, nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.Column("bracket", sa.Text, nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("opened", ExactDecimal, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", "entry_id", name="pk_paper_guards"),
        schema=INVESTMENT,
    )
    op.create_table(
        "paper_orders",
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("client_order_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("filled", ExactDecimal, nullable=False),
        sa.Column("paid", ExactDecimal, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("placed_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("account", "client_order_id", name="pk_paper_orders"),
        schema=INVESTMENT,
    )
