"""Features of the pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calcarine.diffusion import LatentDiffusion
from calcarine.errors import DamagedFileError, SettingError
from calcarine.features.spaces import SpaceName, extract_spaces
from calcarine.features.store import FeatureStore
from calcarine.stimuli import StimulusSet
from calcarine.stimuli.picture_folders import check_pictures, picture_files

__all__ = ["extract_folder"]


def extract_folder(
    names: Sequence[str],
    model: LatentDiffusion,
    folder: str | Path,
    store: FeatureStore,
    *,
    size: int | tuple[int, int],
    batch_size: int = 64,
) -> tuple[StimulusSet, dict[str, Any]]:
    """Extract features of all pictures in a folder, or read them from the store.

    Parameters
    ----------
    names : sequence of str
        Feature spaces of image networks: ``hf:...`` and ``net:...``.
    model : LatentDiffusion
        Networks compute on its device.
    folder : str or Path
        Folder of pictures, also in folders in it.
    store : FeatureStore
        Holds the features, or stores them batch by batch; an interrupted extraction resumes.
    size : int or (int, int)
        Height and width of the stimuli with which the pictures are compared. Pictures are cropped
        centrally and resized to it, so that their size does not identify them.
    batch_size : int
        Number of pictures in memory.

    Returns
    -------
    pictures : StimulusSet
        The pictures; see `StimulusSet.from_pictures`.
    features : dict of str to array of shape (n, ...)
        Stored arrays by name, with one row for each of ``pictures.ids``.

    Raises
    ------
    SettingError
        If a space is not of an image network.
    DamagedFileError
        If pictures cannot be read; it names them.
    """
    other = [name for name in names if not SpaceName.parse(name).by_network]
    if other:
        raise SettingError(
            f"The pictures in {folder} have no features '{other[0]}'; choose features of a network "
            "(hf:MODEL or net:NETWORK:LAYER) for a gallery from a folder."
        )
    pictures = StimulusSet.from_pictures(folder, size)
    try:
        return pictures, extract_spaces(names, model, pictures, store, batch_size=batch_size)
    except DamagedFileError:  # of one picture; name all that are damaged
        check_pictures(picture_files(folder), folder)
        raise
