"""Arguments of a fit, checked; each mistake is told in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._checks import RidgeError, check_alphas, check_choice, check_finite
from calcarine.linear._sources import Matrix, as_source, in_memory


def check_memory(memory: float | None) -> float | None:
    """Bytes as a number; None for no bound."""
    if memory is None or memory == float("inf"):
        return None
    is_number = isinstance(memory, int | float | np.number) and not isinstance(memory, bool)
    if not is_number or not memory > 0:
        raise RidgeError(f"memory is {memory!r}; give a number of bytes above 0, or None.")
    return float(memory)


def check_data(X: npt.ArrayLike, Y: npt.ArrayLike) -> tuple[Matrix, Matrix]:
    """X and Y as matrices in memory or on disk."""
    x, y = as_source(X, "X"), as_source(Y, "Y")
    if isinstance(x, np.ndarray) and np.ndim(X) != 2:
        raise RidgeError("X has one dimension; pass a 2-D array with one row per trial.")
    if in_memory(y):
        check_finite(y, "Y")  # before hours of work; what lies on disk is checked as it is read
    return x, y


def check_target_rows(
    target_rows: npt.ArrayLike | None, n_rows: int, n_targets_rows: int
) -> npt.NDArray[np.intp]:
    """Row of Y of each trial; their own number where none are told."""
    if target_rows is None:
        if n_rows != n_targets_rows:
            raise RidgeError(
                f"X has {n_rows} rows but Y has {n_targets_rows}; pass one row per trial in both, "
                "or target_rows with the row of Y of each trial."
            )
        return np.arange(n_rows)
    rows = np.asarray(target_rows)
    if rows.shape != (n_rows,) or rows.dtype.kind not in "iu":
        raise RidgeError(
            f"target_rows has shape {rows.shape} and type {rows.dtype}; "
            f"pass one whole number for each of the {n_rows} rows of X."
        )
    unused = np.setdiff1d(np.arange(n_targets_rows), rows)
    if len(unused) or rows.min() < 0 or rows.max() >= n_targets_rows:
        raise RidgeError(
            f"target_rows must name every row of Y, 0 to {n_targets_rows - 1}; it goes from "
            f"{rows.min()} to {rows.max()} and leaves out {len(unused)}. Pass only used rows of Y."
        )
    return rows.astype(np.intp)


def check_alpha_per(alpha_per: Any, n_targets: int) -> npt.NDArray[np.intp] | None:
    """None for a penalty per target, otherwise a label for each target."""
    if isinstance(alpha_per, str):
        check_choice(alpha_per, ("target", "all"), "alpha_per")
        return None if alpha_per == "target" else np.zeros(n_targets, np.intp)
    labels = np.asarray(alpha_per)
    if labels.shape != (n_targets,):
        raise RidgeError(
            f"alpha_per has shape {labels.shape}; pass 'target', 'all' or a label for each of the "
            f"{n_targets} targets."
        )
    try:
        return np.asarray(np.unique(labels, return_inverse=True)[1])
    except TypeError as error:
        raise RidgeError(
            f"alpha_per mixes kinds of label ({error}); use only numbers or only strings."
        ) from error


def check_cv(cv: Any, methods: tuple[str, ...]) -> str:
    """Which method `cv` stands for: its own name, or "kfold" for folds that are given.

    Raises
    ------
    RidgeError
        When it is a word that is none of `methods`, or nothing that gives folds.
    """
    if isinstance(cv, str) and cv in methods:
        return cv
    if cv is None or isinstance(cv, str | bytes | bool | float):
        words = ", ".join(repr(word) for word in methods)
        raise RidgeError(
            f"cv is {cv!r}; choose {words}, a number of folds, a splitter of scikit-learn or a "
            "list of (train, test) row numbers."
        )
    return "kfold"


def check_fixed(
    alphas: npt.ArrayLike, alpha_per: Any, n_targets: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Distinct penalties, ascending, and which of them each target has.

    Raises
    ------
    RidgeError
        When there is neither one penalty for all targets nor one for each.
    """
    penalties = check_alphas(alphas)
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if len(values) not in (1, n_targets):
        raise RidgeError(
            f"alphas holds {len(values)} penalties for {n_targets} target(s), and cv='fixed' "
            "chooses none; pass one for all targets, or one for each."
        )
    if not isinstance(alpha_per, str) or alpha_per != "target":
        raise RidgeError("alpha_per shares a penalty that is chosen; leave it out for cv='fixed'.")
    return penalties, np.searchsorted(penalties, np.broadcast_to(values, n_targets))


def own_precision(x: Matrix) -> str:
    """What "auto" stands for."""
    small = np.dtype(x.dtype).kind == "f" and np.dtype(x.dtype).itemsize <= 4
    return "float32" if small else "float64"
