"""What was written yesterday is written today, byte for byte."""

import pytest

from s3t_core.erasure.rules import KINDS
from tests.golden import GOLDEN, events, path_of


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_are_those_that_were_kept(name: str) -> None:
    made, file = list(GOLDEN[name]()), path_of(name)
    kept = file.read_bytes().splitlines()
    changed = [
        f"line {n} of {file.name}"
        for n, (a, b) in enumerate(zip(made, kept, strict=False), 1)
        if a != b
    ]
    assert (changed, len(made)) == ([], len(kept)), (
        "if it is meant: python -m tests.golden, and say why in the commit"
    )


def test_every_kind_of_event_is_among_the_kept() -> None:
    import json

    assert {json.loads(line)["type"] for line in events()} == set(KINDS)
