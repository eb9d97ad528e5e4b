"""When an API key ends by itself."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column."""
    op.add_column("api_keys", sa.Column("expires_at", UtcDateTime))


def downgrade() -> None:
    """End the keys that had an end, which nothing would tell any more, and drop the column."""
    op.execute("UPDATE api_keys SET revoked_at = expires_at WHERE revoked_at IS NULL AND expires_at IS NOT NULL")
    op.drop_column("api_keys", "expires_at")
