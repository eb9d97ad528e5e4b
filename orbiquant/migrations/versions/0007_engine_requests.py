"""What people ask of an engine."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, UtcDateTime

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Build the table."""
    op.create_table(
        "engine_requests",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("asked_at", UtcDateTime, nullable=False),
        sa.Column("answered_at", UtcDateTime),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_engine_requests"),
        schema=INVESTMENT,
    )
    op.create_index("ix_engine_requests_account", "engine_requests", ["account"], schema=INVESTMENT)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index("ix_engine_requests_account", table_name="engine_requests", schema=INVESTMENT)
    op.drop_table("engine_requests", schema=INVESTMENT)
