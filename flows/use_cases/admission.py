"""What an ingest asks of the workspace before it changes anything, and a check asks as well: by
what ids the data that is there was placed, who was erased, whether slices, tiers and amounts
fit."""

import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from flows.adapters.keys import read_workspace_key
from flows.examples import EXAMPLE_KEY
from flows.workspace.parts import HasConfig, HasDatasets
from s3t_core.erasure.state import State
from s3t_core.errors import DataError, UsageError, WorkspaceError
from s3t_core.slicefile import count_subjects
from s3t_core.snapshot import SnapshotBuilder, Suppressed, check_shrunk

_ID_COLUMNS = ("subject", "record", "encoding")


def refuse_example_key(keys_dir: Path, source: str) -> None:
    """The published key protects nobody: refuse it for anything but an example set. Raises
    WorkspaceError."""
    if read_workspace_key(keys_dir) == EXAMPLE_KEY and not source.startswith("example:"):
        raise WorkspaceError(
            "expected example data under the published example key, got a source of your own; make "
            "a workspace with a key of its own: `s3t init DIR`"
        )


class Admitting(HasConfig, HasDatasets, Protocol):
    """What rows are admitted to."""


def id_basis(
    workspace: Admitting, state: State, append: bool, anyway: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rule for ids, and the columns of subjects and records, with what text files are read in,
    that this ingest goes by. Raises UsageError where they are others than those of the data there
    is: people would be others by them, and what earlier versions hold of somebody could not be told
    any more."""
    settings, dataset = workspace.config.data, state.dataset
    rule, columns = settings.id_rule, settings.id_columns
    rules = {h.id_rule for h in state.holds.values()}
    rules |= {r.id_rule for i, r in state.requests.items() if state.is_open(i)}
    for other in sorted(rules - {rule}):
        raise UsageError(
            f"expected [data] id_rule = {list(other)} in s3t.toml, by which a request or a hold "
            f"that is open was told, got {list(rule)}: it would be about nobody. Put it back, or "
            "`s3t erase` and `s3t release` first; nothing was changed"
        )
    if dataset is None or (dataset.id_rule, dataset.id_columns) == (rule, columns):
        return rule, columns
    there, wanted = map(_by_name, (dataset.id_columns, columns))
    was, now = _differing(
        {"id_rule": list(dataset.id_rule), **there}, {"id_rule": list(rule), **wanted}
    )
    change = f"expected [data] {was} in s3t.toml, as the data there is was placed by, got {now}: "
    if rules and dataset.id_columns != columns:
        raise UsageError(
            change
            + "a request or a hold that is open would be about nobody. Put it back, or `s3t erase` "
            "and `s3t release` first; nothing was changed"
        )
    if append:
        raise UsageError(
            change + "people may be others by it. Put it back, or ingest a whole snapshot without "
            "--append"
        )
    if not anyway:
        raise UsageError(
            change
            + "people may be others by it and are placed anew, and the next `s3t train` trains "
            "their slices again; who was erased is known by the ids of then alone; and the next "
            "erasure, whoever it is for, takes all earlier data with it, and what was trained on "
            "it: nobody could say who is in it. Put it back, or ingest with --yes, then "
            "`s3t train`; nothing was changed"
        )
    return rule, columns


def _by_name(columns: tuple[str, ...]) -> dict[str, str]:
    """What ids are read by, as s3t.toml calls it."""
    return dict(zip_longest(_ID_COLUMNS, columns, fillvalue=""))


def _differing(was: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, str]:
    """What two groups of settings say where they differ, as s3t.toml has it."""
    names = [n for n in now if was.get(n) != now[n]]
    return _as_toml(was, names), _as_toml(now, names)


def _as_toml(settings: Mapping[str, object], names: list[str]) -> str:
    values = {name: json.dumps(settings.get(name)) for name in names}
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def suppressed_by(state: State) -> Suppressed:
    """Whom the ledger's suppression list leaves out, and whoever is spelt nearly so."""
    subjects = {digest for digest, (scope, _) in state.suppressed.items() if scope == "subject"}
    records = state.suppressed.keys() - subjects
    partly = {r.subject for r in state.requests.values() if r.record and r.suppression in records}
    near = {
        digest
        for r in state.requests.values()
        if r.suppression in state.suppressed
        for digest in r.near
    }
    return Suppressed(frozenset(subjects), frozenset(records), frozenset(partly), frozenset(near))


def check_topology(workspace: Admitting, state: State) -> None:
    """That the data lies in as many shards and slices as the settings say. Raises UsageError."""
    topology = workspace.config.topology
    if state.dataset and (state.dataset.shards, state.dataset.slices) != (
        topology.shards,
        topology.slices,
    ):
        raise UsageError(
            f"expected data placed for {topology.shards} shards of {topology.slices} slices, got "
            f"{state.dataset.shards} of {state.dataset.slices}; ingest a whole snapshot without "
            "--append"
        )


def check_shrinkage(workspace: Admitting, state: State, builder: SnapshotBuilder) -> None:
    """Against the recorded version, as far as its files are there to be counted. Raises
    DataError."""
    if state.dataset is None:
        return
    counts, most = builder.counts, workspace.config.data.max_shrink
    check_shrunk(
        sum(v.rows for v in state.dataset.row_files()),
        counts.records + counts.held_out,
        most,
        "records",
    )
    try:
        there = count_subjects(workspace.datasets.files.data.rglob("*.parquet"))
    except DataError:
        return  # a file that cannot be read: this snapshot may be what puts it right
    check_shrunk(there, counts.subjects, most, "subjects")


def check_tiers(workspace: Admitting, builder: SnapshotBuilder) -> None:
    """A tier that matches nobody is a misspelt value or column: refuse before anything is
    changed."""
    tiers = workspace.config.placement_tiers
    for tier, values in enumerate(tiers.values if tiers and builder.tiers_seen else ()):
        if tier not in builder.tiers_seen:
            raise DataError(
                "expected valid rows in every tier, got none whose "
                f"{workspace.config.tiers.column!r} is one of {list(values)}; see [tiers] values "
                "in s3t.toml; nothing was changed"
            )
