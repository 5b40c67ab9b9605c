"""The tests beside the stack see what `make install` brings, on every machine."""

from importlib.util import find_spec

import pytest

from infra.lock import ROOT
from tests.without_servers import _asked, modules_of_servers


@pytest.mark.parametrize("module", ["boto3", "dvc_s3", "s3fs", "psycopg", "distributed"])
def test_a_package_of_the_servers_is_not_there(module: str) -> None:
    assert find_spec(module) is None


def test_no_package_that_every_install_brings_is_left_out() -> None:
    assert not modules_of_servers() & {"dvc", "fsspec", "cryptography", "requests", "torch", "yaml"}


@pytest.mark.parametrize(
    ("args", "ignored", "asked"),
    [
        (["tests/stack"], [], True),
        (["tests/stack/test_s3.py::test_x"], [], True),
        (["tests"], [], True),
        (["tests"], ["tests/stack"], False),
        (["tests/unit", "tests/flows"], [], False),
        ([str(ROOT / "tests/stack")], [], True),
    ],
)
def test_they_are_there_where_tests_of_the_stack_are_asked_for(
    args: list[str], ignored: list[str], asked: bool
) -> None:
    assert _asked(args, ignored, ROOT) is asked
