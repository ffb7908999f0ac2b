"""Visual cortex of each subject: from CIFTI to disk, and from disk to vectors."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._data_files import is_simulated
from calcarine.datasets._numpy_files import NpzFile
from calcarine.datasets.hcp._atlas import areas_of, find_atlas
from calcarine.datasets.hcp._cifti import CiftiRecording, normalised
from calcarine.datasets.hcp._files import (
    AREAS,
    INFO,
    NPZ,
    RUN,
    WHO,
    find_recordings,
    find_stored,
)
from calcarine.errors import DamagedFileError, MissingFileError, SettingError
from calcarine.files import atomic_write, write_text

__all__ = ["PreparedVectors", "SubjectVectors", "prepare_vectors", "vectors", "window_means"]

# What zipfile raises for damage: of its own, of the methods of packing that a changed byte may
# name, and for impossible places, names, versions and keys.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class SubjectVectors(NamedTuple):
    """One subject's voxel vectors: float32, shape (sample, vertex of V1 to V4).

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-subjectvectors", people=1, grayordinates=400, frames=40)
    >>> first = next(hcp.vectors("hcp-subjectvectors", areas=["V1"], window=10))
    >>> first.subject, first.vectors.shape
    ('100206', (4, 28))
    """

    subject: str
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class PreparedVectors:
    """The result of `prepare_vectors` on disk.

    Attributes
    ----------
    path : Path
        Folder with ``SUBJECT/HCP_visual_voxel.npz``.
    subjects : tuple of str
        Who is there now.
    summary : str
        One line of text.
    simulated : bool
        Whether the recordings were written by a program.

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-preparedvectors", people=1, grayordinates=400, frames=40)
    >>> prepared = hcp.prepare_vectors("hcp-preparedvectors", "vectors")
    >>> prepared.path.name, prepared.subjects
    ('vectors', ('100206',))
    """

    path: Path
    subjects: tuple[str, ...]
    summary: str
    simulated: bool = False


def window_means(series: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Return means over windows of about ``window`` frames that cover all frames.

    Parameters
    ----------
    series : float32 array
        Shape (frame, voxel).
    window : int
        Frames in a window; where they do not come out even, the first
        windows are one frame longer.

    Returns
    -------
    float32 array of shape (frames // window, voxel)

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.datasets.hcp import window_means
    >>> series = np.arange(7, dtype=np.float32)[:, None]
    >>> window_means(series, 3).ravel().tolist()
    [1.5, 5.0]
    """
    frames = len(series)
    if not 1 <= window <= frames:
        raise SettingError(
            f"{WHO}: a window of {window} frames does not fit a recording of {frames}."
        )
    count = frames // window
    lengths = np.full(count, frames // count)
    lengths[: frames % count] += 1
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    sums = np.add.reduceat(series.astype(np.float64), starts, axis=0)
    means: NDArray[np.float32] = (sums / lengths[:, None]).astype(np.float32)
    return means


def vectors(
    data: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    window: int = 10,
    seconds: float | None = None,
    tr: float = 0.72,
    areas: Sequence[str] = AREAS,
    scale: Literal["none", "scalar"] = "none",
    atlas: str | Path | None = None,
    run: str = RUN,
    ending: str | None = None,
) -> Iterator[SubjectVectors]:
    """Yield voxel vectors for masked pretraining, one subject after another.

    Each grayordinate is normalised over time, V1 to V4 of the Glasser map are
    taken from both hemispheres, and frames are averaged in windows: of 1200
    frames come 120 samples.

    Parameters
    ----------
    data : str or Path
        Folder with CIFTI files, or with ``SUBJECT/HCP_visual_voxel.npz`` that
        were prepared here or by others; these come first.
    subjects : sequence of str, optional
        Subjects; by default all in the folder.
    window : int
        Frames in a window.
    seconds, tr
        Instead of `window`: its length in seconds, and the time between
        frames.  Vis-Dec takes 8 s at an assumed .75 s, which is 10 frames.
    areas : sequence of str
        Which areas, in which order.
    scale : {"none", "scalar"}
        ``"scalar"``: all values of a subject by one mean and one SD.
    atlas : str or Path, optional
        The Glasser map, if not in the data folder.
    run, ending
        Which resting run of the CIFTI files, and which ending of their names
        if there are several, as ``_Atlas_MSMAll_hp2000_clean``.

    Yields
    ------
    SubjectVectors
        Name, and float32 of shape (sample, vertex).

    Raises
    ------
    CalcarineError
        If nothing is there, a subject is unknown, or a file is damaged.

    Notes
    -----
    Source: Sun et al. 2023, section on data; `pad_to_patches` brings the
    vectors to whole patches.

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-vectors", people=2, grayordinates=400, frames=40)
    >>> [(subject, values.shape) for subject, values in hcp.vectors("hcp-vectors", window=10)]
    [('100206', (4, 136)), ('100307', (4, 136))]
    """
    frames = window if seconds is None else int(seconds // tr) if tr > 0 else 0
    strange = [area for area in areas if area not in AREAS]
    if strange or not areas:
        raise SettingError(f"{WHO}: areas are {', '.join(AREAS)}, not {strange or 'none'}.")
    if scale not in ("none", "scalar"):
        raise SettingError(f"{WHO}: scale is none or scalar, not {scale}.")
    stored = find_stored(data)
    raw = find_recordings(data, run, ending, stored)
    chosen = _chosen(data, subjects, {*stored, *raw})
    return _each(chosen, stored, raw, data, atlas, tuple(areas), frames, scale)


def _each(
    chosen: Sequence[str],
    stored: dict[str, Path],
    raw: dict[str, Path],
    data: str | Path,
    atlas: str | Path | None,
    areas: tuple[str, ...],
    frames: int,
    scale: str,
) -> Iterator[SubjectVectors]:
    for subject in chosen:
        if subject in stored:
            series = read_stored(stored[subject], areas)
        else:
            series = _series(raw[subject], find_atlas(data, atlas), areas)
        means = window_means(np.concatenate([series[area] for area in areas], axis=1), frames)
        if scale == "scalar":
            spread = float(means.std(dtype=np.float64)) or 1.0
            means = ((means - means.mean(dtype=np.float64)) / spread).astype(np.float32)
        yield SubjectVectors(subject, means)


def _chosen(data: str | Path, subjects: Sequence[str] | None, known: set[str]) -> tuple[str, ...]:
    if not known:
        names = " or ".join(INFO.files[0].split("|")[:2])
        raise MissingFileError(
            f"{WHO}: there is no {names} in {Path(data)}; get it from {INFO.source}."
        )
    if subjects is None:
        return tuple(sorted(known))
    if isinstance(subjects, str):
        raise SettingError(f"{WHO}: give a list of subjects, such as ['{subjects}'].")
    # Subjects are numbers, and YAML reads them so.
    names_given = tuple(str(subject) for subject in subjects)
    lost = [subject for subject in names_given if subject not in known]
    if lost:
        raise MissingFileError(
            f"{WHO}: there is no file of subject {lost[0]} in {Path(data)}; there are "
            f"{len(known)} subjects, as {min(known)}."
        )
    return names_given


def _series(path: Path, atlas: Path, areas: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return the normalised time series of each area, shape (frame, vertex)."""
    recording = CiftiRecording.open(path)
    places = areas_of(atlas, recording.brain)
    union = np.unique(np.concatenate([places[area] for area in areas]))
    series = normalised(recording.read(union))
    return {area: series[:, np.searchsorted(union, places[area])] for area in areas}


def read_stored(path: Path, areas: Sequence[str] = AREAS) -> dict[str, NDArray[np.float32]]:
    """Return the areas of an ``HCP_visual_voxel.npz``: float32, shape (frame, vertex).

    Raises
    ------
    CalcarineError
        If it is damaged, or areas differ in their frames.
    """
    file = NpzFile(path, WHO, "its preparation: delete it and prepare again")
    with np.errstate(over="ignore", invalid="ignore"):
        results = {area: file.array(area, 2).astype(np.float32) for area in areas}
    frames = {len(series) for series in results.values()}
    if len(frames) != 1 or any(0 in series.shape for series in results.values()):
        shapes = ", ".join(f"{area} {series.shape}" for area, series in results.items())
        raise DamagedFileError(f"{WHO}: the areas in {path} do not agree: {shapes}; prepare again.")
    if not all(np.isfinite(series).all() for series in results.values()):
        raise DamagedFileError(f"{WHO}: {path} holds NaN or infinity; delete it and prepare again.")
    return results


def prepare_vectors(
    data: str | Path,
    folder: str | Path | None = None,
    subjects: Sequence[str] | None = None,
    *,
    atlas: str | Path | None = None,
    run: str = RUN,
    ending: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedVectors:
    """Write V1 to V4 of each subject, normalised over time, to a file of 20 MB.

    Only these grayordinates are read.  A subject's file is there whole or
    not at all, and the same call goes on where an earlier one stopped.

    Parameters
    ----------
    data : str or Path
        Folder with the CIFTI files.
    folder : str or Path, optional
        Where ``SUBJECT/HCP_visual_voxel.npz`` go (keys V1 to V4, float32 of
        shape (frame, vertex), the layout of MinD-Vis); ``npz`` in the data
        folder if left out.
    subjects : sequence of str, optional
        Subjects; by default all.
    atlas, run, ending
        See `vectors`.
    workers : int
        Subjects at the same time, 60 MB each.
    progress : callable, optional
        Called with the number of subjects done and of all.

    Returns
    -------
    PreparedVectors

    Raises
    ------
    CalcarineError
        If a file is missing or damaged; what was written before stays.

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-prepare-vectors", people=2, grayordinates=400, frames=40)
    >>> prepared = hcp.prepare_vectors("hcp-prepare-vectors")
    >>> prepared.subjects, prepared.simulated
    (('100206', '100307'), True)
    """
    if workers < 1:
        raise SettingError(f"Preparing needs at least one worker, not {workers}.")
    raw = find_recordings(data, run, ending)
    chosen = _chosen(data, subjects, set(raw))
    place = Path(folder) if folder is not None else Path(data) / "npz"
    report = progress or (lambda done, total: None)
    wanted = [subject for subject in chosen if not _whole(place / subject / NPZ)]
    done = len(chosen) - len(wanted)
    report(done, len(chosen))
    result = find_atlas(data, atlas) if wanted else None

    def one(subject: str) -> None:
        assert result is not None
        _write(place / subject / NPZ, _series(raw[subject], result, AREAS))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(one, wanted):
                done += 1
                report(done, len(chosen))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    sizes = [series.shape for series in read_stored(place / chosen[0] / NPZ).values()]
    summary = (
        f"{len(chosen)} subjects, {sizes[0][0]} frames, {sum(size[1] for size in sizes)} vertices "
        f"({', '.join(f'{a} {s[1]}' for a, s in zip(AREAS, sizes, strict=True))})"
    )
    simulated = is_simulated(data)
    if simulated:
        summary += ", simulated"
        if not is_simulated(place):
            write_text(place / "SIMULATED.txt", "Made of recordings that a program wrote.\n")
    return PreparedVectors(place, chosen, summary, simulated)


def _whole(path: Path) -> bool:
    """Return whether a file is complete: its directory and all checksums are right."""
    try:
        with zipfile.ZipFile(path) as file:
            names = {f"{area}.npy" for area in AREAS}
            return names <= set(file.namelist()) and file.testzip() is None
    except _DAMAGE:
        return False


def _write(path: Path, series: dict[str, NDArray[np.float32]]) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **series)  # type: ignore[arg-type]
