"""Pictures as raters get them: one size, one format, nothing but pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from calcarine.stimuli.pictures import BACKGROUND, read_picture

if TYPE_CHECKING:
    from PIL import Image

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


def encode(image: Image.Image) -> bytes:
    """Encode as PNG without any metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
