"""Pictures for raters: one size, one format, no metadata."""

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

__all__ = ["blurred", "dithered", "encode", "load_uniform", "padded"]

_HEAD = 33  # signature and IHDR
_CHUNK = 12  # length, name and checksum of a chunk
_BLUR = 1 / 64  # radius of the slight blur, as a share of the side


def load_uniform(path: Path, size: int) -> Image.Image:
    """Read a picture and fit it into a square.

    Parameters
    ----------
    path : Path
        A picture in any format that Pillow can read.
    size : int
        Side in pixels; pictures that are not square get grey bars.

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
    """Blur slightly, so that everyone still recognises the picture."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(max(1.0, image.width * _BLUR)))


def dithered(image: Image.Image, seed: int) -> Image.Image:
    """Change half of the values by one step of 255, which is invisible.

    If an original is shown twice in a trial, a program that compares values cannot detect it.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image.convert("RGB"), dtype=np.int16)
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 0, 0, 1], values.shape)
    # At the limits of the range, the step goes inwards.
    steps = np.where(values + steps < 0, 1, np.where(values + steps > 255, -1, steps))
    return Image.fromarray((values + steps).astype(np.uint8))


def padded(content: bytes, length: int) -> bytes:
    """Pad a PNG to exactly ``length`` bytes with a chunk of random bytes that decoders skip.

    Parameters
    ----------
    content : bytes
        From :func:`encode`.
    length : int
        At least 12 bytes more than the content.
    """
    count = length - len(content) - _CHUNK
    if count < 0:
        raise ValueError(f"{len(content)} bytes cannot be padded to {length}")
    # The lower-case letters mark the chunk as optional and private.
    body = b"raNd" + secrets.token_bytes(count)
    chunk = struct.pack(">I", count) + body + struct.pack(">I", zlib.crc32(body))
    return content[:_HEAD] + chunk + content[_HEAD:]


def encode(image: Image.Image) -> bytes:
    """Encode as PNG without any metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
