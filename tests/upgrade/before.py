"""Makes a workspace with the build that PYTHONPATH names, and evidence in another directory: python
before.py ROOT TOLD

It is run by the tests of this directory on the code of the commit that they name, so what it
imports stands still. Afterwards ROOT has: data of two ingests, a trained and a retrained version,
requests in every state there is (one of them in an erasure that is open, cut over and not
rewritten), a replaced signing key; TOLD has the lists of requests that this build shows, a report,
a bundle, an exported ledger, and answers of the version that serves.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from flows.erase import erase
from flows.evidence import write_bundle, write_ledger
from flows.ingest import ingest
from flows.predicting import champion_of
from flows.requests import approve, hold, list_requests, reject, take_requests, withdraw
from flows.retrain import retrain
from flows.rotating import rotate_signing_key
from flows.train import train
from flows.wiring import Workspace, create_workspace

from flows.reporting import write_report
from s3t_core.erasure.executor import Eraser
from tests.flows.conftest import people, tiny_config, write_csv
from tests.tiny import build_backbone

TEXTS = ["w1 w2", "w3", "nothing of the vocabulary"]


def _ask(place: Workspace, subject: str, record: str = "", approved: bool = True) -> str:
    [request] = take_requests(place, [subject], record)
    if approved:
        approve(place, [request.request_id], "officer")
    return str(request.request_id)


def _make(root: Path, told: Path) -> None:
    backbone = build_backbone(root.with_name("backbone"), layers=2, seed=1)
    source = write_csv(root.with_name("people.csv"), people())
    create_workspace(root, tiny_config(backbone, erasure={"needs_approval": True}), b"\x05" * 32)
    ingest(str(root), str(source))
    train(str(root))
    place = Workspace(root)
    names = {
        name: _ask(place, *asked)
        for name, asked in {
            "erased": ("person-000",),
            "record": ("person-001", "r1"),
            "not found": ("no-such-person",),
        }.items()
    }
    erase(str(root))
    take_requests(place, ["person-002", "person-003"])
    open_now = {r["id"] for r in list_requests(place, "awaiting approval")}
    for request, close in zip(sorted(open_now), ("withdraw", "reject"), strict=True):
        if close == "withdraw":
            withdraw(place, request, "officer")
        else:
            reject(place, request, "12(6)", "who asked could not be confirmed", "officer")
    rotate_signing_key(place, "officer", lost=False)
    place = Workspace(root)
    names |= {"again": _ask(place, "person-004")}
    erase(str(root))
    retrain(str(root))
    place = Workspace(root)
    told.mkdir()
    write_report(place, None, told)
    write_bundle(place, told / "bundle.zip", [])
    write_ledger(place, told / "ledger.jsonl")
    answers = champion_of(place).predict(TEXTS)
    names |= {"erasing": _ask(place, "person-005")}
    _begin(Workspace(root))
    place = Workspace(root)
    names |= {
        "pending": _ask(place, "person-006"),
        "held": _ask(place, "person-007"),
        "awaiting approval": _ask(place, "person-008", approved=False),
    }
    hold(place, "person-007", "17(3)(e)", "a claim", "counsel")
    shown = {each["id"]: each for each in list_requests(Workspace(root))}
    (told / "told.json").write_text(
        json.dumps({"names": names, "requests": shown, "answers": answers})
    )


def _begin(place: Workspace) -> None:
    """Carry an erasure out up to its cut-over, then die, as far as the workspace can tell."""
    with place.changing(60):
        eraser = Eraser(
            place.erase_ports(), place.erase_policy(), lambda: f"plan-{uuid.uuid4().hex[:16]}"
        )
        plan: Any = eraser.plan()
        eraser.run_step("cut over", plan)
        place.write_checkpoint()


if __name__ == "__main__":
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        _make(Path(sys.argv[1]), Path(sys.argv[2]))
