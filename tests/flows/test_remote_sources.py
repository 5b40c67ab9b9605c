"""Sources on other machines: brought whole or not at all, read as any file is, and gone afterwards.
Real buckets and databases: tests/stack/test_remote_sources.py."""

import gzip
import hashlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flows.adapters.sources import remote
from flows.adapters.sources.remote import brought, check_form, is_remote
from flows.use_cases.checking_sources import check_sources
from flows.use_cases.ingesting import run_ingest
from flows.workspace.workspace import Workspace
from s3t_core.errors import DataError, StorageError, UsageError
from tests.flows.conftest import people, write_csv
from tests.receiver import certificate_of

HOST = "127.0.0.1"


@dataclass
class Files:
    """What a server answers, by path: bytes, or a redirect to an address."""

    url: str
    at: dict[str, bytes | str] = field(default_factory=dict)
    cut: bool = False
    packs: str = ""
    """How the server packs what it sends: "" not, "asked" for who takes it, "always"."""

    def source(self, path: str, digest: str = "") -> str:
        content = self.at.get(path, b"")
        known = digest or hashlib.sha256(content if isinstance(content, bytes) else b"").hexdigest()
        return f"{self.url}/{path}#sha256={known}"


@contextmanager
def _serving(certificate: Path, key: Path) -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.at.get(self.path.lstrip("/").partition("?")[0])
            if isinstance(found, str):
                self.send_response(302)
                self.send_header("location", found)
                self.end_headers()
                return
            self.send_response(404 if found is None else 200)
            takes = "gzip" in self.headers.get("accept-encoding", "")
            if found and (files.packs == "always" or (files.packs == "asked" and takes)):
                found = gzip.compress(found)
                self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write((found or b"")[: len(found or b"") // 2 if files.cut else None])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    files = Files(f"https://localhost:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A server whose certificate is trusted here."""
    certificate, key = certificate_of("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with _serving(certificate, key) as serving:
        yield serving


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("https://files.example/people.csv", "SHA-256"),
        ("https://files.example/people.csv#sha256=12", "SHA-256"),
        (f"https://files.example/people.csv#sha256={'G' * 64}", "SHA-256"),
        (f"https://ann:secret-word@files.example/p.csv#sha256={'0' * 64}", "no password"),
        ("postgresql://ann:secret-word@db.example/reviews", "no password"),
        ("postgresql://db.example/reviews?password=secret-word", "no password"),
        ("postgresql://db.example/reviews?sslmode=require&sslpassword=secret-word", "no password"),
        ("postgresql://db.example/reviews", r"\[data\] query"),
        ("postgresql:///reviews", r"\[data\] query"),
        ("s3:///reviews.csv", "a bucket"),
        ("https://[::1/p.csv", "a host"),
    ],
)
def test_a_source_that_says_too_little_or_too_much_is_refused_and_not_quoted(
    source: str, why: str
) -> None:
    assert is_remote(source)
    with pytest.raises(UsageError, match=why) as told:
        check_form([source], "")
    assert "secret-word" not in str(told.value)


@pytest.mark.parametrize(
    "source", ["people.csv", "/data/s3/people.csv", "example:chitchat", "http://a/b", "ftp://a/b"]
)
def test_other_sources_are_none_of_these(source: str) -> None:
    assert not is_remote(source)


def test_a_file_behind_an_address_is_ingested_as_the_same_file_here(
    make_place: Callable[..., Workspace], files: Files, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "people.csv", people())
    files.at |= {"there/people.csv": path.read_bytes(), "moved": f"{files.url}/there/people.csv"}
    here, there, moved = (make_place(name) for name in ("here", "there", "moved"))
    wanted = run_ingest(here, [str(path)], False, 20_000, False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for place, at in ((there, "there/people.csv"), (moved, "moved")):
        found = run_ingest(place, [files.source(at, digest)], False, 20_000, False)
        assert found.records == wanted.records and found.subjects == wanted.subjects
        assert not list(place.state_dir.rglob("source-*")), "what was brought is gone"
        looked = check_sources(place, [files.source(at, digest)], False, False)
        assert looked["fits"] and looked["subjects"] == wanted.subjects
        assert not any((place.state_dir / "loading").iterdir())
    checked = check_sources(None, [files.source("moved", digest)], False, False)
    assert "CSV" in checked["read_as"]


@pytest.mark.parametrize("how", ["another file", "cut", "nothing there", "plain http", "no server"])
def test_what_does_not_come_as_it_should_changes_nothing(
    make_place: Callable[..., Workspace], files: Files, tmp_path: Path, how: str
) -> None:
    place = make_place()
    path = write_csv(tmp_path / "people.csv", people())
    run_ingest(place, [str(path)], False, 20_000, False)
    before = place.ledger.head()
    files.at["people.csv"] = path.read_bytes() + b"\n"
    source, kind = files.source("people.csv"), DataError
    if how == "another file":
        source = files.source("people.csv", "0" * 64)
    elif how == "cut":
        files.cut, kind = True, StorageError  # type: ignore[assignment]
    elif how == "nothing there":
        source, kind = files.source("people"), StorageError  # type: ignore[assignment]
    elif how == "plain http":
        files.at["people.csv"], kind = "http://localhost:1/people.csv", StorageError  # type: ignore[assignment]
    else:
        source, kind = f"https://localhost:1/p.csv#sha256={'0' * 64}", StorageError  # type: ignore[assignment]
    with pytest.raises(kind, match="nothing was changed"):
        run_ingest(place, [source], False, 20_000, False)
    assert place.ledger.head() == before and not list(place.state_dir.rglob("source-*"))


def test_the_way_to_a_file_stays_on_https(files: Files, tmp_path: Path) -> None:
    """Though the file would be the right one: who asks for it, and by what address, is seen."""
    asked: list[str] = []

    class Plain(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a,b\n1,2\n")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer((HOST, 0), Plain) as plain:
        thread = threading.Thread(target=plain.serve_forever, args=(0.02,))
        thread.start()
        files.at["people.csv"] = f"http://{HOST}:{plain.server_address[1]}/people.csv"
        digest = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
        with (
            pytest.raises(StorageError, match="redirect"),
            brought([files.source("people.csv", digest)], tmp_path / "scratch", ""),
        ):
            pass
        plain.shutdown()
        thread.join()
    assert not asked


def test_who_is_not_trusted_is_not_read(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    files.at["people.csv"] = b"a,b\n1,2\n"
    with (
        pytest.raises(StorageError, match="certificate"),
        brought([files.source("people.csv")], tmp_path / "scratch", ""),
    ):
        pass


def test_a_file_comes_as_it_is_stored_whatever_its_server_packs(
    files: Files, tmp_path: Path
) -> None:
    content = b"a,b\n" + b"1,2\n" * 1000
    files.at["people.csv"], files.packs = content, "asked"
    with brought([files.source("people.csv")], tmp_path / "scratch", "") as found:
        assert Path(found[0]).read_bytes() == content
    files.packs = "always"
    with (
        pytest.raises(DataError, match=r"packed it for the way \(gzip\)"),
        brought([files.source("people.csv")], tmp_path / "again", ""),
    ):
        pass


class _Bucket:
    """Objects in memory, in the place of a bucket's."""

    objects: ClassVar[dict[str, bytes]] = {}
    bucket = "bucket"

    def __init__(self, url: str) -> None:
        prefix = url.removeprefix("s3://bucket").strip("/")
        self.prefix = f"{prefix}/" if prefix else ""

    def listed(self) -> dict[str, str]:
        mine = {k: v for k, v in self.objects.items() if k.startswith(self.prefix)}
        return {
            k.removeprefix(self.prefix): hashlib.sha256(mine[k]).hexdigest() for k in sorted(mine)
        }

    def fetch(self, name: str, path: Path) -> bool:
        content = self.objects.get(self.prefix + name)
        if content is not None:
            path.write_bytes(content)
        return content is not None


@pytest.mark.parametrize(
    "name",
    [
        "../out.csv",
        "a/../../out.csv",
        "/etc/out.csv",
        "a//b.csv",
        "./a.csv",
        "a/./b.csv",
        "n\0.csv",
        f"{'n' * 256}.csv",
    ],
)
def test_no_name_of_an_object_leads_out_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(remote, "S3Blobs", _Bucket)
    monkeypatch.setattr(_Bucket, "objects", {f"rows/{name}": b"a\n1\n"})
    with (
        pytest.raises(DataError, match="nothing was changed"),
        brought(["s3://bucket/rows/"], tmp_path / "scratch", ""),
    ):
        pass
    assert not list(tmp_path.rglob("*.csv"))


def test_objects_come_in_the_folders_that_their_names_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {"rows/": b"", "rows/who=ann/1.csv": b"1", "rows/who=bob/1.csv": b"2", "row": b"3"}
    monkeypatch.setattr(remote, "S3Blobs", _Bucket)
    monkeypatch.setattr(_Bucket, "objects", objects)
    with brought(["s3://bucket/rows", "s3://bucket/row"], tmp_path / "scratch", "") as found:
        folder, file = map(Path, found)
        here = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.csv")}
        assert here == {"who=ann/1.csv": b"1", "who=bob/1.csv": b"2"}
        assert file.read_bytes() == b"3"
        assert all(p.stat().st_mode & 0o077 == 0 for p in (folder, *folder.rglob("who=*")))
    with pytest.raises(DataError, match="got none"), brought(["s3://bucket/x"], tmp_path / "y", ""):
        pass


@pytest.mark.parametrize("how", ["gone", "another", "one more"])
def test_objects_that_change_while_they_are_brought_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A part that was listed and is gone would be left out in silence."""
    objects = {f"rows/{n}.csv": b"a\n1\n" for n in range(4)}
    fetch = _Bucket.fetch

    def fetched(bucket: _Bucket, name: str, path: Path) -> bool:
        if name == "0.csv" and how == "gone":
            objects.pop("rows/2.csv")
        elif name == "0.csv":
            objects[f"rows/{2 if how == 'another' else 9}.csv"] = b"a\n2\n"
        return fetch(bucket, name, path)

    monkeypatch.setattr(remote, "S3Blobs", _Bucket)
    monkeypatch.setattr(_Bucket, "objects", objects)
    monkeypatch.setattr(_Bucket, "fetch", fetched)
    with (
        pytest.raises(DataError, match="stay as they are"),
        brought(["s3://bucket/rows/"], tmp_path / "scratch", ""),
    ):
        pass


def test_an_object_that_is_a_folder_of_another_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "S3Blobs", _Bucket)
    monkeypatch.setattr(_Bucket, "objects", {"rows/day": b"1", "rows/day/1.csv": b"2"})
    with (
        pytest.raises(DataError, match="a folder of another's"),
        brought(["s3://bucket/rows/"], tmp_path / "scratch", ""),
    ):
        pass


@pytest.mark.parametrize(
    "sources",
    [
        ("s3://bucket/rows/", "s3://bucket/rows/1.csv"),
        ("s3://bucket/rows/1.csv", "s3://bucket/rows/1.csv"),
        ("s3://bucket/rows", "s3://bucket/rows/"),
    ],
)
def test_what_is_named_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: tuple[str, ...]
) -> None:
    monkeypatch.setattr(remote, "S3Blobs", _Bucket)
    monkeypatch.setattr(_Bucket, "objects", {"rows/1.csv": b"a\n1\n"})
    with (
        pytest.raises(DataError, match="count twice"),
        brought(sources, tmp_path / "scratch", ""),
    ):
        pass


def test_one_file_behind_two_addresses_is_refused(files: Files, tmp_path: Path) -> None:
    files.at |= {"one.csv": b"a\n1\n", "two.csv": b"a\n1\n"}
    with (
        pytest.raises(DataError, match="count twice"),
        brought([files.source("one.csv"), files.source("two.csv")], tmp_path / "scratch", ""),
    ):
        pass


def test_a_full_disk_is_an_error_that_says_so(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.at["people.csv"] = b"a,b\n1,2\n"
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **given: Any) -> Any:
        if "source-" in str(path) and "w" in mode:
            raise OSError(28, os.strerror(28))
        return opened(path, mode, *rest, **given)

    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(StorageError, match="make room"),
        brought([files.source("people.csv")], tmp_path / "scratch", ""),
    ):
        pass
