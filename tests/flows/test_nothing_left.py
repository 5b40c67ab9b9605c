"""After an erasure nothing of a person is left; with any one destroyer taken out, something is, and
it is found."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.adapters import scan_scope
from flows.adapters.dvc_repository import commit_files
from flows.adapters.git import run_git
from flows.adapters.loading import folder_in_use
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.use_cases.reconciling import reconcile
from flows.use_cases.taking import take_requests
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.workspace import Workspace
from s3t_core.erasure.executor import ErasePorts, Eraser
from s3t_core.errors import Busy, GuaranteeError, ResidueFound, S3TError, WorkspaceError
from tests.crash.driver import Unmeasured
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.flows.prepared import Prepared
from tests.held import HELD

pytestmark = pytest.mark.slow


class Without:
    """A port whose one method does nothing."""

    def __init__(self, port: Any, method: str, answer: Callable[..., Any]) -> None:
        self._port, self._method, self._answer = port, method, answer

    def __getattr__(self, name: str) -> Any:
        return self._answer if name == self._method else getattr(self._port, name)


def _run(place: Workspace, change: Callable[[ErasePorts], ErasePorts] = lambda p: p) -> None:
    """Raises ResidueFound where anything is found."""
    ports = change(replace(erase_ports(place, HELD), evaluator=Unmeasured()))
    eraser = Eraser(ports, erase_policy(place), lambda: "plan-1")
    eraser.run()
    if eraser.uncertified:
        raise ResidueFound("; ".join(eraser.uncertified.values()))


def _lame(registry: Any, *methods: str) -> Any:
    """The registry with some of its own steps left out."""
    lame = copy.copy(registry)
    for part, _, method in (name.rpartition(".") for name in methods):
        if part:
            setattr(lame, part, Without(getattr(lame, part), method, lambda *_: []))
        else:
            setattr(lame, method, lambda *_: False)
    return lame


def _database(place: Workspace) -> bytes:
    return (place.state_dir / "mlflow.db").read_bytes()


def test_nothing_is_left_in_data_caches_every_remote_registry_and_databases(
    prepared: Prepared,
) -> None:
    place = prepared.fresh()
    before = prepared.left()
    assert any("/second/" in p for p in before) and any("mlartifacts" in p for p in before)
    assert any("/activations/" in p for p in before)
    assert any("quarantine" in p for p in before) and any(".dvc/cache" in p for p in before)
    assert any(k in _database(place) for k in prepared.stage_keys)
    _run(place)
    assert prepared.left() == []
    assert not any(k in _database(place) for k in prepared.stage_keys)


@pytest.mark.parametrize(
    ("port", "method", "answer"),
    [
        ("datasets", "destroy", lambda objects, *_: sorted(objects)),
        ("datasets", "erase_quarantine", lambda _: 0),
    ],
)
def test_without_a_destroyer_of_rows_the_scan_finds_them_and_nothing_is_certified(
    prepared: Prepared, port: str, method: str, answer: Callable[..., Any]
) -> None:
    place = prepared.fresh()
    with pytest.raises(ResidueFound):
        _run(
            place,
            lambda ports: replace(ports, **{port: Without(getattr(ports, port), method, answer)}),
        )
    assert prepared.left() != [] and list(place.certificates_dir.glob("*.json")) == []


def test_a_remote_that_is_away_is_no_place_where_nothing_is_left(prepared: Prepared) -> None:
    place = prepared.fresh()
    prepared.second.rename(prepared.second.with_name("away"))
    told = prepared.erase()
    assert told["error"] == "WorkspaceError" and "mount their disks" in told["message"], told
    assert list(place.certificates_dir.glob("*.json")) == []
    prepared.second.with_name("away").rename(prepared.second)
    prepared.finished()
    assert prepared.left() == []


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "found", ["nothing", "what somebody left there", "a file", "no right to look"]
)
def test_the_empty_place_of_a_disk_that_is_not_mounted_is_no_remote(
    prepared: Prepared, found: str
) -> None:
    """A second remote: its directory is there, and what was pushed to it is on the disk that should
    be mounted there."""
    place = prepared.fresh()
    prepared.second.rename(prepared.second.with_name("away"))
    if found == "a file":
        prepared.second.write_text("x")
    else:
        prepared.second.mkdir(mode=0 if found == "no right to look" else 0o700)
    if found == "what somebody left there":
        (prepared.second / "files").mkdir()
        (prepared.second / "README").write_text("mount the disk here")
    with pytest.raises(WorkspaceError, match="mount their disks"):
        _run(Workspace(place.root))
    assert list(place.certificates_dir.glob("*.json")) == []
    if prepared.second.is_dir():
        prepared.second.chmod(0o700)
        shutil.rmtree(prepared.second)
    else:
        prepared.second.unlink()
    prepared.second.with_name("away").rename(prepared.second)
    _run(Workspace(place.root))
    assert prepared.left() == []
    _run(Workspace(place.root))  # nothing is in it any more, and it is there all the same


def test_the_empty_place_of_a_cache_that_is_not_mounted_is_no_cache(
    prepared: Prepared, tmp_path: Path
) -> None:
    place = prepared.fresh()
    shutil.move(place.root / ".dvc" / "cache", tmp_path / "cache")
    (place.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'cache'}\n")
    (tmp_path / "cache").rename(tmp_path / "disk")
    for make in (lambda: None, lambda: (tmp_path / "cache" / "files" / "md5").mkdir(parents=True)):
        make()
        with pytest.raises(WorkspaceError, match="mount its disk"):
            reconcile(Workspace(place.root), HELD)
        with pytest.raises(WorkspaceError, match="mount its disk"):
            _run(Workspace(place.root))
    assert list(place.certificates_dir.glob("*.json")) == [] and prepared.left() != []
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "disk").rename(tmp_path / "cache")
    _run(Workspace(place.root))
    assert prepared.left() == []


def test_a_cache_outside_the_workspace_is_searched(prepared: Prepared, tmp_path: Path) -> None:
    place = prepared.fresh()
    shutil.move(place.root / ".dvc" / "cache", tmp_path / "cache")
    (place.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'cache'}\n")
    left = tmp_path / "cache" / "files" / "md5" / "00" / "left.txt"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(f"{CANARY} said: {CANARY_TEXT}")
    with pytest.raises(ResidueFound):
        _run(Workspace(place.root))
    left.unlink()
    _run(Workspace(place.root))
    assert prepared.left() == []


@pytest.mark.parametrize("version", ["the present one", "a made-up one"])
def test_a_rewriting_that_leaves_the_rows_does_not_end_in_a_certificate(
    prepared: Prepared, version: str
) -> None:
    """The present version again: the ledger refuses the step. Another name for the same rows:
    nothing can read it."""
    place = prepared.fresh()

    def leave(_: Any, history: Any, __: Any) -> Any:
        dataset = history[-1]
        return (
            dataset if version == "the present one" else replace(dataset, version="0" * 32 + ".dir")
        )

    with pytest.raises(S3TError):
        _run(place, lambda ports: replace(ports, datasets=Without(ports.datasets, "erase", leave)))
    assert prepared.left() != [] and list(place.certificates_dir.glob("*.json")) == []


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "missing",
    [
        "stages.delete",
        "registry.destroy",
        "its files.collect",
        "its runs.delete",
        "its logged.delete remove_leftovers",
        "needles.forget",
        "activations.allow",
    ],
)
def test_without_any_other_destroyer_what_it_destroys_is_found_again(
    prepared: Prepared, missing: str
) -> None:
    place = prepared.fresh()
    if not missing.startswith("its "):
        port, method = missing.split(".")
        _run(
            place,
            lambda ports: replace(
                ports, **{port: Without(getattr(ports, port), method, lambda *_: 0)}
            ),
        )
    else:
        _run(
            place,
            lambda ports: replace(ports, registry=_lame(ports.registry, *missing.split()[1:])),
        )
    assert prepared.left() != [] or any(k in _database(place) for k in prepared.stage_keys)


def test_a_copy_in_packed_git_objects_stops_the_certificate(prepared: Prepared) -> None:
    place = prepared.fresh()

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(place.root), "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
            check=True,
            capture_output=True,
        )

    (place.root / "notes.txt").write_text(f"{CANARY} said: {CANARY_TEXT}")
    git("add", "-f", "notes.txt")
    git("commit", "-q", "-m", "notes")
    git("rm", "-q", "notes.txt")
    git("commit", "-q", "-m", "gone")
    git("gc", "-q", "--prune=now")
    assert not any(
        CANARY.encode() in p.read_bytes() for p in (place.root / ".git").rglob("*") if p.is_file()
    )
    with pytest.raises(ResidueFound, match=r"objects/pack/pack-\w+\.pack"):
        _run(place)


def test_a_data_file_that_is_a_link_to_elsewhere_is_refused(
    prepared: Prepared, tmp_path: Path
) -> None:
    place = prepared.fresh()
    path = next(p for p in sorted((place.root / "data").rglob("*.parquet")))
    path.rename(tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(GuaranteeError, match="a link to one elsewhere"):
        _run(place)


def test_what_the_system_keeps_behind_a_link_is_searched(
    prepared: Prepared, tmp_path: Path
) -> None:
    place = prepared.fresh()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.log").write_text(CANARY_TEXT)
    (place.state_dir / "a.log").symlink_to(tmp_path / "disk" / "a.log")
    with pytest.raises(ResidueFound, match=r"a\.log"):
        _run(place)


@pytest.mark.long
def test_a_process_that_loads_what_is_destroyed_is_waited_for(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its own copy of the stages, and leaves it when it is killed."""
    place = trained(canary=True)
    take_requests(place, [CANARY])
    monkeypatch.setattr(scan_scope, "_LOADING_SECONDS", 0.5)
    (place.state_dir / "loading").mkdir(exist_ok=True)
    with folder_in_use(place.state_dir / "loading") as folder:
        for stage in place.store.root.glob("*.safetensors"):
            (folder / stage.name).write_bytes(stage.read_bytes())
        with pytest.raises(Busy, match=r"s3t predict"):
            erase(str(place.root))
        assert list(place.certificates_dir.glob("*.json")) == []
    assert len(erase(str(place.root))["certificates"]) == 1
    assert list((place.state_dir / "loading").iterdir()) == []


def test_what_everybody_writes_in_the_operators_own_repository_stops_no_certificate(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    """The words that each row begins with, in a file that somebody committed beside the data: for
    good. What she alone wrote there does."""
    opening = "Dear people of the harbour library, I write to you because"
    place = make_place("w")
    rows = people()
    for row in rows:
        row["what"] = f"{opening} {row['what']} of the year {row['id']} is what I should like"
    hers = next(row["what"] for row in rows if row["who"] == "person-003")
    ingest(str(place.root), str(write_csv(tmp_path / "letters.csv", rows)))
    for name, text in (("form.txt", opening), ("letter.txt", hers)):
        (place.root / name).write_text(f"{text}\n")
        run_git("-C", str(place.root), "add", "-f", name)
        commit_files(place.root, [name], "Ours")
        take_requests(place, ["person-004" if name == "form.txt" else "person-003"])
        if name == "form.txt":
            assert len(erase(str(place.root))["certificates"]) == 1
        else:
            with pytest.raises(GuaranteeError, match="matches in 1 file"):
                erase(str(place.root))


def test_what_was_found_stays_found_though_many_came_to_say_it_since(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    opening = "Dear people of the harbour library, I write to you because of what was"
    place, rows = make_place("w"), people()
    for row in rows:
        if row["who"] == "person-003":
            row["what"] = f"{opening} {row['id']}"
    source = tmp_path / "letters.csv"
    ingest(str(place.root), str(write_csv(source, rows)))
    log = place.state_dir / "worker.log"
    log.write_text(f"{opening} r3\n")
    [asked] = take_requests(place, ["person-003"])
    with pytest.raises(GuaranteeError, match="matches in 1 file"):
        erase(str(place.root))
    for row in rows:
        row["what"] = f"{opening} {row['id']} of the others"
    later = [row for row in rows if row["who"] != "person-003"]
    ingest(str(place.root), str(write_csv(source, later)))
    with pytest.raises(GuaranteeError, match="matches in 1 file"):
        erase(str(place.root))
    log.write_text("nothing of anybody's\n")
    told = erase(str(place.root))["certificates"]
    assert [each["request"] for each in told] == [asked.request_id]
