"""A fingerprint of what this machine computes: SHA-256 over the exact bytes of fixed computations.

Library versions and the CPU's capability do not decide the bits of a stage: environment variables
such as ONEDNN_MAX_CPU_ISA or MKL_CBWR, and the maker of the CPU, choose other kernels under the
same versions (measured). So the numeric profile also says what comes out, of the computations that
a stage is made of:

1. matrix products in float32 and, as frozen layers may multiply, in bfloat16 (learning.precision),
   even and odd shapes
2. a block of a transformer, forward and backward: embeddings, layer norm, eager attention, GELU,
   adapter, head, loss
3. AdamW steps on what the backward pass gave, and the powers that AdamW takes of its rates
4. the scaling of an image's pixels, as image processors do it, by numpy
5. on a GPU, all of this there and on the CPU, where the fresh weights of a stage are drawn, and
   those draws: they differ by the instructions that the CPU has (measured)

Their inputs are integers scaled by exact arithmetic: no random generator and no file decides them.
Equal fingerprints are evidence and no proof: a kernel that only other shapes reach may differ.
"""

import contextlib
import hashlib
import math
import struct
from collections.abc import Iterator
from functools import cache

import numpy
import torch
from torch import Tensor
from torch.nn import functional

_SHAPES = (
    (1, 384, 384),
    (7, 13, 29),
    (5, 20, 3),
    (16, 16, 32),
    (33, 384, 384),
    (108, 384, 8),
    (108, 8, 384),
    (28, 384, 1536),
    (28, 1536, 384),
    (17, 1025, 31),
    (160, 384, 384),
)
"""(rows, inputs, outputs) of products: those of MiniLM and of tiny models, and odd ones."""
_BATCH, _TOKENS, _HIDDEN, _HEADS, _RANK, _LABELS, _WORDS = 3, 23, 96, 4, 4, 5, 50
_STEPS = 2
_PERIOD = 4099


@cache
def fingerprint(threads: int, device: str = "cpu") -> str:
    """What `device` computes on so many threads, as 64 hex digits. Computed once in a process."""
    digest = hashlib.sha256()
    with _as_a_stage(threads):
        for tensor in _decisive(device):
            digest.update(tensor.detach().to("cpu", torch.float32).numpy().tobytes())
    digest.update(
        struct.pack("<400d", *(rate**step for rate in (0.9, 0.999) for step in range(1, 201)))
    )
    digest.update(_pixels().tobytes())
    return digest.hexdigest()


def keep_denormals() -> None:
    """Let this thread compute with numbers too small to be normal, and not take them for zero. It
    is a switch of the CPU, which libraries built for speed turn over when they are loaded, with no
    variable that says so; the threads that this one starts have it as it is here."""
    torch.set_flush_denormal(False)


@contextlib.contextmanager
def _as_a_stage(threads: int) -> Iterator[None]:
    """The settings that stages are trained under; afterwards those of before."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    keep_denormals()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _decisive(device: str) -> Iterator[Tensor]:
    yield from _computed(device)
    if device != "cpu":
        yield from _computed("cpu")
        yield from _drawn()


def _drawn() -> Iterator[Tensor]:
    """Fresh weights as adapters and heads begin with, of a generator of their own."""
    for rows, columns in ((_RANK, _HIDDEN), (_LABELS, _HIDDEN), (1, 7)):
        generator = torch.Generator()
        generator.manual_seed(rows)
        weight = torch.empty(rows, columns)
        yield weight.normal_(generator=generator)
        weight = torch.empty(rows, columns)
        yield weight.uniform_(generator=generator)


def _computed(device: str) -> Iterator[Tensor]:
    for number, (rows, inputs, outputs) in enumerate(_SHAPES):
        yield from _products(
            _values(rows, inputs, device=device, salt=number),
            _values(
                outputs,
                inputs,
                device=device,
                salt=number + 100,
            ),
        )
    for gradual in (False, True):
        yield from _trained_block(device, gradual)


def _products(left: Tensor, right: Tensor) -> Iterator[Tensor]:
    """As a linear layer with bias, in float32 and as LowPrecisionLinear; the gradients of both
    factors."""
    bias = right[:, 0].contiguous()
    yield functional.linear(left, right, bias)
    yield (
        functional.linear(left.to(torch.bfloat16), right.to(torch.bfloat16)).to(torch.float32)
        + bias
    )
    given = functional.linear(left, right)
    yield given @ right
    yield given.T @ left


def _trained_block(device: str, low: bool) -> Iterator[Tensor]:
    """Losses, and parameters after a few steps; `low`: with frozen products in bfloat16."""
    kept = torch.bfloat16 if low else torch.float32
    frozen = {
        name: (_values(_HIDDEN, _HIDDEN, device=device, salt=salt) / 8).to(kept)
        for salt, name in enumerate(("query", "key", "value", "out", "up", "down"))
    }
    words = _values(_WORDS, _HIDDEN, device=device, salt=7).requires_grad_()
    down = _values(_RANK, _HIDDEN, device=device, salt=8).requires_grad_()
    up = _values(_HIDDEN, _RANK, device=device, salt=9).requires_grad_()
    head = _values(_LABELS, _HIDDEN, device=device, salt=10).requires_grad_()
    trained = [words, down, up, head]
    optimizer = torch.optim.AdamW(
        trained,
        lr=2e-3,
        weight_decay=0.01,
    )
    ids = torch.arange(_BATCH * _TOKENS, device=device).reshape(_BATCH, _TOKENS) * 7 % _WORDS
    labels = torch.arange(_BATCH, device=device) % _LABELS
    for _ in range(_STEPS):
        states = functional.layer_norm(functional.embedding(ids, words), (_HIDDEN,))
        states = states + _attention(
            states, frozen, functional.linear(functional.linear(states, down), up)
        )
        states = functional.layer_norm(states, (_HIDDEN,))
        states = states + _linear(functional.gelu(_linear(states, frozen["up"])), frozen["down"])
        logits = functional.linear(
            torch.tanh(states.mean(1)) + torch.nn.functional.silu(states[:, 0]), head
        )
        loss = functional.cross_entropy(logits, labels)
        yield loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    yield from trained


def _attention(
    states: Tensor,
    frozen: dict[str, Tensor],
    update: Tensor,
) -> Tensor:
    """Eager attention with a padded last token; `update`: what an adapter adds to the queries."""

    def heads(name: str, more: Tensor | float = 0.0) -> Tensor:
        found = _linear(states, frozen[name]) + more
        return found.view(_BATCH, _TOKENS, _HEADS, -1).transpose(1, 2)

    scale = (_HIDDEN // _HEADS) ** -0.5
    scores = heads("query", update) @ heads("key").transpose(2, 3) * scale
    scores = scores.masked_fill(
        torch.arange(_TOKENS, device=states.device) == _TOKENS - 1, torch.finfo(scores.dtype).min
    )
    mixed = torch.softmax(scores, dim=-1, dtype=torch.float32) @ heads("value")
    return _linear(
        mixed.transpose(1, 2).reshape(
            _BATCH,
            _TOKENS,
            _HIDDEN,
        ),
        frozen["out"],
    )


def _linear(states: Tensor, weight: Tensor) -> Tensor:
    """A frozen layer: in the precision of its weight, float32 in and out."""
    return functional.linear(states.to(weight.dtype), weight).to(torch.float32)


def _pixels() -> numpy.ndarray:
    """(56, 56, 3) float32: pixels rescaled and normalised."""
    numbers = numpy.arange(56 * 56 * 3) * 31 % 256
    pixels = numbers.reshape(56, 56, 3).astype(numpy.uint8)
    scaled = pixels.astype(numpy.float32) * numpy.float32(1 / 255)
    return (scaled - numpy.float32(0.485)) / numpy.float32(0.229)


def _values(
    *shape: int,
    device: str,
    salt: int,
) -> Tensor:
    """A tensor of float32 between -1 and 1, all of them multiples of 2^-10: exact, so no kernel
    decides them."""
    count = math.prod(shape)
    numbers = (torch.arange(_PERIOD) * 7919 + salt * 613) % 2039 - 1019
    return (
        (numbers.to(torch.float32) / 1024)
        .repeat(count // _PERIOD + 1)[:count]
        .reshape(shape)
        .to(device)
    )
