"""The tests beside the stack see what `make install` brings, on every machine."""

from importlib.util import find_spec

import pytest

from infra.lock import ROOT
from tests.without_servers import asks_for_stack, modules_of_servers


@pytest.mark.parametrize("module", ["boto3", "dvc_s3", "s3fs", "psycopg", "distributed"])
def test_a_package_of_the_servers_is_not_there(module: str) -> None:
    assert find_spec(module) is None


def test_no_package_that_every_install_brings_is_left_out() -> None:
    assert not modules_of_servers() & {"dvc", "fsspec", "cryptography", "requests", "torch", "yaml"}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["-m", "not long", "tests/stack"], True),
        (["tests/stack/test_s3.py::test_x"], True),
        (["tests/unit", "tests/stack/test_s3.py"], True),
        ([str(ROOT / "tests/stack")], True),
        (["-m", "not long", "--ignore", "tests/stack"], False),
        (["--ignore=tests/stack"], False),
        (["tests/unit", "tests/flows"], False),
        ([], False),
    ],
)
def test_they_are_there_where_tests_of_the_stack_are_asked_for(
    arguments: list[str], asked: bool
) -> None:
    assert asks_for_stack(arguments, ROOT) is asked
