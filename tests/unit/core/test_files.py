"""A file that is made new takes nobody's place."""

import errno
import os
from pathlib import Path

import pytest

from s3t_core.errors import StorageError
from s3t_core.files import write_new


def _fails(number: int) -> object:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_no_other_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _fails(errno.EOPNOTSUPP))
    path = tmp_path / "a"
    assert write_new(path, b"first", 0o644) and not write_new(path, b"second")
    assert path.read_bytes() == b"first" and path.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_nlink == 1 and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _fails(errno.ENOSPC))
    with pytest.raises(StorageError, match="free space"):
        write_new(tmp_path / "a", b"first")
    assert not list(tmp_path.iterdir())
