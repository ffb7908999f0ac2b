"""Templates and embedded pictures of HTML pages."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.stimuli.image_files import read_picture

__all__ = ["data_uri", "environment", "run_picture", "shrunk_png", "small_png"]


def environment(package: str = "calcarine.reporting") -> Any:
    """Return the template environment of a package; undefined names are errors."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def small_png(path: Path, pixels: int, *, optimize: bool = False) -> bytes:
    """Return a picture as PNG with no side longer than ``pixels``; ``optimize`` for small files."""
    return shrunk_png(run_picture(path), pixels, optimize=optimize)


def run_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture of a run as uint8 of shape (height, width, 3)."""
    try:
        return read_picture(path)
    except CalcarineError as error:
        raise DamagedFileError(
            f"{path} is not a readable picture; delete it and resume the run with `calcarine run`."
        ) from error


def shrunk_png(picture: NDArray[np.uint8], pixels: int, *, optimize: bool = False) -> bytes:
    """Return an array as `small_png` returns a file."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=optimize)
    return buffer.getvalue()
