"""A page to browse a run: every stimulus with its reconstructions by each method."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError
from calcarine.evaluation.networks.preprocessing import resize_picture
from calcarine.files import write_bytes
from calcarine.reporting.html_pages import data_uri, environment, run_picture, shrunk_png
from calcarine.reporting.run_pictures import RunPictures
from calcarine.reporting.run_records import RunRecord, read_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SEED", "build_gallery"]

SEED = 2023
_MEGABYTE = 1e6
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Picture:
    """A picture; `correlation` is that of its pixels with the stimulus, None for the stimulus."""

    name: str
    content: bytes
    correlation: float | None = None


def build_gallery(
    run: Path, out: Path, *, samples: int = 1, pixels: int = 256, limit_mb: float = 40
) -> Path:
    """Write the gallery of a finished run.

    Parameters
    ----------
    run : Path
        The run directory.
    out : Path
        Path of the page, ending in ".html".
    samples : int
        Number of samples of each method: always the first ones.
    pixels : int
        Largest side of a picture on the page.
    limit_mb : float
        A larger page is written as a folder with the name of ``out`` without its ending, which
        contains ``index.html`` and the pictures.

    Returns
    -------
    Path
        The page: one file that works offline, or ``index.html`` in the folder. Images are in
        random order by a fixed seed until the reader sorts them.

    Raises
    ------
    CalcarineError
        If the run is not finished, or the page cannot be written there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import build_gallery
    >>> page = build_gallery(Path("runs/takagi"), Path("gallery.html"), samples=2)  # doctest: +SKIP
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingError(f"{out} is not an HTML page; give a name that ends in .html.")
    if out.is_dir():
        raise SettingError(f"{out} is a folder; give the name of a page.")
    record = read_run(Path(run))
    pictures = _pictures_by_method(record, samples, pixels)
    size = sum(len(picture.content) for row in pictures.values() for picture in _flat(row)) * 4 / 3
    if size <= limit_mb * _MEGABYTE:
        write_bytes(out, _page(record, pictures, _embedded).encode("utf-8"))
        return out
    folder = out.with_suffix("")
    if folder.exists() and not (folder / "index.html").is_file():
        raise SettingError(
            f"The gallery is larger than {limit_mb:g} MB, and the folder {folder} for its pictures "
            "has other contents; give another --out or a larger --limit-mb."
        )
    for row in pictures.values():
        for picture in _flat(row):
            write_bytes(folder / "pictures" / picture.name, picture.content)
    write_bytes(folder / "index.html", _page(record, pictures, _file_link).encode("utf-8"))
    return folder / "index.html"


def _embedded(picture: _Picture) -> str:
    return data_uri(picture.content)


def _file_link(picture: _Picture) -> str:
    return f"pictures/{picture.name}"


_MethodPictures = dict[str, list[_Picture]]


def _flat(row: _MethodPictures) -> list[_Picture]:
    return [picture for pictures in row.values() for picture in pictures]


def _pictures_by_method(record: RunRecord, samples: int, pixels: int) -> dict[str, _MethodPictures]:
    """Return the pictures of every stimulus by method; "seen" is the stimulus."""
    files = RunPictures(record)
    methods = record.picture_methods
    rows: dict[str, _MethodPictures] = {}
    for number, stimulus in enumerate(record.ids):
        seen = run_picture(files.truth(stimulus))
        row: _MethodPictures = {
            "seen": [_Picture(f"{number:05d}-seen.png", shrunk_png(seen, pixels))]
        }
        for place, method in enumerate(methods):
            taken = files.samples(stimulus, method)[:samples]
            paths = [files.picture(stimulus, method, sample) for sample in taken]
            row[method] = [
                _reconstruction(f"{number:05d}-{place}-{order}.png", path, seen, pixels)
                for order, path in enumerate(paths)
                if path is not None
            ]
        rows[stimulus] = row
    return rows


def _reconstruction(name: str, path: Path, seen: NDArray[np.uint8], pixels: int) -> _Picture:
    picture = run_picture(path)
    # As in the protocol calcarine: pictures are compared at the size of the stimulus.
    made = resize_picture(picture, seen.shape[:2])
    with np.errstate(invalid="ignore"):
        correlation = float(np.corrcoef(seen.ravel(), made.ravel())[0, 1])
    finite = round(correlation, 4) if math.isfinite(correlation) else None
    return _Picture(name, shrunk_png(picture, pixels), finite)


def _page(
    record: RunRecord, pictures: dict[str, _MethodPictures], source: Callable[[_Picture], str]
) -> str:
    script = (_HERE / "static" / "gallery.js").read_text(encoding="utf-8")
    style = (_HERE / "static" / "gallery.css").read_text(encoding="utf-8")
    return str(
        environment("calcarine.reporting")
        .get_template("gallery.html.j2")
        .render(
            title=record.title,
            record=record,
            count=len(record.ids),
            pictures="data:" if source is _embedded else "'self' file:",
            script=script,
            style=style,
            script_hash=_csp_hash(script),
            style_hash=_csp_hash(style),
            data=_json(_data(record, pictures, source)),
        )
    )


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(content: Any) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(
    record: RunRecord, pictures: dict[str, _MethodPictures], source: Callable[[_Picture], str]
) -> dict[str, Any]:
    per_image = record.per_image[record.per_image["id"].isin(record.ids)]
    metrics = [str(name) for name in per_image["metric"].unique()]
    categories = _categories(per_image)
    scores = _scores(per_image, metrics, record.picture_methods)
    return {
        "seed": SEED,
        "simulated": record.simulated,
        "methods": record.picture_methods,
        "metrics": [{"name": name, "lower": not record.higher_is_better(name)} for name in metrics],
        "items": [
            {
                "id": stimulus,
                "category": categories.get(stimulus),
                "pictures": {name: [source(picture) for picture in row[name]] for name in row},
                "correlations": {
                    name: [picture.correlation for picture in row[name]]
                    for name in row
                    if name != "seen"
                },
                "scores": scores.get(stimulus, {}),
            }
            for stimulus, row in pictures.items()
        ],
    }


def _scores(
    per_image: pd.DataFrame, metrics: list[str], methods: list[str]
) -> dict[str, dict[str, list[float | None]]]:
    """Return scores by id and method, in the order of the metrics."""
    places = {name: place for place, name in enumerate(metrics)}
    mean = per_image.groupby(["id", "method", "metric"])["value"].mean()
    result: dict[str, dict[str, list[float | None]]] = {}
    required = set(methods)
    for key, value in mean.items():
        stimulus, method, metric = map(str, cast("tuple[str, str, str]", key))
        if method in required and math.isfinite(value):
            row = result.setdefault(stimulus, {}).setdefault(method, [None] * len(metrics))
            row[places[metric]] = round(float(value), 4)
    return result


def _categories(per_image: pd.DataFrame) -> dict[str, str]:
    if "category" not in per_image.columns:
        return {}
    known = per_image.dropna(subset=["category"]).drop_duplicates("id")
    return {str(i): str(c) for i, c in zip(known["id"], known["category"], strict=True)}
