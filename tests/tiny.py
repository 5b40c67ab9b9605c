"""Tiny backbones built in code, with a tokenizer or image processor: real training in well under a
second a stage."""

import base64
import io
from pathlib import Path

import numpy
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

WORDS = [f"w{i}" for i in range(60)]


def build_backbone(path: Path, layers: int = 3, seed: int = 1) -> Path:
    """A random BERT of `layers` layers, hidden size 16, saved as safetensors with its tokenizer."""
    torch.manual_seed(seed)
    vocabulary = _vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(path)
    return _with_tokenizer(path, vocabulary)


def build_decoder(path: Path, layers: int = 3, seed: int = 1) -> Path:
    """A random Llama of `layers` layers with two key-value heads of four, and the same
    tokenizer."""
    torch.manual_seed(seed)
    vocabulary = _vocabulary()
    LlamaModel(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    ).save_pretrained(path)
    return _with_tokenizer(path, vocabulary)


CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }} [END] {% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
"""A chat template whose marks are words of their own."""
_MARKS = ("[PAD]", "[UNK]", "[BOS]", "[END]", "[system]", "[user]", "[assistant]")


def build_language_model(
    path: Path, layers: int = 3, seed: int = 1, tied: bool = True, template: str | None = CHAT
) -> Path:
    """A random Llama that writes, with a tokenizer of whole words that has a chat template."""
    torch.manual_seed(seed)
    vocabulary = {t: i for i, t in enumerate([*_MARKS, *WORDS])}
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.3,  # words that can be told apart
        )
    ).save_pretrained(path)
    raw = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[END]",
        extra_special_tokens=list(_MARKS[4:]),
        chat_template=template,
    ).save_pretrained(path)
    return path


def build_vision(path: Path, layers: int = 3, seed: int = 1) -> Path:
    """A random ViT of `layers` layers for images of 8 x 8 pixels, with its image processor."""
    torch.manual_seed(seed)
    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
        )
    ).save_pretrained(path)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(path)
    return path


def picture(number: int) -> str:
    """A PNG of 10 x 12 pixels in base64, another for each number."""
    pixels = numpy.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=numpy.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def build_mamba(path: Path) -> Path:
    """A random Mamba of two layers: it computes by convolutions, and transformers takes other
    packages for them."""
    from transformers import MambaConfig, MambaModel

    vocabulary = _vocabulary()
    torch.manual_seed(3)
    MambaModel(
        MambaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            state_size=8,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
        )
    ).save_pretrained(path)
    return _with_tokenizer(path, vocabulary)


def _vocabulary() -> dict[str, int]:
    return {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}


def _with_tokenizer(path: Path, vocabulary: dict[str, int]) -> Path:
    raw = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(path)
    return path
