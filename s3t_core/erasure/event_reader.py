"""Entries of the ledger read as events: by the annotations of their classes, and as nothing else.

Of a kind that has several classes one member says which it is. A member of a type that is no type
of JSON's has a reader of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from s3t_core.domain import DatasetVersion, Release, Score, StageRecord
from s3t_core.erasure.dataset_json import dataset_from_json
from s3t_core.erasure.events import LedgerEvent, StepDone
from s3t_core.erasure.plan import ErasurePlan, plan_from_json
from s3t_core.erasure.vocabulary import Event
from s3t_core.release_json import release_from_json, score_from_json, stage_from_json


class NotAnEvent(ValueError):
    """An entry that is none of these; the message says what was expected."""


def from_json(entry: Event) -> LedgerEvent:
    """The event that an entry is. A member that earlier releases did not write has its default.
    Raises NotAnEvent, and KeyError for one without `type`."""
    kind = _class_of(entry)
    members = _MEMBERS[kind]
    readers, required = members.readers, members.required
    given = {name: value for name, value in entry.items() if name != "type"}
    if not given.keys() <= readers.keys():
        raise NotAnEvent("expected members that this release knows, got others")
    if not required <= given.keys():
        raise NotAnEvent(f"expected {', '.join(sorted(required - given.keys()))}")
    return kind(**{name: readers[name](value) for name, value in given.items()})


@dataclass(frozen=True)
class _Members:
    """How each member of a class is read, and which must be there."""

    readers: dict[str, Callable[[object], Any]]
    required: frozenset[str]


def _class_of(entry: Event) -> type[LedgerEvent]:
    kind = entry["type"]
    member = _DISCRIMINATORS.get(kind, "")
    found = _CLASSES.get((kind, entry.get(member, "") if member else ""))
    if found is None:
        raise NotAnEvent(f"expected one of the kinds of a {kind} event")
    return found


def _reader_of(wanted: object) -> Callable[[object], object]:
    """Reads a JSON value as what an annotation says, and raises NotAnEvent for another type."""
    for known, read_as in _READERS.items():
        if wanted is known:
            return read_as
        if known in get_args(wanted):
            return lambda value: None if value is None else read_as(value)
    is_tuple = get_origin(wanted) is tuple

    def read(value: object) -> Any:
        if not _is(wanted, value):
            raise NotAnEvent("expected a member of another type")
        return tuple(value) if is_tuple and isinstance(value, list) else value

    return read


def _is(wanted: object, value: object) -> bool:
    """Whether a JSON value is of the type that an annotation says."""
    for known, kinds in _JSON_TYPES:
        if wanted == known:
            return type(value) in kinds
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, list) and all(_is(inner[0], each) for each in value)
    return any(_is(one, value) for one in inner)


_JSON_TYPES: tuple[tuple[object, tuple[type, ...]], ...] = (
    (str, (str,)),
    (bool, (bool,)),
    (int, (int,)),
    (float, (int, float)),
    (dict[str, Any], (dict,)),
    (type(None), (type(None),)),
)
"""What JSON has for a type: true is no number."""
_READERS: dict[type, Callable[[Any], Any]] = {
    DatasetVersion: dataset_from_json,
    ErasurePlan: plan_from_json,
    Release: release_from_json,
    Score: score_from_json,
    StageRecord: stage_from_json,
}
_DISCRIMINATORS = {"step": "step", "hold": "state", "moving": "state", "intake": "state"}
"""The member that says which class it is, of kinds that have several."""


def _every_class(base: type[LedgerEvent]) -> Iterator[type[LedgerEvent]]:
    for each in base.__subclasses__():
        yield each
        yield from _every_class(each)


def _name_of(kind: type[LedgerEvent]) -> tuple[str, str]:
    member = _DISCRIMINATORS.get(kind.type)
    default = {each.name: each.default for each in fields(kind)}.get(member or "")
    return kind.type, str(default) if member else ""


_CLASSES = {_name_of(c): c for c in _every_class(LedgerEvent) if c is not StepDone}
_MEMBERS = {
    kind: _Members(
        {each.name: _reader_of(each.type) for each in fields(kind)},
        frozenset(each.name for each in fields(kind) if each.default is MISSING),
    )
    for kind in _CLASSES.values()
}
