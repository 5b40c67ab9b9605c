"""Versioned data (DVC). `data.dvc` at the root is the version; each ingest and each erasure makes a
new one.

DVC's own `gc` is never used: without `--workspace` it erases nothing that history references, with
it it would erase other workspaces' objects on a shared remote. Objects are deleted one by one, by
the md5 the ledger lists, after checking that no live file needs them (facts about dvc 3.67, which
is pinned: only `dvc.api` is documented).

The files and whether they are whole: stored.py. Versions made and named: versions.py. People looked
up: people.py. Rows searched for, rewritten, destroyed, put back: search.py, rewriting.py,
destroying.py, restoring.py.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from flows.adapters.datasets.destroying import ObjectDestroyer
from flows.adapters.datasets.people import IdentityIndexes, IndexFound
from flows.adapters.datasets.restoring import Restoring
from flows.adapters.datasets.rewriting import Rewriting
from flows.adapters.datasets.search import RowSearch
from flows.adapters.datasets.stored import StoredFiles
from flows.adapters.datasets.versions import DataVersions
from flows.adapters.dvc_repository import DvcRepository
from flows.adapters.quarantine import Quarantine
from s3t_core.domain import DatasetVersion
from s3t_core.keys import WorkspaceKeys
from s3t_core.ports import Contents, Findings, Target

__all__ = ["DvcDatasets", "IndexFound"]


class DvcDatasets:
    """The versioned data of a workspace. Fills the port `Datasets`; what else is asked of it, its
    parts answer."""

    def __init__(
        self,
        root: Path,
        keys: WorkspaceKeys,
        remote: str = "",
        recorded: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        """`remote`: [dvc] remote, wherever DVC's own configuration says that versions are pushed.
        `recorded`: the directories that the ledger tells of as caches, with whether other projects
        share them."""
        self.repository = DvcRepository(root, remote, recorded)
        self.quarantine = Quarantine(root / ".s3t", keys.sealing)
        """Rows that were refused."""
        self.files = StoredFiles(root, self.repository)
        self.versions = DataVersions(self.files, keys)
        self.people = IdentityIndexes(self.files, keys, self.quarantine)
        self.rewriting = Rewriting(self.files, keys, self.versions, self.people)
        self.restoring = Restoring(self.files, self.versions, self.rewriting)
        self._search = RowSearch(self.files, keys, self.quarantine, self.people)
        self._destroyer = ObjectDestroyer(self.files)

    def find(
        self,
        targets: list[Target],
        history: list[DatasetVersion],
        destroyed: set[str],
        by_hash: bool = False,
    ) -> Findings:
        """See RowSearch.find."""
        return self._search.find(targets, history, destroyed, by_hash)

    def resolve(
        self, forms: Mapping[str, Sequence[str]], history: list[DatasetVersion], destroyed: set[str]
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """See IdentityIndexes.resolve."""
        return self.people.resolve(forms, history, destroyed)

    def contents(self, targets: list[Target]) -> Contents:
        """See RowSearch.contents."""
        return self._search.contents(targets)

    def erase(
        self, targets: list[Target], history: list[DatasetVersion], destroyed: set[str]
    ) -> DatasetVersion:
        """See Rewriting.erase."""
        return self.rewriting.erase(targets, history, destroyed)

    def publish(self, dataset: DatasetVersion) -> None:
        """See DataVersions.publish."""
        self.versions.publish(dataset)

    def destroy(
        self, objects: Iterable[str], targets: list[Target], live: DatasetVersion | None
    ) -> list[str]:
        """See ObjectDestroyer.destroy."""
        return self._destroyer.destroy(objects, targets, live)

    def erase_quarantine(self, targets: list[Target], forms: Collection[str] = ()) -> int:
        """See Quarantine.erase."""
        return self.quarantine.erase(targets, forms)
