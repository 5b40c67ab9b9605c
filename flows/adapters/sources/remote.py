"""Sources on other machines: objects of a bucket, a query of a PostgreSQL database, a file behind
an https address. They are brought to files of this machine first, for their owner alone, and go
through the same reading and the same checks as any; the files are gone when the ingest ends.

Credentials are those of docs/operations.md: AWS_* or a profile for a bucket, PGPASSFILE or
PGPASSWORD for a database. None stands in a source: what is on a command line, anybody on the
machine can read.
"""

import contextlib
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx

from flows.adapters.s3 import S3Blobs, is_bucket
from flows.adapters.sources.query import UNCHANGED as _UNCHANGED
from flows.adapters.sources.query import write_answer
from s3t_core.errors import DataError, StorageError, UsageError, WorkspaceError

_SCHEMES = re.compile(r"(?:s3|https|postgresql)://")
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")
_SECONDS = httpx.Timeout(30, read=120)
_MOST_REDIRECTS = 5
_QUERY_NAME = "rows.parquet"
_LONGEST_NAME = 255
"""Bytes of a file's name."""


def is_remote(source: str) -> bool:
    """Whether a source lies on another machine."""
    return bool(_SCHEMES.match(source))


def check_form(sources: Sequence[str], query: str) -> None:
    """That each remote source says all that is needed to bring it, as far as its spelling tells.
    Raises UsageError."""
    for source in filter(is_remote, sources):
        try:
            parts = urlsplit(source)
            has_password, has_host = parts.password is not None, bool(parts.hostname)
        except ValueError:
            has_password, has_host = False, False
        if not has_host and not source.startswith("postgresql://"):  # PGHOST, or host=
            raise UsageError(f"expected a host or a bucket in the source, got none{_UNCHANGED}")
        if has_password or re.search(r"(?i)[?&](?:password|sslpassword)=", source):
            raise UsageError(
                "expected no password in the source, got one, which anybody on this machine can "
                "read; give it in PGPASSFILE or PGPASSWORD" + _UNCHANGED
            )
        if source.startswith("https://") and not _SHA256.fullmatch(parts.fragment):
            raise UsageError(
                "expected the SHA-256 of the file behind an https:// source, as "
                "https://HOST/FILE.csv#sha256=HEX: what is there tomorrow may be another file"
                + _UNCHANGED
            )
        if source.startswith("postgresql://") and not query.strip():
            raise UsageError(
                "expected [data] query in s3t.toml for a postgresql:// source, what its database "
                f"is asked for, got none{_UNCHANGED}"
            )


@contextlib.contextmanager
def brought(sources: Sequence[str], folder: Path, query: str) -> Iterator[list[str]]:
    """The sources, remote ones as files or folders below `folder`, which is the caller's to remove.
    `query`: [data] query. Raises UsageError and DataError for what cannot be read as a source,
    StorageError for a place that does not answer."""
    check_form(sources, query)
    found, things = list[str](), set[str]()
    for number, source in enumerate(sources):
        if not is_remote(source):
            found.append(source)
            continue
        place = folder / f"source-{number}"
        place.mkdir(parents=True, mode=0o700)
        try:
            path, named = _bring(source, place, query)
            if not things.isdisjoint(named) or len(set(named)) < len(named):
                raise DataError(
                    "expected each file of the source once, got one twice; its rows would count "
                    "twice" + _UNCHANGED
                )
            things |= set(named)
            found.append(str(path))
        except OSError as error:
            raise StorageError(
                f"expected room for the source in {folder.name}, got {type(error).__name__} "
                f"({error.strerror or 'no reason given'}); make room, then ingest again"
            ) from None
    yield found


def _bring(source: str, place: Path, query: str) -> tuple[Path, list[str]]:
    """Where it is now, and what it is: the same thing under another source counts twice."""
    if is_bucket(source):
        return _objects(source, place)
    if source.startswith("https://"):
        return _file(source, place), [source.partition("#")[2]]
    path = place / _QUERY_NAME
    write_answer(source, query, path)
    return path, [source]


def _objects(source: str, place: Path) -> tuple[Path, list[str]]:
    """An object, or every object under a prefix, in folders as their names have it."""
    url, _, name = source.rpartition("/")
    try:
        if name and url != "s3:/":
            bucket, path = S3Blobs(url), place / _below(name)
            if bucket.fetch(name, path):
                return path, [f"{bucket.bucket}/{bucket.prefix}{name}"]
        bucket = S3Blobs(source)
        there = _listed(bucket)
        _check_apart(there)
        for name in there:
            path = place / _below(name)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            bucket.fetch(name, path)
        after = _listed(bucket)
    except WorkspaceError as error:
        raise UsageError(f"{error}{_UNCHANGED}") from None
    if after != there:
        raise DataError(
            "expected the objects under the prefix of the source to stay as they are while they "
            "are brought, got others, or some no more; ingest again once whoever writes them is "
            "done" + _UNCHANGED
        )
    if not there:
        raise DataError(
            "expected objects at the s3:// source, got none; check its spelling, and that these "
            "credentials may list it" + _UNCHANGED
        )
    return place, [f"{bucket.bucket}/{bucket.prefix}{name}" for name in there]


def _listed(bucket: S3Blobs) -> dict[str, str]:
    """What stands for each object's content, by its name."""
    found = bucket.listed()
    return {  # names that end so are how consoles draw folders
        name: tag for name, tag in found.items() if name and not name.endswith("/")
    }


def _below(name: str) -> PurePosixPath:
    """An object's name as a path below a folder. Raises DataError for one that would leave it, or
    that no file can have."""
    path = PurePosixPath(name)
    odd = name != str(path) or path.is_absolute() or ".." in path.parts or "\0" in name
    if odd or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise DataError(
            "expected names of objects that are paths (data/part-1.csv), got one with empty "
            f"parts, dots, or more than {_LONGEST_NAME} bytes between two slashes; name the "
            "objects to take one by one" + _UNCHANGED
        )
    return path


def _check_apart(names: Collection[str]) -> None:
    """That no object's name is a folder of another's. Raises DataError."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if not folders.isdisjoint(names):
        raise DataError(
            "expected objects whose names can be files beside each other, got one whose name is a "
            "folder of another's (day and day/part.csv); name the objects to take one by one"
            + _UNCHANGED
        )


def _file(source: str, place: Path) -> Path:
    """What an address answers, where it has the SHA-256 that the source says: as it is stored
    there, and not as a server packs it for the way."""
    url, _, fragment = source.partition("#")
    wanted = fragment.removeprefix("sha256=")
    try:
        with (
            httpx.Client(
                follow_redirects=True,
                max_redirects=_MOST_REDIRECTS,
                timeout=_SECONDS,
                headers={"accept-encoding": "identity"},
                event_hooks={"request": [_want_https]},
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise StorageError(
                    f"expected the file from {_host(url)}, got status {response.status_code}"
                    + _UNCHANGED
                )
            name = _name_of(url) or _name_of(str(response.url)) or "file"
            packed = response.headers.get("content-encoding", "")
            path, digest = place / name, hashlib.sha256()
            with path.open("wb") as file:
                for chunk in response.iter_raw(2**20):
                    digest.update(chunk)
                    file.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise StorageError(
            f"expected the file from {_host(url)}, got {type(error).__name__}; see that it can be "
            "reached and that its certificate is trusted here" + _UNCHANGED
        ) from None
    if digest.hexdigest() != wanted:
        came = f", or its server packed it for the way ({packed})" if packed else ""
        raise DataError(
            f"expected a file with SHA-256 {wanted[:16]}..., got {digest.hexdigest()[:16]}...: it "
            f"is another one, or was cut on the way{came}{_UNCHANGED}"
        )
    return path


def _name_of(url: str) -> str:
    """The name of the file that an address ends in, "" where it is none: it says what kind of file
    it is."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return name if re.fullmatch(r"[\w=-][\w.=-]{0,199}\.[\w.]{1,20}", name) else ""


def _want_https(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise StorageError(
            "expected https all the way to the file, got a redirect to an address without it"
            + _UNCHANGED
        )


def _host(url: str) -> str:
    return urlsplit(url).hostname or "its host"
