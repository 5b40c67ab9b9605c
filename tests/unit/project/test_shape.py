"""The shape of the code keeps within its limits, and what measures it sees what it is to see."""

import ast
from pathlib import Path

import pytest

from tests.shape import LIMITS, ROOT, Module, circles_in, shape_of, undocumented_in

SLACK = {"nodes_per_line": 0.1, "any_in_signatures": 0.5, "function_lines": 5, "file_lines": 20}
SOURCE = '''
"""A module."""

from typing import Any


def told(value: "int", other: list[Any]) -> None:
    """Documented."""
    # a comment
    first = value

    return [first, *other]


def untold(): pass


class Thing:
    """Documented."""

    def method(self): ...

    def _hidden(self): ...
'''


@pytest.mark.parametrize("package", sorted(LIMITS))
def test_no_measure_is_over_its_limit_and_no_limit_is_loose(package: str) -> None:
    """Who makes the code better writes the limit down: else what was won is given up unseen."""
    shape, limits = vars(shape_of(package)), vars(LIMITS[package])
    assert {n: value for n, value in shape.items() if value > limits[n]} == {}
    loose = {n for n, most in limits.items() if most - shape[n] > SLACK.get(n, 0)}
    assert loose == set()


def _module(text: str) -> Module:
    return Module(ROOT / "module.py", text, ast.parse(text))


def test_lines_of_code_are_neither_docstrings_nor_comments() -> None:
    assert _module(SOURCE).lines_of_code() == 8


def test_who_lacks_a_docstring_is_found() -> None:
    found = undocumented_in([_module(SOURCE)])
    assert [each.rpartition(" ")[2] for each in found] == ["untold", "method"]


def test_modules_that_import_one_another_are_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_circle"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text("import a_circle.second\n")
    (package / "second.py").write_text("def late():\n    import a_circle.third\n")
    (package / "third.py").write_text("from a_circle import first\n")
    (package / "beside.py").write_text("import a_circle.first\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["a_circle.first", "a_circle.second", "a_circle.third"]
    assert circles_in("a_circle") == [names]
