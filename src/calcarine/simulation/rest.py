"""Simulated subjects at rest: unlabelled vectors to pretrain encoders on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.info import pick_subject
from calcarine.brain.scaling import scale_sessions
from calcarine.errors import SettingError
from calcarine.simulation import subject as simulated
from calcarine.simulation.cortex import place_voxels
from calcarine.stimuli import StimulusSet

__all__ = ["rest_vectors"]

_SCENES = 5000
"""Added to the subject's number: seed of scenes that no data set shows."""
_RUN = 120
_SLOWNESS = 0.6


def rest_vectors(
    subject: str | None = "subj01",
    n: int = 2400,
    *,
    n_scenes: int = 1200,
    n_train: int = 600,
    n_early: int = 700,
    n_ventral: int = 700,
    n_other: int = 300,
    size: int = 64,
    seed: int = 0,
    **not_used: Any,
) -> NDArray[np.float32]:
    """Simulate the activity of a subject who sees nothing.

    Spontaneous activity of visual cortex resembles what pictures evoke (Kenet et al. 2003). So a
    sample here is a mixture of the responses to a few scenes, which follow each other slowly,
    under the noise of a single trial. These scenes are in no simulated data set.

    Parameters
    ----------
    subject, n_train, n_early, n_ventral, n_other, size, seed
        As of :func:`calcarine.simulation.subject.load`: the same give the same voxels. Its other
        arguments are taken and not used.
    n : int
        Samples, in runs of 120.
    n_scenes : int
        Scenes that are mixed.

    Returns
    -------
    float32 array of shape (n, voxel)
        Each voxel z-scored in each run.

    Examples
    --------
    >>> from calcarine.simulation import rest_vectors
    >>> samples = rest_vectors(n=120, n_scenes=20, n_train=20, n_early=20, n_ventral=20, n_other=5)
    >>> samples.shape
    (120, 45)
    """
    if n < _RUN or n_scenes < 2:
        raise SettingError(
            f"Simulated rest needs at least {_RUN} samples and 2 scenes, not {n} and {n_scenes}."
        )
    who = pick_subject(simulated.INFO, subject)
    number = int(who.removeprefix("subj"))
    tune, _, _ = (simulated._rng(seed, number, purpose) for purpose in range(3))
    draw = simulated._rng(seed, number, 3)
    voxels = place_voxels(tune, n_early, n_ventral, n_other)
    ceiling = simulated._draw_ceilings(voxels["region"].to_numpy(), who, tune)
    # Tuning is scaled on the training stimuli, so these come first, as when the subject is loaded.
    own, _, _ = simulated._stimuli(number, n_train, 1, size)
    unseen = StimulusSet.from_scenes(_SCENES + number, range(n_scenes), size)
    both = StimulusSet.joined([own, unseen])
    signal = simulated._signal(both, voxels, n_train, tune)[-n_scenes:]
    runs = np.arange(n) // _RUN
    runs[runs == n // _RUN] = max(0, n // _RUN - 1)  # a last run that is short joins its neighbour
    measured = simulated._measure(_mixed(signal, n, draw), runs, ceiling, draw)
    return scale_sessions(measured, runs, np.ones(n, bool))[0]


def _mixed(signal: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return slow mixtures of responses with the variance of single responses."""
    a, b = rng.integers(len(signal), size=(2, n))
    share = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    fresh = (share * signal[a] + (1 - share) * signal[b]) / np.sqrt(share**2 + (1 - share) ** 2)
    mixed = np.empty_like(fresh)
    mixed[0] = fresh[0]
    new = np.float32(np.sqrt(1 - _SLOWNESS**2))
    for i in range(1, n):
        mixed[i] = _SLOWNESS * mixed[i - 1] + new * fresh[i]
    return np.asarray(mixed)
