"""Who asks: the token that came, and whether its roles open the address."""

import hmac
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from flows.adapters.tokens import Role, Token, TokenBook
from flows.api.desk import STILL_MAY
from flows.api.limits import Rate
from flows.api.problems import Refused
from s3t_core.ports import Clock
from s3t_core.times import rfc3339

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token that `s3t token make` showed."
)
_Sent = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


class Callers:
    """The tokens of a door, and how often each may ask."""

    def __init__(self, book: TokenBook, clock: Clock, per_minute: int, own: str = "") -> None:
        """`own`: the secret of the operator's commands on this machine, which ask the model
        (flows.adapters.own_door); "" where there are none."""
        self._book, self._clock, self._rate = book, clock, Rate(per_minute)
        self._own, self._own_token = own.encode(), _token_of_commands(clock)

    def knows(self, sent: bytes) -> bool:
        """Whether these bytes are a token that opens anything now."""
        return self._holder(sent) is not None

    def _holder(self, sent: bytes) -> Token | None:
        if self._own and hmac.compare_digest(sent, self._own):
            return self._own_token
        return self._book.holder(sent, self._clock.now())

    def caller(self, sent: str, roles: frozenset[Role]) -> Token:
        """Whose token it is. Raises Refused where it opens nothing (401), not this (403), or asks
        too often (429)."""
        token = self._holder(sent.encode())
        if token is None:
            raise Refused(
                401,
                "NoToken",
                "expected a token that is good, got none. Send `Authorization: Bearer TOKEN`; "
                "`s3t token make` makes one",
                {"www-authenticate": 'Bearer realm="s3t"'},
            )
        self._rate.take(token.id)
        if roles and roles.isdisjoint(token.roles):
            raise Refused(
                403,
                "OtherRole",
                f"expected a token for {' or '.join(sorted(roles))}, got one for "
                f"{', '.join(sorted(token.roles))}. Ask with another, or have one made",
            )
        return token

    def check(self, token: Token) -> None:
        """That a token which was good still is, and as it was. Raises Refused."""
        if token is self._own_token:
            return  # for as long as this door is open
        if token not in self._book.all() or not token.is_good(self._clock.now()):
            raise Refused(
                401,
                "NoToken",
                "expected a token that is good until all is answered, got one that was revoked or "
                "ended meanwhile. Ask with another",
            )


def _token_of_commands(clock: Clock) -> Token:
    """What a command of the operator's is taken for. It is in no book, and what it sends is
    compared beside the book's."""
    now = rfc3339(clock.now())
    return Token(
        id="own",
        name="a command on this machine",
        roles=frozenset({"predicts"}),
        made=now,
        expires=now,
        sha256="",
    )


def whoever(*roles: Role, learns: bool = False) -> Callable[..., Awaitable[Token]]:
    """A dependency that gives the token of who asks, where it has one of these roles; any, where
    none is named. `learns`: at this address one learns what erasures came to."""

    async def found(request: Request, sent: _Sent) -> Token:
        callers: Callers = request.app.state.callers
        token = callers.caller(sent.credentials if sent else "", frozenset(roles))
        if learns and not learns_outcomes(token):
            raise Refused(
                403,
                "OtherRole",
                "expected a token that may erase, or none that may ask, got one that asks: what "
                "erasures came to says who was in the data. Ask with another",
            )
        STILL_MAY.set(partial(callers.check, token))
        return token

    return found


may_predict = whoever("predicts", learns=True)


async def still_good(
    request: Request, token: Annotated[Token, Depends(may_predict)]
) -> Callable[[], None]:
    """A dependency that gives what to ask before anything is given out of an answer that takes its
    time: it raises Refused once the token, one that predicts, is good no more."""
    callers: Callers = request.app.state.callers
    return partial(callers.check, token)


Readers = Annotated[Callable[[], None], Depends(still_good)]
"""Whoever is answered, for as long as the token is good."""


def learns_outcomes(token: Token) -> bool:
    """Whether its holder is told what an erasure came to: who may ask and not erase would learn by
    it who was in the data."""
    return may_know_who(token) or "asks" not in token.roles


def may_know_who(token: Token) -> bool:
    """Whether its holder is told who is in the data: who may erase them."""
    return "erases" in token.roles
