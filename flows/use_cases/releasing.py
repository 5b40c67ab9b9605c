"""A trained release: held against its floor, registered and made the version that serves; then what
nobody needs any more goes."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flows.progress import current
from flows.use_cases.steps import Steps
from flows.use_cases.training_case import Trainable, TrainingCase
from flows.workspace.jobs import ReleaseEvaluator
from s3t_core.domain import Combine, Release, Score, StageRecord
from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.retirement import plan_retirement
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.erasure.versions import release_tags, score_tags, version_card
from s3t_core.errors import S3TError, TrainingError
from s3t_core.learning.jobs import FileRef
from s3t_core.learning.release import check_one_recipe, recipe_to_json
from s3t_core.learning.training_plan import TrainingPlan, replicas_with, same_stages
from s3t_core.ports import Published
from s3t_core.slicefile import HELD_OUT_PATH


@dataclass(frozen=True)
class Candidate:
    """A release that a training came to, not registered yet. `champion`: the version that served
    when it was made; `is_champion`: whether that one has just these stages. `score` on the
    held-out rows; None where it is not known."""

    plan: TrainingPlan
    release: Release
    champion: VersionRecord | None
    is_champion: bool
    score: Score | None = None

    @property
    def recipe(self) -> dict[str, object]:
        """What made its stages, as it is registered."""
        return recipe_to_json(self.plan.recipe)


@dataclass(frozen=True)
class Served:
    """The version that serves, and its score on the held-out rows."""

    version: str
    score: Score | None


def candidate_of(
    plan: TrainingPlan,
    done: Mapping[str, StageRecord],
    champion: VersionRecord | None,
    combine: Combine,
) -> Candidate:
    """The release of the stages that are done: what serves, where that has the same ones and
    answers by `combine`. Raises GuaranteeError when its stages are not of one recipe."""
    replicas = replicas_with(plan.wanted, done)
    is_served = champion and not champion.destroyed and same_stages(champion.release, replicas)
    if champion and is_served and champion.combine == combine:
        found = Candidate(plan, champion.release, champion, is_champion=True)
        if champion.release.dataset == plan.dataset.version:
            found = replace(found, score=champion.score)
    else:
        release = Release(f"release-{uuid.uuid4().hex[:16]}", plan.dataset.version, replicas)
        found = Candidate(plan, release, champion, is_champion=False)
    check_one_recipe(found.release, plan.recipe)
    return found


def register(
    workspace: Trainable,
    case: TrainingCase,
    plan: TrainingPlan,
    done: Mapping[str, StageRecord],
    steps: Steps,
) -> Served | None:
    """Measure and serve the release unless it is what serves already. None when an erasure changed
    the data, or moved the version on, meanwhile.

    Raises TrainingError when it is worse than the configured floor, GuaranteeError when its stages
    are not of one recipe; what serves stays.
    """
    champion = workspace.ledger.state().champion
    candidate = candidate_of(plan, done, champion, workspace.config.serving.combine)
    with current().spinner("Measuring the version and registering it"):
        if candidate.score is None and plan.dataset.held_out.rows:
            try:
                candidate = measured(workspace, case, candidate, steps)
            except S3TError:
                if not _is_overtaken(workspace, case, candidate):
                    raise
                return None
        if not candidate.is_champion:
            check_floor(candidate.score, case.floor)
        with case.data.changing():
            state = workspace.ledger.state()
            if _has_moved_on(state, case, candidate):
                return None
            candidate = replace(candidate, champion=state.champion)  # put right meanwhile, perhaps
            version = _serve(workspace, case, candidate, state)
            was = candidate.champion.version if candidate.champion else version
            _retire(workspace, plan, replaced=candidate.is_champion and version != was)
    return Served(version, candidate.score)


def measured(
    workspace: Trainable, case: TrainingCase, candidate: Candidate, steps: Steps
) -> Candidate:
    """The candidate with its score, which stays None without held-out rows."""
    held_out = FileRef(case.data.file_of(HELD_OUT_PATH), candidate.plan.dataset.held_out.digest)
    evaluator, recipe = ReleaseEvaluator(workspace), candidate.plan.recipe
    release, combine = candidate.release, workspace.config.serving.combine
    score = steps.run("measure", lambda: evaluator.score_on(release, recipe, held_out, combine))
    return replace(candidate, score=score)


def check_floor(score: Score | None, floor: float) -> None:
    """Raises TrainingError when a configured floor is not reached, or cannot be shown to be."""
    if floor and (score is None or score.misses(floor)):
        got = score.in_words() if score else "none: nothing is held out"
        raise TrainingError(
            f"expected a held-out {score.name if score else 'score'} no worse than {floor:g} "
            f"([deletion_budget]), got {got}; the "
            "version that serves stays; ingest more data, train longer or move the floor, then "
            "run `s3t retrain`"
        )


def _is_overtaken(workspace: Trainable, case: TrainingCase, candidate: Candidate) -> bool:
    with case.data.changing():
        return case.data.has_moved(workspace.ledger.state(), candidate.plan.dataset)


def _has_moved_on(state: State, case: TrainingCase, candidate: Candidate) -> bool:
    """Whether the data is another, or an erasure that left it as it is moved the version on."""
    if case.data.has_moved(state, candidate.plan.dataset):
        return True
    before, champion = candidate.champion, state.champion
    return champion is not None and (before is None or champion.version != before.version)


def _serve(workspace: Trainable, case: TrainingCase, candidate: Candidate, state: State) -> str:
    """Make the candidate the version that serves, in registry and ledger; what is so already
    stays. Returns the version."""
    champion = candidate.champion
    published = workspace.registry.publish(
        candidate.release,
        candidate.recipe,
        release_tags(candidate.release, workspace.ledger.head()),
        champion.document if champion and candidate.is_champion else "",
        lambda published: _tell(workspace, case, candidate, state, published),
    )
    budget = workspace.budget.tags(workspace.ledger.state())
    workspace.registry.tag(published.version, {**score_tags(candidate.score), **budget})
    card = version_card(candidate.release, candidate.score, budget)
    workspace.registry.describe(published.version, card)
    return published.version


def _tell(
    workspace: Trainable,
    case: TrainingCase,
    candidate: Candidate,
    state: State,
    published: Published,
) -> None:
    """Tell the ledger what is about to serve."""
    champion = candidate.champion
    entries = _registered(workspace, case, candidate, published)
    if entries or (champion and champion.score != candidate.score):
        entries.append(
            events.ReleaseMeasured.of(
                workspace.now(), candidate.release.release_id, candidate.score
            )
        )
    spent = state.retrain is not None or (not entries and state.requests_since_training > 0)
    if spent and case.cause in ("train", "retrain"):
        wanted = state.retrain.id if state.retrain else ""
        entries.append(events.RetrainChanged(time=workspace.now(), id=wanted, state="finished"))
    if entries:
        workspace.ledger.append(*entries)


def _registered(
    workspace: Trainable, case: TrainingCase, candidate: Candidate, published: Published
) -> list[LedgerEvent]:
    """What the registry did, for the ledger: that a version serves from now on; that it was put
    right, and the one before is gone; that it lies in another run, or is another logged model."""
    champion = candidate.champion
    if champion is None or not candidate.is_champion or champion.version != published.version:
        entries: list[LedgerEvent] = [_serves(workspace, case, candidate, published)]
        if champion and candidate.is_champion and not champion.destroyed:
            gone = (champion.version,)
            entries.append(events.Retired(time=workspace.now(), versions=gone, stages=()))
        return entries
    if (champion.run_id, champion.model_id) != (published.run_id, published.model_id):
        return [_logged_anew(workspace, published)]
    return []


def _serves(
    workspace: Trainable, case: TrainingCase, candidate: Candidate, published: Published
) -> LedgerEvent:
    return events.ReleaseServes(
        time=workspace.now(),
        cause=case.cause,
        release=candidate.release,
        recipe=candidate.recipe,
        version=published.version,
        run_id=published.run_id,
        model_id=published.model_id,
        document=published.document,
        staleness=workspace.config.erasure.staleness_seconds,
        offline=workspace.offline_seconds,
        combine=workspace.config.serving.combine,
    )


def _logged_anew(workspace: Trainable, published: Published) -> LedgerEvent:
    lies = [published.run_id, published.model_id, published.document]
    return events.Migrated(
        time=workspace.now(),
        move="",
        settings=workspace.pinned.wanted(),
        versions={published.version: lies},
    )


def _retire(workspace: Trainable, plan: TrainingPlan, replaced: bool) -> None:
    """Destroy clean versions that were superseded and are past their time, and stages that nothing
    needs any more. `replaced`: a version was registered anew, and what is left of the one before
    goes too."""
    state = workspace.ledger.state()
    days = workspace.config.erasure.keep_clean_versions_days
    goes = plan_retirement(state, plan.keys(), workspace.clock.now(), days)
    if not goes.versions and not goes.stages and not replaced:
        return
    workspace.registry.destroy(goes.kept, state.runs_of(state.stages.keys() - set(goes.stages)))
    for digest in goes.digests:
        workspace.store.delete(digest)
    if goes.versions or goes.stages:
        workspace.ledger.append(
            events.Retired(time=workspace.now(), versions=goes.versions, stages=goes.stages)
        )
