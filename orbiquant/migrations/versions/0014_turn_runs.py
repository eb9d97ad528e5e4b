"""The events of the copilot's turns, kept for some minutes."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Build the tables."""
    op.create_table(
        "turn_runs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("said", sa.Text),
        sa.Column("holder", sa.String(100), nullable=False),
        sa.Column("begun_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("stop", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_turn_runs"),
    )
    op.create_index("ix_turn_runs_conversation_id", "turn_runs", ["user_id", "conversation_id", "begun_at"])
    op.create_index("ix_turn_runs_ended_at", "turn_runs", ["ended_at"])
    op.create_table(
        "turn_events",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "last", name="pk_turn_events"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("turn_events")
    op.drop_table("turn_runs")
