"""Running independent pieces of a fit: here, or on the workers of a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from calcarine.linear._checks import RidgeError
from calcarine.linear._design import Runner

_AHEAD = 2
_TRIES = 5


def runner_for(client: Any) -> Runner:
    """The runner of a Dask client, or of this process for None.

    Raises
    ------
    RidgeError
        When `client` is no Dask client or has no workers.
    """
    if client is None:
        return _here
    if not all(hasattr(client, part) for part in ("submit", "scatter", "scheduler_info")):
        raise RidgeError(
            f"client is a {type(client).__name__}; pass a dask.distributed.Client or None."
        )
    return _Cluster(client)


def _here(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], shared: tuple[Any, ...] = ()
) -> Iterator[Any]:
    for job in jobs:
        yield function(*shared, *job)


class _Cluster:
    """Submits a few jobs ahead of the workers, so that targets are read as they are needed.

    What all jobs share is sent to every worker once. When a worker is lost, Dask computes its jobs
    again elsewhere; when it was the last to hold what they share, that is sent again.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def __call__(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...] = (),
    ) -> Iterator[Any]:
        sent = self._send(shared)
        waiting: deque[tuple[tuple[Any, ...], Any]] = deque()
        remaining = iter(jobs)
        while True:
            while len(waiting) < _AHEAD * max(1, self._n_workers()):
                job = next(remaining, None)
                if job is None:
                    break
                waiting.append((job, self._submit(function, sent, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            answer, sent = self._answer(function, job, future, sent, shared)
            yield answer

    def _n_workers(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def _send(self, shared: tuple[Any, ...]) -> list[Any]:
        if not shared:
            return []
        return [self.client.scatter(part, broadcast=True, hash=False) for part in shared]

    def _submit(self, function: Callable[..., Any], sent: list[Any], job: tuple[Any, ...]) -> Any:
        return self.client.submit(function, *sent, *job, pure=False, retries=_TRIES)

    def _answer(
        self,
        function: Callable[..., Any],
        job: tuple[Any, ...],
        future: Any,
        sent: list[Any],
        shared: tuple[Any, ...],
    ) -> tuple[Any, list[Any]]:
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        for attempt in range(_TRIES):
            try:
                return future.result(), sent
            except (CancelledError, KilledWorker, OSError):
                if attempt == _TRIES - 1:
                    raise
                sent = self._send(shared)
                future = self._submit(function, sent, job)
        raise AssertionError
