"""What stands in front of every port that a command of ours opens: an ASGI application around
another one.

A port on the loopback address is open to every user of the machine and, through the operator's
browser, to every page that the operator visits. So each request is asked, in this order:

1. is it HTTP or a websocket, with a plain path? A server's own start and stop pass; anything else
   is refused
2. does its one `Host` header name this server? Else a page may have pointed a name of its own at
   the loopback address (DNS rebinding): 421
3. if it names an `Origin`, is that this server itself? If a browser says where it comes from
   (`Sec-Fetch-Site`), is it from here? Else it is another page's request, a preflight among them:
   403
4. does it carry the credential? Only the paths that say "I am well" answer without: 401

Prefect's client sends the credential on some websockets as a header and on others only in the first
message, as its server's protocol asks. So a websocket without the header is watched: nothing but
that message passes in, and nothing at all passes out, until the credential has come. A route that
forgot to ask for it is closed all the same.

Sources: RFC 9110 (Host, 421 and 401), RFC 6455 section 10.2 (origins of websockets), Fetch Metadata
(Sec-Fetch-Site).
"""

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIRST_MESSAGE_SECONDS = 10.0
_POLICY_VIOLATION = 1008
_FROM_HERE = frozenset({b"same-origin", b"none"})
_DETAILS = {
    400: "expected a plain request; see docs/operations.md, Ports",
    401: "expected the credential of this server; see docs/operations.md, Ports",
    403: "expected a request that comes from no other web page; see docs/operations.md, Ports",
    421: "expected this server's own name as Host; see docs/operations.md, Ports",
}


@dataclass(frozen=True)
class Rules:
    """Whom a server answers.

    `hosts`: what a Host header may say, lower case, with the port where the address has one.
    `scheme`: "basic" or "bearer". `secret`: for basic "USER:PASSWORD". `open_paths`: exact paths
    that GET and HEAD reach without it. `schemes`: what this server's own address may begin with in
    an Origin. `realm`: how a browser that comes without the credential is asked for it; "" where no
    pages are served. It then keeps it and sends it along for other pages too, whose requests are
    refused by where they come from. `knows`: where there are many credentials, instead of the one
    `secret`, whether these bytes are one of them.
    """

    hosts: frozenset[str]
    scheme: str
    secret: str
    open_paths: frozenset[str] = frozenset()
    schemes: tuple[str, ...] = ("http",)
    realm: str = ""
    knows: Callable[[bytes], bool] | None = None

    def __post_init__(self) -> None:
        has_credential = bool(self.secret) != (self.knows is not None)
        if not has_credential or not self.hosts or self.scheme not in ("basic", "bearer"):
            raise ValueError(
                "expected a credential, its scheme and at least one host name, got less"
            )

    def refusal(self, scope: Scope) -> int | None:
        """The HTTP status that a request is refused with before its credential is looked at; None:
        go on."""
        hosts = _values(scope, b"host")
        if not _is_plain(scope):
            return 400
        if len(hosts) != 1 or _lower(hosts[0]) not in self.hosts:
            return 421
        own = {f"{scheme}://{_lower(hosts[0])}" for scheme in self.schemes}
        if any(_lower(origin) not in own for origin in _values(scope, b"origin")):
            return 403
        if not _FROM_HERE.issuperset(_values(scope, b"sec-fetch-site")):
            return 403
        return None

    def is_open(self, scope: Scope) -> bool:
        """Whether this is a question after the server's health, which anybody may ask."""
        return (
            scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
            and scope["path"] in self.open_paths
            and not scope.get("root_path")
        )

    def is_authorised(self, scope: Scope) -> bool:
        """Whether the one Authorization header is the credential."""
        given = _values(scope, b"authorization")
        if len(given) != 1:
            return False
        scheme, _, value = given[0].partition(b" ")
        if scheme.lower() != self.scheme.encode():
            return False
        return self.is_secret(_from_basic(value) if self.scheme == "basic" else value.strip())

    def is_secret(self, given: bytes) -> bool:
        """Whether these bytes are the secret, in a time that does not tell how much of it was
        right."""
        if self.knows is not None:
            return self.knows(given)
        return hmac.compare_digest(given, self.secret.encode())


class Guard:
    """The application `app` for those whom `rules` let through."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, websocket, or the server's own start and stop."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._talk(scope, receive, send)
        else:
            raise ValueError("expected http, websocket or lifespan, got another kind of connection")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = self._rules.refusal(scope)
        if status is None and not (self._rules.is_open(scope) or self._rules.is_authorised(scope)):
            status = 401
        if status is not None:
            await _refuse(status, send, self._rules.scheme, self._rules.realm)
        elif scope["method"] == "HEAD" and self._rules.is_open(scope):
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, send)

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        rules = self._rules
        if rules.refusal(scope) is None and rules.is_authorised(scope):
            await self._app(scope, receive, send)
        elif (
            rules.refusal(scope) is None
            and rules.scheme == "basic"
            and not _values(scope, b"authorization")
        ):
            watched = _Watched(rules, receive, send)
            await self._app(scope, watched.receive, watched.send)
        else:
            await (
                receive()
            )  # the handshake; refused before it is accepted, so the client sees HTTP 403
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


class _Watched:
    """A websocket whose credential must come in its first message, as `{"type": "auth", "token":
    ...}`."""

    def __init__(self, rules: Rules, receive: Receive, send: Send) -> None:
        self._rules = rules
        self._receive = receive
        self._send = send
        self._passed = False
        self._closed = False

    async def receive(self) -> Message:
        """What came, once the credential is right; else the end of the conversation."""
        if self._closed:
            return _gone()
        if self._passed:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), _FIRST_MESSAGE_SECONDS)
        except TimeoutError:
            return await self._end()
        if message["type"] != "websocket.receive":
            return message
        if not self._rules.is_secret(_token(message)):
            return await self._end()
        self._passed = True
        return message

    async def send(self, message: Message) -> None:
        """Let the handshake and the end out at any time, everything else once the credential is
        right."""
        if self._closed:
            return
        if message["type"] == "websocket.close":
            self._closed = True
        elif not self._passed and message["type"] != "websocket.accept":
            await self._end()
            return
        await self._send(message)

    async def _end(self) -> Message:
        self._closed = True
        await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return _gone()


def _gone() -> Message:
    return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}


def _token(message: Message) -> bytes:
    """The token of a first message, b"" where it is none."""
    try:
        said = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        return b""
    if (
        not isinstance(said, dict)
        or said.get("type") != "auth"
        or not isinstance(said.get("token"), str)
    ):
        return b""
    return str(said["token"]).encode(errors="surrogatepass")


def _from_basic(value: bytes) -> bytes:
    """What a Basic header encodes, b"" where it is no base64."""
    try:
        return base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        return b""


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _lower(value: bytes) -> str:
    return value.decode("latin-1").lower()


def _is_plain(scope: Scope) -> bool:
    """Whether the path says one thing only: it is absolute, and nobody can read another one into
    it."""
    path = scope["path"]
    parts = path.split("/")
    return (
        path.startswith("/")
        and "." not in parts
        and ".." not in parts
        and "\\" not in path
        and "//" not in path
    )


def _without_body(send: Send) -> Send:
    """What HEAD gets of the answer to GET: the same but for the content (RFC 9110, 9.3.2). Not
    every application knows HEAD, or asks for no credential then."""

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return pass_on


async def _refuse(status: int, send: Send, scheme: str, realm: str) -> None:
    title, detail = HTTPStatus(status).phrase, _DETAILS[status]
    # members of a problem (RFC 9457), and what Prefect's client shows
    problem = {"title": title, "status": status, "detail": detail, "exception_message": detail}
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
    ]
    if status == 401 and realm:
        headers.append((b"www-authenticate", f'{scheme.title()} realm="{realm}"'.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
