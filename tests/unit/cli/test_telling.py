"""What commands say at their end: the very names, and only what is so."""

from dataclasses import asdict
from typing import Any

import pytest

from flows.cli.app import _render_check
from flows.cli.base import render_registry
from flows.cli.evidence import _own_public_keys, _render_audit
from flows.cli.telling import render_healed
from flows.use_cases.reconciling import Healed
from flows.use_cases.status import UNASKED
from s3t_core.errors import UsageError, WorkspaceError

CHECKED: dict[str, Any] = {
    "read_as": "CSV",
    "columns": [],
    "rows": 200,
    "subjects": 50,
    "admitted": 200,
    "refused": 0,
    "erased": 0,
    "reasons": {},
    "refused_labels_told": "",
    "labels": {"a": 200},
    "warnings": {},
    "notes": [],
    "problems": [],
    "not_looked_at": ["the disk"],
    "data": "[data]\n",
    "differs": False,
    "fits": True,
    "takes": True,
}


def test_who_verifies_outside_a_workspace_is_asked_for_a_key(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("S3T_WORKSPACE", raising=False)
    with pytest.raises(
        UsageError, match=r"expected the controller's public key, got none.*pass --key signing\.pub"
    ):
        _own_public_keys(None)
    with pytest.raises(WorkspaceError):
        _own_public_keys(str(tmp_path))


def test_what_a_restore_brought_back_is_told_in_words() -> None:
    healed = asdict(Healed(stages=2, registry=True, data=True))
    [line] = render_healed(healed)
    assert line.endswith("put right: 2 stage(s), the registry, the data directory.")
    assert render_healed(asdict(Healed())) == []


def test_an_audit_says_what_to_send_and_how_it_is_checked() -> None:
    told = "\n".join(_render_audit({"bundle": {"bundle": "../evidence.zip", "certificates": 1}}))
    assert "Send ../evidence.zip, and .s3t/keys/signing.pub by another way." in told
    assert (
        "s3t verify evidence.zip --key signing.pub, or, unpacked: python verify.py --key "
        "signing.pub" in told
    )


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "s3t.toml fits.\nAn ingest would take it.", "[data]"),
        (
            {"differs": True},
            "For s3t.toml, in the place of the lines of [data] there:",
            "s3t.toml fits",
        ),
        (
            {"fits": False, "problems": ["it does not decode"], "admitted": 150},
            "An ingest would take 150 of 200 rows, and lose what the problem above tells of.",
            "s3t.toml fits",
        ),
        (
            {"admitted": 145, "refused": 39, "erased": 16},
            "16 would be left out as erased",
            "take it",
        ),
        (
            {"admitted": 145, "refused": 39, "erased": 16},
            "An ingest would take 145 of 200 rows.",
            "take it",
        ),
        ({"admitted": 110, "refused": 90}, "An ingest would take 110 of 200 rows.", "erased"),
        ({"takes": False, "fits": False}, "An ingest would refuse it.", "would take it"),
        ({}, "Not looked at: the disk.", "erased"),
    ],
)
def test_a_check_ends_with_what_an_ingest_would_take(
    changes: dict[str, Any], said: str, unsaid: str
) -> None:
    told = "\n".join(_render_check(CHECKED | changes))
    assert said in told and unsaid not in told


def test_a_registry_that_cannot_be_asked_is_not_said_to_be_wrong() -> None:
    unknown, wrong = (
        render_registry([f"{UNASKED}: no key"]),
        render_registry(["versions that are gone: 3"]),
    )
    assert len(unknown) == 1 and "not known" in unknown[0] and "s3t erase" not in unknown[0]
    assert wrong[0].startswith("REGISTRY") and "s3t erase" in wrong[1] and render_registry([]) == []
