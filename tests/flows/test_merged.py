"""A version answers by votes or as one model, as the settings said when it was registered, and its
score is that of what answers."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.adapters.runner import ProcessRunner
from flows.prefect_flows.erase import erase
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.workspace.jobs import ReleaseEvaluator
from flows.workspace.workspace import Workspace
from s3t_core.domain import Combine, Score
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.jobs import MeasureJob
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.release import recipe_from_json
from tests.flows.conftest import CANARY

pytestmark = pytest.mark.slow
TEXTS = ["w1 w2 w3 w4", "w5", "w9 w8 w7 w6 w5 w4 w3"]


def _recipe(place: Workspace) -> Recipe:
    champion = place.ledger.state().champion
    assert champion is not None
    return recipe_from_json(champion.recipe)


def _ensemble(place: Workspace, combine: Combine) -> Ensemble:
    champion, recipe = place.ledger.state().champion, _recipe(place)
    assert champion is not None
    return Ensemble(
        find_backbone(recipe.model), recipe, champion.release, place.store.get, combine=combine
    )


def _chances(place: Workspace, combine: Combine) -> list[dict[str, float]]:
    return [p.probabilities for p in _ensemble(place, combine).predict(TEXTS)]


def _served(place: Workspace) -> list[dict[str, float]]:
    return [dict(a["probabilities"]) for a in champion_of(place).predict(TEXTS)]


def test_the_settings_say_how_the_versions_answer_that_are_registered_from_then_on(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = trained(canary=True, serving={"combine": "merged"})
    votes = _chances(place, "votes")
    assert votes != _chances(place, "merged")
    assert _served(place) == votes  # it was registered before
    take_requests(place, [CANARY])
    done = erase(str(place.root))
    assert done["version"] == "2" and done["certificates"]
    merged = _chances(place, "merged")
    assert _served(place) == merged != _chances(place, "votes")
    state = place.ledger.state()
    assert state.champion is not None
    measured: list[str] = []
    measure = ProcessRunner.measure

    def seen(runner: ProcessRunner, job: MeasureJob) -> Score | None:
        measured.append(job.combine)
        return measure(runner, job)

    monkeypatch.setattr(ProcessRunner, "measure", seen)
    champion = state.champion
    score = ReleaseEvaluator(place).score(champion.release, champion.recipe, champion.combine)
    assert measured == ["merged"]  # over few rows both ways may score alike
    held_out = place.held_out_ref(state)
    from s3t_core.slicefile import read_verified

    rows = list(read_verified(held_out.path, place.keys, held_out.digest))
    assert score == champion.score and score is not None and score.otherwise is not None
    for way in (score, score.otherwise):
        assert way.combine is not None
        alone = replace(way, combine=None, otherwise=None)
        assert alone == _ensemble(place, way.combine).score(rows)
    assert (score.combine, score.otherwise.combine) == ("merged", "votes")
    tags = place.registry.tags("2")
    assert tags["s3t.accuracy_merged"] == f"{score.value:.4f}" == tags["s3t.accuracy"]
    assert tags["s3t.accuracy_votes"] == f"{score.otherwise.value:.4f}"


def test_train_registers_a_version_that_answers_as_the_settings_say_by_now(
    trained: Callable[..., Workspace],
) -> None:
    place = trained(canary=True, serving={"combine": "merged"})
    votes, merged = _chances(place, "votes"), _chances(place, "merged")
    assert _served(place) == votes
    done = train(str(place.root))
    assert (done["trained"], done["version"]) == (0, "2") and _served(place) == merged
    assert train(str(place.root))["version"] == "2"  # it answers so by now
    champion = place.ledger.state().champion
    assert champion is not None and champion.combine == "merged"
