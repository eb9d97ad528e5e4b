"""Kill switches."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT, UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Build the table and its index."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {INVESTMENT}")
    op.create_table(
        "kill_switches",
        sa.Column("id", sa.Integer, sa.Identity(), nullable=False),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("killed", sa.Boolean, nullable=False),
        sa.Column("flatten", sa.Boolean, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_kill_switches"),
        schema=INVESTMENT,
    )
    op.create_index("ix_kill_switches_scope", "kill_switches", ["scope", "name"], schema=INVESTMENT)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("kill_switches", schema=INVESTMENT)
