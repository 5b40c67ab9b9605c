"""A controller who rolled everything back and went on otherwise: each piece of evidence of the two
histories is genuine, and whoever holds one of each is told."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.use_cases.evidence import write_bundle, write_ledger
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import withdraw
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path, verify_paths
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.canonical import canonical_json
from s3t_core.config import Config
from s3t_core.erasure.merkle import leaf_hash, roots_at, tree_head
from s3t_core.erasure.offline import read_files
from s3t_core.errors import UsageError


@dataclass(frozen=True)
class Told:
    """What an outsider was given of one history."""

    document: Path
    checkpoint: Path
    report: Path
    ledger: Path
    bundle: Path

    @property
    def wholes(self) -> list[Path]:
        return [self.checkpoint, self.report, self.ledger, self.bundle]


def _tell(root: Path, folder: Path, person: str, earlier: tuple[Path, ...] = ()) -> Told:
    [asked] = take_requests(Workspace(root), [person])
    withdraw(Workspace(root), asked.request_id)
    place, folder = Workspace(root), folder / person.replace(" ", "-")
    folder.mkdir()
    document = folder / f"{asked.request_id}.json"
    shutil.copy(place.certificates.path_of(asked.request_id), document)
    report = folder / "report.json"
    shutil.copy(write_report(place, None, folder / "r")["json"], report)
    shutil.rmtree(folder / "r")
    write_ledger(place, folder / "ledger.jsonl")
    write_bundle(place, folder / "bundle.zip", list(earlier))
    checkpoint = folder / "checkpoint.json"
    shutil.copy(place.state_dir / "checkpoint.json", checkpoint)
    return Told(document, checkpoint, report, folder / "ledger.jsonl", folder / "bundle.zip")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("key") / "signing.pub"


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory, key: Path) -> tuple[Told, Told, Told]:
    """The beginning, what came then, and what came instead."""
    tmp_path = tmp_path_factory.mktemp("histories")
    root = tmp_path / "w"
    create_workspace(root, Config())
    shutil.copy(Workspace(root).keys_dir / "signing.pub", key)
    first = _tell(root, tmp_path, "person 1")
    shutil.copytree(root, tmp_path / "backup", symlinks=True)
    true = _tell(root, tmp_path, "person 2")
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "backup", root, symlinks=True)
    _tell(root, tmp_path, "person 3")
    return first, true, _tell(root, tmp_path, "person 4")


def test_each_is_valid_by_itself_and_with_those_of_its_own_history(
    histories: tuple[Told, Told, Told], key: Path
) -> None:
    first, true, other = histories
    for told in (first, true, other):
        assert verify_paths([*told.wholes, told.document], key)["valid"]
    for later in (true, other):
        assert verify_paths([*first.wholes, *later.wholes], key)["valid"], "by the later ledger"


def test_one_of_each_of_both_histories_is_a_contradiction_wherever_it_can_be_told(
    histories: tuple[Told, Told, Told], key: Path
) -> None:
    _, true, other = histories
    pairs = [*product(true.wholes, other.wholes), *product([true.document], other.wholes[1:])]
    for mine, theirs in pairs:
        found = verify_paths([mine, theirs], key)
        assert not found["valid"], (mine, theirs)
        if theirs == other.ledger:
            assert any("one history" in p for p in found["between"]), mine


def test_what_nobody_can_tell_is_undecided(histories: tuple[Told, Told, Told], key: Path) -> None:
    first, true, _ = histories
    for earlier in (first.checkpoint, first.report):
        for later in (true.checkpoint, true.report):
            found = verify_paths([earlier, later], key)
            assert not found["valid"] and found["problems"] == []
            assert "name the exported ledger" in found["undecided_between"][0]
            assert verify_paths([earlier, later, true.ledger], key)["valid"]


def test_a_bundle_that_was_made_with_a_checkpoint_is_held_against_one_beside_it(
    tmp_path: Path, histories: tuple[Told, Told, Told], key: Path
) -> None:
    first, true, other = histories
    root = tmp_path / "w"
    shutil.copytree(first.document.parents[1] / "w", root, symlinks=True)
    made = _tell(root, tmp_path, "person 5", (first.checkpoint, other.checkpoint)).bundle
    assert verify_paths([first.checkpoint, made], key)["valid"]
    assert verify_paths([other.checkpoint, made], key)["valid"]
    shorter = true.checkpoint  # of as many entries as somebody's of the other history were
    found = verify_paths([shorter, made], key)
    assert not found["valid"]


def test_in_one_directory_they_are_held_against_each_other_too(
    tmp_path: Path, histories: tuple[Told, Told, Told], key: Path
) -> None:
    _, true, other = histories
    folder = tmp_path / "evidence"
    folder.mkdir()
    shutil.copy(true.checkpoint, folder / "kept.json")
    shutil.copy(other.report, folder)
    assert not verify_paths([folder], key)["valid"]
    shutil.copy(other.ledger, folder)
    found = verify_paths([folder], key)
    assert not found["valid"] and any("one history" in p for p in found["problems"])
    (folder / "kept.json").unlink()
    assert verify_paths([folder], key)["valid"]
    (folder / "bundle.zip").write_bytes(b"nothing")
    assert not verify_paths([folder], key)["valid"], "nothing that lies there is passed over"


def test_a_checkpoint_is_held_against_with_an_exported_ledger(
    histories: tuple[Told, Told, Told], key: Path
) -> None:
    first, true, other = histories
    assert verify_path(true.ledger, key, first.checkpoint)["valid"]
    found = verify_path(other.ledger, key, true.checkpoint)
    assert not found["valid"] and found["problems"]


@pytest.mark.parametrize("kind", ["ledger", "bundle", "report", "nothing", "a directory"])
def test_what_is_no_checkpoint_is_told_as_such_and_says_nothing_of_the_evidence(
    histories: tuple[Told, Told, Told], key: Path, tmp_path: Path, kind: str
) -> None:
    """Whoever kept an earlier ledger or bundle takes it for a checkpoint."""
    first, true, _ = histories
    (tmp_path / "nothing").write_bytes(b"[1]")
    given = {
        "ledger": first.ledger,
        "bundle": first.bundle,
        "report": first.report,
        "nothing": tmp_path / "nothing",
        "a directory": tmp_path,
    }[kind]
    for path in (true.ledger, true.bundle):
        with pytest.raises(UsageError, match=r"expected a (readable )?checkpoint") as error:
            verify_path(path, key, given)
        assert {"ledger": "an exported ledger", "bundle": "a bundle"}.get(kind, "") in str(error)
    done = CliRunner().invoke(
        app, ["verify", str(true.ledger), "--key", str(key), "--checkpoint", str(given)]
    )
    assert isinstance(done.exception, UsageError) and "NOT VALID" not in done.output


def test_whoever_asks_by_the_command_reads_what_is_undecided(
    histories: tuple[Told, Told, Told], key: Path
) -> None:
    first, true, _ = histories
    paths = [str(first.checkpoint), str(true.checkpoint)]
    done = CliRunner().invoke(app, ["verify", *paths, "--key", str(key)])
    assert done.exit_code == 3 and "UNDECIDED: checkpoint.json and checkpoint.json" in done.output


def _between(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody else closes a request while a checkpoint is waited for, and again behind it."""
    first, second = take_requests(place, ["person 8", "person 9"])
    signs = place.signing.write_checkpoint

    def closing_meanwhile() -> object:
        withdraw(Workspace(place.root), first.request_id)
        signed = signs()
        withdraw(Workspace(place.root), second.request_id)
        return signed

    monkeypatch.setattr(place.signing, "write_checkpoint", closing_meanwhile)
    return [first.request_id, second.request_id]


def test_a_bundle_has_what_its_checkpoint_signs_whoever_closes_requests_meanwhile(
    tmp_path: Path,
    histories: tuple[Told, Told, Told],
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "w"
    shutil.copytree(histories[0].document.parents[1] / "w", root, symlinks=True)
    place = Workspace(root)
    first, second = _between(place, monkeypatch)
    write_bundle(place, tmp_path / "b.zip", [])
    monkeypatch.undo()
    shown = {Path(name).stem for name in read_files(tmp_path / "b.zip") if "certificates/" in name}
    assert first in shown and second not in shown
    write_ledger(Workspace(root), tmp_path / "ledger.jsonl")
    assert verify_paths([tmp_path / "b.zip", tmp_path / "ledger.jsonl"], key)["valid"]


@pytest.mark.parametrize("beside", ["ledger", "report", "bundle"])
def test_a_document_that_a_bundle_lacks_is_told_beside_what_shows_it(
    tmp_path: Path, histories: tuple[Told, Told, Told], key: Path, beside: str
) -> None:
    """Each document that is there is genuine, and so are the proofs."""
    told = histories[1]
    less = tmp_path / "less.zip"
    with zipfile.ZipFile(told.bundle) as bundle, zipfile.ZipFile(less, "w") as archive:
        for name in bundle.namelist():
            content = bundle.read(name)
            if name == f"certificates/{told.document.name}":
                continue
            if name == "proofs.json":
                proofs = json.loads(content)
                del proofs["certificates"][told.document.stem]
                content = canonical_json(proofs)
            archive.writestr(name, content)
    assert verify_path(less, key)["valid"], "nothing in it tells"
    found = verify_paths([less, getattr(told, beside)], key)
    assert not found["valid"] and "got none of 1 that" in found["between"][0]


def test_a_bundle_that_was_packed_again_with_its_folders_says_the_same(
    tmp_path: Path, histories: tuple[Told, Told, Told], key: Path
) -> None:
    told, again = histories[1], tmp_path / "again.zip"
    with zipfile.ZipFile(told.bundle) as bundle, zipfile.ZipFile(again, "w") as archive:
        archive.writestr("certificates/", b"")
        for name in bundle.namelist():
            archive.writestr(name, bundle.read(name))
    assert verify_path(again, key)["valid"]
    assert verify_paths([again, told.bundle, told.ledger], key)["valid"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21])
def test_roots_of_all_sizes_come_in_one_pass(size: int) -> None:
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    found = roots_at(leaves, range(size + 3))
    assert found == {n: tree_head(leaves[:n]) for n in range(1, size + 1)}
