"""Accounts: to be filled."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Build the tables."""


def downgrade() -> None:
    """Drop the tables."""
