r"""Ridge regression with an exact, grouped cross-validation of the penalty.

For every target the weights minimise :math:`\|y - Xw\|^2 + \alpha \|w\|^2`. One decomposition of
the training trials of each fold serves every penalty and every target (Hoerl & Kennard 1970;
Hastie et al. 2009, eq. 3.47); generalised cross-validation and
leave-one-group-out need one in all. It is the map from voxels to latents of Takagi & Nishimoto
(2023, section 3.3) and the voxel-wise encoding model of their section 3.4.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from calcarine.linear._arguments import (
    check_alpha_per,
    check_cv,
    check_data,
    check_fixed,
    check_memory,
    check_target_rows,
    own_precision,
)
from calcarine.linear._arrays import one_pool, ops_for
from calcarine.linear._checks import (
    FloatArray,
    RidgeError,
    check_alphas,
    check_choice,
    check_count,
    check_dtype,
)
from calcarine.linear._decompose import Demand, check_room, decompose
from calcarine.linear._design import Design, Plan, Runner, Scaler, fit_scaler
from calcarine.linear._edges import edge_fractions, warn_at_edges
from calcarine.linear._leave_out import group_numbers, leave_out_bytes
from calcarine.linear._predict import predict_linear
from calcarine.linear._runner import runner_for
from calcarine.linear._scores import best_penalty
from calcarine.linear._sink import Memory, fit_key, open_sink
from calcarine.linear._solvers import BLOCK
from calcarine.linear._sources import Matrix, in_memory, read_columns, release
from calcarine.linear._targets import Choice, solve_block, weigh_block
from calcarine.linear._weights import check_trained, check_weights
from calcarine.linear.folds import fold_numbers

DEFAULT_ALPHAS: npt.NDArray[np.float64] = np.logspace(-2, 8, 21)
"""Penalties tried when none are given: half-decades from 0.01 to 1e8."""
DEFAULT_ALPHAS.flags.writeable = False

if TYPE_CHECKING:
    from sklearn.model_selection import BaseCrossValidator

    Folds: TypeAlias = int | BaseCrossValidator | Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]

_METHODS = ("kfold", "logo", "gcv", "fixed")
_NEIGHBOURS = 4
"""Penalties that a local search tries for a target, by experience."""
_BLOCK, _BLOCK_VALUES = 1024, 4_000_000
"""Targets of a block at least, and values up to which it may have more."""


@dataclass(frozen=True)
class RidgeResult:
    """Weights of a ridge fit in the units of X, with what the cross-validation found.

    Attributes
    ----------
    coef : ndarray, shape (p, t)
        Weights on the *unscaled* columns of X; ``X @ coef + intercept`` predicts.
    intercept : ndarray, shape (t,)
        Zeros without an intercept.
    alpha : ndarray, shape (t,)
        Chosen penalty of each target.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its `alpha`; 0 for a constant target, NaN for fixed
        penalties.
    cv_curve : ndarray, shape (n_alphas,)
        Held-out score of each of `alphas`, mean over targets. NaN where search="local" tried a
        penalty for some targets only: their mean would not compare with that of others; and for
        fixed penalties.
    alphas : ndarray, shape (n_alphas,)
        Penalties tried, ascending.
    x_mean, x_scale : ndarray, shape (p,)
        Mean and scale by which the columns were standardised (0 and 1 where they were not).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual", "svd"}
        Whether the p x p or the n x n Gram matrix was decomposed, or X itself, for penalties too
        small for a Gram matrix.
    precision : {"float32", "float64"}
        Precision of the products behind the weights; float64 also where float32 was asked for
        and would have lost digits, even beside Gram matrices in float64.
    edge_fraction_low, edge_fraction_high : float
        Share of the targets with a held-out r2 above 0 that chose the lowest or highest penalty;
        0 when only one penalty was tried.
    """

    coef: FloatArray
    intercept: FloatArray
    alpha: npt.NDArray[np.float64]
    cv_scores: npt.NDArray[np.float64]
    cv_curve: npt.NDArray[np.float64]
    alphas: npt.NDArray[np.float64]
    x_mean: npt.NDArray[np.float64]
    x_scale: npt.NDArray[np.float64]
    y_mean: npt.NDArray[np.float64]
    solver: str
    edge_fraction_low: float
    edge_fraction_high: float
    precision: str = "float64"

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """Predict the targets of the rows of X; see `predict_linear`.

        Parameters
        ----------
        X : array-like, shape (m, p)

        Returns
        -------
        ndarray, shape (m, t)
            In float64.
        """
        return predict_linear(X, self.coef, self.x_mean, self.y_mean)


@one_pool
def ridge_cv(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike = DEFAULT_ALPHAS,
    groups: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    cv: Literal["kfold", "logo", "gcv", "fixed"] | Folds = "kfold",
    n_folds: int = 5,
    search: Literal["full", "local"] = "full",
    fit_intercept: bool = True,
    standardize: bool = True,
    alpha_per: Literal["target", "all"] | npt.ArrayLike = "target",
    score: Literal["r2", "correlation"] = "r2",
    solver: Literal["auto", "primal", "dual"] = "auto",
    dtype: npt.DTypeLike = "auto",
    target_rows: npt.ArrayLike | None = None,
    block_size: int | None = None,
    memory: float | None = None,
    device: str = "cpu",
    out: str | os.PathLike[str] | None = None,
    client: Any = None,
) -> RidgeResult:
    """Fit ridge regression, choosing the penalty of each target by grouped cross-validation.

    Columns are scaled once, on all rows that the fit is given; means are learned inside each fold
    from its training rows alone. The final fit uses all rows.

    Parameters
    ----------
    X : array-like, shape (n, p)
        Predictors, one row per trial (responses for a decoder, features for an encoding model).
        A zarr array, HDF5 data set or memory map is read in chunks of rows, once for the means and
        once for each precision that is tried.
    Y : array-like, shape (n, t) or (n,)
        Targets; on disk they are read a block of columns at a time, once if each target has its
        own penalty and twice if not.
    alphas : array-like, shape (n_alphas,)
        Penalties to try, on the standardised columns if `standardize`. Zero means least squares
        of minimal norm. With ``cv="fixed"``, the penalty of all targets or one for each, shape
        (t,).
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; a group is never split over folds. Without it every row is a
        group of its own, or with `target_rows` all rows of one target row are.
    sample_weight : array-like, shape (n,), optional
        How much each trial counts, 0 or more. Squared errors are multiplied by it, in the fit and
        where folds are held out, and means and standard deviations are weighted: a weight of 2
        is the trial twice, in one fold. Generalised cross-validation takes weights as precisions,
        not as numbers of trials.
    cv : {"kfold", "logo", "gcv", "fixed"}, int, splitter or iterable
        How penalties are compared: exact K-fold over groups; exact leave-one-group-out;
        generalised cross-validation, which needs no folds and knows no groups, so that
        it chooses too small a penalty when stimuli repeat; or not at all, with the penalties given
        ("fixed"). A whole number is "kfold" with that many folds. A splitter of scikit-learn, or
        an iterable of (train, test) row numbers, gives the folds itself: every row must be held
        out once and be trained on in all other folds, and with `groups` no group may be split.
    n_folds : int
        Number of folds for "kfold", see `calcarine.linear.grouped_folds`.
    search : {"full", "local"}
        For K-fold. "local" tries the penalties around the one that generalised cross-validation
        points to, until both neighbours of the best are worse. It finds the same penalty wherever
        the curve has a single peak, with fewer products; targets that are hardly predicted
        may have several. It needs ``alpha_per="target"``.
    fit_intercept : bool
        Centre the columns and the targets.
    standardize : bool
        Divide each column by its standard deviation (ddof 0).
    alpha_per : {"target", "all"} or array-like, shape (t,)
        One penalty per target, one for all by the mean score over targets, or one for each group
        of targets that share a label. Of equal scores the larger penalty wins.
    score : {"r2", "correlation"}
        "r2" is 1 - (sum of squared held-out residuals over all folds) / (sum of squares of Y about
        its mean). "correlation" (K-fold only) is Pearson's between held-out predictions and
        targets, both centred within each fold and then pooled: the means of the folds differ from
        each other in opposite directions in prediction and truth, which would bias it downwards.
    solver : {"auto", "primal", "dual"}
        "auto" is dual when the smallest training set, of a fold or of the whole fit, has fewer rows
        than there are columns: the primal Gram matrix of that fold would be singular. Both give
        the same weights up to rounding.
    dtype : {"auto", "float32", "float64"}
        Precision of the products and the weights; "auto" is float32 for X in float32 or less.
        Means and sums are float64 always, and so are decompositions that float32 is not enough
        for: for the weights, to predict to about 1e-4; for the folds, to rank penalties. Products
        with targets follow where that is not enough, and singular values where float64 is not.
    target_rows : array-like of int, shape (n,), optional
        Row of Y that belongs to each trial, for Y with one row per stimulus. Repeats of a stimulus
        then cost nothing in the products with Y.
    block_size : int, optional
        Largest number of targets handled at once; 1,024 by default, more where trials are few.
    memory : float, optional
        Bytes that the fit may take beside X, Y and what it returns (in each process, with
        `client`). Blocks of targets are made as small as that asks for; a scaled X and its
        decompositions must fit.
    device : str
        "cpu", or a CUDA device by torch.
    out : path-like, optional
        Folder for the weights; they go to disk block by block, and a fit that is called again
        with the same arguments after an interruption goes on where it stopped. Blocks of another
        size are solved again.
    client : dask.distributed.Client, optional
        Moments, decompositions and blocks of targets are computed on its workers; the loss of a
        worker changes nothing. Needs ``calcarine[cluster]``.

    Returns
    -------
    RidgeResult
        Its `coef` is a read-only memory map when `out` is given.

    Warns
    -----
    RidgeEdgeWarning
        When over 5 % of the targets with a held-out r2 above 0 chose an end of `alphas`. Targets
        without signal choose the highest penalty rightly and are not counted.

    Raises
    ------
    RidgeError
        A `CalcarineError`: values that are not finite (row and column are named), shapes that do
        not match, fewer groups than folds, folds that do not divide the rows or split a group, a
        negative penalty or weight, an unknown setting, too little `memory`, an `out` that holds
        another fit or has no room, or a closed `client`.

    Notes
    -----
    A column that does not vary gets zero weight, unless both `fit_intercept` and `standardize` are
    False: that is plain ridge on X as it is, where a constant column may be the caller's own
    intercept.
    """
    method = check_cv(cv, _METHODS)
    check_choice(search, ("full", "local"), "search")
    check_choice(score, ("r2", "correlation"), "score")
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    if score == "correlation" and method != "kfold":
        raise RidgeError("score='correlation' is defined for cv='kfold' only; choose score='r2'.")
    x, y = check_data(X, Y)
    rows = check_target_rows(target_rows, x.shape[0], y.shape[0])
    weights = check_weights(sample_weight, x.shape[0])
    root = None if weights is None else np.sqrt(weights)
    memory = check_memory(memory)
    fixed = shared = None
    if method == "fixed":
        penalties, fixed = check_fixed(alphas, alpha_per, y.shape[1])
    else:
        penalties = check_alphas(alphas)
        shared = check_alpha_per(alpha_per, y.shape[1])
    if search == "local" and (method != "kfold" or shared is not None):
        raise RidgeError(
            "search='local' needs cv='kfold' and alpha_per='target', because it tries other "
            "penalties for every target; choose search='full'."
        )
    if target_rows is not None and groups is None:
        groups = rows
    ops, run = ops_for(device), runner_for(client)
    here = client is None and ops.device == "cpu"
    if block_size is None:
        block_size = _large_block(x.shape, y.shape[0]) if here else _BLOCK
    block_size = check_count(block_size, 1, "block_size")
    asked = check_dtype(dtype, auto=own_precision(x))
    fold_of_row = numbers = None
    fewest = x.shape[0]
    if method == "kfold":
        fold_of_row = _folds(cv, n_folds, groups, x, y)
        check_trained(weights, fold_of_row, "fold")
        fewest -= int(np.bincount(fold_of_row).max())
        counted = np.full(len(rows), True) if weights is None else weights > 0
        if score == "correlation" and any(
            len(np.unique(rows[(fold_of_row == k) & counted])) < 2
            for k in range(int(fold_of_row.max()) + 1)
        ):
            raise RidgeError(
                "score='correlation' needs at least two stimuli in every fold; choose fewer folds."
            )
    elif method == "logo":
        numbers = group_numbers(groups, x.shape[0])
        check_trained(weights, numbers, "group")
    kind = solver if solver != "auto" else ("dual" if fewest < x.shape[1] else "primal")
    plan = Plan(penalties, bool(fit_intercept), bool(standardize), kind, asked)
    digest = hashlib.blake2b(digest_size=16)

    def watch(chunk: npt.NDArray[Any]) -> None:
        digest.update(np.ascontiguousarray(chunk).data)

    scaler = fit_scaler(
        x,
        fit_intercept=plan.fit_intercept,
        standardize=plan.standardize,
        sample_weight=weights,
        watch=None if out is None else watch,
    )
    how = Choice(method, search, score == "correlation", shared is None)
    settings = (penalties, plan.fit_intercept, plan.standardize, kind, asked.name, how)
    key = None
    if out is not None:
        own = [part for part in (weights, fixed) if part is not None]
        key = fit_key(x, digest.hexdigest(), y, *settings, fold_of_row, numbers, rows, shared, *own)
    shape = (x.shape[1], y.shape[1])
    n_scored = len(penalties) if fixed is None else 0
    sink = open_sink(out, key, shape, asked, n_scored, direct=here)
    # Beside the designs: scores, and what leaving groups out takes.
    aside = 2 * 8 * n_scored * y.shape[1]
    if numbers is not None:
        aside += leave_out_bytes(numbers, x.shape[kind == "primal"], len(penalties))
    room = None if memory is None else memory - aside
    resident = y.nbytes if in_memory(y) else 0
    resident += x.shape[1] * y.shape[1] * asked.itemsize if out is None else 0
    demand = Demand(
        for_forms=y.shape[1] if score == "r2" and here else 0,
        tried=_NEIGHBOURS if search == "local" else len(penalties),
        solved=_columns(y.shape[1], len(penalties), method, search),
        in_memory=resident,
    )
    design, left_out = decompose(
        x, scaler, fold_of_row, numbers, method, rows, root, plan, ops, run, room, demand
    )
    blocks = _blocks(y.shape[1], block_size, room, design)
    _solve(y, blocks, sink, run, (design, left_out, how), fixed)
    found = sink.answers()
    chosen = found.chosen
    if shared is not None:
        chosen = _choose_shared(found.table, shared)
        _weigh(y, blocks, sink, run, design, chosen)
    coef = sink.weights()
    intercept = _intercept(found.mean, scaler, coef, asked)
    release(coef)
    targets = np.arange(y.shape[1])
    low = high = 0.0
    scores, curve = np.full(y.shape[1], np.nan), np.full(len(penalties), np.nan)
    if fixed is None:
        low, high = edge_fractions(chosen, found.r2[chosen, targets] > 0, len(penalties))
        warn_at_edges(low, high, penalties, "r2 above 0")
        scores, curve = found.table[chosen, targets], found.table.mean(axis=1)
    return RidgeResult(
        coef=coef,
        intercept=intercept,
        alpha=penalties[chosen],
        cv_scores=scores,
        cv_curve=curve,
        alphas=penalties,
        x_mean=scaler.mean,
        x_scale=scaler.scale,
        y_mean=found.mean,
        solver=design.kind,
        edge_fraction_low=low,
        edge_fraction_high=high,
        precision=design.full.dtype.name,
    )


def _folds(
    cv: Any, n_folds: int, groups: npt.ArrayLike | None, x: Matrix, y: Matrix
) -> npt.NDArray[np.intp]:
    """Fold of each trial; splitters are shown what is in memory, and a single target only."""
    n_rows = x.shape[0]
    single = in_memory(y) and y.shape == (n_rows, 1)
    return fold_numbers(
        cv,
        n_folds,
        groups,
        n_rows,
        X=x if in_memory(x) else None,
        y=np.asarray(y)[:, 0] if single else None,
    )


def _columns(n_targets: int, n_alphas: int, method: str, search: str) -> int:
    """How many columns the fit on all rows is solved for, over all penalties."""
    if method == "fixed":  # each penalty needs factors of its own, which cost as some columns do
        return n_targets + BLOCK * n_alphas
    # Without folds, and where generalised cross-validation begins a search, all penalties.
    return n_targets * (1 + (method != "kfold" or search == "local") * n_alphas)


def _solve(
    y: Matrix,
    blocks: list[slice],
    sink: Memory,
    run: Runner,
    shared: tuple[Any, ...],
    fixed: npt.NDArray[np.intp] | None,
) -> None:
    """Solve the blocks of targets that the sink does not have."""
    begun: deque[slice] = deque()

    def jobs() -> Iterator[tuple[Any, ...]]:
        for block in blocks:
            values = read_columns(y, block, "Y")
            if not sink.has(block, values):
                begun.append(block)
                yield values, sink.room(block), None if fixed is None else fixed[block]

    for answer in run(solve_block, jobs(), shared):
        sink.keep(begun.popleft(), answer)


def _weigh(
    y: Matrix,
    blocks: list[slice],
    sink: Memory,
    run: Runner,
    design: Design,
    chosen: npt.NDArray[np.intp],
) -> None:
    """Weights of the blocks that the sink does not have, for penalties that targets share."""
    begun: deque[slice] = deque()

    def jobs() -> Iterator[tuple[Any, ...]]:
        for block in blocks:
            if not sink.has_weights(block, chosen[block]):
                begun.append(block)
                yield read_columns(y, block, "Y"), chosen[block], sink.room(block)

    for coef in run(weigh_block, jobs(), (replace(design, folds=[]),)):
        block = begun.popleft()
        sink.keep_weights(block, chosen[block], coef)


def _choose_shared(
    table: npt.NDArray[np.float64], labels: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """One penalty for all targets of a label, by their mean score; shape (t,)."""
    chosen = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        members = labels == label
        chosen[members] = best_penalty(table[:, members].mean(axis=1, keepdims=True))[0]
    return chosen


def _intercept(
    y_mean: npt.NDArray[np.float64], scaler: Scaler, coef: FloatArray, dtype: np.dtype[Any]
) -> FloatArray:
    # einsum casts as it goes; a product would copy all weights to float64.
    return (y_mean - np.einsum("i,ij->j", scaler.mean, coef)).astype(dtype)


def _large_block(shape: tuple[int, ...], n_rows: int) -> int:
    """Targets of a block that is large enough for its products and small enough for the caches."""
    values, weights = max(n_rows, min(shape)), shape[1] / 4
    return int(min(max(_BLOCK_VALUES / max(values, weights), _BLOCK), 4 * _BLOCK))


def _blocks(n_targets: int, most: int, room: float | None, design: Design) -> list[slice]:
    size = min(most, n_targets)
    if room is not None:
        taken = design.n_bytes
        check_room(room, taken + design.bytes_per_target, design.plan)
        size = min(size, int((room - taken) // design.bytes_per_target))
    return [slice(i, min(i + size, n_targets)) for i in range(0, n_targets, size)]
