"""The residue scan: search, byte for byte, everything the system wrote for what was erased.

1. Needles are the ids as given and windows of the texts (whole when short), in UTF-8 and as JSON escapes, so that a
   cut-off log line or a text split over database pages is found too.
2. Every file under the given roots is read: raw, and decoded where its bytes hide text: gzip, zip, zlib (git objects),
   Parquet columns, SQLite cells. Links among the system's own files are followed. What lies packed elsewhere (git) is
   given as `streams`.
3. A match in a row or line that names another subject's digest is counted as shared: it is that subject's data. A
   match in a file the system did not write is reported as outside: it is the operator's copy.
4. Needles that cannot be told from chance are counted as unsearchable: short ones, plain words as ids ("default"), and
   what the system writes anyway (a text that quotes a label). Rows of an erased subject, and erased records, are also
   found by their keyed digests, whatever the text.
"""

import contextlib
import gzip
import hashlib
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from ahocorasick_rs import BytesAhoCorasick, Implementation

from s3t_core.ports import ScanReport, Target

MIN_ID_BYTES = 6
MIN_WORD_BYTES = 12
MIN_TEXT_BYTES = 16
WINDOW_BYTES = 48
_CHUNK = 4 * 2**20
_FEW = 16
"""Up to so many needles are looked for one by one, which is faster."""


@dataclass(frozen=True)
class NeedleSet:
    """What is searched for. `ids` match only as whole words: an id may be a part of a longer one."""

    ids: tuple[bytes, ...]
    windows: tuple[bytes, ...]
    unsearchable: int

    def found_in(self, data: bytes) -> bool:
        """Whether any needle is in `data`."""
        if len(self.ids) + len(self.windows) <= _FEW:
            return any(w in data for w in self.windows) or any(_word_in(i, data) for i in self.ids)
        return any(which >= len(self.ids) or _stands_alone(data, begin, end)
                   for which, begin, end in self._automaton.find_matches_as_indexes(data, overlapping=True))

    @cached_property
    def _automaton(self) -> BytesAhoCorasick:
        """All needles at once (Aho and Corasick): the time of a search does not grow with their number."""
        return BytesAhoCorasick([*self.ids, *self.windows], implementation=Implementation.ContiguousNFA)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest needle."""
        return max((len(n) for n in (*self.ids, *self.windows)), default=0)


def make_needles(ids: list[str], texts: list[str], baseline: bytes = b"") -> NeedleSet:
    """Needles for the ids as given and the texts of the erased rows. `baseline`: what the system writes anyway."""
    words: set[bytes] = set()
    windows: set[bytes] = set()
    unsearchable = 0
    for given in ids:
        forms = {f for f in _spellings(given) if len(f) >= (MIN_WORD_BYTES if given.isalpha() else MIN_ID_BYTES)
                 and not _word_in(f, baseline)}
        unsearchable += not forms
        words |= forms
    for text in (t.strip() for t in texts):
        parts = {w for form in _spellings(text) if len(form) >= MIN_TEXT_BYTES for w in _windows(form)
                 if w not in baseline}
        unsearchable += not parts
        windows |= parts
    return NeedleSet(tuple(sorted(words)), tuple(sorted(windows)), unsearchable)


def scan(root: Path, extra_roots: list[Path], system_paths: list[str], skip: list[Path], needles: NeedleSet,
         targets: list[Target], streams: Iterable[tuple[str, IO[bytes]]] = (),
         objects: Iterable[tuple[str, Path]] = ()) -> ScanReport:
    """Search every file under `root` and `extra_roots`.

    `system_paths`: names under `root` that the system writes; matches elsewhere under it, extra roots apart, are
    outside. `skip`: files left out (the needles themselves). `targets`: what no row may match any more. `streams`: more
    of the system's own bytes, by name. `objects`: what the system keeps in buckets, by name, each with a file that
    holds it until the next is asked for.
    """
    files = size = shared = 0
    residue: list[str] = []
    outside: list[str] = []
    skipped, search = frozenset(skip), _Searcher(needles, targets)
    for path, own in _walk(root, extra_roots, system_paths):
        if path in skipped:
            continue
        verdict = search(path)
        files, size, shared = files + 1, size + verdict.size, shared + verdict.shared
        if verdict.residue:
            (residue if own else outside).append(_shown(path, root))
    for name, stream in streams:
        parts = [(len(p), needles.found_in(p)) for p in _chunks(stream, needles.longest)]
        size += sum(n for n, _ in parts)
        residue += [name] if any(found for _, found in parts) else []
    for name, path in objects:
        verdict = search(path)
        files, size, shared = files + 1, size + verdict.size, shared + verdict.shared
        residue += [name] if verdict.residue else []
    return ScanReport(files, size, len(needles.ids) + len(needles.windows), needles.unsearchable, shared,
                      tuple(sorted(residue)), tuple(sorted(outside)))


@dataclass(frozen=True)
class _Verdict:
    size: int
    residue: bool
    shared: int = 0


class _Searcher:
    """Searches file after file. Rows that are stored twice, byte for byte (a data file, its copies in cache and
    remotes), are searched once."""

    def __init__(self, needles: NeedleSet, targets: list[Target]) -> None:
        self._needles = needles
        self._by_subject: dict[str, list[Target]] = {}
        for target in targets:
            self._by_subject.setdefault(target.subject, []).append(target)
        self._known: dict[bytes, _Verdict] = {}

    def __call__(self, path: Path) -> _Verdict:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                magic = file.read(16)
            if magic[:4] == b"PAR1" or path.suffix == ".jsonl":
                return self._once(path, size, _parquet_rows if magic[:4] == b"PAR1" else _json_rows)
            parts = _parts(path, magic, self._needles.longest)
            return _Verdict(size, any(self._needles.found_in(part) for part in parts))
        except FileNotFoundError:
            return _Verdict(0, residue=False)  # gone while we walked: a log was rotated

    def _once(self, path: Path, size: int, rows_of: Callable[[Path], Iterator[tuple[str, str, bytes]]]) -> _Verdict:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest() + rows_of.__name__.encode()
        if digest not in self._known:
            self._known[digest] = self._search_rows(rows_of(path), size)
        return self._known[digest]

    def _search_rows(self, rows: Iterator[tuple[str, str, bytes]], size: int) -> _Verdict:
        residue, shared = False, 0
        for subject, record, content in rows:
            if any(t.matches(subject, record) for t in self._by_subject.get(subject, ())):
                residue = True
            elif self._needles.found_in(content):
                named = re.fullmatch(r"[0-9a-f]{64}", subject) is not None  # a row that names its subject's digest
                shared, residue = shared + named, residue or not named
        return _Verdict(size, residue, shared)


def _parts(path: Path, magic: bytes, overlap: int) -> Iterator[bytes]:
    """The file in overlapping chunks, then whatever its bytes decode to."""
    with path.open("rb") as file:
        yield from _chunks(file, overlap)
    if magic[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as unpacked:
            yield from _chunks(cast("IO[bytes]", unpacked), overlap)
    elif magic[:4] == b"PK\x03\x04":
        yield from _zipped(path, overlap)
    elif magic[:1] == b"\x78":
        try:
            yield zlib.decompress(path.read_bytes())
        except zlib.error:
            return
    elif magic[:15] == b"SQLite format 3":
        yield from _sqlite_cells(path)


def _chunks(stream: IO[bytes], overlap: int) -> Iterator[bytes]:
    """A stream in overlapping chunks."""
    tail = b""
    while chunk := stream.read(_CHUNK):
        yield tail + chunk
        tail = (tail + chunk)[-overlap:] if overlap else b""


def _zipped(path: Path, overlap: int) -> Iterator[bytes]:
    """Names and contents of an archive's files; what cannot be read was searched raw."""
    with contextlib.suppress(OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error), \
            zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield entry.filename.encode()
            with archive.open(entry) as file:
                yield from _chunks(file, overlap)


def _parquet_rows(path: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except pa.ArrowException:
        yield "", "", path.read_bytes()
        return
    for row in table.to_pylist():
        content = "\n".join(str(v) for v in row.values()).encode()
        yield str(row.get("subject", "")), str(row.get("record", "")), content


def _json_rows(path: Path) -> Iterator[tuple[str, str, bytes]]:
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = {}
        yield str(value.get("subject_digest", "") if isinstance(value, dict) else ""), "", line


def _sqlite_cells(path: Path) -> Iterator[bytes]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    connection.text_factory = bytes
    try:
        tables = [r[0].decode() for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute('SELECT * FROM "' + table.replace('"', '""') + '"'):  # noqa: S608
                yield b"\n".join(v for v in row if isinstance(v, bytes))
    except sqlite3.DatabaseError:
        return  # not readable as a database: its raw bytes were searched
    finally:
        connection.close()


def _walk(root: Path, extra_roots: list[Path], system_paths: list[str]) -> Iterator[tuple[Path, bool]]:
    """Every file once, and whether it is the system's own. Links are followed where the system writes, and only there:
    what it keeps on another disk is as much its own."""
    seen: set[Path] = set()
    linked: list[Path] = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        own = any(relative == s or relative.startswith(s + "/") for s in system_paths) or any(
            path.is_relative_to(extra) for extra in extra_roots)
        if path.is_symlink():
            linked += [path] if own else []
        elif path.is_file():
            seen.add(path)
            yield path, own
    linked += [extra for extra in extra_roots if not extra.is_relative_to(root)]
    while linked:
        place = linked.pop().resolve()
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_symlink():
                linked += [path] if path.resolve() not in seen else []
                seen.add(path.resolve())
            elif path.is_file() and path not in seen:
                seen.add(path)
                yield path, True


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _spellings(text: str) -> set[bytes]:
    return {text.encode(), json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()}


def _windows(data: bytes) -> list[bytes]:
    """Start, middle and end of a text: short enough to lie within one database page or log line."""
    if len(data) <= WINDOW_BYTES:
        return [data]
    middle = (len(data) - WINDOW_BYTES) // 2
    return [data[:WINDOW_BYTES], data[middle:middle + WINDOW_BYTES], data[-WINDOW_BYTES:]]


def _word_in(word: bytes, data: bytes) -> bool:
    if word not in data:
        return False
    return re.search(rb"(?<![0-9A-Za-z_-])" + re.escape(word) + rb"(?![0-9A-Za-z_-])", data) is not None


def _stands_alone(data: bytes, begin: int, end: int) -> bool:
    """Whether no letter, digit, _ or - of ASCII is beside data[begin:end]."""
    return not any(c.isalnum() or c in b"_-" for c in (data[max(begin - 1, 0):begin], data[end:end + 1]) if c)
