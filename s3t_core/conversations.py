"""What a language model learns from and is asked with: turns in their order, in one spelling.

| a row has | turns |
|---|---|
| a prompt and a response | `prompt`, `response` |
| messages | `system` (at most one, first), then `user` and `assistant` in turn |
| a text alone | `text` |
| two texts, read beside each other for a label or a number | `text`, `pair` |

`Row.text` holds a JSON list of [role, content] pairs. A model learns what `response`, `assistant`
and `text` say, and is only given the rest. Each content is a text of the person: an erasure looks
for it by itself, wherever it stands.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from s3t_core.canonical import is_encodable
from s3t_core.errors import DataError

ANSWER = "assistant"
_LEARNT = frozenset({"response", ANSWER, "text"})
_SHAPES = (("prompt", "response"), ("prompt",), ("text",))
_SPEAKERS = {
    "system": "system",
    "user": "user",
    "assistant": ANSWER,
    "human": "user",
    "gpt": ANSWER,
}
"""What data sets call who speaks; `human` and `gpt` are those of ShareGPT."""
_TWICE = (("role", "from"), ("content", "value"))
_LIKE_ONE = '[["'


_HALVES = re.compile("[\ud800-\udfff]+")


class Turn(NamedTuple):
    """Who speaks, or what a text is for, and the text."""

    role: str
    content: str

    @property
    def is_learnt(self) -> bool:
        """Whether a model learns to say it."""
        return self.role in _LEARNT


Conversation = tuple[Turn, ...]


def conversation_text(turns: Iterable[Turn]) -> str:
    """The spelling of a conversation."""
    return json.dumps([list(turn) for turn in turns], ensure_ascii=False, separators=(",", ":"))


def pair_text(first: str, second: str) -> str:
    """The spelling of two texts that are read beside each other."""
    return conversation_text([Turn("text", first), Turn("pair", second)])


def pair_of(text: str) -> tuple[str, str]:
    """The two texts that a spelling stands for. Raises DataError for what is none."""
    found = _read(text) or ()
    if [turn.role for turn in found] != ["text", "pair"]:
        raise DataError(
            "expected two texts in each row, got another text; the data was ingested without "
            "[data] text_pair: run `s3t ingest SOURCE` again"
        )
    return found[0].content, found[1].content


def turns_of(text: str) -> Conversation:
    """The conversation that a spelling stands for. Raises DataError for what is none."""
    found = _read(text)
    if found is None:
        raise DataError(
            "expected a conversation in each row, got another text; the data was ingested for "
            "another [task]: run `s3t ingest SOURCE` again"
        )
    return found


def texts_in(text: str) -> list[str]:
    """What of a row's text an erasure looks for: the text as it is stored and, of a conversation,
    what each turn says."""
    return [text, *(turn.content for turn in _read(text) or ())]


def strings_in(value: str) -> list[str]:
    """A value and, where it is a JSON list or object, every string in it: what a refused row said
    that could not be read as a conversation. Of a string with half a surrogate pair, which no file
    has, what stands around it."""
    found, waiting = [value], [_parsed(value)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            found += [each] if is_encodable(each) else _HALVES.split(each)
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
    return found


def _parsed(value: str) -> object:
    try:
        return json.loads(value) if value[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _read(text: str) -> Conversation | None:
    if not text.startswith(_LIKE_ONE):
        return None
    try:
        found = json.loads(text)
        turns = tuple(Turn(*pair) for pair in found)
    except (ValueError, TypeError, RecursionError):
        return None
    is_one = all(isinstance(part, str) for turn in turns for part in turn)
    return turns if is_one and conversation_text(turns) == text else None


def chat_of(messages: object, to_learn: bool = True) -> Conversation:
    """The conversation that a list of messages is, each with `role` and `content` (or `from` and
    `value`). `to_learn`: it ends with what the assistant says; else with what the user asks. Raises
    DataError with what is wrong, and nothing of what was said."""
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError("expected a list of messages, got something else")
    turns = tuple(_turn(message) for message in messages)
    said = turns[1:] if turns[0].role == "system" else turns
    wanted = ["user", ANSWER] * len(said)
    if [turn.role for turn in said] != wanted[: len(said)]:
        raise DataError(
            "expected user and assistant to speak in turn, the user first, behind at most one "
            "message of the system"
        )
    if not said or said[-1].is_learnt is not to_learn:
        last = "the assistant" if to_learn else "the user"
        raise DataError(f"expected {last} to speak last")
    return turns


def question_of(messages: object) -> Conversation:
    """What a list of messages asks: up to what the user says last. Raises as `chat_of` does."""
    if not isinstance(messages, list | tuple) or not messages:
        return chat_of(messages, to_learn=False)
    last = messages[-1]
    role = last.get("role", last.get("from")) if isinstance(last, Mapping) else None
    answered = _SPEAKERS.get(str(role)) == ANSWER
    return chat_of(messages[:-1] if answered else messages, to_learn=False)


def _turn(message: object) -> Turn:
    if not isinstance(message, Mapping):
        raise DataError("expected messages with a role and a content, got something else")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if any(message.get(a) is not None and message.get(b) is not None for a, b in _TWICE):
        raise DataError(
            "expected who speaks and what is said once in each message, as role and content or as "
            "from and value, got both"
        )
    if not isinstance(role, str) or role not in _SPEAKERS:
        raise DataError("expected the role system, user or assistant, got another")
    if not isinstance(content, str):
        raise DataError("expected the content of a message to be one text, got something else")
    if not content.strip():
        raise DataError("expected every message to say something, got an empty one")
    if not is_encodable(content):
        raise DataError("expected the content of a message to be text, got half a surrogate pair")
    return Turn(_SPEAKERS[str(role)], content)


def shape_of(turns: Sequence[Turn]) -> str:
    """ "chat", or what a plain row is: "prompt" (with a response or asking for one) or "text"."""
    roles = tuple(turn.role for turn in turns)
    return roles[0] if roles in _SHAPES else "chat"
