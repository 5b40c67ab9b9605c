"""Stored files of earlier data versions: cache and remote are compared with what was recorded,
never taken on trust."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows.use_cases.finding import look_up
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.reconciling import reconcile
from flows.use_cases.requests import lift
from flows.use_cases.taking import take_hashed, take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.composing import erase_policy, erase_ports, scan_scope
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.domain import DatasetVersion, SliceVersion
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.planner import targets_of
from s3t_core.errors import DataError, GuaranteeError, StorageError
from s3t_core.files import md5_of
from s3t_core.identity_index import IDENTITY_PATH, make_index, named_in, read_index, write_index
from s3t_core.records import subject_digest
from s3t_core.slicefile import HELD_OUT_PATH, is_slice_file, read_rows, write_rows
from tests.flows.conftest import tiny_config, write_csv
from tests.held import HELD

ANN, BOB, CARL = "ann@example.org", "bob@example.org", "carl@example.org"
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a stretch of zeros": lambda b: b[:40] + bytes(len(b) // 3) + b[40 + len(b) // 3 :],
    "no end": lambda b: b[:-20],
    "no beginning": lambda b: bytes(20) + b[20:],
    "a flipped byte": lambda b: b[:60] + bytes([b[60] ^ 0xFF]) + b[61:],
    "nothing in it": lambda _: b"",
}


def _source(folder: Path, *spellings: str) -> str:
    ids = [*spellings, *(f"other-{i}" for i in range(10))]
    rows = [
        {
            "id": f"{who}-{i}",
            "who": who,
            "what": f"what {who} said for the {i}th time in words of their own",
            "kind": ["good", "bad"][i],
        }
        for who in ids
        for i in range(2)
    ]
    return str(write_csv(folder / "people.csv", rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Of whose two data versions Ann is in the first alone. To be read only."""
    folder = tmp_path_factory.mktemp("stored")
    place = create_workspace(folder / "w", tiny_config(folder / "no backbone"), b"\x05" * 32)
    _ingest(place, _source(folder, ANN, BOB))
    _ingest(place, _source(folder, BOB, CARL), anyway=True)
    return Workspace(place.root)


@pytest.fixture
def place(made: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be changed."""
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    return Workspace(tmp_path / "w")


def _ingest(place: Workspace, source: str, anyway: bool = False) -> dict[str, Any]:
    return asdict(ingest_source(Workspace(place.root), HELD, source, False, 20_000, anyway))


def _erase(place: Workspace) -> dict[str, tuple[str, int]]:
    """Outcome of every request of a plan, and of how many rows in the present data."""
    place = Workspace(place.root)
    plan = Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    ).run()
    assert plan is not None
    outcomes = place.ledger.state().outcomes
    return {r: (str(outcomes[r][0]), int(outcomes[r][1])) for r in plan.requests}


def _version(place: Workspace, number: int) -> DatasetVersion:
    return Workspace(place.root).ledger.state().datasets[number]


def _index(place: Workspace, number: int = 0) -> str:
    identities = _version(place, number).identities
    assert identities is not None
    return identities.md5


def _earlier(place: Workspace) -> list[SliceVersion]:
    """Files with rows that the first version alone has."""
    now = {v.md5 for v in _version(place, -1).files()}
    return [v for v in _version(place, 0).row_files() if v.md5 not in now and v.rows]


def _cached(place: Workspace, md5: str) -> Path:
    return Workspace(place.root).datasets.repository.cache / md5[:2] / md5[2:]


def _remote(place: Workspace, md5: str) -> Path:
    (remote,) = Workspace(place.root).datasets.repository.local_remotes()
    return (place.root / ".dvc" / remote).resolve() / "files" / "md5" / md5[:2] / md5[2:]


def _damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(DAMAGE[how](whole))
    assert path.read_bytes() != whole


def _hash(who: str) -> str:
    return "sha256:" + hashlib.sha256(who.encode()).hexdigest()


def _holding(place: Workspace, who: str) -> list[Path]:
    """Files anywhere in the workspace with rows of somebody."""
    digest = subject_digest(place.keys, who)
    return [
        p
        for p in place.root.rglob("*")
        if p.is_file() and is_slice_file(p) and any(r.subject == digest for r in read_rows(p))
    ]


# --- indexes of earlier versions


def test_a_rewritten_index_of_an_earlier_version_turns_no_hash_at_somebody_else(
    place: Workspace,
) -> None:
    ann, bob = (subject_digest(place.keys, who) for who in (ANN, BOB))
    path = _cached(place, _index(place))
    rows = read_index(path).to_pydict()
    path.chmod(0o600)
    write_index(
        path,
        make_index(
            [
                (bob if s == ann else s, f)
                for s, f in zip(rows["subject"], rows["form"], strict=True)
            ]
        ),
    )
    (request,) = take_hashed(place, [_hash(ANN)])
    assert _erase(place) == {request.request_id: ("not trained on yet", 0)}
    assert _holding(place, BOB) and not _holding(place, ANN)


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["missing", "somebody left out", "a flipped byte", "no end"])
def test_an_index_of_an_earlier_version_that_the_cache_lacks_is_the_remotes(
    place: Workspace, how: str
) -> None:
    path = _cached(place, _index(place))
    if how == "missing":
        path.unlink()
    elif how == "somebody left out":
        index = read_index(path)
        path.chmod(0o600)
        rows = zip(*index.to_pydict().values(), strict=True)
        write_index(path, make_index([r for r in rows if r[0] != subject_digest(place.keys, ANN)]))
    else:
        _damage(path, how)
    assert look_up(Workspace(place.root), {ANN: ANN})[ANN].found == "in the data"
    (request,) = take_hashed(Workspace(place.root), [_hash(ANN)])
    assert (
        list((place.root / ".s3t" / "tmp").glob("*")) == []
    )  # nor in the cache: an erasure may destroy it meanwhile
    assert path.exists() is (how != "missing")
    assert _erase(place) == {request.request_id: ("not trained on yet", 0)} and not _holding(
        place, ANN
    )


@pytest.mark.long_but_first
@pytest.mark.parametrize("remote", ["missing", "a flipped byte"])
def test_an_index_of_an_earlier_version_that_is_whole_nowhere_tells_nothing(
    place: Workspace, remote: str
) -> None:
    md5 = _index(place)
    _cached(place, md5).unlink()
    _remote(place, md5).unlink() if remote == "missing" else _damage(_remote(place, md5), remote)
    for who in (ANN, "nobody"):
        finding = look_up(Workspace(place.root), {who: who})[who]
        assert (
            finding.found == "not told"
            and "an earlier data version" in finding.why
            and md5[2:] in finding.why
        )
    assert look_up(Workspace(place.root), {BOB: BOB})[BOB].found == "in the data"
    (hashed,) = take_hashed(Workspace(place.root), [_hash("nobody")])
    with pytest.raises(DataError, match=r"bring .* back from a backup"):
        _erase(place)
    (request,) = take_requests(Workspace(place.root), [ANN])
    assert _erase(place) == {request.request_id: ("not trained on yet", 0)}
    assert not _holding(place, ANN)  # which it does not keep
    assert look_up(Workspace(place.root), {"nobody": "nobody"})["nobody"].found == "nobody"
    # what nobody could read is destroyed; of whom it told, nobody is left whom no hash would find
    assert _erase(place) == {hashed.request_id: ("nothing found", 0)}


OTHERS = {"in both versions": BOB, "in the first alone": ANN}


def _more_versions(place: Workspace, folder: Path) -> Workspace:
    """Ann and Dora are in an earlier version alone, not in one slice, Bob in both."""
    for names in ((ANN, BOB, "dora"), (BOB, CARL)):
        _ingest(place, _source(folder, *names), anyway=True)
    return Workspace(place.root)


@pytest.mark.long
@pytest.mark.parametrize("other", OTHERS)
def test_who_is_in_an_earlier_version_alone_is_found_by_a_hash_after_another_was_erased(
    place: Workspace, tmp_path: Path, other: str
) -> None:
    """Whose erasure destroys the index of that version."""
    place = _more_versions(place, tmp_path)
    dora = subject_digest(place.keys, "dora")
    take_requests(place, [OTHERS[other]])
    _erase(place)
    assert _index(place, 2) in Workspace(place.root).ledger.state().destroyed_objects
    assert _holding(place, "dora") and dora in named_in(place.root / "data" / IDENTITY_PATH)
    assert subject_digest(place.keys, OTHERS[other]) not in named_in(
        place.root / "data" / IDENTITY_PATH
    )
    (request,) = take_hashed(Workspace(place.root), [_hash("dora")])
    assert _erase(place) == {request.request_id: ("not trained on yet", 0)} and not _holding(
        place, "dora"
    )
    assert dora not in named_in(place.root / "data" / IDENTITY_PATH)


def test_whose_rows_went_with_another_persons_stands_in_no_index(
    place: Workspace, tmp_path: Path
) -> None:
    _ingest(place, _source(tmp_path, ANN, "eve"), anyway=True)  # in one slice
    _ingest(place, _source(tmp_path, BOB, CARL), anyway=True)
    assert {p.name for p in _holding(place, "eve")} <= {p.name for p in _holding(place, ANN)}
    take_requests(Workspace(place.root), [ANN])
    _erase(place)
    assert not _holding(place, "eve")
    assert subject_digest(place.keys, "eve") not in named_in(place.root / "data" / IDENTITY_PATH)


def test_the_index_of_the_present_data_is_made_again_from_those_that_a_restore_brought_back(
    place: Workspace, tmp_path: Path
) -> None:
    place = _more_versions(place, tmp_path)
    backup = shutil.copytree(place.root, tmp_path / "backup", symlinks=True)
    take_requests(place, [BOB])
    _erase(place)
    recorded = _index(place, -1)
    for folder in ("data", ".dvc/cache"):
        shutil.rmtree(place.root / folder)
        shutil.copytree(backup / folder, place.root / folder, symlinks=True)
    _remote(place, recorded).unlink()
    assert reconcile(Workspace(place.root), HELD).data and _is_recorded(place)
    assert (
        md5_of(place.root / "data" / IDENTITY_PATH) == recorded == md5_of(_remote(place, recorded))
    )
    assert not _holding(place, BOB) and not reconcile(Workspace(place.root), HELD).data


@pytest.mark.parametrize("what", ["rows", "index"])
def test_what_the_remote_has_lost_of_the_present_version_is_pushed_again(
    place: Workspace, what: str
) -> None:
    """DVC believes of a version whose list is there that all of it is."""
    md5 = _index(place, -1) if what == "index" else _version(place, -1).row_files()[0].md5
    _remote(place, md5).unlink()
    assert reconcile(Workspace(place.root), HELD).data and md5_of(_remote(place, md5)) == md5
    assert not reconcile(Workspace(place.root), HELD).data


def test_a_hash_of_whom_no_index_tells_any_more_leaves_no_rows_that_may_be_theirs(
    place: Workspace, tmp_path: Path
) -> None:
    """An index that was lost with its version, and destroyed with one of its people."""
    place = _more_versions(place, tmp_path)
    for path in (_cached(place, _index(place, 2)), _remote(place, _index(place, 2))):
        path.unlink()
    take_requests(place, [ANN])
    _erase(place)
    assert _holding(place, "dora")
    take_hashed(Workspace(place.root), [_hash("dora")])
    _erase(place)
    assert not _holding(place, "dora") and _holding(place, BOB)


# --- rows of earlier versions


@pytest.mark.long_but_first
@pytest.mark.parametrize("index", ["in the cache", "in the remote"])
def test_rows_that_lie_in_the_remote_alone_are_found_counted_searched_for_and_destroyed(
    place: Workspace, index: str
) -> None:
    gone = {v.md5 for v in _earlier(place)} | (
        {_index(place)} if index == "in the remote" else set()
    )
    for md5 in gone:
        _cached(place, md5).unlink()
    (request,) = take_requests(place, [ANN])
    state = place.ledger.state()
    targets = targets_of([request], {})
    found = place.datasets.find(targets, state.datasets, state.destroyed_objects)
    assert found.rows[request.request_id].earlier == 2
    assert len(place.datasets.contents(targets).texts[request.request_id]) == 2
    assert _erase(place) == {request.request_id: ("not trained on yet", 0)}
    assert (
        not _holding(place, ANN)
        and verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]
    )


@pytest.mark.long
def test_rows_that_are_whole_nowhere_count_as_anybodys(place: Workspace) -> None:
    lost = _earlier(place)[0]
    _cached(place, lost.md5).unlink()
    _damage(_remote(place, lost.md5), "no end")
    (request,) = take_requests(place, ["nobody"])
    state = place.ledger.state()
    found = place.datasets.find(targets_of([request], {}), state.datasets, state.destroyed_objects)
    assert found.tainted == {lost.digest} and found.objects == {lost.md5}
    _erase(place)
    assert not _remote(place, lost.md5).exists()


# --- damage in the cache


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["a stretch of zeros", "nothing in it"])
@pytest.mark.parametrize("what", ["rows", "index"])
@pytest.mark.parametrize("remote", ["whole", "damaged"])
def test_a_damaged_object_of_an_earlier_version_locks_no_erasure(
    place: Workspace, what: str, how: str, remote: str
) -> None:
    md5 = _earlier(place)[0].md5 if what == "rows" else _index(place)
    _damage(_cached(place, md5), how)
    if remote == "damaged":
        _damage(_remote(place, md5), how)
    request, other = take_requests(place, [BOB, ANN])
    done = _erase(place)
    assert done[request.request_id][0] != "nothing found"
    if what == "index" or remote == "whole":  # else nobody can read any more that they were hers
        assert done[other.request_id][0] != "nothing found"
    assert not _holding(place, BOB) and not _holding(place, ANN)
    assert all(
        md5_of(p) == p.parent.name + p.name
        for p in place.datasets.repository.cache.glob("??/*[!r]")
    )


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["a stretch of zeros", "no beginning"])
def test_an_object_that_is_damaged_while_an_erasure_is_open_does_not_lock_it(
    place: Workspace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [BOB])
    with monkeypatch.context() as patch:
        patch.setattr(type(place.datasets), "destroy", _killed)
        with pytest.raises(KeyboardInterrupt):
            _erase(place)
    damaged = [_cached(place, v.md5) for v in _earlier(place)] + [_cached(place, _index(place))]
    for path in damaged:
        _damage(path, how)
    assert [outcome for outcome, _ in _erase(place).values()] == ["held out only"]
    assert not any(p.exists() for p in damaged) and not _holding(place, BOB)


def test_directories_under_names_of_ours_are_destroyed_and_a_link_to_a_pipe_is_named(
    place: Workspace,
) -> None:
    take_requests(place, [BOB])
    ours = [
        place.store.root / "x.safetensors",
        place.store.root / "y.json",
        place.needles.folder / "plan-z.json",
        place.needles.folder / "req-z.json",
    ]
    for path in ours:
        (path / "a").mkdir(parents=True)
        (path / "a" / "b").write_text(BOB)
    reconcile(place, HELD)
    place.needles.prune(scan_scope(place).being_erased)
    assert not any(path.exists() for path in ours)
    os.mkfifo(place.root / "beside")
    (place.state_dir / "link").symlink_to(place.root / "beside")
    with pytest.raises(GuaranteeError, match=r"expected .s3t/link to be .*got a link"):
        _erase(place)
    (place.state_dir / "link").unlink()
    assert len(_erase(place)) == 1


def _killed(*_: Any) -> list[str]:
    raise KeyboardInterrupt


def test_a_file_of_others_in_the_cache_is_left_alone(place: Workspace, tmp_path: Path) -> None:
    others = [b"PAR1 and no more", b"words of others"]
    paths = [_cached(place, hashlib.md5(b, usedforsecurity=False).hexdigest()) for b in others]
    for path, data in zip(paths, others, strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    place.datasets.destroy([], [], place.ledger.state().dataset)
    assert [p.read_bytes() for p in paths] == others


# --- older files than the ledger


def _restored(place: Workspace, folder: Path, change: Callable[[], Any]) -> dict[str, bytes]:
    """Do it, then bring back every file from before, but for ledger and certificates; what `data`
    holds then."""
    shutil.copytree(place.root, folder / "backup", symlinks=True)
    change()
    kept = {
        name: (place.root / ".s3t" / name).read_bytes() for name in ("s3t.db", "checkpoint.json")
    }
    certificates = (
        shutil.copytree(place.certificates_dir, folder / "certificates")
        if (place.certificates_dir.exists())
        else None
    )
    shutil.rmtree(place.root)
    shutil.copytree(folder / "backup", place.root, symlinks=True)
    for name, data in kept.items():
        (place.root / ".s3t" / name).write_bytes(data)
    if certificates:
        shutil.copytree(certificates, place.certificates_dir, dirs_exist_ok=True)
    return _data(place)


def _data(place: Workspace) -> dict[str, bytes]:
    return {
        p.relative_to(place.root).as_posix(): p.read_bytes()
        for p in (*(place.root / "data").rglob("*"), place.root / "data.dvc")
        if p.is_file()
    }


def _is_recorded(place: Workspace) -> bool:
    version = _version(place, -1)
    return {v.md5 for v in version.files()} == {
        md5_of(p) for p in (place.root / "data").rglob("*") if p.is_file()
    } and version.version in (place.root / "data.dvc").read_text()


@pytest.mark.long_but_first
@pytest.mark.parametrize("records", [("",), (f"{BOB}-0", f"{BOB}-1"), (f"{BOB}-0",)])
def test_older_files_are_put_right_without_the_erased_and_those_of_whom_every_record_was(
    place: Workspace, tmp_path: Path, records: tuple[str, ...]
) -> None:
    def change() -> None:
        for record in records:
            take_requests(Workspace(place.root), [BOB], record)
            _erase(place)

    _restored(place, tmp_path, change)
    assert not _is_recorded(place)
    assert reconcile(Workspace(place.root), HELD).data and _is_recorded(place)
    assert not reconcile(Workspace(place.root), HELD).data
    take_requests(Workspace(place.root), [CARL])
    assert [outcome for outcome, _ in _erase(place).values()] != ["nothing found"] and not _holding(
        place, CARL
    )


def _of_another_source(place: Workspace, folder: Path) -> Callable[[], Any]:
    return lambda: _ingest(place, _source(folder, CARL, "dora"), anyway=True)


def _lifted(place: Workspace, _: Path) -> Callable[[], Any]:
    def change() -> None:
        take_requests(Workspace(place.root), [BOB])
        _erase(place)
        lift(Workspace(place.root), BOB, "", "clerk")

    return change


@pytest.mark.long_but_first
@pytest.mark.parametrize("changed", [_of_another_source, _lifted])
def test_older_files_that_cannot_be_put_right_stay_as_they_are(
    place: Workspace, tmp_path: Path, changed: Callable[[Workspace, Path], Callable[[], Any]]
) -> None:
    before = _restored(place, tmp_path, changed(place, tmp_path))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"nothing was changed: ingest the source again"):
            reconcile(Workspace(place.root), HELD)
        assert _data(place) == before
    _ingest(place, _source(tmp_path, CARL, "dora"), anyway=True)
    assert not reconcile(Workspace(place.root), HELD).problem and _is_recorded(place)


def test_older_files_are_put_right_from_the_remote_where_it_was_not_restored(
    place: Workspace, tmp_path: Path
) -> None:
    remote = next(p for p in _remote(place, _index(place)).parents if p.name == "files").parent
    _restored(
        place,
        tmp_path,
        lambda: (
            _of_another_source(place, tmp_path)(),
            shutil.copytree(remote, tmp_path / "remote"),
        ),
    )
    shutil.copytree(tmp_path / "remote", remote, dirs_exist_ok=True)
    assert reconcile(Workspace(place.root), HELD).data and _is_recorded(place)


def test_one_file_in_the_place_of_another_is_no_lock(place: Workspace) -> None:
    data = place.root / "data"
    (data / HELD_OUT_PATH).write_bytes((data / IDENTITY_PATH).read_bytes())
    assert reconcile(Workspace(place.root), HELD).data and _is_recorded(place)


def test_a_file_that_nobody_recorded_is_left_where_it_is(place: Workspace) -> None:
    path = place.root / "data" / HELD_OUT_PATH
    write_rows(path, read_rows(path)[1:])
    before = _data(place)
    assert not reconcile(Workspace(place.root), HELD).data and _data(place) == before
