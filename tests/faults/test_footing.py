"""What lies in the place of a file of the system's and is none: a link, whose target would keep the
rows; a pipe."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.adapters.dvc_repository import md5_named
from flows.adapters.footing import check_footing
from flows.adapters.git import run_git
from flows.use_cases.finding import look_alikes, look_up, look_up_hashed
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.reconciling import reconcile
from flows.use_cases.taking import take_requests
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.domain import DatasetVersion
from s3t_core.erasure.executor import Eraser
from s3t_core.errors import DataError, GuaranteeError, StorageError
from s3t_core.identity_index import IDENTITY_PATH
from s3t_core.slicefile import HELD_OUT_PATH
from tests.flows.conftest import tiny_config, write_csv
from tests.held import HELD
from tests.waiting import fails_after

ANN, BOB = "ann@example.org", "bob@example.org"
TEXT = "words of Ann's that nobody else ever said in this very order"


def _source(folder: Path, *names: str, text: str = "") -> str:
    rows = [
        {
            "id": f"{who}-{i}",
            "who": who,
            "what": text or f"what {who} said for the {i}th time in their words",
            "kind": ["good", "bad"][i],
        }
        for who in (*names, *(f"other-{i}" for i in range(10)))
        for i in range(2)
    ]
    rows += [{"id": "refused", "who": ANN, "what": TEXT, "kind": "ugly"}] if ANN in names else []
    return str(write_csv(folder / "people.csv", rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Ann is in the first data version alone, and in quarantine. To be read only."""
    folder = tmp_path_factory.mktemp("footing")
    place = create_workspace(folder / "w", tiny_config(folder / "no backbone"), b"\x05" * 32)
    ingest_source(Workspace(place.root), HELD, _source(folder, ANN, BOB), False, 20_000)
    quarantine = (place.root / ".s3t/quarantine/rows.jsonl").read_bytes()
    ingest_source(Workspace(place.root), HELD, _source(folder, BOB, "carl"), False, 20_000, True)
    (place.root / ".s3t/quarantine/rows.jsonl").write_bytes(quarantine)
    return Workspace(place.root)


@pytest.fixture
def place(made: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be changed."""
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    return Workspace(tmp_path / "w")


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """What waits for a pipe fails."""
    with fails_after(240):
        yield


def _erase(place: Workspace) -> list[str]:
    """As the flow does it; the requests that were certified."""
    place = Workspace(place.root)
    with access.changing(place):
        sweep(place, HELD)
        reconcile(place, HELD)
        plan = Eraser(
            erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{time.time_ns():x}"
        ).run()
    return list(plan.requests) if plan else []


def _bare(place: Workspace) -> None:
    """The eraser alone, whoever holds the workspace."""
    place = Workspace(place.root)
    Eraser(erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{time.time_ns():x}").run()


def _version(place: Workspace, number: int) -> DatasetVersion:
    return Workspace(place.root).ledger.state().datasets[number]


def _object(place: Workspace, where: str, number: int = 0) -> Path:
    """An object with rows of one version that the other lacks."""
    other = {v.md5 for v in _version(place, -1 - number).files()}
    md5 = next(v.md5 for v in _version(place, number).row_files() if v.md5 not in other and v.rows)
    return place.root / where / "files/md5" / md5[:2] / md5[2:]


def _moved(path: Path, disk: Path) -> Path:
    """Put it on another disk, and a link in its place; where it is now."""
    disk.mkdir(exist_ok=True)
    path.rename(disk / path.name)
    path.symlink_to(disk / path.name)
    return disk / path.name


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT)
    return path


LINKED: dict[str, Callable[[Workspace], Path]] = {
    "quarantine": lambda p: p.state_dir / "quarantine" / "rows.jsonl",
    "an object in the cache": lambda p: _object(p, ".dvc/cache"),
    "an object in the remote": lambda p: _object(p, ".s3t/remote"),
    "a live object in the cache": lambda p: _object(p, ".dvc/cache", -1),
    "a data file": lambda p: p.root / "data" / HELD_OUT_PATH,
    "a directory of data": lambda p: p.root / "data" / "shard=00",
    "half-written data": lambda p: _made(p.root / "data" / "shard=00" / ".tmp-x"),
    "a stage": lambda p: _made(p.store.root / f"{'ab' * 32}.safetensors"),
    "a directory in the store": lambda p: (
        _made(p.store.root / f"{'ab' * 32}.safetensors" / "x").parent
    ),
    "kept activations": lambda p: _made(p.state_dir / "activations" / "ab" / "x.safetensors"),
    "activations of a slice": lambda p: (
        _made(p.state_dir / "activations" / "ab" / "x.safetensors").parent
    ),
    "a model's file": lambda p: _made(
        p.state_dir / "mlartifacts" / "1" / "models" / "m-1" / "artifacts" / "x"
    ),
    "a directory of models": lambda p: _made(p.state_dir / "mlartifacts" / "1" / "x").parent,
    "ids as given": lambda p: next(p.needles.folder.glob("req-*.json")),
    "a spool": lambda p: _made(p.state_dir / "tmp" / "ingest-1" / "spool" / "0-0.jsonl"),
    "a directory of spools": lambda p: _made(p.state_dir / "tmp" / "ingest-1" / "0-0.jsonl").parent,
    "a loaded model": lambda p: _made(p.state_dir / "loading" / "x"),
    "git's object": lambda p: _made(p.root / ".git" / "objects" / "ab" / "tmp_obj_x"),
}


@pytest.mark.parametrize("what", LINKED)
def test_a_link_in_the_place_of_what_is_destroyed_is_refused_and_nothing_is_certified(
    place: Workspace, tmp_path: Path, what: str
) -> None:
    """What it leads to would keep the rows, and no scan would find it once the link is gone."""
    take_requests(place, [ANN])
    path = LINKED[what](place)
    there = _moved(path, tmp_path / "disk")
    with pytest.raises(GuaranteeError, match=rf"{path.name} .*a link to one elsewhere"):
        _erase(place)
    assert path.is_symlink() and there.exists() and not list(place.certificates_dir.glob("*.json"))
    path.unlink()
    there.rename(path)
    check_footing(place.root)  # nothing but the link was in the way


@pytest.mark.long_but_first
@pytest.mark.parametrize("what", ["quarantine", "an object in the remote", "a stage"])
def test_an_eraser_looks_for_links_itself(place: Workspace, tmp_path: Path, what: str) -> None:
    take_requests(place, [ANN])
    path = LINKED[what](place)
    there = _moved(path, tmp_path / "disk")
    for act in (_bare, lambda p: reconcile(Workspace(p.root), HELD)):
        with pytest.raises(GuaranteeError, match="a link to one elsewhere"):
            act(place)
    path.unlink()
    there.rename(path)
    assert len(_erase(place)) == 1
    assert not any(TEXT.encode() in p.read_bytes() for p in place.root.rglob("*") if p.is_file())


@pytest.mark.parametrize("what", ["linked", "dangling"])
def test_an_object_that_is_a_link_is_not_destroyed_as_one(
    place: Workspace, tmp_path: Path, what: str
) -> None:
    """Also in a remote of the user's configuration, where nothing is looked at but our own
    objects."""
    path = _object(place, ".s3t/remote")
    there = _moved(path, tmp_path / "disk")
    if what == "dangling":
        there.unlink()  # or its disk is away
    with pytest.raises(GuaranteeError, match="a link to one elsewhere"):
        place.datasets.destroy([path.parent.name + path.name], [], _version(place, -1))
    assert path.is_symlink()


@pytest.mark.parametrize("where", [".dvc/cache", ".s3t/remote"])
def test_one_of_dvcs_directories_of_objects_is_no_place_for_a_disk(
    place: Workspace, tmp_path: Path, where: str
) -> None:
    """While it is away the object looks lost, as one that was destroyed does."""
    _moved(_object(place, where).parent, tmp_path / "disk")
    take_requests(place, [ANN])
    with pytest.raises(GuaranteeError, match=r"files/md5/.. to be .*got a link"):
        _erase(place)


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_links_of_dvcs_own_to_its_cache_are_no_hindrance(place: Workspace, kind: str) -> None:
    with (place.root / ".dvc" / "config").open("a") as file:
        file.write(f"[cache]\n    type = {kind}\n")
    subprocess.run(
        [sys.executable, "-m", "dvc", "checkout", "--relink", "data.dvc"],
        cwd=place.root,
        check=True,
        capture_output=True,
    )
    paths = list((place.root / "data").rglob("*.parquet"))
    assert all(p.is_symlink() if kind == "symlink" else p.stat().st_nlink == 2 for p in paths)
    take_requests(place, [BOB])
    assert (
        len(_erase(place)) == 1
        and look_up(Workspace(place.root), {BOB: BOB})[BOB].found == "nobody"
    )
    gone = {v.md5 for v in _version(place, 1).files()} - {
        v.md5 for v in _version(place, -1).files()
    }
    assert len(gone) >= 2 and not gone & {
        md5_named(path) for cache in place.datasets.repository.caches for path in cache.glob("??/*")
    }


@pytest.mark.parametrize("target", ["an object of another cache", "beside the objects"])
def test_a_data_file_may_lead_to_an_object_of_the_cache_alone(
    place: Workspace, tmp_path: Path, target: str
) -> None:
    path = place.root / "data" / HELD_OUT_PATH
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    there = (
        tmp_path / md5[:2]
        if target == "an object of another cache"
        else place.datasets.repository.cache / "kept"
    ) / md5[2:]
    there.parent.mkdir()
    path.rename(there)
    path.symlink_to(there)
    take_requests(place, [BOB])
    with pytest.raises(GuaranteeError, match=r"held_out.parquet .*a link to one elsewhere"):
        _erase(place)
    with pytest.raises(DataError, match="move them elsewhere"):
        place.datasets.versions.replace(tmp_path / "new")


PIPES = (
    "data/x",
    "data/.tmp-x",
    "data/.dvcignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/config.local",
    ".dvc/tmp/lock",
    ".git/HEAD",
    ".git/index",
    ".git/config",
    ".git/refs/heads/main",
    ".s3t/s3t.db-journal",
    ".s3t/dvc-site/x/cache.db",
    ".s3t/quarantine/rows.jsonl",
    f"data/{IDENTITY_PATH}",
    f"data/{HELD_OUT_PATH}",
    "live object in the cache",
    "live object in the remote",
    "list in the cache",
    "list in the remote",
    "earlier object in both",
)


def _in_place(place: Workspace, what: str) -> list[Path]:
    version = _version(place, -1).version
    both = [place.root / where / "files/md5" for where in (".dvc/cache", ".s3t/remote")]
    chosen = [both["remote" in what]]
    if what.startswith("live"):
        return [_object(place, ".s3t/remote" if "remote" in what else ".dvc/cache", -1)]
    if what.startswith("list"):
        return [p / version[:2] / version[2:] for p in chosen]
    if what.startswith("earlier"):
        return [_object(place, where) for where in (".dvc/cache", ".s3t/remote")]
    return [place.root / what]


@pytest.mark.parametrize("what", PIPES)
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(
    place: Workspace, what: str
) -> None:
    take_requests(place, [BOB])
    for path in _in_place(place, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    with (
        fails_after(30),
        pytest.raises(
            GuaranteeError, match=rf"expected .*{path.name} to be a file, got a pipe.*take it away"
        ),
    ):
        _erase(place)


@pytest.mark.parametrize("kind", ["socket", "device", "link to a pipe"])
def test_other_things_that_are_no_files_are_named_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long
    with socket.socket(socket.AF_UNIX) as bound:
        {
            "socket": lambda: bound.bind(".dvc/config"),
            "device": lambda: Path(".dvc/config").symlink_to("/dev/zero"),
            "link to a pipe": lambda: (
                os.mkfifo("p"),
                Path(".dvc/config").symlink_to(tmp_path / "p"),
            ),
        }[kind]()
    told = kind.removeprefix("link to a ")
    with pytest.raises(GuaranteeError, match=f"expected .dvc/config to be a file, got a {told}"):
        check_footing(tmp_path)


def test_what_others_keep_beside_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and hooks of an operator's that are links, git's socket, what a sweep takes."""
    for folder in (".git/hooks", ".s3t/keys", ".s3t/tmp", ".dvc"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        ".git/hooks/pre-commit",
        ".git/config",
        ".s3t/keys/workspace.key",
        ".dvc/config",
        "s3t.toml",
    ):
        (tmp_path / name).symlink_to(_made(tmp_path / "theirs"))
    (tmp_path / ".s3t/logs").symlink_to(tmp_path / "theirs")
    os.mkfifo(tmp_path / ".s3t/tmp/pipe")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(".git/fsmonitor--daemon.ipc")
    check_footing(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
@pytest.mark.parametrize(
    "what", [f"data/{IDENTITY_PATH}", f"data/{HELD_OUT_PATH}", ".s3t/quarantine/rows.jsonl"]
)
def test_a_request_is_taken_where_a_data_file_is_none(
    place: Workspace, what: str, kind: str
) -> None:
    (place.root / what).unlink()
    os.mkfifo(place.root / what) if kind == "pipe" else (place.root / what).mkdir()
    with fails_after(60):
        told = look_up(place, {ANN: ANN})[ANN]
        assert told.found == ("in the data" if HELD_OUT_PATH in what else "not told")
        digest = "sha256:" + hashlib.sha256(ANN.encode()).hexdigest()
        assert look_up_hashed(place, [digest])[digest].found == told.found
        requests = take_requests(Workspace(place.root), [ANN])
        assert len(requests) == 1 and isinstance(look_alikes(place, requests), dict)
        with pytest.raises((GuaranteeError, StorageError), match="expected"):
            _bare(place)


def test_git_is_waited_for_so_long_and_ended_with_what_it_started(tmp_path: Path) -> None:
    run_git("init", "-q", str(tmp_path))
    os.mkfifo(tmp_path / "started")
    told = ["-C", str(tmp_path), "-c", "alias.hang=!sleep 300 & echo $! > pid; wait", "hang"]
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"expected git to answer within 1 seconds, got nothing"):
        run_git(*told, patience=1)
    assert time.monotonic() - began < 20
    time.sleep(0.2)
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


# --- what killed ingests left


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_a_killed_ingest_left_of_a_shared_text_locks_no_erasure(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "what carl said for the 0th time in their words"
    with monkeypatch.context() as patch:
        patch.setattr("flows.adapters.database.SqlLedger.append", _killed)
        with pytest.raises(KeyboardInterrupt):
            ingest_source(
                Workspace(place.root),
                HELD,
                _source(tmp_path, *(f"zed{i}" for i in range(8)), text=said),
                False,
                20_000,
                True,
            )
    for command in (
        ["git", "checkout", "-q", "data.dvc"],
        [sys.executable, "-m", "dvc", "checkout", "-q", "--force", "data.dvc"],
    ):
        subprocess.run(command, cwd=place.root, check=True, capture_output=True)
    take_requests(Workspace(place.root), ["carl"])
    assert len(_erase(place)) == 1
    ingest_source(Workspace(place.root), HELD, _source(tmp_path, BOB, "zed1"), False, 20_000, True)


def test_what_no_version_has_goes_where_it_is_ours_alone(place: Workspace, tmp_path: Path) -> None:
    """Nothing of another kind does, and nothing in a cache that others may share."""
    place.datasets.repository.cache.joinpath("ab").mkdir(exist_ok=True)
    ours = shutil.copyfile(
        place.root / "data" / HELD_OUT_PATH, place.datasets.repository.cache / "ab" / ("c" * 30)
    )
    history = place.ledger.state().datasets
    assert place.datasets.find([], history, set()).objects >= {"ab" + "c" * 30}
    ours.write_bytes(b"PAR1 of others")
    assert "ab" + "c" * 30 not in place.datasets.find([], history, set()).objects
    shutil.copyfile(place.root / "data" / HELD_OUT_PATH, ours)
    shutil.move(place.root / ".dvc" / "cache", tmp_path / "shared")
    with (place.root / ".dvc" / "config").open("a") as file:
        file.write(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    place = Workspace(place.root)
    assert "ab" + "c" * 30 not in place.datasets.find([], history, set()).objects
