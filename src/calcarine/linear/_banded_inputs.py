"""The arguments of banded ridge checked, feature spaces scaled and targets centred."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from calcarine.linear._inputs import make_splits
from calcarine.linear._predictors import (
    ColumnScaler,
    RootWeights,
    Rows,
    Splits,
    constant_columns,
    fit_scaler,
    weighted,
)
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    as_matrix,
    check_alphas,
    check_choice,
    check_count,
    check_cv,
    check_dtype,
    check_finite,
    check_weights,
)

Spaces: TypeAlias = Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]
"""Feature spaces by name, or in a list; one array of shape (n, p_s) each."""

_CANDIDATES = 16
"""Default number of gammas to try, per space."""


@dataclass(frozen=True)
class BandedSettings:
    """Checked settings of one fit."""

    alphas: npt.NDArray[np.float64]
    gammas: npt.NDArray[np.float64] | None
    n_candidates: int
    fit_intercept: bool
    standardize: bool
    score: str
    dtype: np.dtype[Any]
    block_size: int
    seed: int | None
    root: RootWeights | None = None
    """Square roots of the sample weights, trials sorted by fold."""

    def blocks(self, rows: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
        """Yield blocks of `block_size` targets."""
        for start in range(0, len(rows), self.block_size):
            yield rows[start : start + self.block_size]


@dataclass(frozen=True)
class BandedFold:
    """Trials of a fold.

    Attributes
    ----------
    held : slice or ndarray
        Held-out trials.
    train : ndarray or None
        Training trials; None where folds partition the trials, so that they are all others.
    left_out : slice or ndarray
        Trials that the fold is not trained on: first `held`, then those that it does not use.
    """

    held: slice | Rows
    train: Rows | None
    left_out: slice | Rows

    def score_rows(self, residual: FloatArray) -> FloatArray:
        """Return the held-out columns of residuals of `left_out`."""
        return residual if isinstance(self.held, slice) else residual[:, : len(self.held)]


def _banded_folds(splits: Splits, n_rows: int) -> tuple[Rows, list[BandedFold]]:
    """Return an order of the trials and the folds in it, as slices where they partition them."""
    if splits.fold_of_row is not None:
        ends = np.cumsum(np.bincount(splits.fold_of_row))
        slices = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        order = np.argsort(splits.fold_of_row, kind="stable")
        return order, [BandedFold(held, None, held) for held in slices]
    everything = np.arange(n_rows)
    folds = []
    for train, held in splits.pairs:
        unused = np.delete(everything, np.concatenate([train, held]))
        folds.append(BandedFold(held, train, np.concatenate([held, unused])))
    return everything, folds


@dataclass(frozen=True)
class ScaledSpace:
    """A feature space: scaled, rows sorted by fold and divided by the square root of `size`.

    Attributes
    ----------
    values : ndarray, shape (n, p_s)
        With sample weights, rows are multiplied by their square roots.
    scaler : ColumnScaler
    size : float
        Mean squared length of the rows, by which the kernels of all spaces get the trace n; 0 for
        a space without variance.
    mark : float
        Sum of the fourth powers of the lengths of the rows. The search sorts spaces by it, so that
        it does not depend on their order in the arguments.
    """

    values: FloatArray
    scaler: ColumnScaler
    size: float
    mark: float

    @classmethod
    def from_matrix(
        cls,
        matrix: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        weights: npt.NDArray[np.float64] | None,
        settings: BandedSettings,
    ) -> ScaledSpace:
        scaler = fit_scaler(
            matrix,
            fit_intercept=settings.fit_intercept,
            standardize=settings.standardize,
            sample_weight=weights,
        )
        values: FloatArray = scaler(matrix[order])
        squares = np.einsum("ij,ij->i", values, values)
        if weights is None:
            size = float(np.einsum("ij,ij->", values, values)) / len(values)
        else:
            size = float(weights[order] @ squares / weights.sum())
        if size > 0:
            values /= np.sqrt(size)
            squares /= size
        mark = float((squares**2).sum() if weights is None else weights[order] @ squares**2)
        values = weighted(values, settings.root)
        return cls(values.astype(settings.dtype, copy=False), scaler, size, mark)

    def unscaled(self, coef: FloatArray) -> FloatArray:
        """Return weights (p, t) on the columns of the arguments from weights on `values`."""
        root = np.sqrt(self.size) if self.size > 0 else 1.0
        unscaled = coef / (root * self.scaler.scale)[:, None]
        unscaled[self.scaler.constant] = 0.0
        return np.asarray(unscaled)


@dataclass(frozen=True)
class CentredTargets:
    """Targets about their mean.

    Attributes
    ----------
    values : ndarray, shape (t, n)
        One row per target, trials sorted by fold. With sample weights, multiplied by their square
        roots.
    mean : ndarray, shape (t,)
    total : ndarray, shape (t,)
        Sum of squares about the mean for r2, and about the means of the folds for correlation; of
        held-out trials, each as often as it is held out.
    constant : ndarray of bool, shape (t,)
        Targets that are constant over all trials, or over those that are held out.
    """

    values: FloatArray
    mean: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    constant: npt.NDArray[np.bool_]

    @classmethod
    def from_matrix(
        cls,
        y: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        folds: list[BandedFold],
        settings: BandedSettings,
    ) -> CentredTargets:
        n_targets = y.shape[1]
        values = np.empty(y.shape[::-1], settings.dtype)
        mean, total = np.zeros(n_targets), np.zeros(n_targets)
        constant = np.zeros(n_targets, dtype=bool)
        counts = np.ones(len(y)) if settings.root is None else settings.root**2
        held = _held_counts(folds, counts)
        for rows in settings.blocks(np.arange(n_targets)):
            block = y[:, rows][order].astype(np.float64, copy=False)
            constant[rows] = constant_columns(block[counts > 0])
            if settings.score == "r2":
                total[rows] = _squares(block, held)
            else:
                total[rows] = sum(_squares(block[f.held], counts[f.held]) for f in folds)
            if held is not counts:
                total[rows[constant_columns(block[held > 0])]] = 0.0
            if settings.fit_intercept:
                mean[rows] = counts @ block / counts.sum()
                block -= mean[rows]
                block[:, constant[rows]] = 0.0  # what is left is the rounding of the mean
            values[rows] = weighted(block, settings.root).T
        constant |= total == 0
        return cls(values, mean, np.where(constant, 1.0, total), constant)


def _held_counts(
    folds: list[BandedFold], counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the weight of each trial times the number of folds that hold it out."""
    if isinstance(folds[0].held, slice):
        return counts
    rows = np.concatenate([np.arange(len(counts))[fold.held] for fold in folds])
    return counts * np.bincount(rows, minlength=len(counts))


def _squares(values: FloatArray, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weighted sum of squares about the weighted mean of each column."""
    return np.asarray(counts @ np.square(values - counts @ values / counts.sum()))


@dataclass(frozen=True)
class BandedInputs:
    """Checked arguments of a banded ridge fit.

    Attributes
    ----------
    matrices : list of ndarray, each of shape (n, p_s)
    y : ndarray, shape (n, t)
    weights : ndarray, shape (n,), or None
        Sample weights.
    order : ndarray of int, shape (n,)
        Trials sorted by fold where folds partition them.
    folds : list of BandedFold
        Trials of each fold in that order.
    solver : {"primal", "dual"}
    """

    matrices: list[npt.NDArray[Any]]
    y: npt.NDArray[Any]
    weights: npt.NDArray[np.float64] | None
    order: npt.NDArray[np.intp]
    folds: list[BandedFold]
    settings: BandedSettings
    solver: str


def check_banded_inputs(
    Xs: Spaces,
    Y: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    cv: Any,
    n_folds: int,
    n_candidates: int | None,
    gammas: npt.ArrayLike | None,
    fit_intercept: bool,
    standardize: bool,
    score: str,
    solver: str,
    random_state: int | None,
    dtype: npt.DTypeLike,
    block_size: int,
) -> BandedInputs:
    """Check the arguments of `calcarine.linear.banded_ridge_cv`, which describes them."""
    check_choice(score, ("r2", "correlation"), "score")
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    names, matrices = check_spaces(Xs)
    y = as_matrix(Y, "Y")
    if len(y) != len(matrices[0]):
        raise RidgeShapeError(
            f"{names[0]} has {len(matrices[0])} rows but Y has {len(y)}; "
            "pass one row per trial in both."
        )
    check_finite(y, "Y")
    check_cv(cv, ("kfold",))
    weights = check_weights(sample_weight, len(y))
    splits = make_splits(
        cv, n_folds, groups, len(y), X=matrices[0], y=y[:, 0] if y.shape[1] == 1 else None
    )
    splits.check_weights(weights)
    counted = np.ones(len(y)) if weights is None else weights > 0
    if score == "correlation" and min(counted[held].sum() for _, held in splits) < 2:
        raise RidgeSettingError(
            "score='correlation' needs at least two trials in every fold; choose fewer folds."
        )
    order, folds = _banded_folds(splits, len(y))
    if n_candidates is None:
        n_candidates = _CANDIDATES * len(matrices)
    settings = BandedSettings(
        alphas=_check_positive(alphas),
        gammas=None if gammas is None else _check_gammas(gammas, len(matrices)),
        n_candidates=check_count(n_candidates, 1, "n_candidates"),
        fit_intercept=bool(fit_intercept),
        standardize=bool(standardize),
        score=score,
        dtype=check_dtype(dtype),
        block_size=check_count(block_size, 1, "block_size"),
        seed=_check_seed(random_state),
        root=None if weights is None else np.sqrt(weights[order]),
    )
    n_columns = sum(matrix.shape[1] for matrix in matrices)
    kind = _choose_solver(solver, len(y), n_columns, len(folds))
    return BandedInputs(matrices, y, weights, order, folds, settings, kind)


def _choose_solver(solver: str, n_rows: int, n_columns: int, n_folds: int) -> str:
    if solver != "auto":
        return solver
    return "primal" if n_folds * n_columns**3 < n_rows**3 else "dual"


def check_spaces(Xs: Spaces) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """Return the name of each space in errors, and the spaces as finite matrices."""
    if isinstance(Xs, Mapping):
        wrong = [key for key in Xs if not isinstance(key, str)]
        if wrong:
            raise RidgeSettingError(f"Xs has the key {wrong[0]!r}; name every space by a string.")
        names, arrays = [f"Xs[{key!r}]" for key in Xs], list(Xs.values())
    elif isinstance(Xs, list | tuple):
        names, arrays = [f"Xs[{s}]" for s in range(len(Xs))], list(Xs)
    else:
        raise RidgeError(
            f"Xs is a {type(Xs).__name__}; pass a list of arrays, or a dict of name to array."
        )
    if not arrays:
        raise RidgeShapeError("Xs is empty; pass at least one feature space.")
    matrices: list[npt.NDArray[Any]] = []
    for name, array in zip(names, arrays, strict=True):
        matrix = as_matrix(array, name)
        if np.ndim(array) != 2:
            raise RidgeShapeError(
                f"{name} has one dimension; pass a 2-D array with one row per trial."
            )
        check_finite(matrix, name)
        if matrices and len(matrix) != len(matrices[0]):
            raise RidgeShapeError(
                f"{name} has {len(matrix)} rows but {names[0]} has {len(matrices[0])}; "
                "pass one row per trial in every space."
            )
        matrices.append(matrix)
    return names, matrices


def _check_positive(alphas: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = check_alphas(alphas)
    if values[0] == 0:
        raise RidgeSettingError("alphas holds 0; banded ridge needs penalties above 0.")
    return values


def _check_gammas(gammas: npt.ArrayLike, n_spaces: int) -> npt.NDArray[np.float64]:
    values = as_matrix(gammas, "gammas").astype(np.float64)
    check_finite(values, "gammas")
    if np.ndim(gammas) != 2 or values.shape[1] != n_spaces:
        raise RidgeShapeError(
            f"gammas has shape {np.shape(gammas)} for {n_spaces} space(s); "
            "pass one row per candidate and one column per space."
        )
    wrong = np.flatnonzero((values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-6))
    if wrong.size:
        raise RidgeSettingError(
            f"gammas is {values[wrong[0]].tolist()} at row {wrong[0]}; "
            "pass weights that are not negative and sum to 1."
        )
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _check_seed(random_state: int | None) -> int | None:
    return None if random_state is None else check_count(random_state, 0, "random_state")


def column_spaces(
    feature_groups: npt.ArrayLike | None, n_columns: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return the sorted names of the spaces, and the index of the space of each column."""
    labels = np.zeros(n_columns, dtype=int) if feature_groups is None else feature_groups
    labels = np.asarray(labels)
    if labels.shape != (n_columns,):
        raise RidgeShapeError(
            f"feature_groups has shape {labels.shape} but X has {n_columns} columns; "
            "pass one label per column."
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise RidgeError("feature_groups holds NaN or inf; pass one label per column.")
    try:
        names, space_of_column = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise RidgeError(
            f"feature_groups mixes kinds of label ({error}); use only numbers or only strings."
        ) from error
    return names, space_of_column
