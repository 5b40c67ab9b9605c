"""Ingest: a snapshot of the source, validated row by row, placed, written as slices, versioned.

0. the source is looked at as a whole: every problem that keeps it from being read is told at once
1. read in chunks; each row is admitted or refused by expectations about that row alone (or its own
   subject's rows)
2. refused rows go to quarantine with the reason; suppressed subjects and records are left out
3. rows are placed by keyed hash and the slice files are written anew
4. the new directory replaces the old one, `dvc add` makes it a version, the ledger records it, push
   and commit follow

Bad input stops before step 4, so it never costs what is there. The same input again changes
nothing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flows.adapters.permissions import as_owner_only
from flows.adapters.processes import mapping
from flows.adapters.quarantine import QuarantinedRow
from flows.adapters.sources.cells import GIVEN, GIVEN_RECORD, MALFORMED, ROW
from flows.adapters.sources.labels import Undeclared
from flows.progress import current
from flows.use_cases.admission import (
    check_shrinkage,
    check_tiers,
    check_topology,
    id_basis,
    refuse_example_key,
    suppressed_by,
)
from flows.use_cases.finding import Findable
from flows.use_cases.next_steps import render_thin
from flows.use_cases.reconciling import healing_a_lost_lease
from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.workspace import access, stores
from flows.workspace.change import Change
from flows.workspace.parts import Sweepable
from flows.workspace.stores import Placed
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import refuse_open_plan
from s3t_core.config import Config, DataConfig
from s3t_core.domain import DatasetVersion, SliceId, Tiers
from s3t_core.erasure import events
from s3t_core.erasure.state import State
from s3t_core.errors import DataError
from s3t_core.files import remove_tree
from s3t_core.records import record_digest, subject_digest
from s3t_core.snapshot import Refused, SnapshotBuilder, SnapshotCounts, SourceRow

if TYPE_CHECKING:
    import pandas as pd

_MANY_ROWS = 200_000
"""From here on several processes settle the slices; below, starting them takes longer than they
save."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did. Counts of rows, except `subjects`; `largest_subjects` are row counts, no
    names. `read_as`: what kind of source it was; `notes`: sentences about it; `refused_labels`: of
    the undeclared labels those that may be shown, with their counts."""

    records: int
    held_out: int
    quarantined: int
    suppressed: int
    nearly: int
    subjects: int
    reasons: dict[str, int]
    warnings: dict[str, int]
    rows_per_slice: list[list[int]]
    largest_subjects: list[int]
    dataset_version: str
    changed: bool
    read_as: str
    notes: list[str]
    refused_labels: dict[str, int]


class Ingested(Placed, Sweepable, Findable, Protocol):
    """What takes a snapshot in."""


def run_ingest(
    workspace: Ingested,
    sources: list[str],
    append: bool,
    chunk_rows: int,
    shrink: bool,
    steps: Steps = AS_THEY_STAND,
) -> IngestReport:
    """Ingest under the locks. `append`: unite with what is there. `shrink`: also where much of what
    is there would be gone ([data] max_shrink)."""
    with (
        healing_a_lost_lease(workspace.root),
        access.training(workspace),
        access.changing(workspace) as held,
    ):
        report = ingest_source(workspace, held, sources, append, chunk_rows, shrink, steps)
    _show(report, steps)
    return report


def _show(report: IngestReport, steps: Steps) -> None:
    """What was taken and by which rules rows were refused, on the page of this run: numbers, and
    nothing that a source says."""
    counts = {
        "training records": report.records,
        "held-out records": report.held_out,
        "subjects": report.subjects,
        "left out as erased": report.suppressed,
        **{f"refused: {rule}": n for rule, n in report.reasons.items()},
        **{f"warning: {kind}": n for kind, n in report.warnings.items()},
    }
    rows: list[dict[str, object]] = [{"rows": kept, "count": n} for kept, n in counts.items()]
    changed = "" if report.changed else ": nothing changed"
    steps.show("ingest", rows, f"Data version {report.dataset_version}{changed}.")


def ingest_source(
    workspace: Ingested,
    held: Change,
    source: str | list[str],
    append: bool,
    chunk_rows: int,
    shrink: bool = False,
    steps: Steps = AS_THEY_STAND,
) -> IngestReport:
    """Ingest, while the workspace is held, and its training."""
    from flows.adapters.sources import named
    from flows.adapters.sources.preflight import preflight
    from flows.adapters.sources.remote import brought

    held.require()
    sources = named(source)
    for each in sources:
        refuse_example_key(workspace.keys_dir, each)
    preflight(workspace.config, sources)
    state = workspace.ledger.state()
    refuse_open_plan(state)
    if append and state.dataset is not None:
        check_topology(workspace, state)
    spool = workspace.temporary_dir / f"ingest-{os.getpid()}"
    sweep(workspace, held)
    for folder in (spool, workspace.placing_dir):
        as_owner_only(folder)
    try:
        with brought(sources, spool, workspace.config.data.query) as here:
            if here != sources:
                preflight(workspace.config, here)
            return _ingest(workspace, held, state, here, append, chunk_rows, spool, shrink, steps)
    finally:
        remove_tree(workspace.temporary_dir)
        remove_tree(workspace.placing_dir)


def _ingest(
    workspace: Ingested,
    held: Change,
    state: State,
    sources: list[str],
    append: bool,
    chunk_rows: int,
    spool: Path,
    shrink: bool,
    steps: Steps,
) -> IngestReport:
    config, made = workspace.config, workspace.placing_dir / "data"
    workspace.requests.check()
    rule, columns = id_basis(workspace, state, append, shrink)
    builder = SnapshotBuilder(
        workspace.keys,
        config.topology,
        config.data.held_out,
        spool,
        suppressed_by(state),
        config.placement_tiers,
        rule,
    )
    try:
        taken = steps.run(
            "validate-and-place", lambda: read_and_place(workspace, sources, chunk_rows, builder)
        )
        if not append:
            check_tiers(workspace, builder)
        described, late = _write_slices(
            workspace,
            builder,
            made,
            state.dataset if append else None,
            taken.rows >= _MANY_ROWS,
            rule,
            columns,
        )
    finally:
        builder.close()
    refused = taken.refused + [
        QuarantinedRow(
            row=r.number,
            reasons=[r.reason],
            values={},
            subject_digest=r.subject_digest,
            record_digest="",
            forms=[],
            label="",
        )
        for r in late
    ]
    if builder.counts.records + builder.counts.held_out == 0 and builder.counts.suppressed == 0:
        raise DataError(
            f"expected at least one valid row in the source, got {taken.rows} that were all "
            f"refused: {_count_reasons(refused)}{taken.render_labels()}; nothing was changed"
        )
    if not append and not shrink:
        check_shrinkage(workspace, state, builder)
    version, changed = steps.run(
        "version-data", lambda: version_files(workspace, held, state, made, described)
    )
    workspace.datasets.quarantine.hold(refused, append)
    workspace.signing.write_checkpoint()
    return _reported(config, taken, builder.counts, refused, version, changed)


def _reported(
    config: Config,
    taken: "Taken",
    counts: SnapshotCounts,
    refused: list[QuarantinedRow],
    version: str,
    changed: bool,
) -> IngestReport:
    topology = config.topology
    return IngestReport(
        records=counts.records,
        held_out=counts.held_out,
        quarantined=len(refused),
        suppressed=counts.suppressed,
        nearly=counts.nearly,
        subjects=counts.subjects,
        reasons=_count_reasons(refused),
        warnings={k: v for k, v in taken.warned.items() if v},
        rows_per_slice=_skew(counts.rows_per_slice, topology.shards, topology.slices),
        largest_subjects=counts.largest_subjects,
        dataset_version=version,
        changed=changed,
        read_as=taken.read_as,
        notes=[*taken.notes, *render_thin(counts.held_out, counts.rows_per_slice.values(), config)],
        refused_labels=taken.undeclared.shown(),
    )


@dataclass
class Taken:
    """What was read: refused rows, warnings by kind, rows read, and what the source turned out to
    be."""

    read_as: str
    undeclared: Undeclared
    refused: list[QuarantinedRow] = field(default_factory=list)
    warned: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rows: int = 0

    def render_labels(self) -> str:
        """Returns the undeclared labels that may be shown, as the end of a sentence."""
        return f"; undeclared labels: {self.undeclared.in_words()}" if self.undeclared else ""


def read_and_place(
    workspace: Ingested, sources: list[str], chunk_rows: int, builder: SnapshotBuilder
) -> Taken:
    """Step 1 and 2."""
    from flows.adapters.sources import Source
    from flows.adapters.subjects import Spellings, under_the_rule, with_given

    config, tiers = workspace.config.data, workspace.config.placement_tiers
    labels = workspace.config.require_labels()
    task = workspace.config.task
    source = Source(sources, config, workspace.config.tiers.column, task)
    chunks = source.chunks(chunk_rows)
    first = next(chunks, None)
    if first is None:
        raise DataError("expected rows in the source, got none")
    with current().spinner("Loading the checks"):
        from flows.adapters.validation import RowValidator

        validator = RowValidator(config, labels, tiers, task)
    taken, spellings = Taken(source.read_as, Undeclared(labels)), Spellings()
    with current().spinner("Reading, validating and placing rows"):
        for raw in chain([first], chunks):
            taken.rows += len(raw)
            chunk = under_the_rule(raw, config)
            verdicts = validator.check(chunk)
            for kind, count in verdicts.warned.items():
                taken.warned[kind] = taken.warned.get(kind, 0) + count
            admitted = with_given(chunk, raw, config)
            if verdicts.refused:
                spoilt = chunk[ROW].isin(list(verdicts.refused))
                taken.undeclared.add_refused(chunk[spoilt], config, validator.labels_in)
                taken.refused += [
                    _quarantined(workspace, values, verdicts.refused[values[ROW]], builder)
                    for values in admitted[spoilt].to_dict("records")
                ]
                admitted = admitted[~spoilt]
            taken.undeclared.beside_declared |= not admitted.empty
            spellings.add(admitted[config.subject])
            builder.add(_source_rows(config, tiers, admitted))
    taken.warned |= spellings.warned()
    taken.notes = source.notes
    return taken


def _write_slices(
    workspace: Ingested,
    builder: SnapshotBuilder,
    folder: Path,
    recorded: DatasetVersion | None,
    many: bool,
    rule: tuple[str, ...],
    columns: tuple[str, ...],
) -> tuple[DatasetVersion, list[Refused]]:
    """Step 3: what every file holds, and the rows refused on the way. Rows of `recorded` stay;
    without it the slices of many rows are settled in several processes."""
    existing = partial(workspace.datasets.versions.recorded_rows, recorded) if recorded else None
    identities = workspace.datasets.people.recorded_index(recorded) if recorded else None
    with current().spinner("Writing the slices"), mapping(many and existing is None) as each:
        refused = list(builder.write(folder, existing, each, identities))
        return workspace.datasets.versions.describe(
            workspace.config.topology, folder, each, rule, columns
        ), refused


def version_files(
    workspace: Ingested, held: Change, state: State, folder: Path, described: DatasetVersion
) -> tuple[str, bool]:
    """Step 4: (version, whether it is a new one)."""
    stores.pin_settings(workspace, held)
    with current().spinner("Versioning the data with DVC"):
        same = state.dataset is not None and replace(state.dataset, version="") == described
        workspace.datasets.versions.replace(folder)
        dataset = workspace.datasets.versions.add(described)
        if not same:
            workspace.ledger.append(
                events.DatasetChanged(
                    time=workspace.now(),
                    cause="ingest",
                    dataset=dataset,
                )
            )
        workspace.datasets.publish(dataset)
    return dataset.version, not same


def _source_rows(
    data: DataConfig, tiers: Tiers | None, chunk: "pd.DataFrame"
) -> Iterator[SourceRow]:
    columns = [
        chunk[c].tolist() if c else repeat("")
        for c in (ROW, data.subject, data.record, data.text, data.label, data.split_by)
    ]
    found = map(tiers.tier_of, chunk[tiers.column].tolist()) if tiers else repeat(None)
    given = (chunk[c].tolist() for c in (GIVEN, GIVEN_RECORD))
    return map(SourceRow._make, zip(*columns, found, *given, strict=False))


_OURS = (ROW, MALFORMED, GIVEN, GIVEN_RECORD)
"""Columns beside those of the source."""


def _quarantined(
    workspace: Ingested, values: Mapping[str, object], reasons: list[str], builder: SnapshotBuilder
) -> QuarantinedRow:
    """A refused row as it is kept. Without a readable subject only its place is: nobody could erase
    its values; and of a subject or a record that was erased nothing comes back."""
    data = workspace.config.data
    subject, record = _id_in(values, data.subject, data), _id_in(values, data.record, data)
    nobodys = QuarantinedRow(
        row=int(str(values[ROW])),
        reasons=reasons,
        values={},
        subject_digest="",
        record_digest="",
        forms=[],
        label="",
    )
    given = str(values[GIVEN])
    if not subject or builder.is_suppressed(subject, record, given, str(values[GIVEN_RECORD])):
        return nobodys
    return QuarantinedRow(
        row=nobodys["row"],
        reasons=reasons,
        values={c: v for c, v in values.items() if c not in (*_OURS, data.subject)},
        subject_digest=subject_digest(workspace.keys, subject),
        record_digest=record_digest(workspace.keys, subject, record) if record else "",
        forms=sorted(builder.forms_of(subject, given)),
        label=data.label,
    )


def _id_in(values: Mapping[str, object], column: str, data: DataConfig) -> str:
    """The id that a refused row has in `column`, "" when it cannot be read."""
    value = values[column] if column else ""
    if not isinstance(value, str) or values[MALFORMED]:
        return ""
    return value if len(value.encode()) <= data.max_id_bytes else ""


def _count_reasons(refused: Sequence[QuarantinedRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in refused:
        for reason in line["reasons"]:
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _skew(rows: dict[SliceId, int], shards: int, slices: int) -> list[list[int]]:
    return [[rows[SliceId(s, i)] for i in range(slices)] for s in range(shards)]
