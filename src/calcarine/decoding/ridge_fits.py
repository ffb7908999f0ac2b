"""Ridge regressions from responses to features of stimuli."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import Responses
from calcarine.devices import on_cpu_if_full
from calcarine.errors import LeakageError
from calcarine.linear import ComputedMatrix, RidgeCV, RidgeEdgeWarning

__all__ = ["TargetSummary", "fit_ridge", "fit_together", "side_by_side"]

Array = NDArray[Any]


@dataclass(frozen=True)
class TargetSummary:
    """Summary of the fit of one target, for reports.

    Attributes
    ----------
    median_alpha : float
        Median penalty over target dimensions.
    mean_cv_r2 : float
        Mean over target dimensions of the cross-validated r2 inside the training data.
    positive : float
        Share of dimensions with a cross-validated r2 above zero.
    edge_low, edge_high : float
        Share of predictable dimensions with the smallest, or the largest, penalty of the grid.
    warning : str
        The warning of the ridge regression, or an empty string.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> z = np.random.default_rng(0).standard_normal((40, 6))
    >>> betas = z @ np.random.default_rng(1).standard_normal((6, 30))
    >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids, seen, test=8)
    >>> summary = ca.LatentRegression().fit(brain, None, z).summary_["z"]
    >>> summary.positive  # these responses hold z without noise
    1.0
    """

    median_alpha: float
    mean_cv_r2: float
    positive: float
    edge_low: float
    edge_high: float
    warning: str


def fit_ridge(
    responses: Responses,
    ids: Sequence[str],
    targets: Array | ComputedMatrix,
    alphas: Array | None,
    n_folds: int,
    intercept: bool = True,
    grouped: bool = True,
    device: str = "cpu",
    out: Path | None = None,
) -> tuple[RidgeCV, TargetSummary]:
    """Fit one ridge regression on training responses.

    Parameters
    ----------
    responses : Responses
        Single trials of training stimuli, ``(n_trials, n_voxels)``.
    ids : sequence of str
        Stimulus of each row of ``targets``; contains every stimulus of the responses.
    targets : array of shape (n_stimuli, n_targets)
        Values to predict.
    alphas : array, optional
        Grid of penalties; the default of :class:`calcarine.linear.RidgeCV` otherwise.
    n_folds : int
        Number of folds of the cross-validation that chooses the penalties.
    intercept : bool
        False fits no intercept, as the code of Takagi & Nishimoto (2023) does: the columns of X
        are still centred, and predictions scatter about zero.
    grouped : bool
        False makes folds of successive trials, which may separate the repeats of a stimulus, as
        the same code does.
    device : str
        Where it is fitted; see :class:`calcarine.linear.RidgeCV`.
    out : Path, optional
        Folder for the weights, which then need not fit in memory.

    Returns
    -------
    ridge : RidgeCV
    summary : TargetSummary

    Raises
    ------
    LeakageError
        If the responses are not training responses.
    """
    if responses.role != "train":
        raise LeakageError(
            f"fit received {responses.role} responses; fit on the training responses of a split."
        )
    folds = min(n_folds, len(set(responses.stimulus_ids)))
    options: dict[str, Any] = {"n_folds": folds, "fit_intercept": intercept}
    if alphas is not None:
        options["alphas"] = alphas
    row_of = {stimulus: i for i, stimulus in enumerate(ids)}
    rows = [row_of[stimulus] for stimulus in responses.stimulus_ids]
    stimuli, target_rows = np.unique(rows, return_inverse=True)
    data, mean = responses.data, None
    if not intercept:
        mean = data.mean(0, dtype=np.float64)
        data = data - mean.astype(data.dtype)
    groups = np.asarray(responses.stimulus_ids) if grouped else _successive(len(responses), folds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RidgeEdgeWarning)
        ridge = on_cpu_if_full(
            lambda place: RidgeCV(device=place, **options).fit(
                data, _of_rows(targets, stimuli), groups=groups, target_rows=target_rows, out=out
            ),
            device,
        )
    if mean is not None:
        ridge.x_mean_ = mean
        # einsum casts as it goes; a product would copy all weights to float64.
        ridge.intercept_ = -np.einsum("i,...i->...", mean, ridge.coef_)
    return ridge, _summarise(ridge, caught)


def _successive(n_trials: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each trial: blocks of successive trials, longer ones first."""
    blocks = np.array_split(np.arange(n_trials), folds)
    return np.repeat(np.arange(folds), [len(block) for block in blocks])


def _of_rows(targets: Array | ComputedMatrix, rows: NDArray[np.intp]) -> Array | ComputedMatrix:
    """Return some rows of the targets."""
    if not isinstance(targets, ComputedMatrix):
        return np.asarray(targets[rows])
    shape = (len(rows), targets.shape[1])
    return ComputedMatrix(shape, targets.dtype, lambda columns: targets.columns(columns)[rows])


def side_by_side(targets: Mapping[str, Any]) -> ComputedMatrix:
    """Return several targets as the columns of one matrix, without a copy.

    Parameters
    ----------
    targets : mapping of str to array of shape (n, ...)
        In memory or on disk; some columns are read at a time.
    """
    widths = [math.prod(values.shape[1:]) for values in targets.values()]
    starts = np.cumsum([0, *widths])
    parts = list(zip(targets.values(), starts[:-1].tolist(), widths, strict=True))

    def columns(wanted: slice) -> Array:
        return np.concatenate(
            [
                _columns(values, max(wanted.start - start, 0), min(wanted.stop - start, width))
                for values, start, width in parts
                if wanted.start < start + width and wanted.stop > start
            ],
            axis=1,
        )

    count = next(iter(targets.values())).shape[0]
    dtype = np.result_type(*(values.dtype for values in targets.values()))
    return ComputedMatrix((count, int(starts[-1])), dtype, columns)


def _columns(values: Any, start: int, stop: int) -> Array:
    """Return some columns of an array (n, ...) that is flattened to (n, d)."""
    if len(values.shape) == 1:
        return np.asarray(values[:])[:, None]
    behind = math.prod(values.shape[2:])
    first = start // behind
    block = np.asarray(values[:, first : -(-stop // behind)])
    return block.reshape(len(block), -1)[:, start - first * behind : stop - first * behind]


def fit_together(
    responses: Responses,
    ids: Sequence[str],
    targets: Mapping[str, Any],
    *options: Any,
) -> dict[str, tuple[RidgeCV, TargetSummary]]:
    """Fit several targets on the same responses, which are decomposed once for all of them.

    Parameters
    ----------
    responses, ids
        See `fit_ridge`.
    targets : mapping of str to array of shape (n_stimuli, ...)
        In memory or on disk. Some columns of them are in memory as a matrix at a time.
    *options
        Further arguments of `fit_ridge`, in its order.

    Returns
    -------
    dict of str to (RidgeCV, TargetSummary)
        By name of the target. Of several, ``cv_curve_`` is the mean over all of them.
    """
    ridge, summary = fit_ridge(responses, ids, side_by_side(targets), *options)
    if len(targets) == 1:
        return dict.fromkeys(targets, (ridge, summary))
    fitted, start = {}, 0
    for name, values in targets.items():
        stop = start + math.prod(values.shape[1:])
        fitted[name] = _part(ridge, slice(start, stop))
        start = stop
    return fitted


def _part(ridge: RidgeCV, targets: slice) -> tuple[RidgeCV, TargetSummary]:
    """Return the regression of some of the targets of a fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RidgeEdgeWarning)
        part = ridge.of_targets(targets)
    return part, _summarise(part, caught)


def _summarise(ridge: RidgeCV, caught: Sequence[warnings.WarningMessage]) -> TargetSummary:
    """Summarise a fit; warnings other than those of the penalties are issued again."""
    edge = [w for w in caught if issubclass(w.category, RidgeEdgeWarning)]
    for warning in caught:
        if warning not in edge:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    score = np.asarray(ridge.best_score_)
    low, high = ridge.edge_fractions_
    return TargetSummary(
        median_alpha=float(np.median(ridge.alpha_)),
        mean_cv_r2=float(score.mean()),
        positive=float((score > 0).mean()),
        edge_low=float(low),
        edge_high=float(high),
        warning="; ".join(str(w.message) for w in edge),
    )
