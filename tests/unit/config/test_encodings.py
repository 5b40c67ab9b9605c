"""An encoding of a file of people's rows: one person's row never decides how another's is read."""

import codecs
import encodings
import pkgutil

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3t_core.config.data import DataConfig
from s3t_core.config.encodings import is_text_encoding, keeps_to_its_line

NAMES = sorted({module.name for module in pkgutil.iter_modules(encodings.__path__)})
TAKEN = [name for name in NAMES if is_text_encoding(name) and keeps_to_its_line(name)]
SHIFTS = st.sampled_from([b"\x1b(J", b"\x1b(B", b"\x1b$B", b"\x1b$)C", b"\x1b.A", b"\x0e", b"~{"])


@pytest.mark.parametrize(
    "name", ["iso2022_jp", "iso-2022-jp", "csISO2022JP", "iso2022_kr", "hz", "unicode_escape"]
)
def test_one_in_which_a_row_leaves_a_mark_open_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="each line stands for itself"):
        DataConfig(encoding=name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-32",
        "cp1252",
        "latin-1",
        "ascii",
        "shift_jis",
        "cp932",
        "euc_jp",
        "euc_kr",
        "big5",
        "gbk",
        "gb18030",
        "koi8-r",
        "cp037",
    ],
)
def test_those_that_people_have_are_taken(name: str) -> None:
    assert DataConfig(encoding=name).encoding == name


@pytest.mark.parametrize("name", ["", "base64", "rot13", "no such", "zlib", "utf-8\0"])
def test_what_is_none_is_told_as_that(name: str) -> None:
    if name:
        with pytest.raises(ValueError, match="name of an encoding"):
            DataConfig(encoding=name)


@given(
    st.sampled_from([n for n in TAKEN if len("\n".encode(n.replace("_sig", ""))) == 1]),
    st.lists(SHIFTS | st.binary(min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_whatever_bytes_a_row_ends_in_the_next_one_is_read_as_it_is_alone(
    name: str, opened: list[bytes]
) -> None:
    """All of Python's, also by bytes that nobody thought of."""
    line = "w0 w1 bob\n"
    assume(codecs.decode(line.encode(name), name) == line)
    newline = "\n".encode(name.replace("_sig", ""))
    try:
        found = (b"".join(opened) + newline + line.encode(name.replace("_sig", ""))).decode(name)
    except UnicodeError:
        return  # such a file is refused
    assert found.endswith("\n" + line)
