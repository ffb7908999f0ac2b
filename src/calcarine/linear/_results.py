"""The results of a ridge fit: kept block by block in memory or on disk, printed, predicting."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.display import html_table, text_table
from calcarine.files import is_partial_file, read_json, write_bytes, write_text
from calcarine.linear._predictors import Matrix, as_source, release, row_chunks
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    check_finite,
)

_PREDICT_ROWS = 64
_PREDICT_COLUMNS = 8192


def predict_linear(
    X: npt.ArrayLike,
    coef: FloatArray,
    x_mean: FloatArray,
    y_mean: FloatArray,
    out: FloatArray | None = None,
) -> FloatArray:
    """Predict ``(X - x_mean) @ coef + y_mean`` in float64, independent of the batch size.

    Rows are multiplied in padded batches of one fixed size, so that a row gives the same
    prediction alone as among a thousand others. The mean is subtracted first: predictors with a
    large offset would otherwise cancel against the intercept.

    Parameters
    ----------
    X : array-like, shape (m, p)
        A zarr array, HDF5 data set or memory map is read in chunks of rows.
    coef : ndarray, shape (p, t)
        May be a memory map, as after a fit with `out`.
    x_mean : ndarray, shape (p,)
    y_mean : ndarray, shape (t,)
    out : ndarray, shape (m, t), optional
        Array for the result. Pass a memory map for predictions larger than memory.

    Returns
    -------
    ndarray, shape (m, t)

    Raises
    ------
    RidgeError
        When X has another number of columns than the fit or values that are not finite, or when
        `out` has another shape or is not a floating point array.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import predict_linear, ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 30))
    >>> Y = X @ rng.standard_normal((30, 3)) + 4 * rng.standard_normal((50, 3))
    >>> fit = ridge_cv(X, Y)
    >>> predicted = predict_linear(X, fit.coef, fit.x_mean, fit.y_mean)
    >>> np.allclose(predicted, X @ fit.coef + fit.intercept)
    True
    """
    x = as_source(X, "X")
    if np.ndim(X) != 2 or x.shape[1] != coef.shape[0]:
        raise RidgeShapeError(
            f"X has shape {np.shape(X)} but the fit had {coef.shape[0]} columns; "
            "pass a 2-D array with the same voxels in the same order."
        )
    shape = (x.shape[0], coef.shape[1])
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or np.dtype(out.dtype).kind != "f":
        raise RidgeShapeError(
            f"out has shape {out.shape} and type {out.dtype} but the prediction has shape {shape}; "
            "pass a floating point array of that shape."
        )
    for rows in row_chunks(x):
        chunk = np.asarray(x[rows])
        check_finite(chunk, "X", first_row=rows.start)
        for first in range(0, shape[1], _PREDICT_COLUMNS):
            columns = slice(first, first + _PREDICT_COLUMNS)
            weights = np.asarray(coef[:, columns], dtype=np.float64)
            for start in range(0, len(chunk), _PREDICT_ROWS):
                part = chunk[start : start + _PREDICT_ROWS]
                padded = np.zeros((_PREDICT_ROWS, x.shape[1]))
                padded[: len(part)] = part
                padded[: len(part)] -= x_mean
                here = slice(rows.start + start, rows.start + start + len(part))
                out[here, columns] = (padded @ weights)[: len(part)] + y_mean[columns]
            release(coef)
            release(out)
        release(x)
    return out


EDGE_SHARE = 0.05
"""A fit warns when more predictable targets than this choose an end of the penalty grid."""


class RidgeEdgeWarning(UserWarning):
    """Many targets chose the lowest or highest penalty; the best may lie outside the grid."""


def edge_fractions(
    best: npt.NDArray[np.intp], predictable: npt.NDArray[np.bool_], n_alphas: int
) -> tuple[float, float]:
    """Return the share of predictable targets that chose the first and the last penalty."""
    chosen = best[predictable]
    if chosen.size == 0 or n_alphas == 1:
        return 0.0, 0.0
    return float(np.mean(chosen == 0)), float(np.mean(chosen == n_alphas - 1))


def warn_at_edges(
    low: float, high: float, alphas: npt.NDArray[np.float64], predictable: str
) -> None:
    """Warn when over `EDGE_SHARE` of the predictable targets chose an end of the penalties."""
    if low + high <= EDGE_SHARE:
        return
    parts, remedies = [], []
    if low > 0:
        parts.append(f"{low:.1%} chose the lowest alpha ({alphas[0]:g})")
        remedies.append("smaller")
    if high > 0:
        parts.append(f"{high:.1%} chose the highest alpha ({alphas[-1]:g})")
        remedies.append("larger")
    warnings.warn(
        f"Of the targets with a held-out {predictable}, {' and '.join(parts)}; "
        f"widen alphas: add {' and '.join(remedies)} values.",
        RidgeEdgeWarning,
        stacklevel=4,  # this function, the fit and its decorator
    )


def range_of(values: FloatArray) -> str:
    """Return "lowest to highest" of some numbers, or the only one."""
    low, high = np.min(values), np.max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def median_score(scores: FloatArray) -> str:
    """Return the median of held-out scores as text."""
    known = scores[~np.isnan(scores)]
    return f"{np.median(known):.3g}" if known.size else "none (penalties are fixed)"


@dataclass(frozen=True, repr=False)
class RidgeResult:
    """Weights of a ridge fit in the units of X, with the chosen penalties and their scores.

    Attributes
    ----------
    coef : ndarray, shape (p, t)
        Weights on the *unscaled* columns of X; ``X @ coef + intercept`` predicts.
    intercept : ndarray, shape (t,)
        Zeros without an intercept.
    alpha : ndarray, shape (t,)
        Chosen penalty of each target.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its `alpha`, over the held-out rows of all folds together,
        each as often as it is held out; 0 for a target that is constant over them, NaN for fixed
        penalties.
    cv_curve : ndarray, shape (n_alphas,)
        Held-out score of each of `alphas`, mean over targets. NaN for fixed penalties, and for
        penalties that ``search="local"`` tried for some targets only, because means over different
        targets are not comparable.
    alphas : ndarray, shape (n_alphas,)
        Penalties tried, ascending.
    x_mean, x_scale : ndarray, shape (p,)
        Mean and scale of the columns (0 and 1 without centring and standardisation).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual", "svd"}
        What was decomposed: the p x p or the n x n Gram matrix or, for penalties too small for a
        Gram matrix, X itself.
    precision : {"float32", "float64"}
        Precision in which the weights were computed. It is "float64" where "float32" was given but
        would have lost too many digits.
    edge_fraction_low, edge_fraction_high : float
        Share of the targets with a held-out r2 above 0 that chose the lowest or the highest
        penalty; 0 when only one penalty was tried.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 30))
    >>> Y = X @ rng.standard_normal((30, 3)) + 4 * rng.standard_normal((200, 3))
    >>> result = ridge_cv(X, Y)
    >>> result.coef.shape, result.alpha.shape  # a penalty for each target
    ((30, 3), (3,))
    >>> bool((result.cv_scores > 0.3).all())
    True
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

    def _facts(self) -> dict[str, object]:
        p, t = self.coef.shape
        return {
            "weights": f"{p} predictors x {t} targets, {self.coef.dtype}",
            "penalties": f"{len(self.alphas)} tried, chosen {range_of(self.alpha)}",
            "median held-out score": median_score(self.cv_scores),
            "solver": self.solver,
        }

    def __repr__(self) -> str:
        return text_table("RidgeResult", self._facts())

    def _repr_html_(self) -> str:
        return html_table("RidgeResult", self._facts())


_PER_BLOCK = ("table", "r2", "mean", "chosen")


@dataclass
class BlockSolution:
    """Result for a block of t targets.

    Attributes
    ----------
    table, r2 : ndarray, shape (n_alphas, t)
        Held-out score and held-out r2 of every penalty; NaN where a penalty was not tried.
    mean : ndarray, shape (t,)
    chosen : ndarray of int, shape (t,)
        Index of the chosen penalty.
    coef : ndarray, shape (p, t), or None
        None where penalties are chosen over several blocks.
    """

    table: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    chosen: npt.NDArray[np.intp]
    coef: FloatArray | None


class WeightMemory:
    """Results of all blocks in memory; with `direct`, solvers write weights straight into it."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int, direct: bool = False
    ) -> None:
        self.coef: FloatArray = np.empty(shape, dtype)
        self.direct = direct
        n_targets = shape[1]
        self.solution = BlockSolution(
            np.empty((n_alphas, n_targets)),
            np.empty((n_alphas, n_targets)),
            np.empty(n_targets),
            np.empty(n_targets, np.intp),
            None,
        )

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        """Return whether a block was solved before, from the same targets."""
        return False

    def keep(self, block: slice, solved: BlockSolution) -> None:
        """Store the solution of one block."""
        self._store(block, solved.coef)
        for name in _PER_BLOCK:
            getattr(self.solution, name)[..., block] = getattr(solved, name)

    def buffer(self, block: slice) -> FloatArray | None:
        """Return the array that the weights of a block may be written to, or None."""
        return self.coef[:, block] if self.direct else None

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        """Return whether the weights of a block were stored before, for the same penalties."""
        return False

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        """Store the weights of one block, for penalties chosen over all blocks."""
        self._store(block, coef)

    def _store(self, block: slice, coef: FloatArray | None) -> None:
        if coef is not None and not np.may_share_memory(
            coef, self.coef
        ):  # else they are written already
            self.coef[:, block] = coef

    def solutions(self) -> BlockSolution:
        """Return scores, means and chosen penalties of all targets."""
        return self.solution

    def weights(self) -> FloatArray:
        """Return the weights of all targets, shape (p, t)."""
        return self.coef


class WeightFolder(WeightMemory):
    """Weights in ``coef.npy`` and, for each finished block, scores and penalties in a small file.

    A block is finished when its small file exists, because that file is written after the weights.
    Where targets share a penalty, weights are written in a second pass with small files of their
    own. A block of another size overwrites columns of earlier blocks, so their files are deleted
    first.
    """

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int
    ) -> None:
        super().__init__((0, shape[1]), dtype, n_alphas)
        self.folder, self.digests = folder, dict[int, str]()
        try:
            _claim(folder, key)
            self.coef = self._open(folder / "coef.npy", shape, dtype)
        except (OSError, ValueError) as error:
            if isinstance(error, RidgeError):
                raise
            raise RidgeSettingError(
                f"The weights cannot be written to {folder} ({error}); choose a folder with "
                f"{shape[0] * shape[1] * dtype.itemsize / 1e9:.2f} GB of room, or delete it."
            ) from error

    def _open(self, file: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> FloatArray:
        try:
            # "r+" alone would lengthen a file that was cut off.
            whole = np.lib.format.open_memmap(file, "r")
            if whole.shape == shape and whole.dtype == dtype:
                return np.lib.format.open_memmap(file, "r+")
        except (FileNotFoundError, ValueError):
            pass
        # The weights are lost or cut off, so the small files are no longer true.
        for stale in self.folder.glob("*-[0-9]*.npz"):
            stale.unlink()
        coef = np.lib.format.open_memmap(file, "w+", dtype, shape)
        try:
            _reserve(file)
        except OSError:
            file.unlink()
            raise
        return coef

    def _read(self, kind: str, block: slice) -> dict[str, npt.NDArray[Any]] | None:
        """Return the small file of a block, or None if it is missing or incomplete."""
        try:
            with np.load(self._file(kind, block), allow_pickle=False) as stored:
                content = dict(stored)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if str(content.pop("digest", "")) != self.digests[block.start]:
            raise RidgeSettingError(
                f"Y differs from the Y of the fit in {self.folder} (columns {block.start} to "
                f"{block.stop - 1}); choose another out, or delete that folder."
            )
        return content

    def _write(self, kind: str, block: slice, **content: Any) -> None:
        self.coef.flush()  # type: ignore[attr-defined]
        release(self.coef)
        packed = io.BytesIO()
        np.savez(packed, digest=np.asarray(self.digests[block.start]), **content)
        write_bytes(self._file(kind, block), packed.getvalue())

    def _invalidate(self, kinds: Sequence[str], block: slice) -> None:
        """Delete small files of other blocks whose columns are about to be overwritten."""
        for kind in kinds:
            own = self._file(kind, block)
            for file in self.folder.glob(f"{kind}-*.npz"):
                _, start, stop = file.stem.split("-")
                if file != own and int(start) < block.stop and block.start < int(stop):
                    file.unlink()

    def _file(self, kind: str, block: slice) -> Path:
        return self.folder / f"{kind}-{block.start:08d}-{block.stop:08d}.npz"

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        self.digests[block.start] = digest_of(y)
        stored = self._read("block", block)
        if stored is None or set(stored) != set(_PER_BLOCK):
            return False
        for name in _PER_BLOCK:
            getattr(self.solution, name)[..., block] = stored[name]
        return True

    def keep(self, block: slice, solved: BlockSolution) -> None:
        self._invalidate(("block", "weights"), block)
        super().keep(block, solved)
        self._write("block", block, **{name: getattr(solved, name) for name in _PER_BLOCK})

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        stored = self._read("weights", block)
        return stored is not None and np.array_equal(stored.get("chosen", []), chosen)

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        self._invalidate(("weights",), block)
        super().keep_weights(block, chosen, coef)
        self._write("weights", block, chosen=chosen)

    def weights(self) -> FloatArray:
        """Return the weights of all targets as a read-only memory map, shape (p, t)."""
        self.coef.flush()  # type: ignore[attr-defined]
        return np.load(self.folder / "coef.npy", mmap_mode="r")  # type: ignore[no-any-return]


def _reserve(file: Path) -> None:
    """Allocate the file on disk; a full disk would otherwise kill the process at a later write."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(file, "r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _claim(folder: Path, key: str) -> None:
    """Create the folder of a fit, or check that it holds the same fit; raise if not."""
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "fit.json"
    if about.exists():
        try:
            same = read_json(about)["key"] == key
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise RidgeSettingError(
                f"{folder} holds a fit of other data or settings; choose another out, or "
                "delete that folder."
            )
    elif any(not is_partial_file(file) for file in folder.iterdir()):
        raise RidgeSettingError(f"{folder} is not empty and holds no fit; choose another out.")
    else:
        write_text(about, json.dumps({"key": key}))


def open_store(
    out: str | os.PathLike[str] | None,
    key: str | None,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    n_alphas: int,
    *,
    direct: bool,
) -> WeightMemory:
    """Return a store for weights in memory, or in the folder `out`.

    Raises
    ------
    RidgeError
        When the folder holds another fit or cannot be written.
    """
    if out is None or key is None:
        return WeightMemory(shape, dtype, n_alphas, direct)
    return WeightFolder(Path(out), key, shape, dtype, n_alphas)


class RunningDigest:
    """Digest of values that arrive in chunks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """Add the values of a chunk, in C order."""
        self._hash.update(np.ascontiguousarray(chunk).data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fit_key(x: Matrix, x_digest: str, y: Matrix, *settings: Any) -> str:
    """Return a digest of everything that determines the weights, except the values of Y.

    Parameters
    ----------
    x, y : matrices
        Their shapes and types enter the digest.
    x_digest : str
        Digest of the values of X.
    settings : arrays, or objects with a complete repr
    """
    parts = [x_digest, repr((x.shape, str(x.dtype), y.shape, str(y.dtype)))]
    for setting in settings:
        is_array = isinstance(setting, np.ndarray)
        parts.append(digest_of(setting) if is_array else repr(setting))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_of(array: npt.NDArray[Any]) -> str:
    """Return a digest of the values of an array, in C order."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
