"""Choosing strength and guidance inside the training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.decoding.reconstruct import Reconstructor
from calcarine.errors import CalcarineError
from calcarine.stimuli import resize_images


@dataclass(frozen=True)
class ChosenSettings:
    """Settings of one fold and how each candidate scored on held-out training stimuli."""

    strength: float
    guidance: float
    scores: tuple[tuple[float, float, float], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_settings(
    reconstructor: Reconstructor,
    regression: LatentRegression,
    dataset: BrainDataset,
    split: Split,
    z: NDArray[np.float32],
    c: NDArray[np.float32],
    strengths: Sequence[float],
    guidances: Sequence[float],
    n_stimuli: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ChosenSettings:
    """Try every pair on stimuli held out of the training set and keep the best.

    A part of the training stimuli is held out, the decoders are refitted on the rest, and each
    pair is scored by two-way identification of the truth (pixel correlation, picture fixed)
    plus mean pixel correlation. Test stimuli are never touched.

    Parameters
    ----------
    n_stimuli : int
        How many training stimuli are held out.
    """
    if len(split.train) < 2 * n_stimuli:
        raise CalcarineError(
            f"Settings cannot be chosen on {n_stimuli} of {len(split.train)} training stimuli of "
            f"{split.name}; hold out fewer (generation.search.n_stimuli)."
        )
    order = np.random.default_rng(seed).permutation(len(split.train))
    held = tuple(split.train[i] for i in sorted(order[:n_stimuli]))
    kept = tuple(stimulus for stimulus in split.train if stimulus not in set(held))
    inner = Split(f"{split.name}-inner", kept, held, "random part of the training stimuli", seed)
    fitted = regression.unfitted().fit(dataset, inner, z, c)
    predicted = fitted.predict(dataset, inner)
    truth = _flat(dataset.stimuli.images(held).astype(np.float32), reconstructor.model.image_size)
    keys = [(stimulus, 0) for stimulus in held]
    scores = []
    for strength, guidance in product(strengths, guidances):
        trial = replace(reconstructor, strength=strength, guidance=guidance)
        pictures = trial.from_z_c(predicted["z"], predicted["c"], keys, progress)
        scores.append((strength, guidance, _score(truth, _flat(pictures))))
    best = max(scores, key=lambda row: row[2])
    return ChosenSettings(best[0], best[1], tuple(scores))


def _flat(pictures: NDArray[np.float32], size: int | None = None) -> NDArray[np.float64]:
    if size is not None and pictures.shape[1] != size:
        pictures = resize_images(pictures.astype(np.uint8), size).astype(np.float32)
    return pictures.reshape(len(pictures), -1).astype(np.float64)


def _score(truth: NDArray[np.float64], pictures: NDArray[np.float64]) -> float:
    n = len(truth)
    correlations = np.nan_to_num(np.corrcoef(truth, pictures)[:n, n:])
    own = np.diag(correlations)
    wins = (own[:, None] > correlations).sum(1) / (n - 1)
    return float(wins.mean() + own.mean())
