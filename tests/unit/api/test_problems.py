"""Errors at the door: problems (RFC 9457) that say what was expected, what came and what to do, and
quote nothing; limits; who may ask what."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute

from flows.adapters.tokens import ROLES, Role, TokenBook
from flows.api import answers, app, chat, evidence, intake, requests, standing
from flows.api import desk as desk_module
from flows.api.callers import Callers
from flows.api.desk import Desk
from flows.api.limits import Limits, Rate
from flows.api.once import OnceRoute
from flows.api.problems import MEDIA_TYPE, Problem, Refused
from flows.use_cases.taking import take_requests
from flows.use_cases.tokens import book_of, list_tokens, make_token, revoke_token
from flows.workspace.workspace import Workspace
from s3t_core.errors import UsageError, WorkspaceError
from s3t_core.times import later
from tests.unit.api.conftest import PORT, Client

REQUESTS = "/api/v1/requests"
CANARY = "canary-person-77"
ROUTES = [
    route
    for part in (requests.router, evidence.router, standing.router, answers.router)
    for route in part.routes
    if isinstance(route, APIRoute)
]
CHAT = [route for route in chat.router.routes if isinstance(route, APIRoute)]


def _address(path: str) -> str:
    if path.startswith("/v1/"):
        return path
    return "/api/v1" + path.format(
        request_id=f"req-{'0' * 16}", day="2026-01-01", name="report.json"
    )


def test_every_address_wants_a_token_and_only_health_does_not(client: Client) -> None:
    nobody = client()
    for who in (nobody, client(sent="s3t_0123456789ab_" + "x" * 43)):
        for route in ROUTES:
            for method in route.methods or ():
                assert who.request(method, _address(route.path)).status_code == 401
        for route in CHAT:
            for method in route.methods or ():
                assert who.request(method, f"/v1{route.path}").status_code == 401
        for path in ("/", "/api/v1/openapi.json", "/docs", "/nothing"):
            assert who.get(path).status_code == 401
    assert nobody.get("/health/live").json() == {"ready": True}
    assert nobody.get("/health/ready").json() == {"ready": True}


MAY: dict[tuple[str, str], set[str]] = {
    ("POST", "/requests"): {"asks"},
    ("GET", "/requests"): {"decides", "erases", "audits"},
    ("GET", "/requests/{request_id}"): {"asks", "decides", "erases", "audits"},
    ("POST", "/requests/{request_id}/approve"): {"decides"},
    ("POST", "/requests/{request_id}/withdraw"): {"asks", "decides"},
    ("POST", "/requests/{request_id}/reject"): {"decides"},
    ("POST", "/requests/{request_id}/extend"): {"decides"},
    ("POST", "/holds"): {"decides"},
    ("POST", "/holds/release"): {"decides"},
    ("POST", "/returns"): {"erases"},
    ("GET", "/requests/{request_id}/certificate"): {"decides", "erases", "audits"},
    ("GET", "/bundle"): {"audits"},
    ("GET", "/reports"): {"audits"},
    ("POST", "/reports"): {"audits"},
    ("GET", "/reports/{day}/{name}"): {"audits"},
    ("GET", "/status"): {"decides", "erases", "audits"},
    ("GET", "/forecast"): {"decides", "erases", "audits"},
    ("GET", "/versions"): {"decides", "erases", "audits"},
    ("POST", "/plan"): {"decides", "erases", "audits"},
    ("POST", "/predict"): {"predicts"},
    ("GET", "/v1/models"): {"predicts"},
    ("POST", "/v1/chat/completions"): {"predicts"},
    ("GET", "/token"): set(ROLES),
}


def test_each_address_is_open_to_its_roles_and_to_no_other(client: Client) -> None:
    there = {(m, r.path) for r in ROUTES for m in r.methods or ()}
    there |= {(m, f"/v1{r.path}") for r in CHAT for m in r.methods or ()}
    assert there == set(MAY)
    for role in ROLES:
        who = client(role)
        for (method, path), roles in MAY.items():
            status = who.request(method, _address(path)).status_code
            assert (status == 403) == (role not in roles), (role, method, path, status)


_TOLD_TO_WHO_ASKS = {
    ("POST", "/requests"),
    ("GET", "/requests/{request_id}"),
    ("POST", "/requests/{request_id}/approve"),
    ("POST", "/requests/{request_id}/withdraw"),
    ("POST", "/requests/{request_id}/reject"),
    ("POST", "/requests/{request_id}/extend"),
    ("POST", "/holds"),
    ("POST", "/holds/release"),
    ("GET", "/token"),
}
"""What says nothing of what erasures came to."""


@pytest.mark.parametrize("other", sorted({*ROLES} - {"asks", "erases"}))
def test_who_asks_beside_another_role_is_told_nothing_of_what_erasures_came_to(
    client: Client, other: Role
) -> None:
    """Nor what the model answers: that changes as people leave it."""
    who = client("asks", other)
    for (method, path), roles in MAY.items():
        status = who.request(method, _address(path)).status_code
        may = (method, path) in _TOLD_TO_WHO_ASKS and not roles.isdisjoint({"asks", other})
        assert (status == 403) == (not may), (method, path, status)


def test_a_token_opens_nothing_once_it_is_revoked_or_its_time_is_over(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_token(place, "privacy desk", ["audits"], 1)
    who = client(sent=made["token"])
    assert who.get("/api/v1/token").json()["name"] == "privacy desk"
    revoke_token(place, made["id"])
    assert who.get("/api/v1/token").status_code == 401
    short = make_token(place, "privacy desk", ["audits"], 1)
    now = place.clock.now()
    book = TokenBook(place.state_dir / "tokens.json")
    assert book.holder(short["token"].encode(), later(now, hours=23))
    assert book.holder(short["token"].encode(), later(now, hours=25)) is None
    assert [t["good"] for t in list_tokens(place)] == [False, True]


def test_a_token_made_while_the_clock_ran_ahead_lives_no_longer_for_it(place: Workspace) -> None:
    now, book = place.clock.now(), book_of(place)
    ahead, sent = book.make("desk", ["asks"], later(now, days=700), 1)
    for hours in (0, 48, 24 * 699, 24 * 702):
        assert book.holder(sent.encode(), later(now, hours=hours)) is None
    assert book.holder(sent.encode(), later(now, days=700.5)) == ahead
    near, sent = book.make("desk", ["asks"], later(now, minutes=3), 1)
    assert book.holder(sent.encode(), now) == near  # machines' clocks differ


def test_where_no_command_has_a_secret_nobody_has_it(place: Workspace) -> None:
    """An empty header is no secret either."""
    callers = Callers(book_of(place), place.clock, 60)
    assert not callers.knows(b"")
    with pytest.raises(Refused):
        callers.caller("", frozenset({"predicts"}))
    assert Callers(book_of(place), place.clock, 60, "secret").knows(b"secret")


def test_a_token_is_kept_as_a_digest_for_its_owner_alone(place: Workspace) -> None:
    made = make_token(place, "privacy desk", ["asks"], 1)
    path = place.state_dir / "tokens.json"
    secret = made["token"].split("_", 2)[2]
    assert secret not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    assert made["token"] not in json.dumps(list_tokens(place))
    book, now = book_of(place), place.clock.now()
    for wrong in (
        b"",
        b"s3t",
        made["token"][:-1].encode(),
        made["token"].encode() + b"x",
        f"s3t_{made['id']}_".encode(),
        f"s3t__{secret}".encode(),
        b"s3t_" + b"x" * 500,
        b"\xff" * 60,
    ):
        assert book.holder(wrong, now) is None
    assert book.holder(made["token"].encode(), now)
    path.chmod(0o644)
    with pytest.raises(WorkspaceError, match="owner only"):
        book_of(place).holder(made["token"].encode(), now)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"tokens": [{}]}', b"\xff", b'{"tokens": 1}'])
def test_tokens_that_cannot_be_read_open_nothing(
    place: Workspace, client: Client, content: bytes
) -> None:
    who, path = client("audits"), place.state_dir / "tokens.json"
    assert who.get("/api/v1/token").status_code == 200
    expires = {b"never": b"never", b"no zone": b"2999-01-01T00:00:00"}.get(content)
    if expires:
        content = re.sub(
            rb'"expires": *"[^"]*"', b'"expires": "' + expires + b'"', path.read_bytes()
        )
    path.write_bytes(content)
    assert who.get("/api/v1/token").status_code == 401
    with pytest.raises(WorkspaceError, match="tokens"):
        list_tokens(place)
    with pytest.raises(WorkspaceError, match="tokens"):
        make_token(place, "another", ["asks"], 1)
    assert (place.state_dir / "tokens.json").read_bytes() == content


def test_a_token_quotes_nobody_and_has_roles_and_a_time(place: Workspace) -> None:
    take_requests(place, [CANARY])
    for name, roles, days in (
        (f"for {CANARY}", ["asks"], 1),
        ("", ["asks"], 1),
        ("desk 2", ["asks"], 1),
        ("privacy desk", [], 1),
        ("privacy desk", ["root"], 1),
        ("privacy desk", ["asks"], 0),
        ("privacy desk", ["asks"], 1e9),
        ("privacy desk", ["asks"], float("nan")),
    ):
        with pytest.raises(UsageError) as refused:
            make_token(place, name, roles, days)
        assert CANARY not in str(refused.value)
    with pytest.raises(UsageError, match="id of a token"):
        revoke_token(place, "0" * 12)
    assert not list_tokens(place)


HOSTILE: list[tuple[str, Any]] = [
    ("no object", [CANARY]),
    ("another member", {"subjects": ["x"], CANARY: 1}),
    ("no list", {"subjects": CANARY}),
    ("no text", {"subjects": [{"id": CANARY}]}),
    ("an empty id", {"subjects": [""]}),
    ("a number", {"subjects": [17]}),
    ("nothing", {}),
    ("no hash", {"hashed": [CANARY]}),
    ("ids and hashes", {"subjects": [CANARY], "hashed": ["sha256:" + "0" * 64]}),
    ("records of two", {"subjects": [CANARY, "x"], "record": "r"}),
    ("half a character", {"subjects": ["\ud800" + CANARY]}),
    ("too long an id", {"subjects": [CANARY * 400]}),
]


@pytest.mark.parametrize(("what", "body"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_what_is_wrong_is_told_and_not_quoted(
    place: Workspace, client: Client, what: str, body: Any
) -> None:
    answer = client("asks", "erases").post(
        REQUESTS, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    told = answer.json()
    jsonschema.validate(told, Problem.model_json_schema())
    assert told["status"] == 422 and told["expected"] and told["got"]
    assert CANARY not in answer.text and not place.requests.open_now()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"subjects": ["\\ud800"]}', b"null"]
)
def test_what_is_no_json_is_refused(place: Workspace, client: Client, content: bytes) -> None:
    answer = client("asks").post(
        REQUESTS, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422) and answer.headers["content-type"] == MEDIA_TYPE
    assert not place.requests.open_now()


def test_a_body_of_another_type_is_refused(place: Workspace, client: Client) -> None:
    """A form, or plain text, is what a foreign page could send without being asked first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client("asks").post(
            REQUESTS, content=b'{"subjects": ["x"]}', headers={"content-type": kind}
        )
        assert answer.status_code in (400, 415, 422)
    assert not place.requests.open_now()


def test_an_address_or_method_that_there_is_not_is_a_problem_too(client: Client) -> None:
    who = client("asks")
    for method, path, status in (
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", REQUESTS, 405),
        ("GET", "/api/v1/requests/", 404),
        ("GET", "/docs", 404),
    ):
        answer = who.request(method, path)
        assert answer.status_code == status and answer.headers["content-type"] == MEDIA_TYPE
        jsonschema.validate(answer.json(), Problem.model_json_schema())


def test_a_foreign_page_or_name_is_refused_whatever_token_it_has(client: Client) -> None:
    who = client(*ROLES)
    assert who.get("/api/v1/token", headers={"Origin": "https://evil.example"}).status_code == 403
    assert who.get("/api/v1/token", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert who.get("/api/v1/token", headers={"Host": "evil.example"}).status_code == 421
    assert who.options(REQUESTS, headers={"Origin": "https://evil.example"}).status_code == 403
    assert "access-control-allow-origin" not in who.get("/api/v1/token").headers


def test_an_error_that_nobody_foresaw_tells_its_kind_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(standing, "versions_of", fails)
    answer = client("audits").get("/api/v1/versions")
    assert answer.status_code == 500 and "RuntimeError" in answer.json()["detail"]
    out, err = capfd.readouterr()
    assert CANARY not in answer.text + out + err and "RuntimeError" in err


def test_health_is_found_out_once_a_second_whoever_asks(
    client: Client, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    read = desk.read
    monkeypatch.setattr(desk, "read", lambda *a, **k: (looked.append(1), read(*a, **k))[1])
    who = client()
    assert {who.get("/health/ready").status_code for _ in range(20)} == {200}
    assert len(looked) == 1


def test_health_says_when_nothing_could_be_taken(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_READY_SECONDS", -1.0)
    who, asks = client(), client("asks")
    assert who.get("/health/ready").status_code == 200
    (place.state_dir / "s3t.db").rename(place.state_dir / "away.db")
    answer = who.get("/health/ready")
    assert answer.status_code == 503 and answer.json() == {"ready": False}
    assert who.get("/health/live").status_code == 200
    assert asks.post(REQUESTS, json={"subjects": ["x"]}).status_code == 503
    (place.state_dir / "away.db").rename(place.state_dir / "s3t.db")
    assert who.get("/health/ready").status_code == 200


def test_health_looks_at_what_signs_and_at_who_may_ask(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_READY_SECONDS", -1.0)
    who = client()
    client("asks")
    key, tokens = place.keys_dir / "signing.key", place.state_dir / "tokens.json"
    assert who.get("/health/ready").status_code == 200
    key.rename(key.with_name("away"))
    assert who.get("/health/ready").status_code == 503
    key.with_name("away").rename(key)
    assert who.get("/health/ready").status_code == 200
    tokens.chmod(0o644)
    assert who.get("/health/ready").status_code == 503


def test_who_waits_no_more_keeps_nobody_from_asking(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "_WAITING", 3)
    goes_on = threading.Event()
    seat = desk_module._Seat(place.root)
    try:
        began = threading.Event()
        seat.put(lambda _: (began.set(), goes_on.wait(30)))
        assert began.wait(30)
        waiting = [seat.put(lambda _: None) for _ in range(3)]
        with pytest.raises(Refused):
            seat.put(lambda _: None)
        for each in waiting:
            each.cancel()
        answer = seat.put(lambda workspace: workspace.root)
        goes_on.set()
        assert answer.result(30) == place.root
    finally:
        goes_on.set()
        seat.close()


def test_each_token_may_ask_so_often_and_no_oftener() -> None:
    rate = Rate(60)
    for _ in range(10):
        rate.take("one", 100.0)
    with pytest.raises(Refused) as refused:
        rate.take("one", 100.0)
    assert refused.value.status == 429 and refused.value.headers == {"retry-after": "1"}
    rate.take("another", 100.0)
    rate.take("one", 101.0)
    with pytest.raises(Refused):
        rate.take("one", 101.0)
    for number in range(20_000):
        rate.take(str(number), 102.0)
    assert len(rate._there) <= 10_000


def test_who_asks_too_often_waits(place: Workspace, client: Client) -> None:
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("per_minute = 1200", "per_minute = 6"))
    place.__dict__.pop("config", None)
    fresh = Workspace(place.root)
    assert fresh.config.api.per_minute == 6
    from starlette.testclient import TestClient

    from flows.adapters.doors import Door
    from flows.api.server import guarded

    token = make_token(fresh, "privacy desk", ["asks"], 1)["token"]
    desk = Desk(fresh.root, 30)
    try:
        who = TestClient(
            guarded(fresh, desk, Door(port=PORT), PORT),
            base_url=f"http://127.0.0.1:{PORT}",
            headers={"Authorization": f"Bearer {token}"},
        )
        codes = [who.get("/api/v1/token").status_code for _ in range(3)]
    finally:
        desk.close()
    assert codes == [200, 429, 429]


async def _swallow(scope: Any, receive: Callable[[], Any], send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(("parts", "status"), [(1, 200), (4, 200), (5, 413), (5000, 413)])
def test_a_body_is_cut_off_where_it_is_too_much(parts: int, status: int) -> None:
    """Also where nobody said how long it is: what came is counted, and no more is taken."""
    import anyio

    taken, sent = [0], list[Any]()

    async def receive() -> dict[str, Any]:
        taken[0] += 1
        return {"type": "http.request", "body": b"x" * 256, "more_body": taken[0] < parts}

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(Limits(_swallow, 1024, 10), {"type": "http"}, receive, send)
    assert sent[0]["status"] == status and taken[0] == min(parts, 5)


def test_a_body_that_comes_too_slowly_is_not_waited_for() -> None:
    import anyio

    sent = list[Any]()

    async def receive() -> dict[str, Any]:
        await anyio.sleep(0.2)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    begun = time.monotonic()
    anyio.run(Limits(_swallow, 1024, 0.5), {"type": "http"}, receive, send)
    assert sent[0]["status"] == 408 and time.monotonic() - begun < 5


def test_the_description_names_every_address_with_its_errors(client: Client) -> None:
    described = client("asks").get("/api/v1/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for route in ROUTES:
        for method in route.methods or ():
            told = described["paths"]["/api/v1" + route.path][method.lower()]
            assert told["security"] == [{"token": []}] and told["description"]
            assert {"401", "403", "429"} <= set(told["responses"])


@pytest.mark.parametrize(
    "body",
    [
        '{"subjects": ["a person"], "subjects": ["another"]}',
        '{"subjects": ["a person"], "record": false, "record": true}',
        '{"subjects": ["a person"], "subjec\\u0074s": ["another"]}',
        '{"subjects": ["a person"], "more": {"x": 1, "x": 1}}',
    ],
)
def test_a_body_that_says_a_member_twice_is_refused_and_nothing_is_taken(
    client: Client, place: Workspace, body: str
) -> None:
    before = place.ledger.head()
    sent = client("asks").post(REQUESTS, content=body, headers={"Content-Type": "application/json"})
    assert sent.status_code == 422 and "twice" in sent.json()["detail"]
    assert "another" not in sent.text and place.ledger.head() == before


def test_a_key_or_a_name_in_the_query_that_comes_twice_is_refused(
    client: Client, place: Workspace
) -> None:
    before = place.ledger.head()
    keys = [("Idempotency-Key", "ticket 1"), ("idempotency-key", "ticket 2")]
    asks = client("asks")
    sent = asks.post(
        REQUESTS,
        json={"subjects": ["a person"]},
        headers=[*asks.headers.items(), *keys],  # type: ignore[list-item]
    )
    assert sent.status_code == 422 and "Idempotency-Key: the same twice" in sent.json()["detail"]
    listed = client("audits").get(f"{REQUESTS}?limit=1&limit=1000")
    assert listed.status_code == 422 and "limit: the same twice" in listed.json()["detail"]
    assert place.ledger.head() == before


def test_every_address_takes_each_thing_once() -> None:
    assert all(isinstance(route, OnceRoute) for route in [*ROUTES, *CHAT])
    assert all(isinstance(route, OnceRoute) for route in intake.router.routes)
