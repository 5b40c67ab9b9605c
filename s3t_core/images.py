"""Images as rows hold them: a PNG or JPEG file in base64 (RFC 4648, section 4). Pillow reads many
more formats; for some (EPS) it writes the row to a file and starts another program."""

import base64
import binascii
import io
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

FORMATS = ("PNG", "JPEG")
NO_IMAGE = "the image is not a PNG or JPEG file in base64"
CUT = "the image is cut off, or damaged"
TOO_LARGE = "the image has more pixels than [data] max_pixels"
MOVES = "the image has several frames"
_BEGINNINGS = ("iVBOR", "/9j/")
"""Of both formats, in base64."""
PROBLEMS = (NO_IMAGE, CUT, TOO_LARGE, MOVES)
"""Why an image is refused."""


def read_image(text: str) -> "PilImage":
    """The image that a row holds, not decoded yet. Raises ValueError (binascii.Error is one) and
    OSError for what is none."""
    from PIL import Image

    _say_nothing()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        file = io.BytesIO(base64.b64decode(text, validate=True))
        return Image.open(file, formats=FORMATS)


def _say_nothing() -> None:
    """Pillow logs what it reads, of photographs by whom and where they were taken: to whoever
    listens, whatever a log may hold."""
    for name in ("PIL", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "PIL":
            logging.getLogger(name).setLevel(logging.CRITICAL)


def file_in(text: str) -> tuple[bytes, int]:
    """The file of an image that a row holds, and at which of its bytes what it shows begins: the
    headers and tables before that are the same in many. No bytes where a row holds something
    else."""
    try:
        data = base64.b64decode(text, validate=True) if text.startswith(_BEGINNINGS) else b""
    except ValueError:
        return b"", 0
    if data.startswith(b"\x89PNG"):
        return data, data.find(b"IDAT") + 4
    if data.startswith(b"\xff\xd8\xff"):
        return data, data.rfind(b"\xff\xda") + 14  # the last scan, behind its header
    return b"", 0


def image_problem(
    text: str,
    max_pixels: int,
) -> str:
    """Why an image is refused, "" where it can be learnt from: by itself alone, whatever its size
    and colours else. Its size is looked at before it is decoded."""
    from PIL import Image

    try:
        image = read_image(text)
    except Image.DecompressionBombError:
        return TOO_LARGE
    except (binascii.Error, ValueError, OSError):
        return NO_IMAGE
    if image.width * image.height > max_pixels:
        return TOO_LARGE
    if getattr(image, "n_frames", 1) > 1:
        return MOVES
    try:
        image.convert("RGB")
    except (ValueError, OSError, SyntaxError):
        return CUT
    return ""
