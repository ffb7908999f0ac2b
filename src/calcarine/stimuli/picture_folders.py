"""Folders of pictures without a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError
from calcarine.stimuli.image_files import PICTURE_SUFFIXES, check_picture

__all__ = ["check_pictures", "listing_digest", "picture_files"]

_NAMED = 5


def picture_files(folder: str | Path) -> dict[str, Path]:
    """Return the picture files in a folder and the folders in it, by an id for each.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    dict of str to Path
        By ``FOLDER/PATH``, the name of the folder and the path in it, sorted. Hidden files and
        files with other endings than `PICTURE_SUFFIXES` are left out.

    Raises
    ------
    MissingFileError
        If the folder does not exist, or holds no pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"The picture folder {root} does not exist; check the path.")
    name = root.name or root.resolve().name
    files = {
        f"{name}/{path.relative_to(root).as_posix()}": path
        for path in root.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    }
    if not files:
        raise MissingFileError(
            f"The folder {root} holds no pictures; they end with {', '.join(PICTURE_SUFFIXES)}."
        )
    return dict(sorted(files.items()))


def listing_digest(files: Mapping[str, Path]) -> str:
    """Return the SHA-256 of names, sizes and times of files, which reads none of them."""
    total = hashlib.sha256()
    for name, path in files.items():
        facts = path.stat()
        total.update(json.dumps([name, facts.st_size, facts.st_mtime_ns]).encode())
    return total.hexdigest()


def check_pictures(files: Mapping[str, Path], folder: str | Path) -> None:
    """Raise one error that names the picture files of a folder that cannot be read.

    Raises
    ------
    DamagedFileError
        If there are any; of many, the first are named.
    """
    wrong: list[tuple[str, str]] = []
    for name, path in files.items():
        try:
            check_picture(path)
        except CalcarineError as error:
            wrong.append((name, str(error)))
    if wrong:
        named = ", ".join(name for name, _ in wrong[:_NAMED])
        first = wrong[0][1].rstrip(".")
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise DamagedFileError(
            f"{len(wrong)} of {len(files)} pictures in {folder} cannot be read: {named}{more}; "
            f"save them again, or move them out of the folder (the first: {first})."
        )
