"""Alerts that wait for a price, how far bars were judged, and the outbox of what is told."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import ExactDecimal, UtcDateTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Build the tables."""
    op.create_table(
        "notices",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("way", sa.String(20), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.Column("due_at", UtcDateTime),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", UtcDateTime),
        sa.Column("fault", sa.Text),
        sa.PrimaryKeyConstraint("id", "way", name="pk_notices"),
    )
    op.create_index("ix_notices_due_at", "notices", ["due_at"])
    op.create_table(
        "price_alerts",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("symbol", sa.String(20), nullable=False),
        sa.Column("condition", sa.String(10), nullable=False),
        sa.Column("price", ExactDecimal, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.Column("fired_at", UtcDateTime),
        sa.Column("fired_price", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_price_alerts"),
    )
    op.create_index("ix_price_alerts_symbol", "price_alerts", ["symbol", "status"])
    op.create_index("ix_price_alerts_user_id", "price_alerts", ["user_id"])
    op.create_table(
        "alert_marks",
        sa.Column("symbol", sa.String(20), nullable=False),
        sa.Column("timeframe", sa.String(4), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("close", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("symbol", "timeframe", name="pk_alert_marks"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("alert_marks")
    op.drop_index("ix_price_alerts_user_id", table_name="price_alerts")
    op.drop_index("ix_price_alerts_symbol", table_name="price_alerts")
    op.drop_table("price_alerts")
    op.drop_index("ix_notices_due_at", table_name="notices")
    op.drop_table("notices")
