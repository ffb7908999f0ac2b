"""The page of an audit: one file that works offline."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.files import write_text
from calcarine.reporting.html_pages import data_uri, environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calcarine.audit import Audit

__all__ = ["PIXELS", "VERDICT_CLASSES", "build_audit_page"]

PIXELS = 128
VERDICT_CLASSES = {"passed": "", "failed": "no", "suspicious": "doubt", "inconclusive": "open"}
_UNSETTLED = ("suspicious", "inconclusive")


def build_audit_page(audit: Audit, path: Path) -> tuple[Path, Path]:
    """Write the page of an audit, and its findings as JSON.

    Parameters
    ----------
    audit : Audit
    path : Path
        Path of the page; the JSON file has the same name with the ending .json.

    Returns
    -------
    page, json : Path

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> from calcarine.reporting import build_audit_page
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> pictures = PictureSet.of([str(i) for i in range(12)], images)
    >>> result = audit(AuditInputs("copies", pictures, pictures), only=["truth-copies"])
    >>> page, record = build_audit_page(result, Path("audit.html"))
    >>> page.name, record.name
    ('audit.html', 'audit.json')
    """
    content = audit.content()
    for check, result in zip(content["checks"], audit.findings.values(), strict=True):
        check["pictures"] = [
            [(data_uri(_png(shown.picture)), shown.caption) for shown in row]
            for row in result.pictures
        ]
        check["numbers"] = [(key, _plain(value)) for key, value in check["numbers"].items()]
    page = (
        environment()
        .get_template("audit.html.j2")
        .render(
            audit=content,
            classes=VERDICT_CLASSES,
            unsettled=_UNSETTLED,
            failed=audit.failed,
            pixels=PIXELS,
        )
    )
    write_text(path, page)
    json_path = path.with_suffix(".json")
    audit.write(json_path)
    return path, json_path


def _png(picture: NDArray[Any]) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture)
    small = max(image.size) < PIXELS
    filter = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    scale = PIXELS / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, filter).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
