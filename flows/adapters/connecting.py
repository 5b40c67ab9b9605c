"""How a connection to the database of requests and ledger is made, and what must not stand between
it and the tables (flows.adapters.database)."""

NETWORK = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server that is gone without a word is noticed in half a minute, not in hours."""
POSTGRESQL = (
    "synchronous_commit = on",
    "lock_timeout = '30s'",
    "idle_in_transaction_session_timeout = '20s'",
)
"""Acknowledged is on disk; nobody waits for ever; who stands still within a transaction loses
it."""
DIVERTED = {
    "sqlite": """
    SELECT tbl_name FROM sqlite_master WHERE type IN ('trigger', 'view') AND lower(tbl_name) IN ({names})""",  # noqa: E501
    "postgresql": """
    SELECT c.relname FROM pg_class c WHERE c.relname IN ({names}) AND pg_table_is_visible(c.oid) AND (
        c.relkind <> 'r' OR EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid)
        OR EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
        OR EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')
                   AND pg_get_expr(p.polqual, p.polrelid) <> 'true'))""",  # noqa: E501
}
"""What finds a trigger, a rule, a policy or a view in the place of tables with these names, by
dialect."""


def configure_postgresql(connection: object, _: object) -> None:
    """A new connection: what it acknowledges is on disk, and it waits for nobody for ever."""
    with connection.cursor() as cursor:  # type: ignore[attr-defined]
        for setting in POSTGRESQL:
            cursor.execute(f"SET {setting}")
    connection.commit()  # type: ignore[attr-defined]


def configure_sqlite(connection: object, _: object) -> None:
    """A new connection: what it acknowledges is on disk, and what it frees is overwritten."""
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun by hand
    for pragma in (
        "busy_timeout = 30000",
        "secure_delete = ON",
        "synchronous = FULL",
        "journal_mode = DELETE",
    ):
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]
