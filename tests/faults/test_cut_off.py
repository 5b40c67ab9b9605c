"""A withdrawal or a rejection that was killed between its signature and its entry in the ledger:
the signed document is of an act that never came to be."""

from pathlib import Path

import pytest

from flows.adapters.book import SqlRequestBook
from flows.cli.app import _render_status
from flows.use_cases.erasing import erase_pending
from flows.use_cases.evidence import write_bundle, write_ledger
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import hold, reject, withdraw
from flows.use_cases.status import status_of
from flows.use_cases.steps import AS_THEY_STAND
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path, verify_paths
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config


class Killed(BaseException):
    """As a kill ends a process."""


class NoDeployment:
    """Nobody retrains."""

    def is_carried_out(self) -> bool:
        return False

    def begin(self, once: str, parameters: dict[str, object]) -> str:
        raise AssertionError((once, parameters))

    def has_ended(self, run: str) -> bool:
        raise AssertionError(run)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config())
    return Workspace(tmp_path / "w")


def _cut(place: Workspace, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ask, and close it until the kill; where the document is."""
    [asked] = take_requests(place, ["person 1"])

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SqlRequestBook, "close", kill)
        with pytest.raises(Killed):
            if kind == "withdrawal":
                withdraw(place, asked.request_id)
            else:
                reject(place, asked.request_id, "12(5)", "asked a hundred times", "the office")
    return place.certificates.path_of(asked.request_id)


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
def test_it_is_named_and_goes_with_the_next_decision(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = _cut(place, kind, monkeypatch)
    assert path.is_file()
    told = {**status_of(Workspace(place.root)), "registry": []}
    assert told["documents"] == {"missing": [], "changed": [], "left": [path.stem]}
    assert any("of acts that the ledger does not have" in line for line in _render_status(told))
    hold(Workspace(place.root), "person 1", "17(3)(e)", "a claim", "the office")
    assert not path.exists()
    assert status_of(Workspace(place.root))["documents"]["left"] == []


def test_it_goes_with_the_next_erasure(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _cut(place, "withdrawal", monkeypatch)
    content = path.read_bytes()
    hold(Workspace(place.root), "person 1", "17(3)(e)", "a claim", "the office")
    path.write_bytes(content)
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert not path.exists()


def test_one_of_a_request_that_nobody_knows_is_named_and_stays(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be another one: who destroys it may destroy evidence."""
    other = create_workspace(tmp_path / "o", Config())
    theirs = _cut(other, "withdrawal", monkeypatch)
    path = place.certificates_dir / theirs.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(theirs.read_bytes())
    take_requests(place, ["person 2"])
    hold(Workspace(place.root), "person 2", "17(3)(e)", "a claim", "the office")
    assert path.is_file()
    assert status_of(Workspace(place.root))["documents"]["left"] == [path.stem]


def test_one_that_is_about_to_be_recorded_is_none(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(place, "withdrawal", monkeypatch)
    with access.changing(Workspace(place.root)):
        assert status_of(Workspace(place.root))["documents"]["left"] == []


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
@pytest.mark.parametrize("beside", ["a ledger", "a bundle", "a report"])
def test_beside_later_evidence_that_shows_as_open_what_it_closes_it_is_undecided(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, beside: str
) -> None:
    [other] = take_requests(place, ["person 9"])
    withdraw(place, other.request_id)
    path = _cut(place, kind, monkeypatch)
    key = place.keys_dir / "signing.pub"
    later = tmp_path / "ledger.jsonl"

    def evidence() -> Path:
        if beside == "a ledger":
            write_ledger(place, later)
            return later
        if beside == "a bundle":
            write_bundle(place, later.with_suffix(".zip"), [])
            return later.with_suffix(".zip")
        return Path(write_report(place, None, tmp_path / "report")["json"])

    before = evidence()
    assert verify_path(path, key)["valid"]  # alone it says what it says
    assert verify_paths([path, before], key)["valid"]  # signed over no less than that one
    take_requests(place, ["person 2"])
    found = verify_paths([path.parent, evidence()], key)
    assert not found["valid"] and found["problems"] == []
    [told] = found["undecided"]
    assert told.startswith(path.name) and "shows as open" in told
    withdraw(Workspace(place.root), path.stem)
    assert verify_paths([path.parent, evidence()], key)["valid"]
