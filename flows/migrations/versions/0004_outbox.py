"""Callbacks: how far each target was told, and what is still to be sent there."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make both tables, where they are not there."""
    there = sa.inspect(op.get_bind())
    if not there.has_table("callbacks"):
        op.create_table(
            "callbacks",
            sa.Column("target", sa.String, primary_key=True),
            sa.Column("entry", sa.Integer, nullable=False),
        )
    if not there.has_table("outbox"):
        op.create_table(
            "outbox",
            sa.Column("target", sa.String, primary_key=True),
            sa.Column("message", sa.String, primary_key=True),
            sa.Column("entry", sa.Integer, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("due", sa.String, nullable=False),
            sa.Column("state", sa.String, nullable=False),
            sa.Column("answer", sa.String, nullable=False),
        )


def downgrade() -> None:
    """Take both out."""
    op.drop_table("outbox")
    op.drop_table("callbacks")
