"""Free text in evidence: who decided, and why. It stays for ever, so it may quote nobody whose
erasure it would stop.

Every run of words in it is looked up by its keyed digests, as an id is: in the index of the data
and of stored earlier versions, in quarantine, among requests and holds. Whoever may not erase is
told nothing of who is in the data, also not by a refusal: of them no text is taken that could hold
an id other than plain words, whoever it is of.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from flows.adapters.datasets import IndexFound
from flows.use_cases.finding import Findable, look_in_every_index, may_tell, rule_of
from s3t_core.erasure.spellings import spellings_of
from s3t_core.erasure.state import State
from s3t_core.errors import DataError, GuaranteeError, StorageError, UsageError
from s3t_core.identity import HASHES, folded, form_of, forms_of, hashed_forms, spelt_under
from s3t_core.records import subject_digest
from s3t_core.snapshot import form_digest

_LEAST = 4
"""Characters of an id that is looked for: shorter ones are in many a sentence by chance."""
_MOST = 100_000
"""Runs of words that are looked up: more than any text of the permitted length has as it stands."""
_WORD = re.compile(r"[0-9A-Za-z_-]")
_HEX = re.compile(r"[0-9a-fA-F]+")
_PLAIN = re.compile(r"[^\W\d_]+(?:['\u2019.-]?[^\W\d_]+)*")
"""A word that cannot be told from others: no digits, no @."""
_BETWEEN = re.compile(r"[\s,.;:()'\"\u2019!?-]+")


def check_quotes_nobody(
    workspace: Findable, text: str, what: str, own: Collection[str] = ()
) -> None:
    """That free text quotes nobody who is known. `what`: how it is called; `own`: ids as given of
    whom it is about. Raises UsageError, which never tells whom."""
    runs = set(_runs(text, workspace.config.data.max_id_bytes))
    if len(runs) > _MOST:
        raise UsageError(
            f"expected {what} in plain words, got characters that may spell many things; say it in "
            "a sentence; nothing was changed"
        )
    mine = {
        f
        for given in own
        if len(given) >= _LEAST
        for f in forms_of(workspace.keys, given, spelt_under(rule_of(workspace), given))
    }
    if any(not mine.isdisjoint(_shown_forms(workspace, run)) for run in runs):
        raise _refused(what)
    try:
        known = _is_known(workspace, runs) if may_tell(workspace) else None
    except (DataError, GuaranteeError, StorageError):
        known = None
    if known:
        raise _refused(what)
    if known is None and not is_plain(text):
        raise UsageError(
            f"expected {what} in words of letters alone, got a digit, an @ or another sign that "
            "ids have; write a role, and numbers in words: whether it is somebody's id is not told "
            "here; nothing was changed"
        )


def name_to_keep(workspace: Findable, by: str, ids: Collection[str] = ()) -> str:
    """Who decides, as it can be kept. `ids`: of whom it is about. Raises UsageError."""
    clean = " ".join(by.split())
    if not clean or len(clean) > 100 or not clean.isprintable():
        raise UsageError(
            "expected who decides with --by, a name or role of 1 to 100 printable characters, got "
            "something else"
        )
    check_quotes_nobody(workspace, clean, "who decides with --by, a name or role", ids)
    return clean


def _refused(what: str) -> UsageError:
    return UsageError(
        f"expected {what} that names nobody whose data is, was, or is asked to be erased here, got "
        "one that quotes an id; it stands in evidence for ever: write a role, or leave the id out; "
        "nothing was changed"
    )


def is_plain(text: str) -> bool:
    """Whether it is words of letters alone, which no id can be told from."""
    return all(_PLAIN.fullmatch(word) for word in _BETWEEN.split(text) if word)


def _runs(text: str, longest: int) -> Iterator[str]:
    """Everything in a text that stands alone there, however it is spelt, as the scan finds ids."""
    for spelling in dict.fromkeys(
        s.decode("utf-8", "replace") for s in spellings_of(text.encode())
    ):
        edges = [
            i
            for i in range(len(spelling) + 1)
            if not (
                0 < i < len(spelling) and _WORD.match(spelling[i - 1]) and _WORD.match(spelling[i])
            )
        ]
        for place, begin in enumerate(edges):
            for end in edges[place + 1 :]:
                run = spelling[begin:end].strip()
                if _LEAST <= len(run) <= longest:
                    yield run


def _shown_forms(workspace: Findable, run: str) -> set[str]:
    """The forms of an id that a run of words would show: without all in which two spellings differ,
    or as a hash."""
    hashed = {
        form
        for name, (size, _) in HASHES.items()
        if len(run) == size and _HEX.fullmatch(run)
        for form in hashed_forms(workspace.keys, name, run.lower())
    }
    return hashed | {form_of(workspace.keys, "folded", folded(run))}


@dataclass(frozen=True)
class _Asked:
    """By what those are known who ever asked, or are held."""

    subjects: frozenset[str]
    near: frozenset[str]
    forms: frozenset[str]
    ids: frozenset[str]
    rules: frozenset[tuple[str, ...]]


def _asked(workspace: Findable, state: State) -> _Asked:
    requests = state.requests.values()
    open_ones = [r.request_id for r in workspace.requests.pending(state)]
    given = workspace.needles.read("", dict.fromkeys(open_ones, ())).ids
    return _Asked(
        frozenset(s for r in requests for s in (r.subject, *r.subjects)) | state.holds.keys(),
        frozenset(n for r in requests for n in r.near),
        frozenset(f for r in requests for f in r.forms),
        frozenset(map(folded, given)),
        frozenset(
            [
                rule_of(workspace),
                *(r.id_rule for r in requests),
                *(h.id_rule for h in state.holds.values()),
            ]
        ),
    )


def _is_known(workspace: Findable, runs: Iterable[str]) -> bool:
    """Whether a run of words is the id of anybody in stored data, in quarantine, in a request or
    under a hold."""
    state, keys = workspace.ledger.state(), workspace.keys
    asked = _asked(workspace, state)
    subjects: set[str] = set()
    forms: set[str] = set()
    for run in runs:
        under = [spelt_under(rule, run) for rule in asked.rules]
        mine, shown = {subject_digest(keys, u) for u in under if u}, _shown_forms(workspace, run)
        near = {form_digest(keys, f) for f in (*shown, form_of(keys, "given", run))}
        hashed = {f for u in under for f in forms_of(keys, run, u)} if asked.forms else set()
        if folded(run) in asked.ids or not (
            asked.subjects.isdisjoint(mine)
            and asked.near.isdisjoint(near)
            and asked.forms.isdisjoint(hashed | shown)
        ):
            return True
        subjects |= mine
        forms |= shown
    found = (
        look_in_every_index(workspace, state, subjects, forms)
        if state.datasets
        else IndexFound(set(), {})
    )
    return bool(found.subjects or found.subjects_by_form)
