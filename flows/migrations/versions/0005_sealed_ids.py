"""Ids as given, from hosts apart that take requests: sealed to who erases."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table, where it is not there."""
    if not sa.inspect(op.get_bind()).has_table("sealed_ids"):
        op.create_table(
            "sealed_ids",
            sa.Column("id", sa.String, primary_key=True),
            sa.Column("request", sa.String, nullable=False, index=True),
            sa.Column("host", sa.String, nullable=False),
            sa.Column("sealed", sa.LargeBinary, nullable=False),
        )


def downgrade() -> None:
    """Take it out."""
    op.drop_table("sealed_ids")
