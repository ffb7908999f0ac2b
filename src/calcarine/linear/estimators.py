"""scikit-learn estimators for ridge and banded ridge."""

from __future__ import annotations

import os
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin

from calcarine.linear._banded_inputs import column_spaces
from calcarine.linear._predictors import ComputedMatrix
from calcarine.linear._results import edge_fractions, predict_linear, warn_at_edges
from calcarine.linear._validation import (
    RidgeError,
    RidgeNotFittedError,
    check_finite,
    check_weights,
    validate_features,
    validate_targets,
)
from calcarine.linear.banded_ridge import banded_ridge_cv, product_measure
from calcarine.linear.ridge import DEFAULT_ALPHAS, ridge_cv

__all__ = ["BandedRidgeCV", "RidgeCV"]


class _LinearEstimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Prediction from fitted weights and means."""

    coef_: npt.NDArray[Any]
    x_mean_: npt.NDArray[np.float64]
    y_mean_: npt.NDArray[np.float64]

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Predict in float64; the prediction of a row does not depend on the other rows.

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
        check_fitted(self)
        x = validate_features(self, X, reset=False)
        out = predict_linear(x, by_column(self), self.x_mean_, self.y_mean_)
        return out[:, 0] if self.coef_.ndim == 1 else out


class RidgeCV(_LinearEstimator):
    """Ridge regression with one cross-validated penalty per target.

    Parameters
    ----------
    alphas : array-like, shape (n_alphas,), optional
        Penalties to try; `calcarine.linear.DEFAULT_ALPHAS` by default.
    cv : {"kfold", "logo", "gcv", "fixed"}, int, splitter or iterable
        Number of folds over groups, any splitter of scikit-learn, or a method of
        `calcarine.linear.ridge_cv`. With "fixed", `alphas` is the penalty of all targets or one
        for each.
    n_folds, search, fit_intercept, standardize, alpha_per, solver, dtype, block_size, device
        See `calcarine.linear.ridge_cv`.
    scoring : {"r2", "correlation"}
        Score that chooses the penalty; ``score`` in `calcarine.linear.ridge_cv`.

    Attributes
    ----------
    coef_ : ndarray, shape (t, p), or (p,) when y was a vector
        Weights in the units of X, in scikit-learn's orientation: ``X @ coef_.T + intercept_``
        predicts.
    intercept_, alpha_, best_score_ : ndarray, shape (t,), or a number when y was a vector
        Intercept, chosen penalty and its held-out score (NaN for a fixed penalty). The score is
        that of the held-out rows of all folds together, each as often as it is held out; it is
        not a mean of scores of folds.
    cv_curve_ : ndarray, shape (n_alphas,)
        Held-out score of each of `alphas_`, mean over targets.
    alphas_ : ndarray, shape (n_alphas,)
        Penalties tried, ascending.
    x_mean_, x_scale_ : ndarray, shape (p,)
        Mean and scale of the columns.
    y_mean_ : ndarray, shape (t,)
        Mean of the targets.
    edge_fractions_ : tuple of two floats
        Share of predictable targets that chose the lowest and the highest penalty.
    solver_ : {"primal", "dual", "svd"}
        What was decomposed: X'X, XX' or X itself.
    n_features_in_ : int
        p, the number of columns of X.

    See Also
    --------
    calcarine.linear.ridge_cv : The function that does the work, with every option.
    calcarine.linear.BandedRidgeCV : A penalty for each feature space.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import RidgeCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5))
    >>> Y = X @ rng.normal(size=(5, 3)) + rng.normal(size=(60, 3))
    >>> model = RidgeCV(alphas=[0.1, 1.0, 10.0, 100.0], cv=3).fit(X, Y)
    >>> model
    RidgeCV(alphas=[0.1, 1.0, 10.0, 100.0], cv=3)
    >>> model.coef_.shape, model.predict(X[:2]).shape
    ((3, 5), (2, 3))
    """

    def __init__(
        self,
        alphas: npt.ArrayLike | None = None,
        *,
        cv: Any = "kfold",
        n_folds: int = 5,
        search: str = "full",
        fit_intercept: bool = True,
        standardize: bool = True,
        alpha_per: str = "target",
        scoring: str = "r2",
        solver: str = "auto",
        dtype: str = "auto",
        block_size: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.n_folds = n_folds
        self.search = search
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.alpha_per = alpha_per
        self.scoring = scoring
        self.solver = solver
        self.dtype = dtype
        self.block_size = block_size
        self.device = device

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike | ComputedMatrix,
        groups: npt.ArrayLike | None = None,
        target_rows: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        out: str | os.PathLike[str] | None = None,
    ) -> RidgeCV:
        """Fit on all rows, with penalties chosen by cross-validation over whole groups.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : array-like, shape (n, t) or (n,), or fewer rows with `target_rows`
            Or a `ComputedMatrix`, of which some columns at a time are in memory.
        groups : array-like, shape (n,), optional
            Stimulus id of each trial.
        target_rows : array-like of int, shape (n,), optional
            Row of y of each trial, for y with one row per stimulus.
        sample_weight : array-like, shape (n,), optional
            Weight of each trial, in the fit and in held-out errors.
        out : path-like, optional
            Folder for the weights, of which ``coef_`` is then a memory map; see
            `calcarine.linear.ridge_cv`.

        Returns
        -------
        RidgeCV
            The fitted estimator.

        Raises
        ------
        RidgeError
            As in `calcarine.linear.ridge_cv`.
        """
        if y is None:
            raise RidgeError("RidgeCV requires y to be passed, but the target y is None.")
        x = validate_features(self, X, reset=True, ensure_min_samples=2)
        targets = y if isinstance(y, ComputedMatrix) else validate_targets(y)
        result = ridge_cv(
            x,
            targets,
            alphas=DEFAULT_ALPHAS if self.alphas is None else self.alphas,
            groups=groups,
            target_rows=target_rows,
            sample_weight=sample_weight,
            cv=self.cv,
            n_folds=self.n_folds,
            search=self.search,  # type: ignore[arg-type]
            fit_intercept=self.fit_intercept,
            standardize=self.standardize,
            alpha_per=self.alpha_per,
            score=self.scoring,  # type: ignore[arg-type]
            solver=self.solver,  # type: ignore[arg-type]
            dtype=self.dtype,
            block_size=self.block_size,
            device=self.device,
            out=out,
        )
        vector = len(targets.shape) == 1
        self.coef_ = result.coef[:, 0] if vector else result.coef.T
        self.intercept_ = result.intercept[0] if vector else result.intercept
        self.alpha_ = result.alpha[0] if vector else result.alpha
        self.best_score_ = result.cv_scores[0] if vector else result.cv_scores
        self.cv_curve_, self.alphas_ = result.cv_curve, result.alphas
        self.x_mean_, self.x_scale_, self.y_mean_ = result.x_mean, result.x_scale, result.y_mean
        self.edge_fractions_ = (result.edge_fraction_low, result.edge_fraction_high)
        self.solver_ = result.solver
        return self

    def of_targets(self, targets: slice) -> RidgeCV:
        """Return the fitted regression of some of the targets.

        Parameters
        ----------
        targets : slice
            Columns of the y that was fitted, which must have had columns.

        Returns
        -------
        RidgeCV
            Its weights are a view; ``cv_curve_`` stays the mean over all targets.

        Warns
        -----
        RidgeEdgeWarning
            As in `calcarine.linear.ridge_cv`, about these targets.
        """
        check_fitted(self)
        part = copy(self)
        for name in ("coef_", "intercept_", "alpha_", "best_score_", "y_mean_"):
            setattr(part, name, getattr(self, name)[targets])
        best = np.searchsorted(self.alphas_, part.alpha_)
        part.edge_fractions_ = edge_fractions(best, part.best_score_ > 0, len(self.alphas_))
        warn_at_edges(*part.edge_fractions_, self.alphas_, "r2 above 0")
        return part


class BandedRidgeCV(_LinearEstimator):
    """Banded ridge regression: cross-validated penalties for each feature space and target.

    Parameters
    ----------
    feature_groups : array-like, shape (p,), optional
        Feature space of each column of X, as numbers or strings. By default all columns are one
        space, and the model is ridge regression.
    alphas : array-like, shape (n_alphas,), optional
        Penalties to try; `calcarine.linear.DEFAULT_ALPHAS` by default.
    cv : "kfold", int, splitter or iterable
        Number of folds over groups, or any splitter of scikit-learn.
    n_folds, n_candidates, fit_intercept, standardize, solver, random_state, dtype, block_size
        See `calcarine.linear.banded_ridge_cv`.
    scoring : {"r2", "correlation"}
        Score that chooses the penalties; ``score`` in `calcarine.linear.banded_ridge_cv`.

    Attributes
    ----------
    space_names_ : ndarray, shape (S,)
        Distinct values of `feature_groups`, sorted; the rows of `gamma_` and `penalties_`.
    column_spaces_ : ndarray of int, shape (p,)
        Index in `space_names_` of each column of X.
    coef_ : ndarray, shape (t, p), or (p,) when y was a vector
        Weights in the units of X, in scikit-learn's orientation: ``X @ coef_.T + intercept_``
        predicts.
    intercept_, alpha_, best_score_ : ndarray, shape (t,), or a number when y was a vector
        Intercept, chosen penalty of the weighted kernel and its held-out score. The score is that
        of the held-out rows of all folds together, each as often as it is held out.
    gamma_, penalties_ : ndarray, shape (S, t), or (S,) when y was a vector
        Kernel weights and penalties of the spaces.
    x_mean_, x_scale_ : ndarray, shape (p,)
        Mean and scale of the columns.
    y_mean_ : ndarray, shape (t,)
        Mean of the targets.
    solver_ : {"primal", "dual"}
        What was decomposed: p x p or n x n matrices.
    n_features_in_ : int
        p, the number of columns of X.

    See Also
    --------
    calcarine.linear.banded_ridge_cv : The function that does the work, with every option.
    calcarine.linear.RidgeCV : One penalty for all columns.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import BandedRidgeCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5))
    >>> y = X[:, 0] + rng.normal(size=60)
    >>> space = ["motion", "motion", "words", "words", "words"]
    >>> model = BandedRidgeCV(space, alphas=np.logspace(-1, 6, 8)).fit(X, y)
    >>> model.space_names_.tolist(), model.predict(X[:2], split=True).shape
    (['motion', 'words'], (2, 2))
    """

    def __init__(
        self,
        feature_groups: npt.ArrayLike | None = None,
        *,
        alphas: npt.ArrayLike | None = None,
        cv: Any = "kfold",
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
        self.cv = cv
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
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> BandedRidgeCV:
        """Fit on all rows, with penalties chosen by cross-validation over whole groups.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : array-like, shape (n, t) or (n,)
        groups : array-like, shape (n,), optional
            Stimulus id of each trial.
        sample_weight : array-like, shape (n,), optional
            Weight of each trial, in the fit and in held-out errors.

        Returns
        -------
        BandedRidgeCV
            The fitted estimator.

        Raises
        ------
        RidgeError
            As in `calcarine.linear.banded_ridge_cv`, and when `feature_groups` does not label every
            column.
        """
        if y is None:
            raise RidgeError("BandedRidgeCV requires y to be passed, but the target y is None.")
        x = validate_features(self, X, reset=True, ensure_min_samples=2)
        targets = validate_targets(y)
        check_finite(x, "X")
        names, space_of_column = column_spaces(self.feature_groups, x.shape[1])
        result = banded_ridge_cv(
            [x[:, space_of_column == s] for s in range(len(names))],
            targets,
            alphas=DEFAULT_ALPHAS if self.alphas is None else self.alphas,
            groups=groups,
            sample_weight=sample_weight,
            cv=self.cv,
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
        self.space_names_, self.column_spaces_ = names, space_of_column
        coef = np.concatenate(result.coefs)[back]
        self.coef_ = coef[:, 0] if targets.ndim == 1 else coef.T
        self.intercept_, self.alpha_ = result.intercept[pick], result.alpha[pick]
        self.best_score_ = result.cv_scores[pick]
        self.gamma_, self.penalties_ = result.gamma[pick], result.penalties[pick]
        self.x_mean_ = np.concatenate(result.x_mean)[back]
        self.x_scale_ = np.concatenate(result.x_scale)[back]
        self.y_mean_, self.solver_ = result.y_mean, result.solver
        return self

    def predict(self, X: npt.ArrayLike, split: bool = False) -> npt.NDArray[Any]:
        """Predict in float64 from all spaces together, or from each alone.

        Parameters
        ----------
        X : array-like, shape (m, p)
        split : bool
            Predict from each feature space alone, without the intercept.

        Returns
        -------
        ndarray, shape (m, t), or (m,) when y was a vector
            With `split`, shape (S, m, t) or (S, m): one prediction for each of `space_names_`,
            which sum to the prediction of all spaces minus `intercept_`.

        Raises
        ------
        RidgeError
            When unfitted, or X has other columns than the fit or values that are not finite.
        """
        if not split:
            return super().predict(X)
        parts = self._parts(X) + self._offsets()[:, None]
        return parts[..., 0] if self.coef_.ndim == 1 else parts

    def score(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        split: bool = False,
    ) -> Any:
        """Return the r2 of the prediction, or the share of each space in it.

        Parameters
        ----------
        X : array-like, shape (m, p)
        y : array-like, shape (m, t) or (m,)
        sample_weight : array-like, shape (m,), optional
            Weight of each trial.
        split : bool
            Divide the r2 of each target over the spaces by the product measure; see
            `calcarine.linear.split_r2`.

        Returns
        -------
        float
            Mean r2 over targets, as every regressor of scikit-learn returns. With `split`, an
            ndarray of shape (S, t), or (S,) when y was a vector: its sum over the spaces is the r2
            of each target, and 0 for a constant target.

        Raises
        ------
        RidgeError
            When unfitted, or X or y do not match the fit or have values that are not finite.
        """
        if not split:
            return super().score(X, y, sample_weight)
        parts = self._parts(X)
        gamma = self.gamma_[:, None] if self.coef_.ndim == 1 else self.gamma_
        weights = check_weights(sample_weight, parts.shape[1])
        shares = product_measure(parts, gamma, self.y_mean_, y, weights, names=("X", "y"))
        return shares[:, 0] if self.coef_.ndim == 1 else shares

    def _parts(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the contribution of each space to the deviation from the mean, shape (S, m, t)."""
        check_fitted(self)
        x, coef = validate_features(self, X, reset=False), by_column(self)
        check_finite(x, "X")
        parts = np.empty((len(self.space_names_), len(x), coef.shape[1]))
        zero = np.zeros(coef.shape[1])
        for s, part in enumerate(parts):
            own = self.column_spaces_ == s
            predict_linear(x[:, own], coef[own], self.x_mean_[own], zero, out=part)
        return parts

    def _offsets(self) -> npt.NDArray[np.float64]:
        """Return the prediction of each space for the mean of X, shape (S, t)."""
        coef = by_column(self)
        spaces = [self.column_spaces_ == s for s in range(len(self.space_names_))]
        return np.stack([self.x_mean_[own] @ coef[own] for own in spaces])


def by_column(estimator: _LinearEstimator) -> npt.NDArray[Any]:
    """Return the weights as a view of shape (p, t), as in `RidgeResult`."""
    return estimator.coef_[:, None] if estimator.coef_.ndim == 1 else estimator.coef_.T


def check_fitted(estimator: _LinearEstimator) -> None:
    """Raise `RidgeNotFittedError` unless `estimator` is fitted."""
    if not hasattr(estimator, "coef_"):
        raise RidgeNotFittedError(
            f"This {type(estimator).__name__} is not fitted yet; call fit(X, y) first."
        )
