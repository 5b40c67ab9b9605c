"""Model versions and training runs (MLflow). Never rows, never subject ids: params, losses,
accuracies, digests.

A version carries its release document and the stage files that answer; the backbone goes by id and
digest. So a version costs what changed.

Deleting in MLflow leaves bytes behind unless done in this order: logged models, runs, `mlflow gc`,
then VACUUM with secure_delete.

| module | what it has |
|---|---|
| experiment.py | which experiment is this workspace's, as the ledger tells |
| runs.py | the runs of trainings and stages |
| logged.py | what is logged and becomes a version |
| versions.py | the versions under the name, hidden ones too, and the alias |
| files.py | which files decide a version's answers, and where they lie (`ModelFiles`) |
| workspace_files.py, server.py | the two kinds of place |
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from flows.adapters.registry.connection import Connection
from flows.adapters.registry.experiment import OwnExperiment
from flows.adapters.registry.files import (
    RELEASE_FOLDER,
    ModelFiles,
    check_digest,
    digest_of_files,
    files_in,
    remove_compiled,
)
from flows.adapters.registry.logged import LoggedModels, model_id_of, says
from flows.adapters.registry.runs import Runs
from flows.adapters.registry.versions import ALIAS, Versions
from s3t_core.domain import Release
from s3t_core.erasure.state import VersionRecord
from s3t_core.erasure.versions import DOCUMENT_TAG, RELEASE_TAG
from s3t_core.errors import GuaranteeError, StorageError
from s3t_core.ports import Published, Tell

_AHEAD = 1000
"""Version numbers that are passed over at most, so that a moved version keeps its own."""


class MlflowRegistry:
    """A registered model and its versions. Fills the port `Registry`; the other modules of this
    folder are its parts."""

    def __init__(
        self,
        connection: Connection,
        own: OwnExperiment,
        versions: Versions,
        runs: Runs,
        files: ModelFiles,
        logged: LoggedModels,
    ) -> None:
        self.name = connection.name
        self.connection, self.own, self.runs = connection, own, runs
        self.versions, self.files, self.logged = versions, files, logged

    def addressed(self) -> AbstractContextManager[None]:
        """Until the block ends, MLflow's functions that are told no address work on this one: those
        that log, and those of a loaded version."""
        return self.connection.addressed()

    def claim(self) -> bool:
        """Make experiment and registered model as the ledger tells, where somebody renamed, deleted
        or hid them; whether anything was otherwise. The caller holds the workspace. Raises
        WorkspaceError for another's."""
        with self.connection.guarded():
            changed = self.own.put_right()
            return self.versions.unhide() or changed

    def places(self) -> list[str]:
        """Where else than in the workspace files of its runs and versions lie, or ever lay:
        buckets' URLs, directories."""
        with self.connection.guarded():
            return self.files.places()

    # --- versions

    def publish(
        self,
        release: Release,
        recipe: dict[str, object],
        tags: Mapping[str, str],
        files_digest: str = "",
        tell: Tell = lambda _: None,
    ) -> Published:
        """Register a version for the release, or find the one whose files have the digest that the
        ledger recorded, `files_digest`; move the alias. Every other version that says it is of this
        release goes, also one that a killed run registered and the ledger never learned of: nobody
        knows what became of its files since. `tell` as the port has it."""
        with self.connection.guarded():
            self.own.put_right()
            known = self._find(release.release_id, files_digest)
            published = known or self._register(release, recipe, tags)
            if known:  # a file that was damaged is the store's again
                self.files.add_after(known.model_id, release)
            self.files.check_reach(published)
        tell(published)
        with self.connection.guarded():
            self.versions.serve(published.version)
        return published

    def tags(self, version: str) -> dict[str, str]:
        """A version's tags."""
        with self.connection.guarded():
            return dict(self.connection.client.get_model_version(self.name, version).tags)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        with self.connection.guarded():
            for key, value in tags.items():
                self.connection.client.set_model_version_tag(
                    self.name,
                    version,
                    key,
                    value,
                )

    def describe(self, version: str, card: str) -> None:
        """Show a card on the pages of a version and of the model."""
        with self.connection.guarded():
            client = self.connection.client
            client.update_model_version(self.name, version, card)
            client.update_registered_model(self.name, card)

    def destroy(self, keep: Iterable[VersionRecord], runs: Iterable[str]) -> None:
        """Destroy every version but those in `keep` and every run but theirs and `runs`, with their
        files: also what a crash left that the ledger never learned of, and whatever tags say."""
        kept = list(keep)
        with self.connection.guarded():
            if self.own.is_begun():
                self.own.put_right()  # another workspace's is refused before anything goes
                self.versions.unhide()
                self.versions.delete_but({v.version for v in kept})
                models = self.logged.delete({v.model_id for v in kept})
                self.runs.delete({*(v.run_id for v in kept), *runs})
                self.files.collect(models)
        self.remove_leftovers(kept)

    def remove_leftovers(self, keep: Iterable[VersionRecord]) -> bool:
        """Remove every file that belongs to none of these versions; whether there were any."""
        return self.files.remove_leftovers(keep)

    def serving(self) -> str:
        """The version that the alias names, "" for none."""
        with self.connection.guarded():
            return self.versions.serving()

    def serve(self, version: str) -> None:
        """Move the alias."""
        with self.connection.guarded():
            self.versions.serve(version)

    def released(self) -> list[tuple[str, Published]]:
        """(release id, version) of every version that is here with its files; "" for one that says
        no release."""
        with self.connection.guarded():
            return [
                (v.tags.get(RELEASE_TAG, ""), self.logged.published(v))
                for v in self.versions.all()
                if self.logged.document(model_id_of(v)) is not None
            ]

    def count(self) -> int:
        """How many versions are here, whole or not."""
        with self.connection.guarded():
            return len(self.versions.all())

    def differences(self, versions: Iterable[VersionRecord], serving: str) -> list[str]:
        """What the registry says otherwise than the ledger, a sentence each. `serving`: the version
        that is to serve, "" for none."""
        kept = {v.version: v for v in versions if not v.destroyed}
        with self.connection.guarded():
            there = {str(v.version): v for v in self.versions.all()}
            whole = {
                n
                for n in kept.keys() & there.keys()
                if self.logged.published(there[n]).document == kept[n].document
            }
            said = {n for n in kept.keys() & there.keys() if says(there[n], kept[n])}
            moved = self.own.problems()
            if any(self.versions.prompts()):
                moved.append(
                    "the registry hides this workspace's versions, as if they were prompts"
                )
        named = self.serving()
        changes = {
            "versions in the registry that the ledger does not know": there.keys() - kept.keys(),
            "versions that are gone from the registry": kept.keys() - there.keys(),
            "versions with other files than the ledger recorded": kept.keys()
            & there.keys() - whole,
            "versions of which the registry tells another release, run or model than the ledger "
            "recorded": kept.keys() & there.keys() - said,
        }
        moved += [f"{what}: {', '.join(sorted(n, key=int))}" for what, n in changes.items() if n]
        if named != serving:
            moved.append(
                f"the alias {ALIAS!r} names another version than the one that serves, "
                f"{serving or 'none'}: {named or 'none'}"
            )
        return moved

    # --- files

    def check_files(self, record: VersionRecord) -> None:
        """That the version's files are those that the ledger recorded: they decide labels, how long
        a loaded model may go on, and which code answers; and that the registry names this version,
        and these files as its own, to whoever asks for the one that serves. Raises
        GuaranteeError."""
        self._check_named(record)
        with self.connection.guarded():
            self.files.remove_compiled(record.model_id)
            files = self.files.of(record.model_id)
        check_digest(
            record,
            digest_of_files(files),
            bool(files),
        )

    @contextlib.contextmanager
    def checked_files(self, record: VersionRecord, loading: Path) -> Iterator[Path]:
        """The directory with the version's release document and stages: the very one whose files
        were checked. Raises GuaranteeError."""
        self._check_named(record)
        with self.files.fetched(record.model_id, loading) as folder:
            with self.connection.guarded():
                remove_compiled(folder)
                files = files_in(folder)
            check_digest(
                record,
                digest_of_files(files),
                bool(files),
            )
            yield folder / RELEASE_FOLDER

    def recorded_files(self, records: Iterable[VersionRecord]) -> Iterator[bytes]:
        """Names and content of the files of versions, stage files left out, of those that are as
        the ledger recorded them: what our code and MLflow write into every version."""
        for record in records:
            with self.connection.guarded():
                files = self.files.of(record.model_id)
            if record.document and digest_of_files(files) == record.document:
                yield from (b"\n".join((name.encode(), data)) for name, data in files.items())

    # --- moving

    def owner(self) -> str:
        """Whose the name is: its ledger's name, "" where there is nothing of it."""
        with self.connection.guarded():
            return self.own.whose()

    def adopt(self, record: VersionRecord, tags: Mapping[str, str]) -> Published:
        """Register a version that another registry has, or that was lost here, under its number
        where that is not passed already. What is here and says it is of the same release goes: the
        ledger knows no digest of its files. The alias stays where it is."""
        with self.connection.guarded():
            self.own.put_right()
            self._find(record.release.release_id, "")
            published = self._register(
                record.release,
                record.recipe,
                tags,
                record,
            )
            self.files.check_reach(published)
            return published

    def check_adopted(self, record: VersionRecord, published: Published) -> None:
        """That the version's files say what the ledger says and answer with its stages. Raises
        StorageError."""
        with self.connection.guarded():
            whole = self.logged.is_whole(record, published)
        if not whole:
            raise StorageError(
                f"expected version {record.version} to be whole in the registry it was moved to, "
                "got other files; nothing was removed: run the command again"
            )

    def forget(self) -> None:
        """Remove the registered model and everything under it, where the name is this workspace's.
        Idempotent."""
        with self.connection.guarded():
            if self.own.now() is None:
                return
        self.destroy([], [])
        with self.connection.guarded():
            self.versions.delete_name()
            self.files.collect([])
            self.own.leave()

    # --- parts

    def _find(self, release_id: str, files_digest: str) -> Published | None:
        """The version of a release whose files have that digest. Others that say they are
        of it go, and all where that is ""."""
        self.versions.begin()
        said = [
            self.logged.published(v)
            for v in self.versions.all()
            if v.tags.get(RELEASE_TAG) == release_id
        ]
        found = next((p for p in said if files_digest and p.document == files_digest), None)
        for other in said:
            if other is not found:
                self.versions.delete(other.version)
        return found

    def _register(
        self,
        release: Release,
        recipe: dict[str, object],
        tags: Mapping[str, str],
        moved: VersionRecord | None = None,
    ) -> Published:
        logged = self.logged.log(release, recipe, moved)
        registered = {
            **tags,
            RELEASE_TAG: release.release_id,
            DOCUMENT_TAG: logged.document,
        }
        version = self.versions.add(logged.model, logged.run_id, registered)
        for _ in range(_AHEAD if moved else 0):
            if int(version) >= int(moved.version if moved else 0):
                break
            self.versions.delete(version)
            version = self.versions.add(logged.model, logged.run_id, registered)
        model_id = str(logged.model.model_id)
        return Published(
            version=version,
            run_id=logged.run_id,
            model_id=model_id,
            document=self.logged.digest(model_id),
        )

    def _check_named(self, record: VersionRecord) -> None:
        if self.serving() != record.version:
            raise GuaranteeError(
                f"expected the files of version {record.version} to serve under the alias "
                f"{ALIAS!r}, got another version or none; somebody moved it, or another command "
                "has just moved on: run `s3t erase`, which puts it right"
            )
        with self.connection.guarded():
            version = self.versions.numbered(record.version)
            named = version is not None and self.logged.is_named_rightly(version, record.model_id)
            said = version is not None and says(version, record)
        if named and not said:
            raise GuaranteeError(
                f"expected the registry to tell of version {record.version} what the ledger "
                "recorded, got another release, run or model in its tags: somebody changed them; "
                "run `s3t erase`, which puts it right"
            )
        if not named:
            raise GuaranteeError(
                f"expected the registry to name the files of version {record.version} where this "
                "workspace keeps them, got another place: somebody changed it, or the workspace "
                "was moved or copied. Where it was moved, move it back; a copy cannot be used "
                "beside what it is of; else run `s3t erase`, which puts it right"
            )
