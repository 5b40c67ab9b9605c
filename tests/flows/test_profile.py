"""A machine that computes something else, in the middle of a workspace's life: nothing of two
profiles is served."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from flows.adapters.runner import ProcessRunner
from flows.prefect_flows.erase import erase
from flows.prefect_flows.repair import repair
from flows.prefect_flows.train import train
from flows.use_cases.replaying import replay
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.domain import Replica, StageRecord
from s3t_core.errors import GuaranteeError, UsageError
from s3t_core.learning.jobs import DescribeJob, Description, StageJob, StageOutcome
from s3t_core.learning.recipe import NumericProfile, Wanted
from s3t_core.learning.release import check_one_recipe, recipe_from_json
from s3t_core.learning.training_plan import replicas_with
from tests.flows.conftest import CANARY

pytestmark = pytest.mark.slow


class Upgraded(ProcessRunner):
    """After an upgrade of a library that changes no byte of these stages: another profile all the
    same."""

    mine: NumericProfile

    def describe(self, job: DescribeJob) -> Description:
        found = super().describe(job)
        self.mine = found.profile
        return replace(found, profile=replace(found.profile, pillow="later"))

    def train(self, job: StageJob) -> StageOutcome:
        assert job.recipe.profile.pillow == "later"  # else a real worker refuses
        return super().train(replace(job, recipe=replace(job.recipe, profile=self.mine)))


@pytest.mark.long
def test_after_an_upgrade_nothing_is_taken_over_and_the_next_version_is_of_one_profile(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = trained(canary=True, deletion_budget={"policy": "all_shards_dead"})
    stages = len(place.ledger.state().stages)
    take_requests(place, [CANARY])
    erase(str(place.root))  # what serves has fewer stages, all of the one recipe
    served = place.ledger.state().champion
    assert served is not None
    check_one_recipe(served.release, recipe_from_json(served.recipe))
    monkeypatch.setattr("flows.adapters.runner.ProcessRunner", Upgraded)
    with pytest.raises(UsageError, match="s3t retrain"):
        repair(str(place.root))
    again = train(str(place.root))
    assert (again["trained"], again["reused"]) == (stages, 0)
    champion = Workspace(place.root).ledger.state().champion
    assert champion is not None and champion.version != served.version
    assert recipe_from_json(champion.recipe).profile.pillow == "later"
    check_one_recipe(champion.release, recipe_from_json(champion.recipe))
    upgraded = Workspace(place.root)
    upgraded.runner = ProcessRunner()  # the machine of before
    assert {s["result"] for s in replay(upgraded, 1)["stages"]} == {
        "not comparable: another numeric profile"
    }
    with pytest.raises(GuaranteeError, match="wanted and got: pillow later and"):
        ProcessRunner().train(_a_job(upgraded))


def _a_job(place: Workspace) -> StageJob:
    from flows.workspace.jobs import stage_job
    from s3t_core.learning.recipe import wanted

    state = place.ledger.state()
    assert state.champion is not None and state.dataset is not None
    recipe = recipe_from_json(state.champion.recipe)
    sequences = list(dict.fromkeys(r.sequence for r in state.champion.release.replicas))
    spec = wanted(recipe, sequences, state.dataset).stages[0]
    file_of = (place.root / "data").joinpath
    return stage_job(place, recipe, spec, state.stages, place.held_out_ref(state), file_of)


def test_stages_of_the_same_bytes_but_another_profile_become_a_version_of_their_own(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = trained()
    before = place.ledger.state().champion
    monkeypatch.setattr("flows.adapters.runner.ProcessRunner", Upgraded)
    train(str(place.root))
    champion = Workspace(place.root).ledger.state().champion
    assert before is not None and champion is not None and champion.version != before.version
    assert {s.digest for r in champion.release.replicas for s in r.stages} == {
        s.digest for r in before.release.replicas for s in r.stages
    }
    assert recipe_from_json(champion.recipe).profile.pillow == "later"
    check_one_recipe(champion.release, recipe_from_json(champion.recipe))


def test_a_training_that_would_serve_stages_of_two_profiles_serves_nothing(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = trained()
    state = place.ledger.state()
    assert state.champion is not None
    theirs = {(r.shard, r.number): r for r in state.champion.release.replicas}
    monkeypatch.setattr("flows.adapters.runner.ProcessRunner", Upgraded)

    def with_one_of_theirs(plan: Wanted, done: Mapping[str, StageRecord]) -> tuple[Replica, ...]:
        *ours, last = replicas_with(plan, done)
        return (*ours, theirs[(last.shard, last.number)])

    monkeypatch.setattr("flows.use_cases.releasing.replicas_with", with_one_of_theirs)
    with pytest.raises(GuaranteeError, match="one recipe"):
        train(str(place.root))
    after = Workspace(place.root).ledger.state()
    assert after.champion is not None and after.champion.version == state.champion.version
