"""Baskets: to be filled."""

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Build the tables."""


def downgrade() -> None:
    """Drop the tables."""
