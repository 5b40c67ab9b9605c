"""What a training has to do, for any topology, any empty slices and any part of it done before."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.domain import DatasetVersion, Release, SliceId, SliceVersion, StageRecord
from s3t_core.errors import UsageError
from s3t_core.learning.recipe import NumericProfile, Recipe, Wanted, wanted
from s3t_core.learning.training_plan import (
    TrainingPlan,
    has_moved,
    is_complete,
    plan_training,
    replicas_with,
    same_stages,
    worst_shards_first,
)


def _recipe(slices: int) -> Recipe:
    return Recipe(
        model="tiny",
        backbone_digest="b" * 64,
        tokenizer_digest="c" * 64,
        labels=("a", "b"),
        max_length=16,
        blocks=tuple((i,) for i in reversed(range(slices))),
        adapter={},
        training={"seed": 0},
        profile=NumericProfile("2", "5", "0", "avx2", 1),
    )


def _data(rows: list[list[int]], version: str = "v", prefix: str = "") -> DatasetVersion:
    return DatasetVersion(
        version,
        len(rows),
        len(rows[0]),
        {
            SliceId(s, i): SliceVersion(f"{prefix}{s}-{i}-{n}", n, "md5")
            for s, shard in enumerate(rows)
            for i, n in enumerate(shard)
        },
        SliceVersion("held", 0, "md5"),
    )


@dataclass(frozen=True)
class Case:
    """A topology with its data, and every stage trained."""

    data: DatasetVersion
    recipe: Recipe
    wanted: Wanted

    @property
    def everything(self) -> dict[str, StageRecord]:
        """All stages, by key."""
        return {s.key: s.record(f"digest of {s.key}") for s in self.wanted.stages}

    def plan(
        self,
        recorded: dict[str, StageRecord],
        stored: dict[str, str] | None = None,
        lost: frozenset[str] = frozenset(),
    ) -> TrainingPlan:
        """The plan with so many recorded, and these digests gone from the store."""
        sequences = cyclic_sequences(self.data.slices, self.data.slices)
        return plan_training(
            self.recipe, sequences, self.data, recorded, stored or {}, lambda d: d not in lost
        )


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    shards, slices = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    few = st.integers(0, 2)
    rows = draw(
        st.lists(st.lists(few, min_size=slices, max_size=slices), min_size=shards, max_size=shards)
    )
    data, recipe = _data(rows), _recipe(slices)
    return Case(data, recipe, wanted(recipe, cyclic_sequences(slices, slices), data))


@given(_cases(), st.data())
def test_every_wanted_stage_is_present_unrecorded_or_missing_and_none_twice(
    case: Case, data: st.DataObject
) -> None:
    every = case.everything
    some = st.sets(st.sampled_from(sorted(every))) if every else st.just(set())
    known, stored, lost = data.draw(some), data.draw(some), data.draw(some)
    plan = case.plan(
        {k: every[k] for k in known},
        {k: every[k].digest for k in stored},
        frozenset(every[k].digest for k in lost),
    )
    taken, missing = {s.key for s in plan.unrecorded}, {s.key for s in plan.missing}
    assert set(plan.present) == known - lost
    assert taken == stored - known
    assert missing == set(every) - set(plan.present) - taken
    assert plan.at_hand().keys() | missing == plan.keys()


@given(_cases())
def test_a_stage_comes_after_those_it_builds_on_in_both_orders(case: Case) -> None:
    plan = case.plan({})
    serving = Release("r", "v", replicas_with(plan.wanted, {}))
    for order in (list(plan.missing), worst_shards_first(plan, serving)):
        seen: set[str] = set()
        for spec in order:
            assert {k for k in spec.earlier if k} <= seen
            seen.add(spec.key)
        assert seen == plan.keys()


@given(_cases(), st.data())
def test_a_replica_ends_before_its_first_stage_that_is_not_done(
    case: Case, data: st.DataObject
) -> None:
    every = case.everything
    gone = data.draw(st.sets(st.sampled_from(sorted(every)))) if every else set()
    done = {k: v for k, v in every.items() if k not in gone}
    for replica, called_for in zip(
        replicas_with(case.wanted, done), case.wanted.replicas, strict=True
    ):
        keys = [k for k in called_for.keys if k]
        live = [s.key for s in replica.stages]
        assert live == keys[: len(live)] and not set(live) & gone
        assert len(live) == len(keys) or keys[len(live)] in gone


@given(_cases(), st.data())
def test_a_release_is_complete_exactly_when_no_stage_is_missing_and_the_data_is_the_same(
    case: Case, data: st.DataObject
) -> None:
    every = case.everything
    whole = Release("r", "v", replicas_with(case.wanted, every))
    assert is_complete(whole, case.data)
    if not every:
        return
    gone = data.draw(st.sampled_from(sorted(every)))
    worn = replicas_with(case.wanted, {k: v for k, v in every.items() if k != gone})
    assert not is_complete(Release("r", "v", worn), case.data)
    shards = case.data.shards
    other = _data([[1] * case.data.slices for _ in range(shards)], prefix="other ")
    assert not is_complete(whole, other)


@given(_cases())
def test_a_stage_has_moved_when_a_slice_that_it_saw_changed_or_one_below_it_is_gone(
    case: Case,
) -> None:
    every = case.everything
    for spec in case.wanted.stages:
        assert has_moved(None, every, spec)
        assert not has_moved(case.data, every, spec)
        for below in (k for k in spec.earlier if k):
            assert has_moved(case.data, {k: v for k, v in every.items() if k != below}, spec)
        for place, version in case.data.slice_versions.items():
            changed = case.data.slice_versions | {place: replace(version, digest="another")}
            touches = place.shard == spec.shard and place.index in spec.prefix
            now = replace(case.data, slice_versions=changed)
            assert has_moved(now, every, spec) == touches


def test_stages_of_the_same_bytes_under_another_key_are_not_the_same() -> None:
    data, recipe = _data([[1, 1]]), _recipe(2)
    plan = wanted(recipe, cyclic_sequences(2, 2), data)
    done = {s.key: s.record("digest") for s in plan.stages}
    mine = replicas_with(plan, done)
    theirs = tuple(
        replace(r, stages=tuple(replace(s, key=f"other {s.key}") for s in r.stages)) for r in mine
    )
    assert same_stages(Release("r", "v", mine), mine)
    assert not same_stages(Release("r", "v", theirs), mine)


def test_a_repair_begins_with_the_worst_shard_and_refuses_what_it_cannot_repair() -> None:
    case = _case_of([[1, 1], [1, 1]])
    every = case.everything
    worn = {k: v for k, v in every.items() if v.shard == 0 and len(v.prefix) == 1}
    plan = case.plan(worn)
    serving = Release("r", "v", replicas_with(case.wanted, worn))
    assert [s.shard for s in worst_shards_first(plan, serving)] == [1, 1, 1, 1, 0, 0]
    strange = StageRecord("another", "digest", 0, (0,), ("x",))
    first, *rest = serving.replicas
    other = Release("r", "v", (replace(first, stages=(strange,)), *rest))
    with pytest.raises(UsageError, match="s3t retrain"):
        worst_shards_first(plan, other)


def _case_of(rows: list[list[int]]) -> Case:
    data, recipe = _data(rows), _recipe(len(rows[0]))
    return Case(data, recipe, wanted(recipe, cyclic_sequences(data.slices, data.slices), data))
