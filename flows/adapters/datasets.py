"""Versioned data (DVC). `data.dvc` at the root is the version; each ingest and each erasure makes a
new one.

DVC's own `gc` is never used: without `--workspace` it erases nothing that history references, with
it it would erase other workspaces' objects on a shared remote. Objects are deleted one by one, by
the md5 the ledger lists, after checking that no live file needs them (facts about dvc 3.67, which
is pinned: only `dvc.api` is documented).
"""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from flows.adapters.dvc_repository import (
    OBJECT_MODE,
    DvcRepository,
    commit_files,
    md5_named,
    object_name,
    objects_in,
)
from flows.adapters.footing import check_footing, check_objects, leads_to_object, refuse_link
from flows.adapters.matching import Matcher, sorted_of
from flows.adapters.quarantine import Quarantine
from flows.adapters.s3 import S3Blobs, is_bucket
from s3t_core.domain import (
    HELD_OUT,
    DatasetVersion,
    Part,
    RowCounts,
    SliceId,
    SliceVersion,
    Topology,
    slices_of,
)
from s3t_core.errors import DataError, GuaranteeError, StorageError
from s3t_core.files import (
    SHARED_MODE,
    TEMPORARY_PREFIX,
    is_half_written,
    md5_of,
    open_regular,
    remove_file,
    remove_tree,
    write_atomically,
)
from s3t_core.identity_index import (
    IDENTITY_PATH,
    describe_index,
    holds_any,
    is_index,
    matching,
    named_in,
    read_index,
    remaining,
    write_index,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.memory import without_collections
from s3t_core.ports import Contents, Findings, Target
from s3t_core.records import Row, row_commitment, slice_digest
from s3t_core.slicefile import (
    HELD_OUT_PATH,
    is_slice_file,
    part_path,
    read_rows,
    read_verified,
    subjects_of,
    write_rows,
)
from s3t_core.snapshot import form_digest

_OURS = re.compile(
    rf"{re.escape(HELD_OUT_PATH)}|{re.escape(IDENTITY_PATH)}|shard=\d+/slice=\d+\.parquet|"
    rf"(.*/)?{re.escape(TEMPORARY_PREFIX)}[^/]*"
)
"""Names of files in the data directory, half-written ones among them."""
_AGAIN = (
    "bring the recorded version back with `git checkout data.dvc` and `dvc checkout --force "
    "data.dvc`, then run the command again; an interrupted `s3t ingest` without --append may also "
    "just be run again"
)


@dataclass(frozen=True)
class IndexFound:
    """What the identity index says: subjects that are in the data, and digests of subjects by the
    form of their id."""

    subjects: set[str]
    subjects_by_form: dict[str, set[str]]


class DvcDatasets:
    """The data directory of a workspace and its versions. Fills the port `Datasets`."""

    def __init__(
        self,
        root: Path,
        keys: WorkspaceKeys,
        label_column: str,
        remote: str = "",
        recorded: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        """`remote`: [dvc] remote, wherever DVC's own configuration says that versions are pushed.
        `recorded`: the directories that the ledger tells of as caches, with whether other projects
        share them."""
        self.root = root
        self.repository = DvcRepository(root, remote, recorded)
        self.data = root / "data"
        self._keys = keys
        self._label_column = label_column
        self.quarantine = Quarantine(root / ".s3t", keys.sealing)
        """Rows that were refused."""

    # --- versions

    def describe(
        self,
        topology: Topology,
        folder: Path,
        each: Callable[..., Iterable[SliceVersion]] = map,
        id_rule: tuple[str, ...] = (),
        id_columns: tuple[str, ...] = (),
    ) -> DatasetVersion:
        """The version that `folder` would be: digest, row count and md5 of every file; DVC has not
        named it yet. `each`: `map`, or one that does it in other processes."""
        parts = topology.parts()
        files = [folder / part_path(part) for part in parts]
        described = each(partial(_describe_file, self._keys), files)
        content = dict(zip(parts, described, strict=True))
        return _version_of(
            topology,
            content,
            describe_index(self._keys, folder / IDENTITY_PATH),
            id_rule,
            id_columns,
        )

    def replace(self, folder: Path) -> None:
        """Put the finished `folder`, which lies on the same file system, in place of the data
        directory; the old one is removed beside `folder`, so that a kill in between leaves nothing
        that is not swept. Raises DataError where other files than the system's lie there: they
        would be gone; StorageError."""
        self._check_ours()
        old = folder.with_name(folder.name + ".old")
        try:
            if self.data.exists():
                self.data.rename(old)
            folder.rename(self.data)
        except OSError as error:
            raise StorageError(
                f"could not replace the data directory: {error.strerror}; see that data and .s3t "
                "lie on one file system, neither of them a mount, and that it has space, then "
                "ingest again"
            ) from None
        remove_tree(old)

    def _check_ours(self) -> None:
        if self.data.is_symlink() or (self.data.exists() and not self.data.is_dir()):
            raise DataError(
                "expected data to be a directory, or not there yet, got a link or a file; an "
                "ingest puts a directory of its own in its place: move it elsewhere"
            )
        others = [p for p in self.data.rglob("*") if not self._is_ours(p)]
        if others:
            raise DataError(
                f"expected nothing but the system's own files in data, got {len(others)} other(s), "
                "which an ingest would remove; move them elsewhere"
            )

    def _is_ours(self, path: Path) -> bool:
        """Whether an ingest may remove what lies in the data directory: of a link, what it leads to
        would stay."""
        if path.is_symlink():
            return _OURS.fullmatch(
                path.relative_to(self.data).as_posix()
            ) is not None and self._leads_to_object(path)
        return path.is_dir() or _OURS.fullmatch(path.relative_to(self.data).as_posix()) is not None

    def add(self, dataset: DatasetVersion) -> DatasetVersion:
        """`dvc add data`: the present data directory, which is `dataset`, becomes a version in the
        local cache, named by data.dvc; the version as it is named."""
        content = {_name(k): [v.digest, v.rows] for k, v in dataset.parts().items()}
        with self.repository.opened() as repo:
            repo.add(str(self.data))
        path = self.root / "data.dvc"
        document = yaml.safe_load(path.read_text())
        write_atomically(
            path,
            yaml.safe_dump(
                {**document, "meta": {"s3t": {"content": content}}}, sort_keys=False
            ).encode(),
            SHARED_MODE,
        )
        return replace(dataset, version=document["outs"][0]["md5"])

    def publish(self, dataset: DatasetVersion) -> None:
        """Push to the remote and commit data.dvc. Idempotent. DVC takes a version whose list of
        files is in the remote for one that is there whole: what the remote has lost of it since is
        added here. Raises StorageError where the remote still lacks it, and GuaranteeError, before
        anything is pushed, while data.dvc names another version."""
        self._check_named(dataset)
        wanted = {v.md5 for v in dataset.files()} | {dataset.version}
        with self.repository.opened() as repo:
            repo.push(targets=[str(self.root / "data.dvc")])
            cache, remote = repo.cache.local, repo.cloud.get_remote_odb()
            for md5 in wanted - set(remote.oids_exist(sorted(wanted))):
                remote.add(cache.oid_to_path(md5), cache.fs, md5)
            lacking = wanted - set(remote.oids_exist(sorted(wanted)))
        if lacking:
            raise StorageError(
                f"expected the remote to have the {len(wanted)} objects of the data version after "
                f"the push, got {len(lacking)} missing; check its permissions and free space, then "
                "run the command again"
            )
        commit_files(
            self.root, ["data.dvc"], f"data: version {dataset.version.removesuffix('.dir')[:12]}"
        )

    # --- erasure

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
        self.check_footing()
        match = Matcher(targets)
        counts = {t.request_id: [0, 0, 0, 0] for t in targets}
        tainted: set[str] = set()
        objects: set[str] = set()
        slices: set[SliceId] = set()
        held_out = False
        current = self._recorded_files(history)
        for part, version, path in current:
            hits = match.hits_in(path)
            for request_id, count in hits.items():
                counts[request_id][1 if part == HELD_OUT else 0] += count
            if hits:
                tainted.add(version.digest)
                objects.add(version.md5)
                slices |= {part} if isinstance(part, SliceId) else set()
                held_out = held_out or part == HELD_OUT
        identities = history[-1].identities if history else None
        if identities and holds_any(self._current_file(IDENTITY_PATH, identities), match.subjects):
            objects.add(identities.md5)
        known = {version.md5 for _, version, _ in current} | (
            {identities.md5} if identities else set()
        )
        told = {v.md5 for d in history if d.says_who_as(history[-1]) for v in d.files()}
        stored = self._brought(told - known - destroyed)
        objects |= self._unrecorded(history)
        objects |= {
            d.identities.md5
            for d in history
            if d.identities
            and d.identities.md5 not in known | destroyed
            and _may_hold(stored.get(d.identities.md5), match.subjects)
        }
        named = self._named(history, stored) if by_hash else None
        for version in {
            v.md5: v for d in history for v in d.row_files() if v.md5 not in known | destroyed
        }.values():
            earlier = _earlier_hits(stored.get(version.md5), match, named)
            if (
                earlier is None or earlier
            ):  # what cannot be read, or names people otherwise, may hold a targeted row
                tainted.add(version.digest)
                objects.add(version.md5)
            for request_id, count in (earlier or {}).items():
                counts[request_id][2] += count
        for line in self.quarantine.rows():
            for request_id in match.requests_of(line["subject_digest"], line["record_digest"]):
                counts[request_id][3] += 1
        return Findings(
            frozenset(tainted),
            frozenset(objects),
            frozenset(slices),
            held_out,
            {k: RowCounts(*v) for k, v in counts.items()},
        )

    def _unrecorded(self, history: list[DatasetVersion]) -> set[str]:
        """Data files and indexes of versions that never came to be, which killed ingests left in
        the cache or in a remote: nobody can say whose their rows are. Only where both lie in the
        workspace: in a cache that others share they may be another workspace's."""
        recorded, root = {v.md5 for d in history for v in d.files()}, self.root.resolve()
        places = (
            [
                *self.repository.caches,
                *(p / "files" / "md5" for p in self.repository.local_remotes()),
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

    def _named(self, history: list[DatasetVersion], stored: Mapping[str, Path]) -> set[str]:
        """The subjects (digests) of whom any index tells: the current one, and those that are
        `stored` of earlier versions. One that was lost with a version may be of people whose rows
        are still there."""
        indexes = [
            stored[d.identities.md5] for d in history if d.identities and d.identities.md5 in stored
        ]
        current = history[-1].identities if history else None
        indexes += [self._current_file(IDENTITY_PATH, current)] if current else []
        return {subject for path in indexes for subject in named_in(path)}

    def contents(self, targets: list[Target]) -> Contents:
        """Texts of the targeted rows, in any stored version and in quarantine, and a commitment per
        stored row, by request. Labels are not a person's data."""
        match = Matcher(targets)
        rows = {
            r
            for path in self._stored_files()
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
                found.setdefault(request_id, set()).add(row.text)
        for line in self.quarantine.rows():
            for request_id in match.requests_of(line["subject_digest"], line["record_digest"]):
                found.setdefault(request_id, set()).update(
                    v
                    for k, v in line["values"].items()
                    if isinstance(v, str) and k != self._label_column
                )
        return Contents(sorted_of(found), sorted_of(commitments))

    def erase(
        self, targets: list[Target], history: list[DatasetVersion], destroyed: set[str]
    ) -> DatasetVersion:
        """Rewrite every current file without the targeted rows; the result is the new version.
        `destroyed`: md5 of objects that are destroyed, or are to be next.

        A file that is not the recorded one must be what an earlier run of this erasure made of it,
        which the stored object says: whatever else lies there would become the recorded data.
        Raises GuaranteeError for it, and has changed nothing then.
        """
        match, dataset = Matcher(targets), history[-1]
        content = dataset.parts()
        current = {self.data / name: version for name, version in _files_of(dataset).items()}
        other = {
            path: version for path, version in current.items() if not _is_whole(path, version.md5)
        }
        with (
            self._temporary() as folder,
            self._earlier_files({v.md5 for v in other.values()}) as stored,
        ):
            for path, version in other.items():
                self._check_rewritten(path, stored.get(version.md5), match, folder / "made.parquet")
            for part, version in dataset.parts().items():
                path = self.data / part_path(part)
                if match.hits_in(path):
                    write_rows(
                        path, [r for r in read_rows(path) if not match.one(r.subject, r.record)]
                    )
                if md5_of(path) != version.md5:
                    content[part] = _describe_file(self._keys, path)
            index = self._erased_index(history, destroyed, stored)
        return self.add(
            _version_of(
                Topology(dataset.shards, dataset.slices, 1),
                content,
                index,
                dataset.id_rule,
                dataset.id_columns,
            )
        )

    def _check_rewritten(
        self, path: Path, recorded: Path | None, match: Matcher, made: Path
    ) -> None:
        """That a file is the recorded one without the targeted rows, written to `made` to compare
        them. The index is made again from the recorded one, so that only has to be there. Raises
        GuaranteeError."""
        name = path.relative_to(self.data).as_posix()
        if recorded is not None and name != IDENTITY_PATH:
            write_rows(made, [r for r in read_rows(recorded) if not match.one(r.subject, r.record)])
            recorded = made if _is_whole(path, md5_of(made)) else None
        if recorded is None:
            raise GuaranteeError(
                f"expected {name} of the recorded data version, or what this erasure makes of it, "
                f"got {'another file' if path.exists() else 'none'}; {_AGAIN}"
            )

    def _erased_index(
        self, history: list[DatasetVersion], destroyed: set[str], stored: Mapping[str, Path]
    ) -> SliceVersion | None:
        """The identity index as the erasure leaves it, now that the other files are rewritten; made
        from the recorded one, which is among the `stored` where it does not stand in its place."""
        dataset, path = history[-1], self.data / IDENTITY_PATH
        if dataset.identities is None:
            return None
        rows = [self.data / part_path(part) for part in dataset.parts()]
        self._write_index(path, stored.get(dataset.identities.md5, path), rows, history, destroyed)
        return (
            dataset.identities
            if md5_of(path) == dataset.identities.md5
            else describe_index(self._keys, path)
        )

    def _write_index(
        self,
        target: Path,
        index: Path,
        rows: list[Path],
        history: list[DatasetVersion],
        destroyed: set[str],
    ) -> None:
        """Write to `target` what an erasure leaves of an `index`
        (`s3t_core.identity_index.remaining`): of whom there are `rows`, or whole files of earlier
        versions that are not `destroyed`. The others are those of earlier versions that are, and
        name people as the present one does, as far as they are there. Raises DataError."""
        others = {
            d.identities.md5 for d in history if d.identities and d.says_who_as(history[-1])
        } & destroyed
        there = [p for p in map(self._in_cache, sorted(others)) if _is_whole(p, md5_named(p))]
        write_index(
            target,
            remaining(
                read_index(index),
                map(read_index, there),
                subjects_of(rows),
                self.earlier_subjects(history, destroyed),
            ),
        )

    def preview(
        self, targets: list[Target], dataset: DatasetVersion, folder: Path
    ) -> DatasetVersion:
        """The version that `erase` will make: changed files are written under `folder` only, the
        rest stays in the data directory. Its `version` is still that of `dataset`: DVC names it
        when it is made."""
        match = Matcher(targets)
        content = dataset.parts()
        for part, version in dataset.parts().items():
            rows = self.recorded_rows(dataset, part)
            kept = [r for r in rows if not match.one(r.subject, r.record)]
            if len(kept) < len(rows):
                path = folder / part_path(part)
                write_rows(path, kept)
                content[part] = replace(_describe_file(self._keys, path), md5=version.md5)
        return dataset.with_parts(content)

    def destroy(
        self, objects: Iterable[str], targets: list[Target], live: DatasetVersion | None
    ) -> list[str]:
        """Remove data objects from the cache and every configured remote unless `live` needs them,
        and any slice file in the local cache that holds a targeted row: a crash may have left it
        before the ledger knew it. Nobody can say what is in a damaged Parquet file of the cache: it
        goes from there, whosever it was. Other people's objects in a shared repository are not
        touched."""
        match = Matcher(targets)
        needed = {v.md5 for v in live.files()} | {live.version} if live else set()
        damaged = [
            p
            for p in self.repository.objects()
            if _is_parquet(p) and not _is_whole(p, md5_named(p)) and not is_half_written(p.name)
        ]  # what is still on its way is the sweep's, and the scan's
        unrecorded = {
            md5_named(p)
            for p in set(self.repository.objects()).difference(damaged)
            if (match.hits_in(p) if is_slice_file(p) else is_index(p) and holds_any(p, match.whole))
        }
        doomed = sorted((set(objects) | unrecorded) - needed)
        with self.repository.opened() as repo:
            stores = self.repository.stores_of(repo)
            for store in stores:
                for md5 in doomed if store.fs.protocol == "local" else ():
                    refuse_link(Path(store.oid_to_path(md5)), self.root)
            for path in damaged:
                refuse_link(path, self.root)
                remove_file(path)
            for md5 in doomed:
                for store in stores:
                    with contextlib.suppress(FileNotFoundError):
                        if store.exists(md5):
                            store.delete(md5)
            left = [md5 for md5 in doomed if any(store.exists(md5) for store in stores)]
        if left:
            raise StorageError(
                f"expected {len(doomed)} data objects to be gone from cache and remotes, "
                f"{len(left)} are left; check permissions, then run `s3t erase` again"
            )
        for url in filter(is_bucket, self.repository.remotes()):
            S3Blobs(url).check_gone(map(object_name, doomed))
        return doomed

    def put_back(
        self, history: list[DatasetVersion], erased: list[Target], destroyed: set[str]
    ) -> bool:
        """Bring the recorded version (the last of `history`) back where files of an earlier one
        stand in the data directory, objects of it are lost, or data.dvc names another: from the
        files themselves without the rows of the `erased`, which gives the same bytes, else from
        cache or remote. `destroyed`: md5 of objects that were destroyed, which may be back. Whether
        it was done. Files that nobody recorded are left alone: they may be a new snapshot, and
        `find` refuses them. Raises StorageError, and has changed nothing then, where a file of the
        recorded version can be had nowhere."""
        self.check_footing()
        dataset = history[-1]
        files = _files_of(dataset)
        paths = {self.data / name: version for name, version in files.items()}
        whole, objects = _is_version(self.data, paths), {v.md5 for v in paths.values()}
        is_named = self.repository.pointed_to() == dataset.version
        if whole and is_named and self._stored_everywhere(objects | {dataset.version}):
            return False
        if not whole:
            if not self._is_earlier(set(paths), history):
                return False
            with (
                self._temporary() as folder,
                self._earlier_files(
                    {v.md5 for v in self._rebuild(files, Matcher(erased), folder)}
                ) as stored,
            ):
                sources = {
                    name: self._source(name, version, folder, stored)
                    for name, version in files.items()
                }
                if IDENTITY_PATH in sources and sources[IDENTITY_PATH] is None:
                    sources[IDENTITY_PATH] = self._rebuilt_index(
                        sources, folder, history, destroyed
                    )
                lost = sum(source is None for source in sources.values())
                if lost:
                    raise StorageError(
                        f"expected the {len(files)} files of the recorded data version in the data "
                        f"directory, in the cache or in a remote, got {lost} of them nowhere; "
                        "nothing was changed: ingest the source again, without those who were "
                        "erased since"
                    )
                for name, source in sources.items():
                    if source and source != self.data / name:
                        write_atomically(self.data / name, source.read_bytes())
        if self.repository.pointed_to() is None:
            remove_file(self.root / "data.dvc")
        found = self.add(dataset)
        if found.version != dataset.version or not _is_version(self.data, paths):
            raise StorageError(
                "expected the recorded data version back in the data directory, got another; "
                "ingest the source again, without those who were erased since"
            )
        self.publish(dataset)
        return True

    def _rebuild(
        self, files: dict[str, SliceVersion], match: Matcher, folder: Path
    ) -> list[SliceVersion]:
        """Write to `folder` those of the recorded files of rows that the data directory's, without
        the erased, are equal to; the recorded files, the index among them, that neither are."""
        lacking = []
        for name, version in files.items():
            path, made = self.data / name, folder / name
            if not _is_whole(path, version.md5):
                if name != IDENTITY_PATH:
                    with contextlib.suppress(DataError):  # a file of another kind: it is lacking
                        write_rows(
                            made, [r for r in read_rows(path) if not match.one(r.subject, r.record)]
                        )
                if not _is_whole(made, version.md5):
                    lacking.append(version)
                    made.unlink(missing_ok=True)
        return lacking

    def _rebuilt_index(
        self,
        sources: Mapping[str, Path | None],
        folder: Path,
        history: list[DatasetVersion],
        destroyed: set[str],
    ) -> Path | None:
        """The recorded index, written to `folder` as the erasures since left it, or None where it
        is another."""
        rows = [path for name, path in sources.items() if path and name != IDENTITY_PATH]
        recorded, made = history[-1].identities, folder / IDENTITY_PATH
        with contextlib.suppress(DataError):  # of a file of another kind
            self._write_index(made, self.data / IDENTITY_PATH, rows, history, destroyed)
        return made if recorded and _is_whole(made, recorded.md5) else None

    def _source(
        self, name: str, version: SliceVersion, folder: Path, stored: dict[str, Path]
    ) -> Path | None:
        """Where a recorded file is to be had from: as it is, as it was written to `folder`, or as
        it is stored."""
        return next(
            (
                p
                for p in (self.data / name, folder / name, stored.get(version.md5))
                if p and _is_whole(p, version.md5)
            ),
            None,
        )

    def _is_earlier(self, paths: set[Path], history: list[DatasetVersion]) -> bool:
        known = {f.md5 for version in history for f in version.files()}
        return {p for p in self.data.rglob("*") if p.is_file()} == paths and all(
            not p.is_symlink() and _md5_of(p) in known for p in paths
        )

    def _stored_everywhere(self, objects: set[str]) -> bool:
        with self.repository.opened() as repo:
            return all(
                set(store.oids_exist(sorted(objects))) == objects
                for store in (repo.cache.local, repo.cloud.get_remote_odb())
            )

    def erase_quarantine(self, targets: list[Target], forms: Collection[str] = ()) -> int:
        """See Quarantine.erase."""
        return self.quarantine.erase(targets, forms)

    def recorded_rows(self, dataset: DatasetVersion, part: Part) -> list[Row]:
        """Rows of a current slice, or the held-out ones, checked against the recorded digest."""
        version = dataset.parts()[part]
        return read_verified(self.data / part_path(part), self._keys, version.digest)

    def recorded_row_files(self, history: list[DatasetVersion]) -> list[Path]:
        """The files of the current data that hold rows. Raises GuaranteeError for one that is not
        the recorded."""
        return [path for _, _, path in self._recorded_files(history)]

    def earlier_subjects(self, history: list[DatasetVersion], destroyed: set[str]) -> set[str]:
        """Of whom (digests) stored earlier versions have rows that tell whose they are as the
        current one's do."""
        wanted = {
            v.md5 for d in history[:-1] if d.says_who_as(history[-1]) for v in d.row_files()
        } - destroyed
        with self._earlier_files(wanted) as found:
            return subjects_of(found.values())

    def recorded_index(self, dataset: DatasetVersion) -> Any:
        """The identity index of the current data. Raises DataError where there is none yet,
        GuaranteeError for another one than the recorded."""
        return read_index(next(self._indexes([dataset], set())))

    def check_recorded(self, history: list[DatasetVersion]) -> None:
        """Raises GuaranteeError unless data directory and data.dvc are the recorded version, the
        last of `history`."""
        self._recorded_files(history)
        if history:
            self._check_named(history[-1])

    def _check_named(self, dataset: DatasetVersion) -> None:
        named = self.repository.pointed_to()
        if named != dataset.version:
            raise GuaranteeError(
                "expected data.dvc to name the recorded data version, got "
                f"{'no version' if named is None else 'another one'}; {_AGAIN}"
            )

    def _recorded_files(
        self, history: list[DatasetVersion]
    ) -> list[tuple[Part, SliceVersion, Path]]:
        """The current version's files, each the recorded one. Raises GuaranteeError."""
        if not history:
            if any(self.data.rglob("*.parquet")):
                raise GuaranteeError(
                    "expected no data before the first recorded ingest, got files of one that was "
                    "interrupted; run that `s3t ingest` again, then the command"
                )
            return []
        return [
            (part, version, self._current_file(part_path(part), version))
            for part, version in history[-1].parts().items()
        ]

    def _current_file(self, name: str, version: SliceVersion) -> Path:
        path = self.data / name
        if not self._leads_to_object(path):
            refuse_link(path, self.data)
        if _is_whole(path, version.md5):
            return path
        raise GuaranteeError(
            f"expected {name} of the recorded data version, got "
            f"{'another file' if path.exists() else 'none'}; {_AGAIN}"
        )

    def _leads_to_object(self, link: Path) -> bool:
        """Whether a link leads to an object of the cache's, which is a file itself."""
        found = Path(os.path.realpath(link))
        there = [cache / found.parent.name / found.name for cache in self.repository.caches]
        return leads_to_object(link) and any(
            not path.is_symlink() and os.path.realpath(path) == str(found) for path in there
        )

    def check_footing(self) -> None:
        """Look at what the workspace keeps, and at the cache and its own remotes wherever they are.
        Raises GuaranteeError where a link or a pipe lies in the place of a file."""
        check_footing(self.root)
        check_objects(
            self.root,
            [
                *self.repository.caches,
                *(p / "files" / "md5" for p in self.repository.local_remotes()),
            ],
        )

    @contextlib.contextmanager
    def _earlier_files(self, objects: Iterable[str]) -> Iterator[dict[str, Path]]:
        """Stored files of earlier versions by their md5, compared with it: those of the cache, and
        for what is not there, or not whole, those of the remotes, brought to the workspace's
        temporary directory until the block ends. One that is whole nowhere is not among them.
        Raises StorageError."""
        wanted = sorted(set(objects))
        found = {md5: self._in_cache(md5) for md5 in wanted if _is_whole(self._in_cache(md5), md5)}
        lacking = [md5 for md5 in wanted if md5 not in found]
        if not lacking:
            yield found
            return
        with self._temporary() as folder:
            yield found | self._fetched(lacking, folder)

    def _fetched(self, objects: list[str], folder: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        with self.repository.opened() as repo:
            for store in self.repository.stores_of(repo)[1:]:
                for md5 in (m for m in objects if m not in found):
                    with contextlib.suppress(FileNotFoundError):
                        store.fs.get_file(store.oid_to_path(md5), str(folder / md5))
                    if _is_whole(folder / md5, md5):
                        found[md5] = folder / md5
        return found

    def _brought(self, objects: Iterable[str]) -> dict[str, Path]:
        """The same, each put into the cache where a whole one was not there. The caller holds the
        workspace: what is destroyed meanwhile would be back."""
        with self._earlier_files(objects) as found:
            for md5, path in found.items():
                if path != self._in_cache(md5):
                    write_atomically(self._in_cache(md5), path.read_bytes(), OBJECT_MODE)
            return {md5: self._in_cache(md5) for md5 in found}

    def _in_cache(self, md5: str) -> Path:
        return self.repository.cache / md5[:2] / md5[2:]

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A directory of its own, for its owner only, where a sweep removes what a killed process
        left."""
        place = self.root / ".s3t" / "tmp"
        try:
            place.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(
                dir=place, prefix="data-", ignore_cleanup_errors=True
            )
        except OSError as error:
            raise StorageError(
                f"could not make a directory in .s3t/tmp: {error.strerror}; see to its permissions "
                "and to free space, then run the command again"
            ) from None
        with folder as name:
            yield Path(name)

    def look_up(
        self,
        history: list[DatasetVersion],
        destroyed: set[str],
        subjects: set[str],
        forms: set[str],
        earlier: bool = False,
    ) -> "IndexFound":
        """Which of the subjects (digests) the data has rows of, and whose ids have which of the
        forms; where a subject is not in it, or always with `earlier`, also in the stored earlier
        versions. Raises DataError where no index says so, GuaranteeError for an index that is not
        the recorded one."""
        known: set[str] = set()
        by_form: dict[str, set[str]] = {}
        for path in self._indexes(history, destroyed):
            for subject, form in matching(path, subjects, forms):
                known |= {subject} & subjects
                if form in forms:
                    by_form.setdefault(form, set()).add(subject)
            if subjects <= known and not earlier:
                break
        return IndexFound(known, by_form)

    def resolve(
        self, forms: Mapping[str, Sequence[str]], history: list[DatasetVersion], destroyed: set[str]
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """Whose ids have forms of the identity index, by request, with what keeps them out under
        other spellings. Raises DataError or GuaranteeError where no index tells."""
        wanted = {form for each in forms.values() for form in each}
        if not wanted:
            return {}
        kept = [(line["subject_digest"], set(line["forms"])) for line in self.quarantine.rows()]
        having = self.look_up(history, destroyed, set(), wanted, earlier=True).subjects_by_form
        for subject, known in kept:
            for form in known & wanted:
                having.setdefault(form, set()).add(subject)
        meant = {
            request: next((having[f] for f in each if f in having), set())
            for request, each in forms.items()
        }
        subjects = {s for each in meant.values() for s in each}
        of: dict[str, set[str]] = {s: set() for s in subjects}
        for path in self._indexes(history, destroyed):
            for subject, form in matching(path, subjects, ()):
                of[subject].add(form)
        for subject, known in kept:
            if subject in of:
                of[subject] |= known
        return {
            request: {s: tuple(sorted(form_digest(self._keys, f) for f in of[s])) for s in each}
            for request, each in meant.items()
        }

    def _indexes(self, history: list[DatasetVersion], destroyed: set[str]) -> Iterator[Path]:
        """The index of the current data, which must be the recorded one, and those of earlier
        versions, each whole: one that nobody can read might have named anybody. Raises DataError,
        GuaranteeError."""
        known: set[str] = set()
        for dataset in history[-1:]:
            if dataset.identities is None:
                raise DataError(
                    "expected an index of who is in the data, got data from before there was one; "
                    "ingest the source again"
                )
            yield self._current_file(IDENTITY_PATH, dataset.identities)
            known = {dataset.identities.md5}
        for md5 in sorted(
            {d.identities.md5 for d in history[:-1] if d.identities} - destroyed - known
        ):
            try:
                with self._earlier_files([md5]) as found:
                    if md5 not in found:
                        raise DataError(
                            "expected the index of who was in an earlier data version, got none "
                            "that is whole, neither in the cache nor in a remote, so nobody can "
                            f"say whether somebody was in it; bring {object_name(md5)} back from a "
                            "backup of either, or ask by the id itself: that erasure destroys what "
                            "cannot be read"
                        )
                    yield found[md5]
            except StorageError as error:
                raise DataError(
                    "expected the index of who was in an earlier data version, got none in the "
                    f"cache and no answer from a remote: {error}"
                ) from error

    def object_of(self, path: Path) -> str:
        """The name of a data file's object in a remote, as DVC 3 lays them out."""
        return object_name(md5_of(path))

    def _stored_files(self) -> Iterator[Path]:
        """Every slice file there is, one of each content: a version's files lie in the data
        directory and the cache. One in the cache that is not what its name says is nobody's rows:
        `find` brought back what it should be, and `destroy` removes it."""
        seen: set[str] = set()
        for path in (
            p
            for p in self.data.rglob("*.parquet")
            if p != self.data / IDENTITY_PATH and p.is_file()
        ):
            md5 = md5_of(path)
            if md5 not in seen:
                seen.add(md5)
                yield path
        for path in filter(is_slice_file, self.repository.objects()):
            if md5_named(path) not in seen and _is_whole(path, md5_named(path)):
                yield path


def _md5_of(path: Path) -> str | None:
    """Its md5, None where there is no file that can be read."""
    try:
        return md5_of(path)
    except OSError:
        return None


def _is_whole(path: Path, md5: str) -> bool:
    """Whether a file is there, can be read, and has this md5."""
    return _md5_of(path) == md5


def _is_parquet(path: Path) -> bool:
    """Whether a file begins or ends as Parquet files do, whatever is between."""
    try:
        with open_regular(path) as file:
            begin = file.read(4)
            file.seek(max(0, file.seek(0, io.SEEK_END) - 4))
            return b"PAR1" in (begin, file.read(4))
    except OSError:
        return False


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


def _files_of(dataset: DatasetVersion) -> dict[str, SliceVersion]:
    """Every file by its name."""
    found = {part_path(part): version for part, version in dataset.parts().items()}
    return found | ({IDENTITY_PATH: dataset.identities} if dataset.identities else {})


def _version_of(
    topology: Topology,
    content: Mapping[Part, SliceVersion],
    identities: SliceVersion | None,
    id_rule: tuple[str, ...],
    id_columns: tuple[str, ...],
) -> DatasetVersion:
    return DatasetVersion(
        "",
        topology.shards,
        topology.slices,
        slices_of(content),
        content[HELD_OUT],
        identities,
        id_rule,
        id_columns,
    )


def _describe_file(keys: WorkspaceKeys, path: Path) -> SliceVersion:
    with without_collections():
        rows = read_rows(path)
        return SliceVersion(slice_digest(keys, rows), len(rows), md5_of(path))


def _is_version(data: Path, paths: dict[Path, SliceVersion]) -> bool:
    """Whether exactly these files are there, each the recorded one."""
    there = {p for p in data.rglob("*") if p.is_file()}
    return there == set(paths) and all(_is_whole(p, v.md5) for p, v in paths.items())


def _name(part: Part) -> str:
    return f"{part.shard}/{part.index}" if isinstance(part, SliceId) else "held_out"
