"""Orders that the copilot proposed, and what their user decided."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Build the table."""
    op.create_table(
        "tickets",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("known", sa.JSON, nullable=False),
        sa.Column("override", sa.Boolean, nullable=False),
        sa.Column("decided_by", sa.String(100)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("outcome", sa.JSON),
        sa.Column("proposed_at", UtcDateTime, nullable=False),
        sa.Column("decided_at", UtcDateTime),
        sa.Column("done_at", UtcDateTime),
        sa.PrimaryKeyConstraint("user_id", "conversation_id", "id", name="pk_tickets"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("tickets")
