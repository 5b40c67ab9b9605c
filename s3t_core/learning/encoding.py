"""Rows to what a backbone reads. Texts become token ids, padded to the longest row of their batch;
images become pixels, all of one size. A batch depends on its own rows only.

What a row's `text` holds is decided by the backbone: a text, or, for a vision model, a PNG or JPEG
file in base64 (RFC 4648, section 4), prepared as the image processor beside the weights says.
"""

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from s3t_core.errors import DataError
from s3t_core.learning.backbone import Backbone, is_vision, load_image_processor, load_tokenizer
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.tasks.task import Target, Task
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
        lengths = self.lengths(items)
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


_FORMATS = ("PNG", "JPEG")
"""Pillow reads many more. For some (EPS) it writes the row to a file and starts another program."""


def _image(text: str) -> "PilImage":
    from PIL import Image, UnidentifiedImageError

    try:
        file = io.BytesIO(base64.b64decode(text, validate=True))
        return Image.open(file, formats=_FORMATS).convert("RGB")
    except (
        binascii.Error,
        ValueError,
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(
            "expected a PNG or JPEG file in base64 for a vision backbone, got "
            f"{type(error).__name__}; look at the column that [data] text names"
        ) from None


def load_reader(backbone: Backbone, recipe: Recipe) -> Reader:
    """The reader that belongs to a backbone."""
    if is_vision(backbone):
        return ImageReader(load_image_processor(backbone))
    return TextReader(load_tokenizer(backbone), recipe.max_length)


@dataclass(frozen=True)
class Encoded:
    """Items and targets of rows (learning.tasks). `states`: those that enter the layer where the
    computation is resumed, (positions, hidden) per row; None where it is not."""

    reader: Reader
    items: list[Item]
    targets: list[Target]
    states: list[Tensor] | None = None

    @property
    def lengths(self) -> list[int]:
        """What decides how rows are laid out in batches."""
        return self.reader.lengths(self.items)

    def batch(self, indices: list[int]) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """The model input, the states that go with it (rows, longest, hidden), and the
        targets (rows,) of some rows."""
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
            torch.tensor([self.targets[i] for i in indices]),
        )


def encode(
    reader: Reader,
    rows: list[Row],
    task: Task,
) -> Encoded:
    """Items and targets of `rows`, in their order. Raises DataError."""
    targets = task.targets(rows)
    return Encoded(
        reader,
        reader.items([r.text for r in rows]),
        targets,
    )


def in_order(parts: list[tuple[list[Row], Encoded]], reader: Reader) -> Encoded:
    """Rows of several slices as one, in record order."""
    numbered = sorted(
        (row, part, i) for part, (rows, _) in enumerate(parts) for i, row in enumerate(rows)
    )
    chosen = [(parts[part][1], i) for _, part, i in numbered]
    return Encoded(
        reader,
        [e.items[i] for e, i in chosen],
        [e.targets[i] for e, i in chosen],
        None
        if any(e.states is None for e, _ in chosen)
        else [e.states[i] for e, i in chosen if e.states is not None],
    )
