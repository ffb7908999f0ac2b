"""Simulated subjects in the design of the Natural Scenes Dataset.

Nothing here was measured: pictures, cortex and noise are simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import scale_sessions
from calcarine.brain.split import Split
from calcarine.errors import SettingError
from calcarine.simulation import tuning
from calcarine.simulation.cortex import place_voxels
from calcarine.stimuli import scenes
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["INFO", "SHARED_SEED", "load", "noise_levels", "presentation"]

_F = TypeVar("_F", bound=Callable[..., Any])

SHARED_SEED = 100
"""Seed of the shared scenes; the seed of a subject's own scenes adds the subject's number."""

INFO = DatasetInfo(
    name="simulated",
    title="Simulated subjects looking at procedural scenes (no measured data)",
    simulated=True,
    subjects=("subj01", "subj02", "subj05", "subj07"),
    source="simulated by calcarine, after the design of Allen et al. 2022",
    licence="no restrictions",
    needs_folder=False,
)

# Shift of the log odds of noise ceilings: the first subject is best, the last worst.
_QUALITY = {"subj01": 0.2, "subj02": 0.05, "subj05": 0.0, "subj07": -0.35}
# Beta distributions with medians of about 35 and 30 percent and tails to 80.
_CEILINGS = {"early": (1.7, 3.0), "ventral": (1.7, 3.6)}
_CEILING_REPEATS = 3
_DRIFT_SHARE = 0.1
_SHARED_NOISE_SHARE = 0.15
_SHARED_NOISE_RANK = 12
_DRIFT_WAVES = 3


def _one_thread(function: _F) -> _F:
    """Run a function with one BLAS thread."""
    # The last digits of a matrix product change with the number of threads, and with them the
    # digest of the data, by which a run knows which stages are done.
    limited: _F = threadpool_limits.wrap(limits=1, user_api="blas")(function)
    return limited


def load(
    data: str | Path | None = None,
    subject: str | None = "subj01",
    *,
    n_train: int = 600,
    n_test: int = 60,
    n_repeats: int = 3,
    n_sessions: int = 8,
    n_early: int = 700,
    n_ventral: int = 700,
    n_other: int = 300,
    size: int = 64,
    seed: int = 0,
) -> BrainDataset:
    """Simulate one subject.

    Parameters
    ----------
    data : optional
        Not used; simulated data needs no files.
    subject : str
        ``subj01`` (best), ``subj02``, ``subj05`` or ``subj07`` (worst).
    n_train : int
        Stimuli that only this subject sees.
    n_test : int
        Stimuli that all subjects see; they are the test stimuli.
    n_repeats : int
        Trials of each stimulus, spread over sessions.
    n_sessions : int
        Sessions, each with its own gain, offset and slow drift.
    n_early, n_ventral, n_other : int
        Voxels with retinotopic tuning, with semantic tuning, and without any signal.
    size : int
        Height and width of the pictures in pixels.
    seed : int
        Seed of tuning, noise and order of presentation; the pictures do not depend on it.

    Returns
    -------
    BrainDataset
        z-scored by session with training trials only; ROIs ``early``, ``ventral`` and ``other``;
        one split, ``shared``. `ground_truth` holds ``tuning`` (visual, semantic or none) and
        ``noise_ceiling`` (percent of the variance of means over three repeats), each of shape
        (voxel,).

    Raises
    ------
    SettingError
        If a number is too small or there is no such subject.
    """
    who = pick_subject(INFO, subject)
    _check_numbers(n_train, n_test, n_repeats, n_sessions, (n_early, n_ventral, n_other), size)
    number = int(who.removeprefix("subj"))
    stimuli, own, shared = _stimuli(number, n_train, n_test, size)
    tune, noise, order = (_rng(seed, number, purpose) for purpose in range(3))
    voxels = place_voxels(tune, n_early, n_ventral, n_other)
    voxels["noise_ceiling"] = _draw_ceilings(voxels["region"].to_numpy(), who, tune)
    signal = _signal(stimuli, voxels, n_train, tune)
    shown, sessions = presentation(n_train, n_test, n_repeats, n_sessions, order)
    betas = _measure(signal[shown], sessions, voxels["noise_ceiling"].to_numpy(), noise)
    names = [stimuli.ids[row] for row in shown]
    betas, scaling = scale_sessions(betas, sessions, shown < n_train, names)
    region = voxels["region"].to_numpy()
    rule = "scenes shown to all subjects are test, the subject's own are training"
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=make_responses(betas, names, sessions),
        voxels=voxels.drop(columns="region"),
        rois={name: region == name for name in ("early", "ventral", "other")},
        stimuli=stimuli,
        splits=(Split("shared", own, shared, rule, None),),
        simulated=True,
        source=INFO.source,
        licence=INFO.licence,
        judge="scenes",
        ground_truth=_ground_truth(voxels),
        scaling=scaling,
    )


def _check_numbers(
    n_train: int,
    n_test: int,
    n_repeats: int,
    n_sessions: int,
    voxels: tuple[int, int, int],
    size: int,
) -> None:
    least = {
        "n_train": (n_train, 2),
        "n_test": (n_test, 1),
        "n_repeats": (n_repeats, 1),
        "n_sessions": (n_sessions, 1),
        "size": (size, 16),
        "n_early": (voxels[0], 0),
        "n_ventral": (voxels[1], 0),
        "n_other": (voxels[2], 0),
    }
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise SettingError(f"Simulated data needs {name} of at least {lowest}, not {value}.")
    if sum(voxels) == 0:
        raise SettingError("Simulated data needs voxels; raise n_early, n_ventral or n_other.")
    if n_train * n_repeats < 2 * n_sessions:
        raise SettingError(
            f"{n_train * n_repeats} training trials are too few for {n_sessions} sessions; "
            "raise n_train or lower n_sessions."
        )


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def _stimuli(
    number: int, n_train: int, n_test: int, size: int
) -> tuple[StimulusSet, tuple[str, ...], tuple[str, ...]]:
    """Join a subject's own scenes and the shared ones."""
    own = StimulusSet.from_scenes(SHARED_SEED + number, range(n_train), size)
    shared = StimulusSet.from_scenes(SHARED_SEED, range(n_test), size)
    return StimulusSet.joined([own, shared]), own.ids, shared.ids


def _describe(stimuli: StimulusSet) -> list[scenes.Scene]:
    places = [key.split("-")[1:] for key in stimuli.ids]
    return [scenes.describe(int(seed), int(index)) for seed, index in places]


@_one_thread
def _signal(
    stimuli: StimulusSet, voxels: pd.DataFrame, n_train: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return noise-free responses, (stimulus, voxel), of variance 1 over training stimuli."""
    train = np.arange(len(stimuli)) < n_train
    region = voxels["region"].to_numpy()
    signal = np.zeros((len(stimuli), len(voxels)), dtype=np.float32)
    early, ventral = region == "early", region == "ventral"
    if early.any():
        signal[:, early] = tuning.early_signal(stimuli.images(), voxels[early], train, rng)
    if ventral.any():
        signal[:, ventral] = tuning.semantic_signal(
            stimuli.semantic_maps(), _describe(stimuli), int(ventral.sum()), train, rng
        )
    return signal


def _draw_ceilings(
    region: NDArray[Any], subject: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the noise ceiling of each voxel for the mean of three repeats, in percent."""
    ceiling = np.zeros(len(region))
    for name, (a, b) in _CEILINGS.items():
        members = region == name
        drawn = np.clip(rng.beta(a, b, int(members.sum())), 0.005, 0.95)
        odds = np.log(drawn / (1.0 - drawn)) + _QUALITY[subject]
        ceiling[members] = 100.0 / (1.0 + np.exp(-odds))
    return ceiling


def noise_levels(ceiling: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise SD of a single trial for signals of SD 1.

    Inverts ``ceiling = ncsnr^2 / (ncsnr^2 + 1/3)`` (Allen et al. 2022).

    Parameters
    ----------
    ceiling : float64 array
        Percent of the variance of means over three repeats, shape (voxel,).

    Returns
    -------
    float array of shape (voxel,)
        ``1 / ncsnr``; infinite where there is no signal.
    """
    part = ceiling / 100.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(_CEILING_REPEATS * (1.0 - part) / part))


def presentation(
    n_train: int, n_test: int, n_repeats: int, n_sessions: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a random order of trials; repeats of a stimulus are in different sessions.

    Parameters
    ----------
    n_train, n_test, n_repeats, n_sessions : int
        See `load`.
    rng : Generator
        Draws the order.

    Returns
    -------
    shown, sessions
        int, shape (trial,): row of the stimulus (training ones first) and
        session of each trial.  Sessions have equally many trials of each
        kind, up to one per repeat.
    """
    rows: list[NDArray[np.int64]] = []
    places: list[NDArray[np.int64]] = []
    shifts = np.resize(rng.permutation(n_sessions), n_repeats)
    for start, count in ((0, n_train), (n_train, n_test)):
        base = rng.permutation(count)
        for shift in shifts:
            rows.append(start + np.arange(count))
            places.append((base + shift) % n_sessions)
    shown, sessions = np.concatenate(rows), np.concatenate(places)
    order = np.lexsort((rng.random(len(shown)), sessions))
    return shown[order], sessions[order]


@_one_thread
def _measure(
    signal: NDArray[np.float32],
    sessions: NDArray[np.int64],
    ceiling: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return single trials with noise, and the drift, gain and offset of each session."""
    has_signal = ceiling > 0
    level = np.where(has_signal, 1.0 / noise_levels(np.where(has_signal, ceiling, 50.0)), 0.0)
    betas = signal * level.astype(np.float32) + _noise(signal.shape, rng)
    voxels = signal.shape[1]
    for session in np.unique(sessions):
        inside = np.flatnonzero(sessions == session)
        drift = np.sqrt(_DRIFT_SHARE) * _drift(len(inside), voxels, rng)
        gain = np.exp(rng.normal(0.0, 0.15) + rng.normal(0.0, 0.05, voxels))
        offset = rng.normal(0.0, 0.5) + rng.normal(0.0, 0.5, voxels)
        betas[inside] = gain * (betas[inside] + drift) + offset
    return betas


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return white noise plus noise that voxels share; with drift the variance is 1."""
    trials, voxels = shape
    loads = rng.standard_normal((_SHARED_NOISE_RANK, voxels), dtype=np.float32)
    loads *= np.float32(np.sqrt(_SHARED_NOISE_SHARE)) / np.linalg.norm(loads, axis=0)
    noise = rng.standard_normal((trials, voxels), dtype=np.float32)
    noise *= np.float32(np.sqrt(1.0 - _SHARED_NOISE_SHARE - _DRIFT_SHARE))
    noise += rng.standard_normal((trials, _SHARED_NOISE_RANK), dtype=np.float32) @ loads
    return noise


def _drift(trials: int, voxels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return slow waves over a session with mean 0 and variance 1 for each voxel."""
    time = (np.arange(trials) + 0.5) / trials
    waves = np.cos(np.pi * np.outer(time, np.arange(1, _DRIFT_WAVES + 1)))
    drift = waves @ rng.normal(size=(_DRIFT_WAVES, voxels))
    spread = drift.std(0)
    return (drift / np.where(spread > 1e-12, spread, 1.0)).astype(np.float32)


def _ground_truth(voxels: pd.DataFrame) -> dict[str, Any]:
    labels = {"early": "visual", "ventral": "semantic", "other": "none"}
    return {
        "tuning": voxels["region"].map(labels).to_numpy(dtype=str),
        "noise_ceiling": voxels["noise_ceiling"].to_numpy(),
    }
