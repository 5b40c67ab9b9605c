"""A workspace moves to other places: nothing lost, nothing left, whenever it is cut. On servers:
tests/stack."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.adapters.book import SqlRequestBook
from flows.adapters.database import Database, SqlLedger
from flows.adapters.locks import workspace_lock
from flows.adapters.marks import OWNER
from flows.prefect_flows.erase import erase
from flows.prefect_flows.train import train
from flows.use_cases import migrating
from flows.use_cases.migrating import migrate, undo
from flows.use_cases.moves import has_moved, is_over
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace import stores
from flows.workspace.workspace import Workspace
from s3t_core.config import parse_config, render_config
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.errors import Busy, GuaranteeError, S3TError, StorageError, UsageError, WorkspaceError
from s3t_core.ports import NewRequest
from tests.flows.conftest import CANARY, CANARY_TEXT
from tests.flows.prepared import Kept, forget_connections, make_trained

pytestmark = pytest.mark.slow


class Cut(Exception):
    """Where a test kills the move."""


_OF_MOVES = ("moving", "migrated", "experiment")
"""Kinds of events that a move may write."""


def quietly(_: str) -> None:
    """What is told is of no interest."""


@pytest.fixture(scope="module")
def kept(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, prefect_server: None
) -> Kept:
    """Trained, one erasure certified, one request pending."""

    def make(root: Path) -> None:
        make_trained(root, tiny_backbone, canary=True)
        take_requests(Workspace(root), ["person-003"])
        erase(str(root))
        take_requests(Workspace(root), [CANARY])

    return Kept(tmp_path_factory.mktemp("migrating"), make)


@pytest.fixture
def place(kept: Kept) -> Workspace:
    """The same, to be changed."""
    return kept.fresh()


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """Other places than the first ones."""
    return (
        f'[database]\nurl = "sqlite:///{tmp_path}/there/s3t.db"\n[store]\nurl = '
        f'"{tmp_path}/there/stages"\n[dvc]\nremote = "{tmp_path}/there/remote"\n'
    )


def facts(root: Path) -> dict[str, Any]:
    """What a move must not change."""
    place = Workspace(root)
    state = place.ledger.state()
    return {
        "entries": [e for e in place.ledger.entries() if json.loads(e)["type"] not in _OF_MOVES],
        "requests": place.requests.all(place.ledger.state()),
        "suppressed": place.ledger.state().suppressed,
        "stages": {k: place.store.get(s.digest) for k, s in state.stages.items()},
        "certificates": {p.name: p.read_bytes() for p in place.certificates_dir.iterdir()},
    }


def check_moved(root: Path, before: dict[str, Any], tmp_path: Path) -> None:
    """That everything is there, nothing is at the old places, and the next erasure reaches all of
    it."""
    assert facts(root) == before
    place = Workspace(root)
    assert not place.migration_path.exists()
    state = place.ledger.state()
    assert place.store.bindings() == {k: s.digest for k, s in state.stages.items()}
    left = [
        p for folder in ("stages", "remote", "s3t.db") for p in (root / ".s3t" / folder).rglob("*")
    ]
    assert left == [] and not (root / ".s3t" / "s3t.db").exists()
    for certificate in place.certificates_dir.iterdir():
        assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    erase(str(root))
    assert place.requests.open_now() == []
    files = [p for folder in (root, tmp_path / "there") for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in files if CANARY_TEXT[:40].encode() in p.read_bytes()]
    for certificate in place.certificates_dir.iterdir():
        assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]


@pytest.mark.long
def test_everything_moves_and_nothing_is_left(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    before = facts(place.root)
    moved = migrate(place.root, elsewhere, "there.toml", quietly)
    assert moved["moved"] == ["database", "dvc", "store"] and moved["requests"] == 2
    check_moved(place.root, before, tmp_path)


@pytest.mark.long
def test_a_move_that_is_cut_anywhere_is_finished_by_the_next(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    before = facts(place.root)
    steps = 0
    while True:
        there = _cut_after(steps)
        try:
            migrate(place.root, elsewhere if steps % 2 == 0 else "", "there.toml", there)
        except Cut:
            steps += 1
            with pytest.raises(WorkspaceError, match="s3t migrate"):
                erase(str(place.root))
            with pytest.raises(WorkspaceError, match="s3t migrate"):
                train(str(place.root))
            with contextlib.suppress(WorkspaceError):  # while the database is on its way
                assert len(Workspace(place.root).ledger.state().requests) == 2
            continue
        break
    assert steps > 10
    check_moved(place.root, before, tmp_path)


def _cut_after(steps: int) -> Callable[[str], None]:
    left = [steps]

    def told(_: str) -> None:
        if left[0] == 0:
            raise Cut
        left[0] -= 1

    return told


def test_a_kill_between_the_two_commits_is_copied_again(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    """The new database was written, the old one still has its tables, and a request came
    meanwhile."""
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    there = Database(f"sqlite:///{tmp_path}/there/s3t.db", place.root, place.keys.sealing)
    there.prepare()
    copied = tmp_path / "aside.db"
    shutil.copy(place.root / ".s3t" / "s3t.db", copied)
    name = json.loads(place.migration_path.read_bytes())["move"]
    Database(f"sqlite:///{copied}", place.root, place.keys.sealing).move_to(
        there,
        {"type": "migrated", "time": place.now(), "move": name, "settings": {}, "versions": {}},
    )
    take_requests(place, ["person-005"])
    before = facts(place.root)
    migrate(place.root, "", "", quietly)
    assert facts(place.root) == before and len(before["requests"]) == 3


def test_a_kill_after_the_database_moved_leaves_one_that_refuses_until_it_is_finished(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    before = facts(place.root)
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("what is left"))
    old = render_config(parse_config(json.loads(place.migration_path.read_bytes())["old"]))
    (place.root / "s3t.toml").write_text(old)  # as if it had been killed before that was written
    with pytest.raises(WorkspaceError, match="s3t migrate"):
        take_requests(Workspace(place.root), ["person-005"])
    with pytest.raises(UsageError, match="has moved"):
        undo(place.root, quietly)
    migrate(place.root, "", "", quietly)
    check_moved(place.root, before, tmp_path)


def _cut_at(what: str) -> Callable[[str], None]:
    def told(at: str) -> None:
        if at.startswith(what):
            raise Cut

    return told


def test_whoever_has_the_old_database_open_is_refused(place: Workspace, elsewhere: str) -> None:
    """From the moment it has moved, not only once its file is gone: on a server there is none."""
    late = SqlRequestBook(place.database)
    request = DeletionRequest(
        "req-late", "s", "", "s", "c", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", ""
    )
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("what is left"))
    with pytest.raises(StorageError):
        late.accept([NewRequest(request, "salt", {"type": "request", "once": ""})])
    migrate(place.root, "", "", quietly)
    with pytest.raises(StorageError):
        late.accept([NewRequest(request, "salt", {"type": "request", "once": ""})])


def test_a_move_can_be_undone_before_the_database_has_moved(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    before = facts(place.root)
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    assert [p for p in (tmp_path / "there").rglob("*") if p.is_file()]
    assert undo(place.root, quietly) == {"undone": True}
    assert not [p for p in (tmp_path / "there").rglob("*") if p.is_file()]
    assert facts(place.root) == before
    erase(str(place.root))
    assert place.requests.open_now() == []


def _files(*folders: Path) -> list[Path]:
    return [p for folder in folders for p in folder.rglob("*") if p.is_file()]


def test_a_place_that_is_left_keeps_nothing_of_ours_whatever_the_ledger_knows_of(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    """What a restore brought back, what a killed command left, what no entry tells of: no scan
    looks there again."""
    migrate(place.root, elsewhere, "there.toml", quietly)
    remote, stages = tmp_path / "there" / "remote", tmp_path / "there" / "stages"
    rows = CANARY_TEXT.encode()
    for name in (
        "files/md5/9b/" + "4" * 30,
        "files/md5/9b/" + "5" * 30 + ".dir",
        "files/md5/9b/.tmp-abc",
        f"files/md5/aa/.{'x' * 22}.tmp",
        f".{'y' * 22}.tmp",
    ):
        (remote / name).parent.mkdir(exist_ok=True)
        (remote / name).write_bytes(rows)
    for name in ("a" * 64 + ".safetensors", "b" * 64 + ".json", ".tmp-def"):
        (stages / name).write_bytes(rows)
    back = f'[store]\nurl = "{tmp_path}/last/stages"\n[dvc]\nremote = "{tmp_path}/last/remote"\n'
    before = facts(place.root)
    migrate(place.root, back, "back.toml", quietly)
    assert facts(place.root) == before
    assert not remote.exists() and not stages.exists()


@pytest.mark.long_but_first
@pytest.mark.parametrize("section", ["remote", "stages"])
def test_a_move_does_not_begin_or_end_while_somebody_elses_file_is_at_a_place_that_is_left(
    place: Workspace, elsewhere: str, tmp_path: Path, section: str
) -> None:
    other = place.root / ".s3t" / section / "notes.txt"
    other.write_text("mine")
    with pytest.raises(WorkspaceError, match="nothing but the system's own files"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    assert not place.migration_path.exists() and not (tmp_path / "there").exists()
    before = other.rename(tmp_path / "notes.txt") and facts(place.root)

    def it_comes_later(at: str) -> None:
        if at.startswith("what is left"):
            other.write_text("mine")

    with pytest.raises(WorkspaceError, match="nothing but the system's own files"):
        migrate(place.root, elsewhere, "there.toml", it_comes_later)
    assert other.read_text() == "mine"
    with pytest.raises(WorkspaceError, match="s3t migrate"):
        erase(str(place.root))
    other.unlink()
    migrate(place.root, "", "", quietly)
    check_moved(place.root, before, tmp_path)


@pytest.mark.long
def test_a_move_that_is_killed_while_it_writes_a_file_and_undone_leaves_nothing(
    place: Workspace, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, there, replace, at = facts(place.root), tmp_path / "there", os.replace, 0

    def killed(source: Any, target: Any) -> None:
        nonlocal left
        left -= str(target).startswith(str(there))
        if left < 0:
            raise Cut
        replace(source, target)

    while True:
        left, at = at, at + 1
        monkeypatch.setattr(os, "replace", killed)
        try:
            migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
        except Cut:
            finished = left >= 0
        monkeypatch.setattr(os, "replace", replace)
        assert _files(there)
        assert undo(place.root, quietly) == {"undone": True}
        assert not _files(there)
        if finished:
            break
    assert at > 10 and facts(place.root) == before


def test_a_place_that_is_away_when_it_is_to_be_emptied_is_not_taken_for_empty(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    """A disk that is not mounted: its rows would stay on it."""
    migrate(place.root, elsewhere, "there.toml", quietly)
    remote, aside = tmp_path / "there" / "remote", tmp_path / "aside"
    before = facts(place.root)

    def unmounted(at: str) -> None:
        if at.startswith("what is left"):
            remote.rename(aside)
            remote.mkdir()

    with pytest.raises(WorkspaceError, match="may be away"):
        migrate(place.root, f'[dvc]\nremote = "{tmp_path}/last"\n', "last.toml", unmounted)
    assert _files(aside)
    remote.rmdir()
    aside.rename(remote)
    migrate(place.root, "", "", quietly)
    assert not remote.exists() and facts(place.root) == before

    with pytest.raises(Cut):
        migrate(
            place.root, f'[dvc]\nremote = "{tmp_path}/next"\n', "next.toml", _cut_at("the database")
        )
    (tmp_path / "next").rename(aside)
    with pytest.raises(WorkspaceError, match="may be away"):
        undo(place.root, quietly)
    aside.rename(tmp_path / "next")
    undo(place.root, quietly)
    assert not (tmp_path / "next").exists() and facts(place.root) == before


@pytest.mark.parametrize("which", ["data", "data.dvc"])
def test_a_workspace_whose_ingest_was_interrupted_is_not_moved(
    place: Workspace, elsewhere: str, tmp_path: Path, which: str
) -> None:
    """The version that is there would be published under the name of the recorded one."""

    def head() -> bytes:
        return subprocess.check_output(["git", "log", "-1", "--format=%H"], cwd=place.root)

    path = (
        next((place.root / "data").rglob("*.parquet"))
        if which == "data"
        else place.root / "data.dvc"
    )
    good, commit, before = path.read_bytes(), head(), facts(place.root)
    path.unlink()
    path.write_bytes(good + b"new" if which == "data" else good.replace(b"md5: ", b"md5: f"))
    with pytest.raises(GuaranteeError, match="interrupted `s3t ingest`"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    assert (
        head() == commit and not (tmp_path / "there").exists() and not place.migration_path.exists()
    )
    if which == "data.dvc":
        with pytest.raises(GuaranteeError, match="interrupted `s3t ingest`"):
            place.datasets.publish(place.ledger.state().dataset)
        assert head() == commit
    path.unlink()
    path.write_bytes(good)
    migrate(place.root, elsewhere, "there.toml", quietly)
    assert facts(place.root) == before


def test_whoever_took_a_new_place_before_it_was_marked_loses_nothing(
    place: Workspace, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the move, when it goes on, nor when it is undone."""

    def cut(*_: object, **__: object) -> None:
        raise Cut

    before = facts(place.root)
    with monkeypatch.context() as patched, pytest.raises(Cut):
        claim = stores.claim
        patched.setattr(
            stores, "claim", lambda at, held, **begins: cut() if begins else claim(at, held)
        )
        migrate(place.root, elsewhere, "there.toml", quietly)
    stages = tmp_path / "there" / "stages"
    stages.mkdir(parents=True)
    (stages / "s3t-owner").write_text("another workspace's ledger")
    (stages / ("a" * 64 + ".safetensors")).write_bytes(b"theirs")
    with pytest.raises(WorkspaceError, match="belongs to another"):
        migrate(place.root, "", "", quietly)
    assert undo(place.root, quietly) == {"undone": True}
    assert {p.name for p in stages.iterdir()} == {"s3t-owner", "a" * 64 + ".safetensors"}
    assert facts(place.root) == before


def test_whoever_began_a_ledger_in_the_new_database_meanwhile_loses_nothing(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    before = facts(place.root)
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    other = Database(f"sqlite:///{tmp_path}/there/s3t.db", place.root, place.keys.sealing)
    first = {"type": "workspace", "time": "2026-01-01T00:00:00Z", "key_check": "another"}
    other.create([first])
    with pytest.raises(WorkspaceError, match="begun meanwhile"):
        migrate(place.root, "", "", quietly)
    assert SqlLedger(other).events() == [first]
    assert undo(place.root, quietly) == {"undone": True}
    assert SqlLedger(other).events() == [first] and not _files(tmp_path / "there" / "stages")
    assert facts(place.root) == before


def test_what_stands_at_the_new_place_is_left_alone(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    other = Database(f"sqlite:///{tmp_path}/there/s3t.db", place.root, place.keys.sealing)
    other.create([{"type": "workspace", "time": "2026-01-01T00:00:00Z", "key_check": "another"}])
    with pytest.raises(WorkspaceError, match="empty places"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    assert SqlLedger(other).events() == [
        {"type": "workspace", "time": "2026-01-01T00:00:00Z", "key_check": "another"}
    ]
    assert not place.migration_path.exists()


@pytest.mark.parametrize(
    "place_of",
    [
        "[store]\nurl = '.s3t/stages/deeper'",
        "[store]\nurl = '.s3t'",
        "[dvc]\nremote = '.s3t/../.s3t/remote'",
        "[dvc]\nremote = '.s3t/stages/x'",
    ],
)
def test_places_within_each_other_are_refused(place: Workspace, place_of: str) -> None:
    before = facts(place.root)
    with pytest.raises(UsageError, match="beside the old ones"):
        migrate(place.root, place_of, "there.toml", quietly)
    assert facts(place.root) == before and not place.migration_path.exists()


def test_what_is_no_move_is_refused(place: Workspace, elsewhere: str) -> None:
    with pytest.raises(UsageError, match="nothing is to be moved"):
        migrate(place.root, "", "", quietly)
    with pytest.raises(UsageError, match="training"):
        migrate(place.root, elsewhere + "[training]\nepochs = 9\n", "there.toml", quietly)
    with workspace_lock(place.lock_path), pytest.raises(Busy):
        migrate(place.root, elsewhere, "there.toml", quietly)
    with workspace_lock(place.serve_lock_path), pytest.raises(Busy, match="s3t serve"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    with pytest.raises(UsageError, match="nothing to undo"):
        undo(place.root, quietly)


def test_a_damaged_stage_stops_the_move_and_nothing_is_removed(
    place: Workspace, elsewhere: str
) -> None:
    from s3t_core.errors import ArtifactError

    stage = next(iter(place.ledger.state().stages.values()))
    path = place.root / ".s3t" / "stages" / f"{stage.digest}.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(ArtifactError):
        migrate(place.root, elsewhere, "there.toml", quietly)
    path.write_bytes(good)
    before = facts(place.root)
    migrate(place.root, "", "", quietly)
    assert facts(place.root) == before


@pytest.mark.parametrize("where", ["the old place", "the new place"])
@pytest.mark.parametrize("what", ["link", "mount"])
def test_a_directory_on_another_disk_stops_the_move_before_anything_is_written_there(
    place: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    what: str,
) -> None:
    """While that disk is away an erasure would find nothing of what the move put there."""
    remote = place.remote if where == "the old place" else tmp_path / "new"
    within, disk = remote / "files" / "md5", tmp_path / "disk"
    within.mkdir(parents=True, exist_ok=True)
    if what == "link":
        shutil.move(within, disk)
        within.symlink_to(disk)
    else:
        told = tmp_path / "mountinfo"
        told.write_text(f"36 22 98:0 / {within.resolve()} rw - ext4 /dev/x rw\n")
        monkeypatch.setattr("flows.adapters.footing._MOUNTS", told)
    before = {p for p in tmp_path.rglob("*") if p.suffix != ".lock"}
    settings = f"[dvc]\nremote = '{tmp_path / 'new'}'\n"
    with pytest.raises(GuaranteeError, match=f"files/md5 .*got a {what}"):
        migrate(place.root, settings, "there.toml", quietly)
    assert {p for p in tmp_path.rglob("*") if p.suffix != ".lock"} == before


@pytest.mark.parametrize("goes_on", ["migrate", "undo"])
def test_a_disk_that_came_while_a_move_was_cut_off_stops_it(
    place: Workspace, elsewhere: str, tmp_path: Path, goes_on: str
) -> None:
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("data object 2"))
    within, disk = tmp_path / "there" / "remote" / "files" / "md5", tmp_path / "disk"
    shutil.move(within, disk)
    within.symlink_to(disk)
    with pytest.raises(GuaranteeError, match="got a link"):
        if goes_on == "migrate":
            migrate(place.root, "", "", quietly)
        else:
            undo(place.root, quietly)
    within.unlink()
    shutil.move(disk, within)
    migrate(place.root, "", "", quietly) if goes_on == "migrate" else undo(place.root, quietly)


@pytest.mark.parametrize("goes_on", ["migrate", "undo"])
def test_a_link_in_what_no_move_copies_stops_it_before_it_begins(
    place: Workspace, elsewhere: str, tmp_path: Path, goes_on: str
) -> None:
    """Nothing is moved of it, and what it leads to would not be found where the move goes on."""
    if goes_on == "undo":
        migrating._Journal(place.migration_path, "m", place.config, place.config).write()
    before = sorted(place.state_dir.rglob("*"))
    file = next(p for p in sorted((place.root / "data").rglob("*.parquet")))
    file.rename(tmp_path / "rows")
    file.symlink_to(tmp_path / "rows")
    with pytest.raises(GuaranteeError, match=r"expected data/.*got a link"):
        if goes_on == "migrate":
            migrate(place.root, elsewhere, "there.toml", quietly)
        else:
            undo(place.root, quietly)
    assert sorted(place.state_dir.rglob("*")) == before


@pytest.mark.long_but_first
@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("where", ["stages", "remote"])
def test_a_link_or_a_pipe_in_the_place_of_a_file_stops_the_move_before_it_begins_and_before_it_ends(
    place: Workspace,
    elsewhere: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    where: str,
) -> None:
    """Of a link only the link would be removed, and what it leads to would outlive every
    certificate."""
    file = next(
        p for p in sorted((place.state_dir / where).rglob("*")) if p.is_file() and p.name != OWNER
    )
    kept, content = tmp_path / "disk", file.read_bytes()

    def put() -> None:
        file.unlink()
        if kind == "pipe":
            os.mkfifo(file)
        else:
            kept.write_bytes(content)
            file.symlink_to(kept)

    def mend() -> None:
        file.unlink()
        file.write_bytes(content)
        kept.unlink(missing_ok=True)

    put()
    with pytest.raises(GuaranteeError, match="expected"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    assert not place.migration_path.exists() and not (tmp_path / "there").exists()
    mend()
    empty = migrating.LeftPlace.empty

    def emptied(left: Any) -> None:
        put()
        empty(left)

    monkeypatch.setattr(migrating.LeftPlace, "empty", emptied)
    with pytest.raises(GuaranteeError, match="expected"):
        migrate(place.root, elsewhere, "there.toml", quietly)
    assert place.migration_path.exists() and (kept.is_file() or kind == "pipe")
    with pytest.raises(S3TError):
        erase(str(place.root))
    monkeypatch.undo()
    mend()
    migrate(place.root, "", "", quietly)
    assert not file.exists() and not place.migration_path.exists()
    assert erase(str(place.root))["certificates"]


def test_a_second_remote_is_not_forgotten_silently(prepared: Any, elsewhere: str) -> None:
    place = prepared.fresh()
    with pytest.raises(UsageError, match="one DVC remote"):
        migrate(place.root, elsewhere, "there.toml", quietly)


@pytest.fixture
def from_elsewhere(place: Workspace, tmp_path: Path) -> Workspace:
    """Store and remote are directories outside of the workspace already."""
    first = f'[store]\nurl = "{tmp_path}/first/stages"\n[dvc]\nremote = "{tmp_path}/first/remote"\n'
    migrate(place.root, first, "first.toml", quietly)
    return Workspace(place.root)


@pytest.mark.long_but_first
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("marked", [True, False])
def test_what_a_restore_brings_back_to_a_place_that_was_left_is_destroyed_again(
    place: Workspace, tmp_path: Path, inside: bool, marked: bool, request: pytest.FixtureRequest
) -> None:
    """No scan looks there; files of somebody else's, and a place that is another's by now, stay."""
    if not inside:
        place = request.getfixturevalue("from_elsewhere")
    folders = [Path(place.root, place.config.store.url), Path(place.root, place.config.dvc.remote)]
    kept = [shutil.copytree(folder, tmp_path / "kept" / folder.name) for folder in folders]
    erase(str(place.root))
    last = f'[store]\nurl = "{tmp_path}/last/stages"\n[dvc]\nremote = "{tmp_path}/last/remote"\n'
    migrate(place.root, last, "last.toml", quietly)
    forget_connections()
    for folder, copy in zip(folders, kept, strict=True):
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        if not marked:
            (folder / OWNER).unlink(missing_ok=True)
        (folder / "theirs.txt").write_text("of somebody else")
        (folder / "theirs, and empty").mkdir()
    assert any(CANARY_TEXT[:40].encode() in p.read_bytes() for p in _files(*folders))
    healed = erase(str(place.root))["healed"]
    assert healed["stages"] and healed["objects"]
    assert {p.name for p in _files(*folders)} <= {"theirs.txt"}
    assert inside or marked or all((folder / "theirs, and empty").is_dir() for folder in folders)
    assert not any(erase(str(place.root))["healed"].values())
    for folder, copy in zip(
        folders, kept, strict=True
    ):  # and when another workspace has taken the place
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        (folder / OWNER).write_text("0" * 64)
    there = len(_files(*folders))
    if not inside:
        assert not any(erase(str(place.root))["healed"].values()) and len(_files(*folders)) == there


def test_a_link_in_a_place_that_was_left_stops_every_erasure(
    from_elsewhere: Workspace, tmp_path: Path
) -> None:
    """What it leads to is not looked at, and a restore brought the mark back with it."""
    place = from_elsewhere
    remote = Path(place.root, place.config.dvc.remote)
    kept = shutil.copytree(remote, tmp_path / "kept")
    erase(str(place.root))
    last = f'[dvc]\nremote = "{tmp_path}/last/remote"\n'
    migrate(place.root, last, "last.toml", quietly)
    forget_connections()
    remote.mkdir(parents=True, exist_ok=True)
    shutil.copy(kept / OWNER, remote / OWNER)
    (remote / "files").symlink_to(kept / "files")
    with pytest.raises(GuaranteeError, match=r"files .*got a link"):
        erase(str(place.root))
    (remote / "files").unlink()
    shutil.copytree(kept / "files", remote / "files")
    assert erase(str(place.root))["healed"]["objects"] and not _files(remote)


@pytest.mark.long_but_first
@pytest.mark.parametrize("end", [migrate, undo])
def test_an_unfinished_move_is_known_to_the_ledger_whatever_a_restore_takes_away(
    place: Workspace, elsewhere: str, tmp_path: Path, end: Callable[..., Any]
) -> None:
    before = facts(place.root)
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    place.migration_path.unlink()
    for command in (erase, train):
        with pytest.raises(WorkspaceError, match="s3t migrate"):
            command(str(place.root))
    assert (
        len(take_requests(Workspace(place.root), ["person-009"])) == 1
    )  # requests are taken all the same
    with pytest.raises(UsageError, match="others"):
        migrate(place.root, elsewhere.replace("there", "nowhere"), "x.toml", quietly)
    if end is migrate:
        migrate(place.root, "", "", quietly)
    else:
        undo(place.root, quietly)
        assert _files(tmp_path / "there") == []
    after = Workspace(place.root)
    assert after.ledger.state().moving is None and not place.migration_path.exists()
    assert len(facts(place.root)["requests"]) == len(before["requests"]) + 1
    assert len(erase(str(place.root))["certificates"]) == 2


# --- what a restore of files brings back of a move


def _moved_with_a_backup(place: Workspace, elsewhere: str, folder: Path) -> Path:
    """A backup of `.s3t` while the move was unfinished; then the move, and a request at its new
    place."""
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    backup = folder / "backup"
    shutil.copytree(place.state_dir, backup, symlinks=True)
    forget_connections()
    migrate(place.root, "", "", quietly)
    take_requests(Workspace(place.root), ["person-005"])
    return backup


def _restore(place: Workspace, backup: Path) -> None:
    forget_connections()
    shutil.rmtree(place.state_dir)
    shutil.copytree(backup, place.state_dir, symlinks=True)


@pytest.mark.long_but_first
@pytest.mark.parametrize("ends_on_record", [True, False])
@pytest.mark.parametrize("end", [migrate, undo])
def test_a_restore_from_the_middle_of_a_move_takes_nothing_from_the_database_that_moved(
    place: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[..., Any],
    ends_on_record: bool,
) -> None:
    """The restored note says that the move is under way, and the old database is there again."""
    elsewhere = f'[database]\nurl = "sqlite:///{tmp_path}/there/s3t.db"\n'
    if not ends_on_record:  # by a build that told of no end
        append = SqlLedger.append
        monkeypatch.setattr(
            SqlLedger,
            "append",
            lambda ledger, event: (
                None if isinstance(event, events.MoveEnded) else append(ledger, event)
            ),
        )
    backup = _moved_with_a_backup(place, elsewhere, tmp_path)
    monkeypatch.undo()
    there = Database(f"sqlite:///{tmp_path}/there/s3t.db", place.root, place.keys.sealing)
    before = SqlLedger(there).events()
    _restore(place, backup)
    with contextlib.suppress(UsageError):
        end(place.root, "", "", quietly) if end is migrate else end(place.root, quietly)
    assert SqlLedger(there).events()[: len(before)] == before
    if not place.migration_path.exists():
        assert len(Workspace(place.root).requests.open_now()) == 2
        assert len(erase(str(place.root))["certificates"]) == 2
    else:  # an unfinished move, as far as anybody can tell: it is finished and not undone
        assert end is undo and not ends_on_record
        migrate(place.root, "", "", quietly)
        assert len(erase(str(place.root))["certificates"]) == 2


def test_where_both_databases_went_on_nothing_is_lost_and_somebody_decides(
    place: Workspace, tmp_path: Path
) -> None:
    elsewhere = f'[database]\nurl = "sqlite:///{tmp_path}/there/s3t.db"\n'
    settings = (place.root / "s3t.toml").read_bytes()
    backup = _moved_with_a_backup(place, elsewhere, tmp_path)
    there = Database(f"sqlite:///{tmp_path}/there/s3t.db", place.root, place.keys.sealing)
    _restore(place, backup)
    now = (place.root / "s3t.toml").read_bytes()
    (place.root / "s3t.toml").write_bytes(settings)
    take_requests(Workspace(place.root), ["person-006"])  # in the old one
    (place.root / "s3t.toml").write_bytes(now)
    old = Database(place.config.database.url, place.root, place.keys.sealing)
    kept = SqlLedger(there).events(), SqlLedger(old).events()
    assert not is_over("another", kept[0]) and len(kept[1]) > 5
    move = json.loads(place.migration_path.read_bytes())["move"]
    went_on = [e for e in kept[0] if e.get("state") != "ended"]
    with pytest.raises(GuaranteeError, match="two that both went on"):
        has_moved(move, kept[1], went_on)


def test_what_else_the_settings_say_meanwhile_stays(
    place: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    with pytest.raises(Cut):
        migrate(place.root, elsewhere, "there.toml", _cut_at("the database"))
    path = place.root / "s3t.toml"
    text = path.read_text()
    changed = text.replace("needs_approval = false", "needs_approval = true")
    outside = tmp_path / "checkpoints"
    outside.mkdir()
    changed = changed.replace('log_checkpoints_to = ""', f'log_checkpoints_to = "{outside}"')
    assert changed.count("true") > text.count("true") and str(outside) in changed
    path.write_text(changed)
    migrate(place.root, "", "", quietly)
    after = Workspace(place.root).config
    assert after.erasure.needs_approval and after.erasure.log_checkpoints_to == str(outside)
    assert after.store.url == f"{tmp_path}/there/stages" and list(outside.iterdir())


def test_a_rule_that_is_changed_meanwhile_is_not_undone_by_the_move(
    place: Workspace, elsewhere: str
) -> None:
    """It may have copied for hours since it read the settings."""
    path = place.root / "s3t.toml"

    def say(what: str) -> None:
        if what == "the database":
            changed = path.read_text().replace("needs_approval = false", "needs_approval = true")
            path.write_text(changed)

    migrate(place.root, elsewhere, "there.toml", say)
    after = Workspace(place.root).config
    assert after.erasure.needs_approval and after.store.url.endswith("/there/stages")


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["undone", "moved on", "moved back"])
def test_what_tells_of_a_move_that_is_over_locks_nobody_out(
    place: Workspace, tmp_path: Path, how: str
) -> None:
    """A note that a restore brought back, of a move that was undone, or that another followed."""

    def places(name: str) -> str:
        return f'[store]\nurl = "{tmp_path}/{name}/stages"\n[dvc]\nremote = "{tmp_path}/{name}/r"\n'

    with pytest.raises(Cut):
        migrate(place.root, places("b"), "b.toml", _cut_at("the database"))
    note = place.migration_path.read_bytes()
    if how == "undone":
        undo(place.root, quietly)
        migrate(place.root, places("b"), "b.toml", quietly)
    else:
        migrate(place.root, "", "", quietly)
        back = '[store]\nurl = ".s3t/stages"\n[dvc]\nremote = ".s3t/remote"\n'
        migrate(place.root, places("c") if how == "moved on" else back, "c.toml", quietly)
    settings, before = (place.root / "s3t.toml").read_bytes(), facts(place.root)
    for end in (lambda: migrate(place.root, "", "", quietly), lambda: undo(place.root, quietly)):
        place.migration_path.write_bytes(note)
        with pytest.raises(WorkspaceError, match="s3t migrate"):
            erase(str(place.root))
        with pytest.raises(UsageError):
            end()
        assert not place.migration_path.exists()
        assert (place.root / "s3t.toml").read_bytes() == settings and facts(place.root) == before
    assert len(erase(str(place.root))["certificates"]) == 1


def test_a_move_that_no_entry_ends_is_over_once_another_came_behind_it() -> None:
    """As builds wrote ledgers that told of no end."""
    moved = [{"type": "migrated", "move": move} for move in ("m", "", "n")]
    assert [is_over("m", moved[:n]) for n in range(4)] == [False, False, False, True]
    begun = {"type": "moving", "move": "n", "state": "begun"}
    assert is_over("m", [moved[0], begun]) and not is_over("n", [moved[0], begun])
    assert not is_over("m", [{"type": "moving", "move": "m", "state": "begun"}])
