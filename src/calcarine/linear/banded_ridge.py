r"""Banded ridge: ridge regression with a penalty per feature space, for each target.

For every target the weights minimise
:math:`\|y - \sum_s X_s w_s\|^2 + \sum_s \alpha_s \|w_s\|^2` (Nunez-Elizalde, Huth & Gallant
2019; called group ridge by Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant 2022). The
penalties are :math:`\alpha_s = \alpha / \gamma_s`, where the gammas of a target sum to one, so that
the model is ridge with the kernel :math:`\sum_s \gamma_s X_s X_s^T`.

Why the cross-validation is fast:

- One eigendecomposition of the n x n kernel serves all folds. With the smoother H of all rows, the
  held-out residual of fold F is exactly :math:`(I - H)_{FF}^{-1} (y - Hy)_F`, the block form of
  the leave-one-out identity (Cook & Weisberg 1982; the intercept is one more column without
  penalty). The same decomposition gives the weights of the final fit. For folds that leave rows
  out, F is all rows that the fold is not trained on.
- With far fewer columns than rows, the Gram matrices of the folds are computed once and scaled for
  each gamma.
- The gammas are not drawn at random: a Gaussian process over those already tried, with one
  correlation for all targets, proposes the gamma with the largest expected improvement, summed
  over targets (Jones, Schonlau & Welch 1998).

Variance partitioning divides the r2 of such a model on test rows over the feature spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from calcarine.display import html_table, text_table
from calcarine.linear._backends import one_pool
from calcarine.linear._banded_fit import (
    BandedSolver,
    DualBandedSolver,
    PrimalBandedSolver,
    SearchedGammas,
    search_gammas,
)
from calcarine.linear._banded_inputs import (
    BandedInputs,
    CentredTargets,
    ScaledSpace,
    Spaces,
    check_banded_inputs,
    check_spaces,
)
from calcarine.linear._predictors import constant_columns
from calcarine.linear._results import (
    edge_fractions,
    median_score,
    predict_linear,
    range_of,
    warn_at_edges,
)
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    as_matrix,
    check_finite,
)
from calcarine.linear.ridge import DEFAULT_ALPHAS

if TYPE_CHECKING:
    from calcarine.linear.ridge import Folds

__all__ = [
    "BandedRidgeResult",
    "VariancePartition",
    "banded_ridge_cv",
    "partition_variance",
    "split_r2",
]

_NAMES_SHOWN = 5

_PREDICTABLE = {"r2": 1e-3, "correlation": 0.1}
"""Held-out score above which a target counts for the warning about the ends of `alphas`."""


@dataclass(frozen=True, repr=False)
class BandedRidgeResult:
    """Weights of a banded ridge fit in the units of each space, with the chosen penalties.

    S is the number of spaces, p_s the number of columns of space s, t the number of targets.

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
        Weight of the kernel of each space; not negative, and sums to 1 for each target.
    alpha : ndarray, shape (t,)
        Penalty of the weighted kernel.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its penalties, over the held-out rows of all folds
        together, each as often as it is held out; 0 for a target that is constant over them.
    candidates : ndarray, shape (n_tried, S)
        The gammas that were tried, in order.
    x_mean, x_scale : tuple of ndarray, each of shape (p_s,)
        Mean and scale of the columns (0 and 1 without centring and standardisation).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual"}
        "primal" decomposed p x p matrices, "dual" n x n matrices.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import banded_ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"z": rng.standard_normal((60, 10)), "c": rng.standard_normal((60, 10))}
    >>> Y = spaces["z"] @ rng.standard_normal((10, 2))  # c does not matter
    >>> Y += 2 * rng.standard_normal((60, 2))
    >>> result = banded_ridge_cv(spaces, Y)
    >>> result.names
    ('z', 'c')
    >>> bool((result.gamma[0] > result.gamma[1]).all())
    True
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
        """Predict from each space alone its contribution to the deviation from `y_mean`.

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

    def _facts(self) -> dict[str, object]:
        names = ", ".join(self.names[:_NAMES_SHOWN])
        more = ", ..." if len(self.names) > _NAMES_SHOWN else ""
        n_columns = sum(len(coef) for coef in self.coefs)
        weights = f"{n_columns} predictors x {len(self.alpha)} targets, {self.coefs[0].dtype}"
        return {
            "feature spaces": f"{len(self.names)} ({names}{more})",
            "weights": weights,
            "gammas": f"{len(self.candidates)} tried",
            "alpha": f"chosen {range_of(self.alpha)}",
            "median held-out score": median_score(self.cv_scores),
            "solver": self.solver,
        }

    def __repr__(self) -> str:
        return text_table("BandedRidgeResult", self._facts())

    def _repr_html_(self) -> str:
        return html_table("BandedRidgeResult", self._facts())

    def _checked(self, Xs: Spaces) -> list[npt.NDArray[Any]]:
        if isinstance(Xs, Mapping):
            if set(Xs) != set(self.names):
                raise RidgeError(
                    f"Xs has the spaces {sorted(map(str, Xs))} but the fit had "
                    f"{sorted(self.names)}; pass the same spaces."
                )
            Xs = {name: Xs[name] for name in self.names}
        names, matrices = check_spaces(Xs)
        if len(matrices) != len(self.names):
            raise RidgeShapeError(
                f"Xs has {len(matrices)} spaces but the fit had {len(self.names)}; "
                "pass the same spaces in the same order."
            )
        for name, matrix, coef in zip(names, matrices, self.coefs, strict=True):
            if matrix.shape[1] != len(coef):
                raise RidgeShapeError(
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

    Columns are scaled once, over all rows. Means are computed from the training rows of each fold,
    so that held-out scores are exactly the scores of refitting on its training rows.

    Parameters
    ----------
    Xs : list of array-like, or dict of name to array-like, each of shape (n, p_s)
        Feature spaces, one row per trial.
    Y : array-like, shape (n, t) or (n,)
        Targets.
    alphas : array-like, shape (n_alphas,)
        Positive penalties to try with every gamma. In the search they apply to balanced spaces:
        each is scaled so that its mean squared row equals the mean over all spaces. A grid that
        suits ridge then suits every gamma. The reported ``alpha`` is one of `alphas` times the
        factor that converts the gamma of balanced spaces to that of the original spaces. This
        factor is 1 for spaces of equal size, for example standardised spaces with the same number
        of columns.
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; a group is never split over folds. By default every row is a
        group of its own, which is only right if no stimulus is repeated.
    sample_weight : array-like, shape (n,), optional
        Weight of each trial, 0 or more, in the fit, in held-out errors, and in means and standard
        deviations: a weight of 2 equals the same trial twice in one fold.
    cv : "kfold", int, splitter or iterable
        "kfold" makes `n_folds` folds over groups, an int that many. Any splitter of scikit-learn
        or iterable of (train, test) row numbers defines the folds; see
        `calcarine.linear.ridge_cv`.
    n_folds : int
        Number of folds for "kfold", see `calcarine.linear.grouped_folds`.
    n_candidates : int, optional
        Largest number of gammas to try: equal weights, each space alone, then the proposals of the
        search, which stops early when no further gain is expected. By default 16 per space.
    gammas : array-like, shape (k, S), optional
        Try exactly these kernel weights, each with all of `alphas`. Rows must not be negative and
        must sum to 1. In this case spaces are not balanced.
    fit_intercept : bool
        Centre the columns and the targets.
    standardize : bool
        Divide each column by its standard deviation (ddof 0).
    score : {"r2", "correlation"}
        "r2" is 1 - (sum of squared held-out residuals over all folds) / (sum of squares of the
        held-out Y about its mean). "correlation" is Pearson's correlation of held-out predictions
        and targets, both centred within each fold and then pooled. A row counts as often as it is
        held out.
    solver : {"auto", "primal", "dual"}
        "primal" decomposes a p x p matrix per fold, "dual" one n x n matrix for all folds; "auto"
        takes the faster one. Both give the same result up to rounding.
    random_state : int or None
        Seed of the random gammas from which the search chooses.
    dtype : {"float64", "float32"}
        Precision of matrices, decompositions and weights; means and sums are always float64.
        "float32" is faster.
    block_size : int
        Number of targets that are predicted at once. Several arrays of the size of Y are held in
        addition.

    Returns
    -------
    BandedRidgeResult

    Warns
    -----
    RidgeEdgeWarning
        When more than 5 % of the predictable targets (r2 above 0.001, correlation above 0.1)
        choose the lowest or highest of `alphas`.

    Raises
    ------
    RidgeError
        When there is no space, a value is not finite (the message names space, row and column),
        shapes do not match, there are fewer groups than folds, a fold has no training or held-out
        rows, shares rows or groups between both or names rows that do not exist, a weight is
        negative, a penalty is not positive, or a setting is unknown.

    Notes
    -----
    A constant column gets weight 0, unless both `fit_intercept` and `standardize` are False.
    Penalties below 1e-12 (float32: 1e-5) of the largest eigenvalue of the kernel act as if they
    were that large, because smaller ones are lost in rounding. This limit grows with the square
    root of the number of rows from a thousand rows.

    With one space, or with `gammas`, every alpha is tried. Otherwise a target tries every third
    alpha with the first gamma and climbs to the maximum from there; with each further gamma it
    climbs from its best alpha so far. Proposals of the search are tried only for targets that may
    improve by their forecast. The choice is always the best of all scores that were computed.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import banded_ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> motion, words = rng.normal(size=(60, 4)), rng.normal(size=(60, 6))
    >>> Y = motion @ rng.normal(size=(4, 2)) + rng.normal(size=(60, 2))
    >>> spaces = {"motion": motion, "words": words}
    >>> result = banded_ridge_cv(spaces, Y, alphas=[0.1, 1.0, 10.0, 100.0])
    >>> result.names, result.gamma.shape
    (('motion', 'words'), (2, 2))
    """
    inputs = check_banded_inputs(
        Xs,
        Y,
        alphas=alphas,
        groups=groups,
        sample_weight=sample_weight,
        cv=cv,
        n_folds=n_folds,
        n_candidates=n_candidates,
        gammas=gammas,
        fit_intercept=fit_intercept,
        standardize=standardize,
        score=score,
        solver=solver,
        random_state=random_state,
        dtype=dtype,
        block_size=block_size,
    )
    settings, folds = inputs.settings, inputs.folds
    spaces = [
        ScaledSpace.from_matrix(matrix, inputs.order, inputs.weights, settings)
        for matrix in inputs.matrices
    ]
    targets = CentredTargets.from_matrix(inputs.y, inputs.order, folds, settings)
    kind = DualBandedSolver if inputs.solver == "dual" else PrimalBandedSolver
    fitted: BandedSolver = kind([space.values for space in spaces], targets, folds, settings)
    searched = search_gammas(fitted, spaces, targets, settings)
    predictable = searched.scores > _PREDICTABLE[score]
    low, high = edge_fractions(searched.index, predictable, len(settings.alphas))
    warn_at_edges(low, high, settings.alphas, f"{score} above {_PREDICTABLE[score]:g}")
    names = tuple(Xs) if isinstance(Xs, Mapping) else tuple(map(str, range(len(spaces))))
    return _result(names, inputs, spaces, targets, fitted, searched)


def _result(
    names: tuple[str, ...],
    inputs: BandedInputs,
    spaces: list[ScaledSpace],
    targets: CentredTargets,
    solver: BandedSolver,
    searched: SearchedGammas,
) -> BandedRidgeResult:
    settings, tried, best = inputs.settings, searched.tried, searched.best
    gamma = np.stack([c.gamma for c in tried], axis=1)[:, best]
    alpha = settings.alphas[searched.index] * np.array([c.factor for c in tried])[best]
    weights = np.stack([c.weights for c in tried], axis=1)[:, best]
    coefs = tuple(
        space.unscaled(solver.coef(s, weights[s])).astype(settings.dtype, copy=False)
        for s, space in enumerate(spaces)
    )
    with np.errstate(divide="ignore"):
        penalties = alpha / gamma
    shift = sum(space.scaler.mean @ coef for space, coef in zip(spaces, coefs, strict=True))
    return BandedRidgeResult(
        names=names,
        coefs=coefs,
        intercept=(targets.mean - shift).astype(settings.dtype),
        penalties=penalties,
        gamma=gamma,
        alpha=alpha,
        cv_scores=searched.scores,
        candidates=np.stack([c.gamma for c in tried]),
        x_mean=tuple(space.scaler.mean for space in spaces),
        x_scale=tuple(space.scaler.scale for space in spaces),
        y_mean=targets.mean,
        solver=inputs.solver,
    )


@dataclass(frozen=True)
class VariancePartition:
    """Variance of test rows that each feature space explains.

    Attributes
    ----------
    names : tuple of str, length S
        Names of the spaces.
    r2 : ndarray, shape (t,)
        1 - (squared error of the full model) / (sum of squares about the test mean).
    shares : ndarray, shape (S, t)
        Product measure of each space; sums to `r2` over the spaces. See `split_r2`.
    unique : ndarray, shape (S, t)
        `r2` minus the r2 of the model refitted without the space, with newly chosen penalties.
    result : BandedRidgeResult
        The full model.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import partition_variance
    >>> rng = np.random.default_rng(0)
    >>> z, c = rng.standard_normal((2, 80, 10))
    >>> Y = z @ rng.standard_normal((10, 2)) + 2 * rng.standard_normal((80, 2))
    >>> train, test = {"z": z[:60], "c": c[:60]}, {"z": z[60:], "c": c[60:]}
    >>> partition = partition_variance(train, Y[:60], test, Y[60:])
    >>> bool(np.allclose(partition.shares.sum(axis=0), partition.r2))
    True
    """

    names: tuple[str, ...]
    r2: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    unique: npt.NDArray[np.float64]
    result: BandedRidgeResult


def split_r2(
    result: BandedRidgeResult, Xs_test: Spaces, Y_test: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""Divide the r2 on test rows over the spaces by the product measure.

    The share of space s is :math:`\sum_i \hat y_{s,i} (2 y_i - \hat y_i) / \sum_i y_i^2` with y
    about its test mean (Dupre la Tour et al. 2022); it can be negative. Predictions are about the
    mean of the targets at the fit. If it differs from the test mean, the difference is divided
    over the spaces in proportion to gamma, so that the shares still sum to the r2.

    Parameters
    ----------
    result : BandedRidgeResult
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

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import banded_ridge_cv, split_r2
    >>> rng = np.random.default_rng(0)
    >>> z, c = rng.standard_normal((2, 80, 10))
    >>> Y = z @ rng.standard_normal((10, 2)) + 2 * rng.standard_normal((80, 2))
    >>> result = banded_ridge_cv({"z": z[:60], "c": c[:60]}, Y[:60])
    >>> shares = split_r2(result, {"z": z[60:], "c": c[60:]}, Y[60:])
    >>> (shares > 0.3).tolist()  # rows: z, c
    [[True, True], [False, False]]
    """
    y = _check_test_targets(Y_test, len(result.y_mean))
    return product_measure(result.predict_spaces(Xs_test), result.gamma, result.y_mean, y)


def product_measure(
    parts: npt.NDArray[np.float64],
    gamma: npt.NDArray[np.float64],
    y_mean: npt.NDArray[np.float64],
    y: npt.ArrayLike,
    sample_weight: npt.NDArray[np.float64] | None = None,
    names: tuple[str, str] = ("Xs_test", "Y_test"),
) -> npt.NDArray[np.float64]:
    """Return the shares of the r2 from predictions by each space; see `split_r2`.

    Parameters
    ----------
    parts : ndarray, shape (S, m, t)
        Contribution of each space to the deviation from `y_mean`; overwritten.
    gamma : ndarray, shape (S, t)
    y_mean : ndarray, shape (t,)
        Mean of the targets at the fit.
    y : array-like, shape (m, t) or (m,)
    sample_weight : ndarray, shape (m,), optional
        Weight of each row.
    names : tuple of two str
        Names of the predicted rows and of `y` in error messages.

    Returns
    -------
    ndarray, shape (S, t)

    Raises
    ------
    RidgeError
        When `y` does not match or a value is not finite.
    """
    targets = _check_test_targets(y, len(y_mean), names[1])
    _check_same_rows(parts.shape[1], len(targets), names)
    weights = np.ones(len(targets)) if sample_weight is None else sample_weight
    mean = weights @ targets / weights.sum()
    centred = targets - mean
    total = weights @ centred**2
    total[constant_columns(targets[weights > 0])] = 0.0
    parts += (gamma * (y_mean - mean))[:, None]
    rest = 2 * centred - parts.sum(axis=0)
    shares = np.einsum("smt,mt->st", parts, weights[:, None] * rest)
    return np.asarray(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0))


def partition_variance(
    Xs: Spaces,
    Y: npt.ArrayLike,
    Xs_test: Spaces,
    Y_test: npt.ArrayLike,
    *,
    result: BandedRidgeResult | None = None,
    **options: Any,
) -> VariancePartition:
    """Fit the full model and the model without each space, and compare them on test rows.

    Parameters
    ----------
    Xs : list or dict of array-like, each of shape (n, p_s)
        Feature spaces of the fit.
    Y : array-like, shape (n, t) or (n,)
        Targets of the fit.
    Xs_test : list or dict of array-like, each of shape (m, p_s)
        The same spaces for test rows.
    Y_test : array-like, shape (m, t) or (m,)
        Their targets.
    result : BandedRidgeResult, optional
        The full model, if already fitted on these data with these options.
    **options
        Passed to `banded_ridge_cv` for every fit. `gammas` is not possible, because each fit
        searches for its own.

    Returns
    -------
    VariancePartition

    Raises
    ------
    RidgeError
        As in `banded_ridge_cv`, and when test data do not match.

    Notes
    -----
    Without the only space of a model, the prediction is the mean of the targets (0 without an
    intercept).

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import partition_variance
    >>> rng = np.random.default_rng(0)
    >>> z, c = rng.standard_normal((2, 80, 10))
    >>> Y = z @ rng.standard_normal((10, 2)) + 2 * rng.standard_normal((80, 2))
    >>> train, test = {"z": z[:60], "c": c[:60]}, {"z": z[60:], "c": c[60:]}
    >>> partition = partition_variance(train, Y[:60], test, Y[60:])
    >>> partition.names, (partition.unique > 0.3).tolist()  # only z explains Y
    (('z', 'c'), [[True, True], [False, False]])
    """
    if "gammas" in options:
        raise RidgeSettingError(
            "gammas cannot be fixed here; leave it out, because each fit searches for its own."
        )
    full = banded_ridge_cv(Xs, Y, **options) if result is None else result
    y = _check_test_targets(Y_test, len(full.y_mean))
    shares = split_r2(full, Xs_test, y)
    r2 = _r2(y, full.predict(Xs_test))
    unique = np.empty_like(shares)
    for s, name in enumerate(full.names):
        if len(full.names) == 1:
            predicted: FloatArray = np.broadcast_to(full.y_mean, y.shape)
        else:
            without = banded_ridge_cv(_drop(Xs, s, name), Y, **options)
            predicted = without.predict(_drop(Xs_test, s, name))
        unique[s] = r2 - _r2(y, predicted)
    return VariancePartition(full.names, r2, shares, unique, full)


def _check_test_targets(
    Y_test: npt.ArrayLike, n_targets: int, name: str = "Y_test"
) -> npt.NDArray[np.float64]:
    y = as_matrix(Y_test, name)
    check_finite(y, name)
    if y.shape[1] != n_targets:
        raise RidgeShapeError(
            f"{name} has {y.shape[1]} targets but the fit had {n_targets}; "
            "pass the same targets in the same order."
        )
    return y.astype(np.float64, copy=False)


def _check_same_rows(n_x: int, n_y: int, names: tuple[str, str] = ("Xs_test", "Y_test")) -> None:
    if n_x != n_y:
        raise RidgeShapeError(
            f"{names[0]} has {n_x} rows but {names[1]} has {n_y}; pass one row per trial in both."
        )


def _about_mean(
    y: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Return targets about their mean (m, t), and their sums of squares (t,), 0 if constant."""
    centred = y - y.mean(axis=0)
    return centred, np.where(constant_columns(y), 0.0, np.einsum("ij,ij->j", centred, centred))


def _r2(y: FloatArray, predicted: FloatArray) -> npt.NDArray[np.float64]:
    _check_same_rows(len(predicted), len(y))
    total = _about_mean(y)[1]
    error = ((y - predicted) ** 2).sum(axis=0)
    return np.where(total > 0, 1.0 - error / np.where(total > 0, total, 1.0), 0.0)


def _drop(Xs: Spaces, position: int, name: str) -> Spaces:
    if isinstance(Xs, Mapping):
        return {key: Xs[key] for key in Xs if key != name}
    return [space for s, space in enumerate(Xs) if s != position]
