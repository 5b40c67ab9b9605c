"""A ledger that was rolled back, cut, rewritten or replaced is refused while a checkpoint is
left."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flows.adapters import checkpoints
from flows.adapters.database import seal_of
from flows.adapters.keys import SIGNING_KEY, SIGNING_PUB, read_public_key, read_signing_key
from flows.api.app import _Readiness
from flows.api.desk import Desk
from flows.use_cases import taking
from flows.use_cases.evidence import bundle_of, write_bundle, write_ledger
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import reject
from flows.use_cases.rotating import move_checkpoints, rotate_signing_key
from flows.use_cases.taking import Asked, take_each, take_requests
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.verified import check_whole
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.checkpoint import (
    Checkpoint,
    check_continues,
    export_ledger,
    read_checkpoint,
    read_export,
    sign_checkpoint,
)
from s3t_core.erasure.ledger import TreeHead, leaf_of
from s3t_core.erasure.merkle import leaf_hash, tree_head
from s3t_core.erasure.offline import key_id
from s3t_core.errors import CertificateError, LedgerError, StorageError, UsageError, WorkspaceError
from tests.faults.carried import plan_for, step
from tests.held import HELD

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ROOT = Path(__file__).parents[2]
LEAVES = [leaf_hash(bytes([n])) for n in range(9)]


def _checkpoint(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(
        leaves[0].hex(), TreeHead(size, tree_head(leaves[:size]).hex()), "2026-11-01T00:00:00Z"
    )


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "w"
    create_workspace(
        root, Config.model_validate({"erasure": {"log_checkpoints_to": str(tmp_path / "outside")}})
    )
    return Workspace(root)


def _database(place: Workspace) -> Path:
    return place.state_dir / "s3t.db"


def test_a_checkpoint_is_written_before_a_request_is_acknowledged_inside_and_outside(
    place: Workspace, tmp_path: Path
) -> None:
    take_requests(place, ["person 1"])
    inside = place.state_dir / "checkpoint.json"
    outside = sorted((tmp_path / "outside").iterdir())
    assert (
        len(outside) == 2 and outside[-1].read_bytes() == inside.read_bytes()
    )  # the beginning, the request
    found = read_checkpoint(inside.read_bytes(), read_public_key(place.keys_dir / SIGNING_PUB))
    assert found.head == place.ledger.head() and found.head.size == 2
    assert "person" not in inside.read_text()


@pytest.mark.parametrize("inside_too", [False, True])
def test_a_ledger_rolled_back_to_an_older_copy_is_refused(
    place: Workspace, inside_too: bool
) -> None:
    kept = place.root.parent / "older"
    shutil.copytree(place.state_dir, kept)
    take_requests(place, ["person 1"])
    shutil.copy(kept / "s3t.db", _database(place))
    if inside_too:  # the whole workspace is an older copy; the place outside is not
        shutil.copy(kept / "checkpoint.json", place.state_dir)
    else:
        for path in (place.root.parent / "outside").iterdir():
            path.unlink()
    with pytest.raises(LedgerError, match="an older copy took its place"):
        Workspace(place.root).ledger.state()
    with pytest.raises(LedgerError):
        take_requests(Workspace(place.root), ["person 2"])


def test_a_ledger_rewritten_with_hashes_that_fit_is_refused(place: Workspace) -> None:
    take_requests(place, ["person 1"])
    event = place.ledger.events()[1] | {"due": "2099-01-01T00:00:00Z"}
    hashed = leaf_hash(leaf_of(event))
    with sqlite3.connect(_database(place)) as connection:
        connection.execute(
            "UPDATE ledger SET leaf = ?, hash = ? WHERE seq = 1", (leaf_of(event), hashed)
        )
    with pytest.raises(LedgerError, match="with the seal of this workspace"):
        Workspace(place.root).ledger.state()
    with sqlite3.connect(_database(place)) as connection:  # by one who has the workspace key
        before = connection.execute("SELECT seal FROM ledger WHERE seq = 0").fetchone()[0]
        connection.execute(
            "UPDATE ledger SET seal = ? WHERE seq = 1",
            (seal_of(place.keys.sealing, 1, before, hashed),),
        )
    with pytest.raises(LedgerError, match="the ledger was rewritten"):
        Workspace(place.root).ledger.state()


def test_a_checkpoint_by_another_key_of_another_ledger_or_none_is_told_apart(
    place: Workspace, tmp_path: Path
) -> None:
    inside = place.state_dir / "checkpoint.json"
    leaves = place.ledger.leaves()
    inside.write_bytes(sign_checkpoint(_checkpoint(1, leaves), KEY))
    with pytest.raises(CertificateError, match="another key"):
        Workspace(place.root).ledger.state()
    inside.write_bytes(sign_checkpoint(_checkpoint(1), read_signing_key(place.keys_dir)))
    with pytest.raises(LedgerError, match="the ledger that the checkpoint names"):
        Workspace(place.root).ledger.state()
    inside.write_bytes(b"\x00" * 10_000_000)
    with pytest.raises(CertificateError):
        Workspace(place.root).ledger.state()
    inside.unlink()
    shutil.rmtree(tmp_path / "outside")
    with pytest.raises(WorkspaceError, match="log_checkpoints_to"):
        Workspace(place.root).ledger.state()


@pytest.mark.parametrize("where", ["inside", "outside", "outside, and not the largest", "bundle"])
def test_a_key_that_the_ledger_never_named_signs_no_checkpoint_whatever_lies_beside_the_keys(
    place: Workspace, tmp_path: Path, where: str
) -> None:
    """Somebody puts the public part of a key of theirs where replaced ones lie."""
    (place.keys_dir / "retired-00.pub").write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    take_requests(place, ["person 1"])
    leaves = place.ledger.leaves()
    size = 1 if "not the largest" in where else len(leaves)
    signed = sign_checkpoint(_checkpoint(size, leaves), KEY)
    outside = tmp_path / "outside" / f"{leaves[0].hex()[:16]}-{size:012d}.json"
    if where == "bundle":
        (tmp_path / "kept.json").write_bytes(signed)
        with pytest.raises(CertificateError, match="another key"):
            write_bundle(place, tmp_path / "b.zip", [tmp_path / "kept.json"])
        return
    (place.state_dir / "checkpoint.json" if where == "inside" else outside).write_bytes(signed)
    for _ in range(2):  # nor is it remembered as one that was held against the ledger
        with pytest.raises(LedgerError, match="a key that the ledger names"):
            Workspace(place.root).ledger.state()


@pytest.mark.parametrize("kind", ["directory", "link that leads nowhere", "pipe"])
def test_what_another_puts_into_a_shared_place_stops_nobody_but_under_their_name(
    place: Workspace, tmp_path: Path, kind: str
) -> None:
    ledger = place.ledger.leaves()[0].hex()[:16]
    for name in ("x.json", f"{ledger}-000000000099.json"):
        path = tmp_path / "outside" / name
        if kind == "directory":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(tmp_path / "nowhere")
        if name == "x.json":
            assert Workspace(place.root).ledger.state().size == 1
            continue
        with pytest.raises(WorkspaceError, match="find out who put it there"):
            Workspace(place.root).ledger.state()


def _setting(place: Workspace, value: Path | str) -> Workspace:
    """The workspace with another [erasure] log_checkpoints_to in its s3t.toml."""
    path = place.root / "s3t.toml"
    lines = path.read_text().splitlines()
    changed = [f'log_checkpoints_to = "{value}"' if "log_ch" in line else line for line in lines]
    path.write_text("\n".join(changed))
    return Workspace(place.root)


def _noted(place: Workspace) -> Workspace:
    """After a command that changes the workspace: the ledger names the place outside."""
    with access.changing(place):
        place.signing.note_place(HELD)
    return Workspace(place.root)


@pytest.mark.parametrize("instead", ["", "an empty directory"])
def test_settings_without_the_place_outside_hide_no_rollback(
    place: Workspace, tmp_path: Path, instead: str
) -> None:
    place = _noted(place)
    take_requests(place, ["person 1"])
    kept = tmp_path / "kept"
    shutil.copytree(place.state_dir, kept)
    take_requests(Workspace(place.root), ["person 2"])
    shutil.rmtree(place.state_dir)
    shutil.copytree(kept, place.state_dir)
    with pytest.raises(LedgerError, match=r"rolled back|at least"):
        Workspace(place.root).ledger.state()
    (tmp_path / "empty").mkdir()
    place = _setting(place, tmp_path / "empty" if instead else "")
    with pytest.raises(WorkspaceError, match="as the ledger says"):
        place.ledger.state()
    for lost in (False, True):
        with pytest.raises((LedgerError, UsageError), match=r"rolled back|at least|leave --lost"):
            move_checkpoints(place.root, "officer", lost)


@pytest.mark.parametrize("taken_away", ["its checkpoints", "all of it"])
def test_what_the_ledger_says_is_kept_outside_must_be_there_or_is_lost_on_the_record(
    place: Workspace, tmp_path: Path, taken_away: str
) -> None:
    place = _noted(place)
    outside = tmp_path / "outside"
    shutil.rmtree(outside)
    if taken_away == "its checkpoints":
        outside.mkdir()
    with pytest.raises((LedgerError, WorkspaceError), match="log_checkpoints_to"):
        Workspace(place.root).ledger.state()
    (tmp_path / "there").mkdir()
    _setting(place, tmp_path / "there")
    with pytest.raises((LedgerError, WorkspaceError), match="log_checkpoints_to"):
        move_checkpoints(place.root, "officer", False)
    move_checkpoints(place.root, "officer", True)
    place = Workspace(place.root)
    told = place.ledger.events()[-1]
    assert (told["by"], told["lost"], told["place"]) == ("officer", True, str(tmp_path / "there"))
    assert len(list((tmp_path / "there").glob("*.json"))) == 2


def test_checkpoints_are_moved_on_the_record_or_kept_nowhere(
    place: Workspace, tmp_path: Path
) -> None:
    place = _noted(place)
    size = place.ledger.head().size
    with pytest.raises(UsageError, match="got the same"):
        move_checkpoints(place.root, "officer", False)
    (tmp_path / "there").mkdir()
    _setting(place, tmp_path / "there")
    assert move_checkpoints(place.root, "officer", False) == {
        "old": str(tmp_path / "outside"),
        "new": str(tmp_path / "there"),
    }
    place = _noted(Workspace(place.root))
    assert place.ledger.head().size == size + 1  # noted once
    _setting(place, "")
    move_checkpoints(place.root, "officer", False)
    assert Workspace(place.root).ledger.state().checkpoints_at == ""


def test_a_place_is_named_once_something_is_kept_there(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, the ledger names a place that has nothing, for ever."""
    shutil.rmtree(place.root.parent / "outside")
    (place.root.parent / "outside").mkdir()
    with monkeypatch.context() as cut, pytest.raises(StorageError):
        cut.setattr(checkpoints, "write_atomically", _full)
        _noted(Workspace(place.root))
    assert Workspace(place.root).ledger.state().checkpoints_at == ""


def _full(*_: object) -> None:
    raise StorageError("no space left on device")


def test_a_request_that_no_checkpoint_tells_of_is_not_acknowledged(
    place: Workspace, tmp_path: Path
) -> None:
    place.ledger.state()
    shutil.rmtree(tmp_path / "outside")
    (tmp_path / "outside").write_text("not a directory")
    with pytest.raises((StorageError, WorkspaceError)):
        take_requests(place, ["person 1"])
    (tmp_path / "outside").unlink()
    (tmp_path / "outside").mkdir()
    assert (
        len(take_requests(Workspace(place.root), ["person 1"])) == 1
    )  # asked again, it is the same request
    assert len(Workspace(place.root).requests.open_now()) == 1


_ASKS = """
import sys
from pathlib import Path
from flows.use_cases.taking import take_requests
from flows.workspace.sweeping import sweep
from flows.workspace.verified import check_whole
from flows.workspace.workspace import Workspace
take_requests(Workspace(Path(sys.argv[1])), ["person 2"])
"""


def test_a_slower_command_writes_no_older_checkpoint_over_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is only the one in the workspace: else what came meanwhile could be rolled back
    unseen."""
    place = create_workspace(tmp_path / "w", Config())
    write, asking = checkpoints.write_atomically, list[subprocess.Popen[bytes]]()

    def slow(*given: Any) -> None:
        asking.append(subprocess.Popen([sys.executable, "-c", _ASKS, str(place.root)], cwd=ROOT))
        until = time.monotonic() + 60
        while place.ledger.head().size < 3 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)  # the other would have signed by now
        write(*given)

    with monkeypatch.context() as context:
        context.setattr(checkpoints, "write_atomically", slow)
        take_requests(Workspace(place.root), ["person 1"])
    assert asking[0].wait(60) == 0
    signed = read_checkpoint(
        (place.state_dir / "checkpoint.json").read_bytes(),
        read_public_key(place.keys_dir / SIGNING_PUB),
    )
    assert signed.head == place.ledger.head() and signed.head.size == 3


def test_an_older_checkpoint_of_another_machine_takes_no_newer_ones_place(tmp_path: Path) -> None:
    """No lock is common to both."""
    place = create_workspace(tmp_path / "w", Config())
    take_requests(place, ["person 1", "person 2"])
    path, leaves = place.state_dir / "checkpoint.json", place.ledger.leaves()
    newest, private = path.read_bytes(), read_signing_key(place.keys_dir)
    place.heads.files.write(_checkpoint(2, leaves), private, leaves[:2], lambda: leaves)
    assert path.read_bytes() == newest
    with pytest.raises(LedgerError, match="as signed"):
        place.heads.files.write(_checkpoint(2, leaves), private, leaves[:2], lambda: leaves[:2])
    path.write_bytes(b"damaged")
    place.heads.files.write(_checkpoint(2, leaves), private, leaves[:2], lambda: leaves)
    assert path.read_bytes() != newest


@pytest.mark.parametrize("read", [False, True])
def test_no_certificate_is_signed_over_a_database_whose_older_copy_took_its_place_under_a_command(
    tmp_path: Path, read: bool
) -> None:
    """A failover to a lagging replica in the middle of an erasure, with and without the eraser
    having read what was acknowledged meanwhile: it was acknowledged, and its checkpoint lies
    here."""
    place = create_workspace(tmp_path / "w", Config())
    (first,) = take_requests(place, ["person 1"])
    eraser = Workspace(place.root)
    eraser.ledger.append(
        {"type": "planned", "time": eraser.now(), "plan": plan_for(first.request_id)}
    )
    eraser.requests.suppress([first], eraser.now())
    for name in ("cut over", "rewrite", "destroy", "measure", "scan"):
        eraser.ledger.append(step(eraser, name))
    before = eraser.ledger.head().size
    (lost,) = take_requests(Workspace(place.root), ["person 2"])
    if read:
        assert lost.request_id in eraser.ledger.state().requests
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute("DELETE FROM ledger WHERE seq >= ?", [before])
        connection.execute("DELETE FROM requests WHERE id = ?", [lost.request_id])
    predicate = {"request": {"id": first.request_id}, "batch": {"plan": "p"}}
    for act in (
        lambda: eraser.certificates.issue(
            {first.request_id: predicate}, {"name": "x", "digest": {}}
        ),
        eraser.signing.write_checkpoint,
        lambda: Workspace(place.root).ledger,
    ):
        with pytest.raises(
            LedgerError, match=r"an older copy took its place|took its place meanwhile"
        ):
            act()
    assert not list(place.certificates_dir.glob("*.json"))


def test_a_ledger_that_grew_again_after_an_older_copy_took_its_place_is_not_signed(
    tmp_path: Path,
) -> None:
    place = create_workspace(tmp_path / "w", Config())
    take_requests(place, ["person 1"])
    running = Workspace(place.root)
    before = running.ledger.head().size
    (lost,) = take_requests(Workspace(place.root), ["person 2"])
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute("DELETE FROM ledger WHERE seq >= ?", [before])
        connection.execute("DELETE FROM requests WHERE id = ?", [lost.request_id])
    with pytest.raises(LedgerError, match="as they were signed"):
        take_requests(running, ["person 3", "person 4"])
    with pytest.raises(LedgerError, match="as they were signed"):
        assert Workspace(place.root).ledger


def test_the_place_outside_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "w"
    config = Config.model_validate({"erasure": {"log_checkpoints_to": str(root / "log")}})
    with pytest.raises(WorkspaceError, match="outside the workspace"):
        create_workspace(root, config)


def test_every_byte_of_a_checkpoint_counts() -> None:
    envelope = sign_checkpoint(_checkpoint(5), KEY)
    assert read_checkpoint(envelope, KEY.public_key()) == _checkpoint(5)
    for i in range(len(envelope)):
        forged = envelope[:i] + bytes([envelope[i] ^ 1]) + envelope[i + 1 :]
        with pytest.raises(CertificateError):
            read_checkpoint(forged, KEY.public_key())


def test_a_ledger_that_only_grew_continues_and_no_other_does() -> None:
    for size in range(1, 10):
        for earlier in range(1, 10):
            if earlier <= size:
                check_continues(_checkpoint(earlier), LEAVES[:size])
            else:
                with pytest.raises(LedgerError, match="at least"):
                    check_continues(_checkpoint(earlier), LEAVES[:size])
    swapped = [*LEAVES[:2], LEAVES[3], LEAVES[2], *LEAVES[4:]]
    with pytest.raises(LedgerError, match="rewritten"):
        check_continues(_checkpoint(5), swapped)
    with pytest.raises(LedgerError):
        check_continues(_checkpoint(5), [])


def test_an_exported_ledger_is_whole_or_refused() -> None:
    entries = [leaf_of({"type": "workspace", "n": n}) for n in range(4)]
    leaves = [leaf_hash(e) for e in entries]
    exported = export_ledger(sign_checkpoint(_checkpoint(4, leaves), KEY), entries)
    checkpoint, events, signer = read_export(exported, KEY.public_key())
    assert signer == key_id(KEY.public_key()) and checkpoint == _checkpoint(4, leaves)
    assert [e["n"] for e in events] == [0, 1, 2, 3]
    for i in range(len(exported)):
        for forged in (exported[:i] + bytes([exported[i] ^ 1]) + exported[i + 1 :], exported[:i]):
            with pytest.raises((CertificateError, LedgerError)):
                read_export(forged, KEY.public_key())
    lines = exported.splitlines(keepends=True)
    for forged in (
        b"".join([lines[0], *lines[2:], lines[1]]),
        b"".join([*lines, lines[1]]),
        exported + b"\n",
    ):
        with pytest.raises(LedgerError):
            read_export(forged, KEY.public_key())


def test_an_entry_and_its_checkpoint_that_come_while_the_ledger_is_checked_are_no_rollback(
    place: Workspace,
) -> None:
    """Another process takes a request between this one's reading of the one and of the other."""
    ledger = place.ledger.leaves()[0].hex()

    def leaves_while_another_asks() -> list[bytes]:
        before = place.ledger.leaves()
        take_requests(Workspace(place.root), ["person 1"])
        return before

    place.heads.files.check(ledger, place.ledger.state, leaves_while_another_asks)
    assert place.ledger.head().size == 2


# --- somebody who runs on while an older copy takes the database's place


def _rolled_back(place: Workspace, kept: dict[str, bytes]) -> None:
    for name, content in kept.items():
        with (place.state_dir / name).open("r+b") as file:
            file.truncate()
            file.write(content)


@pytest.mark.parametrize("who", ["another command", "this process", "this process, long before"])
def test_nothing_is_signed_over_a_ledger_that_contradicts_a_checkpoint_outside(
    place: Workspace, tmp_path: Path, who: str
) -> None:
    """Database and the workspace's own checkpoint went back in place: the one outside tells."""
    runs = Workspace(place.root)
    take_requests(runs, ["person 1"])
    kept = {n: (place.state_dir / n).read_bytes() for n in ("s3t.db", "checkpoint.json")}
    take_requests(Workspace(place.root) if who == "another command" else runs, ["lost"])
    if who == "this process, long before":
        runs.heads.check(runs.ledger)
    _rolled_back(place, kept)
    there = sorted((tmp_path / "outside").iterdir())
    for more in (["person 2"], ["person 3", "person 4", "person 5"]):
        with pytest.raises(LedgerError):
            take_requests(runs, more)
    assert sorted((tmp_path / "outside").iterdir()) == there


def test_of_two_copies_of_a_workspace_that_share_a_place_one_goes_on(
    place: Workspace, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(place.root, copied, symlinks=True)
    ours, theirs = Workspace(place.root), Workspace(copied)
    take_requests(ours, ["person 1"])
    with pytest.raises(LedgerError):
        take_requests(theirs, ["person 2", "person 3"])
    with pytest.raises(LedgerError):
        take_requests(theirs, ["person 4"])
    take_requests(ours, ["person 5"])


def test_of_two_copies_that_write_at_the_same_moment_one_is_told_before_it_acknowledges(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is outside and the writing, the other copy writes."""
    shutil.copytree(place.root, tmp_path / "copy")
    copy = Workspace(tmp_path / "copy")
    continued = checkpoints.CheckpointFiles.check_again
    written: list[dict[str, bytes]] = []

    def the_other_first(files: checkpoints.CheckpointFiles, *given: Any) -> int:
        found = continued(files, *given)
        monkeypatch.setattr(checkpoints.CheckpointFiles, "check_again", continued)
        take_requests(copy, ["person 2"])
        written.append({p.name: p.read_bytes() for p in (tmp_path / "outside").iterdir()})
        return found

    monkeypatch.setattr(checkpoints.CheckpointFiles, "check_again", the_other_first)
    with pytest.raises(LedgerError, match="of another history"):
        take_requests(place, ["person 1"])
    assert {p.name: p.read_bytes() for p in (tmp_path / "outside").iterdir()} == written[0]
    assert not [p for p in (tmp_path / "outside").iterdir() if p.name.startswith(".tmp")]
    check_whole(copy)


def test_the_door_takes_nothing_over_one_and_says_that_it_is_not_ready(place: Workspace) -> None:
    take_requests(place, ["person 1"])
    kept = {n: (place.state_dir / n).read_bytes() for n in ("s3t.db", "checkpoint.json")}

    async def ask() -> list[str]:
        with closing(Desk(place.root, 30)) as desk:
            assert await _Readiness().now(desk)
            take_requests(Workspace(place.root), ["lost"])
            _rolled_back(place, kept)
            told = []
            for who in ("person 3", "person 4"):
                with pytest.raises(LedgerError) as error:
                    await desk.take(Asked((who,)))
                told.append(str(error.value))
            assert not await _Readiness().now(desk)
            return told

    told = asyncio.run(ask())
    assert all(each.startswith("expected") for each in told), told


# --- the place outside goes away under who looked a moment ago: rule 4


@pytest.fixture
def named(place: Workspace) -> Workspace:
    """Whose ledger names the place outside, with a request acknowledged."""
    with access.changing(place, 5) as held:
        place.signing.note_place(held)
    take_requests(place, ["person 1"])
    return place


def test_what_was_half_written_at_the_place_outside_goes_once_nobody_can_be_at_it(
    named: Workspace, tmp_path: Path
) -> None:
    """From another machine somebody may write there right now."""
    old, young = tmp_path / "outside" / ".tmp-0a1b2c3d", tmp_path / "outside" / ".tmp-4e5f6a7b"
    old.write_bytes(b"a half"), young.write_bytes(b"a half")
    os.utime(old, (time.time() - 2 * 3600,) * 2)
    before = {*(tmp_path / "outside").iterdir()}
    with access.changing(named, 5) as held:
        sweep(named, held)
    assert before - {*(tmp_path / "outside").iterdir()} == {old}


@pytest.mark.parametrize("left", ["nothing", "an older copy", "what another wrote"])
def test_nothing_is_written_to_what_lies_in_the_stead_of_the_place_outside(
    named: Workspace, tmp_path: Path, left: str
) -> None:
    """A disk is not mounted any more, or an older copy of it is, when a door that looked a moment
    ago acknowledges the next request: later looks would be content with what it writes there."""
    outside = tmp_path / "outside"
    named.heads.check(named.ledger)
    shutil.copytree(outside, tmp_path / "copy")
    take_requests(named, ["person 2"])
    named.heads.check(named.ledger)
    outside.rename(tmp_path / "away")
    if left == "an older copy":
        (tmp_path / "copy").rename(outside)
    else:
        outside.mkdir()
        if left == "what another wrote":
            (outside / "0123456789abcdef-000000000099.json").write_bytes(b"another workspace's")
    before = sorted(outside.iterdir())
    for workspace in (named, Workspace(named.root)):
        with pytest.raises(LedgerError, match="not mounted"):
            take_requests(workspace, ["person 3"])
    assert sorted(outside.iterdir()) == before
    with pytest.raises(LedgerError, match="not mounted"):
        check_whole(Workspace(named.root))
    shutil.rmtree(outside)
    (tmp_path / "away").rename(outside)
    take_requests(Workspace(named.root), ["person 3"])
    assert len(list(outside.iterdir())) > len(before)


def test_a_place_that_goes_away_between_a_look_and_a_write_is_given_nothing(
    named: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, wrote = tmp_path / "outside", checkpoints.write_new

    def away(path: Path, content: bytes, mode: int) -> bool:
        if not (tmp_path / "away").exists():
            outside.rename(tmp_path / "away")
            outside.mkdir()
        return wrote(path, content, mode)

    monkeypatch.setattr(checkpoints, "write_new", away)
    with pytest.raises(LedgerError, match="not mounted"):
        take_requests(named, ["person 2"])
    assert not list(outside.iterdir())
    with pytest.raises(LedgerError, match="not mounted"):
        take_requests(Workspace(named.root), ["person 2"])


def test_an_older_copy_of_the_place_is_it_again_with_the_workspaces_own_beside(
    named: Workspace, tmp_path: Path
) -> None:
    """As docs/operations.md says, where a backup is all that is left."""
    outside = tmp_path / "outside"
    newest = max(outside.iterdir())
    newest.unlink()
    with pytest.raises(LedgerError, match="not mounted"):
        take_requests(Workspace(named.root), ["person 2"])
    shutil.copy(named.state_dir / "checkpoint.json", newest)
    take_requests(Workspace(named.root), ["person 2"])


def test_a_place_outside_of_which_old_ones_were_taken_away_is_still_it(
    named: Workspace, tmp_path: Path
) -> None:
    for path in sorted((tmp_path / "outside").iterdir())[:-1]:
        path.unlink()
    take_requests(named, ["person 2"])
    take_requests(Workspace(named.root), ["person 3"])
    check_whole(Workspace(named.root))


def test_who_looks_while_another_writes_takes_nothing_for_lost(
    named: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes outside and then inside, while this one looks at both."""
    looked = checkpoints.CheckpointFiles._outside_ones

    def meanwhile(self: Any, *asked: Any) -> Any:
        found = looked(self, *asked)
        monkeypatch.setattr(checkpoints.CheckpointFiles, "_outside_ones", looked)
        take_requests(Workspace(named.root), ["person 2"])
        return found

    monkeypatch.setattr(checkpoints.CheckpointFiles, "_outside_ones", meanwhile)
    named.heads.check(named.ledger)
    take_requests(named, ["person 3"])


def test_no_key_is_replaced_over_an_older_copy_that_came_while_the_lock_was_waited_for(
    named: Workspace,
) -> None:
    """What destroys a key is not undone by the refusal that comes behind it."""
    opened = Workspace(named.root)
    opened.ledger.state()  # looked at, and waits
    kept = _database(named).read_bytes()
    take_requests(named, ["person 2"])
    newest = _database(named).read_bytes()
    signing = (named.keys_dir / SIGNING_KEY).read_bytes()
    _database(named).write_bytes(kept)
    with pytest.raises(LedgerError, match="an older copy took its place"):
        rotate_signing_key(opened, "officer", False)
    assert (named.keys_dir / SIGNING_KEY).read_bytes() == signing
    _database(named).write_bytes(newest)
    take_requests(Workspace(named.root), ["person 3"])


def test_no_report_is_signed_over_a_ledger_that_another_copy_went_beyond_meanwhile(
    named: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.reporting import html

    shutil.copytree(named.root, tmp_path / "copy")
    wrote = html.write_html

    def meanwhile(document: Any) -> bytes:
        take_requests(Workspace(tmp_path / "copy"), ["person 2"])
        return wrote(document)

    monkeypatch.setattr(html, "write_html", meanwhile)
    with pytest.raises(LedgerError, match="an older copy took its place"):
        write_report(named, None, None)
    assert not list(named.reports_dir.rglob("*.json"))


@pytest.mark.parametrize("left", ["another workspace's", "older ones"])
def test_a_place_that_is_lost_is_lost_whatever_else_lies_there(
    named: Workspace, tmp_path: Path, left: str
) -> None:
    outside = tmp_path / "outside"
    for path in sorted(outside.iterdir())[0 if left != "older ones" else -1 :]:
        path.unlink()
    if left != "older ones":
        (outside / "00112233445566aa-000000000007.json").write_bytes(b"another workspace's")
    (tmp_path / "there").mkdir()
    _setting(named, tmp_path / "there")
    with pytest.raises(LedgerError, match="run `s3t move-checkpoints --lost`"):
        move_checkpoints(named.root, "officer", False)
    move_checkpoints(named.root, "officer", True)
    take_requests(Workspace(named.root), ["person 2"])


def test_a_place_that_is_there_is_not_said_to_be_lost(named: Workspace, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    _setting(named, tmp_path / "there")
    with pytest.raises(UsageError, match="leave --lost out"):
        move_checkpoints(named.root, "officer", True)


_SIGNS: dict[str, Callable[[Workspace], object]] = {
    "a request": lambda place: take_requests(place, ["person 2"]),
    "a door": lambda place: take_each(place, [Asked(("person 2",)), Asked(("person 3",))]),
    "a decision": lambda place: reject(
        place, place.requests.open_now()[0], "17(3)(b)", "a law", "clerk"
    ),
    "a bundle": lambda place: bundle_of(place, []),
    "a ledger": lambda place: write_ledger(place, place.root.parent / "ledger.jsonl"),
    "a report": lambda place: write_report(place, None, None),
}


@pytest.mark.long_but_first(every=4)
@pytest.mark.parametrize("what", _SIGNS)
@pytest.mark.parametrize("lost", [False, True], ids=["moved", "lost"])
def test_nothing_is_signed_where_checkpoints_were_kept_before(
    named: Workspace, tmp_path: Path, what: str, lost: bool
) -> None:
    """Who began before they were moved would tell of what it did where nobody looks any more, and a
    rollback of it would not be seen."""
    began = Workspace(named.root)
    began.ledger.state()
    if lost:
        (tmp_path / "outside").rename(tmp_path / "disk")
    (tmp_path / "there").mkdir()
    _setting(named, tmp_path / "there")
    move_checkpoints(named.root, "officer", lost)
    if lost:  # mounted again, unnoticed
        (tmp_path / "disk").rename(tmp_path / "outside")
    kept = {p.name for p in (tmp_path / "outside").iterdir()}
    before = Workspace(named.root).ledger.entries()
    with pytest.raises(WorkspaceError, match=r"(since|when) this command began"):
        _SIGNS[what](began)
    now = Workspace(named.root)
    assert now.ledger.entries() == before and not (tmp_path / "ledger.jsonl").exists()
    assert {p.name for p in (tmp_path / "outside").iterdir()} == kept
    check_whole(now)


def test_what_was_accepted_before_checkpoints_were_moved_is_told_of_at_their_new_place(
    named: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two parts of one long list."""
    monkeypatch.setattr(taking, "_BATCH", 2)
    take, parts = taking._take, list[int]()

    def meanwhile(*asked: Any) -> Any:
        parts.append(1)
        if len(parts) == 2:
            (tmp_path / "there").mkdir()
            _setting(named, tmp_path / "there")
            move_checkpoints(named.root, "officer", False)
        return take(*asked)

    monkeypatch.setattr(taking, "_take", meanwhile)
    people = [f"someone {n}" for n in range(6)]
    with pytest.raises(WorkspaceError, match="what it did before is there"):
        take_requests(Workspace(named.root), people)
    now = Workspace(named.root)
    newest = max((tmp_path / "there").iterdir(), key=lambda p: p.name)
    assert read_checkpoint(newest.read_bytes(), *now.signing.public_keys()).head == (
        now.ledger.head()
    )
    assert len(now.requests.open_now()) == 3
    assert len(take_requests(now, people)) == 6 and len(now.requests.open_now()) == 7
