"""Whose rows the system keeps. What a residue scan finds in the row of such a person is their own
data, whoever said the same; in a row of anybody else it is residue: nobody can say that it is not
the erased person's under another name.
"""

from collections.abc import Callable
from functools import cached_property

from flows.adapters.datasets import DvcDatasets
from s3t_core.erasure.state import State
from s3t_core.slicefile import subjects_of


class KnownSubjects:
    """Answers for one scan whether a subject (digest) has rows in the recorded data, in a stored
    earlier version whose ids are told as the present one's are, or in quarantine. The earlier ones
    are read only where nothing else knows the subject."""

    def __init__(self, datasets: DvcDatasets, state: Callable[[], State]) -> None:
        self._datasets = datasets
        self._state = state

    def __call__(self, subject: str) -> bool:
        return subject in self._present or subject in self._earlier

    @cached_property
    def _present(self) -> set[str]:
        quarantined = {row["subject_digest"] for row in self._datasets.quarantine.rows()}
        return quarantined | subjects_of(
            self._datasets.files.recorded_row_files(self._state().datasets)
        )

    @cached_property
    def _earlier(self) -> set[str]:
        state = self._state()
        return self._datasets.people.earlier_subjects(state.datasets, state.destroyed_objects)
