"""Sources in UTF-16 and UTF-32: what is out of step is refused, whoever's row it was that lost or
won a byte (hazard 19)."""

import codecs
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.adapters.sources.text import open_text
from s3t_core.errors import DataError

PEOPLE = [(f"person-{n:02d}", f"what number {n} told the clinic", "good") for n in range(30)]
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
MARKS = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def _as_csv(rows: list[tuple[str, ...]], end: str = "\n", separator: str = ",") -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        out = io.StringIO()
        csv.writer(out, delimiter=separator, lineterminator=end).writerow(cells)
        return out.getvalue()

    return [line(cells) for cells in (("who", "what", "kind"), *rows)]


def _as_lines(rows: list[tuple[str, ...]]) -> list[str]:
    return [json.dumps(dict(zip(("who", "what", "kind"), r, strict=True))) + "\n" for r in rows]


def _as_array(rows: list[tuple[str, ...]]) -> list[str]:
    objects = [line.strip() for line in _as_lines(rows)]
    return ["[", *(o + ", " for o in objects[:-1]), objects[-1] + "]"]


FORMS: dict[str, Callable[[list[tuple[str, ...]]], list[str]]] = {
    "CSV": _as_csv,
    "CSV of Windows": lambda rows: _as_csv(rows, "\r\n"),
    "CSV of an old Mac": lambda rows: _as_csv(rows, "\r"),
    "TSV": lambda rows: _as_csv(rows, separator="\t"),
    "CSV with semicolons": lambda rows: _as_csv(rows, separator=";"),
    "JSON Lines": _as_lines,
    "a JSON array in one line": _as_array,
}


def _read(folder: Path, data: bytes, codec: str) -> str:
    path = folder / "source"
    path.write_bytes(data)
    with open_text(path, "", codec) as file:
        return file.read()


def _pieces(form: str, codec: str) -> list[bytes]:
    return [piece.encode(codec) for piece in FORMS[form](PEOPLE)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize("has_mark", [True, False])
def test_a_text_that_is_in_step_is_read(
    tmp_path: Path, form: str, codec: str, has_mark: bool
) -> None:
    data = b"".join(_pieces(form, codec))
    told = "".join(FORMS[form](PEOPLE))
    if has_mark:
        assert _read(tmp_path, MARKS[codec] + data, codec[:6]) == told
    else:
        assert _read(tmp_path, data, codec) == told


def _cut(piece: bytes, place: int) -> bytes:
    return piece[:place] + piece[place + 1 :]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize("first", ["a byte more", "a byte less", "a line end cut in half"])
@pytest.mark.parametrize("between", [1, 3])
def test_two_rows_with_an_odd_byte_do_not_put_those_between_them_into_one(
    tmp_path: Path, form: str, codec: str, first: str, between: int
) -> None:
    pieces = _pieces(form, codec)
    width = 4 if "32" in codec else 2
    begin, end = 5, 6 + between
    middle = len(pieces[begin]) // 2 // width * width
    damaged = {
        "a byte more": pieces[begin][:middle] + b"x" + pieces[begin][middle:],
        "a byte less": _cut(pieces[begin], middle),
        "a line end cut in half": pieces[begin][:-1],
    }
    pieces[begin] = damaged[first]
    pieces[end] = (
        _cut(pieces[end], middle)
        if first == "a byte more"
        else pieces[end][:middle] + b"x" + pieces[end][middle:]
    )
    with pytest.raises(DataError, match="out of step"):
        _read(tmp_path, b"".join(pieces), codec)


@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("length", range(40, 48))
def test_lines_of_single_bytes_between_others_are_no_part_of_anybodys_row(
    tmp_path: Path, codec: str, end: str, length: int
) -> None:
    """As a shell's `>>` leaves them; where their number of bytes fits, what is behind is in
    step."""
    pieces = _pieces("CSV of Windows", codec)
    line = "person-x,".ljust(length - len(end), "y") + end
    pieces.insert(9, line.encode())
    with pytest.raises((DataError, UnicodeError)):
        _read(tmp_path, b"".join(pieces), codec)


def test_short_lines_that_end_in_cr_lf_are_found_too(tmp_path: Path) -> None:
    pieces = _pieces("CSV of Windows", "utf-16-le")
    for line in ("p,t,good\r\n", "p,tt,bad\r\n"):
        with pytest.raises(DataError, match="out of step"):
            _read(tmp_path, b"".join([*pieces[:9], line.encode(), *pieces[9:]]), "utf-16-le")


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=300),
    st.sampled_from(WIDE),
)
@example("\u0d0a\u0d15 \u0a15\u0a3e \u4e0a\u4e0d\u4e00 \u3000\u3000", "utf-16-be")
@example("\U0001f600 \u7b2c\u4e00, \u2264 1; \u7cfb\u4e00", "utf-16-le")
def test_texts_of_any_script_are_in_step(
    tmp_path_factory: pytest.TempPathFactory, text: str, codec: str
) -> None:
    """But for what the module names: such neighbours do not come about by chance."""
    rare = {0x22, 0x09, 0x0A, 0x0D, 0x2C, 0x3B}
    kept = "".join(c for c in text if ord(c) & 0xFF or ord(c) < 0x100)
    kept = kept if not rare & {ord(c) >> 8 for c in kept} or text != kept else text
    rows = _as_csv([("a", kept, "good")] * 3)
    told = "".join(rows)
    assert _read(tmp_path_factory.mktemp("any"), told.encode(codec), codec) == told


@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize("half", ["\ud83d", "\ude00", "\ud83d\ud83d"])
def test_half_an_emoji_spoils_its_row_alone(tmp_path: Path, codec: str, half: str) -> None:
    pieces = _pieces("CSV", codec)
    pieces[4] = f"person-03,{half} hello,good\n".encode(codec, "surrogatepass")
    read = _read(tmp_path, b"".join(pieces), codec).splitlines()
    spoilt = [n for n, line in enumerate(read) if any("\ud800" <= c <= "\udfff" for c in line)]
    assert spoilt == [4] and len(read) == len(pieces)


@pytest.mark.parametrize("codec", WIDE)
def test_a_text_that_is_cut_within_a_unit_is_refused(tmp_path: Path, codec: str) -> None:
    with pytest.raises((DataError, UnicodeError)):
        _read(tmp_path, b"".join(_pieces("CSV", codec))[:-1], codec)


@pytest.mark.parametrize("codec", WIDE)
def test_what_stands_across_two_chunks_is_found(tmp_path: Path, codec: str) -> None:
    width = 4 if "32" in codec else 2
    before = "a".encode(codec) * (64 * 1024 // width - 1)
    line_end, behind = "\n".encode(codec), "b".encode(codec) * 20
    with pytest.raises(DataError, match=f"about byte {64 * 1024 - width + 1}:"):
        _read(tmp_path, before + b"\x01" + line_end + behind[1:], codec)
