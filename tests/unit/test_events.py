"""Each kind of ledger entry has its class, and nothing else makes one."""

import ast
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent, as_json
from s3t_core.erasure.rules import KINDS
from s3t_core.erasure.vocabulary import STEPS

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "events.jsonl"


def _classes(base: type[LedgerEvent] = LedgerEvent) -> list[type[LedgerEvent]]:
    found = [c for each in base.__subclasses__() for c in (each, *_classes(each))]
    return [c for c in found if c is not events.StepDone]


def test_every_kind_and_every_step_has_a_class() -> None:
    assert {c.type for c in _classes()} == KINDS
    steps = {f.default for c in _classes(events.StepDone) for f in fields(c) if f.name == "step"}
    assert steps == set(STEPS)


def _class_of(entry: dict[str, Any]) -> type[LedgerEvent]:
    """The class whose kind, and fixed members, are the entry's."""
    member = {"step": "step", "hold": "state", "moving": "state"}.get(entry["type"])
    for each in _classes():
        has = {f.name: f.default for f in fields(each)}
        if each.type == entry["type"] and (not member or has[member] == entry[member]):
            return each
    raise AssertionError(f"expected a class for {entry['type']}")


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines())
def test_an_entry_that_is_whole_is_what_its_class_writes(line: str) -> None:
    """Those of the golden ledger that lack what a writer always tells are of earlier builds, or
    refused."""
    entry = json.loads(line)
    kind = _class_of(entry)
    wanted = {f.name for f in fields(kind) if "left_out" not in f.metadata}
    if entry["type"] in ("dataset", "stage", "release") or not wanted <= entry.keys():
        pytest.skip("holds an object of the domain, or is not whole")
    told = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k != "type"}
    assert as_json(kind(**told)) == entry


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
