"""The deletion-rate budget in a real workspace: driven to exhaustion, retrained once, repaired;
erasures go on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.adapters.locks import workspace_lock
from flows.adapters.runner import ProcessRunner
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.repair import repair
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.prefect_flows.triggering import FULL_RETRAIN, PrefectDeployment
from flows.use_cases.predicting import champion_of
from flows.use_cases.replacing import FutureData, train_first, train_replacement
from flows.use_cases.retraining import have_retrained, run_retrain, want_retrain
from flows.use_cases.status import status_of
from flows.use_cases.steps import AS_THEY_STAND
from flows.use_cases.taking import take_requests
from flows.use_cases.training import run_training
from flows.use_cases.training_case import LiveData, TrainingCase
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.workspace import Workspace
from s3t_core.capacity.assignment import is_held_out
from s3t_core.capacity.assignment import place as where
from s3t_core.domain import Release, Score, SliceId
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.planner import targets_of
from s3t_core.errors import Busy, TrainingError, UsageError
from s3t_core.learning.jobs import MeasureJob, StageJob, StageOutcome
from s3t_core.learning.training_plan import is_complete
from tests.flows.conftest import people, write_csv
from tests.held import HELD

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]
NEVER_FIRST = {"retrain_first_margin_hours": 8784}


def _homes(place: Workspace) -> dict[SliceId, list[str]]:
    """Who stands in which slice."""
    homes: dict[SliceId, list[str]] = {}
    for person in sorted({r["who"] for r in people()}):
        if not is_held_out(place.keys.placement, person, 0.2):
            homes.setdefault(where(place.keys.placement, person, 2, (0, 2)), []).append(person)
    return homes


def _causes(place: Workspace) -> list[str]:
    return [v.cause for v in place.ledger.state().versions]


def _digests(release: Release) -> dict[tuple[int, int], list[str]]:
    return {(r.shard, r.number): [s.digest for s in r.stages] for r in release.replicas}


def _release(place: Workspace) -> Release:
    release = place.ledger.state().release
    assert release is not None
    return release


_FROM_NOTHING: dict[frozenset[str], dict[tuple[int, int], list[str]]] = {}


def _from_nothing(make: Make, tmp_path: Path, gone: list[str]) -> dict[tuple[int, int], list[str]]:
    """The stages of training the remaining people in a workspace that never saw the others. Trained
    once for each set of those."""
    without = frozenset(gone)
    if without not in _FROM_NOTHING:
        fresh = make("fresh")
        rest = [r for r in people() if r["who"] not in without]
        ingest(str(fresh.root), str(write_csv(tmp_path / "rest.csv", rest)))
        train(str(fresh.root))
        _FROM_NOTHING[without] = _digests(_release(fresh))
    return _FROM_NOTHING[without]


def _erase_now(place: Workspace) -> None:
    """The eraser alone: what a run did that was killed before it could want a retrain."""
    with workspace_lock(place.lock_path, 60):
        while Eraser(
            erase_ports(place, HELD),
            erase_policy(place),
            lambda: f"plan-{place.ledger.head().size}",
        ).run():
            pass


@pytest.mark.minutes
def test_a_workspace_driven_to_exhaustion_retrains_by_itself_exactly_once_and_serves_throughout(
    trained: Make, make_place: Make, tmp_path: Path
) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    shard0 = [people for home, people in sorted(_homes(place).items()) if home.shard == 0]
    before = status_of(place)["deletion_budget"]
    assert before["certain_requests_left"] == 1 and before["forecast"]["requests"]["mean"] > 2
    assert before["forecast"]["dates"] is None  # nobody asked yet
    gone = []
    for number, person in enumerate((shard0[0][0], shard0[1][0]), 1):
        take_requests(place, [person])
        gone.append(person)
        done = erase(str(place.root))
        assert done["retrain"] == ("no" if number == 1 else "done"), done["problem"]
        champion_of(place).predict(["w1"])
        forecast = status_of(place)["deletion_budget"]["forecast"]
        assert forecast["dates"] and forecast["requests_per_day"] == number
    assert _causes(place) == ["train", "erasure", "erasure", "retrain"]
    assert (
        not status_of(place)["deletion_budget"]["exhausted"]
        and place.ledger.state().retrain is None
    )
    assert erase(str(place.root))["retrain"] == "no" and _causes(place).count("retrain") == 1
    assert _digests(_release(place)) == _from_nothing(make_place, tmp_path, gone)
    tags = place.registry.connection.client.get_model_version("tiny", "4").tags
    assert (
        tags["s3t.budget.policy"] == "first_shard_dead" and tags["s3t.budget.exhausted"] == "false"
    )
    assert "to" in tags["s3t.budget.expected_requests"] and tags[
        "s3t.budget.expected_until"
    ].startswith("20")


@pytest.mark.long_but_first
@pytest.mark.parametrize("cut", ["before it is wanted", "before it runs"])
def test_killed_between_trip_and_trigger_the_next_erase_retrains_once(
    trained: Make, cut: str
) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    take_requests(place, [p[0] for home, p in _homes(place).items() if home.shard == 0])
    _erase_now(place)
    if cut == "before it runs":
        with workspace_lock(place.lock_path):
            assert want_retrain(place, HELD) == ""
    champion_of(place).predict(["w1"])  # the other shard serves
    assert erase(str(place.root))["retrain"] == "done"
    assert erase(str(place.root))["retrain"] == "no"
    assert _causes(place) == ["train", "erasure", "retrain"]


def _end(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


@pytest.mark.long
def test_where_a_server_has_the_deployment_it_is_triggered_once(
    trained: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    place = trained(deletion_budget=NEVER_FIRST)
    full_retrain = PrefectDeployment(FULL_RETRAIN, place.serve_lock_path)
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(retrain)
        deployment = client.create_deployment(flow_id, FULL_RETRAIN.split("/")[1])
        try:
            take_requests(place, [p[0] for home, p in _homes(place).items() if home.shard == 0])
            with (
                monkeypatch.context() as cut
            ):  # a run that ends after it started the deployment and before it says so
                cut.setattr("flows.use_cases.retraining._say", _end)
                assert erase(str(place.root))["retrain"] == "failed"
            wanted = place.ledger.state().retrain
            assert wanted is not None and wanted.state == "wanted"
            assert have_retrained(place, AS_THEY_STAND, full_retrain) == ("triggered", "")
            assert (
                erase(str(place.root))["retrain"] == "triggered"
            )  # still wanted, not started twice

            def runs() -> list[Any]:
                return [
                    r
                    for r in client.read_flow_runs(
                        flow_filter=FlowFilter(name=FlowFilterName(any_=["full-retrain"]))
                    )
                    if r.deployment_id == deployment
                ]

            assert len(runs()) == 1 and runs()[0].parameters["workspace"] == str(place.root)
            # its run crashed: the next erase has another
            from prefect.states import Crashed

            client.set_flow_run_state(runs()[0].id, Crashed(), force=True)
            assert erase(str(place.root))["retrain"] == "triggered" and len(runs()) == 2
            retrain(str(place.root))
            assert erase(str(place.root))["retrain"] == "no" and len(runs()) == 2
            assert _causes(place) == ["train", "erasure", "retrain"]
        finally:
            client.delete_deployment(deployment)


class Interrupted(ProcessRunner):
    """Real processes; once, at the given moment, something else happens."""

    def __init__(self, happens: Callable[[], None], moment: str) -> None:
        super().__init__()
        self._happens: Callable[[], None] | None = happens
        self._moment = moment

    def _once(self, moment: str) -> None:
        if moment == self._moment:
            happens, self._happens = self._happens, None
            if happens:
                happens()

    def train(self, job: StageJob) -> StageOutcome:
        self._once("before a stage")
        outcome = super().train(job)
        self._once("before it is stored")
        return outcome

    def measure(self, job: MeasureJob) -> Score | None:
        score = super().measure(job)
        self._once("before it is registered")
        return score


@flow(name="test-retrain")
def _retrain_here(place: Workspace) -> Any:
    return run_retrain(place)


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "moment", ["before a stage", "before it is stored", "before it is registered"]
)
def test_an_erasure_during_the_retrain_is_honoured_by_the_version_it_registers(
    trained: Make, make_place: Make, tmp_path: Path, moment: str
) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    homes = _homes(place)
    first = [p[0] for home, p in homes.items() if home.shard == 0]
    late = homes[SliceId(0, 0)][1], homes[SliceId(0, 1)][1], homes[SliceId(1, 1)][0]
    take_requests(place, first)
    _erase_now(place)

    def another_erasure() -> None:
        take_requests(Workspace(place.root), list(late))
        _erase_now(Workspace(place.root))

    place.runner = Interrupted(another_erasure, moment)
    report = _retrain_here(place)
    state = place.ledger.state()
    assert _causes(place) == ["train", "erasure", "erasure", "retrain"]
    assert state.dataset is not None and report.version == "4"
    current = {v.digest for v in state.dataset.slice_versions.values()}
    assert all(set(s.slice_digests) <= current for r in _release(place).replicas for s in r.stages)
    events = place.ledger.events()
    certified = max(i for i, e in enumerate(events) if e["type"] == "certified")
    for event in events[
        certified:
    ]:  # nothing that saw an erased record was written after its certificate
        assert event["type"] != "stage" or set(event["stage"]["slice_digests"]) <= current
    assert set(place.store.digests()) == {s.digest for s in state.stages.values()}
    assert _digests(_release(place)) == _from_nothing(make_place, tmp_path, [*first, *late])


class Failing(ProcessRunner):
    """Real processes, until a stage is to be trained."""

    def train(self, job: StageJob) -> StageOutcome:
        raise TrainingError("expected a finite loss, got nan")


@pytest.mark.long
def test_a_retrain_that_fails_leaves_the_serving_version_and_says_so(trained: Make) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    take_requests(place, [p[0] for home, p in _homes(place).items() if home.shard == 0])
    _erase_now(place)
    with workspace_lock(place.lock_path):
        want_retrain(place, HELD)
    place.runner = Failing()
    with pytest.raises(TrainingError, match="finite loss"):
        _retrain_here(place)
    pending = place.ledger.state().retrain
    assert pending is not None and (pending.state, pending.problem) == (
        "failed",
        "TrainingError",
    )
    assert _causes(place) == ["train", "erasure"]
    champion_of(place).predict(["w1"])
    # an accuracy under the floor: trained, measured, never served
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("min_accuracy = 0.0", "min_accuracy = 1.0"))
    done = erase(str(place.root))
    assert done["retrain"] == "failed" and "no worse than 1" in done["problem"]
    assert _causes(place) == ["train", "erasure"]
    champion_of(Workspace(place.root)).predict(["w1"])
    # the stages are there: nothing is trained again once the floor is lowered
    path.write_text(path.read_text().replace("min_accuracy = 1.0", "min_accuracy = 0.0"))
    assert retrain(str(place.root))["trained"] == 0 and _causes(place)[-1] == "retrain"


def test_where_deadlines_allow_the_replacement_is_trained_first(
    trained: Make, make_place: Make, tmp_path: Path
) -> None:
    place = trained(erasure={"keep_clean_versions_days": 0})
    gone = [p[0] for home, p in _homes(place).items() if home.shard == 0]
    take_requests(place, gone)
    done = erase(str(place.root))
    assert (done["retrain"], done["version"], len(done["certificates"])) == ("first", "2", 2)
    assert _causes(place) == ["train", "retrain"]  # no version with a dead shard ever served
    assert [s["live_depth"] for s in status_of(place)["shards"]] == [2, 2]
    champion_of(place).predict(["w1"])
    assert not place.next_dir.exists()
    state = place.ledger.state()
    assert state.dataset is not None
    current = {v.digest for v in state.dataset.slice_versions.values()}
    assert all(set(s.slice_digests) <= current for r in _release(place).replicas for s in r.stages)
    assert _digests(_release(place)) == _from_nothing(make_place, tmp_path, gone)
    assert status_of(place)["deletion_budget"]["certain_requests_left"] == 1
    again = train(str(place.root))
    assert (again["trained"], again["version"]) == (
        0,
        "2",
    )  # the replacement is what training would give


@pytest.mark.long
def test_a_retrain_destroys_what_it_replaced_once_its_time_is_over(trained: Make) -> None:
    place = trained(deletion_budget=NEVER_FIRST, erasure={"keep_clean_versions_days": 0})
    old = set(place.store.digests())
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    place = Workspace(place.root)
    assert retrain(str(place.root))["reused"] == 0
    state = place.ledger.state()
    assert [v.destroyed for v in state.versions] == [True, False]
    assert set(place.store.digests()) == {
        s.digest for s in state.stages.values()
    } and not old & set(place.store.digests())
    assert [str(v.version) for v in place.registry.versions.all()] == ["2"]


@pytest.mark.long
def test_repair_restores_the_worst_shards_within_its_time_and_is_exact(
    trained: Make, make_place: Make, tmp_path: Path
) -> None:
    place = trained()
    person = _homes(place)[SliceId(1, 0)][0]
    take_requests(place, [person])
    assert erase(str(place.root))["retrain"] == "no"
    worn = place.ledger.state()
    assert (
        worn.dataset is not None
        and worn.release is not None
        and not is_complete(worn.release, worn.dataset)
    )
    nothing = repair(str(place.root), minutes=1e-9)
    assert (nothing["trained"], nothing["version"]) == (0, "2") and nothing["missing"] == 3
    done = repair(str(place.root), minutes=10)
    assert (done["trained"], done["missing"], done["version"]) == (3, 0, "3") and _causes(place)[
        -1
    ] == "repair"
    assert _digests(_release(place)) == _from_nothing(make_place, tmp_path, [person])
    assert repair(str(place.root), minutes=10)["version"] == "3"  # nothing more to do
    dataset = place.ledger.state().dataset
    assert dataset is not None and is_complete(_release(place), dataset)
    with pytest.raises(UsageError, match="above 0 minutes"):
        repair(str(place.root), minutes=0)
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    with pytest.raises(UsageError, match="s3t retrain"):
        repair(str(place.root), minutes=10)


def test_the_budget_is_an_artifact_of_the_erase_run(trained: Make) -> None:
    from prefect.artifacts import Artifact

    place = trained(deletion_budget={"policy": "requests", "max_requests": 5})
    person = _homes(place)[SliceId(0, 0)][0]
    take_requests(place, [person])
    erase(str(place.root))
    found = Artifact.get(key="deletion-budget")
    assert (
        found is not None
        and '"policy": "requests"' in str(found.data)
        and person not in str(found.data)
    )
    assert '"certain requests left": 2' in str(
        found.data
    )  # the shards may die before the five are used up


@pytest.mark.long
def test_a_budget_that_no_training_restores_does_not_retrain_for_ever(trained: Make) -> None:
    place = trained(deletion_budget={"policy": "requests", "max_requests": 1, **NEVER_FIRST})
    take_requests(place, ["nobody-of-this-name"])
    assert erase(str(place.root))["retrain"] in ("no", "done")
    take_requests(place, [_homes(place)[SliceId(0, 0)][0]])
    assert erase(str(place.root))["retrain"] == "done"
    before = len(_causes(place))
    assert erase(str(place.root))["retrain"] == "no" and len(_causes(place)) == before


@pytest.mark.long
def test_an_erasure_waits_for_a_training_that_is_writing_and_an_ingest_does_not_begin(
    trained: Make, tmp_path: Path
) -> None:
    place = trained()
    take_requests(place, [_homes(place)[SliceId(0, 0)][0]])
    writing, held = threading.Event(), threading.Event()

    def train_and_write() -> None:
        with workspace_lock(place.training_lock_path):
            with workspace_lock(place.lock_path):
                held.set()
                writing.wait(60)
            held.clear()
            writing.clear()
            writing.wait(60)

    trainer = threading.Thread(target=train_and_write)
    trainer.start()
    assert held.wait(60)
    threading.Timer(1.5, writing.set).start()
    assert len(erase(str(place.root))["certificates"]) == 1
    with pytest.raises(Busy, match="another s3t process"):
        ingest(str(place.root), str(tmp_path / "people.csv"))
    with pytest.raises(Busy, match="another s3t process"):
        train(str(place.root))
    writing.set()
    trainer.join()


def test_a_replacement_that_cannot_be_trained_does_not_hold_the_erasure_up(trained: Make) -> None:
    place = trained()
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("min_accuracy = 0.0", "min_accuracy = 1.0"))
    take_requests(place, [p[0] for home, p in _homes(place).items() if home.shard == 0])
    done = erase(str(place.root))
    assert len(done["certificates"]) == 2 and done["retrain"] == "failed"
    assert "no replacement could be trained first" in done["problem"]
    assert _causes(place) == ["train", "erasure"] and not place.next_dir.exists()
    champion_of(Workspace(place.root)).predict(["w1"])


class Dying(ProcessRunner):
    """Real processes; then something that is no error of this system, as when the process is
    killed."""

    def __init__(self, stages: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self._left = stages
        self._error = error

    def train(self, job: StageJob) -> StageOutcome:
        self._left -= 1
        if self._left < 0:
            raise self._error("a row's text")
        return super().train(job)


@flow(name="test-train-first")
def _plan_here(place: Workspace) -> Any:
    problems: list[str] = []
    eraser = Eraser(erase_ports(place, HELD), erase_policy(place), lambda: "plan-first")
    with workspace_lock(place.lock_path):
        draft = eraser.draft()
        assert draft is not None
        first = train_first(place, HELD, problems, AS_THEY_STAND, draft.plan)
        return eraser.begin(draft, first), problems


@pytest.mark.long
def test_what_a_run_killed_while_training_first_had_trained_does_not_outlive_the_next_erasure(
    trained: Make, make_place: Make, tmp_path: Path
) -> None:
    place = trained(runner={"workers": 1})
    homes = _homes(place)
    first = [p[0] for home, p in homes.items() if home.shard == 0]
    take_requests(place, first)
    place.runner = Dying(3)
    with pytest.raises(BaseException, match="row's text"):
        _plan_here(place)
    trained = {e["stage"]["key"] for e in place.ledger.events() if e["type"] == "stage"}
    assert (
        len(trained) > 8 and place.ledger.state().plan is None
    )  # stages of a replacement, and no plan
    late = [homes[SliceId(0, 0)][1], homes[SliceId(0, 1)][1]]
    take_requests(place, late)
    assert erase(str(place.root))["retrain"] == "first"
    state = place.ledger.state()
    assert state.dataset is not None
    current = {v.digest for v in state.dataset.slice_versions.values()}
    assert all(
        set(s.slice_digests) <= current for s in state.stages.values()
    )  # none that saw one of the four
    assert set(place.store.digests()) == {s.digest for s in state.stages.values()}
    assert _digests(_release(place)) == _from_nothing(make_place, tmp_path, [*first, *late])


def test_training_first_stops_in_time_and_survives_what_it_cannot_foresee(trained: Make) -> None:
    place = trained(runner={"workers": 1})
    take_requests(place, [p[0] for home, p in _homes(place).items() if home.shard == 0])
    state = place.ledger.state()
    assert state.dataset is not None

    @flow(name="test-out-of-time")
    def out_of_time() -> Any:
        assert state.dataset is not None
        targets = targets_of(place.requests.pending(place.ledger.state()), {})
        future = place.datasets.rewriting.preview(targets, state.dataset, place.next_dir)
        case = TrainingCase("retrain", FutureData(place, HELD, future), is_out_of_time=lambda: True)
        return train_replacement(place, case)

    with pytest.raises(TrainingError, match="before the requests had to go on"):
        out_of_time()
    place.runner = Dying(0, OSError)
    plan, problems = _plan_here(place)
    assert plan.recipe is None and plan.release is not None
    assert len(problems) == 1 and "OSError" in problems[0] and "row" not in problems[0]


class Overtaken(LiveData):
    """Just before a training would say what serves, an erasure happens that leaves the data as it
    is."""

    def __init__(self, place: Workspace, happens: Callable[[], None]) -> None:
        super().__init__(place)
        self._happens: Callable[[], None] | None = happens
        self._entered = 0

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        self._entered += 1
        if self._entered == 2 and self._happens:
            self._happens()
        with super().changing() as held:
            yield held


@flow(name="test-overtaken")
def _train_overtaken(place: Workspace, happens: Callable[[], None]) -> Any:
    with access.training(place):
        return run_training(place, TrainingCase("train", Overtaken(place, happens)), AS_THEY_STAND)


@pytest.mark.long
def test_a_training_with_nothing_to_do_does_not_undo_an_erasure_that_moved_the_version_on(
    trained: Make, tmp_path: Path
) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    person = _homes(place)[SliceId(0, 0)][0]
    source = write_csv(tmp_path / "without.csv", [r for r in people() if r["who"] != person])
    ingest(str(place.root), str(source))
    train(str(place.root))

    def an_erasure() -> None:
        other = Workspace(place.root)
        take_requests(other, [person])
        _erase_now(other)

    before = place.ledger.state().versions
    _train_overtaken(place, an_erasure)
    came = place.ledger.state().versions[len(before) :]
    assert [v.cause for v in came] == ["erasure"]
    assert not {v.release.release_id for v in came} & {v.release.release_id for v in before}


def test_a_version_of_another_shape_is_erased_from_without_a_forecast(
    trained: Make, tmp_path: Path
) -> None:
    place = trained(deletion_budget=NEVER_FIRST)
    path = place.root / "s3t.toml"
    path.write_text(
        path.read_text()
        .replace("slices = 2", "slices = 3")
        .replace('prior = "uniform"', ("prior = [0.2, 0.3, 0.5]"))
        .replace('sequences = "cyclic"', 'sequences = "optimised"')
    )
    ingest(str(place.root), str(tmp_path / "people.csv"))
    place = Workspace(place.root)
    assert status_of(place)["deletion_budget"]["forecast"] is None
    take_requests(place, [_homes(place)[SliceId(0, 0)][0]])
    assert len(erase(str(place.root))["certificates"]) == 1


def test_a_deployment_of_a_serve_that_is_gone_is_nobodys(
    make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext
    from types import SimpleNamespace

    from flows.adapters.locks import workspace_lock

    place, url = make_place(), "http://127.0.0.1:9/api"
    monkeypatch.setattr(
        "prefect.get_client",
        lambda **_: nullcontext(SimpleNamespace(read_deployment_by_name=lambda _: object())),
    )  # the server remembers it
    monkeypatch.setenv("PREFECT_API_URL", url)
    deployment = PrefectDeployment(FULL_RETRAIN, place.serve_lock_path)
    assert deployment.is_carried_out()  # a server of the operator's: its workers carry it out
    monkeypatch.setenv("S3T_PREFECT_URL", url)
    assert not deployment.is_carried_out()
    with workspace_lock(place.serve_lock_path):
        assert deployment.is_carried_out()
