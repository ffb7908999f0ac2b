"""One picture saved in many ways is one picture, for everything that reads pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calcarine.audit.folders import inputs_from_folders
from calcarine.errors import CalcarineError
from calcarine.evaluation.inputs.folders import open_folders
from calcarine.evaluation.scoring.score import score_folder
from calcarine.experiment.reconstructions import read_image
from calcarine.reporting.html_pages import small_png
from calcarine.stimuli import StimulusSet, read_picture
from calcarine.stimuli.image_files import BACKGROUND, check_picture, read_label_map
from calcarine.study.rater_images import load_uniform

SIDE = 16
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]
GREY = (COLUMNS * SIDE + ROWS).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
GREY16 = GREY.astype(np.uint16) * 257


def png(path: Path, pixels: np.ndarray, kind: int, clear: bytes = b"") -> Path:
    """A PNG of 16 bits of the colour type `kind`, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        total = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", total)

    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + (chunk(b"tRNS", clear) if clear else b"")
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    return path


def save(name: str, pixels: np.ndarray, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        Image.fromarray(pixels).save(folder / name, **options)
        return folder / name

    return write


def turned(name: str, orientation: int) -> Callable[[Path], Path]:
    """Stored as a camera does that was held otherwise; EXIF says how to turn it back."""
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(name, np.ascontiguousarray(stored), exif=exif)


COLOUR = {
    "png": save("a.png", RGB),
    "bmp": save("a.bmp", RGB),
    "tiff": save("a.tif", RGB),
    "webp": save("a.webp", RGB, lossless=True),
    "ppm": save("a.ppm", RGB),
    "opaque": save("a.png", np.dstack([RGB, np.full((SIDE, SIDE), 255, np.uint8)])),
    "16 bits": lambda folder: png(folder / "a.png", RGB.astype(np.uint16) * 257, 2),
    "16 bits, opaque": lambda folder: png(
        folder / "a.png", np.dstack([RGB.astype(np.uint16) * 257, np.full_like(GREY16, 65535)]), 6
    ),
    "CMYK": lambda folder: (
        Image.fromarray(RGB).convert("CMYK").save(folder / "a.tif"),
        folder / "a.tif",
    )[1],
    **{f"EXIF {o} {end}": turned(f"a.{end}", o) for o in range(1, 9) for end in ("png", "tif")},
}
GREYS = {
    "8 bits": save("a.png", GREY),
    "16 bits": save("a.png", GREY16),
    "16 bits TIFF": save("a.tif", GREY16),
    "16 bits TIFF, big-endian": save("a.tif", GREY16.astype(">u2")),
    "16 bits TIFF, white is zero": save("a.tif", 65535 - GREY16, tiffinfo={262: 0}),
    "32 bits TIFF": save("a.tif", GREY16.astype(np.int32)),
    "floats": save("a.tif", GREY.astype(np.float32) / 255),
    "with alpha": save("a.png", np.dstack([GREY, np.full_like(GREY, 255)])),
    "16 bits with alpha": lambda folder: png(
        folder / "a.png", np.dstack([GREY16, np.full_like(GREY16, 65535)]), 4
    ),
    "PGM of 16 bits": lambda folder: (
        (folder / "a.pgm").write_bytes(
            f"P5 {SIDE} {SIDE} 65535\n".encode() + GREY16.astype(">u2").tobytes()
        ),
        folder / "a.pgm",
    )[1],
}
ALL = [(name, write, RGB) for name, write in COLOUR.items()] + [
    (f"grey, {name}", write, GREY_RGB) for name, write in GREYS.items()
]


@pytest.mark.parametrize(("write", "wanted"), [a[1:] for a in ALL], ids=[a[0] for a in ALL])
def test_everything_reads_a_picture_alike(
    write: Callable[[Path], Path], wanted: np.ndarray, tmp_path: Path
) -> None:
    path = write(tmp_path)
    (tmp_path / "t.csv").write_text(f"id,file\na,{path.name}\n")
    folders = [tmp_path / name for name in ("truth", "recon")]
    for folder in folders:
        folder.mkdir()
        for stem in ("p", "q"):
            (folder / f"{stem}{path.suffix}").write_bytes(path.read_bytes())
    scored = open_folders(*folders, None, None)
    audited = inputs_from_folders(folders[1], folders[0])
    for found in (
        read_picture(path),
        StimulusSet.from_folder(tmp_path, "t.csv").images()[0],
        scored.test.truth.read(0, 0),
        scored.methods["recon"].read(1, 0),
        audited.truth.full(0),
        audited.recon.full(1),
        np.asarray(load_uniform(path, SIDE)),
        read_image(path),
    ):
        np.testing.assert_array_equal(found, wanted)
    (tmp_path / "small.png").write_bytes(small_png(path, SIDE))
    np.testing.assert_array_equal(read_picture(tmp_path / "small.png"), wanted)
    check_picture(path)


def test_a_jpeg_is_turned_as_exif_says(tmp_path: Path) -> None:
    path = turned("a.jpg", 6)(tmp_path)
    difference = np.abs(read_picture(path).astype(int) - RGB)
    assert difference.mean() < 12  # what JPEG loses; unturned it is above 60
    assert np.abs(read_picture(path).astype(int) - np.rot90(RGB, 1)).mean() > 60


def _transparent(kind: str, folder: Path) -> Path:
    path, clear = folder / "a.png", COLUMNS < SIDE // 2
    if kind == "RGBA":
        alpha = np.where(clear, 0, 255).astype(np.uint8)
        Image.fromarray(np.dstack([RGB, alpha])).save(path)
    elif kind == "LA":
        Image.fromarray(np.dstack([GREY // 2, np.where(clear, 0, 255).astype(np.uint8)])).save(path)
    elif kind == "palette":
        image = Image.fromarray(np.where(clear, 1, 0).astype(np.uint8), "L").convert("P")
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.save(path, transparency=1)
    elif kind == "grey key":
        Image.fromarray(np.where(clear, 7, 200).astype(np.uint8)).save(path, transparency=7)
    elif kind == "grey key of 16 bits":
        levels = np.where(clear, 7 * 257, 200 * 257).astype(np.uint16)
        png(path, levels, 0, struct.pack(">H", 7 * 257))
    elif kind == "colour key of 16 bits":
        levels = np.where(clear, 0x0705, 200 * 257).astype(np.uint16)
        png(path, np.dstack([levels] * 3), 2, struct.pack(">HHH", *[0x0705] * 3))
    else:
        image = Image.fromarray(np.where(clear, 3, 9).astype(np.uint8), "L").convert("P")
        image.putpalette([value for i in range(256) for value in (i, i, i)])
        image.save(path, transparency=bytes([0 if i == 3 else 255 for i in range(256)]))
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "RGBA",
        "LA",
        "palette",
        "palette of alphas",
        "grey key",
        "grey key of 16 bits",
        "colour key of 16 bits",
    ],
)
def test_what_is_transparent_shows_the_background(kind: str, tmp_path: Path) -> None:
    path = _transparent(kind, tmp_path)
    found = read_picture(path)
    left, right = found[:, : SIDE // 2], found[:, SIDE // 2 :]
    assert (left == BACKGROUND).all()
    assert not (right == BACKGROUND).all(axis=-1).any()
    np.testing.assert_array_equal(found, np.asarray(load_uniform(path, SIDE)))


def test_half_transparent_is_half_background(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 3] = 128
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert abs(int(read_picture(tmp_path / "a.png")[0, 0, 0]) - 64) <= 1


def _bomb(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    whole = b"IHDR" + head
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + whole
        + struct.pack(">I", zlib.crc32(whole))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


def _animation(path: Path) -> None:
    others = [Image.fromarray(255 - RGB)]
    Image.fromarray(RGB).save(path, save_all=True, append_images=others)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.gif", _animation, "holds 2 pictures"),
        ("a.png", _animation, "holds 2 pictures"),
        ("a.webp", _animation, "holds 2 pictures"),
        ("a.tif", _animation, "holds 2 pictures"),
        (
            "b.tif",
            lambda p: Image.fromarray(GREY.astype(np.float32)).save(p),
            r"floats .* \[0, 1\]",
        ),
        ("n.tif", lambda p: Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(p), "floats"),
        ("i.tif", lambda p: Image.fromarray(GREY.astype(np.int32)).save(p), "range is not known"),
        ("j.tif", lambda p: Image.fromarray(GREY.astype(np.int32) << 16).save(p), "not known"),
        ("k.tif", lambda p: Image.fromarray(-GREY16.astype(np.int32)).save(p), "not known"),
        ("t.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n1234"), "cannot be read as a picture"),
        ("x.png", lambda p: p.write_bytes(b"no picture"), "cannot be read as a picture"),
        ("z.png", _bomb, "cannot be read as a picture"),
        ("no.png", lambda p: None, "does not exist"),
    ],
)
def test_what_cannot_be_read_right_is_refused(
    name: str, write: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    for read in (read_picture, check_picture, lambda p: load_uniform(p, 8)):
        with pytest.raises(CalcarineError, match=rf"{name}.*{reason}"):
            read(path)


def test_the_second_view_of_a_camera_is_no_animation(tmp_path: Path) -> None:
    others = [Image.fromarray(255 - RGB)]
    Image.fromarray(RGB).save(
        tmp_path / "a.jpg",
        format="MPO",
        save_all=True,
        append_images=others,
        quality=100,
        subsampling=0,
    )
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - RGB).mean() < 5
    check_picture(tmp_path / "a.jpg")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for end in ("png", "jpg", "tif", "bmp"):
        path = tmp_path / f"a.{end}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CalcarineError, match=rf"a.{end} cannot be read"):
            read_picture(path)


def test_label_maps_keep_their_numbers(tmp_path: Path) -> None:
    labels = (GREY % 11).astype(np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([value for i in range(256) for value in (255 - i, i, i)])
    palette.save(tmp_path / "p.png")
    Image.fromarray(labels).save(tmp_path / "l.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "l16.png")
    Image.fromarray(np.dstack([labels] * 3)).save(tmp_path / "rgb.png")
    for name in ("p.png", "l.png", "l16.png", "rgb.png"):
        np.testing.assert_array_equal(read_label_map(tmp_path / name), labels)
    Image.fromarray(GREY16).save(tmp_path / "many.png")
    with pytest.raises(CalcarineError, match=r"many.png holds class numbers from 0 to 65535"):
        read_label_map(tmp_path / "many.png")
    Image.fromarray(RGB).save(tmp_path / "colour.png")
    with pytest.raises(CalcarineError, match=r"colour.png is a picture in colours"):
        read_label_map(tmp_path / "colour.png")


def test_pictures_of_two_sizes_are_refused_by_both_names(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "one.png")
    Image.fromarray(RGB[:8]).save(tmp_path / "two.png")
    (tmp_path / "t.csv").write_text("id,file\na,one.png\nb,two.png\n")
    with pytest.raises(CalcarineError, match=r"two.png has 8 x 16 .*one.png has 16 x 16"):
        StimulusSet.from_folder(tmp_path, "t.csv").images()


def test_the_scores_do_not_depend_on_how_pictures_are_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = []
    grey = [rng.integers(0, 256, (12, 12), np.uint8) for _ in range(6)]
    for kind in ("l", "l16", "exif", "rgba"):
        for side in ("truth", "recon"):
            (tmp_path / f"{side}-{kind}").mkdir()
        for number, picture in enumerate(grey):
            made = picture // 2 + 40
            _save_as(kind, picture, tmp_path / f"truth-{kind}" / f"{number}.png")
            _save_as(kind, made, tmp_path / f"recon-{kind}" / f"{number}.png")
        result = score_folder(tmp_path / f"truth-{kind}", tmp_path / f"recon-{kind}", method="m")
        values.append([(r["metric"], r["value"], r["data"]) for r in result.records])
    assert all(value == values[0] for value in values)


def _save_as(kind: str, picture: np.ndarray, path: Path) -> None:
    if kind == "l":
        Image.fromarray(picture).save(path)
    elif kind == "l16":
        Image.fromarray(picture.astype(np.uint16) * 257).save(path)
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(np.ascontiguousarray(picture[::-1, ::-1])).save(path, exif=exif)
    else:
        alpha = np.full_like(picture, 255)
        Image.fromarray(np.dstack([picture, picture, picture, alpha])).save(path)
