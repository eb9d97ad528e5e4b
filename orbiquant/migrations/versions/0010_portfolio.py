"""Portfolio: to be filled."""

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Build the tables."""


def downgrade() -> None:
    """Drop the tables."""
