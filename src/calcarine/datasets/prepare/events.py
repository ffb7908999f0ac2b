"""Estimating one response per trial from time series and events.

A trial's response is a weight of a linear model (``"lsa"``, ``"lss"``; Mumford et al. 2012) or
the mean of its volumes (``"mean"``, for blocks).  Each run is treated alone: its responses
depend on its own volumes and on when its events were, never on what was shown in them.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError, SettingError, ShapeError

__all__ = ["trial_betas"]

Method = Literal["lsa", "lss", "mean"]
Hrf = Literal["glover", "spm", "boxcar"]
Drift = Literal["cosine", "polynomial", "none"]
Units = Literal["percent", "raw"]
Baseline = Literal["rest", "run"]

Floats = NDArray[np.float64]
_HRF = {"glover": "glover", "spm": "spm", "boxcar": None}


def trial_betas(
    series: ArrayLike,
    events: pd.DataFrame,
    tr: float,
    *,
    runs: ArrayLike | None = None,
    method: Method = "lsa",
    hrf: Hrf = "glover",
    drift: Drift = "cosine",
    high_pass: float = 1 / 128,
    drift_order: int = 1,
    confounds: ArrayLike | None = None,
    start_time: float = 0.0,
    delay: float = 5.0,
    baseline: Baseline = "rest",
    units: Units = "percent",
) -> NDArray[np.float32]:
    """Estimate one response per trial.

    Parameters
    ----------
    series
        Volumes of all runs behind one another, shape (time, voxel).
    events
        A row an event: ``onset`` and ``duration`` in seconds from the first
        volume of the run, ``run`` (a label of ``runs``; not needed for one
        run), and perhaps ``nuisance``: events with a text there are no
        trials, and all of one text share a regressor.
    tr
        Seconds from volume to volume.
    runs
        Run of each volume, shape (time,); one run if left out.
    method
        ``"lsa"``: all trials of a run in one model (least squares, all);
        ``"lss"``: for each trial a model of this trial, all others together
        and the nuisance (least squares, separate), for trials that overlap;
        ``"mean"``: mean of the volumes from ``onset + delay`` to
        ``onset + duration + delay`` above the baseline, for blocks.
    hrf
        Response to an event (nilearn's, of unit area: a long block reaches
        1); ``"boxcar"`` is none.
    drift, high_pass, drift_order
        Slow drift that is fitted along in each run: cosines slower than
        ``high_pass`` in Hz, or a polynomial of some order.
    confounds
        Further nuisance, shape (time, confound).
    start_time
        Seconds from the beginning of a volume to the moment that it shows
        (fMRIPrep's ``StartTime``).
    delay
        For ``"mean"``: seconds by which the response is late.
    baseline
        For ``"mean"``: the volumes in no window of any event, or all.
    units
        ``"percent"`` of each voxel's mean in the run (for ``"mean"``: of its
        baseline), or ``"raw"``.

    Returns
    -------
    float32 array of shape (trial, voxel)
        In the order of the rows of ``events`` that are trials.

    Raises
    ------
    CalcarineError
        If lengths differ, an event lies outside its run, trials of a run
        are collinear, or a mean to divide by is not
        positive.
    """
    volumes = np.asarray(series)
    _check_choices(method, hrf, drift, units, baseline)
    table, labels = _checked(volumes, events, runs, tr)
    extra = _confounds(confounds, len(volumes))
    result = np.empty((int((table["nuisance"] == "").sum()), volumes.shape[1]), dtype=np.float32)
    row_of = np.cumsum(table["nuisance"] == "") - 1
    for run in pd.unique(labels):
        inside = labels == run
        own = table[table["run"] == run]
        trials = (own["nuisance"] == "").to_numpy()
        if not trials.any():
            continue
        times: Floats = np.arange(int(inside.sum()), dtype=np.float64) * tr + start_time
        _check_times(own, times, tr, run)
        data = volumes[inside].astype(np.float64)
        design, nuisance = _designs(own, times, hrf, drift, high_pass, drift_order, extra[inside])
        level = data.mean(0)
        if method == "mean":
            values, level = _window_means(data, nuisance, own, times, delay, baseline, run)
        else:
            values = _weights(data, design, nuisance, method, run)
        if units == "percent":
            values *= 100.0 / _positive(level, run)
        result[row_of[own.index[trials]]] = values
    return result


def _check_choices(method: str, hrf: str, drift: str, units: str, baseline: str) -> None:
    for what, value, known in (
        ("method", method, get_args(Method)),
        ("hrf", hrf, get_args(Hrf)),
        ("drift", drift, get_args(Drift)),
        ("units", units, get_args(Units)),
        ("baseline", baseline, get_args(Baseline)),
    ):
        if value not in known:
            raise SettingError(
                f"The {what} of trial responses is {', '.join(known)}; {value!r} is not."
            )


def _checked(
    volumes: NDArray[np.generic], events: pd.DataFrame, runs: ArrayLike | None, tr: float
) -> tuple[pd.DataFrame, NDArray[np.generic]]:
    """Return events with all columns and a plain index, and the run of each volume."""
    if volumes.ndim != 2 or volumes.dtype.kind not in "uif":
        raise ShapeError(
            f"A time series is numbers of shape (time, voxel), not {volumes.dtype} of shape "
            f"{volumes.shape}."
        )
    if not (np.isfinite(tr) and tr > 0):
        raise SettingError(f"The TR is seconds above 0, not {tr}.")
    labels = np.zeros(len(volumes), np.int64) if runs is None else np.asarray(runs)
    if labels.shape != (len(volumes),):
        raise ShapeError(f"{labels.size} run labels do not fit {len(volumes)} volumes.")
    table = events.reset_index(drop=True).copy()
    for name in ("onset", "duration"):
        if name not in table.columns:
            raise SettingError(f"The events have no column {name}; give seconds.")
        table[name] = pd.to_numeric(table[name], errors="coerce")
        bad = ~np.isfinite(table[name].to_numpy(dtype=float))
        if bad.any():
            raise CalcarineError(f"Event {int(np.argmax(bad))} has no number as its {name}.")
    if (table["duration"] < 0).any():
        raise CalcarineError("An event has a negative duration; give seconds of at least 0.")
    if "run" not in table.columns:
        if len(np.unique(labels)) > 1:
            raise SettingError("The events have no column run, and there are several runs.")
        table["run"] = labels[0] if len(labels) else 0
    strange = table.loc[~table["run"].isin(np.unique(labels)), "run"]
    if len(strange):
        raise CalcarineError(f"Run {strange.iloc[0]} of the events has no volumes.")
    texts = table["nuisance"] if "nuisance" in table.columns else pd.Series("", table.index)
    table["nuisance"] = texts.fillna("").astype(str)
    return table, labels


def _confounds(confounds: ArrayLike | None, count: int) -> Floats:
    if confounds is None:
        return np.empty((count, 0))
    values = np.asarray(confounds, dtype=np.float64)
    if values.ndim != 2 or len(values) != count or not np.isfinite(values).all():
        raise ShapeError(
            f"Confounds of shape {values.shape} should be finite numbers, one row for each of "
            f"{count} volumes."
        )
    return values


def _check_times(own: pd.DataFrame, times: Floats, tr: float, run: object) -> None:
    end = times[-1] + tr
    outside = own[(own["onset"] >= end) | (own["onset"] + own["duration"] < 0)]
    if len(outside):
        raise CalcarineError(
            f"Run {run} ends after {end:g} s and has an event at {outside['onset'].iloc[0]:g} s; "
            "onsets are seconds from the first volume of their run, and the TR may be wrong."
        )


def _designs(
    own: pd.DataFrame,
    times: Floats,
    hrf: str,
    drift: str,
    high_pass: float,
    order: int,
    extra: Floats,
) -> tuple[Floats, Floats]:
    """Yield regressors of the trials, and an orthonormal basis of the rest of the model."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    names = [
        f"trial{row:06d}" if not text else f"other {text}"
        for row, text in enumerate(own["nuisance"])
    ]
    paradigm = pd.DataFrame(
        {
            "onset": own["onset"].to_numpy(float),
            "duration": own["duration"].to_numpy(float),
            "trial_type": names,
        }
    )
    with warnings.catch_warnings():
        # nilearn warns of events without duration, of duplicates, of onsets before the first
        # volume and of designs close to singular: all are right here, or found by `_weights`.
        warnings.simplefilter("ignore", UserWarning)
        matrix = make_first_level_design_matrix(
            times,
            paradigm,
            hrf_model=_HRF[hrf],
            drift_model=None if drift == "none" else drift,
            high_pass=high_pass,
            drift_order=order,
        )
    trials = [name for name in names if name.startswith("trial")]
    rest = [name for name in matrix.columns if name not in set(trials)]
    nuisance = np.column_stack([matrix[rest].to_numpy(float), extra])
    return matrix[trials].to_numpy(float), _basis(nuisance)


def _basis(columns: Floats) -> Floats:
    """Return an orthonormal basis of the span of columns of any scale."""
    size = np.linalg.norm(columns, axis=0)
    scaled = columns[:, size > 0] / size[size > 0]
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(left[:, values > 1e-10 * max(values.max(initial=0.0), 1e-300)])


def _weights(data: Floats, design: Floats, nuisance: Floats, method: str, run: object) -> Floats:
    """Return weights of the trials, after projecting out nuisance (Frisch-Waugh-Lovell)."""
    trials = design - nuisance @ (nuisance.T @ design)
    # Nuisance is gone from the trials, so it need not be taken out of the data.
    products = trials.T @ data
    gram = trials.T @ trials
    size = np.sqrt(np.diag(gram))
    lost = size <= 1e-6 * np.linalg.norm(design, axis=0).max()
    if lost.any():
        raise CalcarineError(
            f"Run {run}: trial {int(np.argmax(lost)) + 1} of {len(lost)} leaves no trace in the "
            "volumes; it begins too late, or confounds and drift take it all."
        )
    if method == "lss":
        return _separate(gram, products)
    values = np.linalg.eigvalsh(gram / np.outer(size, size))
    if values[0] <= 1e-8 * values[-1]:
        raise CalcarineError(
            f"Run {run}: its {len(size)} trials are collinear in {len(data)} volumes with "
            f"{nuisance.shape[1]} columns of nuisance; use method lss, or fewer confounds."
        )
    return np.asarray(np.linalg.solve(gram, products))


def _separate(gram: Floats, products: Floats) -> Floats:
    """Return for each trial the first weight of the model (trial, sum of the others)."""
    own = np.diag(gram)
    across = gram.sum(0) - own
    others = gram.sum() - 2 * across - own
    alone = others <= 1e-12 * own.max()
    determinant = own * others - across**2
    same = ~alone & (determinant <= 1e-10 * own * np.abs(others))
    if same.any():
        raise CalcarineError(
            f"Trial {int(np.argmax(same)) + 1} of a run is collinear with the sum of the others; "
            "use method lsa or mean."
        )
    rest = products.sum(0) - products
    weight = np.where(alone, 1.0, determinant)[:, None]
    both = (others[:, None] * products - across[:, None] * rest) / weight
    return np.where(alone[:, None], products / own[:, None], both)


def _window_means(
    data: Floats,
    nuisance: Floats,
    own: pd.DataFrame,
    times: Floats,
    delay: float,
    baseline: str,
    run: object,
) -> tuple[Floats, Floats]:
    """Return means of the trials' windows above the baseline, and the baseline."""
    onset, duration = own["onset"].to_numpy(float), own["duration"].to_numpy(float)
    # Half a millisecond, for onsets that were rounded when they were written.
    begin, end = onset + delay - 5e-4, onset + duration + delay - 5e-4
    windows = (times >= begin[:, None]) & (times < end[:, None])
    trials = (own["nuisance"] == "").to_numpy()
    empty = trials & ~windows.any(1)
    if empty.any():
        raise CalcarineError(
            f"Run {run}: no volume falls in the window of the event at "
            f"{onset[np.argmax(empty)]:g} s ({delay:g} s late); averaging is for blocks."
        )
    rest = ~windows.any(0) if baseline == "rest" else np.ones(len(times), dtype=bool)
    if not rest.any():
        raise CalcarineError(f"Run {run} has no volumes of rest; use baseline='run'.")
    # Drift is fitted together with the events, so that blocks are not taken for drift.
    regressors = np.column_stack([nuisance, windows.any(0)])
    weights, *_ = np.linalg.lstsq(regressors, data, rcond=None)
    drift = nuisance @ weights[:-1]
    steady = data - (drift - drift.mean(0))
    level = steady[rest].mean(0)
    return np.stack([steady[window].mean(0) for window in windows[trials]]) - level, level


def _positive(level: Floats, run: object) -> Floats:
    low = ~(level > 0)
    if low.any():
        raise CalcarineError(
            f"Run {run}: the mean of voxel {int(np.argmax(low))} is {level[np.argmax(low)]:g}, and "
            f"percent signal change needs it above 0 ({int(low.sum())} such voxels); mask them, or "
            "use units='raw'."
        )
    return level
