"""A row that whoever writes holds; idempotency keys are in the ledger.

A table of idempotency keys that an earlier build kept is dropped: nothing of it counts any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the one, drop the other."""
    if not sa.inspect(op.get_bind()).has_table("writer"):
        made = op.create_table(
            "writer", sa.Column("only", sa.Integer, primary_key=True, autoincrement=False)
        )
        op.bulk_insert(made, [{"only": 1}])
    op.execute("DROP TABLE IF EXISTS idempotency")


def downgrade() -> None:
    """The other way."""
    op.drop_table("writer")
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request", sa.String, nullable=False),
    )
