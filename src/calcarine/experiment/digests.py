"""Hashes of what the settings of an experiment refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calcarine.files import digest_file

__all__ = ["Digests", "digest_content", "file_sizes"]

_WEIGHTS = {".safetensors", ".json"}
_PICKLED_WEIGHTS = "pytorch_model.bin"


@dataclass(frozen=True)
class Digests:
    """Content of data, models and files that the settings name.

    Together with the configuration these decide the keys of all stages; see
    :func:`calcarine.experiment.keys.stage_keys`.

    Attributes
    ----------
    dataset : str
        SHA-256 of the data set.
    splits : tuple of str
        SHA-256 of each split.
    n_train : tuple of int
        Number of training stimuli of each split.
    regions : mapping of str to str
        Regions that predict z, c and pixels.
    latents : optional
        The diffusion model and how z and c are made; None where nothing needs them.
    generator : str, optional
        SHA-256 of Vis-Dec's diffusion model; None without Vis-Dec.
    texts : mapping of str to str
        SHA-256 of the texts of stimuli that the data set's own hash leaves out.
    contents : mapping of str to Any
        Content of files and folders, by the path in the settings.
    judge : str, optional
        SHA-256 of the weights that read pictures of this data set.
    metric_weights : tuple
        Names and sizes of files in the folder of the metrics' weights.
    """

    dataset: str
    splits: tuple[str, ...]
    n_train: tuple[int, ...]
    regions: Mapping[str, str]
    latents: Any = None
    generator: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, Any] = field(default_factory=dict)
    judge: str | None = None
    metric_weights: tuple[tuple[str, int], ...] = ()


def digest_content(place: Path) -> Any:
    """Return what identifies the content of a file or folder.

    Parameters
    ----------
    place : Path

    Returns
    -------
    str, list or None
        SHA-256 of a file; names of a folder's files with hashes of weights and sizes of others;
        None where nothing exists, as for the name of a model on a hub.
    """
    if place.is_file():
        return digest_file(place)
    if not place.is_dir():
        return None
    files = sorted(file for file in place.rglob("*") if file.is_file())
    return [
        (
            str(file.relative_to(place)),
            digest_file(file)
            if file.suffix in _WEIGHTS or file.name == _PICKLED_WEIGHTS
            else file.stat().st_size,
        )
        for file in files
    ]


def file_sizes(folder: str | None) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of all files in a folder, so that files added later count."""
    if folder is None:
        return ()
    place = Path(folder)
    files = (file for file in place.rglob("*") if file.is_file())
    return tuple(sorted((str(file.relative_to(place)), file.stat().st_size) for file in files))
