"""What a residue scan must know of the erasures that are under way: whom it looks for, what of that
lies in files that must hold it, whose rows are kept, and whether all it would have to read can be
read here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapters.away import AwayFiles, Looking
from flows.adapters.loading import wait_until_unused
from flows.adapters.needle_files import NeedleFiles
from s3t_core.erasure.needles import NeedleSet, make_needles
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.ports import Ledger, RequestBook
from s3t_core.slicefile import texts_of

if TYPE_CHECKING:
    from flows.adapters.datasets import DvcDatasets

_LOADING_SECONDS = 60.0
"""A scan waits so long for a process that loads a version."""


class ScanScope:
    """Asked anew by each scan. `loading`: the directory of processes that load a version;
    `cluster`: the one whose workers can look for rows, None without."""

    def __init__(
        self,
        ledger: Ledger,
        requests: RequestBook,
        needles: NeedleFiles,
        datasets: "DvcDatasets",
        away: AwayFiles,
        cluster: Callable[[], Looking | None],
        loading: Path,
    ) -> None:
        self._ledger, self._requests, self._needles = ledger, requests, needles
        self._datasets, self._away = datasets, away
        self._cluster, self._loading = cluster, loading

    def check_away(self) -> None:
        """That no machine of a cluster may hold rows of data files that are destroyed, and no
        process here a copy of stages that it loads. Raises ResidueFound, Busy."""
        wait_until_unused(self._loading, _LOADING_SECONDS)
        state = self._ledger.state()
        files = [f for d in state.datasets for f in d.files()]
        gone = {f.digest for f in files if f.md5 in state.destroyed_objects}
        self._away.check({f.digest for f in files} - gone, self._cluster)

    def needle_files(self) -> list[Path]:
        """The files that hold what is being erased and nothing else: they are not searched."""
        return self._needles.files_of(self.being_erased)

    def being_erased(self) -> list[str]:
        """The open requests, and the plans without all their certificates."""
        state = self._ledger.state()
        plans = [plan.plan_id for plan in _begun(state)]
        return [*plans, *state.begun, *self._requests.open_now()]

    def kept(self) -> Iterator[tuple[str, str]]:
        """Subject (digest) and text of each row of the recorded data: what is being erased is in
        none by now."""
        for path in self._datasets.files.recorded_row_files(self._ledger.state().datasets):
            yield from texts_of(path)

    def known(self) -> Callable[[str], bool]:
        """What says, for one scan, whether a subject (digest) is somebody whose rows are kept."""
        from flows.adapters.known_subjects import KnownSubjects

        return KnownSubjects(self._datasets, self._ledger.state)

    def id_rule(self) -> frozenset[str]:
        """By which the open requests were asked: all of them by one, that of the data."""
        state = self._ledger.state()
        return frozenset(
            step
            for r, asked in state.requests.items()
            if state.is_open(r)
            for step in asked.id_rule
        )

    def erased(self) -> NeedleSet:
        """What the scan would look for of the people whose rows an erasure found that is not
        certified, if the system wrote nothing."""
        state = self._ledger.state()
        ids: list[str] = []
        texts: list[str] = []
        for plan in _begun(state):
            rows = {r: plan.rows[r] for r in plan.requests}
            having = {r: state.requests[r].ids for r, found in rows.items() if found.known}
            found = self._needles.read(plan.plan_id, having)
            ids += found.ids
            texts += found.texts
        return make_needles(ids, texts, rule=self.id_rule())


def _begun(state: State) -> list[ErasurePlan]:
    """The plans of the erasures that are not certified."""
    waiting = [left.plan.plan for left in state.uncertified.values()]
    return waiting if state.plan is None else [state.plan.plan, *waiting]
