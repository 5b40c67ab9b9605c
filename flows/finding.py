"""Who a request is about: what its id is under the workspace's rule, and whether somebody in the data has it.

Whether somebody is in the data is told only to who may erase them: on a server, the role that may."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flows.wiring import Workspace
from s3t_core.errors import DataError, GuaranteeError, UsageError
from s3t_core.identity import folded, form_of, near_spellings, spelt_under
from s3t_core.records import subject_digest

Found = Literal["in the data", "nearly", "nobody", "not told"]


@dataclass(frozen=True)
class Finding:
    """Whether somebody has an id. `near`: how the id of who nearly has it is spelt, "" where only its digest is known;
    `why`: why it is not told."""

    found: Found
    near: str = ""
    why: str = ""


def rule_of(place: Workspace) -> tuple[str, ...]:
    """The rule for ids that the data was placed by; before the first data, the one of the settings."""
    state = place.ledger.state()
    return state.dataset.id_rule if state.dataset else place.config.data.id_rule


def spelt(place: Workspace, given: Iterable[str]) -> dict[str, str]:
    """Ids under the rule, by the ids as given. Raises UsageError for one of which nothing is left."""
    rule = rule_of(place)
    found = {each: spelt_under(rule, each) for each in given}
    if any(given and not under for given, under in found.items()):
        raise UsageError(f"expected ids of which something is left under [data] id_rule = {list(rule)}, got one of "
                         "blanks alone; nothing was accepted")
    return found


def may_tell(place: Workspace) -> bool:
    """Whether whoever runs this may also erase."""
    return place.database.may_erase()


def look_up(place: Workspace, ids: Mapping[str, str]) -> dict[str, Finding]:
    """For every id as given (`ids`: with how it is spelt under the rule), whether somebody has it. Raises nothing: a
    request is taken whatever the data is like."""
    if not may_tell(place):
        return dict.fromkeys(ids, Finding("not told", why="only an account that may erase is told who is in the data"))
    state, keys = place.ledger.state(), place.keys
    if not state.datasets:
        return dict.fromkeys(ids, Finding("not told", why="there is no data yet"))
    digests = {given: subject_digest(keys, under) for given, under in ids.items()}
    folds = {given: form_of(keys, "folded", folded(given)) for given in ids}
    try:
        index = place.datasets.look_up(state.datasets, state.destroyed_objects, set(digests.values()),
                                       set(folds.values()))
        refused = {line.get("subject_digest") for line in place.datasets.quarantined()}
    except (DataError, GuaranteeError) as error:
        return dict.fromkeys(ids, Finding("not told", why=str(error)))
    rule, findings = rule_of(place), {}
    for given, digest in digests.items():
        near = index.subjects_by_form.get(folds[given], set())
        if digest in index.subjects or digest in refused:
            findings[given] = Finding("in the data")
        elif near:
            meant = (s for s in near_spellings(given) if subject_digest(keys, spelt_under(rule, s)) in near)
            findings[given] = Finding("nearly", next(meant, ""))
        else:
            findings[given] = Finding("nobody")
    return findings
