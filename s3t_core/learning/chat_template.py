"""Chat templates that write the same on every day and in every process (hazard 16).

A template is a program (Jinja): it may ask for the date, and it may draw at random. What it wrote
of a row would then hang on when that was, and no key of a stage says so. Not what templates may
not do is listed here, which nobody could finish, but what they may: filters and tests that are
known to depend on nothing else, called by their names; functions that are called, and not shown.
"""

import contextlib
import functools
import random
from collections.abc import Iterator, Mapping
from itertools import chain

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from s3t_core.errors import UsageError

_DATES = ("strftime_now", "now", "datetime")
# fmt: off
_FILTERS = frozenset((
    "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e",
    "escape", "first", "float", "forceescape", "format", "groupby", "indent", "int", "items",
    "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "string",
    "striptags", "sum", "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode",
    "wordcount", "wordwrap",
))
# fmt: on
"""Those of Jinja, and of transformers, that depend on what they are given alone."""
_NAMING = {"map": 1, "select": 1, "reject": 1, "selectattr": 2, "rejectattr": 2}
"""Filters that are given the name of another one, or of a test, within so many arguments."""
_CALLED = ("raise_exception", "range", "namespace", "dict", "joiner", "cycler")
"""Functions that there are. What stands for one as text has its address in memory."""


class _Generation(Extension):
    """Marks of transformers' own around what a model says: they write nothing."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_of(told: str | Mapping[str, str] | None) -> str:
    """The template that chats are written with, of what a tokenizer has: one, or several by their
    names. Raises UsageError where there is none, or where it could write another text another
    time."""
    found = told.get("default") if isinstance(told, Mapping) else told
    if not found:
        raise UsageError(
            "expected a tokenizer with a chat template for rows of messages (of several, the one "
            'called "default"), got one without; take a backbone that was made for chats, or rows '
            "of prompt and response"
        )
    _check(found)
    return found


@contextlib.contextmanager
def drawing_nothing() -> Iterator[None]:
    """Within it, Python's generator begins where it always does, and afterwards it is where it was:
    what a template drew all the same would be the same each time."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


@functools.lru_cache(maxsize=64)
def _check(template: str) -> None:
    if problem := _problem(template):
        raise UsageError(
            "expected a chat template that writes the same each time and on every day, got one "
            f"{problem}; take that out of it"
        )


def _problem(template: str) -> str:
    """Why it may write another text another time, "" where it does not."""
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])
    try:
        parsed = environment.parse(template)
    except jinja2.TemplateSyntaxError:
        return "that cannot be read to its end (a tag that is not known?)"
    return next(chain(_of_names(parsed), _of_filters(parsed)), "")


def _of_names(parsed: nodes.Template) -> Iterator[str]:
    called = {id(call.node) for call in parsed.find_all(nodes.Call)}
    for name in parsed.find_all(nodes.Name):
        if name.ctx == "load" and name.name in _DATES:
            yield "that reads the date"
        if name.ctx == "load" and name.name == "lipsum":
            yield "that draws at random (lipsum)"
        if name.ctx == "load" and name.name in _CALLED and id(name) not in called:
            yield f"that shows the function {name.name} instead of calling it"


def _of_filters(parsed: nodes.Template) -> Iterator[str]:
    for each in parsed.find_all(nodes.Filter):
        if each.name == "random":
            yield "that draws at random (random)"
        if each.name not in _FILTERS:
            yield f"with the filter {each.name!r}, which is not one of those that are known"
        for given in each.args[: _NAMING.get(each.name, 0)]:
            if not isinstance(given, nodes.Const):
                yield f"in which what {each.name!r} is given is computed"
            elif given.value == "random":
                yield "that draws at random (random)"
