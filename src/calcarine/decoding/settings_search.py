"""Choice of strength and guidance inside the training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from calcarine.brain import BrainDataset, Split
from calcarine.decoding.reconstruct import Reconstructor
from calcarine.decoding.registry import Decoder
from calcarine.errors import SettingError
from calcarine.stimuli import resize_images

__all__ = ["ChosenSettings", "choose_settings"]


@dataclass(frozen=True)
class ChosenSettings:
    """Chosen settings of one fold, and the scores of all candidates.

    Attributes
    ----------
    strength, guidance : float
        The best pair.
    scores : tuple of (float, float, float)
        Strength, guidance and score of each pair, on held-out training stimuli.

    Examples
    --------
    >>> from calcarine.decoding import ChosenSettings
    >>> scores = ((0.6, 3.0, 1.02), (0.8, 3.0, 1.1))  # strength, guidance, score
    >>> chosen = ChosenSettings(strength=0.8, guidance=3.0, scores=scores)
    >>> chosen.to_json()
    {'strength': 0.8, 'guidance': 3.0, 'scores': ((0.6, 3.0, 1.02), (0.8, 3.0, 1.1))}
    """

    strength: float
    guidance: float
    scores: tuple[tuple[float, float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return asdict(self)


def choose_settings(
    reconstructor: Reconstructor,
    decoder: Decoder,
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
    """Choose strength and guidance on training stimuli that are held out.

    The decoders are refitted on the other training stimuli. The score of a pair of settings is
    the accuracy of two-way identification (by pixel correlation, with the picture fixed) plus the
    mean pixel correlation. Test stimuli are not used.

    Parameters
    ----------
    reconstructor : Reconstructor
        Makes the pictures; its own strength and guidance are ignored.
    decoder : Decoder
        Decoder whose copy is fitted; it is not fitted itself.
    dataset : BrainDataset
    split : Split
    z, c : float32 array
        Targets of all stimuli, as in :meth:`LatentRegression.fit`.
    strengths, guidances : sequence of float
        Candidates; all pairs are tried.
    n_stimuli : int
        Number of training stimuli to hold out.
    seed : int
        Seed that draws them.
    progress : callable, optional
        Receives the number of pictures of each finished batch.

    Returns
    -------
    ChosenSettings

    Raises
    ------
    SettingError
        If there are fewer than twice ``n_stimuli`` training stimuli.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.decoding import choose_settings
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(6))
    >>> betas = np.random.default_rng(0).standard_normal((6, 30))
    >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids, seen, test=1)
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> z, c = model.encode(seen.images()), model.embed_captions(seen.captions())
    >>> maker, decoder = ca.Reconstructor(model, steps=2), ca.LatentRegression(n_folds=2)
    >>> chosen = choose_settings(maker, decoder, brain, brain.split(), z, c, [0.5, 0.8], [3.0], 2)
    >>> len(chosen.scores), chosen.strength in (0.5, 0.8)
    (2, True)
    """
    if len(split.train) < 2 * n_stimuli:
        raise SettingError(
            f"Settings cannot be chosen on {n_stimuli} of {len(split.train)} training stimuli of "
            f"{split.name}; hold out fewer (generation.search.n_stimuli)."
        )
    order = np.random.default_rng(seed).permutation(len(split.train))
    held_out = tuple(split.train[i] for i in sorted(order[:n_stimuli]))
    kept = tuple(stimulus for stimulus in split.train if stimulus not in set(held_out))
    inner = Split(
        f"{split.name}-inner", kept, held_out, "random part of the training stimuli", seed
    )
    fitted = clone(decoder, safe=False).fit(dataset, inner, z, c)
    predicted = fitted.predict(dataset, inner)
    seen = dataset.stimuli.images(held_out).astype(np.float32)
    target = _flat(seen, reconstructor.model.image_size)
    keys = [(stimulus, 0) for stimulus in held_out]
    scores = []
    for strength, guidance in product(strengths, guidances):
        trial = replace(reconstructor, strength=strength, guidance=guidance)
        pictures = trial.from_z_c(predicted["z"], predicted["c"], keys, progress)
        scores.append((strength, guidance, _score(target, _flat(pictures))))
    best = max(scores, key=lambda row: row[2])
    return ChosenSettings(best[0], best[1], tuple(scores))


def _flat(pictures: NDArray[np.float32], size: int | None = None) -> NDArray[np.float64]:
    if size is not None and pictures.shape[1] != size:
        pictures = resize_images(pictures.astype(np.uint8), size).astype(np.float32)
    return pictures.reshape(len(pictures), -1).astype(np.float64)


def _score(target: NDArray[np.float64], pictures: NDArray[np.float64]) -> float:
    n = len(target)
    correlations = np.nan_to_num(np.corrcoef(target, pictures)[:n, n:])
    own = np.diag(correlations)
    wins = (own[:, None] > correlations).sum(1) / (n - 1)
    return float(wins.mean() + own.mean())
