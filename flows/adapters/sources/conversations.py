"""Rows for a language model: their cells as one conversation (s3t_core.conversations), or why a row
is none."""

from collections.abc import Callable, Mapping, Sequence

from flows.adapters.sources.cells import (
    DECODER,
    Block,
    Columns,
    cell_text,
    chat_text,
    repeats_a_key,
    with_ids,
)
from s3t_core.config import DataConfig
from s3t_core.conversations import Turn, chat_of, conversation_text, pair_text, question_of
from s3t_core.errors import DataError

Cells = Mapping[str, str | None]


def with_conversations(
    block: Block,
    config: DataConfig,
    to_learn: bool = True,
) -> Block:
    """A block whose column of texts holds conversations, and whose column of labels nothing: a row
    asks for what it says. `to_learn`: with what a model is to say; else up to there. A cell that is
    missing leaves the text missing, for the checks to tell."""
    made, wrong = [], list(block.malformed)
    said = columns_said(config, to_learn)
    compose = _composer(config, to_learn)
    for place, values in enumerate(zip(*(block.cells[c] for c in said), strict=True)):
        try:
            made.append(compose(dict(zip(said, values, strict=True))))
        except DataError as error:
            made.append(None)
            wrong[place] = wrong[place] or str(error)
    cells = block.cells | {config.text: made, config.label: [""] * len(made)}
    return Block(cells, wrong)  # with what it was made of, for quarantine to keep


def with_pairs(block: Block, config: DataConfig) -> Block:
    """A block whose column of texts holds both texts of each row."""
    made, wrong = [], list(block.malformed)
    texts = zip(
        block.cells[config.text],
        block.cells[config.text_pair],
        strict=True,
    )
    for place, (first, second) in enumerate(texts):
        made.append(pair_text(first, second) if first and second else first)
        if first and not (second and second.strip()):
            wrong[place] = wrong[place] or f"column {config.text_pair!r} holds no text"
        elif first and not first.strip():
            wrong[place] = wrong[place] or f"column {config.text!r} holds no text"
    return Block(block.cells | {config.text: made}, wrong)


def columns_said(config: DataConfig, to_learn: bool) -> Sequence[str]:
    """The columns that a conversation is made of."""
    if config.messages:
        return [config.messages]
    if not config.prompt:
        return [config.text]
    response = [config.response] if to_learn else []
    return [*config.prompt_columns, *response]


def columns_of_conversations(
    config: DataConfig,
    tier_column: str = "",
    to_learn: bool = True,
) -> Columns:
    """The columns that the config names for a language model: those of what is said, and the ids.
    There is none of labels."""
    write = chat_text if config.messages else cell_text
    return with_ids(dict.fromkeys([tier_column, *columns_said(config, to_learn)], write), config)


def _composer(config: DataConfig, to_learn: bool) -> Callable[[Cells], str | None]:
    if config.messages:
        return lambda cells: _chat(cells[config.messages], to_learn)
    if config.prompt:
        return lambda cells: _answered(config, cells, to_learn)
    return lambda cells: _alone(cells[config.text])


def _alone(text: str | None) -> str | None:
    if text is None or not text.strip():
        return None
    return conversation_text([Turn("text", text)])


def _answered(
    config: DataConfig,
    cells: Cells,
    to_learn: bool,
) -> str | None:
    if not any(cells[column] for column in config.prompt_columns):
        return None
    prompt = config.prompt_of(cells)
    if not to_learn:
        return conversation_text([Turn("prompt", prompt)])
    response = cells[config.response] or ""
    if not response.strip():
        raise DataError(f"column {config.response!r} says nothing that could be learnt")
    return conversation_text([Turn("prompt", prompt), Turn("response", response)])


def _chat(messages: str | None, to_learn: bool) -> str | None:
    if messages is None:
        return None
    try:
        found = DECODER.decode(messages)
    except (ValueError, RecursionError):
        raise DataError("expected a list of messages as JSON, got another text") from None
    if repeats_a_key(found):
        raise DataError("expected each key once in a message, got one that stands twice")
    if to_learn:
        return conversation_text(chat_of(found))
    return conversation_text(question_of(found))
