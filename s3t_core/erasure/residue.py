"""The residue scan: search everything the system wrote for what was erased, decoded, to the end of
every file.

1. Needles are the ids as given and windows of the texts (needles.py). Bytes are searched as they
   are, and as what they may spell: escapes, UTF-16, percent-encoding, entities, base64, hexadecimal
   (spellings.py).
2. Every file under the given roots is read, and its name. What its first bytes say it is, is
   decoded: compressed files, archives, tables, databases, one in another, git's objects and packs
   wherever they lie (the package decoding). Links among the system's own files are followed; so is
   what git follows: alternates, a `.git` that names another directory.
3. A file of the system's own that cannot be decoded to its end is `undecodable`: nobody can say
   what is in it. So is one that is not what its name says: an object of DVC's named by another
   digest than its content has, a `.parquet` that is none, a temporary copy that says nothing, an
   object of git's that does not inflate; and what is neither file nor directory, as a pipe or a
   device, which is never opened: it may have no end. The operator's own files are searched as far
   as they can be decoded; so is what they committed, in objects of git that are whole.
4. A match in a row or line that names another subject's digest is counted as shared: it is that
   subject's data, where it is somebody whose rows are kept; else it is as good as unnamed. A match
   in a file the system did not write is reported as outside: it is the operator's copy.
5. Rows of an erased subject, and erased records, are also found by their keyed digests, whatever
   the text.

Not searched: what is encrypted, other compressions than those that decoding.kinds names, text in
pictures and in the compressed streams of a PDF, UTF-16 without a mark whose letters are not Latin,
other encodings of letters beyond ASCII than UTF-8, and a text that was changed in any other way.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from s3t_core.canonical import sha256_hex
from s3t_core.erasure.decoding.kinds import (
    GIT_LOOSE,
    MAX_DEPTH,
    Kind,
    decoding,
    kind_by_end,
    kind_of,
    parts_of,
)
from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    HEAD_BYTES,
    Mistaken,
    Readable,
    Rows,
    Source,
    Uncut,
    Undecodable,
    Unpack,
    spooled,
)
from s3t_core.erasure.decoding.still import held_still, is_sqlite
from s3t_core.erasure.decoding.tables import has_database
from s3t_core.erasure.needles import NeedleSet
from s3t_core.erasure.walk import git_links, resolved, walk
from s3t_core.errors import printable
from s3t_core.files import is_half_written, open_regular
from s3t_core.ports import ScanReport, Target

_SPELT = 6
"""A needle may take so many times its bytes where it is spelt otherwise: an escape has six
characters."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]+(\.dir)?")
_DVC_OBJECT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?$")
_GIT_OBJECT = re.compile(r"(^|/)[0-9a-f]{2}/([0-9a-f]{38}([0-9a-f]{24})?|tmp_obj_\w+)$")
"""Whatever its store is called, as with packs: an alternate may have any name."""
_GIT_PACK = re.compile(r"(^|/)pack-[0-9a-f]{40}([0-9a-f]{24})?\.pack$")
_ENDINGS = (
    (re.compile(r"\.parquet$"), "Parquet"),
    (re.compile(r"\.safetensors$"), "safetensors"),
    (re.compile(r"\.(db|sqlite3?)$"), "SQLite"),
    (re.compile(r"\.(db|sqlite3?)-(wal|journal)$"), "SQLite log"),
)
_SOCKETS = re.compile(r"\.git/|(^|/)\.s3t/door\.sock$")
"""Where a socket may lie, in which there is nothing to be read: git's, of its watcher of files, and
the one by which commands ask the HTTP door."""
_IN_GIT = re.compile(r"\.git/")
"""Names there are the operator's: a branch may be called as they like. So in x.git, a bare one."""
_NONE = frozenset[bytes]()
_LOOKS, _PAUSE_SECONDS = 4, 0.5
"""A file that a process is writing is looked at so often more, with a pause, before it counts as
one that cannot be decoded."""
_WHOLE_BYTES = 2**16
"""Files of a known kind from here on are told from each other by digest, and equal ones searched
once."""


def scan(
    root: Path,
    extra_roots: list[Path],
    system_paths: list[str],
    skip: list[Path],
    needles: NeedleSet,
    targets: list[Target],
    objects: Iterable[tuple[str, Path]] = (),
    temporary: Path | None = None,
    is_open: Callable[[Path], bool] = lambda _: False,
    unpack: Unpack | None = None,
    is_known: Callable[[str], bool] = lambda _: True,
    known_residue: Collection[str] = (),
    digest_of: Callable[[str], str] = str,
) -> ScanReport:
    """Search every file under `root` and `extra_roots`.

    `system_paths`: names under `root` that the system writes; matches elsewhere under it, extra
    roots apart, are outside. `skip`: files left out (the needles themselves). `targets`: what no
    row may match any more. `objects`: what the system keeps in buckets, by name, each with a file
    that holds it until the next is asked for. `temporary`: where what must lie in a file to be
    decoded is copied. `is_open`: whether a process has the file open. `unpack`: gives the objects
    of a git pack. `is_known`: whether a subject's digest is of somebody whose rows are kept.
    `known_residue`: what an earlier search found, as `digest_of` makes it of the SHA-256 (hex) of a
    file.
    """
    found = _Found(frozenset(known_residue), digest_of)
    skipped, search = frozenset(skip), _Searcher(needles, targets, temporary, unpack, is_known)
    names = _Names(needles)
    for path, own, base in walk(root, extra_roots, system_paths):
        if path not in skipped:
            shown, named = (
                names(path, base, _shown(path, root)) if own else (_shown(path, root), _NONE)
            )
            verdict = search.patiently(path, own, is_open)
            found.add(shown, verdict, own, named, path)
            if own and (not found.whole or is_half_written(path.name)) and is_open(path):
                found.written.append(shown)
    for name, path in objects:
        shown, named = names.masked(name)
        found.add(shown, search(path, name), own=True, named=named, path=path)
    return ScanReport(
        found.files,
        found.size,
        len(needles.ids) + len(needles.windows),
        needles.unsearchable,
        found.shared,
        _sorted(found.residue),
        _sorted(found.outside),
        _sorted(found.undecodable),
        _sorted(found.written),
        frozenset(found.needles),
        needles.ids_unsearchable,
        found.rows,
        frozenset(found.digests),
        _sorted(found.found_again),
    )


@dataclass
class _Verdict:
    """What one file said. `whole`: it was decoded to its end. `files`: none for a link and an empty
    directory. `needles`: those that the residue in it is of; `rows`: whether rows of
    the erased are in it."""

    size: int = 0
    residue: bool = False
    shared: int = 0
    whole: bool = True
    files: int = 1
    needles: set[bytes] = field(default_factory=set)
    rows: bool = False


class _Found:
    """What all of them said, as it comes."""

    def __init__(self, known_residue: frozenset[str], digest_of: Callable[[str], str]) -> None:
        self._known_residue, self._digest_of = known_residue, digest_of
        self.digests: set[str] = set()
        self.found_again: list[str] = []
        self.files = self.size = self.shared = 0
        self.whole = True
        self.residue: list[str] = []
        self.outside: list[str] = []
        self.undecodable: list[str] = []
        self.written: list[str] = []
        self.needles: set[bytes] = set()
        self.rows = False

    def add(
        self,
        name: str,
        verdict: _Verdict,
        own: bool,
        named: frozenset[bytes],
        path: Path,
    ) -> None:
        """Count a verdict. `own`: of something that the system wrote. `named`: the needles that its
        name says."""
        self.files += verdict.files
        self.size += verdict.size
        self.shared += verdict.shared
        self.whole = verdict.whole
        if verdict.residue or named:
            (self.residue if own else self.outside).append(name)
            self.needles |= {*verdict.needles, *named} if own else set()
            self.rows |= verdict.rows and own
        if own and not verdict.whole:
            self.undecodable.append(name)
        if own and (verdict.residue or named or self._known_residue):
            self._know(name, path, verdict.residue, bool(named))

    def _know(
        self,
        name: str,
        path: Path,
        residue: bool,
        named: bool,
    ) -> None:
        """Keep what a file is known by in which something was found: by what it holds, by its name
        as well where that says it; and see whether an earlier search knew it."""
        content = _content_digest(path)
        by_content = self._digest_of(content)
        by_name = self._digest_of(f"{path.name} {content}")
        self.digests |= {by_content} if residue else set()
        self.digests |= {by_name} if named else set()
        if not self._known_residue.isdisjoint((by_content, by_name)):
            self.found_again.append(name)


def _content_digest(path: Path) -> str:
    """SHA-256 of what a file holds, of a link where it leads, hex; of what is no file of its
    name."""
    if path.is_symlink():
        return sha256_hex(os.fsencode(path.readlink()))
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return sha256_hex(path.name.encode("utf-8", "surrogateescape"))


class _Names:
    """Searches names as well: of files, directories, objects in buckets, and what links lead to.
    What is shown of one in which something is found is a number: it goes into errors and the
    ledger."""

    def __init__(self, needles: NeedleSet) -> None:
        self._needles = needles
        self._has_slash = any(b"/" in each for each in (*needles.ids, *needles.windows))
        self._quoted_by: dict[str, frozenset[bytes]] = {}
        self._numbers: dict[str, int] = {}

    def __call__(
        self,
        path: Path,
        base: Path,
        shown: str,
    ) -> tuple[str, frozenset[bytes]]:
        """What to show of a file below `base`, and what its name says of what was erased."""
        beyond = path.relative_to(base).parts if path.is_relative_to(base) else path.parts[-1:]
        names = [*beyond, *(["/".join(beyond)] if self._has_slash else [])]
        if path.is_symlink():
            with contextlib.suppress(OSError):
                leads = path.readlink()
                names += [*leads.parts, *([leads.as_posix()] if self._has_slash else [])]
        quoting = [name for name in names if self._says(name)]
        named = _NONE.union(*map(self._says, quoting))
        return (self.masked(shown)[0], named) if quoting else (shown, _NONE)

    def masked(
        self,
        name: str,
    ) -> tuple[str, frozenset[bytes]]:
        """A name, its parts in which something is found replaced by numbers, and what that is."""
        parts = name.split("/")
        quoting = [self._says(part) for part in parts]
        whole = name.encode("utf-8", "replace")
        if not any(quoting) and not self._needles.spelt_in(whole):
            return name, _NONE
        if not any(quoting):
            quoting = [frozenset(self._needles.which_spelt(whole))] * len(parts)
        return "/".join(
            f"(name {self._numbers.setdefault(part, len(self._numbers) + 1)})" if says else part
            for part, says in zip(parts, quoting, strict=True)
        ), _NONE.union(*quoting)

    def _says(self, part: str) -> frozenset[bytes]:
        """A directory is asked about once. Names that are digests are not decoded: they are ids
        only as they are."""
        if part not in self._quoted_by:
            name = part.encode("utf-8", "surrogateescape")
            look = self._needles.found_in if _HEX.fullmatch(part) else self._needles.spelt_in
            self._quoted_by[part] = (
                frozenset(self._needles.which_spelt(name)) if look(name) else _NONE
            )
        return self._quoted_by[part]


class _Searcher:
    """Searches file after file. Those that are stored twice, byte for byte (a data file, its copies
    in cache and remotes), are searched once."""

    def __init__(
        self,
        needles: NeedleSet,
        targets: list[Target],
        temporary: Path | None,
        unpack: Unpack | None,
        is_known: Callable[[str], bool],
    ) -> None:
        self._needles = needles
        self._is_known = is_known
        self._unpack = unpack
        self._temporary = temporary
        self._by_subject: dict[str, list[Target]] = {}
        for target in targets:
            self._by_subject.setdefault(target.subject, []).append(target)
        self._known: dict[tuple[bytes, str], _Verdict] = {}

    def __call__(self, path: Path, name: str) -> _Verdict:
        """Search a file that the system knows by `name`; of a link and an empty directory only
        where they lead."""
        if path.is_symlink():
            leads = (path.is_file() or path.is_dir()) and resolved(path) is not None
            return _Verdict(
                whole=leads and all(place.exists() for place in git_links(path)), files=0
            )
        if _is_empty(path):
            return _Verdict(files=0)
        try:
            with open_regular(path) as file:
                return self._once(file, path, name)
        except FileNotFoundError:
            return _Verdict()  # gone while we walked: a log was rotated
        except OSError:
            return _Verdict(whole=bool(_SOCKETS.search(name)) and path.is_socket())

    def patiently(
        self,
        path: Path,
        own: bool,
        is_open: Callable[[Path], bool],
    ) -> _Verdict:
        """Search a file; one of the system's own once more where a process has it open: what is
        being written is whole again soon."""
        verdict = self._as_of_one_time(path, own and is_sqlite(path) and is_open(path))
        for _ in range(_LOOKS if own else 0):
            if verdict.whole or not is_open(path):
                break
            time.sleep(_PAUSE_SECONDS)
            verdict = self._as_of_one_time(path, is_sqlite(path))
        return verdict

    def _as_of_one_time(self, path: Path, is_written: bool) -> _Verdict:
        """Search a file, of a database that a process writes a copy."""
        if not is_written:
            return self(path, path.as_posix())
        try:
            with held_still(path, self._temporary) as copy:
                return self(copy, path.as_posix())
        except Undecodable:
            return _Verdict(whole=False)
        except OSError:
            return self(path, path.as_posix())

    def _once(
        self,
        file: IO[bytes],
        path: Path,
        name: str,
    ) -> _Verdict:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        kind = _expected_kind(name, head) or kind_by_end(file)
        lines = kind is None and path.suffix == ".jsonl"
        named = None if _IN_GIT.search(name) else _DVC_OBJECT.search(name)
        if not named and not lines and (kind is None or size < _WHOLE_BYTES):
            return self._search(file, path, name, kind, lines)
        sha256, md5 = _digests(file)
        key = (
            sha256,
            f"{kind.name if kind else ''} {path.suffix} {path if kind and kind.beside else ''}",
        )
        if key not in self._known:
            self._known[key] = self._search(file, path, name, kind, lines)
        verdict = self._known[key]
        whole = (
            verdict.whole
            and (not named or named[1] + named[2] == md5)
            and _is_what_it_is_called(name, kind, file)
        )
        return replace(verdict, whole=whole)

    def _search(
        self,
        file: IO[bytes],
        path: Path,
        name: str,
        kind: Kind | None,
        lines: bool,
    ) -> _Verdict:
        verdict = _Verdict(
            file.seek(0, io.SEEK_END),
            whole=_is_what_it_is_called(name, kind, file)
            and all(place.exists() for place in git_links(path)),
        )
        if lines:
            file.seek(0)
            self._lines(file, verdict)
        else:
            self._guarded(lambda: self._decoded(file, path, kind, 0, verdict), verdict)
        return verdict

    @staticmethod
    def _guarded(work: Callable[[], None], verdict: _Verdict) -> None:
        try:
            work()
        except Undecodable:
            verdict.whole = False

    def _decoded(
        self,
        file: IO[bytes],
        path: Path | None,
        kind: Kind | None,
        depth: int,
        verdict: _Verdict,
    ) -> None:
        """Search a file as it is and as what it decodes to. Raises Undecodable."""
        rows, shared = False, verdict.shared
        if kind is not None:
            try:
                if depth == MAX_DEPTH:
                    raise Undecodable("packed too deep")
                for part in parts_of(kind, Source(file, path, self._temporary, self._unpack)):
                    if isinstance(part, Rows):
                        with decoding(kind.name):
                            rows = self._rows(part, verdict) or rows
                    elif isinstance(part, bytes):
                        self._found_in(part, self._needles.spelt_in, verdict)
                    elif isinstance(part, Uncut):
                        self._uncut(part, verdict)
                    else:
                        self._member(part, depth + 1, verdict, kind.theirs)
            except Undecodable as error:
                if kind.sure or not isinstance(error, Mistaken):
                    self._raw(file, verdict, packed=False)
                    raise
        if (
            not rows or verdict.shared == shared
        ):  # else what the bytes say may be what others' rows say
            self._raw(
                file,
                verdict,
                packed=rows or (kind is not None and kind.packed),
            )

    def _uncut(self, part: Uncut, verdict: _Verdict) -> None:
        """Search values that nothing keeps apart; cut, where they can be, once something is in
        them."""
        within = self._needles.within_words
        if not within.spelt_in(part.data):
            return
        if part.cut is not None:
            self._found_in(
                part.cut(),
                self._needles.spelt_in,
                verdict,
            )
        else:
            verdict.residue = True
            verdict.needles |= within.which_spelt(part.data)

    def _member(
        self,
        stream: Readable,
        depth: int,
        verdict: _Verdict,
        theirs: bool,
    ) -> None:
        """Search what came out of a file: by its own first bytes it may be another one. `theirs`:
        the operator put it there, so it may be broken; the file that it came out of may not."""
        head = _read_head(stream)
        kind = kind_of(head)
        if kind is None:
            self._stream(head, stream, verdict)
            return
        with spooled(head, stream, self._temporary) as file:
            try:
                self._decoded(file, None, kind, depth, verdict)
            except Undecodable:
                if not theirs:
                    raise

    def _raw(
        self,
        file: IO[bytes],
        verdict: _Verdict,
        packed: bool,
    ) -> None:
        """Search the bytes of a file. Those of a packed one spell nothing; they may still be what
        they are."""
        file.seek(0)
        self._stream(b"", file, verdict, packed)

    def _stream(
        self,
        head: bytes,
        stream: Readable,
        verdict: _Verdict,
        packed: bool = False,
    ) -> None:
        look = self._needles.found_in if packed else self._needles.spelt_in
        for chunk in _chunks(head, stream, self._needles.longest * _SPELT):
            self._found_in(chunk, look, verdict)

    def _found_in(
        self,
        data: bytes,
        look: Callable[[bytes], bool],
        verdict: _Verdict,
    ) -> None:
        """Whatever is found here is residue, and whose it is matters: `look` goes first, since
        mostly nothing is."""
        if look(data):
            verdict.residue = True
            verdict.needles |= self._needles.which_spelt(data)

    def _rows(self, rows: Rows, verdict: _Verdict) -> bool:
        """Whether the rows say whose they are, all of them."""
        subjects, joined = rows.digests("subject"), rows.joined()
        people = set(subjects)
        mine = not self._by_subject.keys().isdisjoint(people)
        named = bool(subjects) and rows.say_whose()
        # of anybody else it may be anything, however it is written
        known = named and all(map(self._is_known, people))
        digests = self._needles.digests
        if digests:
            keyed = people.union(rows.digests("record"), rows.digests("form"))
            among = {digests[each] for each in keyed & digests.keys()}
            verdict.residue = verdict.residue or bool(among)
            verdict.needles |= among
        if mine or (self._needles.found_in(joined) if known else self._needles.spelt_in(joined)):
            records = rows.distinguishing()
            for index, (subject, record) in enumerate(zip(subjects, records, strict=True)):
                self._row(
                    subject,
                    record,
                    rows.content(index),
                    verdict,
                )
        return named

    def _lines(self, file: IO[bytes], verdict: _Verdict) -> None:
        """JSON, one object a line, each with the digest of the subject whose it is. It is searched
        as a whole; line by line where something is found, or one names an erased subject; and once
        more without the lines of others, since a text may have line breaks of its own."""
        whole = _Verdict()
        self._raw(file, whole, packed=False)
        if not whole.residue and not self._names_erased(file):
            return
        with tempfile.TemporaryFile(dir=self._temporary) as rest:
            self._each_line(file, rest, verdict)
            self._raw(rest, verdict, packed=False)

    def _names_erased(self, file: IO[bytes]) -> bool:
        """Whether the digest of an erased subject may be in it, as a number of hexadecimal digits
        is written."""
        subjects = NeedleSet(
            (),
            tuple(s.encode() for s in self._by_subject),
            0,
        )
        file.seek(0)
        return any(map(subjects.found_in, _chunks(b"", file, subjects.longest)))

    def _each_line(
        self,
        file: IO[bytes],
        rest: IO[bytes],
        verdict: _Verdict,
    ) -> None:
        """Line by line; those in which nothing of others is found go to `rest`."""
        file.seek(0)
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            value = value if isinstance(value, dict) else {}
            shared = verdict.shared
            self._row(
                str(value.get("subject_digest", "")),
                str(value.get("record_digest", "")),
                line,
                verdict,
            )
            rest.write(line if verdict.shared == shared else b"\n")

    def _row(
        self,
        subject: str,
        record: str,
        content: bytes,
        verdict: _Verdict,
    ) -> None:
        """A row of an erased subject of which nobody can say which record it is, may be the erased
        one."""
        targets = self._by_subject.get(subject, ())
        if any(t.matches(subject, record) or not record for t in targets):
            verdict.residue = verdict.rows = True
        elif self._needles.spelt_in(content):
            named = (
                _DIGEST.fullmatch(subject) is not None
                and self._needles.digests.keys().isdisjoint((subject, record))
                and self._is_known(subject)
            )
            verdict.shared += named
            verdict.residue = verdict.residue or not named
            verdict.needles |= set() if named else self._needles.which_spelt(content)


def _is_empty(path: Path) -> bool:
    """Whether it is a directory with nothing in it that could be searched."""
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False


def _expected_kind(name: str, head: bytes) -> Kind | None:
    """What a file is by its first bytes; an object of git's own is known by its name."""
    return GIT_LOOSE if _GIT_OBJECT.search(name) else kind_of(head)


def _is_what_it_is_called(
    name: str,
    kind: Kind | None,
    file: IO[bytes],
) -> bool:
    """Whether a file that has a name of ours can be what the name says."""
    kind_name = kind.name if kind else ""
    if _GIT_PACK.search(name):
        return kind_name == "git pack"
    called = "" if _IN_GIT.search(name) else _called(name)
    if called == "SQLite log":
        return has_database(name) or not _has_bytes(file)
    if called:
        return kind_name == called or (called == "SQLite" and not _has_bytes(file))
    if is_half_written(name.rpartition("/")[2]) and kind is None:
        file.seek(0)
        return _is_text(file)
    return True


def _called(name: str) -> str:
    """The kind that a name says, "" where it says none."""
    return next((kind for ending, kind in _ENDINGS if ending.search(name)), "")


def _has_bytes(file: IO[bytes]) -> bool:
    """Whether anything but zeros is in it."""
    file.seek(0)
    return any(chunk.strip(b"\0") for chunk in iter(partial(file.read, CHUNK_BYTES), b""))


def _is_text(file: IO[bytes]) -> bool:
    """Whether it is UTF-8 without a NUL: a copy of a listing that was cut says what it says."""
    rest = b""
    while chunk := file.read(CHUNK_BYTES):
        data = rest + chunk
        try:
            data.decode()
            rest = b""
        except UnicodeDecodeError as error:
            if error.start < len(data) - 3:
                return False
            rest = data[error.start :]
        if b"\0" in data:
            return False
    return True


def _digests(file: IO[bytes]) -> tuple[bytes, str]:
    """SHA-256, and MD5 as DVC writes it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        sha256.update(chunk)
        md5.update(chunk)
    return sha256.digest(), md5.hexdigest()


def _read_head(stream: Readable) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    return head


def _chunks(
    head: bytes,
    stream: Readable,
    overlap: int,
) -> Iterator[bytes]:
    """What begins with `head` and goes on with `stream`, in overlapping chunks."""
    tail, fresh = b"", head + stream.read(CHUNK_BYTES)
    while fresh:
        chunk = tail + fresh
        yield chunk
        tail = chunk[-overlap:] if overlap else b""
        fresh = stream.read(CHUNK_BYTES)


def _shown(path: Path, root: Path) -> str:
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return "/".join(path.parts[-3:]) if _GIT_OBJECT.search(path.as_posix()) else path.name


def _sorted(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(map(printable, names)))
