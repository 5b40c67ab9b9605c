"""Images in rows: which can be learnt from, and why others are refused, each by itself."""

import base64
import io
import logging
import struct
import zlib
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from flows.adapters.sources.cells import MALFORMED, ROW
from flows.adapters.validation import RowValidator
from s3t_core.config import Config, DataConfig
from s3t_core.images import CUT, MOVES, NO_IMAGE, TOO_LARGE, image_problem
from tests.tiny import picture

DATA = DataConfig(content="image", labels=("a", "b"), max_pixels=1_000_000)


def _told(image: Image.Image, kind: str = "PNG", **more: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return base64.b64encode(file.getvalue()).decode()


def test_whoever_listens_a_photograph_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Pillow logs the metadata of what it reads, by whom and where it was taken."""
    exif = Image.Exif()
    exif[0x013B] = "an artist of some name"
    told = _told(PLAIN, "JPEG", exif=exif)
    caplog.set_level(logging.DEBUG)
    for name in ("PIL", "PIL.TiffImagePlugin", "PIL.Image"):
        caplog.set_level(logging.DEBUG, logger=name)
    assert image_problem(told, 1_000_000) == ""
    assert not [r for r in caplog.records if r.name.startswith("PIL")]


def _huge(side: int) -> str:
    """The header of a PNG of so many pixels a side, which says nothing more: what decoded it would
    need gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0"))
    return base64.b64encode(body + chunk(b"IEND", b"")).decode()


PLAIN = Image.new("RGB", (12, 10), (200, 30, 60))
GOOD = {
    "png": picture(1),
    "jpeg": _told(PLAIN, "JPEG"),
    "1 x 1": _told(Image.new("RGB", (1, 1))),
    "CMYK": _told(PLAIN.convert("CMYK"), "JPEG"),
    "grey": _told(PLAIN.convert("L")),
    "with alpha": _told(PLAIN.convert("RGBA")),
    "palette": _told(PLAIN.convert("P")),
}
BAD = {
    "a text": ("what she wrote", NO_IMAGE),
    "base64 of a text": (base64.b64encode(b"what she wrote").decode(), NO_IMAGE),
    "base64 with blanks": (f"{picture(1)[:20]} {picture(1)[20:]}", NO_IMAGE),
    "a GIF": (_told(PLAIN, "GIF"), NO_IMAGE),
    "20,000 x 20,000": (_huge(20_000), TOO_LARGE),
    "a little too large": (_told(Image.new("RGB", (1001, 1000))), TOO_LARGE),
    "animated": (
        _told(PLAIN, save_all=True, append_images=[Image.new("RGB", (12, 10))]),
        MOVES,
    ),
    "cut PNG": (
        base64.b64encode(base64.b64decode(_told(Image.effect_noise((64, 64), 50)))[:900]).decode(),
        CUT,
    ),
    "cut JPEG": (
        base64.b64encode(
            base64.b64decode(_told(Image.effect_noise((64, 64), 50), "JPEG"))[:900]
        ).decode(),
        CUT,
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_an_image_of_any_size_and_colours_can_be_learnt_from(kind: str) -> None:
    assert image_problem(GOOD[kind], DATA.max_pixels) == ""


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_learnt_from_is_told_for_what_it_is(kind: str) -> None:
    text, why = BAD[kind]
    assert image_problem(text, DATA.max_pixels) == why


def test_rows_that_are_no_images_are_quarantined_and_the_others_are_not() -> None:
    texts = [*GOOD.values(), *(text for text, _ in BAD.values())]
    frame = pd.DataFrame(
        {
            "text": texts,
            "label": "a",
            "subject": [f"s{n}" for n in range(len(texts))],
            ROW: range(1, len(texts) + 1),
            MALFORMED: "",
        }
    )
    refused = RowValidator(DATA, DATA.labels).check(frame).refused
    whys = [[why] for _, why in BAD.values()]
    assert refused == dict(enumerate(whys, len(GOOD) + 1))
    assert "20,000" not in str(refused)
    as_text = RowValidator(DataConfig(labels=("a", "b"), max_text_bytes=10**7), ("a", "b"))
    assert as_text.check(frame).refused == {}


def test_images_are_not_written_by_a_language_model() -> None:
    with pytest.raises(ValueError, match="content"):
        Config.model_validate({"task": {"kind": "generation"}, "data": {"content": "image"}})
