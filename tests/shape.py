"""The shape of the code, measured, beside what it may be at most: `python -m tests.shape`.

| measure | what is counted |
|---|---|
| nodes per line | nodes of the syntax tree over lines that hold code: how much there is to read in one |
| Any in signatures, % | functions that take or return an `Any`, over all functions |
| complexity | of the most complex function, as ruff counts it (C901) |
| function, file | lines of the longest, blank lines and docstrings among them |
| circles | groups of modules that import one another, each other's imports in functions among them |
| undocumented | public functions, methods and classes without a docstring |

Measured the same way, packages that are good to read have 5.5 (sigstore 4.5.1), 6.4 (import-linter 2.17) and 6.9
(tuf 7.0.1) nodes a line. A limit is what stands today: it goes down with the code, and never up. (Once the core's files did, from
687 lines to 725: the arguments of its wide calls got a line each, and its nodes a line fell from 8.9 to 8.0.)
"""  # noqa: E501

import ast
import io
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).parents[1]
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Shape:
    """The measures of one package."""

    nodes_per_line: float
    any_in_signatures: float
    complexity: int
    function_lines: int
    file_lines: int
    circles: int
    undocumented: int


LIMITS = {
    "s3t_core": Shape(
        nodes_per_line=7.97,
        any_in_signatures=3.1,
        complexity=11,
        function_lines=61,
        file_lines=725,
        circles=0,
        undocumented=0,
    ),
    "flows": Shape(
        nodes_per_line=7.56,
        any_in_signatures=3.7,
        complexity=11,
        function_lines=68,
        file_lines=719,
        circles=0,
        undocumented=0,
    ),
}


@dataclass(frozen=True)
class Module:
    """A source file and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    def functions(self) -> Iterator[_Function]:
        """Every function and method in it."""
        return (n for n in ast.walk(self.tree) if isinstance(n, _Function))

    def lines_of_code(self) -> int:
        """Lines that hold code: docstrings, comments and blank lines are none."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in _NO_CODE:
                lines |= set(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Expr) and _is_text(node.value):
                lines -= _lines_of(node)
        return len(lines)


def modules_of(package: str) -> list[Module]:
    """Every source file of a package."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text()
        found.append(Module(path, text, ast.parse(text)))
    return found


def shape_of(package: str) -> Shape:
    """Measure a package."""
    modules = modules_of(package)
    functions = [f for module in modules for f in module.functions()]
    nodes = sum(1 for module in modules for _ in ast.walk(module.tree))
    return Shape(
        nodes_per_line=round(nodes / sum(m.lines_of_code() for m in modules), 2),
        any_in_signatures=round(100 * sum(map(_tells_any, functions)) / len(functions), 1),
        complexity=_complexity(package),
        function_lines=max(len(_lines_of(f)) for f in functions),
        file_lines=max(m.text.count("\n") for m in modules),
        circles=len(circles_in(package)),
        undocumented=len(undocumented_in(modules)),
    )


def circles_in(package: str) -> list[list[str]]:
    """Groups of modules that import one another."""
    imports = grimp.build_graph(package, cache_dir=None)
    graph = networkx.DiGraph()
    for module in imports.modules:
        for imported in imports.find_modules_directly_imported_by(module):
            graph.add_edge(module, imported)
    groups = networkx.strongly_connected_components(graph)
    return sorted(sorted(group) for group in groups if len(group) > 1)


def undocumented_in(modules: list[Module]) -> list[str]:
    """Public functions, methods and classes without a docstring, as FILE:LINE NAME."""
    found = []
    for module in modules:
        for node in _public_in(module.tree):
            if ast.get_docstring(node) is None:
                place = f"{module.path.relative_to(ROOT)}:{node.lineno}"
                found.append(f"{place} {node.name}")
    return found


def _public_in(tree: ast.Module | ast.ClassDef) -> Iterator[_Function | ast.ClassDef]:
    """What a module, and each of its public classes, offers by a name without an underscore."""
    for node in tree.body:
        if isinstance(node, _Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public_in(node)


def _tells_any(function: _Function) -> bool:
    """Whether a signature says `Any`, by itself or within another type."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    arguments += [a for a in (given.vararg, given.kwarg) if a is not None]
    types = [function.returns, *(a.annotation for a in arguments)]
    named = (n for told in types if told is not None for n in ast.walk(told))
    return any(isinstance(n, ast.Name) and n.id == "Any" for n in named)


def _complexity(package: str) -> int:
    """Of the most complex function."""
    ruff = Path(sys.executable).with_name("ruff")
    asked = ["check", "--select", "C901", "--config", "lint.mccabe.max-complexity=1"]
    told = subprocess.run(
        [ruff, *asked, "--output-format", "json", ROOT / package],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    messages = [each["message"] for each in json.loads(told)]
    return max(int(m.rpartition("(")[2].split()[0]) for m in messages)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _lines_of(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def main() -> None:
    """Print every measure beside its limit."""
    for package, limits in LIMITS.items():
        shape = shape_of(package)
        print(package)
        for name, most in vars(limits).items():
            value = getattr(shape, name)
            mark = "" if value <= most else "  over its limit"
            print(f"  {name.replace('_', ' '):<20} {value:>8}   at most {most}{mark}")


if __name__ == "__main__":
    main()
