"""Chat templates that write the same on every day and in every process (hazard 16).

A template is a program (Jinja): it may ask for the date, and it may draw at random. What it wrote
of a row would then hang on when that was, and no key of a stage says so.
"""

import functools
import re
from collections.abc import Mapping

from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from s3t_core.errors import UsageError

_DATES = re.compile(r"strftime_now|\bnow\s*\(|datetime")
_DRAWS = ("random", "lipsum")
"""What Jinja has that draws: the filter, by whatever way it is named, and the function."""
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""Marks of transformers' own, which write nothing."""


def template_of(told: str | Mapping[str, str] | None) -> str:
    """The template that chats are written with, of what a tokenizer has: one, or several by their
    names. Raises UsageError where there is none, or where it reads the date or draws."""
    found = told.get("default") if isinstance(told, Mapping) else told
    if not found:
        raise UsageError(
            "expected a tokenizer with a chat template for rows of messages (of several, the one "
            'called "default"), got one without; take a backbone that was made for chats, or rows '
            "of prompt and response"
        )
    _check(found)
    return found


@functools.lru_cache(maxsize=64)
def _check(template: str) -> None:
    if _DATES.search(template):
        raise UsageError(
            "expected a chat template that writes the same on every day, got one that reads the "
            "date; write the date into it, or leave it out"
        )
    try:
        draws = _draws(template)
    except TemplateError:
        return  # it writes nothing either, and who asks it to is told
    if draws:
        raise UsageError(
            "expected a chat template that writes the same each time, got one that draws at "
            'random ("random", "lipsum"); take that out of it'
        )


def _draws(template: str) -> bool:
    parsed = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
        _GENERATION.sub("", template)
    )
    return (
        any(f.name in _DRAWS for f in parsed.find_all(nodes.Filter))
        or any(n.name in _DRAWS for n in parsed.find_all(nodes.Name) if n.ctx == "load")
        or any(c.value in _DRAWS for c in parsed.find_all(nodes.Const))
    )
