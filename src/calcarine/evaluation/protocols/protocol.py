"""The base class of protocols, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from calcarine.files.registries import register_entry

if TYPE_CHECKING:
    from calcarine.evaluation.metrics.metric import Metric

__all__ = ["PROTOCOLS", "Protocol", "register_protocol"]


class Protocol(ABC):
    """A named, exact way to compute a set of metrics.

    Parameters
    ----------
    draws : int, optional
        Number of random draws for metrics that are expectations over draws. By default such a
        metric is computed in closed form; published code draws.
    seed : int
        Seed of the draws.

    Attributes
    ----------
    name, title : str
        The name in settings and files, and the name for people.
    source : str
        Where the definition comes from.
    details : str
        The choices that other protocols make differently.
    samples : {"score", "similarity"}
        What is averaged over several samples of an image: their scores, or the similarities from
        which scores are computed.
    blends : bool
        Whether a blurry low-level reconstruction can be blended in.

    Examples
    --------
    >>> from calcarine.evaluation import find_protocol
    >>> protocol = find_protocol("mindeye")()
    >>> len(protocol.metrics()), protocol.samples
    (16, 'score')
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    details: ClassVar[str]
    samples: ClassVar[Literal["similarity", "score"]] = "score"
    blends: ClassVar[bool] = False

    def __init__(self, draws: int | None = None, seed: int = 0) -> None:
        self.draws, self.seed = draws, seed

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics, in the order of the protocol's tables."""


PROTOCOLS: dict[str, type[Protocol]] = {}
"""Classes of protocols by name."""
_P = TypeVar("_P", bound=type[Protocol])


def register_protocol(protocol: _P) -> _P:
    """Register a protocol under its name; use it as a class decorator.

    Parameters
    ----------
    protocol : type of Protocol

    Returns
    -------
    type of Protocol
        The same class.

    Raises
    ------
    SettingError
        If another protocol has this name.

    Examples
    --------
    >>> from calcarine.evaluation import Protocol, find_protocol, register_protocol
    >>> @register_protocol
    ... class PixelsAlone(Protocol):
    ...     name, title = "pixels-alone", "Pixels alone"
    ...     source, details = "this laboratory", "no network"
    ...
    ...     def metrics(self):
    ...         return find_protocol("mindeye")().metrics()[:2]
    >>> [metric.name for metric in find_protocol("pixels-alone")().metrics()]
    ['pixel correlation', 'SSIM, 2d']
    """
    register_entry(PROTOCOLS, "protocols", protocol.name, protocol)
    return protocol
