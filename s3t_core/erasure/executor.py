"""The eraser: carries a plan out, step by step, through ports. Imports neither torch nor prefect.

1. plan      all pending requests at once; the needles are gathered first, then the plan is written
             ahead
2. cut over register the version without the tainted stages, move the alias, wait until no loaded
             model may still trust the old version (the staleness bound)
3. rewrite   suppress the subjects, rewrite the files that hold their rows, make that the new data
             version
4. destroy   stage artifacts, the registry versions and runs that hold them, kept activations of any
             slice version but the live ones, old data objects, quarantined rows, exported
             checkpoints that are where they were put (of others it is told that they are stale)
5. measure   the score of the new version on the held-out rows that remain
6. scan      search everything the system wrote for the needles. Needles that a restore of older
             files lost are counted, and certified, as unsearchable. What is found of a request
             leaves that one without a certificate, and keeps nobody else: it is set aside,
             uncertified, and its search and certificate follow in a later run, once nothing is
             found any more. An id, or a hash, that no row has, anywhere, may be anything, a name of
             the system's own among it: a request by such an id is deferred, open as before. Where
             rows are found, or nobody can say what is in a file, the erasure stops there
7. certify   one signed certificate per request, where no bucket keeps versions of what was deleted
             from it, then destroy the needles; where the scan was another run's, which was cut off,
             search again first, on the record: files may have been put back since, and needles lost

Each step is idempotent and its completion is a ledger event, so a run that was killed continues at
the step that was cut. Nothing tainted is reachable after step 2; nothing is certified before step 6
found nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from s3t_core.domain import Combine, DeletionRequest, Release, RowCounts
from s3t_core.erasure import events
from s3t_core.erasure.certificate import certificate_of, certificate_subject
from s3t_core.erasure.closing import is_ready
from s3t_core.erasure.found import (
    found_of,
    is_lost,
    is_of_nobody,
    refuse_residue,
    render_perhaps,
    render_residue,
    render_still_left,
    render_waiting,
)
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.planner import (
    Draft,
    Replacement,
    plan_erasure,
    targets_of,
    unaccounted,
    with_replacement,
)
from s3t_core.erasure.retirement import still_trusted
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.erasure.versions import release_tags, score_tags, version_card
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.errors import DataError, GuaranteeError, S3TError
from s3t_core.ports import (
    Activations,
    Budget,
    Certificates,
    Clock,
    Closing,
    Datasets,
    Evaluator,
    Exports,
    Findings,
    Ledger,
    Needles,
    NeedlesFound,
    Published,
    Registry,
    RequestBook,
    Residue,
    ScanReport,
    StageArtifacts,
)
from s3t_core.times import rfc3339

_BATCH = 500
"""Certificates that are signed before their requests are closed in one transaction."""


@dataclass(frozen=True)
class ErasePorts:
    """Everything the eraser works through."""

    ledger: Ledger
    requests: RequestBook
    datasets: Datasets
    stages: StageArtifacts
    activations: Activations
    registry: Registry
    needles: Needles
    residue: Residue
    evaluator: Evaluator
    budget: Budget
    certificates: Certificates
    clock: Clock
    exports: Exports


@dataclass(frozen=True)
class ErasePolicy:
    """The settings that an erasure obeys. `software` and `jurisdiction` go into certificates.
    `offline_seconds`: how long a loaded model may go on without reaching the registry (declared
    offline use). `deleted_bytes_seconds`: how long the server of a bucket may keep the bytes of
    what was deleted there (declared). `combine`: how the shards of a version answer that is
    registered now."""

    staleness_seconds: float
    keep_clean_versions_days: int
    software: dict[str, str]
    needs_approval: bool = False
    jurisdiction: str = ""
    offline_seconds: float = 0.0
    deleted_bytes_seconds: float = 0.0
    combine: Combine = "votes"


class Eraser:
    """One erase run. The caller holds the workspace lock."""

    def __init__(
        self,
        ports: ErasePorts,
        policy: ErasePolicy,
        new_plan_id: Callable[[], str],
    ) -> None:
        self.ports = ports
        self.policy = policy
        self._new_plan_id = new_plan_id
        self._scanned = ""
        """The plan that this run searched for."""
        self.outside: tuple[str, ...] = ()
        """Files beside the system's own in which the scan found a match: for the operator's eyes,
        never recorded."""
        self.ids_lost: list[int] = []
        """Of each scan: how many requests had no id as given, lost or never told (a hash of it
        was)."""
        self.deferred: dict[str, tuple[str, ...]] = {}
        """Requests that this run deferred, or left so, with the files in which what they ask for
        was found."""
        self.uncertified: dict[str, str] = {}
        """Requests that this run set aside, or left so, with what is told of it."""
        self._sought_again: set[str] = set()

    def draft(self) -> Draft | None:
        """What there is to do, the first of these that there is; None without any.

        1. The plan that a killed run left open.
        2. A new one for all pending requests that are neither held nor wait for approval; nothing
           of it is written yet.
        3. One whose requests were set aside, where nothing is found of them any more: that it goes
           on is written to the ledger.

        Ids as given that no open request needs are destroyed before."""
        state = self.ports.ledger.state()
        begun = state.plan.plan if state.plan is not None else None
        plans = [*state.uncertified, *([begun.plan_id] if begun else [])]
        needed = [*plans, *state.begun]
        self.ports.needles.prune(lambda: [*needed, *self.ports.requests.open_now()])
        if begun is not None:
            return Draft(begun, [], is_begun=True)
        try:
            return self._planned(state) or self._resumed(state)
        except (DataError, GuaranteeError):
            resumed = self._resumed(state)
            if resumed is None:
                raise  # after the others, which it must not keep
            return resumed

    def begin(self, draft: Draft, replacement: Replacement | None = None) -> ErasurePlan:
        """The rest of step 1: keep what will be looked for, then write the plan.

        `replacement`: what to cut over to instead of what is left of the version that serves; it is
        left out where something to be erased is in it."""
        if draft.is_begun:
            return draft.plan
        plan = with_replacement(draft.plan, replacement)
        contents = self.ports.datasets.contents(draft.targets)
        plan = replace(
            plan,
            time=self._now(),
            commitments=dict(contents.commitments),
            texts=len({text for texts in contents.texts.values() for text in texts}),
        )
        self.ports.needles.gather(plan.plan_id, contents.texts)
        self.ports.ledger.append(events.ErasurePlanned(time=plan.time, plan=plan))
        return plan

    def _planned(self, state: State) -> Draft | None:
        aside = set(state.set_aside)
        pending = [r for r in self.ports.requests.pending(state) if r.request_id not in aside]
        requests = [r for r in pending if is_ready(r, state, self.policy.needs_approval)]
        requests = self._without_deferred(requests, state)
        if not requests:
            return None
        try:
            meant = self._resolve_hashed(requests, state)
        except (DataError, GuaranteeError):
            requests, meant = [r for r in requests if not state.requests[r.request_id].forms], {}
            if not requests:
                raise  # after the others, which it must not keep
        requests = [
            r for r in requests if state.holds.keys().isdisjoint(meant.get(r.request_id, ()))
        ]
        if state.found_again:
            perhaps = [r.request_id for r in requests if meant.get(r.request_id) == {}]
            self.uncertified |= dict.fromkeys(perhaps, render_perhaps(perhaps))
            requests = [r for r in requests if r.request_id not in perhaps]
        if not requests:
            return None
        subjects = {
            r.request_id: tuple(meant[r.request_id]) for r in requests if r.request_id in meant
        }
        targets = targets_of(requests, subjects)
        findings = self.ports.datasets.find(
            targets, state.datasets, state.destroyed_objects, by_hash=bool(subjects)
        )
        near: dict[str, tuple[str, ...]] = {}
        for request, named in subjects.items():
            spelt_nearly = {n for subject in named for n in meant[request][subject]}
            near[request] = tuple(sorted(spelt_nearly))
        plan = self._servable_plan(requests, findings, state)
        return Draft(replace(plan, subjects=subjects, near=near), targets)

    def _resumed(self, state: State) -> Draft | None:
        """The next erasure without its certificates of which nothing is found any more, at least
        of some of its requests. What a search tells that cannot be done is told in the end: it
        keeps nobody else."""
        for plan_id, aside in state.uncertified.items():
            if plan_id in self._sought_again:
                continue
            plan = aside.plan.plan
            kept = {r for r in plan.requests if state.keeps(r, plan_id)}
            self.uncertified |= dict.fromkeys(kept, render_waiting(kept))
            if len(kept) == len(plan.requests):
                continue  # until the others are certified, in this run or a later one
            self._sought_again.add(plan_id)
            try:
                report, found = self._search(plan, plan.requests, state, aside.residue_digests)
                again = found_of(report, found, plan.requests)
                if not again:
                    refuse_residue(report)
            except S3TError as error:
                self.uncertified |= dict.fromkeys(plan.requests, str(error))
                continue
            if report.found_again and is_lost(found, plan, state):
                reason = render_still_left(report, plan.requests)
                self.uncertified |= dict.fromkeys(plan.requests, reason)
                continue
            people = frozenset[str]().union(*map(state.people_of, again))
            same = [r for r in plan.requests if not people.isdisjoint(state.people_of(r))]
            if len({*kept, *again, *same}) < len(plan.requests):
                self.ports.ledger.append(
                    events.ErasureResumed(
                        time=self._now(),
                        plan_id=plan_id,
                    )
                )
                # what was trained first, was when it began
                return Draft(replace(plan, recipe=None), [], is_begun=True)
            self.uncertified |= dict.fromkeys({*again, *same} - kept, render_residue(report, again))
        return None

    def _resolve_hashed(
        self, requests: list[DeletionRequest], state: State
    ) -> Mapping[str, Mapping[str, Iterable[str]]]:
        """Whom the requests mean that came with a hash, now that nothing comes into the data any
        more."""
        forms = {r.request_id: state.requests[r.request_id].forms for r in requests}
        return self.ports.datasets.resolve(
            {r: f for r, f in forms.items() if f}, state.datasets, state.destroyed_objects
        )

    def run_step(self, step: str, plan: ErasurePlan) -> None:
        """Do `step` (one of STEPS) unless the ledger says it is done. Raises when the steps before
        it are not."""
        state = self.ports.ledger.state()
        if state.plan is None:
            return  # certified, or every request set aside: nothing is left to do
        plan = _what_is_left(plan, state)  # without what was deferred, or set aside
        missing = [s for s in STEPS[: STEPS.index(step)] if s not in state.steps]
        if missing:
            raise GuaranteeError(
                f"expected step {missing[0]!r} to be complete before {step!r}; run `s3t erase` "
                "again"
            )
        if step not in state.steps:
            _ACTIONS[step](self, plan, state)

    def plan(self) -> ErasurePlan | None:
        """Step 1, without a replacement."""
        draft = self.draft()
        return None if draft is None else self.begin(draft)

    def run(self) -> ErasurePlan | None:
        """All steps; returns the plan that was carried out, None when there was nothing to do."""
        plan = self.plan()
        if plan is not None:
            for step in STEPS:
                self.run_step(step, plan)
        return plan

    def _servable_plan(
        self,
        requests: list[DeletionRequest],
        findings: Findings,
        state: State,
    ) -> ErasurePlan:
        """A plan whose release can be published: every stage that will answer is there and
        whole."""
        plan_id, now = self._new_plan_id(), self.ports.clock.now()
        damaged: frozenset[str] = frozenset()
        while True:
            plan = plan_erasure(
                requests,
                findings,
                state,
                plan_id,
                now,
                self.policy.keep_clean_versions_days,
                damaged,
            )
            answering = (
                [r for r in map(plan.release.serving, plan.release.shards()) if r]
                if plan.release
                else []
            )
            broken = {
                s.key for r in answering for s in r.stages if not self.ports.stages.holds(s.digest)
            }
            if not broken:
                return plan
            damaged |= broken

    def _cut_over(self, plan: ErasurePlan, state: State) -> None:
        champion = state.champion
        release = plan.release or state.release
        if champion is not None and release is not None:  # the alias is made to agree in any case
            is_same = release.release_id == champion.release.release_id
            self.ports.registry.publish(
                release,
                plan.recipe or champion.recipe,
                release_tags(release, self.ports.ledger.head()),
                champion.document if is_same else "",
                lambda published: self._tell(published, release, plan, champion),
            )
        moved = self._now()
        if plan.release is not None:
            staleness = max([self.policy.staleness_seconds, *(v.staleness for v in state.versions)])
            offline = max([self.policy.offline_seconds, *(v.offline for v in state.versions)])
        else:
            trusted = still_trusted(state.versions)
            staleness, offline = trusted.staleness, trusted.offline
        self.ports.clock.sleep(staleness)
        self.ports.ledger.append(
            events.CutOver(
                time=self._now(),
                plan_id=plan.plan_id,
                moved=moved,
                staleness=staleness,
                offline=offline,
            )
        )

    def _tell(
        self, published: Published, release: Release, plan: ErasurePlan, champion: VersionRecord
    ) -> None:
        """Tell the ledger which version is about to serve, where it is another one."""
        known = (champion.version, champion.release.release_id)
        if (published.version, release.release_id) == known:
            return
        self.ports.ledger.append(
            events.ReleaseServes(
                time=self._now(),
                cause="retrain" if plan.recipe else "erasure",
                release=release,
                recipe=plan.recipe or champion.recipe,
                **vars(published),
                staleness=self.policy.staleness_seconds,
                offline=self.policy.offline_seconds,
                combine=self.policy.combine,
            )
        )

    def _rewrite(self, plan: ErasurePlan, state: State) -> None:
        requests = self.ports.requests.get(plan.requests)
        self.ports.requests.suppress(requests, plan.time)
        if (plan.touches_data or plan.objects) and state.dataset is not None:
            new = self.ports.datasets.erase(
                targets_of(requests, plan.subjects),
                state.datasets,
                state.destroyed_objects | set(plan.objects),
            )
            if new.version != state.dataset.version:
                self.ports.ledger.append(
                    events.DatasetChanged(
                        time=self._now(),
                        cause="erasure",
                        dataset=new,
                    )
                )
            self.ports.datasets.publish(new)
        self.ports.ledger.append(
            events.Rewritten(
                time=self._now(),
                plan_id=plan.plan_id,
            )
        )

    def _destroy(self, plan: ErasurePlan, state: State) -> None:
        targets = targets_of(self.ports.requests.get(plan.requests), plan.subjects)
        keep = [v for v in state.versions if v.version not in plan.versions and not v.destroyed]
        gone = {s.key for s in plan.deactivated} | unaccounted(state)
        self.ports.registry.destroy(keep, state.runs_of(state.stages.keys() - gone))
        known = {s.digest for s in state.stages.values() if s.key not in gone}
        for digest in self.ports.stages.digests():
            if (
                digest not in known
            ):  # tainted, or left by a crash before the ledger knew what it saw
                self.ports.stages.delete(digest)
        activations = self.ports.activations.allow(
            {v.digest for v in state.dataset.files()} if state.dataset else ()
        )
        superseded = {d.version for d in state.datasets}
        objects = self.ports.datasets.destroy(
            {*plan.objects, *superseded},
            targets,
            state.dataset,
        )
        quarantined = self.ports.datasets.erase_quarantine(targets)
        exports = self.ports.exports.destroy(state.exports[name] for name in plan.exports)
        self.ports.ledger.append(
            events.Destroyed(
                time=self._now(),
                plan_id=plan.plan_id,
                stages=tuple(sorted(gone)),
                versions=plan.versions,
                objects=tuple(sorted(objects)),
                quarantined=quarantined,
                activations=activations,
                bytes_kept=self.policy.deleted_bytes_seconds,
                exports=tuple(exports),
            )
        )

    def _measure(self, plan: ErasurePlan, state: State) -> None:
        champion = state.champion
        if plan.release is not None and champion is not None:
            try:
                score = self.ports.evaluator.score(
                    champion.release, champion.recipe, champion.combine
                )
            except S3TError:
                # unknown is no reason to miss a deadline: the score is not part of the guarantee
                score = None
            self.ports.ledger.append(
                events.ReleaseMeasured.of(self._now(), champion.release.release_id, score)
            )
            budget = self.ports.budget.tags(self.ports.ledger.state())
            self.ports.registry.tag(champion.version, {**score_tags(score), **budget})
            card = version_card(champion.release, score, budget)
            self.ports.registry.describe(champion.version, card)
        self.ports.ledger.append(events.Measured(time=self._now(), plan_id=plan.plan_id))

    def _look_again(self, deferred: list[DeletionRequest], state: State) -> None:
        """Leave deferred those requests, of earlier runs, that are found again, and of which there
        still is no row. What they ask for is looked for alone, since it may be found in others'
        rows that are going to be erased."""
        meant = self._resolve_hashed(deferred, state)
        subjects = {r: tuple(subjects) for r, subjects in meant.items()}
        found = self.ports.datasets.find(
            targets_of(deferred, subjects),
            state.datasets,
            state.destroyed_objects,
            by_hash=bool(subjects),
        )
        if found.objects or found.tainted:
            return  # what an erasure destroys goes first: it may be what is found
        nobodys = []
        for request in deferred:
            rows = found.rows.get(request.request_id, RowCounts())
            if not rows.known and not subjects.get(request.request_id):
                nobodys.append(request)
        if not nobodys:
            return
        names = [r.request_id for r in nobodys]
        needles = self._ids_of(names, state)
        report = self.ports.residue.scan(
            needles.ids,
            [],
            targets_of(nobodys, {}),
        )
        self.deferred |= dict.fromkeys(found_of(report, needles, names), report.residue)

    def _without_deferred(
        self, requests: list[DeletionRequest], state: State
    ) -> list[DeletionRequest]:
        """Those to plan. Where nobody can look for what was deferred, that stays so, if there are
        others: it must not keep them."""
        others = [r for r in requests if r.request_id not in state.deferred]
        again = [r for r in requests if r not in others and r.request_id not in self.deferred]
        try:
            if again:
                self._look_again(again, state)
        except S3TError:
            if not others:
                raise
            self.deferred |= dict.fromkeys((r.request_id for r in again), ())
        return [r for r in requests if r.request_id not in self.deferred]

    def _ids_of(
        self,
        requests: Iterable[str],
        state: State,
        plan_id: str = "",
    ) -> NeedlesFound:
        return self.ports.needles.read(plan_id, {r: state.requests[r].ids for r in requests})

    def _scan(self, plan: ErasurePlan, state: State) -> None:
        seen = self._scan_residue(plan, state)
        if seen is None:
            # without those it searches once more: nothing may be left that they did not explain
            state = self.ports.ledger.state()
            if state.plan is not None:
                self._scan(_what_is_left(plan, state), state)
            return
        self.ids_lost.append(len(seen.ids_lost))
        self.ports.ledger.append(seen)

    def _search(
        self,
        plan: ErasurePlan,
        sought: Iterable[str],
        state: State,
        known_residue: Collection[str] = (),
    ) -> tuple[ScanReport, NeedlesFound]:
        """Search everything for the ids and texts of `sought`, and the rows of the plan.
        `known_residue`: what an earlier search found."""
        found = self._ids_of(sought, state, plan.plan_id)
        targets = targets_of(self.ports.requests.get(plan.requests), plan.subjects)
        return self.ports.residue.scan(
            found.ids,
            found.texts,
            targets,
            known_residue,
        ), found

    def _scan_residue(self, plan: ErasurePlan, state: State) -> events.Scanned | None:
        """Search everything; what is told of it, None where requests were deferred or set aside.
        Raises ResidueFound."""
        sought = state.sought
        kept = [r for r in sought if state.keeps(r)]
        if kept:
            self._set_aside(kept, plan, state, render_waiting(kept), waiting=True)
            return None
        report, found = self._search(plan, sought, state, state.known_residue)
        self.outside = report.outside
        nobodys = [r for r in sought if is_of_nobody(r, plan)]
        deferred = found_of(report, found, nobodys)
        if deferred:
            self._defer(deferred, plan, report)
            return None
        uncertified = found_of(report, found, sought)
        if uncertified:
            reason = render_residue(report, uncertified)
            self._set_aside(uncertified, plan, state, reason, report.residue_digests)
            return None
        refuse_residue(report)
        gathered = self._ids_of(plan.requests, state, plan.plan_id)
        texts_are_lost = gathered.texts_of is None or len(gathered.texts) != plan.texts
        hashed = {r for r in sought if state.requests[r].asked_by != "id"}
        if report.found_again and (texts_are_lost or not hashed.issuperset(found.ids_lost)):
            reason = render_still_left(report, sought)
            self._set_aside(sought, plan, state, reason, state.known_residue)
            return None
        unknown = sorted({*found.ids_lost, *hashed})
        lost = len(unknown) + (plan.texts if texts_are_lost else 0)
        unsearchable = tuple(
            sorted(
                r for r, ids in found.ids_of.items() if not report.ids_unsearchable.isdisjoint(ids)
            )
        )
        self._scanned = plan.plan_id
        return events.Scanned(
            time=self._now(),
            plan_id=plan.plan_id,
            files=report.files,
            bytes=report.bytes,
            needles=report.needles,
            spellings=sum(len(state.requests[r].ids) for r in sought),
            unsearchable=report.unsearchable + lost,
            lost=lost,
            ids_lost=tuple(unknown),
            shared=report.shared,
            outside=len(report.outside),
            ids_unsearchable=unsearchable,
        )

    def _defer(
        self,
        requests: list[str],
        plan: ErasurePlan,
        report: ScanReport,
    ) -> None:
        self.deferred |= dict.fromkeys(requests, report.residue)
        self.ports.requests.defer(
            self.ports.requests.get(requests),
            events.RequestsDeferred(
                time=self._now(), plan_id=plan.plan_id, requests=tuple(requests)
            ),
        )

    def _set_aside(
        self,
        requests: list[str],
        plan: ErasurePlan,
        state: State,
        reason: str,
        residue_digests: Iterable[str] = (),
        waiting: bool = False,
    ) -> None:
        """What was signed for them before, and is not on record, goes: nothing is certified.
        `residue_digests`: what was found of them; `waiting`: nothing was found of these, but of
        another request of the same person."""
        self.uncertified |= dict.fromkeys(requests, reason)
        if not waiting:
            self._sought_again.add(plan.plan_id)
        self.ports.certificates.discard(requests)
        before = state.uncertified.get(plan.plan_id)
        aside = [*requests, *(before.plan.plan.requests if before else ())]
        others = [r for r in plan.requests if r not in requests]
        kept, of_others = (self._ids_of(some, state, plan.plan_id) for some in (aside, others))
        texts_are_lost = kept.texts_of is None
        most = plan.texts + (before.plan.plan.texts if before else 0)
        self.ports.ledger.append(
            events.RequestsUncertified(
                time=self._now(),
                plan_id=plan.plan_id,
                requests=tuple(requests),
                waiting=tuple(requests) if waiting else (),
                texts=most if texts_are_lost else len(kept.texts),
                texts_of_others=plan.texts if texts_are_lost else len(of_others.texts),
                left=tuple(sorted(residue_digests)),
            )
        )

    def _certify(self, plan: ErasurePlan, state: State) -> None:
        uncertified = [r for r in plan.requests if r not in state.certified]
        if uncertified and self._scanned != plan.plan_id:
            self.ports.certificates.discard(uncertified)
            self._scan(plan, state)
            state = self.ports.ledger.state()
            if state.plan is None:
                return  # every request was set aside
            plan = _what_is_left(plan, state)
            uncertified = [r for r in uncertified if r in state.planned]
        proof = self.ports.ledger.prove(state.done(events.Scanned).to_json())
        budget = self.ports.budget.document(state)
        subject = certificate_subject(state, proof.head)
        requests = self.ports.requests.get(uncertified)
        for begin in range(0, len(requests), _BATCH):
            self.ports.residue.check()
            predicates, now = (
                {},
                self._now(),
            )  # what is signed, and what tells of it, are of one time
            for request in requests[begin : begin + _BATCH]:
                _, earlier = state.suppressed[request.suppression]
                predicates[request.request_id] = certificate_of(
                    request,
                    plan,
                    state,
                    proof,
                    budget,
                    now,
                    "" if earlier == request.request_id else earlier,
                    self.policy.software,
                    self.policy.jurisdiction,
                )
            digests = self.ports.certificates.issue(predicates, subject)
            self.ports.requests.close(
                [
                    Closing(
                        r,
                        digest,
                        events.RequestCertified(time=now, request=r, certificate=digest),
                    )
                    for r, digest in digests.items()
                ]
            )
        self.ports.needles.forget(plan.plan_id, plan.requests)
        self.ports.ledger.append(
            events.Certified(
                time=self._now(),
                plan_id=plan.plan_id,
            )
        )

    def _now(self) -> str:
        return rfc3339(self.ports.clock.now())


def _what_is_left(plan: ErasurePlan, state: State) -> ErasurePlan:
    """The plan with the requests that are still the open erasure's."""
    texts = state.plan.plan.texts if state.plan else 0
    return replace(
        plan,
        requests=tuple(state.planned),
        texts=texts,
    )


_ACTIONS: dict[str, Callable[[Eraser, ErasurePlan, State], None]] = {
    "cut over": Eraser._cut_over,
    "rewrite": Eraser._rewrite,
    "destroy": Eraser._destroy,
    "measure": Eraser._measure,
    "scan": Eraser._scan,
    "certify": Eraser._certify,
}
