"""Rows for a language model: chats, prompts with responses, texts; which are none, and why; what an
erasure looks for of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.adapters.sources.cells import MALFORMED, NOT_TEXT
from flows.adapters.sources.source import Source
from flows.adapters.validation import RowValidator
from s3t_core.config import Config, DataConfig
from s3t_core.config.task import TaskConfig
from s3t_core.conversations import (
    Turn,
    chat_of,
    conversation_text,
    pair_of,
    question_of,
    strings_in,
    texts_in,
    turns_of,
)
from s3t_core.errors import DataError
from s3t_core.learning.payload import pairs_of, questions_of

WRITES = TaskConfig(kind="generation")
ASK, SAY = {"role": "user", "content": "what she asked"}, {"role": "assistant", "content": "so"}


def _frame(path: Path, data: DataConfig, to_learn: bool = True) -> pd.DataFrame:
    return pd.concat(list(Source([str(path)], data, "", WRITES, to_learn).chunks()))


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    told = [{"subject": f"s{n}", **row} for n, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return path


CHATS = DataConfig(messages="messages")
BAD = {
    "no list": "hello",
    "nothing": [],
    "an object": {"role": "user"},
    "an unknown role": [{"role": "narrator", "content": "x"}, SAY],
    "a role that is a list": [{"role": [], "content": "x"}, SAY],
    "a role that is an object": [{"role": {}, "content": "x"}, SAY],
    "a tool": [ASK, {"role": "tool", "content": "x"}, SAY],
    "the assistant first": [SAY, ASK, SAY],
    "the user twice": [ASK, ASK, SAY],
    "the assistant twice": [ASK, SAY, SAY],
    "nobody answers": [ASK],
    "the system alone": [{"role": "system", "content": "x"}],
    "the system in the middle": [ASK, {"role": "system", "content": "x"}, SAY],
    "an empty turn": [{"role": "user", "content": " "}, SAY],
    "an empty answer": [ASK, {"role": "assistant", "content": ""}],
    "a turn without words": [{"role": "user"}, SAY],
    "an image": [{"role": "user", "content": [{"type": "image"}]}, SAY],
    "a number": [{"role": "user", "content": 5}, SAY],
    "no role": [{"content": "x"}, SAY],
    "a message that is a text": ["what she asked", "so"],
    "half an emoji": [{"role": "user", "content": "she cried \ud83d"}, SAY],
    "half of two emojis": [ASK, {"role": "assistant", "content": "\ude00 \ud83d she"}],
    "two contents": [{**ASK, "value": "what else she asked"}, SAY],
    "two speakers": [{**ASK, "from": "human"}, SAY],
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_chat_is_refused_and_nothing_of_it_told(tmp_path: Path, kind: str) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"messages": BAD[kind]}, {"messages": [ASK, SAY]}])
    frame = _frame(path, CHATS)
    assert [bool(m) for m in frame[MALFORMED]] == [True, False]
    why = frame[MALFORMED].iloc[0]
    assert "she" not in why and ("expected" in why or why.endswith(NOT_TEXT))
    refused = RowValidator(CHATS, (), None, WRITES).check(frame).refused
    assert list(refused) == [1] and refused[1] == [why]
    assert frame["messages"].iloc[0], "what it held is kept, for quarantine"


@pytest.mark.parametrize("kind", BAD)
def test_nor_as_json_in_a_cell(tmp_path: Path, kind: str) -> None:
    rows = [{"subject": "s0", "messages": json.dumps(BAD[kind])}]
    rows += [{"subject": "s1", "messages": json.dumps([ASK, SAY])}]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    frame = _frame(tmp_path / "a.csv", CHATS)
    assert [bool(m) for m in frame[MALFORMED]] == [True, False]
    assert list(RowValidator(CHATS, (), None, WRITES).check(frame).refused) == [1]
    for needle in strings_in(frame["messages"].iloc[0]):
        needle.encode()  # it can be looked for


@pytest.mark.parametrize("message", ['{"role":"user","content":"hi","content":"what she asked"}'])
def test_a_key_that_stands_twice_in_a_message_spoils_its_row(tmp_path: Path, message: str) -> None:
    chat = f"[{message}, {json.dumps(SAY)}]"
    (tmp_path / "a.jsonl").write_text(f'{{"subject": "s", "messages": {chat}}}\n')
    pd.DataFrame([{"subject": "s", "messages": chat}]).to_csv(tmp_path / "a.csv", index=False)
    for name in ("a.jsonl", "a.csv"):
        (why,) = _frame(tmp_path / name, CHATS)[MALFORMED]
        assert "twice" in why and "she" not in why


@pytest.mark.parametrize(
    "messages",
    [
        [ASK, SAY],
        [{"role": "system", "content": "be kind"}, ASK, SAY, ASK, SAY],
        [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
        [{**ASK, "name": "her"}, SAY],
    ],
)
def test_chats_are_read_from_json_and_parquet_and_text_alike(
    tmp_path: Path, messages: list[dict[str, str]]
) -> None:
    lines = _lines(tmp_path / "a.jsonl", [{"messages": messages}])
    told = _frame(lines, CHATS)["text"].tolist()
    assert [t.content for t in turns_of(told[0])] == [
        m.get("content", m.get("value")) for m in messages
    ]
    pd.DataFrame([{"subject": "s", "messages": messages}]).to_parquet(tmp_path / "a.parquet")
    assert _frame(tmp_path / "a.parquet", CHATS)["text"].tolist() == told
    pd.DataFrame([{"subject": "s", "messages": json.dumps(messages)}]).to_csv(
        tmp_path / "a.csv", index=False
    )
    assert _frame(tmp_path / "a.csv", CHATS)["text"].tolist() == told


def test_a_prompt_and_its_response_are_columns_or_a_template_of_them(tmp_path: Path) -> None:
    rows = [
        {"instruction": "translate", "input": "x", "output": "y"},
        {"instruction": "sing", "input": "", "output": "la"},
        {"instruction": "", "input": "", "output": "y"},
        {"instruction": "say nothing", "input": "x", "output": " "},
    ]
    path = _lines(tmp_path / "a.jsonl", rows)
    one = DataConfig(prompt="instruction", response="output")
    made = DataConfig(prompt="Do: {instruction}\n{input}{{}}", response="output")
    told = _frame(path, one)["text"].tolist()
    assert [turns_of(t) for t in told[:2]] == [
        (Turn("prompt", "translate"), Turn("response", "y")),
        (Turn("prompt", "sing"), Turn("response", "la")),
    ]
    assert turns_of(_frame(path, made)["text"].iloc[0])[0].content == "Do: translate\nx{}"
    frame = _frame(path, made)
    refused = RowValidator(made, (), None, WRITES).check(frame).refused
    assert refused == {
        3: ["the text is missing"],
        4: ["column 'output' says nothing that could be learnt"],
    }


def test_a_text_alone_is_learnt_whole(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"text": "once"}, {"text": "  "}, {"text": None}])
    frame = _frame(path, DataConfig())
    assert turns_of(frame["text"].iloc[0]) == (Turn("text", "once"),)
    refused = RowValidator(DataConfig(), (), None, WRITES).check(frame).refused
    assert refused == {2: ["the text is missing"], 3: ["the text is missing"]}


def test_a_file_of_questions_needs_no_answers(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"messages": [ASK]}, {"messages": [ASK, SAY]}])
    told = [turns_of(t) for t in _frame(path, CHATS, to_learn=False)["text"]]
    assert told == [(Turn("user", "what she asked"),)] * 2
    path = _lines(tmp_path / "b.jsonl", [{"instruction": "x"}])
    one = DataConfig(prompt="instruction", response="output")
    assert turns_of(_frame(path, one, to_learn=False)["text"].iloc[0]) == (Turn("prompt", "x"),)


TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant", "prompt", "text"]), st.text()), min_size=1
)


@given(TURNS)
def test_a_conversation_survives_its_spelling_and_each_turn_is_looked_for(
    turns: list[Turn],
) -> None:
    text = conversation_text(turns)
    assert turns_of(text) == tuple(turns) and conversation_text(turns_of(text)) == text
    assert texts_in(text) == [text, *(t.content for t in turns)]


@given(st.text() | st.sampled_from(['[["user"]]', '[["user",1]]', '[["user", "x"]]', '[["u","x"]']))
def test_what_is_no_conversation_is_one_text(text: str) -> None:
    if text.startswith('[["'):
        try:
            turns_of(text)
            return
        except DataError as error:
            assert text not in str(error)
    assert texts_in(text) == [text]


def test_of_a_refused_row_every_string_is_looked_for() -> None:
    chat = json.dumps([{"role": "narrator", "content": "she said", "more": {"deep": ["deeper"]}}])
    assert set(strings_in(chat)) == {chat, "narrator", "she said", "deeper"}
    for value in ("plain", "[", "{", "[" * 10_000, "5"):
        assert strings_in(value) == [value]


@pytest.mark.parametrize(
    ("asked", "form", "turns"),
    [
        ("x", "prompt", [(Turn("prompt", "x"),)]),
        (["x", "y"], "text", [(Turn("text", "x"),), (Turn("text", "y"),)]),
        (["x"], "chat", [(Turn("user", "x"),)]),
        ([ASK], "chat", [(Turn("user", "what she asked"),)]),
        ({"messages": [ASK]}, "prompt", [(Turn("user", "what she asked"),)]),
        ([[ASK], [ASK]], "chat", [(Turn("user", "what she asked"),)] * 2),
        ([{"messages": [ASK]}], "chat", [(Turn("user", "what she asked"),)]),
        (pd.DataFrame({"body": ["x"]}), "prompt", [(Turn("prompt", "x"),)]),
    ],
)
def test_a_language_model_is_asked_with_texts_or_chats(
    asked: object, form: str, turns: list[tuple[Turn, ...]]
) -> None:
    assert questions_of(asked, "body", form) == turns


@pytest.mark.parametrize(
    "asked",
    [
        [ASK, SAY],
        [{"role": "user", "content": "she \ud83d"}],
        [[ASK], "x"],
        {"messages": "x"},
        [" "],
        [[ASK], [SAY]],
        None,
        [None],
        [5],
    ],
)
def test_what_asks_nothing_is_refused_and_not_quoted(asked: object) -> None:
    with pytest.raises(DataError) as told:
        questions_of(asked, "", "chat")
    assert "she" not in str(told.value)


def test_a_question_is_what_the_user_says_last() -> None:
    assert question_of([ASK, SAY]) == question_of([ASK]) == (Turn("user", "what she asked"),)
    for bad in ([SAY], [], None, [ASK, {"role": "x", "content": "y"}]):
        with pytest.raises(DataError):
            question_of(bad)
    with pytest.raises(DataError, match="speak last"):
        chat_of([ASK])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"prompt": "a"}, "with its response"),
        ({"response": "a"}, "with its response"),
        ({"prompt": "a", "response": "b", "messages": "c"}, "got both"),
        ({"prompt": "{", "response": "b"}, "expected '}'|brace|Single"),
        ({"prompt": "{a!r}", "response": "b"}, "something else"),
        ({"prompt": "{}", "response": "b"}, "something else"),
        ({"prompt": "{{}}", "response": "b"}, "expected a column"),
        ({"messages": "c", "labels": ["a", "b"]}, "expected none"),
        ({"messages": "c", "subject": "text"}, "no column of ids"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config.model_validate({"task": {"kind": "generation"}, "data": data})


def test_settings_of_a_language_model_are_for_one() -> None:
    with pytest.raises(ValueError, match="got messages"):
        Config.model_validate({"data": {"messages": "c"}})
    with pytest.raises(ValueError, match="max_memory"):
        Config.model_validate(
            {"task": {"kind": "generation"}, "runner": {"max_memory": "cpu=1GiB"}}
        )


PAIRS = DataConfig(text="premise", text_pair="claim", labels=("a", "b"))


def test_two_texts_are_one_row_and_each_is_looked_for(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"premise": "it rains", "claim": "it is wet", "label": "a"},
        {"premise": "it rains", "claim": " ", "label": "a"},
        {"premise": "it rains", "claim": None, "label": "a"},
        {"premise": None, "claim": "it is wet", "label": "a"},
        {"premise": " ", "claim": "it is wet", "label": "a"},
    ]
    path = _lines(tmp_path / "a.jsonl", rows)
    frame = pd.concat(list(Source([str(path)], PAIRS).chunks()))
    text = frame["premise"].iloc[0]
    assert pair_of(text) == ("it rains", "it is wet")
    assert texts_in(text)[1:] == ["it rains", "it is wet"]
    refused = RowValidator(PAIRS, PAIRS.labels).check(frame).refused
    assert refused == {
        2: ["column 'claim' holds no text"],
        3: ["column 'claim' holds no text"],
        4: ["the text is missing"],
        5: ["column 'premise' holds no text"],
    }
    kept = [f"{a} {b}" for a, b in zip(frame["premise"], frame["claim"], strict=True)]
    assert all("it rains" in each for each in kept[:3]) and "wet" in kept[3]


@pytest.mark.parametrize(
    "asked",
    [
        [("x", "y")],
        [["x", "y"]],
        [{"premise": "x", "claim": "y"}],
        {"premise": ["x"], "claim": ["y"]},
        {"premise": "x", "claim": "y"},
        pd.DataFrame({"claim": ["y"], "premise": ["x"], "more": [1]}),
        pd.DataFrame({"a": ["x"], "b": ["y"]}).to_numpy(),
    ],
    ids=lambda a: type(a).__name__,
)
def test_pairs_are_asked_as_lists_or_by_their_columns(asked: object) -> None:
    assert [pair_of(t) for t in pairs_of(asked, "premise", "claim")] == [("x", "y")]
    assert pairs_of([], "premise", "claim") == []


@pytest.mark.parametrize(
    "asked",
    [
        "x",
        ["x"],
        ["x", "y"],
        [("x",)],
        [("x", None)],
        [{"premise": "x"}],
        {"premise": ["x"]},
        5,
        pd.DataFrame({"a": ["x"], "b": ["y"]}),
        {"premise": ["x"], "claim": ["y", "z"]},
    ],
    ids=str,
)
def test_what_is_no_pair_is_refused(asked: object) -> None:
    with pytest.raises(DataError):
        pairs_of(asked, "premise", "claim")


def test_a_row_of_one_text_is_no_pair() -> None:
    for text in ("x", conversation_text([Turn("text", "x")]), conversation_text([ASKED, ASKED])):
        with pytest.raises(DataError, match="text_pair"):
            pair_of(text)


ASKED = Turn("text", "x")


@pytest.mark.parametrize(
    "settings",
    [
        {"task": {"kind": "generation"}, "data": {"text_pair": "b"}},
        {"data": {"text_pair": "b", "content": "image"}},
        {"data": {"text_pair": "text"}},
    ],
    ids=str,
)
def test_pairs_are_of_texts_that_have_a_label(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="text_pair"):
        Config.model_validate(settings)
