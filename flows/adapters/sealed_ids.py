"""Ids as given, on their way from a host apart that takes requests to who erases: rows of a table,
each sealed (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) to a key that the host does not have.

A row is written in the transaction that accepts its request, and goes when it was opened, or its
request ended. HPKE makes a key for each row, which nobody keeps. What names the request is bound
into the seal: a row cannot be passed off as another request's.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from sqlalchemy import Connection, delete, func, insert, select

from flows.adapters.credentials import read_private
from flows.adapters.database import Database
from flows.adapters.needle_files import digest_of_id
from flows.adapters.tables import CHUNK, SEALED_IDS, check_types, check_written
from s3t_core.canonical import canonical_json, is_encodable
from s3t_core.errors import S3TError, WorkspaceError
from s3t_core.files import remove_file, write_atomically

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO = "s3t ids as given of %s"
_PREFIX, _SUFFIX = "unseal-", ".key"
_HOST = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 2**20
"""Of a row: more than any ids of one request have."""
_TOGETHER = 500
_MOST_ROWS = 8
"""That ids which the ledger knows are sealed beside: whoever asks again seals them again."""


def new_unsealing_key(
    folder: Path,
    host: str,
) -> X25519PublicKey:
    """Make the key that opens what one host seals, and keep it (0600). `host`: the id of that
    host's own key."""
    private = X25519PrivateKey.generate()
    raw = private.private_bytes_raw().hex().encode()
    write_atomically(
        _place(folder, host),
        raw + b"\n",
        0o600,
    )
    return private.public_key()


def forget_unsealing_key(
    folder: Path,
    host: str,
) -> None:
    """Destroy it: what is still sealed to it, in a write-ahead log or a backup, nobody opens."""
    remove_file(_place(folder, host))


def _unsealing_key(
    folder: Path,
    host: str,
) -> X25519PrivateKey:
    try:
        return X25519PrivateKey.from_private_bytes(
            bytes.fromhex(read_private(_place(folder, host)).decode())
        )
    except (OSError, ValueError, S3TError):
        raise WorkspaceError(
            f"expected .s3t/keys/{_place(folder, host).name}, which opens the ids that an intake "
            "host sealed, for its owner alone, got none or another file; restore .s3t/keys from "
            "its backup, or chmod 600 it: without it nobody can say whom to look for"
        ) from None


def _place(
    folder: Path,
    host: str,
) -> Path:
    return folder / f"{_PREFIX}{host}{_SUFFIX}"


def _seal(
    public: X25519PublicKey,
    request_id: str,
    ids: Iterable[str],
) -> bytes:
    return _SUITE.encrypt(canonical_json(list(ids)), public, info=(_INFO % request_id).encode())


def _opened(
    private: X25519PrivateKey,
    request_id: str,
    sealed: bytes,
) -> list[str]:
    """The ids in a row; none where it was sealed to another, changed, or is another request's."""
    try:
        found = json.loads(_SUITE.decrypt(sealed, private, info=(_INFO % request_id).encode()))
    except (InvalidTag, ValueError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    return [i for i in found if isinstance(i, str) and is_encodable(i)]


class SealingIds:
    """Where a host apart keeps ids as given: in memory until their request is accepted, then as a
    sealed row, in the same transaction. It cannot read them again."""

    def __init__(
        self,
        public: X25519PublicKey,
        host: str,
        key: bytes,
    ) -> None:
        """`public`: of who erases; `host`: the id of this host's own key; `key` of digests."""
        self._public, self._host, self._key = public, host, key
        self._waiting: dict[str, list[str]] = {}

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Nothing of it lies anywhere before the requests do: there is nothing to hold."""
        try:
            yield
        finally:
            self._waiting.clear()

    def keep_ids(
        self,
        ids: Mapping[str, list[str]],
    ) -> None:
        """Have them ready, by request, for when it is accepted."""
        for request_id, some in ids.items():
            self._waiting.setdefault(request_id, []).extend(some)

    def destroy(
        self,
        plan_id: str,
        request_ids: Iterable[str],
    ) -> None:
        """Forget those of requests that were not accepted."""
        del plan_id
        for request_id in request_ids:
            self._waiting.pop(request_id, None)

    def ids_of(
        self,
        request_id: str,
    ) -> list[str]:
        """[]: nobody here can open what was sealed."""
        del request_id
        return []

    def digest_of(
        self,
        request_id: str,
        given: str,
    ) -> str:
        """See NeedleFiles."""
        return digest_of_id(self._key, request_id, given)

    def write(
        self,
        connection: Connection,
        request_ids: Iterable[str],
        again: bool = False,
    ) -> None:
        """Write those of requests that are being accepted. `again`: the ledger was told of them
        before, so that they were written before; they are once more, where few lie there."""
        rows = [
            {
                "id": secrets.token_hex(16),
                "request": request_id,
                "host": self._host,
                "sealed": _seal(self._public, request_id, dict.fromkeys(ids)),
            }
            for request_id in request_ids
            if (ids := self._waiting.pop(request_id, []))
            and not (again and _has_many(connection, request_id))
        ]
        if rows:
            connection.execute(insert(SEALED_IDS), rows)
        check_written(connection, SEALED_IDS, rows)


def _has_many(
    connection: Connection,
    request_id: str,
) -> bool:
    mine = SEALED_IDS.c.request == request_id
    asked = select(func.count()).select_from(SEALED_IDS).where(mine)
    there = connection.execute(asked).scalar() or 0
    return int(there) >= _MOST_ROWS


@dataclass(frozen=True)
class _Sealed:
    id: str
    request: str
    host: str
    sealed: bytes


class KeepsIds(Protocol):
    """Where ids as given are kept on the machine that erases."""

    def accepting(self) -> AbstractContextManager[None]:
        """Held while ids come."""

    def keep_ids(
        self,
        ids: Mapping[str, list[str]],
    ) -> None:
        """Keep them, durably, by request."""

    def digest_of(
        self,
        request_id: str,
        given: str,
    ) -> str:
        """By what the ledger knows one."""


@dataclass(frozen=True)
class Told:
    """What the ledger says of sealed ids: digests of the ids as given, by open request; the ids of
    the keys of hosts that take requests."""

    digests: Mapping[str, Collection[str]]
    hosts: Collection[str]


class SealedIds:
    """The rows, for who erases."""

    def __init__(
        self,
        database: Database,
        keys_dir: Path,
    ) -> None:
        self._database, self._keys_dir = database, keys_dir

    def take(
        self,
        kept: KeepsIds,
        told: Callable[[], Told],
    ) -> int:
        """Open every row into `kept`, then remove all of them; how many requests got ids. What the
        ledger was not told of, is no open request's, is too large, or is sealed to a key that no
        host is known by, goes: whoever may write to the table can write that. Raises
        WorkspaceError where the key of a host that takes requests is lost, before anything more is
        removed."""
        found = set[str]()
        while rows := self._rows():
            with kept.accepting():
                now = told()
                ids = self._opened(rows, kept, now)
                kept.keep_ids(ids)
                self._remove([row.id for row in rows])
            found |= ids.keys()
        self._remove_odd()
        return len(found)

    def _opened(
        self,
        rows: list[_Sealed],
        kept: KeepsIds,
        now: Told,
    ) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for row in rows:
            known = now.digests.get(row.request, ())
            key = self._key_of(row.host, now) if known else None
            for given in _opened(key, row.request, row.sealed) if key else ():
                if kept.digest_of(row.request, given) in known:
                    ids.setdefault(row.request, []).append(given)
        return ids

    def _key_of(
        self,
        host: str,
        now: Told,
    ) -> X25519PrivateKey | None:
        """The key that opens a host's rows; None for one that is not known, or was removed."""
        if not _HOST.fullmatch(host):
            return None
        if host not in now.hosts and not _place(self._keys_dir, host).exists():
            return None
        return _unsealing_key(self._keys_dir, host)

    def _rows(self) -> list[_Sealed]:
        """Some of them, none larger than ids can be."""
        asked = select(SEALED_IDS).where(func.length(SEALED_IDS.c.sealed) <= _MOST_BYTES)
        with self._database.reading() as connection:
            found = list(connection.execute(asked.limit(_TOGETHER)))
        for row in found:
            check_types(row, SEALED_IDS)
        return [_Sealed(row.id, row.request, row.host, row.sealed) for row in found]

    def _remove(
        self,
        names: list[str],
    ) -> None:
        for begin in range(0, len(names), CHUNK):
            some = names[begin : begin + CHUNK]
            with self._database.transaction() as connection:
                connection.execute(delete(SEALED_IDS).where(SEALED_IDS.c.id.in_(some)))

    def _remove_odd(self) -> None:
        too_large = func.length(SEALED_IDS.c.sealed) > _MOST_BYTES
        asked = select(SEALED_IDS.c.id).where(too_large).limit(1)
        with self._database.reading() as connection:
            found = connection.execute(asked).first()
        if found is not None:
            with self._database.transaction() as connection:
                connection.execute(delete(SEALED_IDS).where(too_large))
