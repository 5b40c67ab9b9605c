"""Those who ask at the same time: what goes wrong of one keeps nobody else from an answer."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from flows.api import desk
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.errors import LedgerError, S3TError


class Doubling(desk._Together[int, int]):
    """Doubles numbers, as many at once as wait; fails at 13 as nobody foresaw."""

    def __init__(self, root: Path) -> None:
        self.together: list[list[int]] = []
        super().__init__(root)

    def _answer(
        self, workspace: Workspace, asked: Sequence[int]
    ) -> Iterator[tuple[int, int | S3TError]]:
        assert workspace.config
        self.together.append(list(asked))
        for number, each in enumerate(asked):
            if each == 13:
                raise RuntimeError("probability tensor contains either inf or nan")
            if each == 99:
                raise LedgerError("expected a ledger, got none; restore it")
            yield number, 2 * each


@pytest.fixture
def doubling(tmp_path: Path) -> Iterator[Doubling]:
    create_workspace(tmp_path / "w", Config())
    with closing(Doubling(tmp_path / "w")) as seat:
        yield seat


def _asked(seat: Doubling, numbers: list[int]) -> list[int | BaseException]:
    """What each gets who waits while somebody else is answered."""
    jobs = [desk._Job(n) for n in numbers]
    seat._do(jobs)
    return [job.answer.exception(0) or job.answer.result(0) for job in jobs]


@pytest.mark.parametrize("place", range(4))
def test_what_nobody_foresaw_of_one_is_told_to_that_one_alone(
    doubling: Doubling, place: int
) -> None:
    numbers = [1, 2, 3]
    numbers.insert(place, 13)
    told = _asked(doubling, numbers)
    assert isinstance(told.pop(place), RuntimeError) and told == [2, 4, 6]


def test_what_holds_of_the_workspace_is_told_to_everybody_who_was_not_answered(
    doubling: Doubling,
) -> None:
    first, *rest = _asked(doubling, [1, 99, 3])
    assert first == 2 and all(isinstance(each, LedgerError) for each in rest)
    assert doubling.together == [[1, 99, 3]]
