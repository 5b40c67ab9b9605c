"""Adapter kinds: which peft method a config names, and why the others are refused.

A kind will do if its weights lie in single modules, so that an adapter on one block holds nothing
of another: then stages can be trained, silenced and destroyed one by one (method.md, "Training a
replica"). Only LoRA adds a product that rows of different shards can get in one batch; the other
kinds answer shard by shard.
"""

from collections.abc import Callable, Mapping
from typing import Any

from peft import IA3Config, LoKrConfig, LoraConfig, OFTConfig, PeftConfig

ONE_PASS_KINDS = frozenset({"lora"})
"""Kinds whose shards can answer in one pass (learning.batched_shards)."""


def adapter_config(adapter: Mapping[str, Any], targets: list[str]) -> PeftConfig:
    """The peft config of an adapter (the [adapter] section) on exactly the modules `targets`: a
    no-op when fresh."""
    return _KINDS[adapter["kind"]](adapter, targets)


def _lora(adapter: Mapping[str, object], targets: list[str]) -> PeftConfig:
    return LoraConfig(
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        use_rslora=adapter["rslora"],
        use_dora=adapter["kind"] == "dora",
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
    )


def _ia3(_: Mapping[str, object], targets: list[str]) -> PeftConfig:
    return IA3Config(
        target_modules=targets, feedforward_modules=[]
    )  # every target's output is scaled


def _oft(adapter: Mapping[str, object], targets: list[str]) -> PeftConfig:
    return OFTConfig(
        r=adapter["rank"], oft_block_size=0, target_modules=targets, module_dropout=0.0, bias="none"
    )


def _lokr(adapter: Mapping[str, object], targets: list[str]) -> PeftConfig:
    return LoKrConfig(
        r=adapter["rank"],
        alpha=adapter["alpha"],
        target_modules=targets,
    )


_KINDS: dict[str, Callable[[Mapping[str, object], list[str]], PeftConfig]] = {
    "lora": _lora,
    "dora": _lora,
    "ia3": _ia3,
    "oft": _oft,
    "lokr": _lokr,
}
