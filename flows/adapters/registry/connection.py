"""MLflow's client at one tracking URI, and how its refusals are told."""

import contextlib
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flows.adapters.mlflow_address import addressed
from flows.adapters.mlflow_file import file_of, open_anew
from s3t_core.errors import StorageError
from s3t_core.files import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

T = TypeVar("T")

GONE = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""What MLflow answers for a name, number or alias that is not there."""

_EMBEDDED = "sqlite:///"
_NOISY = ("alembic", "mlflow.store.db.utils", "mlflow")


class Connection:
    """A client, and the name under which it works there: of an experiment and of a registered
    model."""

    def __init__(self, uri: str, name: str) -> None:
        import mlflow

        for noisy in _NOISY:  # once it is there: it sets its own levels
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self.uri, self.name = uri, name
        with _refusals(), self.addressed():
            file = file_of(uri)
            if file is not None:
                _make_whole(file)
            self.client: MlflowClient = mlflow.MlflowClient(uri, uri)

    def addressed(self) -> AbstractContextManager[None]:
        """Until the block ends, MLflow's functions that are told no address work on this one: those
        that log, and those of a loaded version."""
        return addressed(self.uri)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """For calls of MLflow: they work on this address, on the database that lies there now, and
        what they raise is told as a StorageError, without the message, which may quote anything."""
        with _refusals(), self.addressed():
            open_anew(self.uri)
            yield


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = error.error_code if isinstance(error, MlflowException) else type(error).__name__
        raise StorageError(
            f"the model registry refused ({reason}); check that it is up and writable, then "
            "run the command again"
        ) from None


def _make_whole(path: Path) -> None:
    """Make MLflow's database where there is none: under another name, which it loses when all
    tables are there. Its sixty migrations take seconds, and MLflow goes on with none that a kill
    cut in the middle. What another process made meanwhile stays."""
    if path.exists():
        return
    from mlflow.store.db import utils

    made = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}.db")
    engine = utils.create_sqlalchemy_engine(f"{_EMBEDDED}{made}")  # type: ignore[no-untyped-call]
    try:
        utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def where_there() -> Iterator[None]:
    """Goes on behind the block where MLflow answers that something is not there."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in GONE:
            raise


def pages(fetch: "Callable[[str | None], PagedList[T]]") -> list[T]:
    """Everything that a paged search returns."""
    found, token = [], None
    while True:
        page = fetch(token)
        found += list(page)
        token = page.token
        if not token:
            return found
