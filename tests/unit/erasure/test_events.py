"""Each kind of ledger entry has its class, and nothing else makes one."""

import ast
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from s3t_core.erasure import events
from s3t_core.erasure.event_reader import NotAnEvent, from_json
from s3t_core.erasure.events import LedgerEvent, as_json
from s3t_core.erasure.rules import KINDS
from s3t_core.erasure.vocabulary import STEPS

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "events.jsonl"


def _classes(base: type[LedgerEvent] = LedgerEvent) -> list[type[LedgerEvent]]:
    found = [c for each in base.__subclasses__() for c in (each, *_classes(each))]
    return [c for c in found if c is not events.StepDone]


def test_every_kind_and_every_step_has_a_class() -> None:
    assert {c.type for c in _classes()} == KINDS
    steps = {f.default for c in _classes(events.StepDone) for f in fields(c) if f.name == "step"}
    assert steps == set(STEPS)


def _is_read(entry: dict[str, Any]) -> bool:
    """Those of the golden ledger that lack a member are refused, whatever the state is."""
    try:
        from_json(entry)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False
    return True


ENTRIES = [e for e in map(json.loads, GOLDEN.read_text().splitlines()) if _is_read(e)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e['type']} {e.get('step', '')}")
def test_an_entry_is_read_and_written_as_it_was(entry: dict[str, Any]) -> None:
    """But for what earlier builds did not tell, which has its default then."""
    written = as_json(from_json(entry))
    assert {k: v for k, v in written.items() if k in entry} == entry
    later = {"offline", "activations", "bytes_kept", "basis", "reason", "by", "key_check"}
    later |= {"signing_key"} if entry["type"] == "workspace" else set()
    assert written.keys() - entry.keys() <= later


def test_every_kind_is_read() -> None:
    assert {e["type"] for e in ENTRIES} == KINDS


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("measured", {"accuracy": True}),
        ("measured", {"accuracy": "0.5"}),
        ("training", {"run": 1}),
        ("training", {"somebody": "said"}),
        ("request", {"ids": "i"}),
        ("request", {"ids": [1]}),
        ("cache", {"shared": 1}),
        ("hold", {"state": "perhaps"}),
        ("step", {"step": "lunch"}),
        ("settled", {"settings": []}),
    ],
)
def test_a_member_of_another_type_or_that_nobody_knows_is_refused(
    kind: str, changes: dict[str, Any]
) -> None:
    entry = next(e for e in ENTRIES if e["type"] == kind)
    with pytest.raises(NotAnEvent):
        from_json(entry | changes)


def test_no_entry_is_written_as_a_dictionary() -> None:
    found = []
    for package in ("flows", "s3t_core"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = node.keys if isinstance(node, ast.Dict) else []
                values = [
                    v.value
                    for k, v in zip(names, getattr(node, "values", []), strict=False)
                    if isinstance(k, ast.Constant)
                    and k.value == "type"
                    and isinstance(v, ast.Constant)
                ]
                if KINDS.intersection(values) and path.name != "ledger.py":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
