"""That every mutant of `make test-mutants` still takes something out, and names a test that is there."""

import ast

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_line_it_takes_out_is_there(mutant: Mutant) -> None:
    assert mutant.old in (ROOT / mutant.file).read_text()
    assert (ROOT / mutant.test.partition("::")[0]).is_file()


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.file.endswith(".py")], ids=lambda m: m.name)
def test_what_is_left_is_another_program_that_can_be_read(mutant: Mutant) -> None:
    """Else its test fails whatever it tests."""
    source = (ROOT / mutant.file).read_text()
    left = ast.parse(source.replace(mutant.old, mutant.new, 1))
    assert ast.dump(left) != ast.dump(ast.parse(source))


def test_names_are_unique() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)
