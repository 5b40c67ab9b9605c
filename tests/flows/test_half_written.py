"""What a killed process leaves half-written is gone before a certificate; what is written is its
owner's alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.taking import take_requests
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.errors import ResidueFound
from s3t_core.files import is_half_written
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.flows.prepared import Prepared
from tests.flows.test_cli import environment
from tests.held import HELD

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]

_SLOW_COPY = """
import os, shutil, sys, time
from pathlib import Path
import flows.settings
root, source, where, told = sys.argv[1:]
flows.settings.prepare_environment(Path(root))
import dvc_objects.fs.utils as utils, dvc_objects.fs.local as local, dvc_data.hashfile.db.local as database
def slow(src, dest, callback=None, **more):
    with open(src, "rb") as a, open(dest, "wb") as b:
        whole = a.read()
        b.write(whole[:-10] if where in str(dest) else whole)
        b.flush()
        if where in str(dest) and len(whole) > 3000:
            Path(told).touch()
            time.sleep(600)
for module in (utils, local, database):
    module.copyfile = slow
from flows.use_cases.ingesting import ingest_source
from flows.workspace import access
from flows.workspace.workspace import Workspace
place = Workspace(Path(root))
with access.training(place), access.changing(place) as held:
    ingest_source(place, held, source, False, 20_000)
"""  # noqa: E501


def _copying(place: Workspace, source: Path, where: str, told: Path) -> "subprocess.Popen[bytes]":
    """An ingest in a process of its own, as it stands while DVC copies one data file to a place
    named `where`."""
    from prefect.settings import PREFECT_API_URL

    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW_COPY, str(place.root), str(source), where, str(told)],
        env={**environment(), "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while not told.exists():
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()[1][-2000:]
        time.sleep(0.2)
    return child


@pytest.mark.long_but_first
@pytest.mark.parametrize("where", [".s3t/remote", ".dvc/cache"])
def test_an_ingest_that_was_killed_while_dvc_copied_leaves_nothing(
    make_place: Make, tmp_path: Path, where: str
) -> None:
    place = make_place()
    rows = people(200, canary=True)
    source = write_csv(tmp_path / "people.csv", rows)
    child = _copying(place, source, where, tmp_path / "copying")
    child.kill()
    child.wait()
    left = [p for p in place.root.rglob("*") if is_half_written(p.name)]
    assert any(p.read_bytes()[:4] == b"PAR1" and where in str(p) for p in left)
    ingest(str(place.root), str(source))
    train(str(place.root))
    take_requests(place, [CANARY])
    assert len(erase(str(place.root))["certificates"]) == 1
    assert not [p for p in place.root.rglob("*") if is_half_written(p.name)]


@pytest.mark.parametrize("begun", [b"", b"[{"])
def test_what_a_killed_push_has_begun_in_the_remote_is_pushed_again(
    make_place: Make, tmp_path: Path, begun: bytes
) -> None:
    """DVC makes the file first, and takes one that is there for the object that it is called; of a
    list of files it says that it is corrupted, whatever is pushed."""
    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "people.csv", people(12))), False, 9)
    place = Workspace(place.root)
    (remote,) = place.remote_folder()
    pushed = [p for p in remote.rglob("files/md5/*/*") if p.is_file()]
    there = {p: p.read_bytes() for p in pushed}
    assert {p.suffix for p in pushed} == {".dir", ""}
    for path in pushed:
        path.chmod(0o600)
        path.write_bytes(begun)
    dataset = place.ledger.state().dataset
    assert dataset is not None
    place.datasets.versions.publish(dataset)
    assert {p: p.read_bytes() for p in pushed} == there


@pytest.mark.parametrize("suffix", ["", ".dir"])
def test_an_object_of_which_nothing_was_written_is_swept_and_one_that_is_nothing_is_not(
    make_place: Make, suffix: str
) -> None:
    """Of a version that nobody made whole: no push replaces it, and a scan would ask for it."""
    place = make_place()
    begun = []
    for folder in (*place.datasets.repository.caches, *place.remote_folder()):
        base = folder if folder.name == "md5" else folder / "files" / "md5"
        for name in ("cd" * 16, "d41d8cd98f00b204e9800998ecf8427e", "notes"):
            path = base / name[:2] / f"{name[2:]}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            begun.append(path)
        (base / "ab").mkdir(exist_ok=True)
        (base / "ab" / ("ef" * 15)).write_bytes(b"whole")
    sweep(place, HELD)
    assert len(begun) == 6
    assert [p for p in begun if not p.exists()] == [p for p in begun if p.parent.name == "cd"]
    assert all((p.parents[1] / "ab" / ("ef" * 15)).exists() for p in begun)


@pytest.mark.long
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_copy_that_a_living_process_writes_is_spared_and_stops_the_certificate(
    prepared: Prepared, is_cut: bool
) -> None:
    """One that cannot be read to its end, and one in which something stands."""
    place = prepared.fresh()
    half = place.datasets.repository.cache / "ab" / ".AbCdEfGhIjKlMnOpQrStUv.tmp"
    half.parent.mkdir(exist_ok=True)
    whole = max(
        (place.root / "data").glob("shard=*/*.parquet"), key=lambda p: p.stat().st_size
    ).read_bytes()
    with half.open("wb") as file:
        file.write(whole[:-10] if is_cut else CANARY_TEXT.encode())
        file.flush()
        found = "cannot be decoded" if is_cut else "got matches in 1 file"
        with pytest.raises(ResidueFound, match=f"{found}.*running process is writing"):
            erase(str(place.root))
        certified = len(list(place.certificates_dir.glob("*")))
        assert half.exists() and certified == (0 if is_cut else 1)  # the other one's is clean
    assert len(erase(str(place.root))["certificates"]) == 2 - certified and not half.exists()


def test_everything_is_its_owners_alone(make_place: Make, tmp_path: Path) -> None:
    place = make_place(dvc={"remote": str(tmp_path / "remote")})
    rows = [*people(canary=True), {"id": "c9", "who": CANARY, "what": CANARY_TEXT, "kind": "ugly"}]
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", rows)))
    train(str(place.root))
    take_requests(place, [CANARY])
    for path in (place.root / "data").rglob("*.parquet"):
        path.chmod(0o644)  # as `dvc checkout` by hand leaves them
    erase(str(place.root))
    assert not [p for p in (place.root / "data").rglob("*") if p.stat().st_mode & 0o077]
    closed = [place.root / n for n in ("data", ".s3t", ".dvc/cache", ".dvc/tmp")] + [
        tmp_path / "remote"
    ]
    files = [p for folder in closed for p in folder.rglob("*") if p.is_file()]
    shut = {
        p
        for p in (*place.root.rglob("*"), tmp_path / "remote")
        if p.is_dir() and p.stat().st_mode & 0o077 == 0
    }
    inside = [p for p in (place.root / ".s3t").rglob("*") if p.is_dir()]
    assert [p for p in inside if p.stat().st_mode & 0o077] == []
    open_to_others = [p for p in files if p.stat().st_mode & 0o077 and not shut & set(p.parents)]
    assert len(files) > 50 and open_to_others == []
    holds_rows = [
        p
        for p in files
        if p.read_bytes()[:4] == b"PAR1" or p.suffix in (".jsonl", ".dir", ".safetensors")
    ]
    assert {oct(p.stat().st_mode & 0o777) for p in holds_rows} <= {"0o600", "0o400"}, [
        p for p in holds_rows if p.stat().st_mode & 0o077
    ]
    assert oct((place.root / "s3t.toml").stat().st_mode & 0o777) == "0o644"
