"""What the copilot remembers: conversations, notes, calls of tools, preferences, hot values."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Build the tables."""
    op.create_table(
        "conversations",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("head_id", sa.String(40)),
        sa.Column("usage", sa.JSON, nullable=False),
        sa.Column("waiting", sa.JSON),
        sa.Column("forked_from", sa.String(100)),
        sa.Column("forked_at", sa.String(40)),
        sa.Column("branches", sa.JSON, nullable=False),
        sa.Column("revision", sa.String(40), nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_updated_at", "conversations", ["updated_at"])
    op.create_table(
        "conversation_entries",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("parent_id", sa.String(40)),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_conversation_entries"),
    )
    op.create_index("ix_conversation_entries_conversation_id", "conversation_entries", ["user_id", "conversation_id"])
    op.create_table(
        "conversation_notes",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("entry_id", sa.String(40), nullable=False),
        sa.Column("by_model", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "conversation_id", name="pk_conversation_notes"),
    )
    _build_calls()
    op.create_table(
        "user_preferences",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("chosen", sa.JSON, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_user_preferences"),
    )
    op.create_table(
        "hot_values",
        sa.Column("key", sa.String(400), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_hot_values"),
    )
    op.create_index("ix_hot_values_expires_at", "hot_values", ["expires_at"])


def _build_calls() -> None:
    op.create_table(
        "tool_calls",
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("conversation_id", sa.String(100), nullable=False),
        sa.Column("called", sa.String(100), nullable=False),
        sa.Column("tool", sa.String(100)),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("outcome", sa.String(40), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("characters", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_tool_calls"),
    )
    op.create_index("ix_tool_calls_conversation_id", "tool_calls", ["user_id", "conversation_id", "started_at"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_index("ix_hot_values_expires_at", table_name="hot_values")
    op.drop_table("hot_values")
    op.drop_table("user_preferences")
    op.drop_index("ix_tool_calls_conversation_id", table_name="tool_calls")
    op.drop_table("tool_calls")
    op.drop_table("conversation_notes")
    op.drop_index("ix_conversation_entries_conversation_id", table_name="conversation_entries")
    op.drop_table("conversation_entries")
    op.drop_index("ix_conversations_updated_at", table_name="conversations")
    op.drop_table("conversations")
