"""Where a fit computes: numpy or torch arrays, this process or the workers of a Dask cluster.

On the CPU everything goes through numpy, so that a fit does not need torch. Large buffers are
reused where possible, because a new one costs a page fault for every 4 kB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator
from functools import cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import ThreadpoolController

from calcarine.linear._validation import FloatArray, RidgeError, RidgeSettingError

Array = Any
"""A numpy array, or a torch tensor on the device of its `Ops`."""

_ROWS_AT_ONCE = 128
_JOBS_AHEAD = 2
_TRIES = 5
_WAIT_SECONDS = 60
_LARGE_BYTES = 1_000_000
_NO_WORKERS = "The Dask cluster has no workers; start some, or leave the client out to fit here."


def dtype_of(array: Array) -> np.dtype[Any]:
    """Return the numpy dtype of a numpy array or torch tensor."""
    return np.dtype(str(array.dtype).removeprefix("torch."))


class Ops(Protocol):
    """Operations in which numpy and torch differ; operators and slices are the same in both."""

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


def _scipy_blas() -> list[Any]:
    has_numpy = any("numpy" in library.filepath for library in _libraries())
    return [library for library in _libraries() if has_numpy and "scipy.libs" in library.filepath]


class WithoutThreads(ContextDecorator):
    """Context in which some BLAS libraries use one thread; the last exit restores the number."""

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


one_pool = WithoutThreads(_scipy_blas)
"""Limits scipy's own BLAS to one thread.

The wheels of numpy and scipy each bring a BLAS. Threads of one keep spinning for a while after
their work while threads of the other wait for the cores: fits that use both take three times as
long.
"""


class NumpyOps:
    """numpy, with scipy for LAPACK routines that numpy lacks."""

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
        """Return reflectors V (m, b), unit lower triangular, factors tau (b,) and R (b, b)."""
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
        """Return the dot product of each column of a with that of b, in float64 over chunks."""
        total = np.zeros(a.shape[1])
        for start in range(0, len(a), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            total += np.einsum("ij,ij->j", a[rows], b[rows])
        return total

    def weighted_squares(
        self, weights: FloatArray, a: Array, scale: float
    ) -> npt.NDArray[np.float64]:
        """Return weighted sums over the rows of a (r, t), scaled and squared, shape (k, t)."""
        scaled = np.multiply(a, scale, dtype=np.float64)
        sums: npt.NDArray[np.float64] = weights @ np.square(scaled, out=scaled)
        return sums


class TorchOps:
    """torch on one of its devices."""

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
    """Return the operations for ``"cpu"`` (numpy) or a torch device such as ``"cuda:1"``.

    Raises
    ------
    RidgeError
        When torch does not know the device or cannot use it.
    """
    if device == "cpu":
        return NumpyOps()
    import torch

    try:
        chosen = torch.device(device.removeprefix("torch:"))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise RidgeSettingError(
            f"device is {device!r}, which is not usable here ({str(error).splitlines()[0]}); "
            "choose 'cpu', or 'cuda' on a machine with a CUDA device."
        ) from error
    return TorchOps(str(chosen))


class Runner(Protocol):
    """Calls ``function(*shared, *job)`` for every job and yields the results in order."""

    def __call__(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...] = (),
    ) -> Iterator[Any]: ...


def runner_for(client: Any) -> Runner:
    """Return the runner of a Dask client, or of this process for None.

    Raises
    ------
    RidgeError
        When `client` is not a Dask client, is closed or asynchronous, or has no workers.
    """
    if client is None:
        return _run_here
    if not all(hasattr(client, part) for part in ("submit", "scatter", "nthreads", "status")):
        raise RidgeSettingError(
            f"client is a {type(client).__name__}; pass a dask.distributed.Client or None."
        )
    _check_open(client)
    if getattr(client, "asynchronous", False):
        raise RidgeSettingError(
            "The Dask client is asynchronous; pass one made with asynchronous=False."
        )
    if not client.nthreads():
        raise RidgeSettingError("The Dask client has no workers; start some before fitting.")
    return _DaskRunner(client)


def _check_open(client: Any, cause: BaseException | None = None) -> None:
    if client.status != "running":
        raise RidgeSettingError(
            f"The Dask client is {client.status}; fit with one that is connected to its cluster."
        ) from cause


def _run_here(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], shared: tuple[Any, ...] = ()
) -> Iterator[Any]:
    for job in jobs:
        result = function(*shared, *job)
        del job  # frees its memory while the result is used
        yield result
        del result


class _DaskRunner:
    """Runs jobs on the workers of a Dask cluster.

    A few jobs are submitted ahead of the workers, so that targets are read only when needed.
    Arguments that all jobs share are sent to every worker once. When a worker is lost, Dask runs
    its jobs elsewhere, and data that only that worker held is sent again.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def __call__(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...] = (),
    ) -> Iterator[Any]:
        try:
            yield from self._results(function, jobs, shared)
        except RidgeError:
            raise
        except Exception as error:  # any call can fail while a client is being closed
            _check_open(self.client, error)
            raise

    def _results(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...],
    ) -> Iterator[Any]:
        sent = self._send(shared)
        waiting: deque[tuple[tuple[Any, ...], list[Any], Any]] = deque()
        remaining = iter(jobs)
        while True:
            _check_open(self.client)
            while len(waiting) < _JOBS_AHEAD * max(1, self._n_threads()):
                job = next(remaining, None)
                if job is None:
                    break
                waiting.append((job, sent, self._submit(function, sent, job)))
            if not waiting:
                return
            job, used, future = waiting.popleft()
            for tries in range(1, _TRIES + 1):
                try:
                    result = self._result(future)
                    break
                except _lost_worker_errors() as error:
                    _check_open(self.client, error)
                    if tries == _TRIES:
                        raise RidgeError(
                            f"Workers of the Dask cluster were lost {_TRIES} times over one part "
                            "of the fit; give them more memory, or set memory or block_size."
                        ) from error
                    if used is sent:
                        sent = self._send(shared)
                    used = sent
                    future = self._submit(function, sent, job)
            yield result

    def _n_threads(self) -> int:
        return sum(self.client.nthreads().values())

    def _result(self, future: Any) -> Any:
        """Wait for a result, but not forever once all workers are lost and none comes back."""
        without_workers = 0
        while without_workers < _TRIES:
            try:
                return future.result(timeout=_WAIT_SECONDS)
            except TimeoutError:
                if future.status != "pending":  # an error of the job itself
                    raise
                _check_open(self.client)
                without_workers = 0 if self._n_threads() else without_workers + 1
        raise RidgeError(_NO_WORKERS)

    def _send(self, shared: tuple[Any, ...]) -> list[Any]:
        """Send data to every worker."""
        return [self._scatter(part, broadcast=True) for part in shared]

    def _submit(self, function: Callable[..., Any], sent: list[Any], job: tuple[Any, ...]) -> Any:
        parts = [self._large(part) for part in job]
        return self.client.submit(function, *sent, *parts, pure=False)

    def _large(self, part: Any) -> Any:
        """Send a large array to a worker directly, not through the graph of the scheduler."""
        if isinstance(part, np.ndarray) and part.nbytes > _LARGE_BYTES:
            return self._scatter(part)
        return part

    def _scatter(self, part: Any, broadcast: bool = False) -> Any:
        """Send data to one worker or all, waiting for those that come in place of lost ones."""
        for _ in range(_TRIES):
            try:
                self.client.wait_for_workers(1, timeout=_WAIT_SECONDS)
                return self.client.scatter(part, broadcast=broadcast, hash=False)
            except (TimeoutError, ValueError, AssertionError):
                # A worker that was counted is lost; Dask's copying to all then has too few.
                _check_open(self.client)
        raise RidgeError(_NO_WORKERS)


def _lost_worker_errors() -> tuple[type[BaseException], ...]:
    from concurrent.futures import CancelledError

    from distributed.scheduler import KilledWorker

    return CancelledError, KilledWorker, OSError
