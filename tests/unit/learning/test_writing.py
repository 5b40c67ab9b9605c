"""One word of what the shards say together: the likeliest, or one that is drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.learning.writing import _chosen, _generator


@given(
    st.floats(0, 10, exclude_min=True, allow_subnormal=True),
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9),
)
def test_every_temperature_draws_a_word(temperature: float, weights: list[float]) -> None:
    """However small it is: divided by it, all but the likeliest is out of reach."""
    chances = torch.tensor([weights])
    (word,) = _chosen(chances, temperature, [_generator(1, 0)])
    assert 0 <= word < len(weights)
    if temperature < 1e-12:
        spread = sorted(max(w, 1.2e-38) for w in weights)
        if spread[-2] < 0.9 * spread[-1]:
            assert word == int(chances.argmax())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_words_are_drawn_as_often_as_the_temperature_says(temperature: float) -> None:
    chances = torch.tensor([[0.1, 0.3, 0.6]]).repeat(4000, 1)
    draws = [_generator(7, place) for place in range(4000)]
    counts = torch.bincount(torch.tensor(_chosen(chances, temperature, draws)), minlength=3) / 4000
    wanted = chances[0] ** (1 / temperature)
    assert torch.allclose(counts, wanted / wanted.sum(), atol=0.03)
