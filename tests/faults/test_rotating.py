"""The signing key changes, is lost, or is another: what was signed stays verifiable, and nothing else does."""

from pathlib import Path

import pytest

from flows.adapters.keys import SIGNING_KEY, SIGNING_PUB, read_public_key, read_public_keys, read_signing_key
from flows.evidence import write_bundle
from flows.requests import take_requests, withdraw
from flows.rotating import _SAID, rotate_signing_key
from flows.verifying import verify_path
from flows.wiring import Workspace, create_workspace
from s3t_core.config import Config
from s3t_core.erasure.dsse import key_id
from s3t_core.errors import CertificateError, UsageError, WorkspaceError


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config())
    return Workspace(tmp_path / "w")


def _kept(place: Workspace, name: str) -> Path:
    """The public key, as an auditor got it."""
    path = place.root.parent / name
    path.write_bytes((place.keys_dir / SIGNING_PUB).read_bytes())
    return path


def test_what_each_key_signed_is_verified_with_it_and_a_bundle_with_both(place: Workspace, tmp_path: Path) -> None:
    first, second = take_requests(place, ["person 1", "person 2"])
    withdraw(place, first.request_id)
    old = _kept(place, "old.pem")
    changed = rotate_signing_key(place, "security", lost=False)
    new = _kept(place, "new.pem")
    place = Workspace(place.root)  # every command still opens the ledger
    withdraw(place, second.request_id)
    one, other = (place.certificates_dir / f"{r.request_id}.json" for r in (first, second))
    assert verify_path(one, old)["valid"] and verify_path(other, new)["valid"]
    assert not verify_path(one, new)["valid"] and not verify_path(other, old)["valid"]
    write_bundle(place, tmp_path / "b.zip", [])
    assert verify_path(tmp_path / "b.zip", [old, new])["valid"] and not verify_path(tmp_path / "b.zip", new)["valid"]
    event = next(e for e in place.ledger.events() if e["type"] == "key")
    assert (event["old"], event["new"]) == (changed["old"], changed["new"]) and changed["new"] == key_id(
        read_public_key(new))
    read_public_key(old).verify(bytes.fromhex(event["vouched"]), _SAID + bytes.fromhex(event["new"]))


def test_a_lost_key_stops_signing_and_is_replaced_on_the_record(place: Workspace) -> None:
    withdraw(place, take_requests(place, ["person 1"])[0].request_id)
    with pytest.raises(UsageError, match="expected no"):
        rotate_signing_key(place, "security", lost=True)
    (place.keys_dir / SIGNING_KEY).unlink()
    with pytest.raises(WorkspaceError, match=r"signing\.key"):
        take_requests(Workspace(place.root), ["person 2"])
    with pytest.raises(WorkspaceError, match="lost for good"):
        create_workspace(place.root, Config())  # `s3t init` does not make one in silence
    place = Workspace(place.root)
    assert len(place.ledger.events()) == 4  # it is still read, and held against its checkpoint
    rotate_signing_key(place, "security", lost=True)
    event = place.ledger.events()[-1]
    assert event["lost"] and event["vouched"] == ""
    place = Workspace(place.root)
    assert len(take_requests(place, ["person 2"])) == 1
    assert verify_path(place.certificates_dir, sorted(place.keys_dir.glob("*.pub")))["valid"]


def test_a_foreign_key_in_the_workspace_is_noticed(place: Workspace, tmp_path: Path) -> None:
    create_workspace(tmp_path / "other", Config())
    for name in (SIGNING_KEY, SIGNING_PUB):
        (place.keys_dir / name).write_bytes((tmp_path / "other" / ".s3t" / "keys" / name).read_bytes())
    with pytest.raises(CertificateError, match="another key"):
        Workspace(place.root).ledger.state()


def test_killed_while_it_changes_either_key_opens_the_ledger(place: Workspace) -> None:
    old = (place.keys_dir / SIGNING_PUB).read_bytes()
    rotate_signing_key(place, "security", lost=False)
    (place.keys_dir / SIGNING_PUB).write_bytes(old)  # as if it had not been written yet
    place = Workspace(place.root)
    used = key_id(read_signing_key(place.keys_dir).public_key())
    assert used in {key_id(k) for k in read_public_keys(place.keys_dir)}
    assert len(take_requests(place, ["person 1"])) == 1


def test_an_unfinished_erasure_is_signed_by_one_key(place: Workspace) -> None:
    place.ledger.append({"type": "planned", "time": place.now(), "plan": {"plan_id": "p", "requests": []}})
    with pytest.raises(UsageError, match="unfinished erasure"):
        rotate_signing_key(place, "security", lost=False)
