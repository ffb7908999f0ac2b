r"""Ridge regression with exact, grouped cross-validation of the penalty.

For every target the weights minimise :math:`\|y - Xw\|^2 + \alpha \|w\|^2`. One decomposition of
the training trials of each fold serves every penalty and every target (Hoerl & Kennard 1970;
Hastie et al. 2009, eq. 3.47). Generalised cross-validation and leave-one-group-out need a single
decomposition. The model is the map from voxels to latents of Takagi & Nishimoto (2023,
section 3.3) and the voxel-wise encoding model of their section 3.4.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import one_pool
from calcarine.linear._decomposed_predictors import DecomposedPredictors
from calcarine.linear._fit import (
    block_slices,
    choose_shared,
    decompose,
    fit_blocks_weights,
    free_memory,
    solve_block,
    solve_blocks,
)
from calcarine.linear._inputs import RidgeInputs, check_inputs
from calcarine.linear._predictors import (
    ColumnScaler,
    ComputedMatrix,
    fit_scaler,
    in_memory,
    read_columns,
    release,
)
from calcarine.linear._results import (
    BlockSolution,
    RidgeResult,
    RunningDigest,
    edge_fractions,
    fit_key,
    open_store,
    warn_at_edges,
)
from calcarine.linear._validation import FloatArray

__all__ = ["DEFAULT_ALPHAS", "RidgeResult", "iter_ridge_cv", "ridge_cv"]

DEFAULT_ALPHAS: npt.NDArray[np.float64] = np.logspace(-2, 8, 21)
"""Penalties tried by default: half-decades from 0.01 to 1e8."""
DEFAULT_ALPHAS.flags.writeable = False

if TYPE_CHECKING:
    from sklearn.model_selection import BaseCrossValidator

    Folds: TypeAlias = int | BaseCrossValidator | Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]

_STREAMED = 50_000
"""Number of targets for which `iter_ridge_cv` counts the memory of targets and weights."""


@one_pool
def ridge_cv(
    X: npt.ArrayLike,
    Y: npt.ArrayLike | ComputedMatrix,
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
    from its training rows alone. The final fit uses all rows, also those that no fold holds out.

    Parameters
    ----------
    X : array-like, shape (n, p)
        Predictors, one row per trial: responses for a decoder, features for an encoding model.
        A zarr array, HDF5 data set or memory map is read in chunks of rows, once for the means and
        once for each precision that is tried.
    Y : array-like, shape (n, t) or (n,), or ComputedMatrix
        Targets. From disk they are read in blocks of columns, once if each target has its own
        penalty and twice otherwise.
    alphas : array-like, shape (n_alphas,)
        Penalties to try; they apply to the standardised columns if `standardize`. Zero means least
        squares of minimal norm. With ``cv="fixed"``, the penalty of all targets or one for each,
        shape (t,).
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; a group is never split over folds. By default every row is a
        group of its own or, with `target_rows`, all trials of one row of Y are a group.
    sample_weight : array-like, shape (n,), optional
        Weight of each trial, 0 or more. It multiplies squared errors, in the fit and in held-out
        folds, and it weights means and standard deviations: a weight of 2 equals the same trial
        twice in one fold. Generalised cross-validation takes weights as precisions, not as numbers
        of trials.
    cv : {"kfold", "logo", "gcv", "fixed"}, int, splitter or iterable
        How penalties are compared. "kfold" is exact K-fold over groups, and "logo" is exact
        leave-one-group-out. "gcv" is generalised cross-validation, which needs no folds; it
        ignores groups, so it chooses too small a penalty when stimuli repeat. "fixed" uses the
        given penalties. An int is "kfold" with that many folds. A splitter of scikit-learn, or an
        iterable of (train, test) row numbers, defines the folds. They may leave rows out or hold
        rows out several times, as those of ShuffleSplit, RepeatedKFold and TimeSeriesSplit do. A
        fold may not train on a row that it holds out or, with `groups`, on others of its group.
        Where folds hold every row out once and train on all others, as those of KFold do, they
        share most of the computation; otherwise each is decomposed by itself.
    n_folds : int
        Number of folds for "kfold", see `calcarine.linear.grouped_folds`.
    search : {"full", "local"}
        For K-fold. "local" starts at the penalty that generalised cross-validation chooses and
        tries its neighbours until both neighbours of the best are worse. It is faster, and finds
        the same penalty wherever the curve has a single peak; curves of targets that are hardly
        predictable may have several. It needs ``alpha_per="target"``.
    fit_intercept : bool
        Centre the columns and the targets.
    standardize : bool
        Divide each column by its standard deviation (ddof 0).
    alpha_per : {"target", "all"} or array-like, shape (t,)
        One penalty per target, one for all targets by their mean score, or one for each group of
        targets that share a label. Of equal scores the larger penalty is chosen.
    score : {"r2", "correlation"}
        "r2" is 1 - (sum of squared held-out residuals over all folds) / (sum of squares of the
        held-out Y about its mean). Rows of all folds are pooled: a row that is held out twice
        counts twice in both sums, one that is never held out in neither. "correlation" (K-fold
        and given folds only) is Pearson's correlation of held-out predictions and targets, both
        centred within each fold and then pooled. Without this centring it would be biased
        downwards: a fold with a high mean of the targets is predicted from a low mean of the
        others.
    solver : {"auto", "primal", "dual"}
        "primal" decomposes X'X, "dual" decomposes XX'. "auto" is dual when the smallest training
        set has fewer rows than there are columns, because its X'X would be singular; for folds
        that overlap or leave rows out, it is the one whose decompositions cost less. Both give the
        same weights up to rounding.
    dtype : {"auto", "float32", "float64"}
        Precision of products and weights; "auto" is float32 for X in float32 or less. Means and
        sums are always float64. Decompositions are float64 where float32 is not enough: for the
        weights, to predict with a relative error of about 1e-4; for the folds, to rank penalties.
        If that is still not enough, the whole fit is computed in float64, and then by singular
        values.
    target_rows : array-like of int, shape (n,), optional
        Row of Y of each trial, for Y with one row per stimulus. Repeats of a stimulus then cost
        nothing in products with Y.
    block_size : int, optional
        Largest number of targets that are solved at once; by default 1,024, and more if there are
        few trials.
    memory : float, optional
        Bytes that the fit may take in addition to X, Y and the result; with `client`, in each
        process. Blocks of targets are made smaller to fit. A scaled copy of X and its
        decompositions must fit.
    device : str
        "cpu", or a CUDA device such as "cuda", which needs torch.
    out : path-like, optional
        Folder for the weights, which are written block by block. After an interruption, call the
        fit again with the same arguments and it resumes. Blocks of another size are solved
        again.
    client : dask.distributed.Client, optional
        Compute on the workers of this Dask cluster. The loss of a worker does not change the
        result. Needs ``calcarine[cluster]``.

    Returns
    -------
    RidgeResult
        Its `coef` is a read-only memory map when `out` is given.

    Warns
    -----
    RidgeEdgeWarning
        When more than 5 % of the targets with a held-out r2 above 0 choose the lowest or highest
        of `alphas`. Targets without signal are not counted: the highest penalty is right for
        them.

    Raises
    ------
    RidgeError
        When a value is not finite (the message names row and column), shapes do not match, there
        are fewer groups than folds, a fold has no training or held-out rows, shares rows or groups
        between both or names rows that do not exist, a penalty or weight is negative, a setting is
        unknown, `memory` is too small, `out` holds another fit or has no room, or `client` is
        closed.

    Notes
    -----
    A constant column gets weight 0, unless both `fit_intercept` and `standardize` are False: then
    X is used as it is, and a constant column may be your own intercept.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5))
    >>> Y = X @ rng.normal(size=(5, 3)) + rng.normal(size=(60, 3))
    >>> stimulus = np.arange(60) // 2  # two trials of each stimulus
    >>> result = ridge_cv(X, Y, groups=stimulus, alphas=[0.01, 0.1, 1.0, 10.0, 100.0])
    >>> result.coef.shape, result.predict(X[:2]).shape
    ((5, 3), (2, 3))
    """
    inputs = check_inputs(
        X,
        Y,
        alphas=alphas,
        groups=groups,
        sample_weight=sample_weight,
        cv=cv,
        n_folds=n_folds,
        search=search,
        fit_intercept=fit_intercept,
        standardize=standardize,
        alpha_per=alpha_per,
        score=score,
        solver=solver,
        dtype=dtype,
        target_rows=target_rows,
        block_size=block_size,
        memory=memory,
        device=device,
        client=client,
    )
    digest = None if out is None else RunningDigest()
    scaler = _fit_scaler(inputs, digest)
    key = None if digest is None else _fit_key(inputs, digest.hexdigest())
    shape, dtype = (inputs.x.shape[1], inputs.n_targets), inputs.settings.dtype
    store = open_store(out, key, shape, dtype, inputs.n_scored, direct=inputs.local)
    room = free_memory(inputs)
    design, left_out = decompose(inputs, scaler, room, _resident_bytes(inputs, out is None))
    blocks = block_slices(inputs, room, design)
    solve_blocks(inputs, blocks, store, design, left_out)
    solution = store.solutions()
    chosen = solution.chosen
    if inputs.shared is not None:
        chosen = choose_shared(solution.table, inputs.shared)
        fit_blocks_weights(inputs, blocks, store, design, chosen)
    result = _result(inputs, scaler, design, solution, chosen, store.weights())
    low, high = result.edge_fraction_low, result.edge_fraction_high
    warn_at_edges(low, high, result.alphas, "r2 above 0")
    return result


def iter_ridge_cv(
    X: npt.ArrayLike,
    Y: npt.ArrayLike | ComputedMatrix,
    *,
    alphas: npt.ArrayLike = DEFAULT_ALPHAS,
    groups: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    cv: Literal["kfold", "logo", "gcv", "fixed"] | Folds = "kfold",
    n_folds: int = 5,
    search: Literal["full", "local"] = "full",
    fit_intercept: bool = True,
    standardize: bool = True,
    score: Literal["r2", "correlation"] = "r2",
    solver: Literal["auto", "primal", "dual"] = "auto",
    dtype: npt.DTypeLike = "auto",
    target_rows: npt.ArrayLike | None = None,
    block_size: int | None = None,
    memory: float | None = None,
    device: str = "cpu",
) -> Iterator[tuple[slice, RidgeResult]]:
    """Fit ridge regression as `ridge_cv` does, and yield the result block of targets by block.

    X is decomposed once for all blocks, and the weights of one block are in memory at a time. Use
    it when the weights of all targets together are too large and you only need, for example,
    predictions. No `RidgeEdgeWarning` is raised.

    Parameters
    ----------
    X : array-like, shape (n, p)
        See `ridge_cv`.
    Y : array-like, shape (n, t) or (n,), or ComputedMatrix
        See `ridge_cv`.
    alphas, groups, sample_weight, cv, n_folds, search, fit_intercept, standardize, score, solver
        See `ridge_cv`.
    dtype, target_rows, block_size, memory, device
        See `ridge_cv`.

    Yields
    ------
    columns : slice
        Targets of the block, as columns of Y.
    result : RidgeResult
        Fit of these targets.

    Raises
    ------
    RidgeError
        As in `ridge_cv`.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import iter_ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(30, 3)), rng.normal(size=(30, 5))
    >>> for columns, result in iter_ridge_cv(X, Y, block_size=2, alphas=[1.0, 10.0]):
    ...     print(columns.start, columns.stop, result.predict(X).shape)
    0 2 (30, 2)
    2 4 (30, 2)
    4 5 (30, 1)
    """
    inputs = check_inputs(
        X,
        Y,
        alphas=alphas,
        groups=groups,
        sample_weight=sample_weight,
        cv=cv,
        n_folds=n_folds,
        search=search,
        fit_intercept=fit_intercept,
        standardize=standardize,
        alpha_per="target",
        score=score,
        solver=solver,
        dtype=dtype,
        target_rows=target_rows,
        block_size=block_size,
        memory=memory,
        device=device,
        client=None,
    )
    return _iterate(inputs)


def _iterate(inputs: RidgeInputs) -> Iterator[tuple[slice, RidgeResult]]:
    with one_pool:
        scaler, room = _fit_scaler(inputs, None), free_memory(inputs)
        n_rows, n_columns = inputs.y.shape[0], inputs.x.shape[1]
        per_target = n_rows * np.dtype(inputs.y.dtype).itemsize
        per_target += n_columns * inputs.settings.dtype.itemsize
        resident = min(inputs.n_targets, _STREAMED) * per_target
        design, left_out = decompose(inputs, scaler, room, resident)
        blocks = block_slices(inputs, room, design)
    for block in blocks:
        with one_pool:
            values = read_columns(inputs.y, block, "Y")
            fixed = None if inputs.fixed is None else inputs.fixed[block]
            solution = solve_block(design, left_out, inputs.choice, values, None, fixed)
            assert solution.coef is not None
            result = _result(inputs, scaler, design, solution, solution.chosen, solution.coef)
        yield block, result


def _fit_scaler(inputs: RidgeInputs, digest: RunningDigest | None) -> ColumnScaler:
    return fit_scaler(
        inputs.x,
        fit_intercept=inputs.settings.fit_intercept,
        standardize=inputs.settings.standardize,
        sample_weight=inputs.weights,
        watch=None if digest is None else digest.add,
    )


def _fit_key(inputs: RidgeInputs, x_digest: str) -> str:
    """Return a digest by which an interrupted fit is recognised in its folder."""
    settings = inputs.settings
    optional = [part for part in (inputs.weights, inputs.fixed) if part is not None]
    return fit_key(
        inputs.x,
        x_digest,
        inputs.y,
        settings.alphas,
        settings.fit_intercept,
        settings.standardize,
        settings.solver,
        settings.dtype.name,
        inputs.choice,
        None if inputs.splits is None else inputs.splits.numbers,
        inputs.group_of_row,
        inputs.target_rows,
        inputs.shared,
        *optional,
    )


def _resident_bytes(inputs: RidgeInputs, weights_in_memory: bool) -> int:
    """Return the bytes of targets and weights that are in memory in any case."""
    resident = inputs.y.nbytes if in_memory(inputs.y) else 0
    if weights_in_memory:
        resident += inputs.x.shape[1] * inputs.n_targets * inputs.settings.dtype.itemsize
    return resident


def _result(
    inputs: RidgeInputs,
    scaler: ColumnScaler,
    design: DecomposedPredictors,
    solution: BlockSolution,
    chosen: npt.NDArray[np.intp],
    coef: FloatArray,
) -> RidgeResult:
    penalties = inputs.settings.alphas
    # einsum casts as it goes; a product would copy all weights to float64.
    shift = np.einsum("i,ij->j", scaler.mean, coef)
    release(coef)
    low = high = 0.0
    scores, curve = np.full(len(chosen), np.nan), np.full(len(penalties), np.nan)
    if inputs.fixed is None:
        targets = np.arange(len(chosen))
        low, high = edge_fractions(chosen, solution.r2[chosen, targets] > 0, len(penalties))
        scores, curve = solution.table[chosen, targets], solution.table.mean(axis=1)
    return RidgeResult(
        coef=coef,
        intercept=(solution.mean - shift).astype(inputs.settings.dtype),
        alpha=penalties[chosen],
        cv_scores=scores,
        cv_curve=curve,
        alphas=penalties,
        x_mean=scaler.mean,
        x_scale=scaler.scale,
        y_mean=solution.mean,
        solver=design.kind,
        edge_fraction_low=low,
        edge_fraction_high=high,
        precision=design.full.dtype.name,
    )
