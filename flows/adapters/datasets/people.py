"""Who is in the data, by the identity indexes of its versions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.adapters.datasets.stored import (
    StoredFiles,
)
from flows.adapters.dvc_repository import (
    object_name,
)
from flows.adapters.quarantine import Quarantine
from s3t_core.domain import (
    DatasetVersion,
)
from s3t_core.errors import DataError, StorageError
from s3t_core.identity import EXACT
from s3t_core.identity_index import (
    IDENTITY_PATH,
    matching,
    named_in,
    read_index,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.slicefile import (
    subjects_of,
)
from s3t_core.snapshot import form_digest


@dataclass(frozen=True)
class IndexFound:
    """What the identity index says: subjects that are in the data, and digests of subjects by the
    form of their id."""

    subjects: set[str]
    subjects_by_form: dict[str, set[str]]


class IdentityIndexes:
    """Looks people up."""

    def __init__(self, files: StoredFiles, keys: WorkspaceKeys, quarantine: Quarantine) -> None:
        self._files = files
        self._keys = keys
        self._quarantine = quarantine

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
        kept = [(line["subject_digest"], set(line["forms"])) for line in self._quarantine.rows()]
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
        exact = bool(history) and EXACT in history[-1].id_rule  # each spelling is another person's

        def kept_out(request: str, subject: str) -> tuple[str, ...]:
            found = of[subject] & set(forms[request]) if exact else of[subject]
            return tuple(sorted(form_digest(self._keys, f) for f in found))

        return {
            request: {subject: kept_out(request, subject) for subject in each}
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
            yield self._files.current(IDENTITY_PATH, dataset.identities)
            known = {dataset.identities.md5}
        for md5 in sorted(
            {d.identities.md5 for d in history[:-1] if d.identities} - destroyed - known
        ):
            try:
                with self._files.earlier([md5]) as found:
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

    def recorded_index(self, dataset: DatasetVersion) -> object:
        """The identity index of the current data. Raises DataError where there is none yet,
        GuaranteeError for another one than the recorded."""
        return read_index(next(self._indexes([dataset], set())))

    def earlier_subjects(self, history: list[DatasetVersion], destroyed: set[str]) -> set[str]:
        """Of whom (digests) stored earlier versions have rows that tell whose they are as the
        current one's do."""
        wanted = {
            v.md5 for d in history[:-1] if d.says_who_as(history[-1]) for v in d.row_files()
        } - destroyed
        with self._files.earlier(wanted) as found:
            return subjects_of(found.values())

    def named(self, history: list[DatasetVersion], stored: Mapping[str, Path]) -> set[str]:
        """The subjects (digests) of whom any index tells: the current one, and those that are
        `stored` of earlier versions. One that was lost with a version may be of people whose rows
        are still there."""
        indexes = [
            stored[d.identities.md5] for d in history if d.identities and d.identities.md5 in stored
        ]
        current = history[-1].identities if history else None
        indexes += [self._files.current(IDENTITY_PATH, current)] if current else []
        return {subject for path in indexes for subject in named_in(path)}
