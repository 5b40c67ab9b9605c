"""MLflow's tables made once a process: its sixty migrations take seconds on each new file, and the
flows' tests make hundreds. Commands that tests start make them as users' do."""

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any


@cache
def make_them_once() -> None:
    """From now on a new SQLite database of MLflow's is a copy of the first one."""
    import mlflow.store.model_registry.sqlalchemy_store as registry
    from mlflow.store.db import utils

    made = Path(tempfile.mkdtemp(prefix="s3t-tests-tables-")) / "mlflow.db"
    migrate = utils._initialize_tables

    def initialize(engine: Any) -> None:
        if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
            migrate(engine)
            return
        if not made.exists():
            first = utils.create_sqlalchemy_engine(f"sqlite:///{made}.new")
            migrate(first)
            first.dispose()
            Path(f"{made}.new").rename(made)
        with closing(sqlite3.connect(made)) as source:
            connection = engine.raw_connection()
            try:
                source.backup(connection.driver_connection)
            finally:
                connection.close()

    utils._initialize_tables = initialize
    registry._initialize_tables = initialize
