"""The data without some people's rows: rewritten in its place, or beside it as it will be."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flows.adapters.datasets.people import IdentityIndexes
from flows.adapters.datasets.stored import (
    AGAIN,
    StoredFiles,
    describe_file,
    files_of,
    is_whole,
    version_of,
)
from flows.adapters.datasets.versions import DataVersions
from flows.adapters.dvc_repository import (
    md5_named,
)
from flows.adapters.matching import Matcher
from s3t_core.domain import (
    DatasetVersion,
    SliceVersion,
    Topology,
)
from s3t_core.errors import GuaranteeError
from s3t_core.files import (
    md5_of,
)
from s3t_core.identity_index import (
    IDENTITY_PATH,
    describe_index,
    read_index,
    remaining,
    write_index,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.ports import Target
from s3t_core.slicefile import (
    part_path,
    read_rows,
    subjects_of,
    write_rows,
)


class Rewriting:
    """Rewrites files and the identity index."""

    def __init__(
        self,
        files: StoredFiles,
        keys: WorkspaceKeys,
        versions: DataVersions,
        people: IdentityIndexes,
    ) -> None:
        self._files = files
        self._keys = keys
        self._versions = versions
        self._people = people

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
        current = {self._files.data / name: version for name, version in files_of(dataset).items()}
        other = {
            path: version for path, version in current.items() if not is_whole(path, version.md5)
        }
        with (
            self._files.temporary() as folder,
            self._files.earlier({v.md5 for v in other.values()}) as stored,
        ):
            for path, version in other.items():
                self._check_rewritten(path, stored.get(version.md5), match, folder / "made.parquet")
            for part, version in dataset.parts().items():
                path = self._files.data / part_path(part)
                if match.hits_in(path):
                    write_rows(
                        path, [r for r in read_rows(path) if not match.one(r.subject, r.record)]
                    )
                if md5_of(path) != version.md5:
                    content[part] = describe_file(self._keys, path)
            index = self._erased_index(history, destroyed, stored)
        return self._versions.add(
            version_of(
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
        name = path.relative_to(self._files.data).as_posix()
        if recorded is not None and name != IDENTITY_PATH:
            write_rows(made, [r for r in read_rows(recorded) if not match.one(r.subject, r.record)])
            recorded = made if is_whole(path, md5_of(made)) else None
        if recorded is None:
            raise GuaranteeError(
                f"expected {name} of the recorded data version, or what this erasure makes of it, "
                f"got {'another file' if path.exists() else 'none'}; {AGAIN}"
            )

    def _erased_index(
        self, history: list[DatasetVersion], destroyed: set[str], stored: Mapping[str, Path]
    ) -> SliceVersion | None:
        """The identity index as the erasure leaves it, now that the other files are rewritten; made
        from the recorded one, which is among the `stored` where it does not stand in its place."""
        dataset, path = history[-1], self._files.data / IDENTITY_PATH
        if dataset.identities is None:
            return None
        rows = [self._files.data / part_path(part) for part in dataset.parts()]
        self.write_index(path, stored.get(dataset.identities.md5, path), rows, history, destroyed)
        return (
            dataset.identities
            if md5_of(path) == dataset.identities.md5
            else describe_index(self._keys, path)
        )

    def write_index(
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
        there = [p for p in map(self._files.in_cache, sorted(others)) if is_whole(p, md5_named(p))]
        write_index(
            target,
            remaining(
                read_index(index),
                map(read_index, there),
                subjects_of(rows),
                self._people.earlier_subjects(history, destroyed),
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
            rows = self._versions.recorded_rows(dataset, part)
            kept = [r for r in rows if not match.one(r.subject, r.record)]
            if len(kept) < len(rows):
                path = folder / part_path(part)
                write_rows(path, kept)
                content[part] = replace(describe_file(self._keys, path), md5=version.md5)
        return dataset.with_parts(content)
