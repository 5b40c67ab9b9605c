"""Chat templates that write the same on every day and in every process (hazard 16).

A template is a program (Jinja): it may ask for the date, and it may draw at random. What it wrote
of a row would then hang on when that was, and no key of a stage says so. Not what templates may
not do is listed here, which nobody could finish, but what they may:

1. filters and tests that are known to depend on nothing else, called by their names; functions
   that are called, and not shown. A template that does otherwise is refused before it writes
2. what a template writes is made of texts, numbers, and lists and dicts of them: whatever else
   there is in it (a method, something that is iterated over) may be used, and the row is refused
   where it would be shown, because as text it has its address in memory. No sets: their order is
   drawn anew in each process

Templates are rendered here, to the same bytes as by transformers' `apply_chat_template`.
"""

import contextlib
import functools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

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


class _NotShown:
    """What may be used and has no text."""

    def __str__(self) -> NoReturn:
        raise UsageError(
            "expected a chat template that writes texts, numbers, lists and dicts, got one that "
            "shows a method, or something that is iterated over: its text is another one each "
            "time. Call the method, or write `| list` behind the filter"
        )

    __repr__ = __str__
    __html__ = __str__


class _Method(_NotShown):
    """One of a value's."""

    def __init__(self, method: Callable[..., object]) -> None:
        self._method = method

    def __call__(self, *args: object, **more: object) -> object:
        return self._method(*args, **more)


class _Passing(_NotShown, Iterator[object]):
    """What a filter gives to be iterated over once."""

    def __init__(self, values: Iterator[object]) -> None:
        self._values = values

    def __next__(self) -> object:
        return next(self._values)


class _Joiner(_NotShown, Joiner):
    """Jinja's."""


class _Cycler(_NotShown, Cycler):
    """Jinja's."""


class _Generation(Extension):
    """Marks of transformers' own around what a model says: they write nothing of themselves, and
    what is set between them holds there alone."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    @staticmethod
    def _said(caller: Macro) -> str:
        return str(caller())


class _Environment(ImmutableSandboxedEnvironment):
    """What templates find around them: transformers' settings, and nothing that has another text
    another time."""

    intercepted_binops = frozenset(("-",))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.filters = {
            name: _passing(each) for name, each in self.filters.items() if name in _FILTERS
        }
        self.filters["tojson"] = _to_json
        self.globals = {
            "raise_exception": _raise,
            "range": self.globals["range"],
            "dict": _dict,
            "namespace": Namespace,
            "joiner": _Joiner,
            "cycler": _Cycler,
        }

    def getattr(
        self,
        obj: object,
        attribute: str,
    ) -> object:
        """An attribute, or what is kept under that name."""
        return _called(super().getattr(obj, attribute))

    def getitem(
        self,
        obj: object,
        argument: object,
    ) -> object:
        """What is kept under a name, or an attribute."""
        return _called(super().getitem(obj, argument))

    def call_binop(
        self,
        context: Context,
        operator: str,
        left: object,
        right: object,
    ) -> object:
        """A difference, of numbers alone: of whatever else has one, either side may make a set of
        both."""
        found = super().call_binop(context, operator, left, right)
        if not isinstance(found, int | float):
            raise UsageError(
                "expected a chat template that writes the same each time, got one that takes "
                "something from another that is no number (`a.keys() - b`): the order of what is "
                "left is drawn anew in each process. Use `| reject` instead"
            )
        return found


def _called(value: object) -> object:
    """A method as what has no text; of Jinja's own, what has one of its own stays."""
    if not callable(value) or isinstance(value, (jinja2.Undefined, Macro, LoopContext)):
        return value
    return value if isinstance(value, _NotShown) else _Method(value)


def _shown(value: object) -> object:
    """What is written out. Raises UsageError for what has no text of its own."""
    kind = type(value)
    own = kind.__str__, kind.__repr__
    if own == (object.__str__, object.__repr__):
        _NotShown().__str__()
    return value


def _dict(*args: Any, **more: object) -> dict[Any, Any]:
    return dict(*args, **more)


def _passing(apply: Callable[..., object]) -> Callable[..., object]:
    """A filter that gives what is iterated over as what has no text."""

    @functools.wraps(apply)
    def applied(*args: object, **more: object) -> object:
        given = apply(*args, **more)
        return _Passing(given) if isinstance(given, Iterator) else given

    return applied


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML's escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def write_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    asks: bool,
    tokens: Mapping[str, object],
) -> str:
    """The chat as the template writes it, up to where the assistant begins if it `asks`. `tokens`:
    the special ones by their names (`bos_token`). Raises UsageError where it does not take these
    messages, or would write another text another time."""
    try:
        with drawing_nothing():
            return _compiled(template).render(
                messages=[dict(each) for each in messages],
                tools=None,
                documents=None,
                add_generation_prompt=asks,
                **tokens,
            )
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise UsageError(
            f"expected a chat template that takes these roles, got {type(error).__name__} from "
            "it; leave the message of the system out, or take another tokenizer"
        ) from None


@functools.lru_cache(maxsize=64)
def _compiled(template: str) -> jinja2.Template:
    return _Environment().from_string(template)


def template_of(given: str | Mapping[str, str] | None) -> str:
    """The template that chats are written with, of what a tokenizer has: one, or several by their
    names. Raises UsageError where there is none, or where it could write another text another
    time."""
    found = given.get("default") if isinstance(given, Mapping) else given
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
    try:
        parsed = _Environment().parse(template)
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
