"""That every mutant of `make test-mutants` still takes something out, and names a test that is there."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_line_it_takes_out_is_there(mutant: Mutant) -> None:
    assert mutant.old in (ROOT / mutant.file).read_text()
    assert (ROOT / mutant.test.partition("::")[0]).is_file()


def test_names_are_unique() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)
