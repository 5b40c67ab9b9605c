"""Versions of the data: made from a finished directory, named by `data.dvc`, pushed."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from flows.adapters.datasets.stored import (
    StoredFiles,
    describe_file,
    version_of,
)
from flows.adapters.dvc_repository import (
    commit_files,
    object_name,
)
from s3t_core.domain import (
    DatasetVersion,
    Part,
    SliceId,
    SliceVersion,
    Topology,
)
from s3t_core.errors import DataError, StorageError
from s3t_core.files import (
    SHARED_MODE,
    TEMPORARY_PREFIX,
    md5_of,
    remove_file,
    remove_tree,
    write_atomically,
)
from s3t_core.identity_index import (
    IDENTITY_PATH,
    describe_index,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.records import Row
from s3t_core.slicefile import (
    HELD_OUT_PATH,
    part_path,
    read_verified,
)

_OURS = re.compile(
    rf"{re.escape(HELD_OUT_PATH)}|{re.escape(IDENTITY_PATH)}|shard=\d+/slice=\d+\.parquet|"
    rf"(.*/)?{re.escape(TEMPORARY_PREFIX)}[^/]*"
)
"""Names of files in the data directory, half-written ones among them."""


class DataVersions:
    """Makes versions."""

    def __init__(self, files: StoredFiles, keys: WorkspaceKeys) -> None:
        self._files = files
        self._keys = keys

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
        described = each(partial(describe_file, self._keys), files)
        content = dict(zip(parts, described, strict=True))
        return version_of(
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
            if self._files.data.exists():
                self._files.data.rename(old)
            folder.rename(self._files.data)
        except OSError as error:
            raise StorageError(
                f"could not replace the data directory: {error.strerror}; see that data and .s3t "
                "lie on one file system, neither of them a mount, and that it has space, then "
                "ingest again"
            ) from None
        remove_tree(old)

    def _check_ours(self) -> None:
        if self._files.data.is_symlink() or (
            self._files.data.exists() and not self._files.data.is_dir()
        ):
            raise DataError(
                "expected data to be a directory, or not there yet, got a link or a file; an "
                "ingest puts a directory of its own in its place: move it elsewhere"
            )
        others = [p for p in self._files.data.rglob("*") if not self._is_ours(p)]
        if others:
            raise DataError(
                f"expected nothing but the system's own files in data, got {len(others)} other(s), "
                "which an ingest would remove; move them elsewhere"
            )

    def _is_ours(self, path: Path) -> bool:
        """Whether an ingest may remove what lies in the data directory: of a link, what it leads to
        would stay."""
        is_named = _OURS.fullmatch(path.relative_to(self._files.data).as_posix()) is not None
        if path.is_symlink():
            return is_named and self._files.leads_to_object(path)
        return path.is_dir() or is_named

    def add(self, dataset: DatasetVersion) -> DatasetVersion:
        """`dvc add data`: the present data directory, which is `dataset`, becomes a version in the
        local cache, named by data.dvc; the version as it is named."""
        content = {_name(k): [v.digest, v.rows] for k, v in dataset.parts().items()}
        with self._files.repository.opened() as repo:
            repo.add(str(self._files.data))
        path = self._files.root / "data.dvc"
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
        files is in the remote for one that is there whole, and a file for the object that it is
        called: what the remote has lost of it since, or has in part because a push was killed, is
        added here. Raises StorageError where the remote still lacks it, and GuaranteeError, before
        anything is pushed, while data.dvc names another version."""
        self._files.check_named(dataset)
        wanted = {v.md5 for v in dataset.files()} | {dataset.version}
        with self._files.repository.opened() as repo:
            cache, remote = repo.cache.local, repo.cloud.get_remote_odb()
            _remove_cut(remote, cache, wanted)
            repo.push(targets=[str(self._files.root / "data.dvc")])
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
            self._files.root,
            ["data.dvc"],
            f"data: version {dataset.version.removesuffix('.dir')[:12]}",
        )

    def recorded_rows(self, dataset: DatasetVersion, part: Part) -> list[Row]:
        """Rows of a current slice, or the held-out ones, checked against the recorded digest."""
        version = dataset.parts()[part]
        return read_verified(self._files.data / part_path(part), self._keys, version.digest)

    def object_of(self, path: Path) -> str:
        """The name of a data file's object in a remote, as DVC 3 lays them out."""
        return object_name(md5_of(path))


def _remove_cut(remote: Any, cache: Any, wanted: Iterable[str]) -> None:
    """Remove objects of a directory that have not the size that they have in the cache: DVC makes
    the empty file first when it copies, and who is killed then leaves it. In a bucket an object is
    whole or not there."""
    if remote.fs.protocol != "local":
        return
    for md5 in wanted:
        there, here = Path(remote.oid_to_path(md5)), Path(cache.oid_to_path(md5))
        if there.exists() and here.exists() and there.stat().st_size != here.stat().st_size:
            remove_file(there)


def _name(part: Part) -> str:
    return f"{part.shard}/{part.index}" if isinstance(part, SliceId) else "held_out"
