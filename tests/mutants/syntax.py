"""A mutant names what it takes out by a place and a piece of syntax: layout, comments and line
numbers do not matter.

1. A place is the dotted name of a function, class or method, or the whole file.
2. A piece is an expression, or statements. Within statements, `...` on a line of its own stands for
   any statements; `...` in the replacement stands for the same ones: `if x: ...` is an if by its
   condition, and `...` in its place takes the condition away.
3. `_(name=value)` is an argument of a call, and `{key: value}` also one item of a longer
   dictionary.
4. The piece stands exactly once in the place. Nothing in its place removes it.

The result is the whole file, as `ast.unparse` writes it.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

Body = list[ast.stmt]


class NotThere(ValueError):
    """The place or the piece is not in the source, or the piece more than once."""


@dataclass(frozen=True)
class _Spot:
    """Where a piece stands: a node's field; in a list, from `index` on, so many."""

    node: ast.AST
    field: str
    index: int = -1
    count: int = 1

    def there(self) -> list[ast.AST]:
        value = getattr(self.node, self.field)
        return value[self.index : self.index + self.count] if self.index >= 0 else [value]

    def put(self, new: list[ast.AST]) -> None:
        if self.index >= 0:
            getattr(self.node, self.field)[self.index : self.index + self.count] = new
        elif len(new) == 1:
            setattr(self.node, self.field, new[0])
        else:
            raise NotThere(
                "expected an expression in place of one that nothing can stand for, got none"
            )


def replaced(source: str, place: str, takes: str, puts: str) -> str:
    """`source` with the piece `takes` in `place` replaced by `puts`. Raises NotThere, and
    SyntaxError for a piece that is none."""
    tree = ast.parse(source)
    wanted, new = ast.parse(takes).body, ast.parse(puts).body
    scope = _find(tree, place)
    argument, as_statements = _argument(wanted), False
    item = _item(wanted)
    if argument is not None:
        spots = list(_places_of(scope, argument))
        put: list[ast.AST] = [a] if (a := _argument(new)) is not None else []
    elif as_statements := not (_is_expression(wanted) and _is_expression(new)):
        spots, put = list(_statements(scope, wanted)), []
    if argument is None and _is_expression(wanted) and not (as_statements and (spots or new)):
        as_statements, spots = False, list(_places_of(scope, _value(wanted)))
        put = [_value(new)] if new else []
    if item is not None and not spots:
        return _with_item(tree, scope, item, _item(new))
    if len(spots) != 1:
        raise NotThere(
            f"expected {takes!r} once in {place or 'the file'}, got it {len(spots)} times"
        )
    spot = spots[0]
    if as_statements:
        there: Body = spot.there()  # type: ignore[assignment]
        put = list(_filled(new, iter(_left_open(wanted, there))))
        if not put and len(getattr(spot.node, spot.field)) == len(there) and spot.field == "body":
            put = [ast.Pass()]
    for each in put if _stores(spot) else []:
        _make_store(each)
    spot.put(put)
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _find(tree: ast.AST, name: str) -> ast.AST:
    for part in name.split(".") if name else []:
        inner = [n for n in _definitions(tree) if n.name == part]
        if not inner:
            raise NotThere(f"expected {name} in the file, got no {part} there")
        tree = inner[0]
    return tree


def _definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Those within a node, but not within one another, in their order."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
        else:
            yield from _definitions(child)


# --- the kinds of pieces


def _is_expression(body: Body) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Expr) and not _is_open(body[0])


def _value(body: Body) -> ast.expr:
    return body[0].value  # type: ignore[attr-defined,no-any-return]


def _argument(body: Body) -> ast.keyword | None:
    """The argument that `_(name=value)` writes."""
    call = _value(body) if _is_expression(body) else None
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "_"
        and not call.args
    ):
        return call.keywords[0]
    return None


def _item(body: Body) -> tuple[str, ast.expr] | None:
    """Key and value of a dictionary with one item."""
    value = _value(body) if _is_expression(body) else None
    if isinstance(value, ast.Dict) and len(value.keys) == 1 and value.keys[0] is not None:
        return ast.dump(value.keys[0]), value.values[0]
    return None


def _is_open(node: ast.AST) -> bool:
    """Whether the statement is `...`."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and node.value.value is ...
    )


# --- where they stand


def _places_of(scope: ast.AST, wanted: ast.AST) -> Iterator[_Spot]:
    dump = ast.dump(wanted)
    for node in ast.walk(scope):
        for field, value in ast.iter_fields(node):
            for index, each in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(each, type(wanted)) and ast.dump(_read(each)) == dump:
                    yield _Spot(node, field, index if isinstance(value, list) else -1)


def _read(node: ast.AST) -> ast.AST:
    """The expression as one that is read: the target of an assignment is found by what it looks
    like, too."""
    if not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
        return node
    other = copy.deepcopy(node)
    for each in ast.walk(other):
        if isinstance(getattr(each, "ctx", None), ast.Store | ast.Del):
            each.ctx = ast.Load()  # type: ignore[attr-defined]
    return other


def _stores(spot: _Spot) -> bool:
    return any(isinstance(getattr(each, "ctx", None), ast.Store) for each in spot.there())


def _make_store(node: ast.AST) -> None:
    for each in ast.walk(node):
        if hasattr(each, "ctx"):
            each.ctx = ast.Store()


def _statements(scope: ast.AST, wanted: Body) -> Iterator[_Spot]:
    for node in ast.walk(scope):
        for field, value in ast.iter_fields(node):
            if _is_body(value):
                for index in range(len(value) - len(wanted) + 1):
                    if _alike(wanted, value[index : index + len(wanted)]):
                        yield _Spot(node, field, index, len(wanted))


def _is_body(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)


def _alike(wanted: Body, there: Body) -> bool:
    """Whether statements are the wanted ones, `...` alone standing for any."""
    if len(wanted) == 1 and _is_open(wanted[0]):
        return True
    return len(wanted) == len(there) and all(map(_same, wanted, there))


def _same(wanted: object, there: object) -> bool:
    if isinstance(wanted, list) and isinstance(there, list):
        if _is_body(wanted):
            return _alike(wanted, there)
        return len(wanted) == len(there) and all(map(_same, wanted, there))
    if isinstance(wanted, ast.AST):
        return type(wanted) is type(there) and all(
            _same(value, getattr(there, field)) for field, value in ast.iter_fields(wanted)
        )
    return wanted == there


# --- what comes in their place


def _left_open(wanted: Body, there: Body) -> Iterator[Body]:
    """What each `...` of the wanted statements stands for, in their order."""
    if len(wanted) == 1 and _is_open(wanted[0]):
        yield there
        return
    for node, other in zip(wanted, there, strict=True):
        for (_, value), (_, found) in zip(_bodies(node), _bodies(other), strict=False):
            yield from _left_open(value, found)


def _bodies(node: ast.AST) -> Iterator[tuple[tuple[ast.AST, str], Body]]:
    """The statements within one, part after part."""
    for field, value in ast.iter_fields(node):
        if _is_body(value):
            yield (node, field), value
        for each in value if field in ("handlers", "cases") else ():
            yield (each, "body"), each.body


def _filled(new: Body, left_open: Iterator[Body]) -> Iterator[ast.stmt]:
    """The replacement, with what each of its `...` stands for."""
    for each in new:
        if _is_open(each):
            yield from next(left_open)
            continue
        for (node, field), body in list(_bodies(each)):
            setattr(node, field, list(_filled(body, left_open)))
        yield each


def _with_item(
    tree: ast.AST, scope: ast.AST, item: tuple[str, ast.expr], new: tuple[str, ast.expr] | None
) -> str:
    """The file with one item of a longer dictionary changed or, without `new`, gone."""
    key, dump = item[0], ast.dump(item[1])
    found = [
        (node, n)
        for node in ast.walk(scope)
        if isinstance(node, ast.Dict)
        for n, (k, v) in enumerate(zip(node.keys, node.values, strict=True))
        if k is not None and ast.dump(k) == key and ast.dump(v) == dump
    ]
    if len(found) != 1:
        raise NotThere(f"expected the item once, got it {len(found)} times")
    node, n = found[0]
    if new is None:
        del node.keys[n], node.values[n]
    else:
        node.values[n] = new[1]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
