"""That a backbone makes the same of a row each time, whatever it was asked before (hazard 18).

Some do not. Dynamic rotary embeddings are scaled by the longest row that a process has seen
(`rope_type` "dynamic"); masked autoencoders draw which part of a row they look at. A stage's bytes
would then hang on rows that it never saw, held-out ones and other slices' among them, and no key
says so.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from s3t_core.errors import UsageError

_SHORT = 2
_FALLBACK = 8


@torch.no_grad()
def check_repeats_itself(model: torch.nn.Module, max_length: int) -> None:
    """Ask a model for the states of some rows, then for those of a longer one, then again: rows of
    up to `max_length` tokens, or of fewer where it takes no more, or images. Raises UsageError
    where anything is other bytes then."""
    config = model.config
    if hasattr(config, "image_size") and not hasattr(config, "vocab_size"):
        _check(model, [_image(config, 1.0), _image(config, 2.0)])
        return
    words = int(getattr(config, "vocab_size", _FALLBACK))
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    for most in (max_length, min(max_length, positions - _SHORT), _FALLBACK):
        rows = [_text(n, words) for n in (most - 1, _SHORT, most) if n > 0]
        try:
            _check(model, rows)
        except (IndexError, RuntimeError, ValueError):
            continue  # it takes no rows of that length: what trains says so
        return


def _check(model: torch.nn.Module, rows: list[dict[str, Tensor]]) -> None:
    device = next(model.parameters()).device

    def states(row: dict[str, Tensor]) -> Tensor:
        made = model(**{name: each.to(device) for name, each in row.items()})
        found: Tensor = made.last_hidden_state
        return found.clone()

    if _differ(states, rows):
        raise UsageError(
            "expected a backbone that makes the same of a row each time, got one that draws, or "
            'that remembers what it was asked before (in config.json: a rope_type of "dynamic"; '
            "a model that masks what it reads): a stage would hang on rows that it never saw. Take "
            "a smaller [backbone] max_length, another setting there, or another backbone"
        )


def _differ(
    states: Callable[[dict[str, Tensor]], Tensor], rows: Iterable[dict[str, Tensor]]
) -> bool:
    """Whether any is another one the second time; the last, which is the longest, is asked once."""
    *again, longest = rows
    first = [states(row) for row in again]
    states(longest)
    return any(not torch.equal(states(row), made) for row, made in zip(again, first, strict=True))


def _text(length: int, words: int) -> dict[str, Tensor]:
    ids = torch.arange(length).remainder(max(1, min(words, 1000)))[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _image(config: object, scale: float) -> dict[str, Tensor]:
    size = getattr(config, "image_size", 1)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = int(getattr(config, "num_channels", 3))
    count = channels * int(height) * int(width)
    pixels = torch.linspace(-scale, scale, count).reshape(1, channels, int(height), int(width))
    return {"pixel_values": pixels}
