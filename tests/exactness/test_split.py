"""A backbone that is resumed at a layer gives the bytes it gives when computed whole: encoders,
decoders, vision."""

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
)

from s3t_core.errors import GuaranteeError
from s3t_core.learning.split import SplitBackbone

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_hidden_layers": 5,
}
MODELS: dict[str, Any] = {
    "BERT": lambda: BertModel(BertConfig(**SMALL)),
    "DistilBERT": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=16, n_layers=5)
    ),
    "ModernBERT": lambda: ModernBertModel(
        ModernBertConfig(
            **SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
        )
    ),
    "Llama": lambda: LlamaModel(LlamaConfig(**SMALL)),
    "GPT-2": lambda: GPT2Model(
        GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=5, bos_token_id=1, eos_token_id=2)
    ),
    "ViT": lambda: ViTModel(
        ViTConfig(
            **{k: v for k, v in SMALL.items() if k != "vocab_size"}, image_size=16, patch_size=4
        )
    ),
}


def _batch(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    if name == "ViT":
        return {"pixel_values": torch.randn(3, 3, 16, 16)}
    ids, mask = torch.randint(3, 40, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_resumed_at_any_layer_a_backbone_gives_the_same_bytes(name: str) -> None:
    model, batch = MODELS[name]().eval(), _batch(name)
    expected = model(**batch).last_hidden_state
    split = SplitBackbone(model)
    entering = split.entering(batch, range(5))
    assert sorted(entering) == [0, 1, 2, 3, 4]
    for layer, states in entering.items():
        assert torch.equal(split.resumed(batch, layer, states), expected)
        assert not torch.equal(
            split.resumed(batch, layer, states + 1), expected
        )  # they are what it computes from
    assert torch.equal(split.states(batch), expected)  # and it is whole again
    assert torch.equal(split.resumed(batch, 3, split.entering(batch, [3])[3]), expected)


def test_a_backbone_whose_layers_share_more_is_known_and_always_computed_whole() -> None:
    model = T5EncoderModel(
        T5Config(vocab_size=40, d_model=16, d_ff=16, num_layers=5, num_heads=2, d_kv=8)
    ).eval()
    batch = _batch("T5")
    expected = model(**batch).last_hidden_state
    split = SplitBackbone(model)
    assert not split.resumes(batch) and torch.equal(split.states(batch), expected)
    with pytest.raises(GuaranteeError, match="shares more"):
        split.resumed(batch, 2, torch.zeros(3, 7, 16))
