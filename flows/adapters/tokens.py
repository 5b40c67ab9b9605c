"""Tokens of the HTTP door: who may ask there, and what. One file, `.s3t/tokens.json`, for its owner
alone.

A token is `s3t_ID_SECRET`: 48 random bits by which it is found, and 256 that nobody can guess, of
which the file has the SHA-256 alone (a slow hash is for what people choose: NIST SP 800-63B
5.1.1.2). It is shown once, when it is made, has an end, and can be taken back at any time: the file
is looked at with each request.
"""

import contextlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from flows.adapters.credentials import new_secret, read_private
from s3t_core.errors import StorageError, UsageError, WorkspaceError
from s3t_core.files import locked, write_atomically
from s3t_core.times import later, parse_time, rfc3339

Role = Literal["asks", "decides", "erases", "audits", "predicts"]
"""What a token is for: to take requests; to approve, reject, hold and extend; to be told who is in
the data, and to let a person return; to read evidence; to have texts answered."""
ROLES: tuple[Role, ...] = get_args(Role)
_PREFIX = b"s3t"
_WAIT_SECONDS = 10.0
_CLOCKS_DIFFER_MINUTES = 5
"""So much the clocks of machines may."""
_LONGEST = 200
"""Bytes of what is taken for a token at all."""


def _is_moment(text: str) -> str:
    if parse_time(text).tzinfo is None:
        raise ValueError("expected a time with its zone")
    return text


Moment = Annotated[str, AfterValidator(_is_moment)]


class Token(BaseModel):
    """One token. Times are RFC 3339; `revoked` is "" for one that was not taken back; `sha256` is
    of its secret, hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    roles: frozenset[Role]
    made: Moment
    expires: Moment
    revoked: Moment | Literal[""] = ""
    sha256: str

    def is_good(
        self,
        now: datetime,
    ) -> bool:
        """Whether it opens anything now: not before it was made, by a clock that ran ahead, either,
        for its time would be a longer one."""
        since = later(parse_time(self.made), minutes=-_CLOCKS_DIFFER_MINUTES)
        return not self.revoked and since <= now < parse_time(self.expires)


class _Kept(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[Token, ...] = ()


class TokenBook:
    """The tokens of one workspace, whoever else makes or revokes them meanwhile."""

    def __init__(
        self,
        path: Path,
    ) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._kept = _Kept()

    def make(
        self,
        name: str,
        roles: Iterable[Role],
        now: datetime,
        days: float,
    ) -> tuple[Token, str]:
        """A new token, and what its holder sends, which is nowhere kept."""
        secret = new_secret()
        token = Token(
            id=secrets.token_hex(6),
            name=name,
            roles=frozenset(roles),
            made=rfc3339(now),
            expires=rfc3339(later(now, days=days)),
            sha256=sha256(secret.encode()).hexdigest(),
        )
        with self._changing() as kept:
            self._write(_Kept(tokens=(*kept.tokens, token)))
        return token, f"{_PREFIX.decode()}_{token.id}_{secret}"

    def revoke(
        self,
        token_id: str,
        now: datetime,
    ) -> Token:
        """Take one back, for good; one that was, stays as it is. Raises UsageError for an id that
        is none's."""
        with self._changing() as kept:
            found = next((t for t in kept.tokens if t.id == token_id), None)
            if found is None:
                raise UsageError(
                    "expected the id of a token (`s3t token list` shows them), got another; "
                    "nothing was changed"
                )
            gone = found if found.revoked else found.model_copy(update={"revoked": rfc3339(now)})
            self._write(_Kept(tokens=tuple(gone if t is found else t for t in kept.tokens)))
        return gone

    def all(self) -> tuple[Token, ...]:
        """Every token there ever was, oldest first. Raises WorkspaceError."""
        return self._read().tokens

    def holder(
        self,
        sent: bytes,
        now: datetime,
    ) -> Token | None:
        """The token that these bytes are, where it is good now. Raises WorkspaceError where nobody
        can say."""
        parts = sent.split(b"_", 2)
        if len(sent) > _LONGEST or len(parts) != 3 or parts[0] != _PREFIX:
            return None
        digest = sha256(parts[2]).hexdigest()
        for token in self._read().tokens:
            # the id is no secret; the digest is compared in a time that tells nothing of it
            if token.id.encode() == parts[1] and hmac.compare_digest(token.sha256, digest):
                return token if token.is_good(now) else None
        return None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_Kept]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._path.with_suffix(".lock"), _WAIT_SECONDS):
                yield self._read()
        except TimeoutError:
            raise StorageError(
                "expected to be the only one who changes tokens, got another process that does; "
                "run the command again"
            ) from None

    def _write(
        self,
        kept: _Kept,
    ) -> None:
        write_atomically(self._path, kept.model_dump_json(indent=1).encode() + b"\n")

    def _read(self) -> _Kept:
        try:
            info = self._path.stat()
        except FileNotFoundError:
            return _Kept()
        except OSError as error:
            raise _unreadable(self._path, type(error).__name__) from None
        seen = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)
        if seen != self._seen:
            try:
                self._kept = _Kept.model_validate_json(read_private(self._path))
            except OSError as error:
                raise _unreadable(self._path, type(error).__name__) from None
            except ValidationError as error:
                raise _unreadable(self._path, f"{error.error_count()} wrong value(s)") from None
            self._seen = seen
        return self._kept


def _unreadable(
    path: Path,
    got: str,
) -> WorkspaceError:
    return WorkspaceError(
        f"expected {path.name} to hold this workspace's tokens, got {got}; restore it from its "
        f"backup, or remove it and make new ones with `s3t token make`"
    )
