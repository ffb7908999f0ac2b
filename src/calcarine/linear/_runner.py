"""Running independent pieces of a fit: here, or on the workers of a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from calcarine.linear._checks import RidgeError
from calcarine.linear._design import Runner

_AHEAD = 2
_TRIES = 5
_LARGE = 1_000_000


def runner_for(client: Any) -> Runner:
    """The runner of a Dask client, or of this process for None.

    Raises
    ------
    RidgeError
        When `client` is no Dask client, is closed or asynchronous, or has no workers.
    """
    if client is None:
        return _here
    if not all(hasattr(client, part) for part in ("submit", "scatter", "nthreads", "status")):
        raise RidgeError(
            f"client is a {type(client).__name__}; pass a dask.distributed.Client or None."
        )
    _check_open(client)
    if getattr(client, "asynchronous", False):
        raise RidgeError("The Dask client is asynchronous; pass one made with asynchronous=False.")
    if not client.nthreads():
        raise RidgeError("The Dask client has no workers; start some before fitting.")
    return _Cluster(client)


def _check_open(client: Any, cause: BaseException | None = None) -> None:
    if client.status != "running":
        raise RidgeError(
            f"The Dask client is {client.status}; fit with one that is connected to its cluster."
        ) from cause


def _here(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], shared: tuple[Any, ...] = ()
) -> Iterator[Any]:
    for job in jobs:
        answer = function(*shared, *job)
        del job  # nor is its memory kept while the answer is used
        yield answer
        del answer


class _Cluster:
    """Submits a few jobs ahead of the workers, so that targets are read as they are needed.

    What all jobs share is sent to every worker once. When a worker is lost, Dask computes its jobs
    again elsewhere; what only that worker held is sent again.
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
            yield from self._answers(function, jobs, shared)
        except RidgeError:
            raise
        except Exception as error:  # whatever call met a client that was just being closed
            _check_open(self.client, error)
            raise

    def _answers(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...],
    ) -> Iterator[Any]:
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        lost = (CancelledError, KilledWorker, OSError)
        sent = self._send(shared)
        waiting: deque[tuple[tuple[Any, ...], list[Any], Any]] = deque()
        remaining = iter(jobs)
        while True:
            _check_open(self.client)
            while len(waiting) < _AHEAD * max(1, self._n_threads()):
                job = next(remaining, None)
                if job is None:
                    break
                waiting.append((job, sent, self._submit(function, sent, job)))
            if not waiting:
                return
            job, used, future = waiting.popleft()
            for tries in range(1, _TRIES + 1):
                try:
                    answer = future.result()
                    break
                except lost as error:
                    _check_open(self.client, error)
                    if tries == _TRIES:
                        raise RidgeError(
                            f"Workers of the Dask cluster were lost {_TRIES} times over one piece "
                            "of the fit; give them more memory, or set memory or block_size."
                        ) from error
                    if used is sent:
                        sent = self._send(shared)
                    used = sent
                    future = self._submit(function, sent, job)
            yield answer

    def _n_threads(self) -> int:
        return sum(self.client.nthreads().values())

    def _send(self, shared: tuple[Any, ...]) -> list[Any]:
        return [self.client.scatter(part, broadcast=True, hash=False) for part in shared]

    def _submit(self, function: Callable[..., Any], sent: list[Any], job: tuple[Any, ...]) -> Any:
        parts = [self._large(part) for part in job]
        return self.client.submit(function, *sent, *parts, pure=False)

    def _large(self, part: Any) -> Any:
        """A large array goes to a worker directly and not through the scheduler's graph."""
        if isinstance(part, np.ndarray) and part.nbytes > _LARGE:
            return self.client.scatter(part, hash=False)
        return part
