"""What was decided on how capital is divided."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, UtcDateTime

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Build the table."""
    op.create_table(
        "portfolio_decisions",
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("period", sa.String(40), nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("method", sa.String(30), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("shares", sa.Text, nullable=False),
        sa.Column("moves", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", "period", name="pk_portfolio_decisions"),
        schema=INVESTMENT,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("portfolio_decisions", schema=INVESTMENT)
