"""That every mutant of `make test-mutants` still takes something out, and names a test that is
there."""

import re

import pytest

from tests.mutants import MUTANTS, ROOT
from tests.mutants.mutant import Mutant
from tests.mutants.syntax import NotThere, replaced

SOURCE = '''
import os  # why
class A:
    def f(self, a=1):
        """Doc."""
        if (a and
                self.g(a)):   # a comment
            return self.g(a, key=2)
        with open("x") as file:
            b = [a, *self.rest, {"k": a, "l": 2}]
            file.write(b)
        return b
def f():
    return 1
'''


@pytest.mark.parametrize("mutant", sorted(MUTANTS, key=lambda m: m.file), ids=lambda m: m.name)
@pytest.mark.slow
def test_what_it_takes_out_is_there_and_another_program_is_left(mutant: Mutant) -> None:
    mutant.check((ROOT / mutant.file).read_text())
    file, _, words = mutant.fails.partition("::")
    there = (ROOT / file).read_text().lower()
    chosen = {*re.findall(r"[\w.]+", words.lower())} - {"and", "or", "not"}
    assert not [word for word in chosen if word not in there], "it chooses no test"


def test_names_are_unique() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    ("place", "takes", "puts", "there", "gone"),
    [
        ("A.f", "a and self.g(a)", "False", "if False:", "if a"),
        ("A.f", "if a and self.g(a): ...", "...", "\n        return self.g(a, key=2)", "if a"),
        (
            "A.f",
            "with open('x') as file: ...",
            "file = None\n...",
            "file = None\n        b = [",
            "with",
        ),
        ("A.f", "_(key=2)", "", "self.g(a)\n", "key=2"),
        ("A.f", "_(key=2)", "_(key=3)", "key=3", "key=2"),
        ("A.f", "*self.rest", "", "[a, {", "rest"),
        ("A.f", "{'k': a}", "", "{'l': 2}", "'k'"),
        ("A.f", "{'l': 2}", "{'l': None}", "'l': None", "'l': 2"),
        ("A.f", "file.write(b)", "", "'l': 2}]\n", "write"),
        ("A", "def f(self, a=1): ...", "def f(self, a=2): ...", "a=2", "a=1"),
        ("f", "1", "2", "return 2\n", "return 1\n"),
        ("A.f", "b = [a, *self.rest, {'k': a, 'l': 2}]\nfile.write(b)", "pass", "pass\n", "write"),
        ("f", "return 1", "", "pass", "return 1\n"),
    ],
)
def test_a_piece_of_syntax_is_replaced_whatever_its_layout(
    place: str, takes: str, puts: str, there: str, gone: str
) -> None:
    left = replaced(SOURCE, place, takes, puts)
    assert there in left and gone not in left


@pytest.mark.parametrize(
    ("place", "takes"),
    [
        ("A.f", "self.h(a)"),
        ("A.g", "a"),
        ("B", "a"),
        ("A.f", "a"),
        ("", "f"),
        ("A.f", "{'m': 1}"),
        ("A.f", "_(key=9)"),
        ("A.f", "for x in y: ..."),
    ],
)
def test_a_piece_that_is_not_there_or_more_than_once_is_an_error(place: str, takes: str) -> None:
    with pytest.raises(NotThere):
        replaced(SOURCE, place, takes, "None")
