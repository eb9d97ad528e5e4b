"""What was received from outside, by its names; how many notices were sent lately."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Build the table and the index."""
    op.create_table(
        "received_webhooks",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_received_webhooks"),
    )
    op.create_index("ix_received_webhooks_received_at", "received_webhooks", ["received_at"])
    op.create_index("ix_notices_sent_at", "notices", ["sent_at"])


def downgrade() -> None:
    """Drop the table and the index."""
    op.drop_index("ix_notices_sent_at", table_name="notices")
    op.drop_index("ix_received_webhooks_received_at", table_name="received_webhooks")
    op.drop_table("received_webhooks")
