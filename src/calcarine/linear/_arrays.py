"""The few array operations on which numpy and torch differ, for the processor and for CUDA.

On the processor everything goes through numpy, so that fits there need no torch. Large buffers are
used again where they can be: a fresh one costs a page fault for every 4 kB.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from functools import cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import ThreadpoolController

from calcarine.linear._checks import FloatArray, RidgeError

Array = Any
"""A numpy array, or a torch tensor on the device of its `Ops`."""

_ROWS_AT_ONCE = 128


def dtype_of(array: Array) -> np.dtype[Any]:
    """The dtype of either kind of array, as numpy calls it."""
    return np.dtype(str(array.dtype).removeprefix("torch."))


class Ops(Protocol):
    """What the solvers need beyond operators and slices, which both kinds of array share."""

    device: str

    def put(self, values: npt.NDArray[Any], dtype: np.dtype[Any]) -> Array: ...
    def get(self, array: Array) -> npt.NDArray[Any]: ...
    def empty(self, shape: tuple[int, ...], like: Array) -> Array: ...
    def eye(self, size: int, like: Array) -> Array: ...
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array: ...
    def householder(self, panel: Array) -> tuple[Array, Array, Array]: ...
    def cholesky(self, a: Array) -> Array: ...
    def inverse_lower(self, a: Array) -> Array: ...
    def eigh(self, a: Array) -> tuple[Array, Array]: ...
    def svd(self, a: Array) -> tuple[Array, Array, Array]: ...
    def column_dots(self, a: Array, b: Array) -> npt.NDArray[np.float64]: ...
    def weighted_squares(
        self, weights: FloatArray, a: Array, scale: float
    ) -> npt.NDArray[np.float64]: ...


@cache
def _libraries() -> list[Any]:
    return [
        library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"
    ]


def _of_scipy() -> list[Any]:
    of_numpy = any("numpy" in library.filepath for library in _libraries())
    return [library for library in _libraries() if of_numpy and "scipy.libs" in library.filepath]


class WithoutThreads(ContextDecorator):
    """A context in which some BLAS has one thread; the last to leave it gives them back."""

    def __init__(self, libraries: Callable[[], list[Any]]) -> None:
        self._libraries = libraries
        self._lock, self._inside = Lock(), 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [(library, library.num_threads) for library in self._libraries()]
                for library, _ in self._before:
                    library.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, count in self._before:
                    library.set_num_threads(count)


one_pool = WithoutThreads(_of_scipy)
"""Keeps scipy's own BLAS to one thread.

The wheels of numpy and scipy bring one each. Threads of the one spin for a while after their work,
and the other's wait for the processors: fits that use both take three times as long.
"""


class NumpyOps:
    """numpy, and scipy for what LAPACK has and numpy does not."""

    device = "cpu"

    def put(self, values: npt.NDArray[Any], dtype: np.dtype[Any]) -> Array:
        return np.ascontiguousarray(values, dtype=dtype)

    def get(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return np.empty(shape, like.dtype)

    def eye(self, size: int, like: Array) -> Array:
        return np.eye(size, dtype=like.dtype)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        return np.matmul(a, b, out=out)

    def householder(self, panel: Array) -> tuple[Array, Array, Array]:
        """Reflectors V (m, b), unit lower triangular, factors tau (b,) and R (b, b)."""
        transposed, tau = np.linalg.qr(panel, mode="raw")
        raw = transposed.T
        width = panel.shape[1]
        r = np.triu(raw[:width])
        v = np.tril(raw, -1)
        v[np.arange(width), np.arange(width)] = 1
        return np.ascontiguousarray(v), tau, r

    def cholesky(self, a: Array) -> Array:
        return np.linalg.cholesky(a)

    def inverse_lower(self, a: Array) -> Array:
        trtri = scipy.linalg.get_lapack_funcs("trtri", (a,))
        inverse, _ = trtri(a, lower=1)
        return np.tril(inverse)

    def eigh(self, a: Array) -> tuple[Array, Array]:
        eigen, vectors = np.linalg.eigh(a)
        return eigen, vectors

    def svd(self, a: Array) -> tuple[Array, Array, Array]:
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return u, s, vt

    def column_dots(self, a: Array, b: Array) -> npt.NDArray[np.float64]:
        """Dot product of each column of a with that of b; float64 across chunks of rows."""
        total = np.zeros(a.shape[1])
        for start in range(0, len(a), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            total += np.einsum("ij,ij->j", a[rows], b[rows])
        return total

    def weighted_squares(
        self, weights: FloatArray, a: Array, scale: float
    ) -> npt.NDArray[np.float64]:
        """Sums over the rows of a (r, t), scaled and squared, with each row of weights (k, r)."""
        scaled = np.multiply(a, scale, dtype=np.float64)
        sums: npt.NDArray[np.float64] = weights @ np.square(scaled, out=scaled)
        return sums


class TorchOps:
    """torch on any of its devices."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self.device = device

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchOps, (self.device,)

    def _dtype(self, dtype: np.dtype[Any]) -> Any:
        return self._torch.float32 if np.dtype(dtype) == np.float32 else self._torch.float64

    def put(self, values: npt.NDArray[Any], dtype: np.dtype[Any]) -> Array:
        if isinstance(values, self._torch.Tensor):
            return values.to(self.device, self._dtype(dtype)).contiguous()
        host = np.ascontiguousarray(values, dtype=dtype)
        return self._torch.tensor(host, device=self.device)

    def get(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array.cpu().numpy() if self._torch.is_tensor(array) else array)

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return self._torch.empty(shape, dtype=like.dtype, device=self.device)

    def eye(self, size: int, like: Array) -> Array:
        return self._torch.eye(size, dtype=like.dtype, device=self.device)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        return self._torch.matmul(a, b, out=out)

    def householder(self, panel: Array) -> tuple[Array, Array, Array]:
        raw, tau = self._torch.geqrf(panel)
        width = panel.shape[1]
        v = raw.tril(-1)
        v.diagonal().fill_(1)
        return v, tau, raw[:width].triu()

    def cholesky(self, a: Array) -> Array:
        factor, info = self._torch.linalg.cholesky_ex(a)
        if int(info) > 0:
            raise np.linalg.LinAlgError("not positive definite")
        return factor

    def inverse_lower(self, a: Array) -> Array:
        return self._torch.linalg.solve_triangular(a, self.eye(len(a), a), upper=False)

    def eigh(self, a: Array) -> tuple[Array, Array]:
        return tuple(self._torch.linalg.eigh(a))

    def svd(self, a: Array) -> tuple[Array, Array, Array]:
        return tuple(self._torch.linalg.svd(a, full_matrices=False))

    def column_dots(self, a: Array, b: Array) -> npt.NDArray[np.float64]:
        return self.get((a * b).sum(0, dtype=self._torch.float64))

    def weighted_squares(
        self, weights: FloatArray, a: Array, scale: float
    ) -> npt.NDArray[np.float64]:
        return self.get(self.put(weights, np.dtype(np.float64)) @ (a.double() * scale) ** 2)


def ops_for(device: str) -> Ops:
    """Operations for ``"cpu"`` (numpy) or a torch device such as ``"cuda"`` or ``"cuda:1"``.

    Raises
    ------
    RidgeError
        When torch does not know the device or finds none.
    """
    if device == "cpu":
        return NumpyOps()
    import torch

    try:
        chosen = torch.device(device.removeprefix("torch:"))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise RidgeError(
            f"device is {device!r}, which is not usable here ({str(error).splitlines()[0]}); "
            "choose 'cpu', or 'cuda' on a machine with a CUDA device."
        ) from error
    return TorchOps(str(chosen))
