"""Tokens of the HTTP door: made, listed, taken back. A token's name stands in the ledger wherever
its holder decides, so it quotes nobody who is known."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, cast

from flows.adapters.tokens import ROLES, Role, Token, TokenBook
from flows.use_cases.documents import TokenEntry, TokenMade
from flows.use_cases.finding import Findable
from flows.use_cases.quoting import is_plain, name_to_keep
from flows.workspace.intake import IntakeHost
from flows.workspace.layout import TOKENS
from flows.workspace.parts import HasClock, HasFolders
from s3t_core.errors import UsageError

MOST_DAYS = 3660
_LONGEST_NAME = 100
_ROLES_APART: tuple[Role, ...] = ("asks",)
"""What a token is for at the door of a host apart."""


class HasTokens(Findable, HasFolders, HasClock, Protocol):
    """Where tokens are, and whose names they may not bear."""


class HasState(Protocol):
    """What has a directory for its state."""

    @property
    def state_dir(self) -> Path:
        """`.s3t`."""


def book_of(workspace: HasState) -> TokenBook:
    """The tokens of a workspace."""
    return TokenBook(workspace.state_dir / TOKENS)


def make_token(
    workspace: HasTokens | IntakeHost,
    name: str,
    roles: Collection[str],
    days: float,
) -> TokenMade:
    """A new token, and what its holder sends: nobody can be told that again. `name`: whose it is, a
    role such as "privacy desk". Raises UsageError for an unknown role, no role, a name that quotes
    somebody, or no time."""
    allowed = _ROLES_APART if isinstance(workspace, IntakeHost) else ROLES
    unknown = [r for r in roles if r not in allowed]
    if unknown or not roles:
        raise UsageError(
            f"expected one or more roles, of {', '.join(allowed)}, got "
            f"{'none' if not roles else 'another'}; see docs/http.md for what each may do"
        )
    if not 0 < days <= MOST_DAYS:
        raise UsageError(f"expected a time of up to {MOST_DAYS} days, got {days:g}")
    if isinstance(workspace, IntakeHost):  # which knows nobody whom a name could quote
        clean = " ".join(name.split())
    else:
        clean = name_to_keep(workspace, name)
    if not is_plain(clean) or not 0 < len(clean) <= _LONGEST_NAME:
        raise UsageError(
            "expected a name in words of letters alone, such as 'privacy desk', got another: it "
            "stands in the ledger where its holder decides, and no other is taken from who may not "
            "erase"
        )
    token, secret = book_of(workspace).make(
        clean, cast("Collection[Role]", roles), workspace.clock.now(), days
    )
    return {**token_entry(token, workspace), "token": secret}


def list_tokens(workspace: HasTokens | IntakeHost) -> list[TokenEntry]:
    """Every token there ever was, oldest first, without what its holder sends."""
    return [token_entry(token, workspace) for token in book_of(workspace).all()]


def revoke_token(
    workspace: HasTokens | IntakeHost,
    token_id: str,
) -> TokenEntry:
    """Take a token back: from now on it opens nothing. Raises UsageError for an id that is
    none's."""
    return token_entry(book_of(workspace).revoke(token_id, workspace.clock.now()), workspace)


def token_entry(
    token: Token,
    workspace: HasClock,
) -> TokenEntry:
    """A token as JSON values."""
    return {
        "id": token.id,
        "name": token.name,
        "roles": sorted(token.roles),
        "made": token.made,
        "expires": token.expires,
        "revoked": token.revoked or None,
        "good": token.is_good(workspace.clock.now()),
    }
