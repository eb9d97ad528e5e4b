"""What the copilot's bot remembers: updates that it has taken, who talks where, which button belongs to which order."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Build the tables."""
    op.create_table(
        "telegram_updates",
        sa.Column("bot", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("content", sa.JSON),
        sa.Column("taken_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("bot", "number", name="pk_telegram_updates"),
    )
    op.create_table(
        "telegram_chats",
        sa.Column("bot", sa.BigInteger, nullable=False),
        sa.Column("chat", sa.BigInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.PrimaryKeyConstraint("bot", "chat", "account", name="pk_telegram_chats"),
    )
    op.create_table(
        "telegram_tickets",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("bot", sa.BigInteger, nullable=False),
        sa.Column("chat", sa.BigInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("ticket_id", sa.String(200), nullable=False),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("message", sa.BigInteger),
        sa.Column("reasons", sa.JSON),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_telegram_tickets"),
        sa.UniqueConstraint("bot", "user_id", "conversation_id", "ticket_id", name="uq_telegram_tickets_ticket_id"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("telegram_tickets")
    op.drop_table("telegram_chats")
    op.drop_table("telegram_updates")
