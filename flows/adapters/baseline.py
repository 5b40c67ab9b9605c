"""What the system writes whoever is in the data: what of it is a person's id, or text, nobody can
say, and no search for it would tell anything. Whoever may ask could otherwise stop every erasure
for ever, by an id that stands in the ledger: evidence is append-only.

| what | from |
|---|---|
| every event, and what was made up for it: ids of requests and plans, commitments, digests | the ledger |
| certificates, closing documents, reports, the checkpoint | the files that are signed by a key of the workspace |
| their names and sentences before the first of them is written, tags and parameters of runs | the code's constants |
| settings, the model's code, labels, paths of the data | the workspace |
| what MLflow puts into every version: requirements, versions, times | files of versions whose digest the ledger has |
| what DVC, git, MLflow and Prefect write of their own | schemas of databases, a new repository, a list (foreign.py) |

Free text is the one thing there that a person wrote. Where it quotes somebody whose rows are being
erased, that entry, or document, is left out: it is residue.
"""  # noqa: E501

import ast
import base64
import contextlib
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import flows
import s3t_core
from flows.adapters import foreign
from flows.adapters.database import SqlLedger
from flows.adapters.git import run_git
from flows.adapters.scan_scope import ScanScope
from s3t_core.canonical import sha256_hex
from s3t_core.erasure.dsse import verify
from s3t_core.erasure.needles import NeedleSet
from s3t_core.errors import CertificateError, StorageError
from s3t_core.files import read_regular

if TYPE_CHECKING:
    from flows.adapters.registry import MlflowRegistry

_UNWRITTEN = frozenset({"api", "cli", "examples"})
"""Rooms and modules that talk to people and write nothing; examples may name somebody."""
_MD5 = re.compile(rb"(?<![0-9a-f])([0-9a-f]{2})([0-9a-f]{10})([0-9a-f]{20})(?![0-9a-f])")
_FREE = frozenset({"by", "reason", "detail", "approver", "problem", "called"})
"""Members whose values somebody typed in words of their own. Paths and settings are none: what they
name is there whoever is erased, so an id in one cannot be searched for, and the certificate says
so."""
TYPED_SETTINGS = frozenset({"query", "name"})
"""Settings in words of an operator's own, by which rows are chosen, or the system is called."""
_PART = 2**20
_DATABASES = ("s3t.db", "mlflow.db", "prefect/prefect.db")


@dataclass(frozen=True)
class Baseline:
    """Read anew by each scan, in parts: evidence of many requests need not fit into memory.
    `fixed`: what is known beforehand; `settings`: as text; `documents`: files and folders of signed
    ones, `publics` the keys that the ledger knows, the one that signs now first; `databases`: where
    they lie, and `ledger_files` where the ledger does; `root`: of the repository; `scope`: knows
    people whose rows are being erased; `registry`: has the files of the versions that the ledger
    recorded."""

    fixed: tuple[bytes, ...]
    settings: bytes
    ledger: SqlLedger
    documents: tuple[Path, ...]
    publics: tuple[Ed25519PublicKey, ...]
    databases: Path
    ledger_files: tuple[Path, ...]
    root: Path
    scope: ScanScope
    registry: "MlflowRegistry"

    def __iter__(self) -> Iterator[bytes]:
        """Returns bytes to be read as a scan reads them."""
        erased = self.scope.erased()
        yield from (*self.fixed, constants(), foreign.NAMES.encode(), *_of_git(self.root))
        yield from _joined(self._settings(erased))
        yield from _joined(_schemas(self.databases, self.ledger_files, erased))
        yield from _joined(
            e + _as_objects(e) for e in self.ledger.entries() if not _quotes(json.loads(e), erased)
        )
        yield from _joined(self._signed(erased))
        there = [v for v in self.ledger.state().versions if not v.destroyed]
        yield from _joined(self.registry.recorded_files(there))

    def _settings(self, erased: NeedleSet) -> Iterator[bytes]:
        """The settings, a line each, without those that quote the id of somebody who is being
        erased; of what somebody types in words of their own, without those that quote a text as
        well. A text that is a label, or the name of a model, is in them whoever is erased."""
        ids = NeedleSet(erased.ids, (), 0, rule=erased.rule)
        for line in self.settings.splitlines():
            name = line.partition(b"=")[0].strip().decode(errors="replace")
            if not (erased if name in TYPED_SETTINGS else ids).spelt_in(line):
                yield line

    def _signed(self, erased: NeedleSet) -> Iterator[bytes]:
        """Envelopes and what is signed in them: closing documents as the ledger recorded them, and
        what the key that signs now signed. What an older key signed and no entry tells of may be
        anybody's by now; a file that nobody of ours signed says nothing of what we write."""
        recorded = set(self.ledger.state().documents.values())
        for path in (
            p
            for place in self.documents
            for p in ([place] if place.is_file() else place.rglob("*.json"))
        ):
            with contextlib.suppress(OSError, CertificateError):
                envelope = read_regular(path)
                is_recorded = sha256_hex(envelope) in recorded
                statement = verify(envelope, *(self.publics if is_recorded else self.publics[:1]))
                signed = base64.b64decode(json.loads(envelope)["payload"])
                if not (_quotes(statement, erased) if is_recorded else erased.spelt_in(signed)):
                    yield b"\n".join((path.name.encode(), envelope, signed))


@cache
def constants() -> bytes:
    """Every text in our code, docstrings apart, and the names of members: what evidence is made
    of."""
    files = [
        path
        for package in (flows, s3t_core)
        for path in sorted(Path(package.__path__[0]).rglob("*.py"))
        if _UNWRITTEN.isdisjoint((path.stem, path.parent.name))
    ]
    return "\n".join(
        dict.fromkeys(text for path in files for text in _texts(ast.parse(path.read_bytes())))
    ).encode(errors="replace")


def _texts(tree: ast.AST) -> Iterator[str]:
    """Of a module, in one pass: each erasure takes it over the whole code."""
    nodes: list[object] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value
        elif isinstance(node, ast.AST):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id
            elif isinstance(node, ast.keyword) and node.arg:
                yield node.arg
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            nodes += () if is_docstring else vars(node).values()


def _schemas(folder: Path, others: Iterable[Path], erased: NeedleSet) -> Iterator[bytes]:
    """How the system's own databases, in a folder and elsewhere, call their tables and columns, and
    the sentences that make them, where they quote nobody who is being erased. A database that
    cannot be read says nothing here, nor does a table that no program would call so."""
    places = [folder / name for name in _DATABASES]
    for path in [*places, *sorted((folder / "dvc-site").rglob("*.db")), *others]:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
            ) as connection,
        ):
            rows = connection.execute(
                "SELECT type || name || tbl_name || char(10) || name || char(10) || "
                "coalesce(sql, '') FROM sqlite_master WHERE tbl_name NOT GLOB '*[^A-Za-z0-9_]*'"
            )
            yield from (row for (text,) in rows if not erased.spelt_in(row := text.encode()))


def _as_objects(entry: bytes) -> bytes:
    """Digests of data objects as DVC spells them in paths, and as messages of commits do."""
    return b"".join(
        b"\nfiles/md5/%s/%s%s\nfiles/md5/%s/%s%s.dir\n%s%s" % (*(m * 2), m[0], m[1])
        for m in _MD5.findall(entry)
    )


def _of_git(root: Path) -> Iterator[bytes]:
    """What git puts into every repository, and what the system's own commits are called. Without
    git, nothing."""
    with contextlib.suppress(OSError, StorageError), tempfile.TemporaryDirectory() as folder:
        run_git("init", "-q", folder, configured=False)
        yield from (
            p.name.encode() + b"\n" + p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()
        )
        log = ["log", "--all", "--format=%H%n%T%n%at", "--", "data.dvc", "s3t.toml"]
        names = run_git("-C", str(root), *log).stdout.encode()
        yield names + b"\n" + re.sub(rb"(?m)^([0-9a-f]{2})([0-9a-f]{38,})$", rb"\1/\2", names)


def _quotes(value: object, erased: NeedleSet) -> bool:
    """Whether free text within quotes somebody who is being erased."""
    return any(erased.spelt_in(text.encode()) for text in _free_text(value))


def _free_text(value: object) -> Iterator[str]:
    members = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, member in members:
        if isinstance(member, str) and name in _FREE:
            yield member
        else:
            yield from _free_text(member)


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Parts of a mebibyte and more: there are many small ones."""
    some: list[bytes] = []
    size = 0
    for part in parts:
        some.append(part)
        size += len(part)
        if size >= _PART:
            yield b"\n".join(some)
            some, size = [], 0
    yield b"\n".join(some)
