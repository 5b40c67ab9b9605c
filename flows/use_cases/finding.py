"""Who a request is about: what its id is under the workspace's rule, whether somebody in the data
has it, and whether another id there is spelt nearly so. Who is in the data under two spellings is
erased under the one that was asked for, and stays under the other.

Whether somebody is in the data is told only to who may erase them: on a server, the role that
may."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from flows.adapters.datasets import IndexFound
from flows.use_cases.documents import PersonFound
from flows.workspace.parts import (
    HasConfig,
    HasDatabase,
    HasDatasets,
    HasKeys,
    HasLedger,
    HasNeedles,
    HasRequests,
)
from s3t_core.config.data import DataConfig
from s3t_core.domain import DeletionRequest
from s3t_core.erasure.state import RequestRecord, State
from s3t_core.errors import DataError, GuaranteeError, StorageError, UsageError
from s3t_core.identity import (
    EXACT,
    folded,
    form_of,
    hashed_forms,
    near_spellings,
    parse_hashed,
    spelt_under,
)
from s3t_core.records import record_digest, subject_digest

Found = Literal["in the data", "nearly", "nobody", "not told"]
_NOT_YOURS = "only an account that may erase is told who is in the data"
_IS_GOING = "an erasure that has begun takes them out, and is not at its end"


class Findable(
    HasConfig, HasKeys, HasDatasets, HasLedger, HasDatabase, HasRequests, HasNeedles, Protocol
):
    """What tells who is in the data."""


@dataclass(frozen=True)
class Erased:
    """The request that erased somebody before, and when it was certified (RFC 3339)."""

    request: str
    time: str


@dataclass(frozen=True)
class Finding:
    """Whether somebody has an id. `others`: how many in the data have one that is spelt nearly so
    and are not asked for; `near`: as those are spelt of whom it can be guessed; `erased`: what
    erased who is not there any more; `why`: why it is not told, or, of somebody who is there, why
    it is not told who else is."""

    found: Found
    near: tuple[str, ...] = ()
    others: int = 0
    why: str = ""
    erased: Erased | None = None


class HasRule(HasConfig, HasLedger, Protocol):
    """What has a rule for ids."""


@dataclass(frozen=True)
class Basis:
    """By what ids are told: the rule, and the columns that the data was placed by, none before the
    first."""

    rule: tuple[str, ...]
    columns: tuple[str, ...]


def basis_of(workspace: HasRule) -> Basis:
    """That of the data there is; before the first, the rule of the settings."""
    dataset = workspace.ledger.state_so_far().dataset
    if dataset is None:
        return Basis(workspace.config.data.id_rule, ())
    return Basis(dataset.id_rule, dataset.id_columns)


def rule_of(workspace: HasRule) -> tuple[str, ...]:
    """Its rule alone."""
    return basis_of(workspace).rule


def check_columns(settings: DataConfig, basis: Basis, record: str) -> None:
    """That settings name the columns that the data was placed by: ids of other ones find nobody in
    it, and nobody would be told. Raises UsageError."""
    named = zip(
        ("subject", "record"), basis.columns, (settings.subject, settings.record), strict=False
    )
    for name, was, now in named:
        if was != now and (name == "subject" or record):
            raise UsageError(
                f"expected [data] {name} = {was!r} in s3t.toml, by which the data there is was "
                f"placed, got {now!r}: its ids would find nobody. Put it back, or ingest by the "
                "new ones first (`s3t ingest --yes`); nothing was accepted"
            )


def spelt(workspace: Findable, given: Iterable[str]) -> dict[str, str]:
    """Ids under the rule, by the ids as given. Raises UsageError for one of which nothing is
    left."""
    return spelt_by(rule_of(workspace), given)


def spelt_by(rule: tuple[str, ...], given: Iterable[str]) -> dict[str, str]:
    """The same, under a rule that is known."""
    found = {each: spelt_under(rule, each) for each in given}
    if any(given and not under for given, under in found.items()):
        raise UsageError(
            f"expected ids of which something is left under [data] id_rule = {list(rule)}, got one "
            "of blanks alone; nothing was accepted"
        )
    return found


def may_tell(workspace: Findable) -> bool:
    """Whether whoever runs this may also erase."""
    return workspace.database.may_erase()


def look_up(workspace: Findable, ids: Mapping[str, str], record: str = "") -> dict[str, Finding]:
    """For every id as given (`ids`: with how it is spelt under the rule), whether somebody has it;
    who is asked for by one `record` alone counts as found where any of their rows is. Raises
    nothing: a request is taken whatever the data is like."""
    if why := _why_not_told(workspace):
        return dict.fromkeys(ids, Finding("not told", why=why))
    state, keys, rule = workspace.ledger.state(), workspace.keys, rule_of(workspace)
    digests = {given: subject_digest(keys, under) for given, under in ids.items()}
    folds = {given: form_of(keys, "folded", folded(given)) for given in ids}
    try:
        index, why = _indexed(workspace, state, set(digests.values()), set(folds.values()))
        asked = {r.subject for r in workspace.requests.pending(state) if not r.record}
    except (DataError, GuaranteeError, StorageError) as error:
        return dict.fromkeys(ids, Finding("not told", why=str(error)))
    except OSError:
        # an erase run sweeps what was brought here of earlier versions
        why = "an erase run was removing what it needed of earlier data versions"
        return dict.fromkeys(ids, Finding("not told", why=why))
    erased, begun, findings = erased_in(state), _begun_in(state), {}
    for given, digest in digests.items():
        near = index.subjects_by_form.get(folds[given], set()) - {digest}
        if digest in index.subjects:
            near = set() if EXACT in rule else near - asked
            findings[given] = Finding(
                "in the data", _guessed(workspace, rule, given, near), len(near), why
            )
            continue
        if digest in begun:
            findings[given] = Finding("not told", why=_IS_GOING)
            continue
        gone = erased.get((digest, "")) or erased.get(
            (digest, _record_of(workspace, ids[given], record))
        )
        findings[given] = Finding(
            "nearly" if near else "nobody",
            _guessed(workspace, rule, given, near),
            len(near),
            erased=gone,
        )
    return findings


def look_up_hashed(workspace: Findable, hashed: Iterable[str]) -> dict[str, Finding]:
    """For every hash of an id (`sha256:HEX`), whether somebody has an id that it is of, or is of in
    lower case. Raises UsageError for what is no such hash."""
    parsed = {f"{name}:{digits}": (name, digits) for name, digits in map(parse_hashed, hashed)}
    if why := _why_not_told(workspace):
        return dict.fromkeys(parsed, Finding("not told", why=why))
    state, forms = (
        workspace.ledger.state(),
        {given: hashed_forms(workspace.keys, *each) for given, each in parsed.items()},
    )
    try:
        index = look_in_every_index(
            workspace, state, set(), {form for each in forms.values() for form in each}
        )
    except (DataError, GuaranteeError, StorageError) as error:
        return dict.fromkeys(parsed, Finding("not told", why=str(error)))
    return {
        given: Finding(
            "in the data" if any(f in index.subjects_by_form for f in each) else "nobody"
        )
        for given, each in forms.items()
    }


def people_found(
    workspace: Findable,
    given: list[str],
    hashed: Sequence[str] = (),
    record: str = "",
    requests: Sequence[str] = (),
) -> list[PersonFound]:
    """Who of those that were asked for, by id or by hash, is in the data, as JSON values.
    `requests`: the one that each person is in, in the order in which they were first given; none
    where nobody was asked to erase."""
    if hashed:
        by_hash = look_up_hashed(workspace, hashed)
        return [
            _as_json("", who, request, finding)
            for (who, finding), request in zip(by_hash.items(), requests, strict=True)
        ]
    under = spelt(workspace, given)
    people = dict.fromkeys(under.values())
    request_of = dict(zip(people, requests or [""] * len(people), strict=True))
    return [
        _as_json(who, "", request_of[under[who]], finding)
        for who, finding in look_up(workspace, under, record).items()
    ]


def _as_json(subject: str, hashed: str, request: str, finding: Finding) -> PersonFound:
    erased = finding.erased
    return {
        "subject": subject,
        "hashed": hashed,
        "request": request,
        "found": finding.found,
        "nearly": next(iter(finding.near), ""),
        "spellings": list(finding.near),
        "others": finding.others,
        "why": finding.why,
        "erased": {"request": erased.request, "time": erased.time} if erased else None,
    }


def look_alikes(
    workspace: Findable, requests: Iterable[DeletionRequest]
) -> dict[str, frozenset[str]]:
    """By open request, the subjects (digests) in the data whose id is spelt nearly as it was asked
    for. A request of which nobody can say that is left out: for one record, by a hash, or one that
    lost its id."""
    state, keys, rule = workspace.ledger.state(), workspace.keys, rule_of(workspace)
    wanted = {r.subject: r.request_id for r in requests if not r.record}
    if not wanted or _why_not_told(workspace):
        return {}
    folds: dict[str, str] = {}
    for given in workspace.needles.read("", dict.fromkeys(wanted.values(), ())).ids:
        digest = subject_digest(keys, spelt_under(rule, given))
        if digest in wanted:
            folds[digest] = form_of(keys, "folded", folded(given))
    try:
        index = look_in_every_index(workspace, state, set(), set(folds.values()))
    except (DataError, GuaranteeError, StorageError):
        return {}
    return {
        wanted[digest]: frozenset(index.subjects_by_form.get(fold, set()) - {digest})
        for digest, fold in folds.items()
    }


def _begun_in(state: State) -> frozenset[str]:
    """Whom the open erasure found, if one is open (digests of subjects): their rows may be gone
    already."""
    if state.plan is None:
        return frozenset()
    plan = state.plan.plan
    return frozenset(
        subject
        for request in plan.requests
        if plan.rows[request].known
        for subject in (state.requests[request].subject, *plan.subjects.get(request, ()))
    )


def erased_in(state: State) -> dict[tuple[str, str], Erased]:
    """What erased each (subject, record) last, record "" for the whole subject. A request that
    found nobody erased nobody."""
    found: dict[tuple[str, str], Erased] = {}
    for request, (outcome, _) in state.outcomes.items():
        if outcome != "nothing found":
            asked = state.requests[request]
            gone = Erased(request, state.ended[request])
            found |= {(who, asked.record): gone for who in (asked.subject, *asked.subjects)}
    return found


def erased_of(erased: Mapping[tuple[str, str], Erased], asked: RequestRecord) -> Erased | None:
    """What erased whom a request asks for (`erased`: as `erased_in` says it), the whole subject or
    the record."""
    found = [
        erased.get(each)
        for who in (asked.subject, *asked.subjects)
        for each in ((who, ""), (who, asked.record))
    ]
    return next((each for each in found if each), None)


def _why_not_told(workspace: Findable) -> str:
    """Why whoever runs this is told nothing of who is in the data, "" where they are."""
    if not may_tell(workspace):
        return _NOT_YOURS
    return "" if workspace.ledger.state().datasets else "there is no data yet"


def _indexed(
    workspace: Findable, state: State, subjects: set[str], forms: set[str]
) -> tuple[IndexFound, str]:
    """What every index says; where an earlier one cannot be read, and the subjects are all in the
    current data, what that says, and why it is not all. Raises DataError, GuaranteeError."""
    try:
        return look_in_every_index(workspace, state, subjects, forms), ""
    except (DataError, GuaranteeError, StorageError) as error:
        return _with_quarantine(
            workspace,
            workspace.datasets.people.look_up(
                state.datasets, state.destroyed_objects, subjects, forms
            ),
            subjects,
            forms,
        ), str(error)


def look_in_every_index(
    workspace: Findable, state: State, subjects: set[str], forms: set[str]
) -> IndexFound:
    """What every stored index and quarantine say: stages of an earlier data version may still
    answer."""
    found = workspace.datasets.people.look_up(
        state.datasets, state.destroyed_objects, subjects, forms, earlier=True
    )
    return _with_quarantine(workspace, found, subjects, forms)


def _with_quarantine(
    workspace: Findable, found: IndexFound, subjects: set[str], forms: set[str]
) -> IndexFound:
    known, by_form = (
        set(found.subjects),
        {form: set(who) for form, who in found.subjects_by_form.items()},
    )
    for row in workspace.datasets.quarantine.rows():
        digest = row["subject_digest"]
        known |= {digest} & subjects
        for form in forms.intersection(row["forms"]) if digest else ():
            by_form.setdefault(form, set()).add(digest)
    return IndexFound(known, by_form)


def _guessed(
    workspace: Findable, rule: Collection[str], given: str, near: Collection[str]
) -> tuple[str, ...]:
    """As the ids of those are spelt, of whom it follows from what was given: one spelling of
    each."""
    found: dict[str, str] = {}
    for spelling in near_spellings(given) if near else ():
        digest = subject_digest(workspace.keys, spelt_under(rule, spelling))
        if digest in near:
            found.setdefault(digest, spelling)
    return tuple(found.values())


def _record_of(workspace: Findable, subject: str, record: str) -> str:
    return (
        record_digest(workspace.keys, subject, spelt_under(rule_of(workspace), record))
        if record
        else ""
    )
