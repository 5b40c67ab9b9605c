"""What the flows write into the ledger is what they wrote before: members, and all that keys, data
and settings decide.

Ids, times, digests of weights and counts of bytes are of one run or one machine: of those, what
kind they are is kept.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.use_cases.replaying import replay
from flows.use_cases.requests import approve, extend, hold, lift, lift_hold, reject, withdraw
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.taking import take_hashed, take_requests
from flows.workspace.workspace import Workspace
from s3t_core.canonical import canonical_json
from s3t_core.erasure.rules import KINDS
from tests.flows.conftest import CANARY, people, write_csv

KEPT = Path(__file__).parents[1] / "golden" / "walk.jsonl"
ELSEWHERE = {
    "clock",
    "moving",
    "migrated",
    "cache",
    "checkpoints",
    "healed",
    "retired",
    "spelt",
    "exported",
    "deferred",
    "uncertified",
    "resumed",
    "intake",
}
"""Kinds of events that this walk does not come to; their bytes are kept in golden/events.jsonl."""
OF_ONE_RUN = {
    "time",
    "received",
    "due",
    "moved",
    "planned",
    "salt",
    "commitment",
    "commitments",
    "request",
    "requests",
    "plan_id",
    "id",
    "run_id",
    "model_id",
    "flow_run",
    "certificate",
    "document",
    "bytes",
    "files",
    "needles",
    "spellings",
    "accuracy",
    "value",
    "low",
    "high",
    "digest",
    "tokenizer_digest",
    "key",
    "earlier",
    "signing_key",
    "key_check",
    "old",
    "new",
    "old_public",
    "vouched",
    "md5",
    "versions",
    "version",
    "objects",
    "stages",
    "same",
    "other",
    "profile",
    "model",
    "store",
    "activations",
    "dtype",
    "staleness",
    "lease",
    "subjects",
    "texts",
    "ids",
    "run",
    "created",
}
BY_REQUEST = {"commitments", "rows", "near", "subjects"}
"""Members that are objects with a member per request."""


def _walk(place: Workspace, source: Path) -> None:
    """Every kind of event but those of ELSEWHERE."""
    root = str(place.root)
    [gone] = take_requests(place, [CANARY], key="once")
    take_requests(place, [CANARY], key="twice")
    take_requests(place, [CANARY.upper()])
    [other] = take_requests(place, ["person-003"], record="r3")
    [kept] = take_requests(place, ["person-004"])
    take_hashed(place, ["sha256:" + "0" * 64])
    approve(place, [gone.request_id], "officer")
    hold(place, "person-005", "17(3)(e)", "a claim", "counsel")
    extend(place, kept.request_id, "many letters", "officer")
    withdraw(place, other.request_id, "officer")
    reject(place, kept.request_id, "12(6)", "nobody could say who asked", "officer")
    erase(root)
    lift_hold(place, "person-005", "counsel")
    lift(place, CANARY, "", "officer")
    rotate_signing_key(place, "officer", lost=False)
    replay(place, count=1, seed=1)
    ingest(root, str(write_csv(source, people())))
    retrain(root)


def shape_of(value: Any, name: str = "") -> Any:
    """The value, where keys, data and settings decide it; else what kind of value it is."""
    if name == "profile" and isinstance(value, bool):
        return "<bool>"  # whether the machine multiplies in bfloat16
    if isinstance(value, dict) and name in BY_REQUEST:
        each = [
            [_kind_of(k), shape_of(v, name if name in OF_ONE_RUN else k)] for k, v in value.items()
        ]
        return sorted(each, key=canonical_json)  # ids are of one run, and so is their order
    if isinstance(value, dict):
        return {k: shape_of(v, name if name in OF_ONE_RUN else k) for k, v in value.items()}
    if isinstance(value, list):
        return [shape_of(v, name) for v in value]
    return _kind_of(value) if name in OF_ONE_RUN or _is_of_a_run(value) else value


def _is_of_a_run(value: Any) -> bool:
    return (
        isinstance(value, str)
        and re.match(r"(req|plan|release|retrain)-[0-9a-f]{16}|/", value) is not None
    )


def _kind_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value if value is None or isinstance(value, bool) else f"<{type(value).__name__}>"
    for kind, form in (
        ("time", r"\d{4}-\d\d-\d\dT[\d:]+Z"),
        ("64 hex", r"[0-9a-f]{64}"),
        ("32 hex", r"[0-9a-f]{32}"),
        ("id", r"[a-z]+-[0-9a-f]{16,}"),
        ("nothing", ""),
    ):
        if re.fullmatch(form, value):
            return f"<{kind}>"
    return "<text>"


def ledger_from(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """A line per event."""
    lines = [canonical_json(shape_of(json.loads(canonical_json(event)))) for event in events]
    told: list[bytes] = []
    for are_stages, group in itertools.groupby(lines, lambda line: b'"type":"stage"' in line):
        each = list(group)
        told += sorted(each) if are_stages else each  # which of two stages ends first is of one run
    return told


def test_what_the_flows_write_into_the_ledger_is_what_was_kept(
    trained: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = trained(
        canary=True,
        deletion_budget={
            "policy": "requests",
            "max_requests": 1,
            "retrain_first_margin_hours": 24.0 * 366,
        },
    )
    _walk(place, tmp_path / "again.csv")
    events = Workspace(place.root).ledger.events()
    lines = ledger_from(events)
    if os.environ.get("S3T_TEST_GOLDEN") == "write":
        KEPT.write_bytes(b"".join(line + b"\n" for line in lines))
    assert {e["type"] for e in events} == set(KINDS) - ELSEWHERE
    assert lines == KEPT.read_bytes().splitlines()
