"""Rows to what a backbone reads. Texts become token ids, padded to the longest row of their batch;
images become pixels, all of one size. A batch depends on its own rows only.

What a row's `text` holds is decided by the backbone: a text, or, for a vision model, a PNG or JPEG
file in base64 (RFC 4648, section 4), prepared as the image processor beside the weights says.
"""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL.Image import DecompressionBombError
from torch import Tensor

from s3t_core.conversations import ANSWER, Conversation, Turn, pair_of, shape_of, turns_of
from s3t_core.errors import DataError, UsageError
from s3t_core.images import read_image
from s3t_core.learning.backbone import Backbone, is_vision, load_image_processor, load_tokenizer
from s3t_core.learning.chat_template import template_of, write_chat
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.tasks import writes_text
from s3t_core.learning.tasks.task import NOT_LEARNT, Target, Task
from s3t_core.records import Row

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Item = list[int] | Tensor
"""One row as the backbone reads it: token ids, or float32 pixels (channels, height, width)."""


class Reader(Protocol):
    """Texts to items, items to a batch."""

    def items(self, texts: list[str]) -> list[Item]:
        """Each text as the backbone reads it. Raises DataError."""

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """What decides how rows are laid out in batches: tokens, or 1 where all rows have one
        size."""

    def batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """The model's input for some rows."""

    def weight(self, items: Sequence[Item]) -> int:
        """About how many positions their batch has."""


@dataclass(frozen=True)
class TextReader:
    """For encoders and decoders; token ids, special tokens included, cut at `max_length`."""

    tokenizer: Any
    max_length: int

    def items(self, texts: list[str]) -> list[Item]:
        """Token ids of each text."""
        return (
            list(
                self.tokenizer(
                    texts,
                    truncation=True,
                    max_length=self.max_length,
                )["input_ids"]
            )
            if texts
            else []
        )

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Tokens per row."""
        return [len(i) for i in items]

    def batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """(rows, longest) int64 `input_ids` and `attention_mask`; the filling is masked: its id
        reaches no answer."""
        lengths = [len(i) for i in items]
        longest = max(lengths)
        filling = self.tokenizer.pad_token_id or 0
        ids, mask = [], []
        for item, length in zip(items, lengths, strict=True):
            missing = longest - length
            ids.append([*item, *[filling] * missing])
            mask.append([1] * length + [0] * missing)
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def weight(self, items: Sequence[Item]) -> int:
        """Tokens, padding included."""
        return len(items) * max(self.lengths(items))


@dataclass(frozen=True)
class PairReader(TextReader):
    """For two texts a row, as the tokenizer puts them together. Items are (2, tokens) int64: ids,
    and which of the two each is of, where the backbone asks that."""

    def items(self, texts: list[str]) -> list[Item]:
        """Tokens of each pair, cut at `max_length` in all, the longer text first."""
        pairs = [pair_of(text) for text in texts]
        if not pairs:
            return []
        firsts, seconds = (list(each) for each in zip(*pairs, strict=True))
        encoded = self.tokenizer(
            firsts,
            seconds,
            truncation="longest_first",
            max_length=self.max_length,
        )
        ids = encoded["input_ids"]
        sides = encoded["token_type_ids"] if self._asks_sides else [[0] * len(i) for i in ids]
        return [torch.tensor(each) for each in zip(ids, sides, strict=True)]

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Tokens per row."""
        return [torch.as_tensor(i).shape[1] for i in items]

    def batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """As of texts, with `token_type_ids` where the backbone asks for them."""
        tensors = [torch.as_tensor(i) for i in items]
        batch = TextReader.batch(self, [list(map(int, i[0])) for i in tensors])
        if self._asks_sides:
            sides = [i[1] for i in tensors]
            batch["token_type_ids"] = torch.nn.utils.rnn.pad_sequence(sides, batch_first=True)
        return batch

    @property
    def _asks_sides(self) -> bool:
        return "token_type_ids" in self.tokenizer.model_input_names


@dataclass(frozen=True)
class ImageReader:
    """For vision models: every image is brought to the size that the processor asks for."""

    processor: Any

    def items(self, texts: list[str]) -> list[Item]:
        """Pixels of each image. Raises DataError for what is no base64 of an image; it names no
        row."""
        return [self.processor(_image(t), return_tensors="pt")["pixel_values"][0] for t in texts]

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """All alike."""
        return [1] * len(items)

    def batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """(rows, channels, height, width) float32 `pixel_values`."""
        return {"pixel_values": torch.stack([torch.as_tensor(i) for i in items])}

    def weight(self, items: Sequence[Item]) -> int:
        """As many as patches of 16 x 16 pixels."""
        return sum(torch.as_tensor(i)[0].numel() for i in items) // 256


@dataclass(frozen=True)
class ConversationReader(TextReader):
    """For language models; token ids of conversations (s3t_core.conversations).

    Plain rows are the tokens of the prompt and those of the response, behind the tokenizer's token
    of a beginning and before that of an end, where it has them. Chats are as the tokenizer's own
    template has them, piece by piece: what stands before each answer, and the answer. A row is cut
    to `max_length` by itself: its last answer at its end, then what stands before at its beginning;
    so something is left to learn of every row, and rows are never packed into one.
    """

    def items(self, texts: list[str]) -> list[Item]:
        """Token ids of each conversation, to learn from."""
        return self.examples(texts)[0]

    def examples(self, texts: list[str]) -> tuple[list[Item], list[Target]]:
        """Token ids of each conversation, and which of them are learnt. Raises DataError for a text
        that is none."""
        items: list[Item] = []
        targets: list[Target] = []
        for text in texts:
            ids, learnt = self._cut(self._tokens(turns_of(text)))
            items.append(ids)
            targets.append([i if is_learnt else NOT_LEARNT for i, is_learnt in learnt])
        return items, targets

    def question(self, turns: Conversation) -> list[int]:
        """Token ids of what a model is to go on with: a chat that ends with the user, a prompt, the
        beginning of a text."""
        if shape_of(turns) == "chat":
            return self._ids(self._written(turns, asks=True))
        return [*self._edge("bos"), *self._ids(turns[0].content)]

    @property
    def ends(self) -> frozenset[int]:
        """Tokens by which a model ends: the tokenizer's, and what its template has behind an
        answer."""
        found = set(self._edge("eos"))
        if self.tokenizer.chat_template:
            asked, said = Turn("user", "a"), Turn(ANSWER, "b")
            behind = self._written((asked, said), asks=False).rpartition("b")[2]
            found |= set(self._ids(behind)[:1]) & set(self.tokenizer.all_special_ids)
        return frozenset(found)

    def text(self, ids: list[int]) -> str:
        """What tokens say, those that only mark something left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _tokens(self, turns: Conversation) -> list[tuple[int, bool]]:
        """Each token, and whether it is learnt."""
        if shape_of(turns) == "chat":
            pieces = self._pieces(turns)
            return [(i, learnt) for part, learnt in pieces for i in self._ids(part)]
        found = [(i, False) for i in self._edge("bos")]
        found += [(i, t.is_learnt) for t in turns for i in self._ids(t.content)]
        return found + [(i, True) for i in self._edge("eos")]

    def _cut(self, tokens: list[tuple[int, bool]]) -> tuple[list[int], list[tuple[int, bool]]]:
        """At most `max_length` tokens, of which one at least is learnt, and not the first."""
        last = len(tokens)
        while last and tokens[last - 1][1]:
            last -= 1
        begin = max(0, min(last - 1, len(tokens) - self.max_length))
        kept = tokens[begin : begin + self.max_length]
        return [i for i, _ in kept], kept

    def _pieces(self, turns: Conversation) -> list[tuple[str, bool]]:
        """What stands before each answer, and the answers, in their order. Raises UsageError for a
        template by which an answer changes what stands before it."""
        pieces: list[tuple[str, bool]] = []
        written = ""
        for number, turn in enumerate(turns):
            if not turn.is_learnt:
                continue
            before = self._written(turns[:number], asks=True)
            whole = self._written(turns[: number + 1], asks=False)
            if not before.startswith(written) or not whole.startswith(before):
                raise UsageError(
                    "expected a chat template that writes each message behind those before it, got "
                    "one that changes them; take another tokenizer, or rows of prompt and response"
                )
            pieces += [(before[len(written) :], False), (whole[len(before) :], True)]
            written = whole
        return pieces

    def _written(self, turns: Conversation, asks: bool) -> str:
        """A chat as the tokenizer's template writes it, up to where the assistant begins if it
        `asks`. Raises UsageError where there is no template that writes the same each time (hazard
        16)."""
        template = template_of(self.tokenizer.chat_template)
        messages = [{"role": t.role, "content": t.content} for t in turns]
        return write_chat(template, messages, asks, self.tokenizer.special_tokens_map)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _edge(self, which: str) -> list[int]:
        """The token of a beginning ("bos") or an end ("eos"), where there is one."""
        found = getattr(self.tokenizer, f"{which}_token_id")
        return [] if found is None else [int(found)]


def _image(text: str) -> "PilImage":
    try:
        return read_image(text).convert("RGB")
    except (ValueError, OSError, SyntaxError, DecompressionBombError) as error:
        got = "no base64" if isinstance(error, binascii.Error) else type(error).__name__
        raise DataError(
            f"expected a PNG or JPEG file in base64 for a vision backbone, got {got}; look at the "
            "column that [data] text names"
        ) from None


def load_reader(backbone: Backbone, recipe: Recipe) -> Reader:
    """The reader that belongs to a backbone."""
    if is_vision(backbone):
        return ImageReader(load_image_processor(backbone))
    if writes_text(recipe):
        return ConversationReader(load_tokenizer(backbone), recipe.max_length)
    if recipe.task.get("pairs"):
        return PairReader(load_tokenizer(backbone), recipe.max_length)
    return TextReader(load_tokenizer(backbone), recipe.max_length)


@dataclass(frozen=True)
class Encoded:
    """Items and targets of rows (learning.tasks). `states`: those that enter the layer where the
    computation is resumed, (positions, hidden) per row; None where it is not."""

    reader: Reader
    task: Task
    items: list[Item]
    targets: list[Target]
    states: list[Tensor] | None = None

    @property
    def lengths(self) -> list[int]:
        """What decides how rows are laid out in batches."""
        return self.reader.lengths(self.items)

    def batch(self, indices: list[int]) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """The model input, the states that go with it (rows, longest, hidden), and the
        targets of some rows, as the task's loss takes them."""
        states = (
            None
            if self.states is None
            else torch.nn.utils.rnn.pad_sequence(
                [self.states[i] for i in indices], batch_first=True
            )
        )
        return (
            self.reader.batch([self.items[i] for i in indices]),
            states,
            self.task.stacked([self.targets[i] for i in indices]),
        )


def encode(
    reader: Reader,
    rows: list[Row],
    task: Task,
) -> Encoded:
    """Items and targets of `rows`, in their order. Raises DataError."""
    texts = [r.text for r in rows]
    if isinstance(reader, ConversationReader):
        items, learnt = reader.examples(texts)
        return Encoded(reader, task, items, learnt)
    targets = task.targets(rows)
    return Encoded(
        reader,
        task,
        reader.items(texts),
        targets,
    )


def in_order(
    parts: list[tuple[list[Row], Encoded]],
    reader: Reader,
    task: Task,
) -> Encoded:
    """Rows of several slices as one, in record order."""
    numbered = sorted(
        (row, part, i) for part, (rows, _) in enumerate(parts) for i, row in enumerate(rows)
    )
    chosen = [(parts[part][1], i) for _, part, i in numbered]
    return Encoded(
        reader,
        task,
        [e.items[i] for e, i in chosen],
        [e.targets[i] for e, i in chosen],
        None
        if any(e.states is None for e, _ in chosen)
        else [e.states[i] for e, i in chosen if e.states is not None],
    )
