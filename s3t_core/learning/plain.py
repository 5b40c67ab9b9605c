"""All live shards as one ordinary checkpoint of their backbone's own class, for whoever runs it
without this system: a merged model (learning.merged), which `transformers` loads by itself.

Only where that means the same. A language model's stages have no head of their own, so every one
can be written. Labels can where the class that the architecture has for them is its last states,
pooled as here, times one matrix: its own layers in between (BERT's pooler) were never trained, and
a matrix without a bias (Llama's) cannot say what a head here says. Nothing here knows BERT: the
class is asked, what was written is read back, and its answers are held against those of the shards,
bit by bit.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from s3t_core.domain import Release
from s3t_core.errors import GuaranteeError, NoLiveShard, UsageError
from s3t_core.learning.backbone import (
    Backbone,
    check_backbone,
    is_pooler,
    is_vision,
    load_image_processor,
    load_settings,
    load_tokenizer,
)
from s3t_core.learning.batched_shards import load_shards
from s3t_core.learning.encoding import ConversationReader, load_reader
from s3t_core.learning.merged import HEAD, merge_shards
from s3t_core.learning.recipe import Recipe, in_float32
from s3t_core.learning.replica import StagedModel, load_staged
from s3t_core.learning.split import Batch
from s3t_core.learning.tasks import writes_text

if TYPE_CHECKING:
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

_PROBES = ("a few words", "words", "and some more of them, so that rows have several lengths")
"""Nobody's rows, by which two models are held against each other."""
_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
}
"""What `transformers` calls a task, of those whose answers its classes give."""


def write_plain(
    backbone: Backbone,
    recipe: Recipe,
    release: Release,
    artifact: Callable[[str], bytes],
    folder: Path,
) -> None:
    """Write the merged model of a release's live shards into `folder`: weights in float32
    (safetensors), config, tokenizer or image processor. Equal shards give equal weights.

    `artifact` returns the verified bytes of a stage digest. Raises NoLiveShard; UsageError where
    the architecture's own class does not mean the same; BackboneChanged, ArtifactError; and
    GuaranteeError where what was written, read back, answers otherwise.
    """
    check_backbone(backbone, recipe.backbone_digest, recipe.tokenizer_digest)
    if not any(replica.stages for replica in release.replicas):
        raise NoLiveShard(
            "every shard is dead: the stages that are left all saw erased records, so there is "
            "nothing to export; run `s3t retrain`"
        )
    shell = _shell_of(backbone, recipe)
    staged = load_staged(backbone, in_float32(recipe))
    merge_shards(staged, load_shards(staged, release, artifact))
    batch = _probe(backbone, recipe)
    expected = _answers(staged, batch)
    _fill(shell, staged)
    if writes_text(recipe):
        shell.generation_config = _how_to_write(backbone, recipe)
    device = staged.split.device
    del staged
    shell.save_pretrained(folder, safe_serialization=True)
    processor = load_image_processor if is_vision(backbone) else load_tokenizer
    processor(backbone).save_pretrained(folder)
    kind = type(shell)
    del shell
    _check_written(kind, folder, batch, expected, device)
    if not is_vision(backbone):
        _check_tokens(backbone, folder)


def _shell_of(backbone: Backbone, recipe: Recipe) -> PreTrainedModel:
    """The architecture's own class for the task, without weights. Raises UsageError where there is
    none, or it has more between the last states and the labels than a head here has."""
    config = load_settings(backbone.path)
    if writes_text(recipe):
        return _of_class(AutoModelForCausalLM, config)
    kind = str(recipe.task.get("kind", "classification"))
    if kind not in _PROBLEMS:
        raise _otherwise(
            f'[task] kind = "{kind}" answers otherwise than a plain checkpoint does (regression: '
            "within the declared range)"
        )
    config.problem_type = _PROBLEMS[kind]
    config.id2label = dict(enumerate(recipe.labels))
    config.label2id = {label: i for i, label in enumerate(recipe.labels)}
    vision = is_vision(backbone)
    auto = AutoModelForImageClassification if vision else AutoModelForSequenceClassification
    if not vision and config.pad_token_id is None:
        config.pad_token_id = load_tokenizer(backbone).pad_token_id or 0
    shell = _of_class(auto, config)
    _head_of(shell)
    return shell


def _of_class(auto: "type[_BaseAutoModelClass]", config: PreTrainedConfig) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            shell: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    except ValueError:
        raise _otherwise("transformers has no class for this task on this architecture") from None
    return shell


def _head_of(shell: PreTrainedModel) -> torch.nn.Linear:
    """The one matrix that stands between the last states and the labels. Raises UsageError."""
    below = {id(p) for p in shell.base_model.parameters()}
    poolers = [n for n, _ in shell.base_model.named_parameters() if is_pooler(n)]
    own = [m for m in shell.modules() if isinstance(m, torch.nn.Linear)]
    heads = [m for m in own if id(m.weight) not in below]
    besides = [p for p in shell.parameters() if id(p) not in below]
    held = [p for m in heads for p in m.parameters()]
    name = type(shell).__name__
    if len(heads) != 1 or len(besides) != len(held) or poolers:
        raise _otherwise(
            f"{name} has layers of its own between the last states and the labels, which nobody "
            "trained"
        )
    if heads[0].bias is None:
        raise _otherwise(f"the head of {name} has no bias, and a head here has one")
    return heads[0]


def _otherwise(why: str) -> UsageError:
    return UsageError(
        "expected a model whose own class in transformers means the same as its shards do, got one "
        f"of which that is not so: {why}. Load it from the registry (docs/serving.md)"
    )


@torch.no_grad()
def _fill(shell: PreTrainedModel, staged: StagedModel) -> None:
    """Put the merged weights into their class."""
    state = staged.model.state_dict()
    loaded = shell.base_model.load_state_dict(state, strict=False, assign=True)
    strange = [name for name in loaded.unexpected_keys if not is_pooler(name)]
    if loaded.missing_keys or strange:
        raise _otherwise(f"{type(shell).__name__} has other weights below the labels")
    if staged.words is not None:
        shell.get_output_embeddings().load_state_dict(staged.words.state_dict(), assign=True)
        shell.tie_weights()
    else:
        _head_of(shell).load_state_dict(staged.heads[HEAD].state_dict(), assign=True)


def _how_to_write(backbone: Backbone, recipe: Recipe) -> GenerationConfig:
    """The likeliest token each time, until one by which it ends here too."""
    reader, tokenizer = load_reader(backbone, recipe), load_tokenizer(backbone)
    ends = sorted(reader.ends) if isinstance(reader, ConversationReader) else []
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=tokenizer.pad_token_id
        if tokenizer.pad_token_id is not None
        else (ends or [0])[0],
    )


def _probe(backbone: Backbone, recipe: Recipe) -> Batch:
    """Rows that are nobody's, of several lengths, as both models read them."""
    if is_vision(backbone):
        config = load_settings(backbone.path)
        sizes = config.image_size
        height, width = sizes if isinstance(sizes, list | tuple) else (sizes, sizes)
        shape = (2, getattr(config, "num_channels", 3), int(height), int(width))
        return {"pixel_values": torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)}
    tokenizer = load_tokenizer(backbone)
    ids = [tokenizer(text)["input_ids"][: recipe.max_length] or [0] for text in _PROBES]
    longest = max(map(len, ids))
    filling = tokenizer.pad_token_id or 0
    return {
        "input_ids": torch.tensor([[*i, *[filling] * (longest - len(i))] for i in ids]),
        "attention_mask": torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i in ids]),
    }


@torch.inference_mode()
def _answers(staged: StagedModel, batch: Batch) -> Tensor:
    """Logits of the merged model: (rows, labels), or (places, words) of a language model."""
    states = staged.split.states(batch)
    if staged.words is None:
        return staged.classify(HEAD, states, batch).cpu()
    made: Tensor = staged.words(states).cpu()
    return made[batch["attention_mask"].bool()]


@torch.inference_mode()
def _check_written(
    kind: type[PreTrainedModel],
    folder: Path,
    batch: Batch,
    expected: Tensor,
    device: torch.device,
) -> None:
    """That whoever loads the checkpoint gets the same answers, on the device that `expected` was
    computed on: another one rounds otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, loading = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    got: Tensor = model.eval().to(device)(**moved).logits.cpu()
    if expected.ndim == 2 and got.ndim == 3:
        got = got[batch["attention_mask"].bool()]
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise GuaranteeError("expected every weight in the checkpoint, got some that are missing")
    if not torch.equal(got, expected):
        raise _otherwise(
            f"{kind.__name__} gives other answers than the shards do (it pools otherwise, or does "
            "more to the last states)"
        )


def _check_tokens(backbone: Backbone, folder: Path) -> None:
    """That the tokenizer in the checkpoint is the backbone's."""
    written = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    own = load_tokenizer(backbone)
    same = all(written(text)["input_ids"] == own(text)["input_ids"] for text in _PROBES)
    if not same or written.chat_template != own.chat_template:
        raise GuaranteeError(
            "expected the checkpoint's tokenizer to read as the backbone's does, got one that "
            "reads otherwise; this version of transformers does not write it as it is"
        )
