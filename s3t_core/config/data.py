"""The table [data] of `s3t.toml`: columns of the source, and what they may hold."""

import codecs
import unicodedata
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from s3t_core.config.encodings import UTF8, is_text_encoding, keeps_to_its_line
from s3t_core.config.sections import Positive, Section, no_nul
from s3t_core.identity import EXACT, STEPS


class DataConfig(Section):
    """Columns of the source, and what they may hold."""

    text: str = Field(
        "text",
        min_length=1,
        description="column with the text",
    )
    query: str = Field(
        "",
        description="what a source postgresql://USER@HOST/DATABASE is asked, as "
        '"SELECT customer, text, label FROM reviews"; "" = there is no such source',
    )
    text_pair: str = Field(
        "",
        description='column with a second text, which is read beside the first; "" = there is none',
    )
    content: Literal["text", "image"] = Field(
        "text",
        description='what the column of `text` holds: "text", or "image" (a PNG or JPEG file in '
        "base64, for a vision backbone)",
    )
    max_pixels: Positive = Field(
        50_000_000,
        description="an image of more pixels is quarantined",
    )
    label: str = Field(
        "label",
        min_length=1,
        description="column with the label",
    )
    subject: str = Field(
        "subject", min_length=1, description="column that names the data subject (the person)"
    )
    prompt: str = Field(
        "",
        description="generation: column with what a model is given; with braces, a template of "
        'such columns, as "{instruction}\\n{input}\\n"',
    )
    response: str = Field(
        "", description="generation: column with what it learns to say behind the prompt"
    )
    messages: str = Field(
        "",
        description="generation: column with a chat, a list of role and content; the assistant's "
        'turns are learnt. "" of all three: the column of `text` is',
    )
    record: str = Field(
        "", description='optional id column, unique within a subject; "" = the row\'s content'
    )
    labels: tuple[str, ...] = Field(
        (), description="every label there is, in order; other labels are quarantined"
    )
    held_out: float = Field(
        0.2, ge=0, lt=1, description="share of rows kept for measuring, 0 to below 1"
    )
    held_out_by: str = Field(
        "", description='column by which the held-out share is drawn; "" = by subject'
    )
    id_rule: tuple[str, ...] = Field(
        (),
        description='what does not tell two ids apart: "trim", "unicode", "case", '
        '"integer"; [] = ids as they are (docs/your-data.md)',
    )
    max_text_bytes: Positive = Field(
        65536, description="a longer text (UTF-8 bytes) is quarantined"
    )
    max_id_bytes: Positive = Field(
        512,
        description="a longer subject or record id is quarantined",
    )
    max_shrink: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of what is there (records, subjects) that a new "
        "snapshot may lack; more needs `s3t ingest --yes`",
    )

    delimiter: str = Field(
        "", description='of CSV files: one character; "" = a comma, or what fits the columns'
    )
    encoding: str = Field(
        "", description='of text files, as "cp1252"; "" = UTF-8, or what a mark at their begin says'
    )

    @field_validator(
        "text",
        "label",
        "subject",
        "record",
        "held_out_by",
        "text_pair",
        "prompt",
        "response",
        "messages",
    )
    @classmethod
    def _column(cls, value: str) -> str:
        return no_nul(value)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Where the ids of subjects and records stand ("" for none), and what text files are read
        in where that is not UTF-8: by each of them people may be others."""
        codec = codecs.lookup(self.encoding).name if self.encoding else ""
        read_in = () if codec in ("", *UTF8) else (codec,)
        return self.subject, self.record, *read_in

    @property
    def split_by(self) -> str:
        """The column by which the held-out share is drawn."""
        return self.held_out_by or self.subject

    @property
    def of_conversations(self) -> list[str]:
        """Which of the settings for language models are made."""
        return [name for name in ("prompt", "response", "messages") if getattr(self, name)]

    @property
    def form(self) -> str:
        """What a language model is asked with, where it is a text alone: a "chat" of one message, a
        "prompt", or the beginning of a "text"."""
        if self.messages:
            return "chat"
        return "prompt" if self.prompt else "text"

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The columns that the prompt is made of."""
        parts = _parts(self.prompt)
        return tuple(dict.fromkeys(column for _, column in parts if column is not None))

    @model_validator(mode="after")
    def _one_kind_of_conversation(self) -> "DataConfig":
        if self.messages and (self.prompt or self.response):
            raise ValueError("expected prompt and response, or messages, got both")
        if bool(self.prompt) != bool(self.response):
            raise ValueError(
                "expected a prompt with its response, got one of them; a text that is learnt whole "
                "needs neither: name its column as text"
            )
        if self.prompt and not self.prompt_columns:
            raise ValueError("expected a column in the template of the prompt, in braces, got none")
        return self

    def prompt_of(self, cells: Mapping[str, str | None]) -> str:
        """The prompt of a row, of whose cells a missing one says nothing."""
        return "".join(
            literal if column is None else cells[column] or ""
            for literal, column in _parts(self.prompt)
        )

    @field_validator(
        "id_rule",
        mode="before",
    )
    @classmethod
    def _id_rule(cls, value: object) -> tuple[str, ...]:
        steps = tuple(value) if isinstance(value, list | tuple) else (value,)
        if steps == (EXACT,):
            return steps
        if not all(step in STEPS for step in steps) or len(set(steps)) != len(steps):
            raise ValueError(
                f'expected a list of {", ".join(STEPS)}, each at most once, or ["{EXACT}"] alone, '
                f"got {list(steps)!r}"
            )
        return tuple(step for step in STEPS if step in steps)

    @field_validator(
        "labels",
        mode="before",
    )
    @classmethod
    def _labels(cls, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
            raise ValueError(_no_labels(value))
        if len(value) == 1 or len(set(value)) != len(value):
            raise ValueError("expected at least two labels, each once")
        if alike := _alike(value):
            raise ValueError(
                f"expected labels that differ, got {alike[0]!r} and {alike[1]!r}, which only "
                "blanks at their ends, or what nobody sees, tell apart; write each label once"
            )
        return tuple(value)

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str) -> str:
        if value and (len(value) != 1 or value in '\r\n" \0' or not value.isascii()):
            raise ValueError(
                'expected one character such as ";" or "\\t", no blank, quote or line end, got '
                f"{value!r}"
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        if value and not is_text_encoding(value):
            raise ValueError(
                'expected the name of an encoding such as "utf-8", "cp1252" or "utf-16", got '
                f"{value!r}"
            )
        if value and not keeps_to_its_line(value):
            raise ValueError(
                f"expected an encoding in which each line stands for itself, got {value!r}, in "
                "which a mark that one person's row leaves open changes what the next ones say; "
                "save the files as UTF-8"
            )
        return value


def _parts(prompt: str) -> list[tuple[str, str | None]]:
    """A prompt as literals and columns, in their order: a column alone, or a template with columns
    in braces, of which a doubled one is itself. Raises ValueError for a brace without the other."""
    if not {"{", "}"} & set(prompt):
        return [("", prompt)] if prompt else []
    found: list[tuple[str, str | None]] = []
    for literal, column, spec, conversion in Formatter().parse(prompt):
        if spec or conversion or column == "":
            raise ValueError(
                "expected columns in braces, as {instruction}, got something else in them"
            )
        found.append((literal, None))
        if column is not None:
            found.append(("", column))
    return found


def _no_labels(value: object) -> str:
    """What to write instead of a value that is no list of labels."""
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(v, str | int | float) and v != "" for v in value)
    ):
        texts = ", ".join(_quoted(v) for v in value[:20])
        texts += ", ..." if len(value) > 20 else ""
        return (
            f"expected labels that are strings, got {_kinds(value)}; write them as strings: "
            f"[{texts}]"
        )
    empty = ", one of them empty" if isinstance(value, list | tuple) and "" in value else ""
    return (
        'expected a list of non-empty strings such as ["yes", "no"], got '
        f"{type(value).__name__}{empty}"
    )


def _quoted(value: str | float) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _kinds(values: Iterable[object]) -> str:
    names = {
        bool: "true or false",
        int: "whole numbers",
        float: "numbers",
    }
    return " and ".join(dict.fromkeys(names[type(v)] for v in values if not isinstance(v, str)))


def _alike(labels: Iterable[str]) -> tuple[str, str] | None:
    """Two labels that look the same to whoever reads them."""
    seen: dict[str, str] = {}
    for label in labels:
        form = "".join(
            c
            for c in unicodedata.normalize("NFC", label)
            if unicodedata.category(c) not in ("Cf", "Cc")
        )
        if form.strip() in seen:
            return seen[form.strip()], label
        seen[form.strip()] = label
    return None
