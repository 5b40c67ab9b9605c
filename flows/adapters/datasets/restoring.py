"""The recorded version put back where a restore, or a kill, left another one."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from flows.adapters.datasets.rewriting import Rewriting
from flows.adapters.datasets.stored import (
    StoredFiles,
    files_of,
    is_version,
    is_whole,
    md5_or_none,
)
from flows.adapters.datasets.versions import DataVersions
from flows.adapters.matching import Matcher
from s3t_core.domain import (
    DatasetVersion,
    SliceVersion,
)
from s3t_core.errors import DataError, StorageError
from s3t_core.files import (
    remove_file,
    write_atomically,
)
from s3t_core.identity_index import (
    IDENTITY_PATH,
)
from s3t_core.ports import Target
from s3t_core.slicefile import (
    read_rows,
    write_rows,
)


class Restoring:
    """Puts the recorded version back."""

    def __init__(self, files: StoredFiles, versions: DataVersions, rewriting: Rewriting) -> None:
        self._files = files
        self._versions = versions
        self._rewriting = rewriting

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
        self._files.check_footing()
        dataset = history[-1]
        files = files_of(dataset)
        paths = {self._files.data / name: version for name, version in files.items()}
        whole, objects = is_version(self._files.data, paths), {v.md5 for v in paths.values()}
        is_named = self._files.repository.pointed_to() == dataset.version
        if whole and is_named and self._stored_everywhere(objects | {dataset.version}):
            return False
        if not whole:
            if not self._is_earlier(set(paths), history):
                return False
            with (
                self._files.temporary() as folder,
                self._files.earlier(
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
                    if source and source != self._files.data / name:
                        write_atomically(self._files.data / name, source.read_bytes())
        if self._files.repository.pointed_to() is None:
            remove_file(self._files.root / "data.dvc")
        found = self._versions.add(dataset)
        if found.version != dataset.version or not is_version(self._files.data, paths):
            raise StorageError(
                "expected the recorded data version back in the data directory, got another; "
                "ingest the source again, without those who were erased since"
            )
        self._versions.publish(dataset)
        return True

    def _rebuild(
        self, files: dict[str, SliceVersion], match: Matcher, folder: Path
    ) -> list[SliceVersion]:
        """Write to `folder` those of the recorded files of rows that the data directory's, without
        the erased, are equal to; the recorded files, the index among them, that neither are."""
        lacking = []
        for name, version in files.items():
            path, made = self._files.data / name, folder / name
            if not is_whole(path, version.md5):
                if name != IDENTITY_PATH:
                    with contextlib.suppress(DataError):  # a file of another kind: it is lacking
                        write_rows(
                            made, [r for r in read_rows(path) if not match.one(r.subject, r.record)]
                        )
                if not is_whole(made, version.md5):
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
            self._rewriting.write_index(
                made, self._files.data / IDENTITY_PATH, rows, history, destroyed
            )
        return made if recorded and is_whole(made, recorded.md5) else None

    def _source(
        self, name: str, version: SliceVersion, folder: Path, stored: dict[str, Path]
    ) -> Path | None:
        """Where a recorded file is to be had from: as it is, as it was written to `folder`, or as
        it is stored."""
        return next(
            (
                p
                for p in (self._files.data / name, folder / name, stored.get(version.md5))
                if p and is_whole(p, version.md5)
            ),
            None,
        )

    def _is_earlier(self, paths: set[Path], history: list[DatasetVersion]) -> bool:
        known = {f.md5 for version in history for f in version.files()}
        return {p for p in self._files.data.rglob("*") if p.is_file()} == paths and all(
            not p.is_symlink() and md5_or_none(p) in known for p in paths
        )

    def _stored_everywhere(self, objects: set[str]) -> bool:
        with self._files.repository.opened() as repo:
            return all(
                set(store.oids_exist(sorted(objects))) == objects
                for store in (repo.cache.local, repo.cloud.get_remote_odb())
            )
