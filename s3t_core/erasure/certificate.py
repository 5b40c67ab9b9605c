"""The erasure certificate: an in-toto Statement (v1) whose predicate says what was erased, when,
and what is left.

Its subject is the model version that serves after the erasure (or the data, where nothing serves).
It names nobody whose data it is about: the data subject appears as a salted commitment, rows as
counts and commitments; who approved the request, as they typed it. GDPR articles 5(2), 12(3), 17.
"""

from collections.abc import Iterable
from typing import Any

from s3t_core.canonical import digest_of
from s3t_core.domain import DatasetVersion, DeletionRequest, SliceId
from s3t_core.erasure.events import SCAN_COUNTS, CutOver, Destroyed, Scanned
from s3t_core.erasure.evidence_documents import (
    CERTIFICATE_TYPE,
    STATEMENT_TYPE,
    AccuracyAround,
    Batch,
    Certificate,
    Committed,
    DatasetsAround,
    Deactivated,
    DestroyedThings,
    ExportsReached,
    Found,
    LiveStage,
    MeasuredScore,
    Part,
    RequestAsked,
    ScanCounts,
    ScanProof,
    ScoreAround,
    SliceTouched,
    Subject,
    Times,
    VersionsAround,
)
from s3t_core.erasure.ledger import Inclusion, TreeHead, leaf_of, outcome_in
from s3t_core.erasure.merkle import includes, leaf_hash
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import RequestRecord, State, VersionRecord
from s3t_core.errors import CertificateError
from s3t_core.release_json import release_to_json
from s3t_core.times import CLOCK_TOLERANCE, parse_time

LIMITS = (
    "requests chosen by looking at the model's answers, and retrains timed by an accuracy policy",
    "settings that people chose by looking at results",
    "near-duplicates of the record under other subjects, facts that other records also state, "
    "records about several people",
    "the backbone's own pretraining",
    "which slices are live: it shows where someone asked",
    "aggregates such as counts and accuracies, and keyed digests, which stay",
    "copies and backups outside the workspace: destroying them is the operator's duty; the "
    "suppression list keeps a later ingest from bringing the subject back",
    "bytes of deleted objects that the server of a bucket keeps in its own files until it compacts "
    "them: its operator alone can have them, and says for how long they may stay",
    "byte equality is claimed within one numeric profile (library versions, the CPU, threads, and "
    "a fingerprint of what the machine computes)",
)

_COMMITMENT_SCHEME = "HMAC-SHA256(key: commitment key, salt, id); the controller holds key and salt"
_ROW_COMMITMENT_SCHEME = (
    "HMAC-SHA256(key: commitment key, request id and row); one per distinct stored row; the "
    "controller holds the key"
)


def certificate_subject(state: State, head: TreeHead) -> Subject:
    """The in-toto subject: the serving release, else the data version, else the ledger."""
    if state.champion is not None:
        return Subject(
            name=f"model version {state.champion.version}",
            digest={"sha256": digest_of(release_to_json(state.champion.release))},
        )
    if state.dataset is not None:
        md5 = state.dataset.version.removesuffix(".dir")
        return Subject(name="data.dvc", digest={"md5": md5})
    return Subject(name="ledger", digest={"sha256": head.root})


def certificate_of(
    request: DeletionRequest,
    plan: ErasurePlan,
    state: State,
    proof: Inclusion,
    budget: dict[str, object] | None,
    now: str,
    erased_before: str,
    software: dict[str, str],
    jurisdiction: str = "",
) -> Certificate:
    """What the certificate says about one request of the plan."""
    asked = state.requests[request.request_id]
    before, after = _versions_around(plan, state)
    data_before, data_after = _datasets_around(state)
    return Certificate(
        request=_asked(request, state, now, jurisdiction),
        subject=Committed(
            commitment=request.commitment, asked_by=asked.asked_by, scheme=_COMMITMENT_SCHEME
        ),
        found=_found(request, plan, state, erased_before),
        batch=_batch(plan, state),
        times=_times(plan, state, now),
        versions=VersionsAround(
            before=before.version if before else None,
            after=after.version if after else None,
            destroyed=list(state.done(Destroyed).versions),
            live_depths=_depths(after),
        ),
        live=_live(after),
        dataset=DatasetsAround(
            before=data_before.version if data_before else None,
            after=data_after.version if data_after else None,
        ),
        deactivated=[
            Deactivated(
                key=s.key, digest=s.digest, shard=s.shard, stage=s.index, slices=list(s.prefix)
            )
            for s in plan.deactivated
        ],
        destroyed=_destroyed(plan, state),
        exports=_exports(plan, state),
        scan=_counted(state.done(Scanned)),
        accuracy=AccuracyAround(
            before=before.accuracy if before else None,
            after=after.accuracy if after else None,
        ),
        score=_score_around(before, after),
        deletion_budget=budget,
        ledger=ScanProof(
            name=proof.ledger,
            size=proof.head.size,
            root=proof.head.root,
            entry=state.done(Scanned).to_json(),
            index=proof.index,
            proof=list(proof.proof),
        ),
        software=software,
        not_covered=list(LIMITS),
    )


def _score_around(
    before: VersionRecord | None,
    after: VersionRecord | None,
) -> ScoreAround | None:
    found = [MeasuredScore.of(v.score) if v else None for v in (before, after)]
    return ScoreAround(before=found[0], after=found[1]) if any(found) else None


def _asked(
    request: DeletionRequest,
    state: State,
    now: str,
    jurisdiction: str,
) -> RequestAsked:
    asked = state.requests[request.request_id]
    return RequestAsked(
        id=request.request_id,
        received=asked.received,
        due=asked.due,
        scope=asked.scope,
        met=_met(asked, now),
        clock_corrected=asked.clock_corrected,
        jurisdiction=jurisdiction,
        approver=state.approved.get(request.request_id, ""),
        extended_from=asked.extended_from or None,
    )


def _found(
    request: DeletionRequest,
    plan: ErasurePlan,
    state: State,
    erased_before: str,
) -> Found:
    rows, scan = plan.rows[request.request_id], state.done(Scanned)
    outcome, present = outcome_in(state, request.request_id)
    unsearched = {*scan.ids_lost, *scan.ids_unsearchable}
    return Found(
        outcome=outcome,
        rows=present,
        training_rows=rows.training,
        held_out_rows=rows.held_out,
        rows_in_earlier_data_versions=rows.earlier,
        quarantined_rows=rows.quarantined,
        known=rows.known,
        erased_before_by_request=erased_before,
        id_searched=request.request_id not in unsearched,
        row_commitments=list(plan.commitments.get(request.request_id, ())),
        row_commitment_scheme=_ROW_COMMITMENT_SCHEME,
    )


def _batch(plan: ErasurePlan, state: State) -> Batch:
    return Batch(
        plan=plan.plan_id,
        requests=len(plan.requests),
        slices=[SliceTouched(shard=s.shard, slice=s.index) for s in plan.slices],
        held_out_touched=plan.held_out,
        collateral_rows=collateral_rows(plan.slices, state),
    )


def _times(
    plan: ErasurePlan,
    state: State,
    now: str,
) -> Times:
    cut_over, destroy = state.done(CutOver), state.done(Destroyed)
    return Times(
        planned=plan.time,
        alias_moved=cut_over.moved,
        old_version_refused_after_seconds=cut_over.staleness,
        offline_use_declared_seconds=cut_over.offline,
        deleted_bytes_kept_declared_seconds=destroy.bytes_kept,
        destroyed=destroy.time,
        scanned=state.done(Scanned).time,
        certified=now,
        clock_corrected=_is_corrected(state, now),
    )


def _destroyed(plan: ErasurePlan, state: State) -> DestroyedThings:
    destroy = state.done(Destroyed)
    planned = {s.key for s in plan.deactivated}
    return DestroyedThings(
        stages=[s.digest for s in plan.deactivated],
        data_objects_md5=list(destroy.objects),
        quarantined_rows=destroy.quarantined,
        stages_of_no_recorded_data=sorted(set(destroy.stages) - planned),
    )


def _exports(plan: ErasurePlan, state: State) -> ExportsReached | None:
    if not plan.exports:
        return None
    return ExportsReached(
        destroyed=list(state.done(Destroyed).exports),
        stale=[name for name in plan.exports if state.exports[name].stale],
    )


def _counted(scan: Scanned) -> ScanCounts:
    return ScanCounts(
        files=scan.files,
        bytes=scan.bytes,
        needles=scan.needles,
        unsearchable=scan.unsearchable,
        lost=scan.lost,
        shared=scan.shared,
        outside=scan.outside,
        residue=0,
    )


def _is_corrected(state: State, now: str) -> bool:
    """Whether the clock was put right since the plan: the times then do not follow each other."""
    back = parse_time(state.time) - parse_time(now)
    return state.corrected != state.corrected_before_plan or back > CLOCK_TOLERANCE


def _met(asked: RequestRecord, now: str) -> bool | None:
    """Whether the deadline was met; None where a clock that was put right makes it look late, or in
    time, which nobody can say."""
    late = now > asked.due
    unsure = asked.clock_corrected if late else asked.was_overdue
    return None if unsure else not late


def make_statement(
    said: Part,
    subject: Subject,
    kind: str = CERTIFICATE_TYPE,
) -> dict[str, object]:
    """The in-toto Statement that is signed, with what is said as its predicate."""
    return {
        "_type": STATEMENT_TYPE,
        "predicateType": kind,
        "subject": [subject.to_json()],
        "predicate": said.to_json(),
    }


def check_statement(statement: dict[str, Any]) -> dict[str, Any]:
    """The predicate of an erasure certificate. Raises CertificateError for any other statement."""
    kind = (statement.get("_type"), statement.get("predicateType"))
    predicate = statement.get("predicate")
    if kind != (STATEMENT_TYPE, CERTIFICATE_TYPE) or not isinstance(predicate, dict):
        raise CertificateError(
            f"expected an in-toto statement of type {CERTIFICATE_TYPE}, got another document"
        )
    for part in (
        "request",
        "subject",
        "found",
        "times",
        "versions",
        "dataset",
        "deactivated",
        "scan",
        "ledger",
    ):
        if part not in predicate:
            raise CertificateError(f"expected the certificate to say {part!r}, got nothing there")
    residue = predicate["scan"].get("residue") if isinstance(predicate["scan"], dict) else None
    if type(residue) is not int or residue != 0:
        raise CertificateError(
            "expected a scan that found nothing, got a certificate that says otherwise"
        )
    _check_included(predicate)
    return predicate


def _check_included(predicate: dict[str, Any]) -> None:
    """That the ledger with the root that the certificate names has the scan that it tells of, and
    of its own plan."""
    ledger, scan = predicate["ledger"], predicate["scan"]
    try:
        entry = ledger["entry"]
        same = {k: entry[k] for k in SCAN_COUNTS} | {"residue": 0} == scan and (
            entry["type"],
            entry["step"],
            entry["plan_id"],
        ) == ("step", "scan", predicate["batch"]["plan"])
        proved = includes(
            bytes.fromhex(ledger["root"]),
            ledger["size"],
            ledger["index"],
            leaf_hash(leaf_of(entry)),
            [bytes.fromhex(h) for h in ledger["proof"]],
        )
    except (KeyError, TypeError, ValueError):
        same = proved = False
    if not (same and proved):
        raise CertificateError(
            "expected a proof that the ledger has the scan this certificate tells of, got one that "
            "does not fit; ask the controller for the ledger"
        )


def _versions_around(
    plan: ErasurePlan, state: State
) -> tuple[VersionRecord | None, VersionRecord | None]:
    champion = state.champion
    if plan.release is None or champion is None:
        return champion, champion
    _, there_were = state.planned_after
    before = state.versions[there_were - 1] if there_were else None
    return before, champion


def _datasets_around(state: State) -> tuple[DatasetVersion | None, DatasetVersion | None]:
    there_were, _ = state.planned_after
    before = state.datasets[there_were - 1] if there_were else None
    return before, state.dataset


def collateral_rows(slices: Iterable[SliceId], state: State) -> int:
    """Live training rows that share one of `slices`, touched by the erasure that is open, with an
    erased one, and that the version that serves has not learned from: none where a replacement was
    trained on them first."""
    learned = state.release.learned() if state.release else set()
    known = state.dataset.slice_versions if state.dataset else {}
    unlearned = set(slices) - learned
    return sum(known[s].rows for s in unlearned if s in known)


def _live(version: VersionRecord | None) -> list[LiveStage]:
    """Every stage of the version that serves, with the slices that fed it: none of them is one of
    the erased."""
    if version is None:
        return []
    stages = {s.key: s for r in version.release.replicas for s in r.stages}
    return [
        LiveStage(
            digest=s.digest,
            shard=s.shard,
            slices=list(s.prefix),
        )
        for s in stages.values()
    ]


def _depths(version: VersionRecord | None) -> dict[str, int]:
    if version is None:
        return {}
    release = version.release
    return {str(shard): release.live_depth(shard) for shard in release.shards()}
