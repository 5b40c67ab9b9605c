"""What git keeps is searched wherever it lies: loose, packed, in another repository's directory,
behind alternates."""

import os
import shutil
import subprocess
import zlib
from functools import partial
from pathlib import Path

import pytest

from flows.adapters.dvc_repository import commit_files
from flows.adapters.git import REDIRECTING, git_objects
from flows.settings import prepare_environment
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.ports import ScanReport
from tests.worktree import as_worktree

TEXT = "a long confession about the canary on the corner, never to be read again by anyone at all"


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
        check=True,
        capture_output=True,
    )


def repository(root: Path, files: dict[str, bytes], packed: bool = True) -> Path:
    """A repository with these files committed; the work tree is emptied."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main")
    for name, content in files.items():
        (root / name).write_bytes(content)
    git(root, "add", "-f", *files)
    git(root, "commit", "-q", "-m", "all")
    if packed:
        git(root, "gc", "-q", "--prune=now")
    for name in files:
        (root / name).unlink()
    return root


def pack_of(root: Path) -> Path:
    return next((root / ".git" / "objects" / "pack").glob("*.pack"))


def scanned(root: Path, own: str = ".git") -> ScanReport:
    return scan(
        root,
        [],
        [own],
        [],
        make_needles([], [TEXT]),
        [],
        unpack=partial(git_objects, temporary=None),
    )


@pytest.mark.parametrize("index", ["whole", "empty", "cut", "none", "foreign"])
def test_a_pack_is_read_whatever_lies_beside_it(tmp_path: Path, index: str) -> None:
    """git itself skips a pack whose index it cannot read, says nothing, and ends well."""
    root = repository(
        tmp_path / "w", {"a": TEXT.encode() * 9, "b": TEXT.encode() * 8 + b"a delta of it"}
    )
    beside = pack_of(root).with_suffix(".idx")
    whole = beside.read_bytes()
    beside.unlink()
    if index == "foreign":
        shutil.copy(
            pack_of(repository(tmp_path / "other", {"c": b"nothing"})).with_suffix(".idx"), beside
        )
    elif index != "none":
        beside.write_bytes({"whole": whole, "empty": b"", "cut": whole[:-30]}[index])
    report = scanned(root)
    assert (
        report.residue == (pack_of(root).relative_to(root).as_posix(),) and report.undecodable == ()
    )


def test_a_pack_that_git_cannot_read_whole_stops(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a": os.urandom(2000)})
    pack = pack_of(root)
    whole = pack.read_bytes()
    assert scanned(root).undecodable == ()
    pack.chmod(0o600)
    flipped = bytes([*whole[:500], whole[500] ^ 1, *whole[501:]])
    for content in (whole[:-1], whole[:40], flipped, whole + b"more", whole + whole):
        pack.write_bytes(content)
        assert scanned(root).undecodable == (pack.relative_to(root).as_posix(),)


@pytest.mark.parametrize(
    "place", [".git/modules/x", ".s3t/clone.git", ".dvc/tmp/x.git", ".git/lost"]
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_repository_is_searched_wherever_it_lies(
    tmp_path: Path, place: str, packed: bool
) -> None:
    repository(tmp_path / "other", {"a": TEXT.encode()}, packed)
    (tmp_path / "w" / place).parent.mkdir(parents=True)
    shutil.move(tmp_path / "other" / ".git", tmp_path / "w" / place)
    own = place.partition("/")[0]
    found = scanned(tmp_path / "w", own)
    assert len(found.residue) == 1 and found.undecodable == ()
    holder = tmp_path / "w" / found.residue[0]
    holder.chmod(0o600)
    whole = holder.read_bytes()
    for damaged in (
        whole[:-3],
        b"\0\0\0\0" + whole[4:],
    ):  # without its first bytes it is still known by its name
        holder.write_bytes(damaged)
        found = scanned(tmp_path / "w", own)
        assert found.residue == () and found.undecodable == (
            holder.relative_to(tmp_path / "w").as_posix(),
        )


@pytest.mark.parametrize("way", ["alternates", "gitdir", "worktree"])
@pytest.mark.parametrize("packed", [True, False])
def test_objects_that_git_takes_from_other_places_are_searched(
    tmp_path: Path, way: str, packed: bool
) -> None:
    other, root = repository(tmp_path / "other", {"a": TEXT.encode()}, packed), tmp_path / "w"
    if way == "alternates":
        subprocess.run(["git", "clone", "-q", "-s", "-n", str(other), str(root)], check=True)
    elif way == "gitdir":
        root.mkdir()
        (root / ".git").write_text("gitdir: ../other/.git\n")
    else:
        git(other, "worktree", "add", "-q", "--detach", "--no-checkout", str(root))
    report = scanned(root)
    assert len(report.residue) == 1 and report.undecodable == ()
    for path in (other / ".git" / "objects").rglob("*"):
        if path.is_file() and (path.suffix == ".pack" or len(path.name) == 38):
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-3])
    assert scanned(root).undecodable != ()


@pytest.mark.parametrize("linked", ["pack", "alternates", "packs", "objects", "all"])
@pytest.mark.parametrize("way", ["alternates", "gitdir"])
def test_links_in_a_place_that_git_takes_objects_from_are_followed(
    tmp_path: Path, way: str, linked: str
) -> None:
    """git opens each by the name that the link has, wherever it leads."""
    other, root = repository(tmp_path / "other", {"a": TEXT.encode()}), tmp_path / "w"
    pack, objects = pack_of(other), other / ".git" / "objects"
    moved = {"pack": [pack], "packs": [pack.parent], "objects": [objects]}.get(linked, [])
    for number, path in enumerate([pack, pack.parent, objects] if linked == "all" else moved):
        path.rename(tmp_path / f"elsewhere {number}")
        path.symlink_to(tmp_path / f"elsewhere {number}")
    root.mkdir()
    if way == "gitdir":
        (root / ".git").write_text("gitdir: ../other/.git\n")
    if way == "alternates" or linked == "alternates":
        (tmp_path / "third" / ".git").mkdir(parents=True)
        notes = (root if way == "alternates" else other) / ".git" / "objects" / "info"
        notes.mkdir(parents=True, exist_ok=True)
        if way == "gitdir":
            objects.rename(tmp_path / "pool")
            notes.mkdir(parents=True)
        pool = tmp_path / "pool" if way == "gitdir" else objects
        (tmp_path / "names").write_text(f"{pool}\n")
        (notes / "alternates").unlink(missing_ok=True)
        (notes / "alternates").symlink_to(tmp_path / "names")
    report = scanned(root)
    assert len(report.residue) == 1 and report.undecodable == ()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "way",
    ["a chain", "its notes are linked", "its name is a link's", "a link to it", "info", "all"],
)
def test_a_store_of_git_may_have_any_name(tmp_path: Path, way: str, packed: bool) -> None:
    """git asks a store for what it takes objects from by the store's path, before it follows a
    link; and one that it was sent to, in turn."""
    other = repository(tmp_path / "other", {"a": TEXT.encode()}, packed)
    shutil.move(other / ".git" / "objects", tmp_path / "pool")
    root = tmp_path / "w"
    git(tmp_path, "init", "-q", str(root))
    own, between = root / ".git" / "objects", tmp_path / "between"
    (between / "pack").mkdir(parents=True)
    named = own / "info" / "alternates"
    if way == "a chain":
        named.write_text(f"{between}\n")
        (between / "info").mkdir()
        (between / "info" / "alternates").write_text("../pool\n")
    elif way == "its notes are linked":
        named.write_text(f"{between}\n")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "alternates").write_text(f"{tmp_path / 'pool'}\n")
        (between / "info").symlink_to(tmp_path / "notes")
    elif way == "its name is a link's":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "objects").symlink_to(between)
        named.write_text(f"{tmp_path / 'x' / 'objects'}\n")
        (between / "info").mkdir()
        (between / "info" / "alternates").write_text(f"{tmp_path / 'pool'}\n")
    elif way == "info":
        shutil.rmtree(own / "info")
        (tmp_path / "notes").mkdir()
        (own / "info").symlink_to(tmp_path / "notes")
        (tmp_path / "notes" / "alternates").write_text(f"{tmp_path / 'pool'}\n")
    else:
        shutil.rmtree(own)
        own.symlink_to(between)
        (between / "info").mkdir()
        further = tmp_path / "further"
        (further / "pack").mkdir(parents=True)
        (further / "info").mkdir()
        chained = way == "all"
        (between / "info" / "alternates").write_text(f"../{'further' if chained else 'pool'}\n")
        (further / "info" / "alternates").write_text(f"{between}\n../pool/.\n")
    assert git_sees(root, TEXT)
    assert len(scanned(root).residue) == 1 and scanned(root).undecodable == ()
    for path in [p for p in (tmp_path / "pool").rglob("*") if p.suffix == ".pack" or not packed]:
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])
    assert scanned(root).undecodable != ()


@pytest.mark.parametrize("way", ["gitdir", "alternates", "commondir"])
@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n"])
def test_what_ends_a_line_for_python_alone_may_stand_in_a_name(
    tmp_path: Path, way: str, end: str
) -> None:
    """Though what stands before it is there as well. A line feed may stand where git keeps one path
    in a file."""
    (tmp_path / "some").mkdir()
    other, root = repository(tmp_path / f"some{end}where", {"a": TEXT.encode()}), tmp_path / "w"
    if way == "alternates":
        git(tmp_path, "init", "-q", str(root))
        notes = root / ".git" / "objects" / "info" / "alternates"
        named = os.fsencode(other / ".git" / "objects")
        notes.write_bytes(
            (b'"%s"' % named.replace(b"\n", b"\\n") if end == "\n" else named) + b"\n"
        )
    elif way == "gitdir":
        root.mkdir()
        (root / ".git").write_bytes(b"gitdir: " + os.fsencode(other / ".git") + b"\n")
    else:
        repository(root, {"b": b"nothing"})
        as_worktree(root, tmp_path / "main.git")
        shared = tmp_path / "main.git" / "worktrees" / "w" / "commondir"
        shared.write_bytes(os.fsencode(other / ".git") + b"\n")
    assert git_sees(root, TEXT)
    assert len(scanned(root).residue) == 1


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        (b"../../../%s", "some where"),
        (b'"../../../%s"', "some where"),
        (b'"../../../some\\twhere"', "some\twhere"),
        (b'"../../../some\\"where"', 'some"where'),
        (b'"../../../some\\\\where"', "some\\where"),
        (b'"../../../caf\\303\\251"', "caf\u00e9"),
        (b'"../../../caf\\351"', "caf\udce9"),
        (b'"../../../some" "../../../%s"', "where"),
        (b'"../../../some"x../../../%s', "where"),
        (b'"../../../some"x"../../../%s"x# nothing', "where"),
        (b'"../../../../../%s', "open"),
        (b'"../../../../../%s"', "unknown\\x41"),
        (b"../../../%s", "some\rwhere"),
        (b"../../../%s", "where\r"),
        (b"# a comment\n../../../%s", "where"),
    ],
)
def test_alternates_are_read_as_git_reads_them(tmp_path: Path, line: bytes, folder: str) -> None:
    """In quotes or without; what is no quoting as git knows it is a path as it stands."""
    other, root = repository(tmp_path / "other", {"a": TEXT.encode()}), tmp_path / "w"
    git(tmp_path, "init", "-q", str(root))
    objects = root / ".git" / "objects"
    if b"%s" in line:
        line %= os.fsencode(folder)
    is_literal = line.startswith(b'"../../../../')
    if is_literal:
        (objects / '"..').mkdir()
    place = tmp_path / (folder + '"' * (is_literal and line.endswith(b'"')))
    shutil.move(other / ".git" / "objects", place)
    (objects / "info" / "alternates").write_bytes(line + b"\n")
    assert git_sees(root, TEXT)
    assert len(scanned(root).residue) == 1


def git_sees(root: Path, text: str) -> bool:
    """Whether git itself finds it among the objects of a repository."""
    listed = subprocess.run(
        ["git", "-C", str(root), "cat-file", "--batch-all-objects", "--batch"],
        check=True,
        capture_output=True,
    )
    return text.encode() in listed.stdout


@pytest.mark.parametrize("kind", ["branch", "tag", "log", "packed"])
def test_names_and_logs_that_a_worktree_shares_are_searched(tmp_path: Path, kind: str) -> None:
    """What the repository itself keeps in its `.git`, a second worktree has in the one that it
    came from: all of it, not its objects alone."""
    root = repository(tmp_path / "w", {"a": b"nothing"})
    if kind == "log":
        git(root, "update-ref", "--create-reflog", "-m", TEXT, "refs/heads/other", "HEAD")
    else:
        git(root, "tag" if kind == "tag" else "branch", "person-4711", "HEAD")
    if kind == "packed":
        git(root, "pack-refs", "--all")
    found = [
        scan(each, [], [".git"], [], make_needles(["person-4711"], [TEXT]), []).residue
        for each in (root, as_worktree(root, tmp_path / "main.git"))
    ]
    assert len(found[0]) == len(found[1]) > 0


@pytest.mark.parametrize("hashing", ["sha1", "sha256"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("version", [2, 4])
def test_names_in_an_index_are_searched_though_it_says_only_where_they_differ(
    tmp_path: Path, version: int, hashing: str, split: bool
) -> None:
    """Nothing was committed: no tree has the names. A split index has those of the shared one that
    changed without their names."""
    root = tmp_path / "w"
    git(tmp_path, "init", "-q", f"--object-format={hashing}", str(root))
    for name in ("notes/person-1", "notes/person-4711", "notes/person-47115", "x" * 500):
        path = root.joinpath(*(name[n : n + 200] for n in range(0, len(name), 200)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("nothing")
    git(root, "add", "--all")
    git(root, "add", "--intent-to-add", "--all")
    git(root, "update-index", "--index-version", str(version))
    index = root / ".git" / "index"
    if split:
        git(root, "config", "splitIndex.maxPercentChange", "100")
        git(root, "update-index", "--split-index")
        (root / "notes" / "person-1").write_text("something")
        (root / "notes" / "person-5").write_text("something")
        git(root, "add", "--all")
    assert index.read_bytes()[7] == version
    found = [
        scan(root, [], [".git"], [], make_needles([who], []), []).residue
        for who in ("person-4711", "person-47115", "person-471")
    ]
    [where] = [p for p in (root / ".git").glob("*ndex*") if split == (p.name != "index")]
    assert found == [(f".git/{where.name}",), (f".git/{where.name}",), ()]
    if version == 4:
        index.write_bytes(index.read_bytes()[:150])
        assert scanned(root).undecodable == (".git/index",)


def test_notes_that_are_a_link_and_name_what_is_away_stop(tmp_path: Path) -> None:
    notes = tmp_path / "w" / ".git" / "objects" / "info" / "alternates"
    notes.parent.mkdir(parents=True)
    (tmp_path / "names").write_text(f"{tmp_path / 'away'}\n")
    notes.symlink_to(tmp_path / "names")
    assert scanned(tmp_path / "w").undecodable == (".git/objects/info/alternates",)
    (tmp_path / "away").mkdir()
    assert scanned(tmp_path / "w").undecodable == ()


def test_a_loose_object_of_git_is_opened_as_a_file_is(tmp_path: Path) -> None:
    root = repository(
        tmp_path, {"a.z": zlib.compress(b"before " * 9 + TEXT.encode())}, packed=False
    )
    assert len(scanned(root).residue) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_what_the_operator_committed_stops_nothing_and_is_searched(
    tmp_path: Path, packed: bool
) -> None:
    files = {
        "x.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "x.7z": b"7z\xbc\xaf\x27\x1c1234",
        "x.avro": b"Obj\x01..",
        "x.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\3cut",
        "x.zip": b"PK\3\4rubbish",
    }
    root = repository(tmp_path, files, packed)
    report = scanned(root)
    assert (report.undecodable, report.residue) == ((), ())
    git(root, "checkout", "-q", "-f", "main")
    (root / "y.gz").write_bytes(files["x.gz"] + TEXT.encode())
    git(root, "add", "y.gz")
    assert len(scanned(root).residue) == 1


def test_a_branch_may_have_any_name(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a": b"a"})
    for name in ("fix/rows.parquet", "files/md5/ab/" + "0" * 30):
        git(root, "branch", name)
    assert scanned(root).undecodable == ()


def test_nothing_in_a_shell_redirects_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, root = (
        repository(tmp_path / "other", {"a": b"theirs"}),
        repository(tmp_path / "w", {"a": TEXT.encode()}),
    )
    head = (other / ".git" / "refs").rglob("*")
    before = {p: p.read_bytes() for p in head if p.is_file()}
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
    assert len(scanned(root).residue) == 1
    (root / "data.dvc").write_text("outs: []")
    commit_files(root, ["data.dvc"], "data")
    assert {
        p: p.read_bytes() for p in (other / ".git" / "refs").rglob("*") if p.is_file()
    } == before
    for name in set(os.environ) | {"PREFECT_HOME"}:
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards
    mask = os.umask(0o077)
    prepare_environment(root)
    os.umask(mask)
    assert not set(REDIRECTING) & set(os.environ)
