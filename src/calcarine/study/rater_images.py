"""Pictures as raters get them: one size, one format, nothing but pixels."""

from __future__ import annotations

import io
import secrets
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from calcarine.stimuli.image_files import BACKGROUND, read_picture

if TYPE_CHECKING:
    from PIL import Image

_HEAD = 33  # signature and IHDR
_CHUNK = 12  # length, name and checksum of a chunk
_BLUR = 1 / 64  # radius of the slight blur, as a share of the side


def load_uniform(path: Path, size: int) -> Image.Image:
    """Read a picture and fit it into a square.

    Parameters
    ----------
    path : Path
        Any format that Pillow reads.
    size : int
        Side in pixels; a picture that is not square gets grey bars.

    Returns
    -------
    PIL.Image.Image
        RGB, without metadata.

    Raises
    ------
    CalcarineError
        If the file cannot be read; see `calcarine.stimuli.read_picture`.
    """
    from PIL import Image

    flat = Image.fromarray(read_picture(path))
    scale = size / max(flat.size)
    fitted = flat.resize(
        (max(1, round(flat.width * scale)), max(1, round(flat.height * scale))),
        Image.Resampling.LANCZOS,
    )
    square = Image.new("RGB", (size, size), BACKGROUND)
    square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return square


def blurred(image: Image.Image) -> Image.Image:
    """Blur slightly: everybody who looks still knows the picture again."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(max(1.0, image.width * _BLUR)))


def dithered(image: Image.Image, seed: int) -> Image.Image:
    """Change half of the values by one step of 255, which nobody sees.

    Where an original is shown twice in a trial, its two pictures are then not equal, value by
    value, for a rater who compares them by a program.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image.convert("RGB"), dtype=np.int16)
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 0, 0, 1], values.shape)
    # At an end of the range the step goes inwards.
    steps = np.where(values + steps < 0, 1, np.where(values + steps > 255, -1, steps))
    return Image.fromarray((values + steps).astype(np.uint8))


def padded(content: bytes, length: int) -> bytes:
    """A PNG of exactly ``length`` bytes: a chunk of random bytes that decoders skip is put in.

    Parameters
    ----------
    content : bytes
        As :func:`encode` gives it.
    length : int
        At least 12 bytes more than the content has.
    """
    count = length - len(content) - _CHUNK
    if count < 0:
        raise ValueError(f"{len(content)} bytes cannot be padded to {length}")
    # Small letters first: a chunk that may be skipped, of no public kind.
    body = b"raNd" + secrets.token_bytes(count)
    chunk = struct.pack(">I", count) + body + struct.pack(">I", zlib.crc32(body))
    return content[:_HEAD] + chunk + content[_HEAD:]


def encode(image: Image.Image) -> bytes:
    """Encode as PNG without any metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
