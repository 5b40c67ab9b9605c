"""What the settings beside a backbone's weights may not say: that something else is loaded, which
has no digest and could be changed under the stages that stand on it."""

import json
from collections.abc import Iterator
from pathlib import Path

from s3t_core.errors import UsageError

_ADAPTER = "adapter_config.json"
_TOKENIZER = "tokenizer.json"
"""A tokenizer's own file says all of it, and names nothing."""
_WEIGHTS, _TOKENIZERS = "transformers_weights", "fast_tokenizer_files"
"""Settings by which transformers takes other files than those that it looks for by their names."""
_WITHIN = ("vocab", "merges")
"""Settings that are a tokenizer's words themselves, or the path of a file with them."""
_ORIGINS = ("name_or_path", "_name_or_path")
"""Settings that say where a model came from, and have nothing loaded."""
_PATH_CHARACTERS = 4096


def check_settings(settings: list[Path], hashed: set[str]) -> None:
    """That no setting beside the weights has other files loaded than those that are `hashed`:
    weights by a name of their own, a tokenizer by its version, its words by a path, the model that
    an adapter is for. Raises UsageError."""
    for path in settings:
        if path.name == _ADAPTER:
            raise UsageError(
                f"expected a whole model, got one with {_ADAPTER}, which has another one loaded in "
                "its place; merge the adapter into it and save that"
            )
        try:
            found = list(_members(json.loads(path.read_bytes())))
        except (ValueError, RecursionError):
            continue  # nobody reads it, or who does fails
        for key, value in found if path.name != _TOKENIZER else []:
            if _has_another_loaded(key, value, path.parent, hashed):
                raise UsageError(
                    f"expected {path.name} to name no files beside those that every model has, got "
                    f"some in its setting {key!r}: what that names has no digest, and could be "
                    "changed under the stages that stand on it. Take the setting out, or load the "
                    "model and save it anew with `save_pretrained`"
                )


def _has_another_loaded(
    key: str,
    value: object,
    folder: Path,
    hashed: set[str],
) -> bool:
    texts = [v for v in _listed(value) if isinstance(v, str)]
    if key == _TOKENIZERS:
        return not set(texts) <= hashed
    if key == _WEIGHTS or (key in _WITHIN and isinstance(value, str)):
        return True
    return key not in _ORIGINS and any(
        _leads_elsewhere(piece, folder, hashed)
        for each in texts
        if len(each) <= _PATH_CHARACTERS
        for piece in {each, *each.split()}
    )


def _leads_elsewhere(
    text: str,
    folder: Path,
    hashed: set[str],
) -> bool:
    """Whether it is the path of something that is there, from where this process runs or from the
    model's directory, and has no digest. One of options counts as well ("-d /a/dictionary")."""
    try:
        there = [p for p in (Path(text), Path(text).expanduser(), folder / text) if p.exists()]
    except (OSError, ValueError, RuntimeError):
        return False
    return any(p.is_file() or "/" in text for p in there) and text not in hashed


def _members(value: object) -> Iterator[tuple[str, object]]:
    """Every member of every object in a JSON value."""
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
