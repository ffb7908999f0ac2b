"""The one reader of picture files, for loaders, scores, audits, studies and reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError

__all__ = ["BACKGROUND", "PICTURE_SUFFIXES", "check_picture", "read_label_map", "read_picture"]

PICTURE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
)
"""Endings of files that are taken for pictures, in lower case."""

BACKGROUND = (128, 128, 128)
"""The grey, 0 to 255, that shows through transparent parts of a picture."""

# Pillow's names of grey levels of 16 bits or fewer.
_GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture file as RGB, as an image viewer shows it.

    The orientation that EXIF records is applied.  Grey levels of 16 bits are scaled by their
    range, so that 65535 becomes 255, and floats in [0, 1] by 255.  Transparent parts show
    `BACKGROUND`.  Grey, palette, 1-bit and CMYK pictures become RGB.

    Parameters
    ----------
    path : str or Path
        A file of any format that Pillow reads.

    Returns
    -------
    uint8 array of shape (height, width, 3)

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or no picture, holds several pictures (an animation or
        pages), or holds numbers whose range is not known.

    Examples
    --------
    >>> from calcarine.stimuli import read_picture
    >>> read_picture("stimuli/cat.png").shape  # doctest: +SKIP
    (425, 425, 3)
    """
    path = Path(path)
    with _opened(path) as image:
        return _upright(_rgb(image, path), image)


def read_label_map(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture whose pixels are class numbers, such as a semantic map.

    Parameters
    ----------
    path : str or Path
        A palette picture, of which the indices count, or a grey one of 8 or 16 bits.

    Returns
    -------
    uint8 array of shape (height, width)

    Raises
    ------
    CalcarineError
        If the file is no such picture, or holds numbers above 255.
    """
    path = Path(path)
    with _opened(path) as image:
        if image.mode in ("1", "L", "P", "I", *_GREY16):
            labels = np.asarray(image).astype(np.int64)
        else:
            labels = _equal_channels(image, path).astype(np.int64)
        if labels.min() < 0 or labels.max() > 255:
            raise DamagedFileError(
                f"{path} holds class numbers from {labels.min()} to {labels.max()}, and they "
                "must be 0 to 255; renumber the classes."
            )
        return _upright(labels.astype(np.uint8), image)


def check_picture(path: str | Path) -> None:
    """Check the header of a picture file, much faster than reading it.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    CalcarineError
        As `read_picture`; damage to the pixels themselves may stay unseen.
    """
    path = Path(path)
    with _reading(path), Image.open(path) as image:
        _refuse_several(image, path)
        whole = image.mode in ("F", "I")
        image.verify()
    if whole:
        # Whether these numbers can be used depends on all of them.
        read_picture(path)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Return the picture of a file, in memory."""
    with _reading(path), Image.open(path) as image:
        _refuse_several(image, path)
        _scale_transparency(image)
        image.load()
        yield image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of Pillow for a damaged file into one sentence."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        if not path.exists():
            raise MissingFileError(f"The picture {path} does not exist; check its name.") from error
        text = str(error).replace(repr(str(path)), "the file").replace(str(path), "the file")
        reason = " ".join(text.split()) or type(error).__name__
        raise DamagedFileError(
            f"{path} cannot be read as a picture ({reason}); save it again, or leave it out."
        ) from error


def _refuse_several(image: Image.Image, path: Path) -> None:
    # A camera's JPEG (MPO) holds a preview or a second view behind the picture itself.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        raise DamagedFileError(
            f"{path} holds {count} pictures, an animation or pages; save the one that was shown "
            "as a file of its own."
        )


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode in _GREY16:
        return _grey16(image)
    if image.mode == "I":
        return _grey_integers(image, path)
    if image.mode == "F":
        return _grey_floats(image, path)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    clear = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if not clear and image.mode == "P" and image.palette is not None:
        clear = image.palette.mode.endswith("A")
    if not clear:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)
    flat = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    flat.alpha_composite(image.convert("RGBA"))
    return np.asarray(flat.convert("RGB"), dtype=np.uint8)


def _scale_transparency(image: Image.Image) -> None:
    """Convert the transparent colour of a PNG to 8 bits, as Pillow converts its pixels."""
    value = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    if value is None or image.format != "PNG" or not tiles:
        return
    layout = tiles[0][3]
    gain = {"L;2": 85, "L;4": 17}.get(str(layout))
    if gain is not None and isinstance(value, int):
        image.info["transparency"] = value * gain
    elif layout == "RGB;16B" and isinstance(value, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in value)


def _grey16(image: Image.Image) -> NDArray[np.uint8]:
    levels = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})
    top = 2 ** int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow turns for 8 bits only
        levels = top - levels
    grey = ((levels * 255 + top // 2) // top).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        rgb[levels == clear] = BACKGROUND
    return rgb


def _grey_integers(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Convert 32-bit whole numbers, which only some formats use with a known range."""
    levels = np.asarray(image).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    tags = getattr(image, "tag_v2", {})
    signed16 = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2 and tags.get(_BITS_PER_SAMPLE) == (16,)
    # Pillow gives PNG and PGM of more than 8 bits as 0 to 65535.
    known = image.format in ("PNG", "PPM") or 255 < high <= 65535 or low == high == 0
    if low < 0 or not known or signed16:
        raise DamagedFileError(
            f"{path} holds whole numbers from {low} to {high} whose range is not known; save it "
            "with 8 bits (0 to 255) or 16 bits (0 to 65535)."
        )
    grey = ((levels + 128) // 257).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        rgb[levels == clear] = BACKGROUND
    return rgb


def _grey_floats(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    levels = np.asarray(image)
    if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > 1:
        raise DamagedFileError(
            f"{path} holds floats from {levels.min():g} to {levels.max():g}, and they must be "
            "in [0, 1]; scale them, or save it with 8 bits (0 to 255)."
        )
    grey = np.rint(levels * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _equal_channels(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    rgb = np.asarray(image.convert("RGB"), dtype=np.uint8)
    if (rgb != rgb[..., :1]).any():
        raise DamagedFileError(
            f"{path} is a picture in colours, not a map of class numbers; save it as grey or "
            "palette picture of class numbers."
        )
    return rgb[..., 0]


def _upright(pixels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    """Apply the EXIF orientation, unless Pillow has applied and removed it."""
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is None:
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(turn))
