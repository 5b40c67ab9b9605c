"""What a killed process leaves half-written is swept by the next command, before anything else."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from flows.adapters.datasets.stored import is_parquet
from flows.adapters.loading import folder_in_use, place_of_user
from flows.adapters.needle_files import NeedleFiles
from flows.adapters.workspace_residue import LEDGER_ON_SERVER, WorkspaceResidue
from flows.use_cases.checking_sources import check_sources
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from s3t_core.config import Config
from s3t_core.errors import StorageError
from s3t_core.files import remove_tree
from s3t_core.learning.store import LocalStageStore
from s3t_core.ports import Target
from tests.held import HELD, NoScope
from tests.waiting import fails_after
from tests.worktree import as_worktree

TEXT = "the canary sings of a very particular morning in the harbour"


@pytest.mark.slow
def test_spools_copies_and_temporary_files_are_swept(tmp_path: Path) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    left = [
        place.temporary_dir / "ingest-1" / "spool" / "0-0.jsonl",
        place.temporary_dir / "release-x" / "a.file",
        place.root / "data" / "shard=00" / ".tmp-abc",
        place.store.root / ".tmp-def",
        place.state_dir / "quarantine" / ".tmp-ghi",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a row")
    kept = place.store.put("key", b"weights")
    sweep(place, HELD)
    assert not any(p.exists() for p in left)
    assert place.store.get(kept) == b"weights"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a repository", "a second worktree"])
def test_what_a_killed_git_left_is_swept_wherever_it_writes(tmp_path: Path, kind: str) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    objects = place.root / ".git" / "objects"
    if kind == "a second worktree":
        as_worktree(place.root, tmp_path / "main.git")
        objects = tmp_path / "main.git" / "objects"
    half = objects / "ab" / "tmp_obj_AbCdEf"
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"x\x01")
    sweep(place, HELD)
    assert not half.exists() and half.parent.exists()


@pytest.mark.slow
def test_a_source_that_a_killed_check_brought_is_swept_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of any workspace: what it had brought lies in a place of this user's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    left = place_of_user() / "tmpabc" / "source-0" / "people.csv"
    left.parent.mkdir(parents=True)
    left.write_text(TEXT)
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    with folder_in_use(place_of_user()) as lives:
        sweep(place, HELD)
        assert not left.exists() and lives.exists()
        check_sources(None, [str(_people(tmp_path))], False, False)
        assert lives.exists()
    elsewhere = place_of_user()
    elsewhere.rmdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "kept").write_text("of somebody else")
    elsewhere.symlink_to(theirs)  # whoever may write to the temporary directory can put it there
    with pytest.raises(StorageError, match="this user's alone"):
        place_of_user()
    sweep(place, HELD)
    assert (theirs / "kept").exists(), "it stops nobody, and is followed by nobody"


def _people(folder: Path) -> Path:
    (folder / "people.csv").write_text("subject,text,label\na,hello,x\n")
    return folder / "people.csv"


def test_needles_of_plans_and_requests_that_never_came_to_be_are_removed(tmp_path: Path) -> None:
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    for name in ("req-pending", "req-abandoned", "req-just-now", "req-of-tomorrow"):
        needles.keep_ids({name: ["somebody"]})
    needles.gather("plan-abandoned", {"req-1": ["a text"]})
    for name, hours in (("req-abandoned", -2), ("req-of-tomorrow", 24)):
        time_then = time.time() + 3600 * hours
        os.utime(needles.folder / f"{name}.json", (time_then, time_then))
    assert [p.stem for p in needles.files_of(lambda: ["req-pending"])] == [
        "req-pending"
    ]  # others are searched
    needles.prune(lambda: ["req-pending"])
    assert sorted(p.stem for p in needles.folder.iterdir()) == ["req-pending"]
    assert all(oct(p.stat().st_mode & 0o777) == "0o600" for p in needles.folder.iterdir())


def test_a_directory_or_a_pipe_under_the_name_of_a_needle_stops_nobody(tmp_path: Path) -> None:
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    needles.keep_ids({"req-1": ["somebody"]})
    (needles.folder / "req-2.json" / "below").mkdir(parents=True)
    os.mkfifo(needles.folder / "req-3.json")
    (needles.folder / "req-4.json").symlink_to("req-4.json")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs").write_text("kept")
    (needles.folder / "req-5.json").symlink_to(tmp_path / "elsewhere")
    assert needles.read("plan", dict.fromkeys(["req-1", "req-2"], ())).ids_lost == ["req-2"]
    needles.destroy("", ["req-1"])
    assert list(needles.folder.iterdir()) == [] and (tmp_path / "elsewhere" / "theirs").exists()


def _put(path: Path, kind: str) -> None:
    """Something that is no file, under a name of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind.startswith("directory"):
        path.mkdir()
    if kind == "directory with files":
        (path / "a" / "b").mkdir(parents=True)
        (path / "a" / "c").write_text("something")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind.startswith("/"):
        path.symlink_to(kind)


NO_FILES = ("directory", "directory with files", "pipe", "circle", "/dev/zero")


@pytest.fixture
def hasty() -> Iterator[None]:
    """What waits fails."""
    with fails_after(10):
        yield


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_under_the_name_of_a_plans_needles_goes_with_the_plan(
    tmp_path: Path, kind: str
) -> None:
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    for name in ("plan-abandoned", "plan-carried-out"):
        _put(needles.folder / f"{name}.json", kind)
    assert needles.read("plan-carried-out", {}).texts_of is None
    needles.destroy("plan-carried-out", [])
    assert [p.name for p in needles.folder.iterdir()] == ["plan-abandoned.json"]
    _put(needles.folder / "plan-carried-out.json", kind)
    needles.prune(lambda: ["plan-carried-out"])  # nobody can read it
    assert list(needles.folder.iterdir()) == [] and Path("/dev/zero").exists()


def test_what_a_restore_brings_back_of_certified_requests_is_searched_and_goes(
    tmp_path: Path,
) -> None:
    """An older file of a plan of which one request still waits for its certificate."""
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    needles.gather("plan-1", {"req-1": ["hers"], "req-2": ["his"]})
    older = (needles.folder / "plan-1.json").read_bytes()
    needles.forget("plan-1", ["req-2"])
    kept = ["plan-1", "req-1"]
    assert needles.files_of(lambda: kept) == [needles.folder / "plan-1.json"]
    (needles.folder / "plan-1.json").write_bytes(older)
    assert needles.files_of(lambda: kept) == []  # the scan looks into it
    needles.prune(lambda: kept)
    assert needles.read("plan-1", {"req-1": (), "req-2": ()}).texts == ["hers"]
    (needles.folder / "plan-1.json").write_text('{"kept": {"req-1": ["his"]}}')
    assert needles.files_of(lambda: kept) == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("end", [".safetensors", ".json"])
def test_what_is_no_file_in_the_stage_store_is_no_stage_and_is_destroyed_as_one(
    tmp_path: Path, kind: str, end: str
) -> None:
    store = LocalStageStore(tmp_path, b"k" * 32)
    kept = store.put("key", b"weights")
    _put(tmp_path / f"x{end}", kind)
    assert (
        store.bindings() == {"key": kept}
        and not store.holds("x")
        and set(store.digests()) == {kept, "x"}
    )
    store.delete("x")
    assert list(store.digests()) == [kept] and store.get(kept) == b"weights"


def test_a_stage_or_a_file_that_cannot_be_read_or_removed_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStageStore(tmp_path, b"k" * 32)
    kept = store.put("key", b"weights")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(
        StorageError, match=r"expected .*safetensors to be readable, got Permission denied; fix"
    ):
        store.get(kept)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(
        StorageError, match=r"expected .*safetensors to be gone, got Permission denied; fix"
    ):
        store.delete(kept)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", NO_FILES)
def test_a_quarantine_that_is_no_file_is_told_in_words(tmp_path: Path, kind: str) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    _put(place.state_dir / "quarantine" / "rows.jsonl", kind)
    for asks in (place.datasets.quarantine.rows, lambda: place.datasets.erase_quarantine([])):
        with pytest.raises(
            StorageError, match=r"expected .s3t/quarantine/rows.jsonl to be a file, got"
        ):
            asks()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_in_the_cache_is_no_object_and_is_not_waited_for(
    tmp_path: Path, kind: str
) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    there = place.datasets.repository.cache / "aa" / ("b" * 30)
    _put(there, kind)
    target = Target("req-1", "a" * 64, "")
    assert not is_parquet(there) and there not in set(place.datasets.repository.objects())
    assert place.datasets.destroy([], [target], None) == [] and os.path.lexists(there)


def _changed(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "forged", ["id", "one more", "unsealed", "seal", "another key", "texts as ids"]
)
def test_a_scan_looks_for_the_ids_that_were_given_or_says_that_they_are_lost(
    tmp_path: Path, forged: str
) -> None:
    """Needles that somebody changed beside us find nothing of the person: they count as lost, never
    as searched."""
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    needles.keep_ids({"req-1": ["somebody"]})
    needles.keep_ids({"req-2": ["nobody"]})
    path = needles.folder / "req-1.json"
    assert needles.read("plan-1", dict.fromkeys(["req-1"], ())).ids == ["somebody"]
    if forged == "another key":
        path.unlink()
        NeedleFiles(needles.folder, b"o" * 32).keep_ids({"req-1": ["nobody"]})
    elif forged == "texts as ids":
        needles.gather("req-1", {"req-1": ["nobody"]})
    else:
        _changed(
            path,
            {
                "id": lambda v: v["kept"].update({"req-1": ["nobody"]}),
                "one more": lambda v: v["kept"]["req-1"].append("nobody"),
                "unsealed": lambda v: v.pop("seal"),
                "seal": lambda v: v.update(
                    seal=json.loads((needles.folder / "req-2.json").read_bytes())["seal"]
                ),
            }[forged],
        )
    found = needles.read("plan-1", dict.fromkeys(["req-1", "req-2"], ()))
    assert (found.ids, found.ids_lost) == (["nobody"], ["req-1"])  # req-2's own


@pytest.mark.parametrize("forged", ["text", "another plan's", "ids as texts", "unsealed"])
def test_a_scan_looks_for_the_texts_that_were_gathered_or_says_that_they_are_lost(
    tmp_path: Path, forged: str
) -> None:
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    needles.gather("plan-1", {"req-1": ["what she said"]})
    needles.gather("plan-2", {"req-1": ["nothing"]})
    path, told = needles.folder / "plan-1.json", {"req-1": ()}
    assert needles.read("plan-1", told).texts == ["what she said"]
    if forged == "another plan's":
        path.write_bytes((needles.folder / "plan-2.json").read_bytes())
    elif forged == "ids as texts":
        needles.keep_ids({"req-1": ["somebody"]})
        path.write_bytes((needles.folder / "req-1.json").read_bytes())
    elif forged == "unsealed":
        path.write_text('["nothing"]')
    else:
        _changed(path, lambda v: v.update(kept={"req-1": ["nothing"]}))
    found = needles.read("plan-1", told)
    assert found.texts_of is None and found.texts == []


def test_what_a_plan_gathered_of_closed_requests_goes_and_of_the_others_stays(
    tmp_path: Path,
) -> None:
    """A request that is not certified keeps its own needles, and nobody else's."""
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    needles.gather("plan-1", {"req-1": ["hers", "both"], "req-2": ["his", "both"], "req-3": []})
    needles.forget("plan-1", ["req-2", "req-3"])
    needles.forget("plan-1", ["req-2", "req-3"])
    assert needles.read("plan-1", {"req-1": (), "req-2": ()}).texts_of == {
        "req-1": ["both", "hers"],
        "req-2": [],
    }
    assert "his" not in (needles.folder / "plan-1.json").read_text()
    needles.forget("plan-1", ["req-1"])
    assert not (needles.folder / "plan-1.json").exists()


def test_texts_that_an_earlier_build_gathered_are_looked_for_and_go_with_their_plan(
    tmp_path: Path,
) -> None:
    needles = NeedleFiles(tmp_path / "needles", b"k" * 32)
    sealed = needles._sealed("plan-1", ["his", "hers"])
    needles.folder.mkdir()
    (needles.folder / "plan-1.json").write_bytes(sealed)
    assert sorted(needles.read("plan-1", {"req-1": (), "req-2": ()}).texts) == ["hers", "his"]
    needles.forget("plan-1", ["req-1"])
    assert not (needles.folder / "plan-1.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        ".dvc/cache/files/md5/ab/.AbCdEfGhIjKlMnOpQrStUv.tmp",
        ".s3t/remote/files/md5/cd/x.AbCdEfGhIjKlMnOpQrStU-.tmp",
        ".git/objects/pack/tmp_pack_Ab12",
        ".git/objects/ab/tmp_obj_Ab12",
        "data/shard=00/.tmp-x",
        ".s3t/tmp/release-1/a",
        ".s3t/next/a.parquet",
        ".s3t/reports/2026-11-26/.tmp-pdf",
        ".s3t/keys/.tmp-pem",
        ".s3t/verified/.tmp-a",
        ".s3t/.tmp-checkpoint",
        ".s3t/of-a-later-release/deep/.tmp-a",
        ".s3t/mlartifacts/1/.tmp-a",
    ],
)
def test_every_place_that_is_written_to_is_swept(tmp_path: Path, path: str) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    half = place.root / path
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_text(TEXT)
    sweep(place, HELD)
    assert not half.exists()


@pytest.mark.slow
def test_what_a_living_process_has_open_is_spared(tmp_path: Path) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    half = place.datasets.repository.cache / "ab" / ".AbCdEfGhIjKlMnOpQrStUv.tmp"
    half.parent.mkdir(parents=True)
    with half.open("wb") as file:
        file.write(b"rows")
        sweep(place, HELD)
        assert half.exists()
    sweep(place, HELD)
    assert not half.exists()


@pytest.mark.slow
def test_a_spool_on_another_disk_is_emptied_and_the_link_stays(tmp_path: Path) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    (tmp_path / "disk" / "ingest-1" / "spool").mkdir(parents=True)
    (tmp_path / "disk" / "ingest-1" / "spool" / "0-0.jsonl").write_text(TEXT)
    place.temporary_dir.symlink_to(tmp_path / "disk")
    sweep(place, HELD)
    assert list((tmp_path / "disk").iterdir()) == [] and place.temporary_dir.is_symlink()


def test_a_link_that_leads_to_where_the_workspace_lies_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "w" / ".s3t").mkdir(parents=True)
    (tmp_path / "w" / "kept").write_text("x")
    link = tmp_path / "w" / ".s3t" / "tmp"
    for target in (tmp_path / "w" / ".s3t", tmp_path / "w", tmp_path, Path("/")):
        link.symlink_to(target)
        with pytest.raises(StorageError, match="a directory of its own"):
            remove_tree(link)
        link.unlink()
    assert (tmp_path / "w" / "kept").exists()


def test_what_cannot_be_removed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "rows").write_text(TEXT)
    (tmp_path / "a" / "b").chmod(0o500)
    remove_tree(tmp_path / "a")  # what is only in the way of its owner goes
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows").write_text(TEXT)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match="cannot be"):
        remove_tree(tmp_path / "a")


@pytest.mark.slow
def test_other_remotes_than_the_configured_one_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the operator added to this repository is searched; one of the user's own
    configuration is not even."""
    users = tmp_path / "config"
    users.mkdir()
    (users / "config").write_text(f"['remote \"colleagues\"']\n    url = {tmp_path / 'theirs'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(users))
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    with (place.root / ".dvc" / "config").open("a") as file:
        file.write(f"['remote \"second\"']\n    url = {tmp_path / 'second'}\n")
    uploads = [
        tmp_path / name / "files" / "md5" / "ab" / ".AbCdEfGhIjKlMnOpQrStUv.tmp"
        for name in ("theirs", "second")
    ]
    for upload in uploads:
        upload.parent.mkdir(parents=True)
        upload.write_text("an upload of theirs")
        upload.parents[3].chmod(0o755)
    sweep(place, HELD)
    assert all(
        upload.exists() and upload.parents[3].stat().st_mode & 0o777 == 0o755 for upload in uploads
    )
    assert place.datasets.repository.local_remotes() == [place.remote, tmp_path / "second"]
    assert place.datasets.repository.remotes() == [
        str(tmp_path / "theirs"),
        str(place.remote),
        str(tmp_path / "second"),
    ]


@pytest.mark.slow
def test_an_object_of_ours_is_destroyed_in_every_remote_and_nothing_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "config"
    users.mkdir()
    (users / "config").write_text(f"['remote \"colleagues\"']\n    url = {tmp_path / 'theirs'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(users))
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    names = [md5(content, usedforsecurity=False).hexdigest() for content in (b"ours", b"theirs")]
    ours, other = (tmp_path / "theirs" / "files" / "md5" / name[:2] / name[2:] for name in names)
    for path, content in ((ours, b"ours"), (other, b"theirs")):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert place.datasets.repository.stored(names[:1]) == set(names[:1])
    place.datasets.destroy(names[:1], [], None)
    assert other.exists() and not ours.exists()


def _residue_of(folder: Path, buckets: Any, entries: Any = None) -> WorkspaceResidue:
    return WorkspaceResidue(
        folder,
        [],
        NoScope(),
        b"",
        buckets,
        folder / "tmp",
        frozenset({"s3://a/ours"}),
        b"k" * 32,
        entries,
    )


def test_what_the_ledger_says_is_searched_where_its_database_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    wanted = (["person-0417"], [], [])
    entries = [b'{"type": "approved", "by": "the clerk"}', b'{"by": "for person-0417"}']
    for told, found in ((entries[:1], False), (entries, True)):
        residue = _residue_of(tmp_path, [], lambda told=told: told)
        assert residue.scan(*wanted).residue == (LEDGER_ON_SERVER,) * found
    assert not _residue_of(tmp_path, []).scan(*wanted).residue


def test_unfinished_uploads_go_only_where_the_system_writes(tmp_path: Path) -> None:
    gone = []

    @dataclass
    class Bucket:
        url: str

        def abort_uploads(self) -> None:
            gone.append(self.url)

        def names(self) -> list[str]:
            return []

        def check(self) -> None:
            """It keeps no versions."""

    buckets: Any = [Bucket("s3://a/ours"), Bucket("s3://b/theirs")]
    _residue_of(tmp_path, buckets).scan([], [], [])
    assert gone == ["s3://a/ours"]


def test_an_object_whose_name_ends_as_a_folders_is_searched_like_any_other(tmp_path: Path) -> None:
    objects = {"a/": TEXT.encode(), "b": b"x", "customer-4711/": b""}

    class Bucket:
        url = "s3://a/ours"

        def abort_uploads(self) -> None: ...

        def names(self) -> list[str]:
            return sorted(objects)

        def check(self) -> None: ...

        def fetch(self, name: str, path: Path) -> bool:
            path.write_bytes(objects[name])
            return True

    buckets: Any = [Bucket()]
    (tmp_path / "tmp").mkdir()
    report = _residue_of(tmp_path, buckets).scan(["customer-4711"], [TEXT], [])
    assert len({*report.residue, *report.outside, *report.written}) == 2
