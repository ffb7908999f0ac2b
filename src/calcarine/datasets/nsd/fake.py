"""Files in the official layout with simulated content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets.nsd._fake_tables import FakePlan, make_plan, write_coco, write_tables
from calcarine.datasets.nsd._fake_volumes import FakeBrain, make_brain, write_volumes
from calcarine.datasets.nsd.layout import (
    BETAS_PER_PERCENT,
    DIMS,
    NSDGENERAL,
    PICTURE,
    SESSION_TRIALS,
    SUBJECTS,
    NSDLayout,
)
from calcarine.errors import SettingError
from calcarine.files import atomic_write
from calcarine.simulation.tuning import early_features
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.scenes import BACKGROUNDS, KINDS, RenderedScene, render

__all__ = ["fake"]

_SMALL_DIMS = ((8, 7, 6), (9, 7, 6), (8, 10, 5))
_ENLARGED = 5  # full-size pictures are drawn so many times smaller
_GABORS = 96
_TILES = 8


def fake(
    folder: str | Path,
    *,
    full_size: bool = False,
    seed: int = 0,
    n_subjects: int | None = None,
    sessions: int | None = None,
    trials: int | Sequence[int] | None = None,
    images: int | None = None,
    picture: int | None = None,
    betas: Literal["hdf5", "nii.gz"] = "hdf5",
) -> None:
    """Write betas, masks, tables, pictures and captions of simulated subjects.

    Voxels of ``early`` respond to light, colour and Gabor energy, those of
    ``ventral`` to what is shown, all others to nothing; every session has an
    offset and a gain of its own.  Pictures are procedural scenes.

    Parameters
    ----------
    folder : str or Path
        Folder to write to.
    full_size : bool
        True dimensions, voxel counts and 750 trials a session; 73,000 rows of
        pictures of which those shown are written.
    seed : int
        Of everything random.
    n_subjects : int, optional
        How many, from ``subj01`` on; 2, or 1 of full size.
    sessions : int, optional
        How many have betas; 3, or 40 of full size (about 1 GB each).
    trials : int or sequence of int, optional
        Per session, or a list of one number a session; 30, or 750.
    images : int, optional
        Draw only the first so many of the shown pictures; the others stay
        black and unanswered.
    picture : int, optional
        Side of the small pictures; 32.
    betas : {"hdf5", "nii.gz"}
        Format of the betas.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.datasets import nsd
    >>> nsd.fake("nsd-fake", n_subjects=1, sessions=1)
    >>> sorted(path.name for path in Path("nsd-fake").iterdir())
    ['nsddata', 'nsddata_betas', 'nsddata_stimuli']
    """
    count = n_subjects if n_subjects is not None else (1 if full_size else 2)
    number = sessions if sessions is not None else (40 if full_size else 3)
    length = trials if trials is not None else (SESSION_TRIALS if full_size else 30)
    lengths = [length] * number if isinstance(length, int) else [int(n) for n in length]
    least = min([count, number, *lengths, len(lengths)])
    if least < 1 or count > len(SUBJECTS) or len(lengths) != number:
        raise SettingError(
            f"Simulated NSD needs 1 to {len(SUBJECTS)} subjects and one or more trials in each "
            f"session, not {count} subjects, {number} sessions and trials {trials}."
        )
    if betas not in ("hdf5", "nii.gz") or (images is not None and images < 0):
        raise SettingError(
            f"Simulated NSD needs betas as hdf5 or nii.gz and images from 0, not {betas}, {images}."
        )
    root, rng = Path(folder), np.random.default_rng([seed, 73])
    plan = make_plan(lengths, count, full_size, rng)
    side = PICTURE if full_size else (picture or 32)
    drawn = _draw(plan, side // _ENLARGED if full_size else side, images, seed)
    layouts = [NSDLayout(root, name) for name in SUBJECTS[:count]]
    _write_pictures(layouts[0], plan, drawn, side)
    write_coco(layouts[0], plan, drawn, side)
    write_tables(layouts, plan, rng)
    features = _features(drawn)
    for layout in layouts:
        _write_subject(layout, plan, features, full_size, betas, seed)


def _draw(plan: FakePlan, side: int, images: int | None, seed: int) -> dict[int, RenderedScene]:
    """Return scenes by the number of the picture, from 0, in order of first presentation."""
    shown = dict.fromkeys(int(image) for row in range(plan.n_subjects) for image in plan.shown(row))
    chosen = list(shown)[: len(shown) if images is None else images]
    return {image: render(seed, image, side) for image in chosen}


def _write_pictures(
    layout: NSDLayout, plan: FakePlan, drawn: dict[int, RenderedScene], side: int
) -> None:
    import h5py

    with atomic_write(layout.stimuli) as temporary, h5py.File(temporary, "w") as file:
        shape = (plan.n_images, side, side, 3)
        brick = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, *shape[1:]))
        for image in sorted(drawn):
            small = drawn[image].image
            factor = side // len(small)
            brick[image] = small.repeat(factor, 0).repeat(factor, 1)


def _features(drawn: dict[int, RenderedScene]) -> tuple[dict[int, int], NDArray[np.float32], int]:
    """Return the row of each picture, features with SD 1, and the number of early ones."""
    images = list(drawn)
    rows = {image: row for row, image in enumerate(images)}
    if not images:
        return rows, np.zeros((0, 1), np.float32), 1
    early = np.concatenate(
        [
            _early(np.concatenate([resize_images(drawn[i].image[None], 32) for i in part]))
            for part in (images[start : start + 256] for start in range(0, len(images), 256))
        ]
    )
    names = len(BACKGROUNDS) + len(KINDS)
    semantic = np.stack(
        [np.bincount(drawn[i].semantic_map.ravel(), minlength=names) > 0 for i in images]
    )
    values = np.hstack([early, semantic]).astype(np.float32)
    spread = values.std(0)
    return rows, (values - values.mean(0)) / np.where(spread > 1e-6, spread, 1), early.shape[1]


def _early(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return light and colour on a grid, and some of the Gabor energies."""
    values = early_features(pictures)
    coarse = 3 * 8 * 8
    step = (values.shape[1] - coarse) // _GABORS
    return np.hstack([values[:, -coarse:], values[:, :-coarse:step][:, :_GABORS]])


def _write_subject(
    layout: NSDLayout,
    plan: FakePlan,
    features: tuple[dict[int, int], NDArray[np.float32], int],
    full_size: bool,
    betas: str,
    seed: int,
) -> None:
    rng = np.random.default_rng([seed, layout.number])
    dims = (
        DIMS[layout.subject] if full_size else _SMALL_DIMS[(layout.number - 1) % len(_SMALL_DIMS)]
    )
    brain = make_brain(dims, NSDGENERAL[layout.subject] if full_size else None, rng)
    weights, amplitude = _tuning(brain, features[1].shape[1], features[2], rng)
    write_volumes(layout, brain, amplitude)
    rows, values, _ = features
    none = np.zeros((1, values.shape[1]), np.float32)
    answers = np.concatenate([values, none]) @ weights  # the last row is for pictures not drawn
    shown = plan.shown(layout.number - 1)
    pool = _tiles(brain, rng)
    start = 0
    for session, length in enumerate(plan.lengths, 1):
        own = [rows.get(int(image), len(values)) for image in shown[start : start + length]]
        start += length
        noise = rng.standard_normal((length, len(brain.places)), dtype=np.float32)
        signal = answers[own] * amplitude[brain.places]
        gain = 1 + 0.1 * rng.standard_normal(len(brain.places), dtype=np.float32)
        offset = rng.standard_normal(len(brain.places), dtype=np.float32)
        stored = np.rint((offset + gain * (signal + noise)) * BETAS_PER_PERCENT)
        inside = np.clip(stored, -32768, 32767).astype(np.int16)
        _write_session(layout, session, brain, pool, inside, betas, rng)


def _tuning(
    brain: FakeBrain, n_features: int, n_early: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights of unit length per voxel, and the signal SD in the whole flat grid."""
    weights = rng.standard_normal((n_features, len(brain.places)), dtype=np.float32)
    weights *= rng.random(weights.shape) < 0.08
    early, ventral = brain.stream("early"), brain.stream("ventral")
    weights[n_early:, early] = 0
    weights[:n_early, ventral] = 0
    weights[:, ~(early | ventral)] = 0
    weights /= np.maximum(np.linalg.norm(weights, axis=0), 1e-6)
    amplitude = np.zeros(int(np.prod(brain.dims)), np.float32)
    strength = rng.uniform(0.8, 1.6, len(brain.places)).astype(np.float32)
    amplitude[brain.places] = np.where(weights.any(axis=0), strength, 0)
    return weights, amplitude


def _tiles(brain: FakeBrain, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return noise for whole trials, 0 outside the brain, as in the official files."""
    flat = brain.brain.T.ravel()
    tiles = rng.integers(-3000, 3000, (_TILES, flat.size), dtype=np.int16)
    tiles[:, ~flat] = 0
    tiles[0, np.flatnonzero(flat)[:2]] = -32768, 32767
    return tiles


def _write_session(
    layout: NSDLayout,
    session: int,
    brain: FakeBrain,
    pool: NDArray[np.int16],
    inside: NDArray[np.int16],
    betas: str,
    rng: np.random.Generator,
) -> None:
    grid = brain.dims[::-1]
    order = rng.integers(0, len(pool), len(inside))
    path = layout.betas / f"betas_session{session:02d}.{betas}"

    def trial(row: int) -> NDArray[np.int16]:
        volume = pool[order[row]].copy()
        volume[brain.places] = inside[row]
        return np.asarray(volume.reshape(grid))

    with atomic_write(path) as temporary:
        if betas == "hdf5":
            import h5py

            with h5py.File(temporary, "w") as file:
                whole = file.create_dataset("betas", (len(inside), *grid), np.int16)
                for row in range(len(inside)):
                    whole[row] = trial(row)
        else:
            _write_nifti(temporary, np.stack([trial(row) for row in range(len(inside))]), brain)


def _write_nifti(path: Path, trials: NDArray[np.int16], brain: FakeBrain) -> None:
    import gzip

    import nibabel as nib

    image: Any = nib.Nifti1Image(trials.transpose(3, 2, 1, 0), brain.affine)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1))
