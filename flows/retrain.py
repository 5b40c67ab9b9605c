"""The full retrain: train on the remaining data beside the serving version, register, move the
alias.

It is filling in what is missing, so every stage whose inputs did not change is re-used. An erase
run that spends the budget records in the ledger that a full retrain is wanted, and then has it run
exactly once: by the `full-retrain` deployment where a Prefect server has one (the idempotency key
is the ledger's, so a rerun after a crash triggers no second run), else in its own process. It stays
wanted until a training registers a version or finds nothing missing.

A batch whose deadlines allow it gets its replacement first: trained on the data as it will be, then
cut over to.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from flows.adapters.local import is_held
from flows.settings import is_our_server
from flows.tasks import flow
from flows.train import TrainingSession, TrainReport, fill_in
from flows.wiring import Workspace
from s3t_core.domain import DatasetVersion, Release, SliceId
from s3t_core.erasure.closing import as_told
from s3t_core.erasure.executor import Replacement
from s3t_core.erasure.planner import ErasurePlan, targets_of
from s3t_core.erasure.state import Event, State
from s3t_core.errors import Busy, S3TError, StorageError, TrainingError
from s3t_core.learning.recipe import StageSpec
from s3t_core.learning.release import check_one_recipe, recipe_to_json
from s3t_core.times import parse_time

DEPLOYMENT = "full-retrain/full-retrain"
_WAIT_SECONDS = 3600.0


@flow(name="full-retrain", task_runner=ThreadPoolTaskRunner(max_workers=64))
def retrain(workspace: str, wait_seconds: float = 0) -> dict[str, Any]:
    """Retrain the workspace directory's model on what is there now; waits so long for another run
    to end."""
    place = Workspace(Path(workspace))
    return run_retrain(place, wait_seconds, wait_seconds).__dict__


def run_retrain(
    place: Workspace, wait_for_training: float = 0, wait_for_change: float = 0
) -> TrainReport:
    """Fill in; when that fails and a retrain is wanted, the ledger says that it failed."""
    try:
        return fill_in(place, "retrain", wait_for_training, wait_for_change)
    except Busy:
        raise  # another training is at it
    except S3TError as error:
        with contextlib.suppress(Busy, StorageError), place.changing(60):
            wanted = place.ledger.state().retrain
            if wanted is not None:
                _say(place, wanted, "failed", problem=type(error).__name__)
        raise


# --- wanting and having it run


def want_retrain(place: Workspace) -> str:
    """Record that a full retrain is wanted when the budget is spent; the caller holds the workspace
    lock.

    Returns why none is of use although the budget is spent, else "".
    """
    state = place.ledger.state()
    budget = place.budget_of(state)
    if state.retrain is not None or budget is None or not budget["exhausted"]:
        return ""
    if state.dataset is None or state.dataset.rows() == 0:
        return "the budget is spent, and no records are left to train on"
    if state.release and is_complete(state.release, state.dataset):
        return (
            f"the budget ({budget['policy']}) is spent although no stage is missing: a retrain "
            "would give the same version; change [deletion_budget] or the data"
        )
    place.ledger.append(
        {
            "type": "retrain",
            "time": place.now(),
            "id": f"retrain-{uuid.uuid4().hex[:16]}",
            "attempt": 1,
            "state": "wanted",
            "reason": budget["policy"],
        }
    )
    return ""


def have_retrained(place: Workspace) -> tuple[str, str]:
    """See to a wanted retrain, without the workspace lock. Returns (outcome, problem).

    "no": none is wanted. "triggered": the deployment runs or will. "running": another process
    trains. "done", "failed": it ran here; what is left of the ensemble keeps serving, and the next
    erase tries again.
    """
    wanted = place.ledger.state().retrain
    if wanted is None:
        return "no", ""
    deployed = False
    try:
        deployed = deployment_exists(place)
        if deployed:
            _trigger(place)
            return "triggered", ""
        run_retrain(place, wait_for_change=_WAIT_SECONDS)
    except Busy:
        return (
            ("failed", "the workspace was busy, so it was not triggered")
            if deployed
            else ("running", "")
        )
    except S3TError as error:
        return "failed", str(error)
    except (
        Exception
    ) as error:  # the erasure is complete: whatever Prefect raises, that must be told
        return "failed", f"it could not be started ({type(error).__name__})"
    return "done", ""


def is_complete(release: Release, dataset: DatasetVersion) -> bool:
    """Whether every replica has every stage that the data calls for, trained on the data as it
    is."""
    for replica in release.replicas:
        versions = [dataset.slice_versions.get(SliceId(replica.shard, s)) for s in replica.sequence]
        wanted = [
            tuple(v.digest for v in versions[:i] if v)
            for i in range(1, len(versions) + 1)
            if any(v and v.rows for v in versions[:i])
        ]
        if [s.slice_digests for s in replica.stages] != wanted:
            return False
    return True


def _trigger(place: Workspace) -> None:
    """Start the deployment for what is wanted, once per attempt."""
    from prefect.deployments import run_deployment

    with place.changing(60):
        wanted = place.ledger.state().retrain
        if wanted is None or (wanted["state"] == "triggered" and not _ended(wanted)):
            return
        if wanted["state"] in ("triggered", "failed"):
            _say(place, wanted, "wanted", attempt=wanted.get("attempt", 1) + 1)
            wanted = place.ledger.state().retrain or wanted
        run: Any = run_deployment(
            DEPLOYMENT,
            timeout=0,
            idempotency_key=f"{wanted.get('id')}:{wanted.get('attempt', 1)}",
            parameters={"workspace": str(place.root), "wait_seconds": _WAIT_SECONDS},
            as_subflow=False,
        )
        _say(place, wanted, "triggered", flow_run=str(run.id))


def _say(place: Workspace, wanted: Event, state: str, **more: Any) -> None:
    place.ledger.append(
        {
            "type": "retrain",
            "time": place.now(),
            "id": wanted.get("id", ""),
            "attempt": wanted.get("attempt", 1),
            "state": state,
            **more,
        }
    )


def deployment_exists(place: Workspace) -> bool:
    """Whether somebody carries out the deployment: a Prefect server of the operator's knows it, or
    `s3t serve` runs. The workspace's own server knows it from the last `s3t serve`, which may be
    long gone."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    url = os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value()
    if not url or (is_our_server(url) and not is_held(place.serve_lock_path)):
        return False
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return False
    return True


def _ended(wanted: Event) -> bool:
    """Whether the triggered run is over without having finished the retrain: it crashed, or its
    server forgot it."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(uuid.UUID(wanted["flow_run"]))
        except ObjectNotFound:
            return True
    return found.state is not None and found.state.is_final()


# --- a replacement first


def train_first(place: Workspace, problems: list[str], plan: ErasurePlan) -> Replacement | None:
    """A replacement for what the plan would cut over to, when that would spend the budget and no
    request is due soon.

    The caller holds the workspace lock. None: go on without one. A replacement that cannot be
    trained is no reason to miss a deadline: whatever goes wrong, and when the margin is reached,
    the erasure goes on without it, and `problems` gets the reason.
    """
    state = place.ledger.state()
    requests = place.requests.get(plan.requests)
    margin = timedelta(hours=place.config.deletion_budget.retrain_first_margin_hours)
    due = min(
        parse_time(as_told(r, state).due) for r in place.requests.pending()
    )  # those not ready yet count too
    until = due - margin
    if (
        until <= place.clock.now()
        or state.dataset is None
        or not _would_spend(place, state, plan, state.dataset)
    ):
        return None
    try:
        with place.training():
            future = place.datasets.preview(
                targets_of(requests, plan.subjects), state.dataset, place.next_dir
            )
            if not _would_spend(place, state, plan, future):
                return None  # a shard that the erasure empties does not count as dead
            return ReplacementSession(place, future, until).replacement()
    except S3TError as error:
        reason = str(error)
    except Exception as error:  # its message may quote data
        reason = type(error).__name__
    finally:
        place.sweep()
    problems.append(f"no replacement could be trained first: {reason}")
    return None


def _would_spend(
    place: Workspace, state: State, plan: ErasurePlan, dataset: DatasetVersion
) -> bool:
    if state.champion is None or plan.release is None or state.retrain is not None:
        return False
    after = State(
        datasets=[dataset],
        versions=[replace(state.champion, release=plan.release, accuracy=None)],
        requests_since_training=state.requests_since_training + len(plan.requests),
    )
    budgets = [place.budget_of(s) for s in (state, after)]
    return [bool(b and b["exhausted"]) for b in budgets] == [False, True]


class ReplacementSession(TrainingSession):
    """Trains on the data as it will be after an erasure, under the workspace lock that the erase
    run holds."""

    def __init__(self, place: Workspace, future: DatasetVersion, until: datetime) -> None:
        super().__init__(place, "retrain")
        self._future = future
        self._until = until

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """The erase run holds the workspace: only the threads of this one take turns."""
        with self._threads:
            yield

    def present(self, state: State) -> DatasetVersion:
        """The data as it will be."""
        super().present(state)
        return self._future

    def file_of(self, relative: str) -> Path:
        """A file that will change is beside, the others are where they are."""
        changed = self.place.next_dir / relative
        return changed if changed.exists() else super().file_of(relative)

    def has_moved(self, state: State, spec: StageSpec | None = None) -> bool:
        """Nothing moves under the lock."""
        del state, spec
        return False

    def sweep(self) -> None:
        """The erase run has swept."""

    def out_of_time(self) -> bool:
        """Whether the requests can wait no longer."""
        return self.place.clock.now() >= self._until

    def replacement(self) -> Replacement | None:
        """The release, measured and found good enough, and its recipe; None when there is nothing
        to train on."""
        if not self._future.rows():
            return None
        try:
            self.train_missing(self.list_missing(self.describe()))
            if any(s.key not in self.done for s in self.plan.stages):
                raise TrainingError(
                    "expected every stage before the requests had to go on, got fewer; raise "
                    "[erasure] deadline_days or lower [deletion_budget] retrain_first_margin_hours"
                )
            release = Release(
                f"release-{uuid.uuid4().hex[:16]}", self._future.version, self.replicas()
            )
            check_one_recipe(release, self.recipe)
            if self.place.config.deletion_budget.min_accuracy:
                self.check_floor(self.measured(release))
        except BaseException:
            with contextlib.suppress(Exception):
                self.finish(failed=True)
            raise
        self.finish(failed=False)
        return release, recipe_to_json(self.recipe)
