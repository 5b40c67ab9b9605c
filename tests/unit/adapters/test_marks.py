"""A place serves one workspace, and lies neither within nor around another's (edges 19.8). Buckets:
tests/stack."""

from pathlib import Path

import pytest

from flows.adapters import marks
from flows.adapters.marks import OWNER, claim_place
from s3t_core.errors import WorkspaceError
from s3t_core.learning.store import Blobs, LocalBlobs, StageStore

KEYS = Path(".s3t") / "keys"


def _claim(folder: Path, owner: str = "mine", begins: bool = True) -> None:
    claim_place("[store] url", LocalBlobs(folder), owner, begins, KEYS)


def test_a_place_is_its_first_workspaces_and_found_again_by_its_mark(tmp_path: Path) -> None:
    _claim(tmp_path / "a")
    _claim(tmp_path / "a", begins=False)
    assert (tmp_path / "a" / OWNER).read_text() == "mine"
    with pytest.raises(WorkspaceError, match="belongs to another"):
        _claim(tmp_path / "a", "theirs")
    with pytest.raises(WorkspaceError, match="without its mark"):
        _claim(tmp_path / "b", begins=False)


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [("a", "a/b"), ("a", "a/b/c"), ("a/b/c", "a"), ("a/b", "a/b/c/../d"), ("a", "link/b")],
)
def test_a_place_within_or_around_anothers_is_refused(
    tmp_path: Path, theirs: str, mine: str
) -> None:
    _claim(tmp_path / theirs, "theirs")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(WorkspaceError, match="within or around"):
        _claim(tmp_path / mine)
    assert not (tmp_path / mine / OWNER).exists()


def test_a_place_in_another_workspaces_own_directory_is_refused(tmp_path: Path) -> None:
    """Its places there bear no marks."""
    (tmp_path / "w" / KEYS).mkdir(parents=True)
    for folder in ("w", "w/.s3t/stages", "w/x/y"):
        with pytest.raises(WorkspaceError, match="within or around"):
            _claim(tmp_path / folder)


def test_places_beside_each_other_are_two_workspaces(tmp_path: Path) -> None:
    for name in ("remote", "remote2", "remote-b", "x/remote"):
        _claim(tmp_path / name, name)


def test_a_store_knows_nothing_of_what_lies_deeper(tmp_path: Path) -> None:
    """What it lists, an erasure may destroy."""

    class Deep(LocalBlobs):
        def names(self) -> list[str]:  # as a bucket lists them
            return sorted(
                p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()
            )

    store, inner = (StageStore(Deep(tmp_path / name), b"k" * 32) for name in ("a", "a/b"))
    mine, theirs = store.put("key", b"mine"), inner.put("key", b"theirs")
    assert (
        list(store.digests()) == [mine]
        and store.bindings() == {"key": mine}
        and inner.holds(theirs)
    )


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a/b"), ("a/b/c", "a")])
def test_of_two_that_claim_a_place_at_once_at_most_one_has_it(
    tmp_path: Path, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has looked, and found nothing, when the first claims it."""
    look, looked = marks._is_beside, list[bool]()

    def late(blobs: Blobs, is_workspace: Path) -> bool:
        found = look(blobs, is_workspace)
        if not looked:
            looked.append(found)
            _claim(tmp_path / first, "theirs")
        return found

    monkeypatch.setattr(marks, "_is_beside", late)
    with pytest.raises(WorkspaceError, match="another"):
        _claim(tmp_path / second, "mine")
    assert [p.read_text() for p in tmp_path.rglob(OWNER)] == ["theirs"]
