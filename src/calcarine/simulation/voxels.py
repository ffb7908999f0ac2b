"""Simulated voxels driven by known feature spaces, to test whether an analysis finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import scale_sessions
from calcarine.errors import SettingError
from calcarine.simulation.subject import noise_levels
from calcarine.stimuli import StimulusSet

__all__ = ["simulate_voxels"]


def simulate_voxels(
    stimuli: StimulusSet,
    split: Split,
    spaces: Mapping[str, NDArray[np.float32]],
    listeners: Mapping[str, Mapping[str, float]],
    *,
    n_voxels: int = 100,
    ceiling: float = 50.0,
    n_repeats: int = 3,
    n_components: int = 20,
    seed: int = 0,
) -> BrainDataset:
    """Simulate a subject whose voxels are driven by given feature spaces.

    Parameters
    ----------
    stimuli, split
        What the subject sees, and how it is split.
    spaces : mapping of str to float32 array
        Features by name, each of shape (n, ...), a row for each of
        ``stimuli.ids``.
    listeners : mapping of str to mapping of str to float
        By region: how much of the variance of the signal each space gives,
        as ``{"early": {"z": 1.0}, "mixed": {"z": 0.3, "c": 0.7}}``.  A region
        that listens to nothing has no signal.
    n_voxels : int
        In each region.
    ceiling : float
        Noise ceiling of each voxel with signal, percent of the variance of
        means over three repeats.
    n_repeats : int
        Trials of each stimulus, each in a session of its own.
    n_components : int
        Leading principal components of a space over training stimuli that
        its listeners mix at random.
    seed : int
        Of mixing and noise.

    Returns
    -------
    BrainDataset
        Simulated; `ground_truth` holds ``listens`` (the region's mixture) and
        ``signal`` (noise-free, shape (n, voxel)).

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.simulation import simulate_voxels
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> split = ca.Split("mine", seen.ids[:30], seen.ids[30:], rule="by hand")
    >>> spaces = {"z": np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)}
    >>> listeners = {"early": {"z": 1.0}, "noise": {}}
    >>> brain = simulate_voxels(seen, split, spaces, listeners, n_voxels=50)
    >>> brain.n_voxels, brain.n_trials, list(brain.rois)
    (100, 120, ['early', 'noise'])
    """
    rng = np.random.default_rng(seed)
    train = np.isin(stimuli.ids, split.train)
    scores = {name: _components(result, train, n_components) for name, result in spaces.items()}
    signal = np.zeros((len(stimuli), n_voxels * len(listeners)))
    for at, mixture in enumerate(listeners.values()):
        columns = slice(at * n_voxels, (at + 1) * n_voxels)
        for name, share in mixture.items():
            if name not in scores:
                raise SettingError(f"There is no feature space {name} for voxels to respond to.")
            drive = scores[name] @ rng.normal(size=(scores[name].shape[1], n_voxels))
            drive -= drive[train].mean(0)
            signal[:, columns] += np.sqrt(share) * drive / drive[train].std(0)
    heard = signal[train].std(0) > 0
    signal[:, heard] /= signal[train][:, heard].std(0)
    level = 1.0 / noise_levels(np.array([ceiling]))[0]
    n = len(stimuli)
    betas = np.tile(level * signal, (n_repeats, 1)) + rng.normal(size=(n * n_repeats, len(heard)))
    shown, sessions = list(stimuli.ids) * n_repeats, np.repeat(np.arange(n_repeats), n)
    scaled, scaling = scale_sessions(betas, sessions, np.tile(train, n_repeats), shown)
    owner = np.repeat(np.arange(len(listeners)), n_voxels)
    known: dict[str, Any] = {"listens": {k: dict(v) for k, v in listeners.items()}}
    return BrainDataset(
        name="simulated",
        subject="listener",
        responses=make_responses(scaled, shown, sessions),
        voxels=pd.DataFrame(np.full((len(owner), 3), np.nan), columns=["x", "y", "z"]),
        rois={name: owner == at for at, name in enumerate(listeners)},
        stimuli=stimuli,
        splits=(split,),
        simulated=True,
        source="simulated by calcarine from feature spaces",
        licence="no restrictions",
        ground_truth={**known, "signal": signal},
        scaling=scaling,
    )


def _components(
    features: NDArray[np.float32], train: NDArray[np.bool_], count: int
) -> NDArray[np.float64]:
    """Return the leading principal components over training stimuli, with variance 1 there."""
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    flat = flat - flat[train].mean(0)
    _, _, axes = np.linalg.svd(flat[train], full_matrices=False)
    scores = flat @ axes[:count].T
    return np.asarray(scores / scores[train].std(0))
