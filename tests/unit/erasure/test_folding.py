"""Under a rule for ids, an id is found in every spelling that the rule takes for the same person's,
wherever the scan looks."""

import base64
import gzip
import json
import pickle
import sqlite3
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.erasure import residue
from s3t_core.erasure.folding import readings_under
from s3t_core.erasure.needles import MIN_ID_BYTES, NeedleSet, is_among, make_needles
from s3t_core.erasure.residue import scan
from s3t_core.identity import STEPS, spelt_under

CASE = ("case",)
UNDER = ("trim", "unicode", "case")
ACCENTED = "anaïs.lefèvre@example.org"


def _wide(spelt: str) -> str:
    """In letters of full width, as East Asian keyboards write them."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in spelt)


def _bold(spelt: str) -> str:
    """In letters of mathematics, as adverts write them."""
    return "".join(chr(ord(c) - 97 + 0x1D41A) if "a" <= c <= "z" else c for c in spelt)


def _nfd(spelt: str) -> str:
    return unicodedata.normalize("NFD", spelt)


def _parted(spelt: str) -> str:
    return "\u200b".join(spelt)


SPELLINGS: list[tuple[Sequence[str], str, Callable[[str], str]]] = [
    (CASE, "anna.canary4711@x.org", str.title),
    (CASE, "anna.canary4711@x.org", str.upper),
    (CASE, "person-0047", str.upper),
    (CASE, "müller.straße@example.org", str.upper),
    (CASE, "Müller.Straße@example.org", str.lower),
    (CASE, "kelvin-4711", lambda s: s.replace("k", "\u212a")),
    (("unicode",), ACCENTED, _nfd),
    (("unicode",), _nfd(ACCENTED), lambda s: unicodedata.normalize("NFC", s)),
    (("unicode",), "person-0047", _wide),
    (("unicode", "case"), "person-0047", lambda s: _wide(s.upper())),
    (("unicode",), "person-of-mathematics", _bold),
    (UNDER, ACCENTED, lambda s: _nfd(s.upper())),
    (("trim",), "person-0047", _parted),
    (("trim",), "person-0047", lambda s: f"\ufeff{s[:3]}\u00ad{s[3:]}\u2069"),
    (("trim",), "person-0047", lambda s: s[:3] + "\x07" + s[3:]),
    (UNDER, "Anna.Canary@x.org", lambda s: _parted(_wide(s.swapcase()))),
    (("trim",), "person-0047", lambda s: f"{s[:6]}\t{s[6:]}"),
    (("trim",), "person-0047", lambda s: f"{s[:5]}\n{s[5:]}"),
    (("trim",), "person-0047", lambda s: f"\x01{s[:4]}\r\n\x0b{s[4:]}\f"),
    (UNDER, ACCENTED, lambda s: "\x07".join(_nfd(s.upper()))),
]


def _needles(rule: Sequence[str], asked: str) -> NeedleSet:
    return make_needles([asked, spelt_under(rule, asked)], [], rule=rule)


def _is_found(folder: Path, rule: Sequence[str], asked: str) -> bool:
    names = [p.name for p in folder.iterdir()]
    report = scan(folder, [], names, [], _needles(rule, asked), [])
    assert not report.undecodable
    assert bool(report.residue) == is_among(spelt_under(rule, asked), report.needles_found)
    return bool(report.residue)


def _msgpack(said: str) -> bytes:
    """A map of two, as MessagePack writes it: a length stands before each value."""
    raw = said.encode()
    head = bytes([0xA0 | len(raw)]) if len(raw) < 32 else bytes([0xD9, len(raw)])
    return b"\x82\xa2ab" + head + raw + b"\xa2cd\x01"


def _as_table(path: Path, said: str) -> None:
    pq.write_table(pa.table({"note": ["of no one", said]}), path.with_suffix(".parquet"))


def _as_database(path: Path, said: str) -> None:
    with sqlite3.connect(path.with_suffix(".db")) as connection:
        connection.execute("CREATE TABLE t (note)")
        connection.execute("INSERT INTO t VALUES (?)", [said])
    connection.close()


def _as_bytes(make: Callable[[str], bytes]) -> Callable[[Path, str], None]:
    return lambda path, said: path.write_bytes(make(said)) and None


WEIGHTS = np.random.default_rng(7).standard_normal(5000).astype(np.float32).tobytes()
WRITTEN: dict[str, Callable[[Path, str], None]] = {
    "text": _as_bytes(lambda said: f"note: {said}, she said\n".encode()),
    "json": _as_bytes(lambda said: json.dumps([json.dumps({"to": said})]).encode()),
    "percent-encoded": _as_bytes(lambda said: f"GET /?q={quote(said)} HTTP/1.1".encode()),
    "utf-16": _as_bytes(lambda said: f"note: {said}, she said, and nothing else".encode("utf-16")),
    "base64": _as_bytes(lambda said: base64.b64encode(f"here is {said} in a letter".encode())),
    "gzip": _as_bytes(lambda said: gzip.compress(f"note: {said}\n".encode())),
    "among numbers": _as_bytes(lambda said: WEIGHTS + b"\0" + said.encode() + b"\0" + WEIGHTS),
    "pickle": _as_bytes(lambda said: pickle.dumps({"a": said, "b": "c"})),
    "msgpack": _as_bytes(_msgpack),
    "Parquet": _as_table,
    "SQLite": _as_database,
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize(("rule", "asked", "spell"), SPELLINGS, ids=range(len(SPELLINGS)))
def test_an_id_is_found_in_every_spelling_that_the_rule_takes_for_it(
    tmp_path: Path, rule: Sequence[str], asked: str, spell: Callable[[str], str], how: str
) -> None:
    said = spell(asked)
    if how == "among numbers" and any(ord(c) < 32 and not c.isspace() for c in said):
        pytest.skip("among numbers a control character is a number itself")
    assert said != asked
    assert spelt_under(rule, said) == spelt_under(rule, asked)
    WRITTEN[how](tmp_path / "left", said)
    assert _is_found(tmp_path, rule, asked)


@pytest.mark.parametrize(("rule", "asked", "spell"), SPELLINGS, ids=range(len(SPELLINGS)))
def test_the_rule_reads_over_the_borders_of_chunks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: Sequence[str],
    asked: str,
    spell: Callable[[str], str],
) -> None:
    monkeypatch.setattr(residue, "CHUNK_BYTES", 4096)
    said = json.dumps(spell(asked)).encode()
    (tmp_path / "log").write_bytes(b"x" * (4096 - len(said) + 2) + b" " + said + b" " + b"y" * 4096)
    assert _is_found(tmp_path, rule, asked)


@pytest.mark.parametrize("how", WRITTEN)
def test_without_the_rule_it_is_another_persons(tmp_path: Path, how: str) -> None:
    for number, (_, asked, spell) in enumerate(SPELLINGS):
        folder = tmp_path / str(number)
        folder.mkdir()
        WRITTEN[how](folder / "left", spell(asked))
        assert not _is_found(folder, (), asked)
        assert not _is_found(folder, ("exact",), asked)


@pytest.mark.parametrize("how", WRITTEN)
def test_under_a_rule_somebody_elses_id_is_not_hers(tmp_path: Path, how: str) -> None:
    for number, (_, asked, spell) in enumerate(SPELLINGS):
        folder = tmp_path / str(number)
        folder.mkdir()
        longer = spelt_under(UNDER, asked) + "9"
        WRITTEN[how](folder / "left", spell(longer))
        assert not _is_found(folder, UNDER, asked)


HELD: dict[str, Callable[[bytes], bytes]] = {
    "quoted": lambda raw: b'4,"' + raw + b'",x\n',
    "in JSON": lambda raw: json.dumps({"to": raw.decode()}).encode(),
    "whole": lambda raw: raw,
    "a line": lambda raw: raw + b"\n",
    "measured": lambda raw: b"X" + len(raw).to_bytes(4, "little") + raw + b"q\x02",
    "measured among numbers": lambda raw: WEIGHTS + b"Z" + bytes([len(raw)]) + raw + b"z" + WEIGHTS,
}


@pytest.mark.parametrize("parting", ["\t", "\n", "\v", "\f", "\r", "\r\n", "\0", "\x1f", "\x07"])
@pytest.mark.parametrize("how", HELD)
def test_what_parts_words_is_within_an_id_that_is_held(how: str, parting: str) -> None:
    """Also between digits, and whatever the characters of an id are beside them."""
    for asked in ("person-4711", "47114711", "müller-4711"):
        said = f"{asked[:-2]}{parting}{asked[-2:]}".encode()
        assert _needles(("trim",), asked).spelt_in(HELD[how](said)), (asked, parting)
        assert _needles(UNDER, asked).spelt_in(HELD[how](said.upper())), (asked, parting)


@pytest.mark.parametrize("parting", ["\t", "\n", "\r\n", "\v", "\x1e"])
def test_two_numbers_are_not_one_for_a_line_break_between_them(parting: str) -> None:
    """A column of numbers would say every id."""
    needles = _needles(UNDER, "100200")
    assert not needles.spelt_in(parting.join(["7", "100", "200", "9"]).encode())
    assert not needles.spelt_in(parting.join(["é", "100", "200", "9"]).encode())
    assert not _needles(UNDER, "user-1234").spelt_in(f"x\nuser-1{parting}234\ny".encode())


def test_two_values_among_numbers_are_not_one() -> None:
    """What is between them is the length of the second."""
    needles = _needles(UNDER, "annas-b4711")
    values = [b"somebody", b"annas-", b"b4711", b"somebody-else"]
    for width in (1, 2, 4):
        listed = b"".join(len(v).to_bytes(width, "big") + v for v in values)
        assert not needles.spelt_in(WEIGHTS + listed + WEIGHTS)
        assert not needles.spelt_in(listed + b"\1\2\3\4")


def test_two_cells_are_not_one(tmp_path: Path) -> None:
    values = ["anna", "-b4711"], ["100", "200"], ["of no one", "nor another"]
    for n, column in enumerate(values):
        pq.write_table(pa.table({"a": column}), tmp_path / f"a{n}.parquet")
    pq.write_table(pa.table({str(n): [v] for n, v in enumerate(values[0])}), tmp_path / "b.parquet")
    with sqlite3.connect(tmp_path / "left.db") as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany(
            "INSERT INTO t VALUES (?)", [[v] for column in values for v in column]
        )
    connection.close()
    assert not _is_found(tmp_path, UNDER, "anna-b4711")
    assert not _is_found(tmp_path, UNDER, "100200")


UNSEEN = ["\ufeff", "\u0600", "\u00ad", "\u2066", "\u200b\u200f", "\x07"]


@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("padding", [b"", WEIGHTS])
def test_what_nobody_sees_stands_at_the_front_or_the_end_of_what_is_measured(
    unseen: str, padding: bytes
) -> None:
    """The length is of all of it, and what follows may be a letter."""
    for asked in ("person-0047", ACCENTED):
        for said in (unseen + asked, asked + unseen, unseen + asked + unseen):
            raw = said.encode()
            data = padding + b"Z" + bytes([len(raw)]) + raw + b"z" + padding
            assert _needles(UNDER, asked).spelt_in(data)


@pytest.mark.parametrize("spell", [_nfd, _wide, str.upper, _parted])
@pytest.mark.parametrize("mark", ["little", "big", "varint", "fixstr"])
def test_a_length_among_numbers_stands_before_what_was_turned(
    spell: Callable[[str], str], mark: str
) -> None:
    """In weights, as torch.save and Protocol Buffers write a name among them."""
    asked = "élise-47" if mark == "fixstr" else ACCENTED
    raw = spell(asked).encode()
    size = len(raw)
    if mark == "fixstr" and size >= 32:
        return
    head = {
        "little": size.to_bytes(4, "little"),
        "big": size.to_bytes(2, "big"),
        "varint": bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7]),
        "fixstr": bytes([0xA0 | (size & 31)]),
    }[mark]
    needles = _needles(UNDER, asked)
    assert needles.spelt_in(WEIGHTS + b"X" + head + raw + b"q" + WEIGHTS)
    assert not needles.spelt_in(WEIGHTS + b"X\xff" + raw + b"q" + WEIGHTS)


@pytest.mark.parametrize("sign", ["²", "™", "№", "①", "½", "㎏"])
def test_a_sign_beside_an_id_is_no_letter_of_it(sign: str) -> None:
    """NFKC makes letters and digits of it; before it the id ends."""
    for spell in (_wide, str.upper):
        said = spell("person-0047")
        needles = _needles(UNDER, "person-0047")
        assert needles.spelt_in(f"by {said}{sign} only".encode())
        assert needles.spelt_in(f"by {sign}{said} only".encode())


@pytest.mark.parametrize("unseen", ["\u200e", "\u200f", "\u2069", "\u200b", "\x01"])
def test_what_nobody_sees_parts_an_id_from_a_letter(unseen: str) -> None:
    """Marks of direction stand around what is quoted in a text from right to left."""
    needles = _needles(UNDER, "person-0047")
    for spell in (_wide, str.upper, str, "\u00ad".join, lambda s: _wide(f"{s[:3]}\u2060{s[3:]}")):
        assert needles.spelt_in(f"by{unseen}{spell('person-0047')}{unseen}and".encode())
        said = spell(f"per{unseen}son-0047")
        assert needles.spelt_in(f"by{unseen}{said}{unseen}and".encode())
    longer = unseen.join("person-00479")
    assert not needles.spelt_in(f"by {longer} and".encode())


@given(
    st.text(
        st.sampled_from("ab1é\u0301\u200b\ufeff\n\t\x07ｐß\u1100\u1161\u11a8ﬃ가語²İ"), max_size=24
    ),
    st.sampled_from([UNDER, ("trim",), ("case", "unicode"), ("trim", "case")]),
)
def test_where_each_byte_came_from_is_known(text: str, rule: tuple[str, ...]) -> None:
    """Piece by piece a text becomes what it becomes as a whole."""
    for reading in readings_under(rule, text.encode(), 6):
        assert getattr(reading, "_is_known", True)
        places = getattr(reading, "_places", lambda place: (place, place))
        assert places(len(reading.data))[1] == len(text.encode())
        assert places(0)[0] == 0


@given(
    st.text(min_size=MIN_ID_BYTES, max_size=40).filter(
        lambda s: len(spelt_under(UNDER, s).encode()) >= 12
    ),
    st.sampled_from([str.upper, str.lower, str.swapcase, str.title, _nfd, _wide]),
    st.sampled_from(["log: {} ", "{}", '"{}"', "a\n{}\nb"]),
)
def test_whatever_the_rule_takes_for_the_same_is_found(
    asked: str, spell: Callable[[str], str], frame: str
) -> None:
    said = spell(asked)
    under = spelt_under(STEPS, asked)
    if spelt_under(STEPS, said) != under or any(
        c in said for c in "\\%&\x1b\0\t\n\v\f\r\x1c\x1d\x1e\x1f'\""
    ):
        return
    needles = make_needles([asked, under], [], rule=STEPS)
    assert needles.spelt_in(frame.format(said).encode())


@pytest.mark.parametrize("size", range(6, 96))
def test_a_length_before_an_id_is_none_of_its_letters_also_in_other_case(size: int) -> None:
    """A byte that says a length may be a letter, which a rule turns as well."""
    asked = ("anna4711" * 12)[:size]
    said = asked.upper().encode()
    for mark in (bytes([size]), bytes([0x40 | size]) if size < 24 else bytes([size])):
        assert _needles(CASE, asked).spelt_in(b"Z" + mark + said + b"z")


def test_a_name_of_a_file_is_read_under_the_rule(tmp_path: Path) -> None:
    (tmp_path / f"{_nfd(ACCENTED.upper())}.log").write_text("nothing\n")
    report = scan(
        tmp_path, [], [p.name for p in tmp_path.iterdir()], [], _needles(UNDER, ACCENTED), []
    )
    assert report.residue == ("(name 1)",)


def test_a_text_is_looked_for_as_it_is() -> None:
    text = "a very particular morning in the harbour"
    needles = make_needles(["person-0047"], [text], rule=UNDER)
    assert needles.spelt_in(text.encode())
    assert not needles.spelt_in(text.upper().encode())


def test_what_the_system_writes_in_another_case_is_no_trace_of_a_person() -> None:
    needles = make_needles(
        ["S3T-Champion-1", "s3t-champion-1"], [], b"as S3t-CHAMPION-1", rule=CASE
    )
    assert needles.ids_unsearchable == {"s3t-champion-1"}
