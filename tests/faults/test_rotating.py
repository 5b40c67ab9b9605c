"""The signing key changes, is lost, or is another: what was signed stays verifiable, and nothing
else does."""

import contextlib
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flows.adapters.keys import (
    SIGNING_KEY,
    SIGNING_NEXT,
    SIGNING_PUB,
    read_public_key,
    read_public_keys,
    read_signing_key,
)
from flows.use_cases.evidence import write_bundle, write_ledger
from flows.use_cases.requests import withdraw
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path, verify_paths
from flows.workspace import signing
from flows.workspace.creating import create_workspace
from flows.workspace.verified import check_whole
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.offline import VOUCHED, key_id
from s3t_core.errors import Busy, CertificateError, GuaranteeError, UsageError, WorkspaceError
from s3t_core.files import write_atomically
from tests.faults.carried import plan_for


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config())
    return Workspace(tmp_path / "w")


def _kept(place: Workspace, name: str) -> Path:
    """The public key, as an auditor got it."""
    path = place.root.parent / name
    path.write_bytes((place.keys_dir / SIGNING_PUB).read_bytes())
    return path


def test_what_each_key_signed_is_verified_with_it_and_a_bundle_with_both(
    place: Workspace, tmp_path: Path
) -> None:
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
    for keys in (
        [old, new],
        [new, old],
        [new],
    ):  # the bundle has the old key, under a checkpoint of the new one
        assert verify_path(tmp_path / "b.zip", keys)["valid"]
    assert not verify_path(tmp_path / "b.zip", old)["valid"]
    event = next(e for e in place.ledger.events() if e["type"] == "key")
    assert (event["old"], event["new"]) == (changed["old"], changed["new"]) and changed[
        "new"
    ] == key_id(read_public_key(new))
    read_public_key(old).verify(
        bytes.fromhex(event["vouched"]), VOUCHED + bytes.fromhex(event["new"])
    )


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
    found = verify_path(place.certificates_dir, sorted(place.keys_dir.glob("*.pub")))
    assert (
        not found["valid"]
        and found["problems"] == []
        and "which was replaced at" in found["undecided"][0]
    )


@pytest.mark.parametrize("outside", [False, True])
def test_older_keys_that_were_restored_are_replaced_by_what_was_published(
    tmp_path: Path, outside: bool
) -> None:
    """The newest private key is gone with the disk; its public part is with every auditor."""
    (tmp_path / "kept").mkdir()
    kept = {"erasure": {"log_checkpoints_to": str(tmp_path / "kept")}} if outside else {}
    create_workspace(tmp_path / "w", Config.model_validate(kept))
    place = Workspace(tmp_path / "w")
    first, second, third = take_requests(place, ["person 1", "person 2", "person 3"])
    withdraw(place, first.request_id)
    older = tmp_path / "older"
    shutil.copytree(place.keys_dir, older)
    for closed in (second, third):  # by a key in between, of which the older ones say nothing
        rotate_signing_key(Workspace(place.root), "security", lost=False)
        withdraw(Workspace(place.root), closed.request_id)
    published = _kept(place, "published.pem")
    shutil.rmtree(place.keys_dir)
    shutil.copytree(older, place.keys_dir)
    (place.state_dir / "verified").unlink(
        missing_ok=True
    )  # nor is there a memory of what was verified
    with pytest.raises(GuaranteeError, match=r"older \.s3t/keys was restored.*--lost"):
        Workspace(place.root).ledger.head()
    shutil.copyfile(published, place.keys_dir / SIGNING_PUB)
    with pytest.raises(WorkspaceError, match=r"the ledger names.*--lost"):
        take_requests(Workspace(place.root), ["person 4"])
    (place.keys_dir / SIGNING_KEY).unlink()
    rotate_signing_key(Workspace(place.root), "security", lost=True)
    place = Workspace(place.root)
    check_whole(place)
    withdraw(place, take_requests(place, ["person 4"])[0].request_id)
    write_bundle(place, tmp_path / "b.zip", [])
    assert verify_path(tmp_path / "b.zip", _kept(place, "newest.pem"))["valid"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_database_of_before_a_rotation_goes_on_with_what_the_message_says(
    place: Workspace, tmp_path: Path, times: int
) -> None:
    """The newest database is lost, and the key that it named with it; keys are newer."""
    [first] = take_requests(place, ["person 1"])
    withdraw(place, first.request_id)
    place.database.engine.dispose()
    kept = (place.state_dir / "s3t.db").read_bytes()
    dropped = set()
    for _ in range(times):
        dropped.add(rotate_signing_key(Workspace(place.root), "security", lost=False)["new"])
    (place.state_dir / "s3t.db").write_bytes(kept)
    (place.state_dir / "checkpoint.json").unlink()
    for act in (
        lambda: take_requests(Workspace(place.root), ["person 2"]),
        lambda: rotate_signing_key(Workspace(place.root), "security", lost=False),
    ):
        with pytest.raises(WorkspaceError, match=r"older database was restored.*--lost"):
            act()
    (place.keys_dir / SIGNING_KEY).unlink()
    rotate_signing_key(Workspace(place.root), "security", lost=True)
    again = Workspace(place.root)
    assert len(take_requests(again, ["person 2"])) == 1
    check_whole(again)
    write_bundle(again, tmp_path / "b.zip", [])
    assert verify_path(tmp_path / "b.zip", _kept(again, "newest.pem"))["valid"]
    there = {key_id(read_public_key(p)) for p in place.keys_dir.glob("*.pub")}
    assert dropped <= there  # by which documents of the lost time are still read


def test_a_foreign_key_in_the_workspace_is_noticed(place: Workspace, tmp_path: Path) -> None:
    create_workspace(tmp_path / "other", Config())
    for name in (SIGNING_KEY, SIGNING_PUB):
        (place.keys_dir / name).write_bytes(
            (tmp_path / "other" / ".s3t" / "keys" / name).read_bytes()
        )
    with pytest.raises(CertificateError, match="another key"):
        Workspace(place.root).ledger.state()
    (place.state_dir / "checkpoint.json").unlink()
    with pytest.raises(WorkspaceError, match="the signing key that the ledger names"):
        take_requests(Workspace(place.root), ["person 1"])


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def _rotate_and_die(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the ledger names the next key, and before that one takes its place."""
    from flows.use_cases import rotating

    adopt, calls = rotating.adopt_held, iter(range(9))

    def killed(*given: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        adopt(*given)

    with monkeypatch.context() as patched:
        patched.setattr(rotating, "adopt_held", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate_signing_key(place, "security", lost=False)


def test_of_two_that_change_the_key_the_second_begins_where_the_first_was_killed(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both had opened the workspace before: the first is cut once the ledger names its key, whose
    only copy is the next one on disk."""
    first, second, asking = (Workspace(place.root) for _ in range(3))
    for each in (first, second, asking):
        each.signing.public_keys()  # opened, and its ledger read
    _rotate_and_die(first, monkeypatch)
    named = place.ledger.state().signing
    changed = rotate_signing_key(second, "security", lost=False)
    assert changed["old"] == named
    assert len(take_requests(asking, ["person 1"])) == 1
    again = Workspace(place.root)
    signs = again.ledger.state().signing
    assert signs == changed["new"] == key_id(read_signing_key(again.keys_dir).public_key())
    check_whole(again)


def test_who_stood_still_while_it_adopted_a_key_writes_no_older_one_over_a_newer(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ledger says counts once nobody else changes keys."""
    from flows.adapters import keys

    _rotate_and_die(Workspace(place.root), monkeypatch)
    took = keys.locked

    def overtaken(path: Path, *given: Any) -> Any:
        monkeypatch.setattr(keys, "locked", took)
        rotate_signing_key(Workspace(place.root), "security", lost=False)
        return took(path, *given)

    monkeypatch.setattr(keys, "locked", overtaken)
    opened = Workspace(place.root)
    assert opened.ledger.state().signing == key_id(read_signing_key(place.keys_dir).public_key())
    assert len(take_requests(Workspace(place.root), ["person 1"])) == 1
    check_whole(Workspace(place.root))


@pytest.mark.parametrize("moment", ["read_signing_key", "key_id"])
def test_no_replaced_key_signs_a_ledger_that_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A process that stood still between its looks at the key and at the ledger: what it signed
    would lie outside for ever, and stop every command."""
    (tmp_path / "kept").mkdir()
    outside = {"erasure": {"log_checkpoints_to": str(tmp_path / "kept")}}
    root = tmp_path / "w"
    create_workspace(root, Config.model_validate(outside))
    asking, look, rotating = Workspace(root), getattr(signing, moment), ThreadPoolExecutor(1)
    take_requests(asking, ["person 1"])
    old = asking.ledger.state().signing

    def stands_still(given: Any) -> Any:
        found = look(given)
        monkeypatch.setattr(signing, moment, look)
        done.append(rotating.submit(rotate_signing_key, Workspace(root), "security", False))
        while Workspace(root).ledger.state().signing == old and not done[0].done():
            time.sleep(0.02)
        return found

    done: list[Future[dict[str, Any]]] = []
    monkeypatch.setattr(signing, moment, stands_still)
    take_requests(asking, ["person 2"])
    assert done[0].result()["old"] == old
    check_whole(Workspace(root))
    assert len(take_requests(Workspace(root), ["person 3"])) == 1


def test_a_document_is_signed_by_the_key_that_signs_then(place: Workspace) -> None:
    """Whatever signed when the command began."""
    waiting = Workspace(place.root)
    assert waiting.certificates.folder.name == "certificates"
    (asked,) = take_requests(waiting, ["person 1"])
    changed = rotate_signing_key(place, "security", lost=False)
    withdraw(waiting, asked.request_id)
    found = verify_path(place.certificates_dir, place.keys_dir / SIGNING_PUB)
    assert found["valid"] and found["certificates"][0]["key"] == changed["new"]


def test_no_key_is_adopted_while_somebody_changes_keys(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.adapters import keys

    _rotate_and_die(Workspace(place.root), monkeypatch)
    before = _files(place.keys_dir)
    with keys.changing_keys(place.keys_dir):
        monkeypatch.setattr(keys, "_WAIT_SECONDS", 0.1)
        with pytest.raises(Busy, match="changes the signing key"):
            Workspace(place.root).ledger.state()
        assert _files(place.keys_dir) == before
    assert len(take_requests(Workspace(place.root), ["person 1"])) == 1


def test_the_public_key_has_those_before_it_whatever_files_are_gone(place: Workspace) -> None:
    (request,) = take_requests(place, ["person 1"])
    withdraw(place, request.request_id)
    document = place.certificates_dir / f"{request.request_id}.json"
    for _ in range(3):
        for path in place.keys_dir.glob("retired-*.pub"):
            path.unlink()
        rotate_signing_key(Workspace(place.root), "security", lost=False)
        found = verify_path(document, place.keys_dir / SIGNING_PUB)
        assert found["undecided"] and not found["problems"]


def test_killed_anywhere_while_it_changes_one_key_signs_and_is_on_the_record(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before each of the steps: the next key, the ledger's entry, the old public key, the key,
    its public part."""
    from flows.adapters import keys

    writes = [keys.write_atomically, keys.remove_file]
    for cut in range(7):
        calls = iter(range(100))

        def dying(*given: Any, through: Any, calls: Any = calls, cut: int = cut) -> Any:
            if next(calls) == cut:
                raise KeyboardInterrupt
            return through(*given)

        with monkeypatch.context() as patched:
            patched.setattr(keys, "write_atomically", partial(dying, through=writes[0]))
            patched.setattr(keys, "remove_file", partial(dying, through=writes[1]))
            with contextlib.suppress(KeyboardInterrupt):
                rotate_signing_key(Workspace(place.root), "security", lost=False)
        again = Workspace(place.root)
        signs = again.ledger.state().signing
        assert (
            signs
            == key_id(read_signing_key(again.keys_dir).public_key())
            == key_id(read_public_key(again.keys_dir / SIGNING_PUB))
        ), cut
        assert {key_id(k) for k in read_public_keys(again.keys_dir)} >= {
            c.old for c in again.ledger.state().key_changes
        }
        assert len(take_requests(again, [f"person {cut}"])) == 1
        check_whole(Workspace(place.root))


@pytest.mark.parametrize("after", ["the next key", "the ledger"])
def test_no_copy_of_a_key_outlives_who_changes_it_next(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Killed while it wrote a key: the copy is a private key in a file that nobody looks for, when
    a key is changed because it leaked."""
    left = place.keys_dir / ".tmp-0a1b2c3d"
    wrote: list[bytes] = []

    def dying(path: Path, data: bytes, mode: int) -> None:
        if path.name == {"the next key": SIGNING_NEXT, "the ledger": SIGNING_KEY}[after]:
            wrote.append(data)
            left.write_bytes(data)
            raise KeyboardInterrupt
        write_atomically(path, data, mode)

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr("flows.adapters.keys.write_atomically", dying)
        rotate_signing_key(place, "security", lost=False)
    assert wrote and left.read_bytes() == wrote[0]
    again = Workspace(place.root)
    take_requests(again, ["person 1"])
    if after == "the ledger":  # whoever comes next lets the new key sign
        assert not left.exists()
    rotate_signing_key(Workspace(place.root), "security", lost=False)
    assert not any(wrote[0] in p.read_bytes() for p in place.keys_dir.iterdir())


def test_an_unfinished_erasure_is_signed_by_one_key(place: Workspace) -> None:
    asked = take_requests(place, ["person 1"])[0].request_id
    plan = plan_for(asked)
    place.ledger.append({"type": "planned", "time": place.now(), "plan": plan})
    with pytest.raises(UsageError, match="unfinished erasure"):
        rotate_signing_key(place, "security", lost=False)


def test_what_an_earlier_key_signed_is_undecided_by_the_newest_file_alone(
    place: Workspace, tmp_path: Path
) -> None:
    """It has the earlier keys: which act of them counts, the ledger or a bundle shows."""
    first, second = take_requests(place, ["person 1", "person 2"])
    withdraw(place, first.request_id)
    old = _kept(place, "old.pem")
    rotate_signing_key(place, "security", lost=False)
    (place.keys_dir / SIGNING_KEY).unlink()
    rotate_signing_key(Workspace(place.root), "security", lost=True)
    new = _kept(place, "new.pem")
    place = Workspace(place.root)
    withdraw(place, second.request_id)
    one, other = (place.certificates_dir / f"{r.request_id}.json" for r in (first, second))
    assert verify_path(other, new)["valid"]
    found = verify_path(one, new)
    assert not found["valid"] and found["problems"] == [] and "replaced at" in found["undecided"][0]
    write_bundle(place, tmp_path / "b.zip", [])
    assert verify_path(tmp_path / "b.zip", new)["valid"]
    write_ledger(place, tmp_path / "ledger.jsonl")
    assert verify_path(tmp_path / "ledger.jsonl", new)["valid"]
    for beside in ("b.zip", "ledger.jsonl"):  # which show that it is older
        together = verify_paths([place.certificates_dir, tmp_path / beside], new)
        assert together["valid"] and together["undecided"] == []
        assert not any(each["undecided"] for each in together["files"][0]["certificates"])
    one.write_bytes(one.read_bytes().replace(b'"sig"', b'"gis"'))
    assert verify_path(one, new)["problems"] and old.is_file()


def test_a_line_that_brings_another_key_is_refused(place: Workspace, tmp_path: Path) -> None:
    [asked] = take_requests(place, ["person 1"])
    withdraw(place, asked.request_id)
    rotate_signing_key(place, "security", lost=False)
    new, strange = _kept(place, "new.pem"), Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
    told = new.read_text().splitlines()
    [line] = [each for each in told if each.startswith("Replaced: ")]
    forged = line.rpartition(" ")[0] + " " + strange.public_key().public_bytes_raw().hex()
    new.write_text(new.read_text().replace(line, forged))
    found = verify_path(place.certificates_dir / f"{asked.request_id}.json", new)
    assert "in the line that tells of it" in found["problems"][0]
