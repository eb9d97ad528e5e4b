"""Which basket a position is a leg of."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import INVESTMENT

revision = "0011"
down_revision = "0010"


def _schema() -> str | None:
    """Return where the table stands: a statement that changes one is not translated for SQLite."""
    return INVESTMENT if op.get_bind().dialect.name == "postgresql" else None


def upgrade() -> None:
    """Add the column."""
    op.add_column("positions", sa.Column("basket", sa.String(200)), schema=_schema())


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("positions", "basket", schema=_schema())
