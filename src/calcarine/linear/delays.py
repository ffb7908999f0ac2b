"""Delayed copies of features, so that a linear model learns the shape of a slow response."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, validate_data

from calcarine.linear._validation import (
    RidgeError,
    RidgeNotFittedError,
    RidgeTypeError,
    check_finite,
)
from calcarine.linear.folds import check_labels, unique_labels


class Delayer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Place copies of the features beside each other, each delayed by a number of time points.

    Linear weights on delayed copies are a finite impulse response: one for each feature and
    target (Dale 1999; Nishimoto et al. 2011). A copy is filled up with zeros at the start of a run
    (at its end for negative delays), so that no time point meets a feature of another run.

    Parameters
    ----------
    delays : array-like of int, shape (k,)
        In time points (TRs). A delay of 2 predicts a response from what was shown two time points
        before; negative delays look ahead.
    run_length : int or array-like of int, optional
        Time points of every run, or of each run in turn. Without it, runs are told apart by the
        `groups` given to `transform`; without both, all rows are one run.

    Attributes
    ----------
    delays_ : ndarray of int, shape (k,)
        The delays, in the order of the blocks of columns.
    n_features_in_ : int
        p, the number of columns of X.

    See Also
    --------
    calcarine.linear.BandedRidgeCV : One penalty per feature space; label the delayed columns by
        ``numpy.tile(feature_groups, len(delays))``.

    Notes
    -----
    Center the features first, over each run: then zeros are their mean. Cross-validate over whole
    runs (``groups`` of the fit): delayed rows share features with their neighbours in time.

    Examples
    --------
    >>> from calcarine.linear import Delayer
    >>> Delayer(delays=[0, 1]).fit_transform([[1.0], [2.0], [3.0]], groups=["a", "a", "b"])
    array([[1., 0.],
           [2., 1.],
           [3., 0.]])
    """

    def __init__(
        self,
        delays: npt.ArrayLike = (1, 2, 3, 4),
        *,
        run_length: npt.ArrayLike | None = None,
    ) -> None:
        self.delays = delays
        self.run_length = run_length

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Delayer:
        """Check the delays and remember the columns of X; nothing is learned.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : ignored

        Returns
        -------
        Delayer
            Itself.

        Raises
        ------
        RidgeError
            When X is no matrix of finite numbers, or the delays are no distinct whole numbers.
        """
        check_finite(_validated(self, X, reset=True), "X")
        self.delays_ = _check_delays(self.delays)
        return self

    def transform(
        self, X: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Delay the columns of X within every run.

        Parameters
        ----------
        X : array-like, shape (n, p)
            One row per time point, in the order of time within each run.
        groups : array-like, shape (n,), optional
            Run of each row. The rows of a run must lie together.

        Returns
        -------
        ndarray, shape (n, k p)
            All columns at the first delay, then all columns at the second, and so on. In float32
            if X is, else in float64.

        Raises
        ------
        RidgeError
            When unfitted, X has other columns than the fit or values that are not finite, or the
            rows do not divide into runs.
        """
        self._check_fitted()
        x = _validated(self, X, reset=False)
        check_finite(x, "X")
        n_columns = x.shape[1]
        out = np.zeros((len(x), len(self.delays_) * n_columns), x.dtype)
        for run in self._runs(len(x), groups):
            rows, delayed = x[run], out[run]
            for k, delay in enumerate(self.delays_):
                later, earlier = _shifted(len(rows), int(delay))
                delayed[later, k * n_columns : (k + 1) * n_columns] = rows[earlier]
        return out

    def fit_transform(
        self, X: npt.ArrayLike, y: Any = None, groups: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Fit, then delay the columns of X; see `transform`.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : ignored
        groups : array-like, shape (n,), optional
            Run of each row.

        Returns
        -------
        ndarray, shape (n, k p)
        """
        delayed: npt.NDArray[np.floating[Any]] = self.fit(X, y).transform(X, groups)
        return delayed

    def inverse_transform(
        self, X: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Return features from their delayed copies: the mean of all copies of each value.

        Parameters
        ----------
        X : array-like, shape (n, k p)
            As `transform` returns it.
        groups : array-like, shape (n,), optional
            Run of each row, as for `transform`.

        Returns
        -------
        ndarray, shape (n, p)
            NaN in rows that no delay keeps: without a delay of 0, the last of each run.

        Raises
        ------
        RidgeError
            When unfitted, X has not k p columns or values that are not finite, or the rows do not
            divide into runs.
        """
        self._check_fitted()
        x, n_columns = _matrix(X), self.n_features_in_
        check_finite(x, "X")
        if x.shape[1] != len(self.delays_) * n_columns:
            raise RidgeError(
                f"X has {x.shape[1]} columns but {n_columns} features at {len(self.delays_)} "
                f"delays make {len(self.delays_) * n_columns}; pass what transform returned."
            )
        out = np.full((len(x), n_columns), np.nan, x.dtype)
        for run in self._runs(len(x), groups):
            rows = x[run]
            total, count = np.zeros((len(rows), n_columns)), np.zeros(len(rows))
            for k, delay in enumerate(self.delays_):
                later, earlier = _shifted(len(rows), int(delay))
                total[earlier] += rows[later, k * n_columns : (k + 1) * n_columns]
                count[earlier] += 1
            kept = count > 0
            out[run][kept] = total[kept] / count[kept, None]
        return out

    def get_feature_names_out(
        self, input_features: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.object_]:
        """Names of the delayed columns: ``name_delay2`` is the column ``name`` at a delay of 2.

        Parameters
        ----------
        input_features : array-like of str, shape (p,), optional
            Names of the columns; those of the fit, or "x0", "x1" and so on, by default.

        Returns
        -------
        ndarray of str, shape (k p,)

        Raises
        ------
        RidgeError
            When unfitted, or the names are not those of the fit.
        """
        self._check_fitted()
        fitted = getattr(self, "feature_names_in_", None)
        names = fitted if input_features is None else np.asarray(input_features, dtype=object)
        if names is None:
            names = np.array([f"x{i}" for i in range(self.n_features_in_)], dtype=object)
        if len(names) != self.n_features_in_:
            raise RidgeError(
                f"input_features should have length equal to number of features "
                f"({self.n_features_in_}), but has {len(names)}; pass one name per column."
            )
        if fitted is not None and not np.array_equal(names, fitted):
            raise RidgeError(
                "input_features is not equal to feature_names_in_; pass the names of the fit."
            )
        delayed = [f"{name}_delay{delay}" for delay in self.delays_ for name in names]
        return np.array(delayed, dtype=object)

    def _runs(self, n_rows: int, groups: npt.ArrayLike | None) -> list[slice]:
        """Rows of each run."""
        if groups is not None and self.run_length is not None:
            raise RidgeError("groups and run_length both say where runs end; give one of the two.")
        if groups is not None:
            ends = _ends_of_groups(groups, n_rows)
        elif self.run_length is not None:
            ends = _ends_of_lengths(self.run_length, n_rows)
        else:
            ends = np.array([n_rows])
        return [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def _check_fitted(self) -> None:
        if not hasattr(self, "delays_"):
            raise RidgeNotFittedError("This Delayer is not fitted yet; call fit(X) first.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _shifted(n_rows: int, delay: int) -> tuple[slice, slice]:
    """Rows that a delay reaches, and the rows that are found there."""
    if delay >= 0:
        return slice(min(delay, n_rows), n_rows), slice(0, max(n_rows - delay, 0))
    return slice(0, max(n_rows + delay, 0)), slice(min(-delay, n_rows), n_rows)


def _ends_of_groups(groups: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.intp]:
    labels = check_labels(groups, n_rows)
    ids, numbers, _ = unique_labels(labels)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    if len(starts) > len(ids):
        again = next(k for k in range(len(starts)) if numbers[starts[k]] in numbers[starts[:k]])
        raise RidgeError(
            f"The rows of run {labels[starts[again]]} do not lie together (it begins again at "
            f"row {starts[again]}); sort rows by run and time, and give every run its own label."
        )
    return np.append(starts[1:], n_rows)


def _ends_of_lengths(run_length: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.intp]:
    lengths = np.asarray(run_length)
    if lengths.ndim > 1 or lengths.dtype.kind not in "iu" or not lengths.size or lengths.min() < 1:
        raise RidgeError(
            f"run_length is {run_length!r}; pass the time points of every run, or of each."
        )
    if lengths.ndim == 0:
        lengths = np.full(-(-n_rows // int(lengths)), int(lengths))
    if lengths.sum() != n_rows:
        raise RidgeError(
            f"run_length={run_length!r} does not make the {n_rows} rows of X; pass whole runs, or "
            "the run of each row as groups."
        )
    return np.cumsum(lengths)


def _check_delays(delays: npt.ArrayLike) -> npt.NDArray[np.intp]:
    values = np.atleast_1d(np.asarray(delays))
    if values.ndim != 1 or values.dtype.kind not in "iu" or not values.size:
        raise RidgeError(f"delays is {delays!r}; pass whole numbers of time points.")
    if len(np.unique(values)) < len(values):
        raise RidgeError(f"delays holds a delay twice ({delays!r}); pass each once.")
    return values.astype(np.intp)


def _validated(estimator: Delayer, X: Any, *, reset: bool) -> npt.NDArray[np.floating[Any]]:
    """Check X as scikit-learn does, names and all."""
    try:
        return np.asarray(
            validate_data(
                estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False
            )
        )
    except TypeError as error:
        raise RidgeTypeError(str(error)) from error
    except ValueError as error:
        raise RidgeError(str(error)) from error


def _matrix(X: Any) -> npt.NDArray[np.floating[Any]]:
    try:
        return np.asarray(check_array(X, dtype=[np.float64, np.float32], ensure_all_finite=False))
    except ValueError as error:
        raise RidgeError(str(error)) from error
