"""Alerts: to be filled."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Build the tables."""


def downgrade() -> None:
    """Drop the tables."""
