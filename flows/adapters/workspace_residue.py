"""The scan of a workspace, its stores and its buckets for what is left of whoever was erased."""

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from flows.adapters.git import git_objects
from flows.adapters.permissions import as_owner_only
from s3t_core.erasure.needles import NeedleSet, is_among, make_needles
from s3t_core.erasure.residue import scan
from s3t_core.files import (
    is_written,
    open_files,
)
from s3t_core.keys import keyed_digest
from s3t_core.ports import ScanReport, Target

SYSTEM_PATHS = (
    ".s3t",
    ".dvc",
    ".git",
    ".dvcignore",
    ".gitignore",
    "data",
    "data.dvc",
    "s3t.toml",
)
"""What the system itself writes under a workspace; anything else there is the operator's."""


class Scope(Protocol):
    """What a scan must know (flows.adapters.scan_scope)."""

    def check_away(self) -> None:
        """Raises ResidueFound where rows may lie on another machine."""

    def needle_files(self) -> list[Path]:
        """The files of what is being erased, which are left out."""

    def kept(self) -> Iterable[tuple[str, str]]:
        """The rows of people who stay: subject (digest) and text of each."""

    def known(self) -> Callable[[str], bool]:
        """Says whether a subject (digest) is somebody whose rows are kept."""

    def id_rule(self) -> Collection[str]:
        """What does not tell two spellings of an id apart for whoever is being erased."""


LEDGER_ON_SERVER = "the ledger in its database"
"""How a scan names it."""


class Bucket(Protocol):
    """A place of objects that is searched one by one (flows.adapters.s3)."""

    @property
    def url(self) -> str:
        """Its address."""

    def check(self) -> None:
        """Raises StorageError where objects may lie that it does not name."""

    def abort_uploads(self) -> int:
        """Throw away the parts of uploads that nobody finished; how many."""

    def names(self) -> Iterable[str]:
        """Of every object."""

    def fetch(self, name: str, path: Path) -> bool:
        """Bring an object to a file; whether it is still there."""


def _with_those(
    report: ScanReport,
    every: ScanReport,
) -> ScanReport:
    """The report, and what a search for more found in files in which an earlier one had found
    something."""
    again = {*every.residue} & {*report.found_again}
    if not again:
        return report
    return replace(
        report,
        residue=tuple(sorted({*report.residue, *again})),
        needles_found=report.needles_found | every.needles_found,
        found_again=tuple(name for name in report.found_again if name not in again),
        residue_digests=report.residue_digests | every.residue_digests,
    )


class WorkspaceResidue:
    """Scans a workspace and its stores. Fills the port `Residue`."""

    def __init__(
        self,
        root: Path,
        extra_roots: list[Path],
        scope: Scope,
        baseline: bytes | Iterable[bytes],
        buckets: Sequence[Bucket],
        temporary: Path,
        written: frozenset[str],
        key: bytes,
        entries: Callable[[], Iterable[bytes]] | None = None,
    ) -> None:
        """`buckets` are searched object by object, each brought to `temporary` meanwhile.
        `written`: addresses of those that the system itself writes to. `key`: of digests of what is
        found. `entries`: of the ledger, where its database is none of the files."""
        self._entries = entries
        self._scope = scope
        self._written = written
        self._key = key
        self._root = root
        self._extra = extra_roots
        self._baseline = baseline
        self._buckets = buckets
        self._temporary = temporary

    def scan(
        self,
        ids: list[str],
        texts: list[str],
        targets: list[Target],
        known_residue: Collection[str] = (),
    ) -> ScanReport:
        """Search everything the system wrote, the needles of open requests themselves left out."""
        self._scope.check_away()
        rule = self._scope.id_rule()
        wanted = make_needles(ids, texts, self._baseline, self._scope.kept, rule)
        report = self._searched(wanted, targets, known_residue)
        if report.found_again and wanted.said_by_many:
            # what many came to say since is what was found in these files
            every = make_needles(ids, texts, self._baseline, rule=rule)
            report = _with_those(report, self._searched(every, targets, known_residue))
        self.check()
        doubtful = {given for given in ids if is_among(given, wanted.passed_over)}
        return replace(report, ids_unsearchable=report.ids_unsearchable | doubtful)

    def _searched(
        self,
        wanted: NeedleSet,
        targets: list[Target],
        known_residue: Collection[str],
    ) -> ScanReport:
        as_owner_only(self._temporary)
        return scan(
            self._root,
            self._extra,
            list(SYSTEM_PATHS),
            self._scope.needle_files(),
            wanted,
            targets,
            self._objects(),
            self._temporary,
            lambda path: is_written(path, open_files()),
            lambda pack: git_objects(pack, self._temporary),
            self._scope.known(),
            known_residue,
            lambda content: keyed_digest(self._key, "found in", content).hex(),
        )

    def check(self) -> None:
        """Of every bucket: versioning may have been switched on since it was opened."""
        for bucket in self._buckets:
            bucket.check()

    def _objects(self) -> Iterator[tuple[str, Path]]:
        """Every object of the buckets, one at a time, with the file it was brought to. Unfinished
        uploads hold parts that nobody can read: they are thrown away where the system writes;
        elsewhere they may be somebody's."""
        if not self._buckets and self._entries is None:
            return
        with tempfile.TemporaryDirectory(dir=self._temporary, prefix="scan-") as folder:
            path = Path(folder) / "object"
            if self._entries is not None:  # what somebody typed stands in them
                with path.open("wb") as file:
                    file.writelines(entry + b"\n" for entry in self._entries())
                yield LEDGER_ON_SERVER, path
            for bucket in self._buckets:
                if bucket.url in self._written:
                    bucket.abort_uploads()
                for name in bucket.names():
                    if bucket.fetch(name, path):
                        yield f"{bucket.url}/{name}", path
                        path.unlink()
