"""The guard in front of every port: who is refused, and at which of its four questions. No server,
no socket."""

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest

from flows.adapters.guard import Guard, Rules

SECRET = "s3t:a-secret-of-the-test"
HEADER = ("authorization", "Basic " + base64.b64encode(SECRET.encode()).decode())
HOST = ("host", "127.0.0.1:4200")
RULES = Rules(
    frozenset({"127.0.0.1:4200", "localhost:4200", "[::1]:4200"}),
    "basic",
    SECRET,
    frozenset({"/api/health", "/api/ready"}),
)
TOKEN = json.dumps({"type": "auth", "token": SECRET})


class Inner:
    """An application that asks for nothing itself, and keeps what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                self.reached.append(message["text"])
                await send({"type": "websocket.send", "text": "told"})


class Eager(Inner):
    """One that tells everybody before it has heard anything."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "told"})


def _scope(
    kind: str,
    headers: Iterable[tuple[str, str]],
    path: str = "/api/deployments/filter",
    method: str = "POST",
) -> dict[str, Any]:
    return {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
    }


def _ask(*headers: tuple[str, str], rules: Rules = RULES, **more: Any) -> int:
    """The status of an answer; 200 exactly when the application was reached."""
    inner, sent = Inner(), []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(inner, rules)(_scope("http", headers, **more), receive, send))
    assert (sent[0]["status"] == 200) == bool(inner.reached)
    return int(sent[0]["status"])


def _talk(
    *headers: tuple[str, str], says: list[Any], inner: Inner | None = None
) -> tuple[list[str], list[Any]]:
    """What reached the application on a websocket, and what it answered."""
    inner, sent = inner or Inner(), []
    coming = iter(
        [{"type": "websocket.connect"}, *({"type": "websocket.receive", **s} for s in says)]
    )

    async def receive() -> Any:
        return next(coming, {"type": "websocket.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(inner, RULES)(_scope("websocket", headers, "/api/events/in"), receive, send))
    return inner.reached, sent


def test_with_host_and_credential_it_answers() -> None:
    assert _ask(HOST, HEADER) == 200
    assert _ask(("Host", "LOCALHOST:4200"), HEADER) == 200
    assert _ask(("host", "[::1]:4200"), HEADER) == 200
    assert (
        _ask(HOST, HEADER, ("origin", "http://127.0.0.1:4200"), ("sec-fetch-site", "same-origin"))
        == 200
    )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4200",
        "127.0.0.1",
        "127.0.0.1:4201",
        "127.0.0.1:4200.evil.example",
        "localhost.:4200",
        "127.0.0.1.:4200",
        "user@127.0.0.1:4200",
        "127.0.0.1:4200@evil.example",
        "",
        " ",
        "127.0.0.1:4200, evil.example",
        "127.0.0.1:04200",
        "0.0.0.0:4200",
        "127.1:4200",
        "2130706433:4200",
        "[::ffff:127.0.0.1]:4200",
        "127.0.0.1:4200/",
    ],
)
@pytest.mark.parametrize("path", ["/api/deployments/filter", "/api/health"])
def test_another_host_is_refused_even_with_the_credential(host: str, path: str) -> None:
    assert _ask(("host", host), HEADER, path=path, method="GET") == 421
    assert (
        _ask(
            ("host", host), ("x-forwarded-host", "127.0.0.1:4200"), HEADER, path=path, method="GET"
        )
        == 421
    )


def test_no_host_or_two_are_refused() -> None:
    assert _ask(HEADER) == 421
    assert _ask(HOST, HOST, HEADER) == 421
    assert _ask(HOST, ("host", "evil.example"), HEADER) == 421


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:4201",
        "https://127.0.0.1:4200",
        "http://127.0.0.1",
        "http://localhost:4200",
        "http://127.0.0.1:4200.evil.example",
        "file://",
        "http://127.0.0.1:4200/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE", "PATCH"])
def test_another_origin_is_refused_even_with_the_credential(origin: str, method: str) -> None:
    assert _ask(HOST, HEADER, ("origin", origin), method=method) == 403
    assert (
        _ask(HOST, HEADER, ("origin", "http://127.0.0.1:4200"), ("origin", origin), method=method)
        == 403
    )
    assert _ask(HOST, ("origin", origin), path="/api/health", method="GET") == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "SAME-ORIGIN", "something new"])
def test_what_a_browser_calls_another_site_is_refused_even_with_the_credential(site: str) -> None:
    assert _ask(HOST, HEADER, ("sec-fetch-site", site)) == 403


@pytest.mark.parametrize(
    "header",
    [
        None,
        ("authorization", ""),
        ("authorization", "Basic"),
        ("authorization", "Basic "),
        ("authorization", "Basic " + base64.b64encode(b"s3t:wrong").decode()),
        ("authorization", f"Bearer {SECRET}"),
        ("authorization", f"Basic {SECRET}"),
        ("authorization", HEADER[1] + "\u00e9"),
        ("authorization", HEADER[1][:-4]),
        ("cookie", HEADER[1]),
        ("x-authorization", HEADER[1]),
        ("proxy-authorization", HEADER[1]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "PUT", "TRACE", "QUERY"])
def test_without_the_credential_nothing_answers(
    header: tuple[str, str] | None, method: str
) -> None:
    assert _ask(HOST, *([header] if header else []), method=method) == 401


def test_two_credentials_are_none() -> None:
    assert _ask(HOST, HEADER, HEADER) == 401
    assert _ask(HOST, HEADER, ("authorization", "Basic eDp5")) == 401


def test_only_health_answers_without_a_credential() -> None:
    for path in ("/api/health", "/api/ready"):
        assert _ask(HOST, path=path, method="GET") == _ask(HOST, path=path, method="HEAD") == 200
        assert _ask(HOST, path=path, method="POST") == 401
    near = [
        "/api/health/",
        "/API/health",
        "/api/healthy",
        "/api/variables/name/health",
        "/health",
        "/api/health;x",
        "/api/health%2f",
        "/docs",
        "/openapi.json",
        "/",
        "/api",
    ]
    assert {_ask(HOST, path=path, method="GET") for path in near} == {401}


def test_head_gets_the_answer_of_get_without_its_content_where_get_alone_is_known() -> None:
    sent: list[Any] = []

    async def only_get(scope: Any, receive: Any, send: Any) -> None:
        status = 200 if scope["method"] == "GET" else 401
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", b"4")],
            }
        )
        await send({"type": "http.response.body", "body": b"true"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        Guard(only_get, RULES)(_scope("http", [HOST], "/api/health", "HEAD"), receive, send)
    )
    assert [m.get("status", m.get("body")) for m in sent] == [200, b""]
    assert sent[0]["headers"] == [(b"content-length", b"4")]


@pytest.mark.parametrize(
    "path",
    [
        "//api/health",
        "/api//health",
        "/api/health/../deployments/",
        "/api/./health",
        "/..",
        "http://127.0.0.1:4200/api/health",
        "*",
        "",
        "/api\\health",
        "api/health",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused_even_with_the_credential(path: str) -> None:
    assert _ask(HOST, HEADER, path=path, method="GET") == 400


def test_a_bearer_is_asked_for_where_the_rules_say_so() -> None:
    rules = Rules(frozenset({"127.0.0.1:9464"}), "bearer", "a-token", frozenset({"/health"}))
    host = ("host", "127.0.0.1:9464")
    assert _ask(host, ("authorization", "Bearer a-token"), rules=rules) == 200
    assert _ask(host, ("authorization", "bearer a-token"), rules=rules) == 200
    for wrong in (
        "Bearer a-toke",
        "Bearer",
        "Basic YS10b2tlbg==",
        "a-token",
        "Bearer a-token a-token",
    ):
        assert _ask(host, ("authorization", wrong), rules=rules) == 401
    with pytest.raises(ValueError, match="expected a credential"):
        Rules(frozenset({"127.0.0.1:9464"}), "bearer", "")


def test_a_websocket_with_the_header_goes_through() -> None:
    reached, sent = _talk(HOST, HEADER, says=[{"text": "one"}])
    assert reached == ["websocket", "one"] and sent[-1]["type"] == "websocket.send"


def test_a_websocket_whose_first_message_has_the_credential_goes_through() -> None:
    reached, sent = _talk(HOST, says=[{"text": TOKEN}, {"text": "one"}])
    assert reached == ["websocket", TOKEN, "one"]
    assert [m["type"] for m in sent] == ["websocket.accept", "websocket.send", "websocket.send"]


@pytest.mark.parametrize(
    "first",
    [
        {"text": "an event"},
        {"text": json.dumps({"type": "auth", "token": "wrong"})},
        {"text": "[]"},
        {"text": "{"},
        {"text": "[" * 100_000},
        {"text": json.dumps({"type": "auth"})},
        {"text": json.dumps({"type": "auth", "token": None})},
        {"text": json.dumps({"type": "auth", "token": [SECRET]})},
        {"text": json.dumps({"type": "hello", "token": SECRET})},
        {"bytes": TOKEN.encode()},
        {"text": None, "bytes": b""},
        {"text": json.dumps({"type": "auth", "token": "\ud800"})},
    ],
)
def test_a_websocket_without_the_credential_neither_says_nor_hears_anything(
    first: dict[str, Any],
) -> None:
    reached, sent = _talk(HOST, says=[first, {"text": TOKEN}, {"text": "one"}])
    assert reached == ["websocket"]
    assert [m["type"] for m in sent] == ["websocket.accept", "websocket.close"]


def test_a_route_that_forgot_to_ask_tells_nothing() -> None:
    _, sent = _talk(HOST, says=[], inner=Eager())
    assert [m["type"] for m in sent] == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize(
    "headers",
    [
        [HOST, ("authorization", "Basic eDp5")],
        [("host", "evil.example"), HEADER],
        [HEADER],
        [HOST, HEADER, HEADER],
        [HOST, HEADER, ("origin", "http://evil.example")],
        [HOST, HEADER, ("origin", "null")],
        [HOST, HEADER, ("sec-fetch-site", "cross-site")],
        [HOST, ("origin", "http://evil.example")],
    ],
)
def test_a_websocket_that_should_not_be_is_refused_before_it_is_one(
    headers: list[tuple[str, str]],
) -> None:
    reached, sent = _talk(*headers, says=[{"text": TOKEN}])
    assert reached == [] and [m["type"] for m in sent] == ["websocket.close"]


def test_a_kind_of_connection_that_nobody_thought_of_is_refused() -> None:
    inner = Inner()
    with pytest.raises(ValueError, match="another kind of connection"):
        asyncio.run(Guard(inner, RULES)(_scope("webtransport", [HOST, HEADER]), None, None))  # type: ignore[arg-type]
    assert inner.reached == []
