"""The eraser on fakes: what it leaves, and that it may die anywhere (hazards 6 and 12, invariants
1, 3, 4, 5)."""

import contextlib
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from s3t_core.domain import (
    HELD_OUT,
    Combine,
    DeletionRequest,
    Release,
    Replica,
    RowCounts,
    Score,
    SliceId,
    StageRecord,
)
from s3t_core.erasure import executor
from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.dataset_json import dataset_to_json
from s3t_core.erasure.dsse import statement_of, verify
from s3t_core.erasure.executor import STEPS, ErasePolicy, ErasePorts, Eraser
from s3t_core.erasure.outcome import outcome_of
from s3t_core.erasure.planner import plan_erasure, targets_of
from s3t_core.erasure.state import State
from s3t_core.errors import (
    CertificateError,
    GuaranteeError,
    LedgerError,
    ResidueFound,
    S3TError,
    WorkspaceError,
)
from s3t_core.ports import Closing
from s3t_core.release_json import release_to_json, stage_to_json
from s3t_core.times import parse_time, rfc3339
from tests.fakes import (
    POLICY,
    FakeDatasets,
    FakeLedger,
    FakeRegistry,
    FakeRequestBook,
    FakeStages,
    ports,
)

SHARDS, SLICES = 2, 3
BEGAN = "2026-01-01T00:00:00Z"
ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


class Killed(Exception):
    """The process died here."""


def _die() -> None:
    raise Killed


class Reaper:
    """Kills at the n-th call of any port, once."""

    def __init__(self, at: int = -1) -> None:
        self.calls = 0
        self.at = at

    def __call__(self, name: str) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Killed(name)


@dataclass
class World:
    ports: ErasePorts
    reaper: Reaper
    ledger: FakeLedger
    requests: FakeRequestBook
    datasets: FakeDatasets
    stages: FakeStages
    registry: FakeRegistry

    def eraser(self, policy: ErasePolicy = POLICY) -> Eraser:
        names = iter(range(10_000))
        return Eraser(self.ports, policy, lambda: f"plan-{len(self.ledger.events)}-{next(names)}")

    def ask(
        self, request_id: str, subject: str, record: str = "", due: str = "2026-01-31T00:00:00Z"
    ) -> None:
        suppression, time = f"suppressed {subject} {record}", self.ledger.state().time
        self.requests.requests[request_id] = DeletionRequest(
            request_id, subject, record, suppression, "commitment", time, due
        )
        self.ports.needles.files[request_id] = [subject]  # type: ignore[attr-defined]
        self.tell(
            type="request",
            request=request_id,
            subject=subject,
            record=record,
            suppression=suppression,
            commitment="commitment",
            salt="",
            due=due,
            near=[],
            asked_by="id",
            forms=[],
            once="",
            id_rule=[],
            ids=[f"digest of {subject}"],
        )

    def tell(self, **event: Any) -> None:
        """An event of now, taken by the ledger's rules."""
        self.ledger.take({"time": self.ledger.state().time, **event})


def make_world(kill_at: int = -1) -> World:
    """Two shards of three slices, three sequences each; subject `sSI-N` lives in shard S, slice
    I."""
    reaper = Reaper()
    rows: dict[Any, list[tuple[str, str]]] = {
        SliceId(s, i): [(f"s{s}{i}-{n}", f"r{n}") for n in range(3)]
        for s in range(SHARDS)
        for i in range(SLICES)
    }
    rows[HELD_OUT] = [("s00-0", "h0"), ("only-held-out", "h1")]
    ledger = FakeLedger(reaper)
    datasets = FakeDatasets(rows, SHARDS, SLICES, reaper)
    registry = FakeRegistry(reaper)
    dataset = datasets.version()
    datasets.quarantine = [("s00-1", ""), ("someone", "")]
    ledger.take(
        {"type": "workspace", "time": BEGAN},
        {"type": "dataset", "time": BEGAN, "cause": "ingest", "dataset": dataset_to_json(dataset)},
    )
    replicas = []
    for shard in range(SHARDS):
        for number, order in enumerate(ORDERS):
            stages = tuple(
                StageRecord(
                    f"key {shard} {order[:i]}",
                    f"digest {shard} {order[:i]}",
                    shard,
                    order[:i],
                    tuple(dataset.slice_versions[SliceId(shard, x)].digest for x in order[:i]),
                )
                for i in range(1, SLICES + 1)
            )
            new = {s.key: s for s in stages}.keys() - ledger.state().stages.keys()
            ledger.take(
                *(
                    {"type": "stage", "time": BEGAN, "stage": stage_to_json(s)}
                    for s in stages
                    if s.key in new
                )
            )
            replicas.append(Replica(shard, number, order, stages))
    release = Release("release-1", dataset.version, tuple(replicas))
    published = registry.publish(release, {}, {})
    ledger.take(
        {
            "type": "release",
            "time": BEGAN,
            "cause": "train",
            "release": release_to_json(release),
            "recipe": {},
            "version": published.version,
            "run_id": published.run_id,
            "model_id": published.model_id,
            "document": published.document,
            "staleness": 2.0,
        }
    )
    stages_port = FakeStages(
        {s.digest for r in replicas for s in r.stages} | {"orphan of a crash"}, reaper
    )
    requests = FakeRequestBook(ledger, reaper)
    world = World(
        ports(ledger, requests, datasets, stages_port, registry, reaper),
        reaper,
        ledger,
        requests,
        datasets,
        stages_port,
        registry,
    )
    reaper.calls, reaper.at = 0, kill_at
    return world


def _depths(state: State) -> dict[tuple[int, int], int]:
    assert state.release is not None
    return {(r.shard, r.number): r.depth for r in state.release.replicas}


def _check_finished(world: World, requests: list[str], subjects: list[str]) -> State:
    state = world.ledger.state()
    assert state.plan is None and world.requests.open_now() == []
    certified = [e["request"] for e in world.ledger.events if e["type"] == "certified"]
    assert sorted(certified) == sorted(requests)  # exactly one closing document each
    files = world.ports.certificates.files  # type: ignore[attr-defined]
    assert set(files) == set(requests)
    assert not any(s in subjects for rows in world.datasets.rows.values() for s, _ in rows)
    assert not any(s in subjects for rows in world.datasets.objects.values() for s, _ in rows)
    assert world.stages.held == {s.digest for s in state.stages.values()}
    live = {
        s.digest
        for v in world.registry.versions.values()
        for r in v["replicas"]
        for s in _stages(r)
    }
    assert live <= world.stages.held
    assert world.registry.alias == (state.champion.version if state.champion else "")
    assert not world.ports.needles.files  # type: ignore[attr-defined]
    return state


def _stages(replica: dict[str, Any]) -> list[Any]:
    from s3t_core.release_json import stage_from_json

    return [stage_from_json(s) for s in replica["stages"]]


def test_an_erasure_silences_exactly_the_stages_that_saw_the_slice() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    plan = world.eraser().run()
    state = _check_finished(world, ["q1"], ["s01-2"])
    assert _depths(state) == {(0, 0): 1, (0, 1): 0, (0, 2): 2, (1, 0): 3, (1, 1): 3, (1, 2): 3}
    assert plan is not None and len(plan.deactivated) == 2 + 3 + 1
    assert world.ports.clock.slept == 5.0  # type: ignore[attr-defined]  # the staleness bound passed
    assert set(world.registry.versions) == {
        "2"
    }  # hazard 12: the version that held tainted stages is gone
    assert "orphan of a crash" not in world.stages.held


def test_the_certificate_says_what_was_found_and_done() -> None:
    world = make_world()
    world.ask("q1", "s00-0")
    world.eraser().run()
    certificates = world.ports.certificates
    envelope = certificates.files["q1"]  # type: ignore[attr-defined]
    predicate = check_statement(verify(envelope, certificates.key.public_key()))  # type: ignore[attr-defined]
    assert predicate["found"].pop("row_commitments") == ["committed r0", "committed h0"]
    assert predicate["found"].pop("row_commitment_scheme").startswith("HMAC-SHA256")
    assert predicate["found"] == {
        "outcome": "erased",
        "rows": 2,
        "training_rows": 1,
        "held_out_rows": 1,
        "rows_in_earlier_data_versions": 0,
        "quarantined_rows": 0,
        "known": True,
        "erased_before_by_request": "",
        "id_searched": True,
    }
    assert predicate["versions"]["before"] == "1" and predicate["versions"]["after"] == "2"
    assert predicate["versions"]["destroyed"] == ["1"]
    assert predicate["batch"]["collateral_rows"] == 2
    assert predicate["dataset"]["before"] != predicate["dataset"]["after"]
    assert b"s00-0" not in envelope
    assert {d["stage"] for d in predicate["deactivated"]} == {1, 2, 3}


def test_hazard_6_deletions_only_accumulate() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    world.ask("q2", "s12-0")
    world.eraser().run()
    state = _check_finished(world, ["q1", "q2"], ["s01-2", "s12-0"])
    assert _depths(state) == {(0, 0): 1, (0, 1): 0, (0, 2): 2, (1, 0): 2, (1, 1): 1, (1, 2): 0}


def test_hazard_6_the_planner_starts_from_what_is_live_not_from_what_was_trained() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    world.ask("q2", "s12-0")
    state = world.ledger.state()
    asked = world.requests.pending(world.ports.ledger.state())
    targets = targets_of(asked, {})
    findings = world.datasets.find(targets, state.datasets, state.destroyed_objects)
    plan = plan_erasure(
        world.requests.pending(world.ports.ledger.state()),
        findings,
        state,
        "p",
        world.ports.clock.now(),
        7,
    )
    assert plan.release is not None and plan.release.stage_keys() <= state.stages.keys()


def test_a_subject_that_is_held_out_only_is_erased_and_a_new_version_serves() -> None:
    world = make_world()
    world.ask("q1", "only-held-out")
    world.eraser().run()
    state = _check_finished(world, ["q1"], ["only-held-out"])
    assert set(_depths(state).values()) == {3}
    assert world.registry.alias == "2" and set(world.registry.versions) == {
        "1",
        "2",
    }  # the old one is clean: kept


def test_clean_superseded_versions_go_when_their_time_is_over() -> None:
    world = make_world()
    world.ask("q1", "only-held-out")
    world.eraser().run()
    world.ports.clock.time += timedelta(days=8)  # type: ignore[attr-defined]
    world.ask("q2", "s00-0")
    world.eraser().run()
    assert set(world.registry.versions) == {"3"}


def test_an_unknown_subject_gets_a_certificate_that_says_so_and_nothing_changes() -> None:
    world = make_world()
    world.ask("q1", "nobody")
    world.eraser().run()
    state = _check_finished(world, ["q1"], ["nobody"])
    assert state.champion is not None and state.champion.version == "1"
    assert b"nobody" not in world.ports.certificates.files["q1"]  # type: ignore[attr-defined]


def test_an_already_erased_subject_gets_a_certificate_that_names_the_first_request() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    world.ask("q2", "s01-2")
    world.eraser().run()
    certificates = world.ports.certificates
    predicate = check_statement(
        verify(
            certificates.files["q2"],  # type: ignore[attr-defined]
            certificates.key.public_key(),
        )
    )  # type: ignore[attr-defined]
    assert (
        predicate["found"]["erased_before_by_request"] == "q1" and not predicate["found"]["known"]
    )


def _outcomes(world: World) -> dict[str, tuple[str, int]]:
    """By request, as ledger and certificate tell it: they agree."""
    told: dict[str, tuple[str, int]] = dict(world.ledger.state().outcomes)
    certificates = world.ports.certificates
    for request, content in certificates.files.items():  # type: ignore[attr-defined]
        found = check_statement(verify(content, certificates.key.public_key()))["found"]  # type: ignore[attr-defined]
        assert (found["outcome"], found["rows"]) == told[request]
    return told


def test_nobody_is_told_erased_of_whom_nothing_was_there() -> None:
    """A typo, another case, a header line: each is certified, and in words of its own (edges
    E2)."""
    world = make_world()
    for request, subject in (
        ("q1", "s00-1"),
        ("q2", "S00-1"),
        ("q3", "only-held-out"),
        ("q4", "subject"),
    ):
        world.ask(request, subject)
    world.eraser().run()
    assert _outcomes(world) == {
        "q1": ("erased", 2),
        "q2": ("nothing found", 0),
        "q3": ("held out only", 1),
        "q4": ("nothing found", 0),
    }
    world.ask("q5", "s00-1")
    world.eraser().run()
    assert _outcomes(world)["q5"] == ("nothing found", 0)  # its rows are erased


def test_who_came_since_the_training_was_not_trained_on_yet() -> None:
    world = make_world()
    world.datasets.rows[SliceId(1, 2)].append(("new", "r0"))
    world.tell(type="dataset", cause="ingest", dataset=dataset_to_json(world.datasets.version()))
    world.ask("q1", "new")
    world.eraser().run()
    assert _outcomes(world) == {"q1": ("not trained on yet", 1)}


def test_a_second_person_of_a_slice_whose_stages_are_gone_is_erased_all_the_same() -> None:
    """They were trained on: that no stage is left that saw them is the first erasure's doing."""
    world = make_world()
    world.datasets.rows[SliceId(0, 1)].append(("second", "r0"))
    world.tell(type="dataset", cause="ingest", dataset=dataset_to_json(world.datasets.version()))
    world.ask("q1", "s00-1")
    world.eraser().run()
    world.ask("q2", "second")
    world.eraser().run()
    assert _outcomes(world) == {"q1": ("erased", 2), "q2": ("erased", 1)}


@pytest.mark.parametrize(
    ("rows", "deactivated", "silenced", "outcome"),
    [
        ((0, 0, 0, 0), True, True, "nothing found"),
        ((1, 0, 0, 0), True, False, "erased"),
        ((1, 0, 0, 0), False, True, "erased"),
        ((1, 1, 1, 1), False, False, "not trained on yet"),
        ((0, 2, 0, 0), True, True, "held out only"),
        ((0, 0, 1, 0), False, False, "erased"),
        ((0, 0, 0, 3), False, False, "not trained on yet"),
        ((0, 1, 0, 3), False, False, "held out only"),
        ((0, 0, 4, 0), True, False, "erased"),
        ((0, 0, 4, 2), False, False, "erased"),
    ],
)
def test_an_outcome_follows_from_where_the_rows_were(
    rows: tuple[int, ...], deactivated: bool, silenced: bool, outcome: str
) -> None:
    place = SliceId(0, 0)
    assert (
        outcome_of(RowCounts(*rows), [place], deactivated, [place] if silenced else [], True)
        == outcome
    )


@pytest.mark.parametrize("rows", [(0, 0, 3, 0), (2, 0, 3, 0), (0, 0, 1, 1)])
def test_nobody_is_erased_from_a_model_where_none_was_ever_trained(rows: tuple[int, ...]) -> None:
    """Rows of an earlier data version alone may have been trained on, unless nothing ever was."""
    assert outcome_of(RowCounts(*rows), [SliceId(0, 0)], False, [], False) == "not trained on yet"


def test_one_record_of_a_subject_is_erased_and_the_rest_stays() -> None:
    world = make_world()
    world.datasets.rows[SliceId(0, 0)].append(("s00-0", "another"))
    world.tell(type="dataset", cause="ingest", dataset=dataset_to_json(world.datasets.version()))
    world.ask("q1", "s00-0", "another")
    world.eraser().run()
    assert ("s00-0", "r0") in world.datasets.rows[SliceId(0, 0)]
    assert ("s00-0", "another") not in world.datasets.rows[SliceId(0, 0)]


def test_stages_trained_on_an_earlier_data_version_are_found_without_the_subject_now() -> None:
    world = make_world()
    world.datasets.rows[SliceId(0, 1)] = [
        r for r in world.datasets.rows[SliceId(0, 1)] if r[0] != "s01-2"
    ]
    world.tell(type="dataset", cause="ingest", dataset=dataset_to_json(world.datasets.version()))
    world.ask("q1", "s01-2")
    world.eraser().run()
    state = _check_finished(world, ["q1"], ["s01-2"])
    assert _depths(state)[0, 0] == 1
    found = _predicate(world, "q1")["found"]
    assert (
        found["known"]
        and found["rows_in_earlier_data_versions"] == 1
        and found["training_rows"] == 0
    )


def test_a_plan_resumes_although_its_stages_are_gone_and_were_never_released() -> None:
    """A stage trained but never released is known by the plan alone once it is destroyed."""
    world = make_world()
    dataset = world.ledger.state().datasets[-1]
    lonely = StageRecord(
        "lonely", "lonely digest", 0, (1,), (dataset.slice_versions[SliceId(0, 1)].digest,)
    )
    world.tell(type="stage", stage=stage_to_json(lonely))
    world.stages.held.add("lonely digest")
    world.datasets.objects["a copy"] = [("s01-2", "r2")]
    world.ask("q1", "s01-2")
    with pytest.raises(ResidueFound):
        world.eraser().run()
    del world.datasets.objects["a copy"]
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])
    assert "lonely" in {d["key"] for d in _predicate(world, "q1")["deactivated"]}


def test_a_damaged_clean_stage_never_keeps_the_tainted_version_serving() -> None:
    world = make_world()
    world.stages.held.discard(
        "digest 1 (0,)"
    )  # shard 1 answers with replica 0, whose first stage is lost
    world.ask("q1", "s01-2")
    world.eraser().run()
    state = world.ledger.state()
    assert world.registry.alias == "2" and _depths(state)[1, 0] == 0 and _depths(state)[1, 1] == 3


def test_the_alias_is_made_to_agree_with_the_ledger_even_when_nothing_is_touched() -> None:
    world = make_world()
    world.registry.publish(Release("left by a crash", "", ()), {}, {})
    assert world.registry.alias == "2"
    world.ask("q1", "nobody")
    world.eraser().run()
    assert (world.registry.alias, set(world.registry.versions)) == ("1", {"1"})


def test_a_version_is_measured_as_it_answers_whatever_the_settings_say_by_now() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    measure = ports_of_measuring(world)
    world.eraser(replace(POLICY, combine="merged")).run()
    champion = world.ledger.state().champion
    assert champion is not None and champion.combine == "merged" and measure.asked == ["merged"]


def test_an_erasure_resumed_under_other_settings_measures_what_it_registered() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    measure = ports_of_measuring(world)
    measure.fails = True
    with pytest.raises(Killed):
        world.eraser(replace(POLICY, combine="merged")).run()
    measure.fails = False
    world.eraser().run()
    champion = world.ledger.state().champion
    assert champion is not None and champion.combine == "merged" and measure.asked == ["merged"]


@dataclass
class Measuring:
    """Fills the port `Evaluator`: notes how it is asked, or dies."""

    asked: list[Combine] = field(default_factory=list)
    fails: bool = False

    def score(self, release: Release, recipe: dict[str, Any], combine: Combine) -> Score | None:
        if self.fails:
            raise Killed
        self.asked.append(combine)
        return None


def ports_of_measuring(world: World) -> Measuring:
    """Put it in."""
    measuring = Measuring()
    world.ports = replace(world.ports, evaluator=measuring)
    return measuring


def test_a_measurement_that_fails_does_not_hold_the_certificate_up() -> None:
    from dataclasses import replace

    from s3t_core.errors import TrainingError

    class Broken:
        def score(self, release: Release, recipe: dict[str, Any], combine: Combine) -> Score | None:
            raise TrainingError("no memory")

    world = make_world()
    world.ports = replace(world.ports, evaluator=Broken())
    world.ask("q1", "s01-2")
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])
    assert _predicate(world, "q1")["accuracy"]["after"] is None


def test_an_earlier_data_version_that_cannot_be_read_counts_as_tainted() -> None:
    world = make_world()
    old = world.ledger.state().datasets[0].slice_versions[SliceId(1, 0)]
    world.datasets.rows[SliceId(1, 0)] = world.datasets.rows[SliceId(1, 0)][:1]
    world.tell(type="dataset", cause="ingest", dataset=dataset_to_json(world.datasets.version()))
    del world.datasets.objects[old.md5]
    world.ask("q1", "nobody")
    world.eraser().run()
    assert _depths(world.ledger.state())[1, 0] == 0


def test_when_every_shard_would_be_dead_nothing_tainted_serves() -> None:
    world = make_world()
    for s in range(SHARDS):
        for i in range(SLICES):
            world.ask(f"q{s}{i}", f"s{s}{i}-1")
    world.eraser().run()
    state = _check_finished(
        world,
        [f"q{s}{i}" for s in range(SHARDS) for i in range(SLICES)],
        [f"s{s}{i}-1" for s in range(SHARDS) for i in range(SLICES)],
    )
    assert set(_depths(state).values()) == {0} and world.stages.held == set()
    assert world.registry.alias == "2"  # a version without a stage: it refuses to answer


def test_residue_stops_before_a_certificate_and_a_later_run_finishes() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.datasets.objects["a copy the system forgot"] = [("s01-2", "r2")]
    with pytest.raises(ResidueFound, match="no certificate was written"):
        world.eraser().run()
    assert world.ledger.state().planned == ["q1"]  # somebody could train on rows
    assert not world.ports.certificates.files and world.ports.needles.files  # type: ignore[attr-defined]
    assert world.registry.alias == "2"  # what is done stays done
    del world.datasets.objects["a copy the system forgot"]
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])


def test_needles_that_a_restore_lost_lock_no_request_and_are_certified_as_unsearchable() -> None:
    """The ids as given are lost before the plan; the texts while it is open."""
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s00-0")
    del world.ports.needles.files["q1"]  # type: ignore[attr-defined]
    eraser = world.eraser()
    plan = eraser.plan()
    assert (
        plan is not None and len(plan.commitments["q1"]) == 1 and len(plan.commitments["q2"]) == 2
    )
    del world.ports.needles.texts[plan.plan_id]  # type: ignore[attr-defined]
    world.eraser().run()
    _check_finished(world, ["q1", "q2"], ["s01-2", "s00-0"])
    found = {q: _predicate(world, q) for q in ("q1", "q2")}
    assert [found[q]["found"]["id_searched"] for q in ("q1", "q2")] == [False, True]
    scan = found["q1"]["scan"]
    assert scan["unsearchable"] == scan["lost"] == 1 + plan.texts == 4  # an id, and three texts


def test_texts_that_were_taken_out_after_the_plan_are_certified_as_lost() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    plan = world.eraser().plan()
    assert plan is not None and plan.texts == 1
    world.ports.needles.texts[plan.plan_id] = {}  # type: ignore[attr-defined]
    world.eraser().run()
    assert _predicate(world, "q1")["scan"]["lost"] == 1


def test_one_of_the_texts_that_was_taken_out_after_the_plan_is_certified_as_lost() -> None:
    """The others are there: only their number says that one is not."""
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s02-1")
    plan = world.eraser().plan()
    assert plan is not None and plan.texts == 2
    del world.ports.needles.texts[plan.plan_id]["q2"]  # type: ignore[attr-defined]
    world.eraser().run()
    assert [_predicate(world, q)["scan"]["lost"] for q in ("q1", "q2")] == [2, 2]


def test_a_plan_that_a_training_came_before_carries_the_time_at_which_it_is_written() -> None:
    """A replacement may train for hours, and writes to the ledger meanwhile."""
    world = make_world()
    world.ask("q1", "s01-2")

    eraser = world.eraser()
    draft = eraser.draft()
    world.ports.clock.time += timedelta(hours=5)  # type: ignore[attr-defined]
    stray = StageRecord("stray key", "stray digest", 0, (0,), ("content of a replacement",), "run")
    world.ledger.take(
        {"type": "stage", "time": rfc3339(world.ports.clock.now()), "stage": stage_to_json(stray)}
    )
    assert draft is not None
    eraser.begin(draft)
    assert "clock" not in {e["type"] for e in world.ledger.events}


def test_the_eraser_waits_for_the_most_trusting_version_ever_published() -> None:
    """The staleness setting may have been lowered since a version that is still loaded somewhere
    was made."""
    world = make_world()
    next(e for e in world.ledger.events if e["type"] == "release")["staleness"] = 60.0
    world.ask("q1", "s01-2")
    world.eraser().run()
    assert world.ports.clock.slept == 60.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("staleness", "offline", "since"),
    [(90.0, 0.0, 30), (5.0, 1e9, 30), (0.0, 3600.0, 10**6), (60.0, 3600.0, -300)],
)
def test_what_serves_no_longer_may_be_trusted_by_whoever_loaded_it(
    staleness: float, offline: float, since: float
) -> None:
    """It may have seen who is to be erased, though nothing here has: then nothing is cut over, and
    a certificate of no offline use would not be true. How long ago it served, the clocks of two
    machines cannot say."""
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    clock: Any = world.ports.clock
    was = next(v for v in world.ledger.state().versions if v.superseded)
    first = next(e for e in world.ledger.events if e["type"] == "release")
    first |= {"staleness": staleness, "offline": offline}
    world.ask("q2", "nobody")
    clock.time, clock.slept = parse_time(was.superseded) + timedelta(seconds=since), 0.0
    plan = world.eraser().run()
    assert plan is not None and plan.release is None
    assert clock.slept == staleness
    times = _predicate(world, "q2")["times"]
    assert times["offline_use_declared_seconds"] == offline
    assert times["old_version_refused_after_seconds"] == staleness


def test_a_step_is_refused_before_the_ones_it_rests_on() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    eraser = world.eraser()
    plan = eraser.plan()
    assert plan is not None
    for step in STEPS[1:]:
        with pytest.raises(GuaranteeError, match="to be complete before"):
            eraser.run_step(step, plan)


def _predicate(world: World, request_id: str) -> dict[str, Any]:
    certificates = world.ports.certificates
    return check_statement(
        verify(
            certificates.files[request_id],  # type: ignore[attr-defined]
            certificates.key.public_key(),
        )
    )  # type: ignore[attr-defined]


def _calls_in_a_whole_run() -> int:
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s00-0")
    with contextlib.suppress(S3TError):  # the tests say what is wrong
        world.eraser().run()
    return world.reaper.calls


@pytest.mark.parametrize("at", range(1, _calls_in_a_whole_run() + 1))
def test_killed_at_any_call_of_a_port_a_rerun_finishes_with_one_certificate_each(at: int) -> None:
    world = make_world(kill_at=at)
    world.ask("q1", "s01-2")
    world.ask("q2", "s00-0")
    with pytest.raises(Killed):
        world.eraser().run()
    told = [v.version for v in world.ledger.state().versions]
    assert world.registry.alias in told, "whoever loads by the alias has a version that is known"
    # invariant 1: after the cut-over nothing tainted serves, wherever it died
    if any(e.get("step") == "cut over" for e in world.ledger.events):
        serving = world.registry.versions[world.registry.alias]
        assert serving["id"] != "release-1"
    world.eraser().run()
    _check_finished(world, ["q1", "q2"], ["s01-2", "s00-0"])


def test_killed_again_and_again_it_still_finishes() -> None:
    generator = random.Random(4)
    for _ in range(30):
        world = make_world(kill_at=generator.randint(1, 40))
        world.ask("q1", "s01-2")
        world.ask("q2", "s00-0")
        for _ in range(20):
            try:
                world.eraser().run()
                break
            except Killed:
                world.reaper.calls, world.reaper.at = 0, generator.randint(1, 40)
        _check_finished(world, ["q1", "q2"], ["s01-2", "s00-0"])


RUN_ID = "5f3aa10c44b24f0c9d4b7a3f0c1e2d4b"


def _asked_for_a_run(at: int = -1) -> World:
    """Somebody asks, by an id that is nobody's, for the id of a run, which stands in MLflow's
    database."""
    world = make_world(kill_at=at)
    world.ports.residue.words = {"mlflow.db": RUN_ID}  # type: ignore[attr-defined]
    world.ask("q1", "s01-2")
    world.ask("q2", RUN_ID)
    world.ask("q3", "nobody at all")
    return world


def _check_deferred(world: World) -> None:
    """What was asked for stays open, and is told nothing; everybody else's request is carried
    out."""
    state = world.ledger.state()
    assert state.plan is None and state.deferred == {"q2"} and state.outcomes.keys() == {"q1", "q3"}
    assert world.requests.open_now() == ["q2"]
    assert set(world.ports.certificates.files) == {"q1", "q3"}  # type: ignore[attr-defined]
    assert not any(s == "s01-2" for rows in world.datasets.objects.values() for s, _ in rows)
    assert (
        set(world.requests.suppression.values())
        == {r for _, r in state.suppressed.values()}
        == {"q1", "q3"}
    )
    assert world.ports.needles.files.keys() == {"q2"}  # type: ignore[attr-defined]


def test_what_is_asked_for_and_stands_where_nobodys_row_is_keeps_nobody_else() -> None:
    world = _asked_for_a_run()
    eraser = world.eraser()
    assert eraser.run() is not None
    assert eraser.deferred == {"q2": ("mlflow.db",)}
    _check_deferred(world)
    size = len(world.ledger.events)
    assert eraser.run() is None and world.eraser().run() is None
    assert len(world.ledger.events) == size  # it costs no entries, however often it is found
    world.ask("q4", "s11-0")
    world.eraser().run()
    assert world.ledger.state().outcomes["q4"][0] == "erased" and world.ledger.state().deferred == {
        "q2"
    }
    assert _predicate(world, "q4")["batch"]["requests"] == 1
    world.ports.residue.words = {}  # type: ignore[attr-defined]
    world.eraser().run()
    state = world.ledger.state()
    assert (
        state.outcomes["q2"][0] == "nothing found"
        and not state.deferred
        and not world.requests.open_now()
    )


@pytest.mark.parametrize("where", ["data", "quarantine"])
def test_a_deferred_request_is_carried_out_once_there_are_rows(where: str) -> None:
    """They may be what was found: whose data it is, is erased, and the scan says what is left."""
    world = _asked_for_a_run()
    world.eraser().run()
    if where == "data":
        world.datasets.rows[SliceId(1, 2)].append((RUN_ID, "r0"))
        version = dataset_to_json(world.datasets.version())
        world.tell(type="dataset", cause="ingest", dataset=version)
    else:
        world.datasets.quarantine.append((RUN_ID, "r0"))
    eraser = world.eraser()
    eraser.run()
    assert "mlflow.db" in eraser.uncertified["q2"]
    assert world.ledger.state().set_aside == ["q2"] and not world.ledger.state().deferred
    world.ports.residue.words = {}  # type: ignore[attr-defined]
    world.eraser().run()
    assert world.ledger.state().outcomes["q2"] == ("not trained on yet", 1)


def test_where_nobody_can_look_for_what_was_deferred_the_others_are_cut_over() -> None:
    """A machine that is away stops every scan, and so certificates, but nobody's cut-over."""
    world = _asked_for_a_run()
    world.eraser().run()
    world.ports.residue.away = True  # type: ignore[attr-defined]
    with pytest.raises(ResidueFound, match="away"):
        world.eraser().run()  # alone, what stops it is told
    world.ask("q4", "s11-0")
    eraser = world.eraser()
    with pytest.raises(ResidueFound, match="away"):
        eraser.run()
    state = world.ledger.state()
    assert state.planned == ["q4"] and "measure" in state.steps and "q2" in eraser.deferred
    world.ports.residue.away = False  # type: ignore[attr-defined]
    world.eraser().run()
    assert world.ledger.state().outcomes["q4"][0] == "erased"


def test_what_an_erasure_destroys_keeps_no_request_deferred() -> None:
    """A killed ingest left a file that no version has, in which somebody else says the id."""
    world = _asked_for_a_run()
    world.eraser().run()
    world.ports.residue.words = {}  # type: ignore[attr-defined]
    world.datasets.unrecorded = {"a killed ingest's": RUN_ID}
    world.eraser().run()
    assert world.datasets.unrecorded == {}
    assert world.ledger.state().outcomes["q2"] == ("nothing found", 0)


def test_a_deferred_request_may_be_withdrawn() -> None:
    world = _asked_for_a_run()
    world.eraser().run()
    world.tell(
        type="closed", request="q2", kind="withdrawal", certificate="0" * 64, by="x", basis=""
    )
    assert not world.ledger.state().deferred


LEFT = ("an id", "a text")
"""What of an erased person may be found."""


def _leave(world: World, left: str) -> None:
    """Something of s01-2 that the system forgot."""
    word = "s01-2" if left == "an id" else "text of s01-2 in r2"
    world.ports.residue.words["a copy"] = word  # type: ignore[attr-defined]


def _clear(world: World) -> None:
    world.ports.residue.words.pop("a copy", None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("left", LEFT)
def test_what_is_left_of_an_erased_person_keeps_that_one_alone_whatever_else_is_found(
    left: str,
) -> None:
    world = _asked_for_a_run()
    _leave(world, left)
    eraser = world.eraser()
    eraser.run()
    state = world.ledger.state()
    assert "a copy" in eraser.uncertified["q1"] and eraser.uncertified.keys() == {"q1"}
    assert state.set_aside == ["q1"] and state.deferred == {"q2"} and state.plan is None
    assert state.outcomes.keys() == {"q3"} and _predicate(world, "q3")["batch"]["requests"] == 1
    assert world.ports.needles.texts.keys() == state.uncertified.keys()  # type: ignore[attr-defined]
    _clear(world)
    world.eraser().run()
    _check_deferred(world)


@pytest.mark.parametrize("left", LEFT)
def test_who_is_found_again_is_not_certified_and_stops_nobody_who_asks_later(left: str) -> None:
    """Whoever has rows, and finds a way to have something of them stand where nobody removes it,
    kept everybody else from a certificate for ever."""
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s11-0")
    _leave(world, left)
    world.eraser().run()
    assert world.ledger.state().certified.keys() == {"q2"}
    size = len(world.ledger.events)
    assert world.eraser().run() is None
    assert len(world.ledger.events) == size  # it costs no entries, however often it is found
    world.ask("q3", "s02-1")
    again = world.eraser()
    assert again.run() is not None and again.run() is None
    assert world.ledger.state().certified.keys() == {"q2", "q3"} and "q1" in again.uncertified
    closed = {"type": "closed", "request": "q1", "kind": "withdrawal", "certificate": "0" * 64}
    with pytest.raises(LedgerError):
        world.tell(by="x", basis="", **closed)
    _clear(world)
    world.eraser().run()
    _check_finished(world, ["q1", "q2", "q3"], ["s01-2", "s11-0", "s02-1"])
    told = _predicate(world, "q1")
    assert told["found"]["outcome"] == "erased" and told["deactivated"]
    assert told["found"]["id_searched"] and told["scan"]["lost"] == 0
    assert told["versions"]["before"] == "1" and told["versions"]["after"] == world.registry.alias
    assert told["dataset"]["before"] != told["dataset"]["after"]
    assert told["batch"]["plan"] == _predicate(world, "q2")["batch"]["plan"]


def test_where_rows_are_found_too_nobody_is_set_aside() -> None:
    """Whoever is, leaves the workspace free to train: on what lies there."""
    world = _asked_for_a_run()
    _leave(world, "an id")
    world.datasets.objects["a copy of rows"] = [("s01-2", "r2")]
    with pytest.raises(ResidueFound, match="a copy of rows"):
        world.eraser().run()
    state = world.ledger.state()
    assert state.planned == ["q1", "q2", "q3"] and not state.set_aside and not state.deferred
    del world.datasets.objects["a copy of rows"]
    _clear(world)
    world.eraser().run()
    _check_deferred(world)


def _run_all(world: World) -> Eraser:
    eraser = world.eraser()
    while eraser.run() is not None:
        pass
    return eraser


@pytest.mark.parametrize("later", ["the whole person", "a record"])
def test_no_other_request_of_who_is_found_again_is_certified_before_it_is_gone(later: str) -> None:
    """Asked for in another form, the same person's text stood there under a certificate."""
    world = make_world()
    world.ask("q1", "s00-0", "r0" if later == "the whole person" else "")
    world.ports.residue.words["a copy"] = "text of s00-0 in r0"  # type: ignore[attr-defined]
    world.eraser().run()
    assert world.ledger.state().set_aside == ["q1"]
    world.ask("q2", "s00-0", "" if later == "the whole person" else "h0")
    world.ask("q3", "s11-0")
    eraser = _run_all(world)
    state = world.ledger.state()
    assert state.certified.keys() == {"q3"} and state.set_aside == ["q1", "q2"]
    assert state.found_again == ["q1"] and "another request asks for" in eraser.uncertified["q2"]
    size = len(world.ledger.events)
    assert world.eraser().run() is None and len(world.ledger.events) == size
    _clear(world)
    last = _run_all(world)
    assert world.ledger.state().certified.keys() == {"q1", "q2", "q3"}
    assert not last.uncertified.keys() - {"q2"}


def test_a_hash_of_nobody_waits_while_somebody_does_whose_rows_are_destroyed() -> None:
    """It may be theirs, whatever the hash and whatever was asked with: no index tells any more."""
    world = make_world()
    world.ask("q1", "s01-2")
    _leave(world, "a text")
    world.eraser().run()
    _ask_by_hash(world, "q2", "s01-2")
    _ask_by_hash(world, "q3", "s11-0")
    eraser = _run_all(world)
    state = world.ledger.state()
    assert state.certified.keys() == {"q3"} and state.set_aside == ["q1"]
    assert state.is_open("q2") and "may be the same person" in eraser.uncertified["q2"]
    _clear(world)
    _run_all(world)
    _run_all(world)
    assert world.ledger.state().certified.keys() == {"q1", "q2", "q3"}


@pytest.mark.parametrize("both", ["found", "one found"])
def test_two_requests_of_one_person_in_one_erasure_do_not_wait_for_each_other(both: str) -> None:
    world = make_world()
    world.ask("q1", "s00-0", "r0")
    world.ask("q2", "s00-0", "" if both == "found" else "h0")
    world.ports.residue.words["a copy"] = "text of s00-0 in r0"  # type: ignore[attr-defined]
    eraser = _run_all(world)
    state = world.ledger.state()
    assert set(state.set_aside) == {"q1", "q2"} and state.plan is None
    assert eraser.uncertified.keys() == {"q1", "q2"}
    world.ask("q3", "s11-0")
    _run_all(world)
    assert world.ledger.state().certified.keys() == {"q3"}
    _clear(world)
    last = _run_all(world)
    assert world.ledger.state().certified.keys() == {"q1", "q2", "q3"} and not last.uncertified


def test_who_is_found_after_a_kill_beside_one_that_was_set_aside_before_is_set_aside_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s11-0")
    _leave(world, "a text")
    scan, scans = world.ports.residue.scan, list[int]()

    def dying(*told: Any) -> Any:
        scans.append(1)
        return _die() if len(scans) == 2 else scan(*told)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(world.ports.residue, "scan", dying)
        world.eraser().run()
    world.ports.residue.words["another"] = "text of s11-0 in r0"  # type: ignore[attr-defined]
    _run_all(world)
    assert set(world.ledger.state().set_aside) == {"q1", "q2"}
    world.ports.residue.words.clear()  # type: ignore[attr-defined]
    _run_all(world)
    _check_finished(world, ["q1", "q2"], ["s01-2", "s11-0"])


def test_what_was_found_is_known_again_by_a_resumed_erasure_that_was_killed() -> None:
    """Its search was clean; then a restore brings the file back and loses the needles."""
    world = make_world()
    world.ask("q1", "s01-2")
    _leave(world, "a text")
    world.eraser().run()
    _clear(world)
    assert world.eraser().plan() is not None  # killed right after
    _leave(world, "a text")
    world.ports.needles.texts.clear()  # type: ignore[attr-defined]
    eraser = _run_all(world)
    assert not world.ledger.state().certified and "a copy as it was" in eraser.uncertified["q1"]
    _clear(world)
    _run_all(world)
    assert _predicate(world, "q1")["scan"]["lost"] == 1


@pytest.mark.parametrize("asked", ["by id", "by hash"])
def test_one_of_an_erasure_is_certified_while_what_was_found_of_another_still_stands(
    asked: str,
) -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s11-0") if asked == "by id" else _ask_by_hash(world, "q2", "s11-0")
    _leave(world, "a text")
    world.ports.residue.words["another"] = "text of s11-0 in r0"  # type: ignore[attr-defined]
    _run_all(world)
    assert set(world.ledger.state().set_aside) == {"q1", "q2"}
    del world.ports.residue.words["another"]  # type: ignore[attr-defined]
    _run_all(world)
    assert world.ledger.state().certified.keys() == {"q2"}
    assert world.ledger.state().set_aside == ["q1"]
    size = len(world.ledger.events)
    _run_all(world)
    assert len(world.ledger.events) == size


def test_what_a_cut_off_run_signed_is_not_there_while_rows_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ledger entry tells of it; somebody could show it."""
    world = make_world()
    world.ask("q1", "s01-2")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(world.requests, "close", lambda _: _die())
        world.eraser().run()
    certificates: Any = world.ports.certificates
    assert certificates.files.keys() == {"q1"}
    world.datasets.objects["a copy of rows"] = [("s01-2", "r2")]
    with pytest.raises(ResidueFound):
        world.eraser().run()
    assert not certificates.files


def test_an_erasure_is_not_resumed_into_rows() -> None:
    """It would be open again, and keep everybody."""
    world = make_world()
    world.ask("q1", "s01-2")
    _leave(world, "a text")
    world.eraser().run()
    _clear(world)
    world.datasets.objects["a copy of rows"] = [("s01-2", "r2")]
    eraser = _run_all(world)
    assert "a copy of rows" in eraser.uncertified["q1"] and world.ledger.state().plan is None


def _ask_by_hash(world: World, request: str, subject: str) -> None:
    world.ask(request, subject)
    asked = world.ledger.events[-1]
    asked |= {"asked_by": "md5", "forms": [subject], "subject": f"of {request}"}
    asked |= {"suppression": f"of {request}", "near": [], "ids": []}
    del world.ports.needles.files[request]  # type: ignore[attr-defined]  # nobody told an id
    held = world.requests.requests[request]
    world.requests.requests[request] = replace(
        held, subject=asked["subject"], suppression=asked["suppression"]
    )


def test_what_was_found_and_can_be_searched_for_no_more_is_not_taken_for_gone() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    _leave(world, "a text")
    world.eraser().run()
    world.ports.needles.texts.clear()  # type: ignore[attr-defined]
    world.ports.needles.files.clear()  # type: ignore[attr-defined]
    eraser = world.eraser()
    assert eraser.run() is None and "is lost" in eraser.uncertified["q1"]
    assert world.ledger.state().set_aside == ["q1"]
    _clear(world)
    world.eraser().run()
    assert _predicate(world, "q1")["scan"]["lost"] == 2


def test_needles_lost_while_a_request_waits_for_its_certificate_are_certified_as_lost() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.ask("q2", "s11-0")
    _leave(world, "a text")
    world.eraser().run()
    world.ports.needles.texts.clear()  # type: ignore[attr-defined]
    _clear(world)
    world.eraser().run()
    assert _predicate(world, "q1")["scan"]["lost"] == 1


def test_each_request_of_an_erasure_is_certified_when_nothing_of_it_is_found() -> None:
    """Three were set aside, one after another, and come back one after another."""
    world = make_world()
    subjects = {"q1": "s01-2", "q2": "s11-0", "q3": "s02-1"}
    for request, subject in subjects.items():
        world.ask(request, subject)
    words = world.ports.residue.words  # type: ignore[attr-defined]
    words |= {f"log of {r}": s for r, s in subjects.items()}
    world.eraser().run()
    assert set(world.ledger.state().set_aside) == set(subjects)
    for request in subjects:
        del words[f"log of {request}"]
        world.eraser().run()
        assert request in world.ledger.state().certified
        assert _predicate(world, request)["batch"]["requests"] == 1
    _check_finished(world, list(subjects), list(subjects.values()))


def test_where_nobody_can_search_again_others_are_carried_out_and_it_is_told() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    _leave(world, "an id")
    world.eraser().run()
    world.ports.residue.undecodable = ("broken",)  # type: ignore[attr-defined]
    _clear(world)
    eraser = world.eraser()
    assert eraser.run() is None and "broken" in eraser.uncertified["q1"]
    world.ports.residue.undecodable = ()  # type: ignore[attr-defined]
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])


def _calls_where_one_is_set_aside() -> int:
    world = _set_aside()
    with contextlib.suppress(S3TError):  # the tests say what is wrong
        world.eraser().run()
        _clear(world)
        world.eraser().run()
    return world.reaper.calls


def _set_aside(at: int = -1) -> World:
    world = make_world(at)
    world.ask("q1", "s01-2")
    world.ask("q2", "s11-0")
    _leave(world, "a text")
    return world


@pytest.mark.parametrize("at", range(1, _calls_where_one_is_set_aside() + 1))
def test_killed_at_any_call_where_a_request_is_set_aside_a_rerun_finishes(at: int) -> None:
    world = _set_aside(at)
    with pytest.raises(Killed):
        world.eraser().run()
        assert world.ledger.state().set_aside == ["q1"]
        _clear(world)
        world.eraser().run()
    world.eraser().run()
    _clear(world)
    world.eraser().run()
    _check_finished(world, ["q1", "q2"], ["s01-2", "s11-0"])


@pytest.mark.parametrize("left", [RUN_ID, "s01-2"])
def test_what_a_certified_request_asked_for_stops_no_other_after_a_crash(
    left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was killed between two batches of certificates; the next one searches again, on the
    record. What those asked for that are certified may stand in a file by then, as it may after
    any certificate: that one's own search found nothing."""
    monkeypatch.setattr(executor, "_BATCH", 1)
    world = make_world()
    world.ask("q1", RUN_ID)
    world.ask("q2", "s01-2")
    world.ask("q3", "s11-0")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        closed, close = list[Closing](), world.requests.close
        patched.setattr(world.requests, "close", lambda done: closed.extend(done) or close(done))
        patched.setattr(world.ports.residue, "check", lambda: _die() if len(closed) == 2 else None)
        world.eraser().run()
    assert world.ledger.state().certified.keys() == {"q1", "q2"}
    world.ports.residue.words = {"mlflow.db": left}  # type: ignore[attr-defined]
    world.eraser().run()
    _check_finished(world, ["q1", "q2", "q3"], ["s01-2", "s11-0"])


def _calls_where_one_is_deferred() -> int:
    world = _asked_for_a_run()
    with contextlib.suppress(S3TError):  # the tests say what is wrong
        world.eraser().run()
    return world.reaper.calls


@pytest.mark.parametrize("at", range(1, _calls_where_one_is_deferred() + 1))
def test_killed_at_any_call_where_a_request_is_deferred_a_rerun_finishes(at: int) -> None:
    world = _asked_for_a_run(at)
    with pytest.raises(Killed):
        world.eraser().run()
    world.eraser().run()
    _check_deferred(world)


def test_a_replacement_trained_first_is_cut_over_to_with_its_own_recipe_after_a_crash_too() -> None:
    world = make_world()
    world.ask("q1", "s00-0")
    recipe = {"model": "another"}

    eraser = world.eraser()
    draft = eraser.draft()
    assert draft is not None and draft.plan.release is not None
    assert world.ledger.state().plan is None  # a run killed while it trains leaves no plan
    eraser.begin(draft, (replace(draft.plan.release, release_id="replacement"), recipe))
    done = Eraser(
        world.ports, POLICY, lambda: "plan-y"
    ).run()  # the run was killed: the plan stands for itself
    assert done is not None and done.recipe == recipe
    champion = world.ledger.state().champion
    assert champion is not None
    assert (champion.release.release_id, champion.cause, champion.recipe) == (
        "replacement",
        "retrain",
        recipe,
    )
    assert world.ledger.state().requests_since_training == 0


def test_a_replacement_with_a_tainted_stage_is_not_cut_over_to() -> None:
    world = make_world()
    world.ask("q1", "s00-0")
    serving = world.ledger.state().release
    assert serving is not None
    eraser = world.eraser()
    draft = eraser.draft()
    assert draft is not None and not draft.is_begun
    plan = eraser.begin(draft, (serving, {}))
    assert plan.release is not None and plan.recipe is None
    assert not plan.release.stage_keys() & {s.key for s in plan.deactivated}


def test_a_stage_that_saw_what_never_was_the_data_goes_with_the_next_erasure() -> None:
    """A run was killed while it trained a replacement on the data without one person; then another
    one of that slice asks. The stage saw the second, on a slice version that no data version
    has."""
    world = make_world()
    stray = StageRecord(
        "stray key", "stray digest", 0, (0,), ("slice 0 without one person",), "run"
    )
    world.tell(type="stage", stage=stage_to_json(stray))
    world.stages.held.add(stray.digest)
    kept = set(world.ledger.state().stages) - {stray.key}
    world.ask("q1", "only-held-out")
    assert world.eraser().run() is not None
    assert (
        set(world.ledger.state().stages) == kept
    )  # the others saw recorded data without the person
    assert stray.digest not in set(world.stages.digests())
    step = next(e for e in world.ledger.events if e.get("step") == "destroy")
    assert step["stages"] == [stray.key]


def test_a_held_or_unapproved_request_waits_and_is_carried_out_afterwards() -> None:
    world = make_world()
    for request, subject in (("q1", "s01-2"), ("q2", "s00-0"), ("q3", "s02-1")):
        world.ask(request, subject)
    world.tell(type="hold", state="set", subject="s01-2", id_rule=[])
    for request in ("q1", "q2"):
        world.tell(type="approved", request=request, by="officer")
    careful = Eraser(world.ports, replace(POLICY, needs_approval=True), lambda: "plan-a")
    plan = careful.run()
    assert plan is not None and plan.requests == ("q2",)
    assert set(world.requests.open_now()) == {"q1", "q3"}
    assert {"q1", "q3"} <= set(world.ports.needles.files)  # type: ignore[attr-defined]  # their needles wait too
    assert any(s == "s01-2" for rows in world.datasets.rows.values() for s, _ in rows)
    assert _predicate(world, "q2")["request"]["approver"] == "officer"
    assert careful.run() is None
    world.tell(type="hold", state="released", subject="s01-2")
    released = Eraser(world.ports, POLICY, lambda: "plan-b").run()
    assert released is not None and set(released.requests) == {"q1", "q3"}
    _check_finished(world, ["q1", "q2", "q3"], ["s01-2", "s00-0", "s02-1"])


def test_a_ledger_in_which_a_request_was_closed_while_it_was_carried_out_is_refused() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().plan()
    closed = {"type": "closed", "request": "q1", "kind": "withdrawal", "certificate": "0" * 64}
    with pytest.raises(LedgerError, match="not being carried out"):
        world.tell(**closed)
    world.ledger.events.append({**closed, "time": BEGAN})
    with pytest.raises(LedgerError, match="not being carried out"):
        world.ledger.state()


def test_a_certificate_names_every_stage_that_is_live_and_the_slices_that_fed_it() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    release = world.ledger.state().release
    assert release is not None
    live = _predicate(world, "q1")["live"]
    assert {s["digest"] for s in live} == {
        s.digest for r in release.replicas for s in r.stages
    } and len(live) == 12
    assert not any(
        s["shard"] == 0 and 1 in s["slices"] for s in live
    )  # the silenced slice fed none of them


def test_a_certificate_that_tells_of_another_scan_than_its_ledger_is_refused() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    world.eraser().run()
    certificates = world.ports.certificates
    statement = verify(certificates.files["q1"], certificates.key.public_key())  # type: ignore[attr-defined]
    good = statement["predicate"]
    assert check_statement(statement) == good
    for part, key, value in (
        ("scan", "files", 99),
        ("ledger", "index", 0),
        ("ledger", "root", "00" * 32),
        ("ledger", "proof", []),
        ("ledger", "entry", good["ledger"]["entry"] | {"files": 99}),
        ("batch", "plan", "another plan"),
        ("ledger", "entry", None),
        ("ledger", "size", "9"),
    ):
        with pytest.raises(CertificateError, match="the scan this certificate tells of"):
            check_statement(statement | {"predicate": good | {part: good[part] | {key: value}}})


def test_a_stray_stage_on_a_slice_version_whose_file_is_destroyed_goes_too() -> None:
    """Once that content was the data; its object is gone, so nobody can look up whose rows the
    stage saw."""
    world = make_world()
    world.ask("q0", "s01-2")
    before = world.ledger.state().dataset
    assert before is not None
    world.eraser().run()
    old = before.slice_versions[SliceId(0, 1)]
    assert old.md5 in world.ledger.state().destroyed_objects
    stray = StageRecord("stray key", "stray digest", 0, (1,), (old.digest,), "run")
    world.tell(type="stage", stage=stage_to_json(stray))
    world.stages.held.add(stray.digest)
    kept = set(world.ledger.state().stages) - {stray.key}
    world.ask("q1", "only-held-out")
    world.eraser().run()
    assert set(world.ledger.state().stages) == kept and stray.digest not in world.stages.held


@pytest.mark.parametrize(
    ("written", "do"), [((), "Remove what is broken"), (("a.gz",), "A running process")]
)
def test_what_cannot_be_searched_to_its_end_stops_the_certificate(
    written: tuple[str, ...], do: str
) -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    residue: Any = world.ports.residue
    residue.undecodable, residue.written = ("a.gz",), written
    with pytest.raises(
        ResidueFound, match=rf"expected .*, got 1 that cannot be decoded: a\.gz.*{do}"
    ):
        world.eraser().run()
    assert not world.ports.certificates.files  # type: ignore[attr-defined]
    residue.undecodable = ()
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])


def test_a_place_that_began_to_keep_what_is_deleted_stops_the_certificate_after_the_scan() -> None:
    world = make_world()
    world.ask("q1", "s01-2")
    eraser = world.eraser()
    plan = eraser.plan()
    assert plan is not None
    for step in STEPS[:-1]:
        eraser.run_step(step, plan)
    residue: Any = world.ports.residue
    residue.keeping = True
    with pytest.raises(WorkspaceError, match="keeps what is deleted"):
        eraser.run_step("certify", plan)
    assert not world.ports.certificates.files and not world.ledger.state().certified  # type: ignore[attr-defined]
    residue.keeping = False
    world.eraser().run()
    _check_finished(world, ["q1"], ["s01-2"])


def test_a_request_for_one_record_takes_its_quarantined_rows_and_those_without_one() -> None:
    world = make_world()
    world.datasets.quarantine = [
        ("s01-2", "r2"),
        ("s01-2", "other"),
        ("s01-2", ""),
        ("someone", "r2"),
    ]
    world.ask("q1", "s01-2", "r2")
    world.eraser().run()
    assert world.datasets.quarantine == [("s01-2", "other"), ("someone", "r2")]


def test_the_entry_that_tells_of_a_certificate_is_of_its_time() -> None:
    """A machine may sleep between the two: then the ledger takes no entry of so long ago, and what
    is signed anew says by itself whether it is late."""
    world = make_world()
    world.ask("req-0", "s00-1")
    world.eraser().run()
    [event] = [e for e in world.ledger.events if e["type"] == "certified"]
    [signed] = world.ports.certificates.files.values()  # type: ignore[attr-defined]
    assert event["time"] == statement_of(signed)["predicate"]["times"]["certified"]
