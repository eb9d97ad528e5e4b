"""The ledger of trials."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Build the table and its index."""
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, sa.Identity(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("symbol", sa.String(40), nullable=False),
        sa.Column("timeframe", sa.String(10), nullable=False),
        sa.Column("data_version", sa.String(100), nullable=False),
        sa.Column("first", UtcDateTime, nullable=False),
        sa.Column("last", UtcDateTime, nullable=False),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("seed", sa.Integer),
        sa.Column("trades", sa.Integer, nullable=False),
        sa.Column("mean_r", sa.Double),
        sa.Column("sharpe", sa.Double),
        sa.Column("skew", sa.Double),
        sa.Column("kurtosis", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("key", name="uq_trials_key"),
    )
    op.create_index("ix_trials_symbol", "trials", ["symbol"])


def downgrade() -> None:
    """Take the table away."""
    op.drop_index("ix_trials_symbol", "trials")
    op.drop_table("trials")
