"""Delayed copies of features, for a linear model of slow responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array

from calcarine.linear._inputs import check_labels, unique_labels
from calcarine.linear._validation import (
    RidgeError,
    RidgeNotFittedError,
    RidgeSettingError,
    RidgeShapeError,
    check_finite,
    validate_features,
)

__all__ = ["Delayer"]

_FLOATS = [np.float64, np.float32]


class Delayer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Concatenate delayed copies of the features.

    Linear weights on delayed copies are a finite impulse response for each feature and target
    (Dale 1999; Nishimoto et al. 2011). Copies are padded with zeros at the start of a run (at its
    end for negative delays), so that no time point gets a feature of another run.

    Parameters
    ----------
    delays : array-like of int, shape (k,)
        In time points (TRs). A delay of 2 predicts a response from the features two time points
        before; negative delays use later features.
    run_length : int or array-like of int, optional
        Number of time points of all runs, or of each run. Without it, pass the run of each row as
        `groups` to `transform`; without both, all rows are one run.

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
    Centre the features of each run first, so that zeros are their mean. Cross-validate over whole
    runs (``groups`` of the fit), because neighbouring time points share features.

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
        """Check the delays and the columns of X; nothing is learned from the values.

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
            When X is not a matrix of finite numbers, or the delays are not distinct integers.
        """
        check_finite(validate_features(self, X, reset=True, dtype=_FLOATS), "X")
        self.delays_ = _check_delays(self.delays)
        return self

    def transform(
        self, X: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Delay the columns of X within every run.

        Parameters
        ----------
        X : array-like, shape (n, p)
            One row per time point, in temporal order within each run.
        groups : array-like, shape (n,), optional
            Run of each row. The rows of a run must be adjacent.

        Returns
        -------
        ndarray, shape (n, k p)
            All columns at the first delay, then all columns at the second, and so on; float32 if X
            is, otherwise float64.

        Raises
        ------
        RidgeError
            When unfitted, X has other columns than the fit or values that are not finite, or the
            runs do not match the rows.
        """
        self._check_fitted()
        x = validate_features(self, X, reset=False, dtype=_FLOATS)
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
        """Return features from their delayed copies, as the mean of all copies of each value.

        Parameters
        ----------
        X : array-like, shape (n, k p)
            As `transform` returns it.
        groups : array-like, shape (n,), optional
            Run of each row, as for `transform`.

        Returns
        -------
        ndarray, shape (n, p)
            NaN in rows that no copy contains: without a delay of 0, the last rows of each run.

        Raises
        ------
        RidgeError
            When unfitted, X does not have k p columns or has values that are not finite, or the
            runs do not match the rows.
        """
        self._check_fitted()
        x, n_columns = _matrix(X), self.n_features_in_
        check_finite(x, "X")
        if x.shape[1] != len(self.delays_) * n_columns:
            raise RidgeShapeError(
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
        """Return names of the delayed columns: ``name_delay2`` is ``name`` at a delay of 2.

        Parameters
        ----------
        input_features : array-like of str, shape (p,), optional
            Names of the columns; by default the names of the fit, or "x0", "x1" and so on.

        Returns
        -------
        ndarray of str, shape (k p,)

        Raises
        ------
        RidgeError
            When unfitted, or the names differ from the names of the fit.
        """
        self._check_fitted()
        fitted = getattr(self, "feature_names_in_", None)
        names = fitted if input_features is None else np.asarray(input_features, dtype=object)
        if names is None:
            names = np.array([f"x{i}" for i in range(self.n_features_in_)], dtype=object)
        if len(names) != self.n_features_in_:
            raise RidgeShapeError(
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
        """Return the rows of each run."""
        if groups is not None and self.run_length is not None:
            raise RidgeSettingError("groups and run_length both define runs; pass one of the two.")
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
    """Return the rows that a delayed copy fills, and the rows of the features it takes."""
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
            f"The rows of run {labels[starts[again]]} are not adjacent (it begins again at row "
            f"{starts[again]}); sort rows by run and time, and give every run its own label."
        )
    return np.append(starts[1:], n_rows)


def _ends_of_lengths(run_length: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.intp]:
    lengths = np.asarray(run_length)
    if lengths.ndim > 1 or lengths.dtype.kind not in "iu" or not lengths.size or lengths.min() < 1:
        raise RidgeSettingError(
            f"run_length is {run_length!r}; pass the time points of every run, or of each."
        )
    if lengths.ndim == 0:
        lengths = np.full(-(-n_rows // int(lengths)), int(lengths))
    if lengths.sum() != n_rows:
        raise RidgeShapeError(
            f"run_length={run_length!r} does not sum to the {n_rows} rows of X; pass whole "
            "runs, or the run of each row as groups."
        )
    return np.cumsum(lengths)


def _check_delays(delays: npt.ArrayLike) -> npt.NDArray[np.intp]:
    values = np.atleast_1d(np.asarray(delays))
    if values.ndim != 1 or values.dtype.kind not in "iu" or not values.size:
        raise RidgeSettingError(f"delays is {delays!r}; pass whole numbers of time points.")
    if len(np.unique(values)) < len(values):
        raise RidgeSettingError(f"delays holds a delay twice ({delays!r}); pass each once.")
    return values.astype(np.intp)


def _matrix(X: Any) -> npt.NDArray[np.floating[Any]]:
    try:
        return np.asarray(check_array(X, dtype=_FLOATS, ensure_all_finite=False))
    except ValueError as error:
        raise RidgeError(str(error)) from error
