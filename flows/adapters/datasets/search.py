"""Where the rows are of whoever is asked for, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.adapters.datasets.people import IdentityIndexes
from flows.adapters.datasets.stored import (
    StoredFiles,
)
from flows.adapters.dvc_repository import (
    md5_named,
    objects_in,
)
from flows.adapters.matching import Matcher, sorted_of
from flows.adapters.quarantine import Quarantine
from s3t_core.conversations import strings_in, texts_in
from s3t_core.domain import (
    HELD_OUT,
    DatasetVersion,
    Part,
    RowCounts,
    SliceId,
    SliceVersion,
)
from s3t_core.errors import DataError
from s3t_core.identity_index import (
    IDENTITY_PATH,
    holds_any,
    is_index,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.ports import Contents, Findings, Target
from s3t_core.records import row_commitment
from s3t_core.slicefile import (
    is_slice_file,
    read_rows,
    subjects_of,
)

_TRAINING, _HELD_OUT, _EARLIER, _QUARANTINED = range(4)
"""Places in a count of rows, as RowCounts has them."""


@dataclass
class _Hits:
    """What was found so far: rows by request and place; files (digests and md5) and parts of the
    present data that hold targeted rows, or may."""

    counts: dict[str, list[int]]
    tainted: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    parts: set[Part] = field(default_factory=set)

    def count(self, found: Mapping[str, int], place: int) -> None:
        """Count rows by request."""
        for request_id, count in found.items():
            self.counts[request_id][place] += count

    def taint(self, version: SliceVersion) -> None:
        """A file holds targeted rows, or nobody can say."""
        self.tainted.add(version.digest)
        self.objects.add(version.md5)

    def findings(self) -> Findings:
        """All of it."""
        return Findings(
            frozenset(self.tainted),
            frozenset(self.objects),
            frozenset(part for part in self.parts if isinstance(part, SliceId)),
            HELD_OUT in self.parts,
            {k: RowCounts(*v) for k, v in self.counts.items()},
        )


class RowSearch:
    """Searches every stored version, and quarantine."""

    def __init__(
        self,
        files: StoredFiles,
        keys: WorkspaceKeys,
        quarantine: Quarantine,
        people: IdentityIndexes,
    ) -> None:
        self._files = files
        self._keys = keys
        self._quarantine = quarantine
        self._people = people

    def find(
        self,
        targets: list[Target],
        history: list[DatasetVersion],
        destroyed: set[str],
        by_hash: bool = False,
    ) -> Findings:
        """Look for targeted rows in the current data, in every stored earlier version, and in
        quarantine. What the cache lacks of an earlier version, or has damaged, is brought back into
        it from a remote; what is whole nowhere counts as holding targeted rows, and so does what no
        recorded version has. `by_hash`: so does what has rows of somebody whom no index names.

        Raises GuaranteeError while the data directory is not the recorded version: nobody could say
        what is in it.
        """
        self._files.check_footing()
        hits, match = _Hits({t.request_id: [0] * 4 for t in targets}), Matcher(targets)
        known = self._in_present(match, history, hits)
        recorded = {v.md5 for d in history if d.says_who_as(history[-1]) for v in d.files()}
        stored = self._files.brought(recorded - known - destroyed)
        hits.objects |= self._unrecorded(history)
        named = self._people.named(history, stored) if by_hash else None
        _in_earlier(match, history, known | destroyed, stored, named, hits)
        for line in self._quarantine.rows():
            for request_id in match.requests_of(line["subject_digest"], line["record_digest"]):
                hits.counts[request_id][_QUARANTINED] += 1
        return hits.findings()

    def _in_present(self, match: Matcher, history: list[DatasetVersion], hits: "_Hits") -> set[str]:
        """Look in the files of the present version; returns what they are called (md5)."""
        current = self._files.recorded(history)
        for part, version, path in current:
            found = match.hits_in(path)
            hits.count(found, _HELD_OUT if part == HELD_OUT else _TRAINING)
            if found:
                hits.taint(version)
                hits.parts.add(part)
        identities = history[-1].identities if history else None
        known = {version.md5 for _, version, _ in current}
        if identities is None:
            return known
        if holds_any(self._files.current(IDENTITY_PATH, identities), match.subjects):
            hits.objects.add(identities.md5)
        return known | {identities.md5}

    def _unrecorded(self, history: list[DatasetVersion]) -> set[str]:
        """Data files and indexes of versions that never came to be, which killed ingests left in
        the cache or in a remote: nobody can say whose their rows are. Only where both lie in the
        workspace: in a cache that others share they may be another workspace's."""
        recorded, root = {v.md5 for d in history for v in d.files()}, self._files.root.resolve()
        places = (
            [
                *self._files.repository.caches,
                *(p / "files" / "md5" for p in self._files.repository.local_remotes()),
            ]
            if history
            else []
        )
        return {
            md5_named(p)
            for place in places
            if place.resolve().is_relative_to(root)
            for p in objects_in(place)
            if md5_named(p) not in recorded and (is_slice_file(p) or is_index(p))
        }

    def contents(self, targets: list[Target]) -> Contents:
        """Texts of the targeted rows, in any stored version and in quarantine, and a commitment per
        stored row, by request. Labels are not a person's data: of a refused row, the cell that was
        one when it came."""
        match = Matcher(targets)
        rows = {
            r
            for path in self._files.with_rows()
            for r in read_rows(path, match.subjects)
            if match.one(r.subject, r.record)
        }
        commitments: dict[str, list[str]] = {}
        found: dict[str, set[str]] = {}
        for row in rows:
            for request_id in match.hits([(row.subject, row.record)]):
                commitments.setdefault(request_id, []).append(
                    row_commitment(self._keys, request_id, row)
                )
                found.setdefault(request_id, set()).update(texts_in(row.text))
        for line in self._quarantine.rows():
            for request_id in match.requests_of(line["subject_digest"], line["record_digest"]):
                found.setdefault(request_id, set()).update(
                    text
                    for k, v in line["values"].items()
                    if isinstance(v, str) and k != line["label"]
                    for text in strings_in(v)
                )
        return Contents(sorted_of(found), sorted_of(commitments))


def _in_earlier(
    match: Matcher,
    history: list[DatasetVersion],
    passed: set[str],
    stored: Mapping[str, Path],
    named: set[str] | None,
    hits: _Hits,
) -> None:
    """Look in the files of earlier versions, as they are `stored` (by md5), but for those that are
    `passed`. What cannot be read, or names people otherwise, may hold a targeted row."""
    for dataset in history:
        index = dataset.identities
        if index and index.md5 not in passed and _may_hold(stored.get(index.md5), match.subjects):
            hits.objects.add(index.md5)
    files = {v.md5: v for dataset in history for v in dataset.row_files()}
    for md5, version in files.items():
        if md5 in passed:
            continue
        found = _earlier_hits(stored.get(md5), match, named)
        if found is None or found:
            hits.taint(version)
        hits.count(found or {}, _EARLIER)


def _earlier_hits(
    path: Path | None, match: Matcher, named: set[str] | None
) -> dict[str, int] | None:
    """Targeted rows per request in a stored file; None when there is none, or it cannot be read, or
    has rows of somebody who is not among the `named` where those are given: nobody can say whose it
    is."""
    try:
        if (
            path is None
            or not is_slice_file(path)
            or (named is not None and not subjects_of([path]) <= named)
        ):
            return None
        return match.hits_in(path)
    except DataError:
        return None


def _may_hold(path: Path | None, subjects: list[str]) -> bool:
    """Whether a stored index has one of the subjects, or there is none that can be read."""
    try:
        return path is None or holds_any(path, subjects)
    except DataError:
        return True
