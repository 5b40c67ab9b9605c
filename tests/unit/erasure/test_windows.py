"""Windows of a text that only its own rows have: not of what many people say, nor of how the file
of a picture begins."""

import base64
import io
from random import Random

import pytest
from PIL import Image

from s3t_core.conversations import Turn, conversation_text
from s3t_core.erasure.needles import NeedleSet, is_text_among, make_needles
from s3t_core.images import FORMATS

SYSTEM = "You are a helpful assistant of the Harbour Library."
QUOTING = 'You answer "as the Harbour Library does", and say \\no more than\n that.'
LINES = 'Good morning,\n\nthis is a "form" that I fill in to tell you what I found in the harbour'
HERS = "When does the tide of the eleventh of May turn in the old harbour?"


def _picture(kind: str, seed: int, size: int = 24) -> bytes:
    drawn = Random(seed)  # pixels
    image = Image.new("RGB", (size, size))
    image.putdata([tuple(drawn.randbytes(3)) for _ in range(size * size)])
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _chat(system: str, asked: str) -> str:
    return conversation_text([Turn("system", system), Turn("user", asked)])


def _of_chats(system: str, others: int) -> NeedleSet:
    hers = _chat(system, HERS)
    kept = [(f"subject {n}", _chat(system, f"asked {n}")) for n in range(others)]
    return make_needles([], [hers, system, "When does the tide turn?"], kept=lambda: kept)


@pytest.mark.parametrize("system", [SYSTEM, QUOTING])
def test_what_many_people_say_whose_rows_are_kept_is_no_trace_of_one(system: str) -> None:
    for others, found in ((0, True), (2, True), (3, False), (40, False)):
        needles = _of_chats(system, others)
        assert needles.spelt_in(system.encode()) is found, others
        assert needles.unsearchable == (0 if found else 1), others
    assert needles.spelt_in(b"as she said: When does the tide turn?")
    assert needles.spelt_in(_chat("another", HERS).encode())


def test_one_person_who_says_it_often_is_not_many() -> None:
    kept = [("subject 1", _chat(SYSTEM, f"asked {n}")) for n in range(40)]
    assert make_needles([], [SYSTEM], kept=lambda: kept).spelt_in(SYSTEM.encode())


@pytest.mark.parametrize("kind", FORMATS)
def test_an_erased_picture_is_found_as_a_file_and_in_base64_and_another_is_not(kind: str) -> None:
    hers, others = _picture(kind, 1), [_picture(kind, n) for n in range(2, 12)]
    needles = make_needles([], [_text(hers)])
    for left in (
        hers,
        _text(hers).encode(),
        b"# ours\n![](data:;base64," + _text(hers).encode(),
    ):
        found = needles.which_spelt(left)
        assert found and is_text_among(_text(hers), found)
    for other in others:
        assert not needles.spelt_in(other) and not needles.spelt_in(_text(other).encode()), kind


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_of_an_erased_picture_is_found(kind: str) -> None:
    """A half of it, as a page of a database, or a cut-off file, has."""
    hers = _picture(kind, 1, 64)
    needles = make_needles([], [_text(hers)])
    assert needles.spelt_in(hers[len(hers) // 2 - 40 :])
    assert needles.spelt_in(hers[: len(hers) * 3 // 4])


@pytest.mark.parametrize(
    "text",
    [
        "/9j/ is how she begins every letter",
        "iVBOR" * 20,
        "/9j/" + "A" * 200,
    ],
)
def test_what_only_looks_like_a_picture_is_a_text(text: str) -> None:
    needles = make_needles([], [text])
    assert needles.spelt_in(f"a log: {text}".encode()) is (len(text) > 16)


@pytest.mark.parametrize("others", [3, 20])
@pytest.mark.parametrize("end", [False, True])
def test_where_many_begin_or_end_alike_what_is_hers_alone_is_looked_for_from_there_on(
    others: int, end: bool
) -> None:
    """A line of a log that was cut off has the greeting that everybody writes, and what she wrote
    behind it."""
    greeting = "Dear people of the harbour library, on the day of the great storm I"
    own = "".join(Random(7).choices("abcdefghij ", k=1600))  # letters
    told = [own, greeting][:: 1 if end else -1]
    kept = [(f"subject {n}", f"{greeting} asked {n}; {greeting}") for n in range(others)]
    needles = make_needles([], ["".join(told)], kept=lambda: kept)
    assert needles.unsearchable == 0 and needles.said_by_many
    left = "".join(told)[-700:] if end else "".join(told)[:700]
    found = needles.which_spelt(f"a log: {left}".encode())
    assert found and is_text_among("".join(told), found)
    assert not needles.spelt_in(f"a form: {greeting}".encode())


def test_what_is_wholly_said_by_many_is_counted() -> None:
    kept = [(f"subject {n}", SYSTEM * 9) for n in range(3)]
    needles = make_needles([], [SYSTEM * 9, HERS], kept=lambda: kept)
    assert needles.unsearchable == 1 and needles.spelt_in(HERS.encode())
    assert not needles.spelt_in((SYSTEM * 9).encode())


@pytest.mark.parametrize("greeting", [LINES, SYSTEM])
def test_what_many_say_in_a_turn_is_nobodys_however_a_chat_spells_it(greeting: str) -> None:
    kept = [(f"subject {n}", _chat(f"customer {n}", f"{greeting} {n}")) for n in range(5)]
    hers = _chat("customer 9", f"{greeting}, and {HERS * 4}")
    needles = make_needles([], [hers, f"{greeting}, and {HERS * 4}"], kept=lambda: kept)
    assert not needles.spelt_in(f"{greeting}\n".encode())
    assert needles.spelt_in(f"{greeting}, and {HERS * 4}".encode())


def test_what_many_pictures_show_alike_is_nobodys() -> None:
    """A white margin, at the same size and quality."""

    def framed(seed: int) -> str:
        inner = Image.open(io.BytesIO(_picture("PNG", seed, 64)))
        image = Image.new("RGB", (224, 224), "white")
        image.paste(inner, (80, 80))
        file = io.BytesIO()
        image.save(file, "JPEG")
        return _text(file.getvalue())

    kept = [(f"subject {n}", framed(n)) for n in range(2, 8)]
    needles = make_needles([], [framed(1)], kept=lambda: kept)
    other, hers = base64.b64decode(framed(99)), base64.b64decode(framed(1))
    assert not needles.spelt_in(other) and needles.spelt_in(hers)
