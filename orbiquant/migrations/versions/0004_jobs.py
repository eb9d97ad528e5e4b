"""Scheduled jobs and their runs."""

import sqlalchemy as sa
from alembic import op

from orbiquant.persistence import UtcDateTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Build both tables."""
    op.create_table(
        "scheduled_jobs",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("handler", sa.String(100), nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("schedule", sa.String(200), nullable=False),
        sa.Column("zone", sa.String(100), nullable=False),
        sa.Column("missed", sa.String(10), nullable=False),
        sa.Column("next_due", UtcDateTime, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_scheduled_jobs"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("job", sa.String(100)),
        sa.Column("handler", sa.String(100), nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("lane", sa.String(10), nullable=False),
        sa.Column("idempotent", sa.Boolean, nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(100)),
        sa.Column("started_at", UtcDateTime),
        sa.Column("heartbeat_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("stop_asked", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
        sa.UniqueConstraint("job", "due_at", name="uq_job_runs_job"),
    )
    op.create_index("ix_job_runs_status", "job_runs", ["status"])


def downgrade() -> None:
    """Remove both tables."""
    op.drop_table("job_runs")
    op.drop_table("scheduled_jobs")
