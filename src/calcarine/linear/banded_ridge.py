r"""Ridge regression on several feature spaces, each with its own penalty for each target.

For every target the weights minimise
:math:`\|y - \sum_s X_s w_s\|^2 + \sum_s \alpha_s \|w_s\|^2`: banded ridge (Nunez-Elizalde, Huth &
Gallant 2019) or group ridge (Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant 2022).
The penalties are written :math:`\alpha_s = \alpha / \gamma_s` with the gammas of a target summing
to one, so that the model is ridge with the kernel :math:`\sum_s \gamma_s X_s X_s^T`.

What makes the cross-validation cheap:

- One eigendecomposition of the n x n kernel serves all folds. With the smoother H of all rows, the
  held-out residual of fold F is exactly :math:`(I - H)_{FF}^{-1} (y - Hy)_F`, the block form of
  the leave-one-out identity (Cook & Weisberg 1982; the intercept is one more column without
  penalty). The same solution gives the weights of the final fit.
- With far fewer columns than rows, the Gram matrices of the folds are summed once and scaled for
  each gamma.
- The gammas to try are not drawn blindly: a Gaussian process over those already tried, one
  correlation for all targets, proposes the gamma with the largest expected improvement, summed
  over targets (Jones, Schonlau & Welch 1998).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import one_pool
from calcarine.linear._banded_search import search
from calcarine.linear._banded_solvers import Dual, GroupPlan, Machine, Primal, Space, Targets
from calcarine.linear._results import edge_fractions, predict_linear, warn_at_edges
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    as_matrix,
    check_alphas,
    check_choice,
    check_count,
    check_cv,
    check_dtype,
    check_finite,
    check_trained,
    check_weights,
)
from calcarine.linear.folds import fold_numbers
from calcarine.linear.ridge import DEFAULT_ALPHAS

if TYPE_CHECKING:
    from calcarine.linear.ridge import Folds

Spaces: TypeAlias = Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]
"""Feature spaces by name, or in a list; one array of shape (n, p_s) each."""

_PREDICTABLE = {"r2": 1e-3, "correlation": 0.1}
"""Held-out score from which a target on an end of the penalties counts for a warning."""

_CANDIDATES = 16


@dataclass(frozen=True)
class BandedRidgeResult:
    """Weights of a banded ridge fit in the units of each space, with what was chosen.

    S is the number of spaces, p_s the columns of space s, t the number of targets.

    Attributes
    ----------
    names : tuple of str, length S
        Names of the spaces; "0", "1" and so on for spaces given in a list.
    coefs : tuple of ndarray, each of shape (p_s, t)
        Weights on the *unscaled* columns of each space.
    intercept : ndarray, shape (t,)
        Zeros without an intercept.
    penalties : ndarray, shape (S, t)
        ``alpha / gamma``, on the standardised columns if `standardize`; infinite where gamma is 0.
    gamma : ndarray, shape (S, t)
        Weight of each space's kernel; not negative, sums to 1 for each target.
    alpha : ndarray, shape (t,)
        Penalty of the weighted kernel.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its penalties; 0 for a constant target.
    candidates : ndarray, shape (n_tried, S)
        The gammas tried, in the order of trial.
    x_mean, x_scale : tuple of ndarray, each of shape (p_s,)
        Mean and scale by which the columns were standardised (0 and 1 where they were not).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual"}
        Whether p x p or n x n matrices were decomposed.
    """

    names: tuple[str, ...]
    coefs: tuple[FloatArray, ...]
    intercept: FloatArray
    penalties: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    alpha: npt.NDArray[np.float64]
    cv_scores: npt.NDArray[np.float64]
    candidates: npt.NDArray[np.float64]
    x_mean: tuple[npt.NDArray[np.float64], ...]
    x_scale: tuple[npt.NDArray[np.float64], ...]
    y_mean: npt.NDArray[np.float64]
    solver: str

    def predict(self, Xs: Spaces) -> FloatArray:
        """Predict the targets from all spaces together.

        Parameters
        ----------
        Xs : list of array-like, or dict of name to array-like, each of shape (m, p_s)
            The spaces of the fit, in its order or by its names.

        Returns
        -------
        ndarray, shape (m, t)
            In float64.

        Raises
        ------
        RidgeError
            When a space is missing, has other columns than the fit or values that are not finite.
        """
        matrices = self._checked(Xs)
        return predict_linear(
            np.concatenate([matrix.astype(np.float64) for matrix in matrices], axis=1),
            np.concatenate(self.coefs),
            np.concatenate(self.x_mean),
            self.y_mean,
        )

    def predict_spaces(self, Xs: Spaces) -> npt.NDArray[np.float64]:
        """Predict from each space alone what it adds to the mean `y_mean`.

        Parameters
        ----------
        Xs : list of array-like, or dict of name to array-like, each of shape (m, p_s)
            As for `predict`.

        Returns
        -------
        ndarray, shape (S, m, t)
            ``predict(Xs)`` is their sum plus `y_mean`, up to rounding.

        Raises
        ------
        RidgeError
            As for `predict`.
        """
        zero = np.zeros_like(self.y_mean)
        parts = zip(self._checked(Xs), self.coefs, self.x_mean, strict=True)
        return np.stack([predict_linear(matrix, coef, mean, zero) for matrix, coef, mean in parts])

    def _checked(self, Xs: Spaces) -> list[npt.NDArray[Any]]:
        if isinstance(Xs, Mapping):
            if set(Xs) != set(self.names):
                raise RidgeError(
                    f"Xs has the spaces {sorted(map(str, Xs))} but the fit had "
                    f"{sorted(self.names)}; pass the same spaces."
                )
            Xs = {name: Xs[name] for name in self.names}
        names, matrices = _check_spaces(Xs)
        if len(matrices) != len(self.names):
            raise RidgeError(
                f"Xs has {len(matrices)} spaces but the fit had {len(self.names)}; "
                "pass the same spaces in the same order."
            )
        for name, matrix, coef in zip(names, matrices, self.coefs, strict=True):
            if matrix.shape[1] != len(coef):
                raise RidgeError(
                    f"{name} has {matrix.shape[1]} columns but the fit had {len(coef)}; "
                    "pass the same columns in the same order."
                )
        return matrices


@one_pool
def banded_ridge_cv(
    Xs: Spaces,
    Y: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike = DEFAULT_ALPHAS,
    groups: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    cv: Literal["kfold"] | Folds = "kfold",
    n_folds: int = 5,
    n_candidates: int | None = None,
    gammas: npt.ArrayLike | None = None,
    fit_intercept: bool = True,
    standardize: bool = True,
    score: Literal["r2", "correlation"] = "r2",
    solver: Literal["auto", "primal", "dual"] = "auto",
    random_state: int | None = 0,
    dtype: npt.DTypeLike = "float64",
    block_size: int = 1024,
) -> BandedRidgeResult:
    """Fit banded ridge, choosing the penalty of each space and target by grouped cross-validation.

    Columns are scaled once, over all rows given. Means are those of the training rows in every
    fold, so held-out scores are exactly those of refitting without the fold.

    Parameters
    ----------
    Xs : list of array-like, or dict of name to array-like, each of shape (n, p_s)
        Feature spaces, one row per trial.
    Y : array-like, shape (n, t) or (n,)
        Targets.
    alphas : array-like, shape (n_alphas,)
        Positive penalties to try with every gamma. In the search they apply to spaces brought to
        one size (the mean over the spaces of the mean squared row), so that a grid that suits
        ridge suits every gamma; a chosen ``alpha`` is then a member of `alphas` times what turns
        the balanced gamma into the reported one. That factor is 1 for spaces of equal size, as
        standardised spaces with equally many columns are.
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; a group is never split over folds. Without it every row is a
        group of its own, which is only right if no stimulus is repeated.
    sample_weight : array-like, shape (n,), optional
        How much each trial counts, 0 or more, in the fit, in held-out errors, and in means and
        standard deviations: a weight of 2 is the trial twice, in one fold.
    cv : "kfold", int, splitter or iterable
        "kfold" makes `n_folds` folds over groups, a whole number that many. A splitter of
        scikit-learn or an iterable of (train, test) gives the folds itself, see
        `calcarine.linear.ridge_cv`.
    n_folds : int
        Number of folds for "kfold", see `calcarine.linear.grouped_folds`.
    n_candidates : int, optional
        How many gammas to try at most: all spaces alike, each space alone, then the proposals of
        the search, which stops early when no more is to be gained. By default 16 per space.
    gammas : array-like, shape (k, S), optional
        Try these kernel weights, all of them with all of `alphas`, and no others. Rows must not
        be negative and must sum to 1. Here `alphas` are meant as they are, not balanced.
    fit_intercept : bool
        Centre the columns and the targets.
    standardize : bool
        Divide each column by its standard deviation (ddof 0).
    score : {"r2", "correlation"}
        "r2" is 1 - (sum of squared held-out residuals over all folds) / (sum of squares of Y about
        its mean). "correlation" is Pearson's between held-out predictions and targets, both centred
        within each fold and then pooled.
    solver : {"auto", "primal", "dual"}
        "primal" decomposes a p x p matrix per fold, "dual" one n x n matrix for all folds; "auto"
        takes the cheaper one. Both give the same up to rounding.
    random_state : int or None
        Seed of the gammas among which the search chooses.
    dtype : {"float64", "float32"}
        Precision of matrices, decompositions and weights; means and sums are float64 always.
        "float32" is quicker.
    block_size : int
        Targets predicted at once. Besides, several arrays of the size of Y are held.

    Returns
    -------
    BandedRidgeResult

    Warns
    -----
    RidgeEdgeWarning
        When over 5 % of the predictable targets (r2 above 0.001, correlation above 0.1) chose an
        end of `alphas`.

    Raises
    ------
    RidgeError
        A `CalcarineError`: no spaces, values that are not finite (space, row and column are
        named), shapes that do not match, fewer groups than folds, folds that do not divide the
        rows or split a group, a negative weight, a penalty of zero or less, or an unknown setting.

    Notes
    -----
    A column that does not vary gets zero weight, unless both `fit_intercept` and `standardize` are
    False. A penalty below 1e-12 (float32: 1e-5; more from a thousand rows) of the kernel's largest
    eigenvalue acts as if it were that large, because smaller ones are lost in rounding.

    With one space, or with `gammas`, every alpha is tried. Otherwise a target tries every third
    alpha with the first gamma and climbs to the maximum from there; with each further gamma it
    climbs from its best alpha so far. Proposals of the search are tried only for targets whose
    forecast does not rule them out. What is chosen is always the best of what was scored.
    """
    check_choice(score, ("r2", "correlation"), "score")
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    names, matrices = _check_spaces(Xs)
    y = as_matrix(Y, "Y")
    if len(y) != len(matrices[0]):
        raise RidgeError(
            f"{names[0]} has {len(matrices[0])} rows but Y has {len(y)}; "
            "pass one row per trial in both."
        )
    check_finite(y, "Y")
    check_cv(cv, ("kfold",))
    weights = check_weights(sample_weight, len(y))
    fold_of_row = fold_numbers(
        cv, n_folds, groups, len(y), X=matrices[0], y=y[:, 0] if y.shape[1] == 1 else None
    )
    check_trained(weights, fold_of_row, "fold")
    counted = np.ones(len(y)) if weights is None else weights > 0
    if score == "correlation" and np.bincount(fold_of_row, counted).min() < 2:
        raise RidgeError(
            "score='correlation' needs at least two trials in every fold; choose fewer folds."
        )
    order = np.argsort(fold_of_row, kind="stable")
    plan = GroupPlan(
        alphas=_check_positive(alphas),
        gammas=None if gammas is None else _check_gammas(gammas, len(matrices)),
        n_candidates=_CANDIDATES * len(matrices)
        if n_candidates is None
        else check_count(n_candidates, 1, "n_candidates"),
        fit_intercept=bool(fit_intercept),
        standardize=bool(standardize),
        score=score,
        dtype=check_dtype(dtype),
        block_size=check_count(block_size, 1, "block_size"),
        seed=_check_seed(random_state),
        root=None if weights is None else np.sqrt(weights[order]),
    )
    ends = np.cumsum(np.bincount(fold_of_row))
    folds = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    spaces = [Space.scaled(matrix, order, weights, plan) for matrix in matrices]
    targets = Targets.centred(y, order, folds, plan)
    n_columns = sum(matrix.shape[1] for matrix in matrices)
    kind = _choose_solver(solver, len(y), n_columns, len(folds))
    machine: Machine = (Dual if kind == "dual" else Primal)(
        [space.values for space in spaces], targets, folds, plan
    )
    tried, best, index, scores = search(machine, spaces, targets, plan)
    low, high = edge_fractions(index, scores > _PREDICTABLE[score], len(plan.alphas))
    warn_at_edges(low, high, plan.alphas, f"{score} above {_PREDICTABLE[score]:g}")
    gamma = np.stack([c.gamma for c in tried], axis=1)[:, best]
    alpha = plan.alphas[index] * np.array([c.factor for c in tried])[best]
    weights = np.stack([c.weights for c in tried], axis=1)[:, best]
    coefs = tuple(
        space.unscaled(machine.coef(s, weights[s])).astype(plan.dtype, copy=False)
        for s, space in enumerate(spaces)
    )
    with np.errstate(divide="ignore"):
        penalties = alpha / gamma
    shift = sum(space.scaler.mean @ coef for space, coef in zip(spaces, coefs, strict=True))
    return BandedRidgeResult(
        names=tuple(Xs) if isinstance(Xs, Mapping) else tuple(map(str, range(len(spaces)))),
        coefs=coefs,
        intercept=(targets.mean - shift).astype(plan.dtype),
        penalties=penalties,
        gamma=gamma,
        alpha=alpha,
        cv_scores=scores,
        candidates=np.stack([c.gamma for c in tried]),
        x_mean=tuple(space.scaler.mean for space in spaces),
        x_scale=tuple(space.scaler.scale for space in spaces),
        y_mean=targets.mean,
        solver=kind,
    )


def _choose_solver(solver: str, n_rows: int, n_columns: int, n_folds: int) -> str:
    if solver != "auto":
        return solver
    return "primal" if n_folds * n_columns**3 < n_rows**3 else "dual"


def _check_spaces(Xs: Spaces) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """Return what errors call each space, and the spaces as finite matrices of equal length."""
    if isinstance(Xs, Mapping):
        wrong = [key for key in Xs if not isinstance(key, str)]
        if wrong:
            raise RidgeError(f"Xs has the key {wrong[0]!r}; name every space by a string.")
        names, arrays = [f"Xs[{key!r}]" for key in Xs], list(Xs.values())
    elif isinstance(Xs, list | tuple):
        names, arrays = [f"Xs[{s}]" for s in range(len(Xs))], list(Xs)
    else:
        raise RidgeError(
            f"Xs is a {type(Xs).__name__}; pass a list of arrays, or a dict of name to array."
        )
    if not arrays:
        raise RidgeError("Xs is empty; pass at least one feature space.")
    matrices: list[npt.NDArray[Any]] = []
    for name, array in zip(names, arrays, strict=True):
        matrix = as_matrix(array, name)
        if np.ndim(array) != 2:
            raise RidgeError(f"{name} has one dimension; pass a 2-D array with one row per trial.")
        check_finite(matrix, name)
        if matrices and len(matrix) != len(matrices[0]):
            raise RidgeError(
                f"{name} has {len(matrix)} rows but {names[0]} has {len(matrices[0])}; "
                "pass one row per trial in every space."
            )
        matrices.append(matrix)
    return names, matrices


def _check_positive(alphas: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = check_alphas(alphas)
    if values[0] == 0:
        raise RidgeError("alphas holds 0; banded ridge needs penalties above 0.")
    return values


def _check_gammas(gammas: npt.ArrayLike, n_spaces: int) -> npt.NDArray[np.float64]:
    values = as_matrix(gammas, "gammas").astype(np.float64)
    check_finite(values, "gammas")
    if np.ndim(gammas) != 2 or values.shape[1] != n_spaces:
        raise RidgeError(
            f"gammas has shape {np.shape(gammas)} for {n_spaces} space(s); "
            "pass one row per candidate and one column per space."
        )
    wrong = np.flatnonzero((values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-6))
    if wrong.size:
        raise RidgeError(
            f"gammas is {values[wrong[0]].tolist()} at row {wrong[0]}; "
            "pass weights that are not negative and sum to 1."
        )
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _check_seed(random_state: int | None) -> int | None:
    return None if random_state is None else check_count(random_state, 0, "random_state")
