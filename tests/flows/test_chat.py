"""The door as OpenAI's own client asks it: chats of a language model, whole and as streams, until
an erasure has another version serve."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from flows.adapters import connections
from flows.prefect_flows.erase import erase
from flows.use_cases import predicting
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.use_cases.tokens import list_tokens, revoke_token
from flows.workspace.workspace import Workspace
from tests.flows.conftest import CANARY
from tests.flows.prepared import Kept, keep_writer
from tests.flows.test_api import _token, opened

pytestmark = pytest.mark.slow
CHAT: list[Any] = [{"role": "user", "content": "w1 w2"}]


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Kept:
    return keep_writer(tmp_path_factory.mktemp("writing"))


@pytest.fixture
def place(_kept: Kept) -> Workspace:
    """A language model that was trained, with somebody whom an erasure can reach."""
    return _kept.fresh()


@pytest.fixture
def door(place: Workspace) -> Iterator[str]:
    """The address of its door."""
    with opened(place) as url:
        yield url


@pytest.fixture
def client(place: Workspace, door: str) -> openai.OpenAI:
    """OpenAI's own."""
    return openai.OpenAI(base_url=f"{door}/v1", api_key=_token(place, "predicts"), max_retries=0)


def test_a_chat_is_answered_as_the_version_that_serves_answers_it(
    place: Workspace, client: openai.OpenAI
) -> None:
    (model,) = client.models.list().data
    assert model.id == place.config.system.name
    answer = client.chat.completions.create(model=model.id, messages=CHAT, max_tokens=4)
    (wanted,) = champion_of(place).predict([{"messages": CHAT}], {"max_new_tokens": 4})
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content == wanted["text"]
    assert choice.finish_reason == wanted["finish"] and answer.system_fingerprint == "1"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == wanted["tokens"] <= 4
    assert answer.usage.prompt_tokens == wanted["prompt_tokens"]
    parts: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}],
        }
    ]
    same = client.chat.completions.create(model=model.id, messages=parts, max_tokens=4)
    assert same.choices[0].message.content == wanted["text"]
    drawn = [
        client.chat.completions.create(model=model.id, messages=CHAT, temperature=9, seed=seed)
        .choices[0]
        .message.content
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stream_brings_the_same_text_piece_by_piece_and_how_it_ended(
    place: Workspace, client: openai.OpenAI
) -> None:
    name = place.config.system.name
    whole = client.chat.completions.create(model=name, messages=CHAT)
    chunks = list(
        client.chat.completions.create(
            model=name, messages=CHAT, stream=True, stream_options={"include_usage": True}
        )
    )
    *said, ended, counted = chunks
    assert len(said) > 2 and said[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in said) == (
        whole.choices[0].message.content
    )
    assert ended.choices[0].finish_reason == whole.choices[0].finish_reason
    assert counted.choices == [] and counted.usage == whole.usage
    assert {c.system_fingerprint for c in chunks} == {"1"} and len({c.id for c in chunks}) == 1


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError),
        ({"n": 2}, openai.UnprocessableEntityError),
        ({"stop": ["x"]}, openai.UnprocessableEntityError),
        ({"top_p": 0.5}, openai.UnprocessableEntityError),
        ({"tools": []}, openai.UnprocessableEntityError),
        ({"messages": []}, openai.UnprocessableEntityError),
        ({"messages": [*CHAT, *CHAT]}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, None),
        ({"max_tokens": 4000}, openai.UnprocessableEntityError),
        ({"max_tokens": 4000, "stream": True}, openai.UnprocessableEntityError),
    ],
    ids=lambda v: ",".join(v) if isinstance(v, dict) else "",
)
def test_what_would_change_the_answer_unheard_is_refused_and_not_quoted(
    place: Workspace, client: openai.OpenAI, changed: dict[str, Any], kind: Any
) -> None:
    asked = {"model": place.config.system.name, "messages": CHAT} | changed
    with pytest.raises(kind or (openai.APIError, UnicodeError)) as told:
        client.chat.completions.create(**asked)
    if kind:
        assert "expected" in str(told.value) and "w1" not in str(told.value)


def test_without_the_role_nothing_is_answered(place: Workspace, door: str) -> None:
    for token, kind in (
        ("x", openai.AuthenticationError),
        (_token(place, "audits"), openai.PermissionDeniedError),
        (_token(place, "asks", "predicts"), openai.PermissionDeniedError),
    ):
        client = openai.OpenAI(base_url=f"{door}/v1", api_key=token, max_retries=0)
        with pytest.raises(kind):
            client.models.list()
        with pytest.raises(kind):
            client.chat.completions.create(
                model=place.config.system.name, messages=CHAT, stream=True
            )


def test_a_stream_ends_with_an_error_where_an_erasure_has_another_version_serve(
    place: Workspace, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure runs between two pieces."""
    name = place.config.system.name
    before = client.chat.completions.create(model=name, messages=CHAT)
    take_requests(place, [CANARY])
    erased = threading.Event()
    stream: Callable[..., Iterator[dict[str, Any]]] = predicting._Version.stream

    def held(model: Any, *asked: Any) -> Iterator[dict[str, Any]]:
        for n, piece in enumerate(stream(model, *asked)):
            if n == 1:
                assert erased.wait(120)
            yield piece

    monkeypatch.setattr(predicting._Version, "stream", held)
    pieces = client.chat.completions.create(model=name, messages=CHAT, stream=True)
    said = [next(pieces)]
    assert erase(str(place.root))["certificates"]
    erased.set()
    with pytest.raises(openai.APIError, match="another meanwhile"):
        said += list(pieces)
    monkeypatch.undo()
    after = client.chat.completions.create(model=name, messages=CHAT)
    (wanted,) = champion_of(Workspace(place.root)).predict([{"messages": CHAT}])
    assert after.choices[0].message.content == wanted["text"]
    assert (before.system_fingerprint, after.system_fingerprint) == ("1", "2")


def test_whoever_goes_away_in_the_middle_keeps_nobody_waiting(
    place: Workspace, door: str, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that has the model stops at the next piece."""
    gone, written = threading.Event(), []
    stream = predicting._Version.stream

    def endless(model: Any, *asked: Any) -> Iterator[dict[str, Any]]:
        for piece in stream(model, *asked):
            for n in range(10**9):
                written.append(n)
                gone.wait(0.01)
                yield {"text": piece["text"] or "x"}

    monkeypatch.setattr(predicting._Version, "stream", endless)
    asked = {"model": place.config.system.name, "messages": CHAT, "stream": True}
    headers = {"Authorization": f"Bearer {_token(place, 'predicts')}"}
    with httpx.stream(
        "POST", f"{door}/v1/chat/completions", json=asked, headers=headers, timeout=60
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))
        assert first["object"] == "chat.completion.chunk"
    monkeypatch.undo()
    again = client.chat.completions.create(
        model=place.config.system.name, messages=CHAT, timeout=60
    )
    assert again.choices[0].message.content is not None and len(written) < 10_000


def _writing(monkeypatch: pytest.MonkeyPatch, pieces: int, pause: float = 0) -> list[int]:
    """Has the version that serves write so many, each of 200 bytes; how many it wrote."""
    written: list[int] = []
    stream = predicting._Version.stream

    def long(model: Any, *asked: Any) -> Iterator[dict[str, Any]]:
        for piece in stream(model, *asked):
            for n in range(0 if "finish" in piece or written else pieces):
                written.append(n)
                time.sleep(pause)
                yield {"text": f"{n:200}"}
            if "finish" in piece:
                yield piece

    monkeypatch.setattr(predicting._Version, "stream", long)
    return written


class _Reader:
    """Asks for a stream and reads no more of it than it is told to: by a socket that holds next to
    nothing."""

    def __init__(self, url: str, token: str, model: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        self.socket.settimeout(60)
        self.socket.connect((host, int(port)))
        body = json.dumps({"model": model, "messages": CHAT, "stream": True})
        self.socket.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def read(self, size: int = 2**30) -> bytes:
        """So many bytes at most, or what comes until the end."""
        told = b""
        while len(told) < size and (more := self.socket.recv(2**16)):
            told += more
        return told


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_was_written_and_not_read_is_not_given_out_after_an_erasure(
    place: Workspace, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model has written all of it long before; a slow reader took next to nothing yet."""
    pieces = 10_000
    written = _writing(monkeypatch, pieces)
    reader = _Reader(door, _token(place, "predicts"), place.config.system.name)
    reader.read(1000)
    _until(lambda: len(written) == pieces)
    take_requests(place, [CANARY])
    assert erase(str(place.root))["certificates"]
    rest = reader.read()
    assert b"another meanwhile" in rest and b"[DONE]" not in rest
    assert len(rest) < 200_000, "of more than two million bytes"


def test_who_does_not_read_is_not_waited_for(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 1.0)
    with opened(place) as url:
        _writing(monkeypatch, 10_000)
        reader = _Reader(url, _token(place, "predicts"), place.config.system.name)
        reader.read(1000)
        time.sleep(3)
        with suppress(ConnectionError):  # cut off
            assert len(reader.read()) < 200_000


def test_a_stream_ends_once_its_token_is_revoked(
    place: Workspace, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    _writing(monkeypatch, 10_000, pause=0.01)
    name = place.config.system.name
    pieces = client.chat.completions.create(model=name, messages=CHAT, stream=True)
    next(pieces)
    revoke_token(place, list_tokens(place)[-1]["id"])
    with pytest.raises(openai.APIError, match="revoked"):
        assert len(list(pieces)) < 100


@pytest.mark.parametrize("at", ["/v1/chat/completions", "/api/v1/predict"])
def test_whose_token_is_revoked_meanwhile_gets_no_answer(
    place: Workspace, door: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    token = _token(place, "predicts")
    predict = predicting._Version.predict

    def revoked(model: Any, *asked: Any) -> Any:
        revoke_token(place, list_tokens(place)[-1]["id"])
        return predict(model, *asked)

    monkeypatch.setattr(predicting._Version, "predict", revoked)
    asked = {"messages": [CHAT]} if "api" in at else {"messages": CHAT}
    if "api" not in at:
        asked |= {"model": place.config.system.name}  # type: ignore[dict-item]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{door}{at}", json=asked, headers=headers, timeout=60)
    assert answer.status_code == 401 and "revoked" in answer.text


@pytest.mark.parametrize("temperature", [1e-40, 1e-308, 5e-324, 2.0])
def test_no_temperature_keeps_anybody_from_an_answer(
    place: Workspace, client: openai.OpenAI, temperature: float
) -> None:
    name = place.config.system.name
    ask = client.chat.completions.create
    answer = ask(model=name, messages=CHAT, temperature=temperature, max_tokens=3)
    if temperature < 1:
        likeliest = ask(model=name, messages=CHAT, max_tokens=3)
        assert answer.choices[0].message.content == likeliest.choices[0].message.content
