"""The files of data versions: in the data directory, in DVC's cache, in its remotes; which of them
are whole, and what they are."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from flows.adapters.dvc_repository import (
    OBJECT_MODE,
    DvcRepository,
    md5_named,
)
from flows.adapters.footing import check_directory, check_footing, leads_to_object, refuse_link
from s3t_core.domain import (
    HELD_OUT,
    DatasetVersion,
    Part,
    SliceVersion,
    Topology,
    slices_of,
)
from s3t_core.errors import GuaranteeError, StorageError
from s3t_core.files import (
    md5_of,
    open_regular,
    write_atomically,
)
from s3t_core.identity_index import (
    IDENTITY_PATH,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.memory import without_collections
from s3t_core.records import slice_digest
from s3t_core.slicefile import (
    is_slice_file,
    part_path,
    read_rows,
)

AGAIN = (
    "bring the recorded version back with `git checkout data.dvc` and `dvc checkout --force "
    "data.dvc`, then run the command again; an interrupted `s3t ingest` without --append may also "
    "just be run again"
)


class StoredFiles:
    """Where the files of one workspace's data versions lie."""

    def __init__(self, root: Path, repository: DvcRepository) -> None:
        self.root = root
        self.repository = repository
        self.data = root / "data"

    def recorded(self, history: list[DatasetVersion]) -> list[tuple[Part, SliceVersion, Path]]:
        """The current version's files, each the recorded one. Raises GuaranteeError."""
        if not history:
            if any(self.data.rglob("*.parquet")):
                raise GuaranteeError(
                    "expected no data before the first recorded ingest, got files of one that was "
                    "interrupted; run that `s3t ingest` again, then the command"
                )
            return []
        return [
            (part, version, self.current(part_path(part), version))
            for part, version in history[-1].parts().items()
        ]

    def current(self, name: str, version: SliceVersion) -> Path:
        """A file of the data directory, which must be the recorded one. Raises GuaranteeError."""
        path = self.data / name
        if not self.leads_to_object(path):
            refuse_link(path, self.data)
        if is_whole(path, version.md5):
            return path
        raise GuaranteeError(
            f"expected {name} of the recorded data version, got "
            f"{'another file' if path.exists() else 'none'}; {AGAIN}"
        )

    def check_named(self, dataset: DatasetVersion) -> None:
        """Raises GuaranteeError unless data.dvc names this version."""
        named = self.repository.pointed_to()
        if named != dataset.version:
            raise GuaranteeError(
                "expected data.dvc to name the recorded data version, got "
                f"{'no version' if named is None else 'another one'}; {AGAIN}"
            )

    def leads_to_object(self, link: Path) -> bool:
        """Whether a link leads to an object of the cache's, which is a file itself."""
        found = Path(os.path.realpath(link))
        there = [cache / found.parent.name / found.name for cache in self.repository.caches]
        return leads_to_object(link) and any(
            not path.is_symlink() and os.path.realpath(path) == str(found) for path in there
        )

    def check_footing(self) -> None:
        """Look at what the workspace keeps, and at caches and remotes wherever they are.
        Raises GuaranteeError where a link, a mount or a pipe lies in the place of a file or a
        directory."""
        caches = [cache.parents[1] for cache in self.repository.caches]
        urls = [url for url in self.repository.remotes() if "://" not in url]
        check_footing(self.root, of_dvc=[*caches, *(self.root / url for url in urls)])

    @contextlib.contextmanager
    def earlier(self, objects: Iterable[str]) -> Iterator[dict[str, Path]]:
        """Stored files of earlier versions by their md5, compared with it: those of the cache, and
        for what is not there, or not whole, those of the remotes, brought to the workspace's
        temporary directory until the block ends. One that is whole nowhere is not among them.
        Raises StorageError."""
        wanted = sorted(set(objects))
        found = {md5: self.in_cache(md5) for md5 in wanted if is_whole(self.in_cache(md5), md5)}
        lacking = [md5 for md5 in wanted if md5 not in found]
        if not lacking:
            yield found
            return
        check_directory(self.root, "tmp")  # who asks may not hold the workspace yet
        with self.temporary() as folder:
            yield found | self._fetched(lacking, folder)

    def _fetched(self, objects: list[str], folder: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        with self.repository.opened() as repo:
            for store in self.repository.stores_of(repo)[1:]:
                for md5 in (m for m in objects if m not in found):
                    with contextlib.suppress(FileNotFoundError):
                        store.fs.get_file(store.oid_to_path(md5), str(folder / md5))
                    if is_whole(folder / md5, md5):
                        found[md5] = folder / md5
        return found

    def brought(self, objects: Iterable[str]) -> dict[str, Path]:
        """The same, each put into the cache where a whole one was not there. The caller holds the
        workspace: what is destroyed meanwhile would be back."""
        with self.earlier(objects) as found:
            for md5, path in found.items():
                if path != self.in_cache(md5):
                    write_atomically(self.in_cache(md5), path.read_bytes(), OBJECT_MODE)
            return {md5: self.in_cache(md5) for md5 in found}

    def in_cache(self, md5: str) -> Path:
        """Where DVC's cache has an object of this md5, or would have it."""
        return self.repository.cache / md5[:2] / md5[2:]

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
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

    def with_rows(self) -> Iterator[Path]:
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
            if md5_named(path) not in seen and is_whole(path, md5_named(path)):
                yield path

    def check_recorded(self, history: list[DatasetVersion]) -> None:
        """Raises GuaranteeError unless data directory and data.dvc are the recorded version, the
        last of `history`."""
        self.recorded(history)
        if history:
            self.check_named(history[-1])

    def recorded_row_files(self, history: list[DatasetVersion]) -> list[Path]:
        """The files of the current data that hold rows. Raises GuaranteeError for one that is not
        the recorded."""
        return [path for _, _, path in self.recorded(history)]


def md5_or_none(path: Path) -> str | None:
    """Its md5, None where there is no file that can be read."""
    try:
        return md5_of(path)
    except OSError:
        return None


def is_whole(path: Path, md5: str) -> bool:
    """Whether a file is there, can be read, and has this md5."""
    return md5_or_none(path) == md5


def is_parquet(path: Path) -> bool:
    """Whether a file begins or ends as Parquet files do, whatever is between."""
    try:
        with open_regular(path) as file:
            begin = file.read(4)
            file.seek(max(0, file.seek(0, io.SEEK_END) - 4))
            return b"PAR1" in (begin, file.read(4))
    except OSError:
        return False


def files_of(dataset: DatasetVersion) -> dict[str, SliceVersion]:
    """Every file by its name."""
    found = {part_path(part): version for part, version in dataset.parts().items()}
    return found | ({IDENTITY_PATH: dataset.identities} if dataset.identities else {})


def version_of(
    topology: Topology,
    content: Mapping[Part, SliceVersion],
    identities: SliceVersion | None,
    id_rule: tuple[str, ...],
    id_columns: tuple[str, ...],
) -> DatasetVersion:
    """The version of these files, which DVC has not named yet."""
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


def describe_file(keys: WorkspaceKeys, path: Path) -> SliceVersion:
    """Digest of the rows, their number, and md5 of a file of rows. Raises DataError."""
    with without_collections():
        rows = read_rows(path)
        return SliceVersion(slice_digest(keys, rows), len(rows), md5_of(path))


def is_version(data: Path, paths: dict[Path, SliceVersion]) -> bool:
    """Whether exactly these files are there, each the recorded one."""
    there = {p for p in data.rglob("*") if p.is_file()}
    return there == set(paths) and all(is_whole(p, v.md5) for p, v in paths.items())
