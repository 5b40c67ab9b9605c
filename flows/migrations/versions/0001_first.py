"""Ledger, requests, suppression list, lease, idempotency keys.

Databases of builds before this one were made without a revision: what is there already stays as it
is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    for name, columns in _TABLES.items():
        if name not in there:
            op.create_table(name, *(c.copy() for c in columns))
    if "requests" not in there:
        op.create_index("ix_requests_suppression", "requests", ["suppression"])


def downgrade() -> None:
    """Take every table out."""
    for name in reversed(_TABLES):
        op.drop_table(name)


def _text(name: str, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String, primary_key=key, nullable=False)


_TABLES: dict[str, list[sa.Column]] = {  # type: ignore[type-arg]
    "ledger": [
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    ],
    "requests": [
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, unique=True, nullable=False),
        *map(
            _text,
            (
                "subject",
                "record",
                "suppression",
                "commitment",
                "salt",
                "received",
                "due",
                "certificate",
            ),
        ),
    ],
    "suppression": [_text("digest", key=True), *map(_text, ("kind", "request", "since"))],
    "lease": [
        _text("name", key=True),
        *map(_text, ("holder", "place")),
        sa.Column("beat", sa.Integer, nullable=False),
    ],
    "idempotency": [_text("key", key=True), _text("request")],
}
