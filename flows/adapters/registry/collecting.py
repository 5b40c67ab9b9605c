"""`mlflow gc`: rows of what is deleted, which MLflow keeps until then.

gc also empties the place that each row names, and any row may name any place: whoever writes to the
database could have an erasure remove what it never made. So every doomed row is given a place that
nobody has first, and files go by where they lie (ModelFiles.remove_leftovers). Nor is gc's word
taken for it: a trigger, or rights that are missing, keep rows without an error, so they are looked
for afterwards.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import (
    ColumnClause,
    Connection,
    Engine,
    NullPool,
    String,
    TableClause,
    column,
    create_engine,
    delete,
    exists,
    func,
    inspect,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from s3t_core.errors import StorageError

_NOBODYS = "collected"
_AT_ONCE = 500
_OURS = frozenset(
    {
        *("runs", "tags", "metrics", "latest_metrics", "params", "inputs"),
        *("logged_models", "logged_model_metrics", "logged_model_params", "logged_model_tags"),
    }
)
"""Tables whose rows are of runs and models. What others tell of ours elsewhere is theirs."""
_LINKED = ("source_id", "destination_id")
_NAME_A_RUN, _NAME_A_MODEL = ("run_uuid", "run_id", *_LINKED), ("model_id", *_LINKED)
"""Columns of MLflow's tables that say what a row is of."""


@dataclass(frozen=True)
class _Doomed:
    """A table of MLflow's whose rows are deleted before they are gone, with its ids and places."""

    rows: TableClause
    key: ColumnClause[str]
    place: ColumnClause[str]

    @classmethod
    def of(cls, name: str, key: str, place: str) -> "_Doomed":
        """The table of that name."""
        ids, places = column(key, String), column(place, String)
        return cls(table(name, ids, places, column("lifecycle_stage", String)), ids, places)


_INPUTS = table("inputs", *map(column, ("input_uuid", "source_id", "destination_id")))
_INPUT_TAGS = table("input_tags", column("input_uuid"))
_DATASETS = table("datasets", column("dataset_uuid"))
_RUNS = _Doomed.of("runs", "run_uuid", "artifact_uri")
_MODELS = _Doomed.of("logged_models", "model_id", "artifact_location")


def collect_deleted(
    backend: str,
    tracking_uri: str,
    location: str,
    runs: Collection[str] | None = None,
    models: Collection[str] | None = None,
    *only: str,
) -> None:
    """Remove the rows of what is deleted in the database `backend`. `location`: the URL below which
    this workspace's files lie; `runs`, `models`: ids of what is to go, None for all that is
    deleted; `only`: options of `mlflow gc` that name it. Raises StorageError."""
    from click.testing import CliRunner
    from mlflow.cli import gc

    engine = create_engine(backend, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.begin() as connection:
            gone_runs = _deleted(connection, _RUNS) if runs is None else list(runs)
            gone_models = _deleted(connection, _MODELS) if models is None else list(models)
            for of, ids in ((_RUNS, gone_runs), (_MODELS, gone_models)):
                _name_nobodys_place(connection, of, ids, f"{location}/{_NOBODYS}")
            _remove_links(connection, [*gone_runs, *gone_models])
    except SQLAlchemyError as error:
        raise StorageError(
            "expected the registry's database to let go of what is destroyed, got "
            f"{type(error).__name__}; see that its user may change and remove rows, then run `s3t "
            "erase` again"
        ) from None
    arguments = [
        "--backend-store-uri",
        backend,
        "--tracking-uri",
        tracking_uri,
        *only,
    ]
    result = CliRunner().invoke(gc, arguments)
    if result.exit_code != 0:
        raise StorageError(
            f"mlflow gc failed ({type(result.exception).__name__}); run `s3t erase` again"
        )
    _check_gone(engine, gone_runs, gone_models)


def _deleted(connection: Connection, of: "_Doomed") -> list[str]:
    is_deleted = of.rows.c.lifecycle_stage == "deleted"
    return [str(found) for found in connection.scalars(select(of.key).where(is_deleted))]


def _name_nobodys_place(
    connection: Connection,
    of: "_Doomed",
    ids: list[str],
    nowhere: str,
) -> None:
    """Raises StorageError where one has another place all the same."""
    left = 0
    for some in _parts(ids):
        doomed = of.key.in_(some)
        connection.execute(update(of.rows).where(doomed).values({of.place: nowhere}))
        others = select(func.count()).select_from(of.rows).where(doomed, of.place != nowhere)
        left += connection.scalars(others).one()
    if left:
        raise StorageError(
            f"expected the rows of what is destroyed to be changed, got {left} in the registry's "
            "database that stay as they are: nothing of them was removed. See who keeps them (a "
            "trigger, rights), then run `s3t erase` again"
        )


def _remove_links(connection: Connection, ids: list[str]) -> None:
    """What says which data a run was given and which models came of it, which gc leaves: the links
    to and from runs and models, and the data that no other run names."""
    for some in _parts(ids):
        links = or_(_INPUTS.c.destination_id.in_(some), _INPUTS.c.source_id.in_(some))
        found = connection.execute(
            select(_INPUTS.c.input_uuid, _INPUTS.c.source_id).where(links)
        ).all()
        for named in _parts([str(link) for link, _ in found]):
            connection.execute(delete(_INPUT_TAGS).where(_INPUT_TAGS.c.input_uuid.in_(named)))
        connection.execute(delete(_INPUTS).where(links))
        needed = exists().where(_INPUTS.c.source_id == _DATASETS.c.dataset_uuid)
        for seen in _parts(sorted({str(data) for _, data in found})):
            connection.execute(delete(_DATASETS).where(_DATASETS.c.dataset_uuid.in_(seen), ~needed))


def _check_gone(
    engine: Engine,
    runs: list[str],
    models: list[str],
) -> None:
    """That no row of any table is of what was to go. Raises StorageError."""
    left = 0
    with engine.connect() as connection:
        tables = inspect(connection)
        for name in _OURS.intersection(tables.get_table_names()):
            there = {str(known["name"]) for known in tables.get_columns(name)}
            for named, ids in ((_NAME_A_RUN, runs), (_NAME_A_MODEL, models)):
                for each in there.intersection(named):
                    rows = table(name, column(each))
                    for some in _parts(ids):
                        of_these = select(func.count()).select_from(rows)
                        left += connection.scalars(of_these.where(rows.c[each].in_(some))).one()
    if left:
        raise StorageError(
            f"expected what is destroyed to be gone from the registry's database, got {left} "
            "row(s) of it that stay; see who keeps them (a trigger, rights), then run `s3t erase` "
            "again"
        )


def _parts(ids: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(ids), _AT_ONCE):
        yield ids[begin : begin + _AT_ONCE]
