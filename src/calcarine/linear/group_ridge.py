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

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.spatial.distance import cdist
from scipy.special import ndtr
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin

from calcarine.linear._checks import (
    FloatArray,
    RidgeError,
    as_matrix,
    check_alphas,
    check_choice,
    check_count,
    check_finite,
)
from calcarine.linear.estimators import check_fitted, checked_targets, validated
from calcarine.linear.folds import grouped_folds
from calcarine.linear.ridge import DEFAULT_ALPHAS, RidgeEdgeWarning, predict_linear

Spaces: TypeAlias = Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]
"""Feature spaces by name, or in a list; one array of shape (n, p_s) each."""

_EPS = float(np.finfo(np.float64).eps)

_EDGE_SHARE = 0.05
_PREDICTABLE = {"r2": 1e-3, "correlation": 0.1}
"""Held-out score from which a target on an end of the penalties counts for a warning."""

_FLOOR = {"float64": 1e-12, "float32": 1e-5}
"""Smallest penalty, as a part of the largest eigenvalue, that survives rounding."""

_ROUNDING = 1e3
"""Predictions below this many roundings of the targets correlate with nothing."""

_COARSE = 3
_CANDIDATES = 16

# The search: gammas to choose from, targets that guide it, lengths and nugget of the correlation,
# the mean improvement below which it ends, and which targets try a proposal: those whose forecast
# may exceed their best by _WORTH within _DOUBT standard deviations. The forecast of one target is
# rough, so that _DOUBT is large.
_POOL = 400
_GUIDES = 500
_LENGTHS = np.logspace(-1, 0.7, 9)
_NUGGET = 1e-3
_ENOUGH = 1e-6
_WORTH = 1e-4
_DOUBT = 6.0


@dataclass(frozen=True)
class GroupRidgeResult:
    """Weights of a group ridge fit in the units of each space, with what was chosen.

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


def group_ridge_cv(
    Xs: Spaces,
    Y: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike = DEFAULT_ALPHAS,
    groups: npt.ArrayLike | None = None,
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
) -> GroupRidgeResult:
    """Fit group ridge, choosing the penalty of each space and target by grouped cross-validation.

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
    n_folds : int
        Number of folds, see `calcarine.linear.grouped_folds`.
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
        "float32" takes half the time.
    block_size : int
        Targets predicted at once. Besides, several arrays of the size of Y are held.

    Returns
    -------
    GroupRidgeResult

    Warns
    -----
    RidgeEdgeWarning
        When over 5 % of the predictable targets (r2 above 0.001, correlation above 0.1) chose an
        end of `alphas`.

    Raises
    ------
    RidgeError
        A `CalcarineError`: no spaces, values that are not finite (space, row and column are
        named), shapes that do not match, fewer groups than folds, a penalty of zero or less, or
        an unknown setting.

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
    fold_of_row = grouped_folds(groups, n_folds, n_rows=len(y))
    if score == "correlation" and np.bincount(fold_of_row).min() < 2:
        raise RidgeError(
            "score='correlation' needs at least two trials in every fold; choose fewer folds."
        )
    plan = _Plan(
        alphas=_check_positive(alphas),
        gammas=None if gammas is None else _check_gammas(gammas, len(matrices)),
        n_candidates=_CANDIDATES * len(matrices)
        if n_candidates is None
        else check_count(n_candidates, 1, "n_candidates"),
        fit_intercept=bool(fit_intercept),
        standardize=bool(standardize),
        score=score,
        dtype=_check_dtype(dtype),
        block_size=check_count(block_size, 1, "block_size"),
        seed=_check_seed(random_state),
    )
    order = np.argsort(fold_of_row, kind="stable")
    ends = np.cumsum(np.bincount(fold_of_row))
    folds = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    spaces = [_Space.scaled(matrix, order, plan) for matrix in matrices]
    targets = _Targets.centred(y, order, folds, plan)
    n_columns = sum(matrix.shape[1] for matrix in matrices)
    kind = _choose_solver(solver, len(y), n_columns, len(folds))
    machine: _Machine = (_Dual if kind == "dual" else _Primal)(
        [space.values for space in spaces], targets, folds, plan
    )
    tried, best, index, scores = _search(machine, spaces, targets, plan)
    _warn_at_edges(index, scores > _PREDICTABLE[score], plan.alphas)
    gamma = np.stack([c.gamma for c in tried], axis=1)[:, best]
    alpha = plan.alphas[index] * np.array([c.factor for c in tried])[best]
    weights = np.stack([c.weights for c in tried], axis=1)[:, best]
    coefs = tuple(
        space.unscaled(machine.coef(s, weights[s])).astype(plan.dtype, copy=False)
        for s, space in enumerate(spaces)
    )
    with np.errstate(divide="ignore"):
        penalties = alpha / gamma
    shift = sum(space.mean @ coef for space, coef in zip(spaces, coefs, strict=True))
    return GroupRidgeResult(
        names=tuple(Xs) if isinstance(Xs, Mapping) else tuple(map(str, range(len(spaces)))),
        coefs=coefs,
        intercept=(targets.mean - shift).astype(plan.dtype),
        penalties=penalties,
        gamma=gamma,
        alpha=alpha,
        cv_scores=scores,
        candidates=np.stack([c.gamma for c in tried]),
        x_mean=tuple(space.mean for space in spaces),
        x_scale=tuple(space.scale for space in spaces),
        y_mean=targets.mean,
        solver=kind,
    )


@dataclass(frozen=True)
class VariancePartition:
    """How much of the variance of test rows each space explains.

    Attributes
    ----------
    names : tuple of str, length S
        Names of the spaces.
    r2 : ndarray, shape (t,)
        1 - (squared error of the full model) / (sum of squares about the test mean).
    shares : ndarray, shape (S, t)
        Product measure of each space; sums to `r2` over the spaces. See `split_r2`.
    unique : ndarray, shape (S, t)
        `r2` minus that of the model refitted without the space, its penalties chosen anew.
    result : GroupRidgeResult
        The full model.
    """

    names: tuple[str, ...]
    r2: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    unique: npt.NDArray[np.float64]
    result: GroupRidgeResult


def split_r2(
    result: GroupRidgeResult, Xs_test: Spaces, Y_test: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""Divide the r2 on test rows over the spaces by the product measure.

    The share of space s is :math:`\sum_i \hat y_{s,i} (2 y_i - \hat y_i) / \sum_i y_i^2` with y
    about its test mean (Dupre la Tour et al. 2022); it can be negative. Predictions are
    about the mean at the fit, and where that differs from the test mean, the constant between them
    is no space's doing: it is divided by gamma, so that the shares still sum to the r2.

    Parameters
    ----------
    result : GroupRidgeResult
    Xs_test : list or dict of array-like, each of shape (m, p_s)
    Y_test : array-like, shape (m, t) or (m,)

    Returns
    -------
    ndarray, shape (S, t)
        Zero for a target that is constant over the test rows.

    Raises
    ------
    RidgeError
        When shapes do not match the fit or a value is not finite.
    """
    y = _check_test_targets(Y_test, result)
    parts = result.predict_spaces(Xs_test)
    _check_same_rows(parts.shape[1], len(y))
    truth, total = _about_mean(y)
    parts += (result.gamma * (result.y_mean - y.mean(axis=0)))[:, None]
    rest = 2 * truth - parts.sum(axis=0)
    shares = np.einsum("smt,mt->st", parts, rest)
    return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)


def partition_variance(
    Xs: Spaces,
    Y: npt.ArrayLike,
    Xs_test: Spaces,
    Y_test: npt.ArrayLike,
    *,
    result: GroupRidgeResult | None = None,
    **options: Any,
) -> VariancePartition:
    """Fit the model and the models without each space, and compare them on test rows.

    Parameters
    ----------
    Xs : list or dict of array-like, each of shape (n, p_s)
        Feature spaces of the fit.
    Y : array-like, shape (n, t) or (n,)
        Targets of the fit.
    Xs_test : list or dict of array-like, each of shape (m, p_s)
        The same spaces for rows that no fit has seen.
    Y_test : array-like, shape (m, t) or (m,)
        Their targets.
    result : GroupRidgeResult, optional
        The full model, if already fitted on these data with these options.
    **options
        Passed to `group_ridge_cv` for every fit; `gammas` cannot be given, as each fit searches
        its own.

    Returns
    -------
    VariancePartition

    Raises
    ------
    RidgeError
        As in `group_ridge_cv`, and when test data do not match.

    Notes
    -----
    Without the only space of a model, the prediction is the mean of the targets (0 without an
    intercept).
    """
    if "gammas" in options:
        raise RidgeError("gammas cannot be fixed here; leave it out, each fit searches its own.")
    full = group_ridge_cv(Xs, Y, **options) if result is None else result
    y = _check_test_targets(Y_test, full)
    shares = split_r2(full, Xs_test, y)
    r2 = _r2(y, full.predict(Xs_test))
    unique = np.empty_like(shares)
    for s, name in enumerate(full.names):
        if len(full.names) == 1:
            guess: FloatArray = np.broadcast_to(full.y_mean, y.shape)
        else:
            without = group_ridge_cv(_drop(Xs, s, name), Y, **options)
            guess = without.predict(_drop(Xs_test, s, name))
        unique[s] = r2 - _r2(y, guess)
    return VariancePartition(full.names, r2, shares, unique, full)


class GroupRidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Group ridge regression with cross-validated penalties per space and target.

    Parameters
    ----------
    feature_groups : array-like, shape (p,), optional
        The space of each column of X, as numbers or strings. Without it all columns are one space
        and the model is ridge regression.
    alphas : array-like, shape (n_alphas,), optional
        Penalties to try; `calcarine.linear.DEFAULT_ALPHAS` by default.
    n_folds, n_candidates, fit_intercept, standardize, solver, random_state, dtype, block_size
        As in `group_ridge_cv`.
    scoring : {"r2", "correlation"}
        What chooses the penalties; ``score`` in `group_ridge_cv`.

    Attributes
    ----------
    space_names_ : ndarray, shape (S,)
        The values of `feature_groups`, sorted; the rows of `gamma_` and `penalties_`.
    coef_ : ndarray, shape (p, t), or (p,) when y was a vector
        Weights in the units of X.
    intercept_, alpha_, best_score_ : ndarray, shape (t,), or a number when y was a vector
        Intercept, chosen penalty of the weighted kernel and its held-out score.
    gamma_, penalties_ : ndarray, shape (S, t), or (S,) when y was a vector
        Kernel weights and penalties of the spaces.
    x_mean_, x_scale_ : ndarray, shape (p,)
        Mean and scale by which the columns were standardised.
    y_mean_ : ndarray, shape (t,)
        Mean of the targets.
    solver_ : {"primal", "dual"}
        Which matrices were decomposed.
    n_features_in_ : int
        p, the number of columns of X.

    See Also
    --------
    group_ridge_cv : The function underneath, with every detail.
    """

    def __init__(
        self,
        feature_groups: npt.ArrayLike | None = None,
        *,
        alphas: npt.ArrayLike | None = None,
        n_folds: int = 5,
        n_candidates: int | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        scoring: str = "r2",
        solver: str = "auto",
        random_state: int | None = 0,
        dtype: str = "float64",
        block_size: int = 1024,
    ) -> None:
        self.feature_groups = feature_groups
        self.alphas = alphas
        self.n_folds = n_folds
        self.n_candidates = n_candidates
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.scoring = scoring
        self.solver = solver
        self.random_state = random_state
        self.dtype = dtype
        self.block_size = block_size

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> GroupRidgeCV:
        """Fit on all rows, choosing penalties by folds over whole groups.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : array-like, shape (n, t) or (n,)
        groups : array-like, shape (n,), optional
            Stimulus id of each trial.

        Returns
        -------
        GroupRidgeCV
            Itself.

        Raises
        ------
        RidgeError
            As in `group_ridge_cv`, and when `feature_groups` does not label every column.
        """
        if y is None:
            raise RidgeError("GroupRidgeCV requires y to be passed, but the target y is None.")
        x = validated(self, X, reset=True, ensure_min_samples=2)  # type: ignore[arg-type]
        targets = checked_targets(y)
        check_finite(x, "X")
        names, space_of_column = _column_spaces(self.feature_groups, x.shape[1])
        result = group_ridge_cv(
            [x[:, space_of_column == s] for s in range(len(names))],
            targets,
            alphas=DEFAULT_ALPHAS if self.alphas is None else self.alphas,
            groups=groups,
            n_folds=self.n_folds,
            n_candidates=self.n_candidates,
            fit_intercept=self.fit_intercept,
            standardize=self.standardize,
            score=self.scoring,  # type: ignore[arg-type]
            solver=self.solver,  # type: ignore[arg-type]
            random_state=self.random_state,
            dtype=self.dtype,
            block_size=self.block_size,
        )
        pick = (..., 0) if targets.ndim == 1 else (...,)
        back = np.argsort(np.argsort(space_of_column, kind="stable"))
        self.space_names_ = names
        self.coef_ = np.concatenate(result.coefs)[back][pick]
        self.intercept_, self.alpha_ = result.intercept[pick], result.alpha[pick]
        self.best_score_ = result.cv_scores[pick]
        self.gamma_, self.penalties_ = result.gamma[pick], result.penalties[pick]
        self.x_mean_ = np.concatenate(result.x_mean)[back]
        self.x_scale_ = np.concatenate(result.x_scale)[back]
        self.y_mean_, self.solver_ = result.y_mean, result.solver
        return self

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """Predict in float64; a row alone gives what it gives within any batch.

        Parameters
        ----------
        X : array-like, shape (m, p)

        Returns
        -------
        ndarray, shape (m, t), or (m,) when y was a vector

        Raises
        ------
        RidgeError
            When unfitted, or X has other columns than the fit or values that are not finite.
        """
        check_fitted(self)  # type: ignore[arg-type]
        x = validated(self, X, reset=False)  # type: ignore[arg-type]
        vector = self.coef_.ndim == 1
        coef = self.coef_[:, None] if vector else self.coef_
        out = predict_linear(x, coef, self.x_mean_, self.y_mean_)
        return out[:, 0] if vector else out


@dataclass(frozen=True)
class _Plan:
    """The checked settings of one call."""

    alphas: npt.NDArray[np.float64]
    gammas: npt.NDArray[np.float64] | None
    n_candidates: int
    fit_intercept: bool
    standardize: bool
    score: str
    dtype: np.dtype[Any]
    block_size: int
    seed: int | None

    def blocks(self, rows: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
        for start in range(0, len(rows), self.block_size):
            yield rows[start : start + self.block_size]


@dataclass(frozen=True)
class _Space:
    """One space: centred, scaled, rows sorted by fold and divided by the root of `size`.

    `size` is the mean squared row, so kernels of all spaces have the trace n. It is 0 for a space
    without any variance. `mark` sums the fourth powers of the lengths of the rows; it sorts the
    spaces for the search, whose course then does not depend on the order they were given in.
    """

    values: FloatArray
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]
    size: float
    mark: float

    @classmethod
    def scaled(cls, matrix: npt.NDArray[Any], order: npt.NDArray[np.intp], plan: _Plan) -> _Space:
        values = matrix[order].astype(np.float64, copy=False)  # a copy already by its order
        constant = _constant(values)
        n_columns = values.shape[1]
        mean = values.mean(axis=0) if plan.fit_intercept else np.zeros(n_columns)
        scale = (
            np.where(constant, 1.0, values.std(axis=0)) if plan.standardize else np.ones(n_columns)
        )
        values -= mean
        values /= scale
        dead = constant & (plan.fit_intercept or plan.standardize)
        values[:, dead] = 0.0
        size = float(np.einsum("ij,ij->", values, values)) / len(values)
        if size > 0:
            values /= np.sqrt(size)
        mark = float((np.einsum("ij,ij->i", values, values) ** 2).sum())
        return cls(values.astype(plan.dtype, copy=False), mean, scale, dead, size, mark)

    def unscaled(self, coef: FloatArray) -> FloatArray:
        """Turn weights (p, t) on `values` into weights on the columns as they were given."""
        root = np.sqrt(self.size) if self.size > 0 else 1.0
        unscaled = coef / (root * self.scale)[:, None]
        unscaled[self.dead] = 0.0
        return np.asarray(unscaled)


@dataclass(frozen=True)
class _Targets:
    """Targets about their mean, shape (t, n): one row per target, trials sorted by fold.

    `total` divides the score: the sum of squares about the mean for r2, within folds for
    correlation.
    """

    values: FloatArray
    mean: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    constant: npt.NDArray[np.bool_]

    @classmethod
    def centred(
        cls,
        y: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        folds: list[slice],
        plan: _Plan,
    ) -> _Targets:
        n_targets = y.shape[1]
        values = np.empty(y.shape[::-1], plan.dtype)
        mean, total = np.zeros(n_targets), np.zeros(n_targets)
        constant = np.zeros(n_targets, dtype=bool)
        for rows in plan.blocks(np.arange(n_targets)):
            block = y[:, rows][order].astype(np.float64, copy=False)
            constant[rows] = _constant(block)
            if plan.score == "r2":
                total[rows] = len(block) * block.var(axis=0)
            else:
                total[rows] = sum(len(block[f]) * block[f].var(axis=0) for f in folds)
            if plan.fit_intercept:
                mean[rows] = block.mean(axis=0)
                block -= mean[rows]
                block[:, constant[rows]] = 0.0  # the rounding of the mean is no signal
            values[rows] = block.T
        constant |= total == 0
        return cls(values, mean, np.where(constant, 1.0, total), constant)


@dataclass(frozen=True)
class _Tally:
    """Sums over folds from which the scores of some targets follow."""

    score: str
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, score: str, n_targets: int) -> _Tally:
        return cls(score, np.zeros(n_targets), np.zeros(n_targets))

    def add(self, truth: FloatArray, residual: FloatArray) -> None:
        """Add a fold; both of shape (targets, held-out rows), centred for correlation."""
        if self.score == "r2":
            self.first[:] += _dots(residual, residual)
        else:
            guess = truth - residual
            self.first[:] += _dots(guess, truth)
            self.second[:] += _dots(guess, guess)

    def scores(self, targets: _Targets, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        total = targets.total[rows]
        if self.score == "r2":
            scores = 1.0 - self.first / total
        else:
            size = np.sqrt(self.second) * np.sqrt(total)
            # Predictions this small beside the targets are rounding, whatever they correlate with.
            lost = _ROUNDING * float(np.finfo(targets.values.dtype).eps) * total
            scores = np.divide(self.first, size, out=np.zeros_like(size), where=size > lost)
        scores[targets.constant[rows]] = 0.0
        return np.asarray(scores)


class _Machine(ABC):
    """Scores and solves the targets `rows` with one weighting of the spaces at a time.

    Weights multiply the kernels of the balanced spaces; penalties are in their units. `kept`
    holds the solution of each target, in whatever basis `coef` takes it from.
    """

    def __init__(self, targets: _Targets, plan: _Plan, size: int) -> None:
        self.targets, self.plan = targets, plan
        self.floor = 0.0
        self.rows: npt.NDArray[np.intp] = np.arange(0)
        self.kept: FloatArray = np.zeros((len(targets.values), size), plan.dtype)

    @abstractmethod
    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        """Decompose for these weights (S,) and take up the targets `rows`."""

    @abstractmethod
    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Held-out scores with one penalty of the targets at `places` in `rows`."""

    @abstractmethod
    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        """Keep the solutions on all rows of X, one penalty per target."""

    @abstractmethod
    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        """Weights (p_s, t) on a balanced space; `weights` (t,) are those kept."""

    def _decompose(self, matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
        eigen, vectors = _eigh(matrix)
        if len(eigen):
            lost = _FLOOR[self.plan.dtype.name] * max(1.0, np.sqrt(len(eigen) / 1000))
            self.floor = max(self.floor, lost * float(eigen[-1]))
        return eigen, vectors


class _Dual(_Machine):
    """Kernels of all rows; held-out residuals through the smoother of all rows."""

    def __init__(
        self, spaces: list[FloatArray], targets: _Targets, folds: list[slice], plan: _Plan
    ) -> None:
        n = targets.values.shape[1]
        super().__init__(targets, plan, n)
        self.spaces, self.folds = spaces, folds
        self.kernels = [space @ space.T for space in spaces]
        self.kernel: FloatArray = np.empty((n, n), plan.dtype)
        self.product: FloatArray = np.empty((n, n), plan.dtype)
        self.shift = 0.0

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        n = len(self.kernel)
        self.kernel[...] = 0.0
        for weight, kernel in zip(weights, self.kernels, strict=True):
            if weight > 0:
                self.kernel += np.multiply(kernel, kernel.dtype.type(weight), out=self.product)
        if self.plan.fit_intercept:
            # The centred kernel takes the constant vector to 0. Raised to an eigenvalue of
            # ordinary size it mixes with no other null vector and is easily taken out again.
            self.shift = max(float(np.trace(self.kernel)) / n, float(np.finfo(np.float32).tiny))
            self.kernel += self.kernel.dtype.type(self.shift / n)
        self.floor = 0.0
        self.eigen, self.vectors = self._decompose(self.kernel)
        self.rows = rows
        self.projected = self.targets.values[rows] @ self.vectors
        self.factors: dict[float, list[FloatArray]] = {}

    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        alpha, rows = max(alpha, self.floor), self.rows[places]
        shrink = (1.0 / (1.0 + self.eigen / alpha)).astype(self.plan.dtype)
        if alpha not in self.factors:
            self.factors[alpha] = self._factors(alpha, shrink)
        residual = (self.projected[places] * shrink) @ self.vectors.T
        tally = _Tally.empty(self.plan.score, len(rows))
        for fold, factor in zip(self.folds, self.factors[alpha], strict=True):
            held = scipy.linalg.cho_solve((factor, True), residual[:, fold].T, check_finite=False).T
            truth = held
            if self.plan.score == "correlation":
                held -= held.mean(axis=1, keepdims=True)
                truth = self.targets.values[rows, fold]
                truth = truth - truth.mean(axis=1, keepdims=True)
            tally.add(truth, held)
        return tally.scores(self.targets, rows)

    def _factors(self, alpha: float, shrink: FloatArray) -> list[FloatArray]:
        """Cholesky factors of the diagonal blocks of I - H, one per fold."""
        constant = 0.0
        if self.plan.fit_intercept:
            constant = 1.0 / (len(self.vectors) * (1.0 + self.shift / alpha))
        root = np.sqrt(shrink)
        factors = []
        for fold in self.folds:
            half = self.vectors[fold] * root
            block = half @ half.T
            block -= block.dtype.type(constant)
            factors.append(
                scipy.linalg.cholesky(block, lower=True, overwrite_a=True, check_finite=False)
            )
        return factors

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha = np.maximum(alpha, self.floor)
        inverse = (1.0 / (self.eigen + alpha[:, None])).astype(self.plan.dtype)
        self.kept[self.rows[places]] = (self.projected[places] * inverse) @ self.vectors.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return np.asarray((self.spaces[space].T @ self.kept.T) * weights.astype(self.plan.dtype))


@dataclass(frozen=True)
class _Fold:
    """Training Gram matrix (p, p) and moments (t, p) of a fold, and its held-out rows.

    More held-out rows than columns are replaced by the triangle of their QR decomposition: `rest`
    is the squared length of the targets outside of what any weights can reach.
    """

    gram: FloatArray
    moment: FloatArray
    held: FloatArray
    truth: FloatArray
    rest: npt.NDArray[np.float64]


class _Primal(_Machine):
    """Gram matrices of the training rows of each fold, scaled for each gamma."""

    def __init__(
        self, spaces: list[FloatArray], targets: _Targets, folds: list[slice], plan: _Plan
    ) -> None:
        x = np.concatenate(spaces, axis=1)
        super().__init__(targets, plan, x.shape[1])
        self.space_of_column = np.repeat(np.arange(len(spaces)), [s.shape[1] for s in spaces])
        self.gram, self.moment = x.T @ x, targets.values @ x
        self.folds = [self._fold(x, fold) for fold in folds]

    def _fold(self, x: FloatArray, fold: slice) -> _Fold:
        y = self.targets.values
        train_x, train_y = np.delete(x, fold, axis=0), np.delete(y, fold, axis=1)
        held, truth = x[fold], y[:, fold]
        if self.plan.fit_intercept:
            x_mean = train_x.mean(axis=0, dtype=np.float64).astype(x.dtype)
            y_mean = train_y.mean(axis=1, dtype=np.float64, keepdims=True).astype(y.dtype)
            train_x, held = train_x - x_mean, held - x_mean
            train_y, truth = train_y - y_mean, truth - y_mean
        if self.plan.score == "correlation":
            held = held - held.mean(axis=0)
            truth = truth - truth.mean(axis=1, keepdims=True)
        rest = np.zeros(len(y))
        if len(held) > held.shape[1]:
            q, held = np.linalg.qr(held)
            inside = truth @ q
            outside = truth - inside @ q.T
            rest, truth = _dots(outside, outside), inside
        return _Fold(train_x.T @ train_x, train_y @ train_x, held, truth, rest)

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        root = np.sqrt(weights)[self.space_of_column].astype(self.plan.dtype)
        self.live = np.flatnonzero(root > 0)
        self.root = root[self.live]
        self.floor = 0.0
        self.rows = rows
        self.parts = []
        for fold in self.folds:
            eigen, vectors = self._decompose(self._scaled(fold.gram))
            scaled = self.root[:, None] * vectors
            moment = fold.moment[np.ix_(rows, self.live)] @ scaled
            self.parts.append((eigen, fold.held[:, self.live] @ scaled, moment))
        self.full: tuple[npt.NDArray[np.float64], FloatArray] | None = None

    def _scaled(self, gram: FloatArray) -> FloatArray:
        part = gram if len(self.live) == len(gram) else gram[np.ix_(self.live, self.live)]
        return np.asarray(part * self.root * self.root[:, None])

    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        alpha, rows = max(alpha, self.floor), self.rows[places]
        tally = _Tally.empty(self.plan.score, len(rows))
        for fold, (eigen, held, moment) in zip(self.folds, self.parts, strict=True):
            inverse = (1.0 / (eigen + alpha)).astype(self.plan.dtype)
            truth = fold.truth[rows]
            tally.add(truth, truth - (moment[places] * inverse) @ held.T)
            if self.plan.score == "r2":
                tally.first[:] += fold.rest[rows]
        return tally.scores(self.targets, rows)

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha, rows = np.maximum(alpha, self.floor), self.rows[places]
        if self.full is None:
            eigen, vectors = _eigh(self._scaled(self.gram))
            self.full = eigen, self.root[:, None] * vectors
        eigen, scaled = self.full
        inverse = (1.0 / (eigen + alpha[:, None])).astype(self.plan.dtype)
        projected = self.moment[np.ix_(rows, self.live)] @ scaled
        self.kept[rows] = 0.0
        self.kept[np.ix_(rows, self.live)] = (projected * inverse) @ scaled.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return self.kept[:, self.space_of_column == space].T


@dataclass(frozen=True)
class _Candidate:
    """A gamma to try: kernel weights of the balanced spaces, and as reported.

    A penalty of `alphas` is reported times `factor`.
    """

    weights: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    factor: float


def _search(
    machine: _Machine, spaces: list[_Space], targets: _Targets, plan: _Plan
) -> tuple[list[_Candidate], npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Try gammas and penalties; returns those tried, and per target the best of them.

    Returns
    -------
    tried : list of _Candidate
    best : ndarray, shape (t,)
        Which of `tried`.
    index : ndarray, shape (t,)
        Which of the alphas.
    scores : ndarray, shape (t,)
    """
    sizes = np.array([space.size for space in spaces])
    unit = float(sizes[sizes > 0].mean()) if (sizes > 0).any() else 1.0
    ratio = np.where(sizes > 0, sizes / unit, 1.0)
    penalties = plan.alphas / unit
    n_targets = len(targets.values)
    best, index = np.zeros(n_targets, dtype=np.intp), np.zeros(n_targets, dtype=np.intp)
    scores = np.full(n_targets, -np.inf)
    every = plan.gammas is not None or len(spaces) == 1
    proposals: _Proposals | _Given
    if plan.gammas is not None:
        proposals = _Given(plan.gammas * ratio, n_targets)
    else:
        live = sorted(np.flatnonzero(sizes > 0), key=lambda s: spaces[s].mark)
        proposals = _Proposals(np.array(live, dtype=np.intp), len(spaces), targets, plan)
    tried: list[_Candidate] = []
    for weights, rows in proposals:
        machine.open(weights, rows)
        start = None if every or not tried else index[rows]
        found, where = _best_alphas(machine, penalties, plan, start, every=every)
        proposals.learn(found)
        better = np.flatnonzero((found > scores[rows]) | (not tried))
        for places in plan.blocks(better):
            machine.keep(penalties[where[places]], places)
        improved = rows[better]
        best[improved], index[improved] = len(tried), where[better]
        scores[improved] = found[better]
        raw = weights / ratio
        factor = 1.0 if plan.gammas is not None else 1.0 / float(raw.sum())
        tried.append(_Candidate(weights, raw / raw.sum(), factor))
    return tried, best, index, scores


def _best_alphas(
    machine: _Machine,
    penalties: npt.NDArray[np.float64],
    plan: _Plan,
    start: npt.NDArray[np.intp] | None,
    *,
    every: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Best score and penalty of each target of the machine; of equal scores the larger wins.

    Each target climbs to where both neighbours of its best penalty are no better: from `start`,
    or from a coarse grid. `every` tries all.
    """
    shape = (len(penalties), len(machine.rows))
    steps = np.arange(len(penalties))[:, None]
    table = np.full(shape, -np.inf)
    known = np.zeros(shape, dtype=bool)
    if every:
        wanted = np.ones(shape, dtype=bool)
    elif start is None:
        wanted = np.broadcast_to((steps % _COARSE == 0) | (steps == len(penalties) - 1), shape)
    else:
        wanted = np.abs(steps - start) <= 1
    where = np.zeros(shape[1], dtype=np.intp)
    while wanted.any():
        for step in np.flatnonzero(wanted.any(axis=1)):
            for places in plan.blocks(np.flatnonzero(wanted[step])):
                table[step, places] = machine.score(float(penalties[step]), places)
        known |= wanted
        where = len(penalties) - 1 - np.argmax(table[::-1], axis=0)
        wanted = (np.abs(steps - where) <= 1) & ~known
    return table[where, np.arange(shape[1])], where


class _Given:
    """The weights to try are given; every target tries them all."""

    def __init__(self, weights: npt.NDArray[np.float64], n_targets: int) -> None:
        self.weights, self.n_targets = weights, n_targets

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        for weights in self.weights:
            yield weights, np.arange(self.n_targets)

    def learn(self, scores: npt.NDArray[np.float64]) -> None:
        """Nothing is to be learned."""


class _Proposals:
    """Iterates over weights (S,) to try and the targets that should; `learn` tells their scores.

    All spaces alike come first, then each alone, for all targets. Then a Gaussian process over
    the roots of the weights proposes those with the largest expected improvement, for the targets
    that may well improve with them.
    """

    def __init__(
        self, live: npt.NDArray[np.intp], n_spaces: int, targets: _Targets, plan: _Plan
    ) -> None:
        self.n_spaces, self.n_targets = n_spaces, len(targets.values)
        self.live = live if len(live) else np.arange(n_spaces)
        rng = np.random.default_rng(plan.seed)
        self.guides = np.flatnonzero(~targets.constant)
        if len(self.guides) > _GUIDES:
            self.guides = np.sort(rng.choice(self.guides, _GUIDES, replace=False))
        count = len(self.live)
        self.first = 1 if count == 1 else count + 1
        starts = [np.full((1, count), 1 / count), np.eye(count)]
        self.pool = np.concatenate([*starts, _pool(count, rng)])
        self.limit = 1 if count == 1 else min(plan.n_candidates, len(self.pool))
        points = np.sqrt(self.pool)
        self.distance = cdist(points, points)
        self.tried: list[int] = []
        self.table = np.empty((self.limit, self.n_targets))
        self.rows = np.arange(self.n_targets)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        while (number := len(self.tried)) < self.limit:
            choice = number
            if number >= self.first:
                promising = self._most_promising()
                if promising is None:
                    return
                choice = promising
            self.tried.append(choice)
            weights = np.zeros(self.n_spaces)
            weights[self.live] = self.pool[choice]
            yield weights, self.rows

    def learn(self, scores: npt.NDArray[np.float64]) -> None:
        """Take the scores of the targets just proposed; the others keep their forecast."""
        self.table[len(self.tried) - 1, self.rows] = scores

    def _most_promising(self) -> int | None:
        """Choose from the pool, forecast its scores and set `rows`; None when nothing is left."""
        known = self.table[: len(self.tried)]
        if not len(self.guides):
            return None
        cross, within = self._correlations(known[:, self.guides])
        forecast, deviation = _krige(known[:, self.guides], cross, within)
        gain = forecast - known[:, self.guides].max(axis=0)
        z = gain / deviation
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        improvement = (gain * ndtr(z) + deviation * density).mean(axis=1)
        improvement[self.tried] = 0.0
        choice = int(np.argmax(improvement))
        if improvement[choice] < _ENOUGH:
            return None
        forecast, deviation = _krige(known, cross[choice : choice + 1], within)
        likely = forecast[0] + _DOUBT * deviation[0] > known.max(axis=0) + _WORTH
        self.rows = np.flatnonzero(likely)
        if not len(self.rows):
            return None
        self.table[len(self.tried)] = forecast[0]
        return choice

    def _correlations(
        self, known: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Correlations of the pool with those tried (k, m) and among them, at the likeliest length.

        The length is shared by all targets; each has its own variance.
        """
        centred = known - known.mean(axis=0)
        distance = self.distance[:, self.tried]
        likeliest = (-np.inf, distance, distance)
        for length in _LENGTHS:
            cross = _matern(distance / length)
            within = cross[self.tried] + _NUGGET * np.eye(len(self.tried))
            factor = np.linalg.cholesky(within)
            white = scipy.linalg.solve_triangular(factor, centred, lower=True, check_finite=False)
            spread = np.log((white**2).mean(axis=0) + np.finfo(np.float64).tiny)
            likelihood = -0.5 * len(centred) * spread.mean() - np.log(np.diag(factor)).sum()
            if likelihood > likeliest[0]:
                likeliest = (float(likelihood), cross, within)
        return likeliest[1:]


def _pool(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Weights to choose from, shape (k, count), on faces of the simplex of every dimension.

    Their roots are spread evenly over the sphere.
    """
    weights = rng.normal(size=(_POOL, count)) ** 2
    n_kept = rng.integers(min(2, count), count + 1, size=_POOL)
    rank = np.argsort(np.argsort(rng.random((_POOL, count)), axis=1), axis=1)
    weights[rank >= n_kept[:, None]] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _krige(
    known: npt.NDArray[np.float64],
    cross: npt.NDArray[np.float64],
    within: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Forecast and its standard deviation (k, t) from scores (m, t) and their correlations."""
    mean = known.mean(axis=0)
    solved = np.linalg.solve(within, known - mean)
    amplitude = np.einsum("mt,mt->t", known - mean, solved) / len(known)
    left = 1.0 - np.einsum("km,mk->k", cross, np.linalg.solve(within, cross.T))
    variance = np.maximum(left, 0.0)[:, None] * np.maximum(amplitude, 0.0)
    return mean + cross @ solved, np.sqrt(variance) + _EPS


def _matern(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Matern correlation with smoothness 5/2 at distances in units of the length."""
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _eigh(matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
    """Eigenvalues, not negative and in float64, and eigenvectors; overwrites `matrix`."""
    # Transposed, the symmetric matrix is in Fortran order, which saves LAPACK a copy.
    eigen, vectors = scipy.linalg.eigh(matrix.T, driver="evd", overwrite_a=True, check_finite=False)
    return np.maximum(eigen.astype(np.float64), 0.0), vectors


def _dots(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Row-wise dot products, summed in float64."""
    return np.asarray(np.einsum("ij,ij->i", a, b, dtype=np.float64))


def _constant(matrix: FloatArray) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than the rounding of their mean; shape (k,)."""
    rounding = len(matrix) * _EPS * np.abs(matrix.mean(axis=0))
    return np.asarray(matrix.std(axis=0) <= rounding)


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
        raise RidgeError("alphas holds 0; group ridge needs penalties above 0.")
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


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = np.dtype(object)
    if checked.name not in _FLOOR:
        raise RidgeError(f"dtype is {dtype!r}; choose 'float64' or 'float32'.")
    return checked


def _check_test_targets(Y_test: npt.ArrayLike, result: GroupRidgeResult) -> npt.NDArray[np.float64]:
    y = as_matrix(Y_test, "Y_test")
    check_finite(y, "Y_test")
    if y.shape[1] != len(result.y_mean):
        raise RidgeError(
            f"Y_test has {y.shape[1]} targets but the fit had {len(result.y_mean)}; "
            "pass the same targets in the same order."
        )
    return y.astype(np.float64, copy=False)


def _check_same_rows(n_x: int, n_y: int) -> None:
    if n_x != n_y:
        raise RidgeError(
            f"Xs_test has {n_x} rows but Y_test has {n_y}; pass one row per trial in both."
        )


def _about_mean(
    y: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Targets about their mean (m, t), and their sum of squares (t,), 0 if constant."""
    truth = y - y.mean(axis=0)
    return truth, np.where(_constant(y), 0.0, _dots(truth.T, truth.T))


def _r2(y: FloatArray, guess: FloatArray) -> npt.NDArray[np.float64]:
    _check_same_rows(len(guess), len(y))
    total = _about_mean(y)[1]
    error = ((y - guess) ** 2).sum(axis=0)
    return np.where(total > 0, 1.0 - error / np.where(total > 0, total, 1.0), 0.0)


def _drop(Xs: Spaces, position: int, name: str) -> Spaces:
    if isinstance(Xs, Mapping):
        return {key: Xs[key] for key in Xs if key != name}
    return [space for s, space in enumerate(Xs) if s != position]


def _column_spaces(
    feature_groups: npt.ArrayLike | None, n_columns: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Names of the spaces, sorted, and the space of each column."""
    labels = np.zeros(n_columns, dtype=int) if feature_groups is None else feature_groups
    labels = np.asarray(labels)
    if labels.shape != (n_columns,):
        raise RidgeError(
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


def _warn_at_edges(
    index: npt.NDArray[np.intp], predictable: npt.NDArray[np.bool_], alphas: npt.NDArray[np.float64]
) -> None:
    chosen = index[predictable]
    if chosen.size == 0 or len(alphas) == 1:
        return
    low, high = float(np.mean(chosen == 0)), float(np.mean(chosen == len(alphas) - 1))
    if low + high > _EDGE_SHARE:
        warnings.warn(
            f"Of the predictable targets, {low:.1%} chose the lowest and "
            f"{high:.1%} the highest of the penalties {alphas[0]:g} to {alphas[-1]:g}; "
            "widen alphas.",
            RidgeEdgeWarning,
            stacklevel=3,
        )
