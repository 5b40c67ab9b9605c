"""`s3t.toml` read, written with every key explained, and merged with what servers need."""

import json
import tomllib

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from s3t_core.config.tree import Config
from s3t_core.errors import ConfigError


def parse_config(text: str | bytes, source: str = "s3t.toml") -> Config:
    """The config that `text` (TOML; as bytes, UTF-8) describes. Raises ConfigError naming every
    wrong key and what was expected."""
    return _validated(_tables(text, source), source)


def _tables(text: str | bytes, source: str) -> dict[str, object]:
    """Raises ConfigError for what is not TOML, in another encoding, or nested deeper than Python
    goes."""
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeError:
        raise ConfigError(
            f"expected {source} to be UTF-8, got another encoding; save it as UTF-8 in your "
            "editor, then run the command again"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"expected {source} to be TOML of tables and values, got one nested too deep; write it "
            "as `s3t init` does"
        ) from None
    except ValueError as error:
        twice = "Cannot declare" in str(error) or "Cannot overwrite" in str(error)
        hint = (
            "; a section or a key may stand there once: put new lines in the place of the old ones"
            if twice
            else ""
        )
        raise ConfigError(f"expected {source} to be TOML, got: {error}{hint}") from None


def _validated(tables: dict[str, object], source: str) -> Config:
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        lines = [f"  {_where(e['loc'])}{_reason(e)}" for e in error.errors()]
        raise ConfigError(
            f"{source} has {len(lines)} wrong value(s):\n" + "\n".join(lines)
        ) from None


def merge_config(
    config: Config,
    text: str | bytes,
    source: str,
) -> Config:
    """`config` with what `text` (TOML; as bytes, UTF-8) says instead. Raises ConfigError."""
    given = _tables(text, source)
    base = tomllib.loads(render_config(config))
    merged = {
        name: {**base.get(name, {}), **table} if isinstance(table, dict) else table
        for name, table in (base | given).items()
    }
    return _validated(merged, source)


_AS_GOOD_MERGED = ("lora", "dora", "ia3")
"""Of LoKr and OFT the merged model was half a point worse, or a little more, in some states."""


def new_config(
    text: str | bytes = b"",
    source: str = "",
) -> Config:
    """The settings of a new workspace: the defaults, with what `text` (TOML) says instead. All live
    shards answer as one model where that was found as good as their votes, at the price of one
    (docs/benchmarks.md), `text` says nothing else, and the backbone fits into one device. Raises
    ConfigError."""
    config = merge_config(Config(), text, source)
    serving = _tables(text, source).get("serving")
    is_said = isinstance(serving, dict) and "combine" in serving
    is_as_good = (
        config.task.kind in ("classification", "generation")
        and config.adapter.kind in _AS_GOOD_MERGED
    )
    if config.runner.max_memory or is_said or not is_as_good:
        return config
    merged = config.serving.model_copy(update={"combine": "merged"})
    return config.model_copy(update={"serving": merged})


def _where(location: tuple[int | str, ...]) -> str:
    if not location:
        return ""  # two tables do not fit: the reason names them
    table, *names = map(str, location)
    key = ".".join(names) or "(the table)"
    return f"[{table}] {key}: "


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "no such key; `s3t init` writes every key there is, with its meaning"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    known = isinstance(value, str | int | float | bool) and "got" not in message
    secret = isinstance(value, str) and "://" in value and "@" in value
    shown = (", got a URL with a user in it" if secret else f", got {value!r}") if known else ""
    return message + shown


def render_config(config: Config) -> str:
    """`config` as TOML in which every key stands with its explanation. `parse_config` reads it back
    unchanged."""
    lines = [
        "# S3T settings. Every key that exists is here; one that is left out has the value shown "
        "by `s3t init`."
    ]
    for name, section in config:
        doc = " ".join((type(section).__doc__ or "").split())
        lines += ["", f"# {doc}", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            lines += [f"# {field.description}", f"{key} = {render_value(getattr(section, key))}"]
    return "\n".join(lines) + "\n"


def render_value(value: object) -> str:
    """A value of a setting as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)  # a basic string of TOML 1.0, but for DEL
        return quoted.replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        inner = ", ".join(render_value(v) for v in value)
        if len(inner) < 90:
            return f"[{inner}]"
        return "[\n" + "".join(f"    {render_value(v)},\n" for v in value) + "]"
    return repr(value)
