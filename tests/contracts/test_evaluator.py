"""The promises of the port `Evaluator`: the score of how a release answers, and of the other
way."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from flows.use_cases.ingesting import ingest_source
from flows.use_cases.training import fill_in
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.jobs import ReleaseEvaluator
from flows.workspace.workspace import Workspace
from s3t_core.domain import Combine, Release, Replica, StageRecord
from s3t_core.ports import Evaluator
from tests.fakes import FakeEvaluator
from tests.flows.conftest import people, tiny_config, write_csv
from tests.tiny import build_backbone

WAYS: tuple[Combine, ...] = ("votes", "merged")


@dataclass(frozen=True)
class World:
    """An evaluator, and a release that answers, with its recipe."""

    evaluator: Evaluator
    release: Release
    recipe: dict[str, object]


def _fake() -> World:
    stage = StageRecord("1" * 64, "2" * 64, 0, (0,), ("3" * 64,), "")
    release = Release("release-1", "data-1", (Replica(0, 0, (0,), (stage,)),))
    return World(FakeEvaluator(lambda _: None), release, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of a tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(build_backbone(folder / "backbone"))
    place = Workspace(create_workspace(folder / "w", config).root)
    with access.changing(place) as held:
        source = str(write_csv(folder / "people.csv", people()))
        ingest_source(place, held, source, False, 20_000)
    fill_in(place, "train")
    champion = place.ledger.state().champion
    assert champion is not None
    return World(ReleaseEvaluator(place), champion.release, champion.recipe)


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield _fake() if request.param == "fake" else request.getfixturevalue("trained")


@pytest.mark.parametrize("combine", WAYS)
def test_a_release_is_measured_as_it_answers_and_the_other_way_beside_it(
    world: World, combine: Combine
) -> None:
    score = world.evaluator.score(world.release, world.recipe, combine)
    assert score is not None and score.otherwise is not None
    assert (score.combine, {score.combine, score.otherwise.combine}) == (combine, set(WAYS))
    assert score.otherwise.otherwise is None and score.metric == score.otherwise.metric
    assert score == world.evaluator.score(world.release, world.recipe, combine)


def test_asked_for_either_way_both_are_the_same_two_scores(world: World) -> None:
    votes, merged = (world.evaluator.score(world.release, world.recipe, way) for way in WAYS)
    assert votes is not None and votes.otherwise is not None and merged is not None
    assert replace(merged, otherwise=None) == votes.otherwise
    assert merged.otherwise == replace(votes, otherwise=None)


@pytest.mark.parametrize("combine", WAYS)
def test_of_a_release_without_a_live_shard_there_is_no_score(
    world: World, combine: Combine
) -> None:
    dead = tuple(replace(replica, stages=()) for replica in world.release.replicas)
    assert (
        world.evaluator.score(replace(world.release, replicas=dead), world.recipe, combine) is None
    )
