"""Seals of ledger entries.

A ledger that a build before the first release wrote has none, and no key can be asked here: its
entries are refused when they are read. The column comes all the same, so that this is what the
reader is told.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column where it is missing."""
    there = {c["name"] for c in sa.inspect(op.get_bind()).get_columns("ledger")}
    if "seal" not in there:
        with op.batch_alter_table("ledger") as table:
            table.add_column(
                sa.Column("seal", sa.LargeBinary, nullable=False, server_default=sa.text("''"))
            )
        with op.batch_alter_table("ledger") as table:
            table.alter_column(
                "seal", server_default=None, existing_type=sa.LargeBinary, existing_nullable=False
            )


def downgrade() -> None:
    """Take the column out."""
    with op.batch_alter_table("ledger") as table:
        table.drop_column("seal")
