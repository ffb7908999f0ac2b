"""What a protocol is, and the register of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from calcarine.errors import CalcarineError
from calcarine.evaluation.registry import register_class

if TYPE_CHECKING:
    from calcarine.evaluation.metrics.metric import Metric


class Protocol(ABC):
    """A named, exact way to compute a set of metrics.

    Parameters
    ----------
    draws : int, optional
        Where a metric is an expectation over random draws: estimate it by so many draws, as the
        field's code does, instead of the closed form.
    seed : int
        Of the draws.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    # Where the definition comes from, and what it fixes that others do otherwise.
    source: ClassVar[str]
    fixes: ClassVar[str]
    # Whether several samples of an image average before contests are decided, or after.
    samples: ClassVar[Literal["similarity", "score"]] = "score"
    # Whether a blurry low-level reconstruction may be blended in.
    blends: ClassVar[bool] = False

    def __init__(self, draws: int | None = None, seed: int = 0) -> None:
        self.draws, self.seed = draws, seed

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of the protocol's tables."""


PROTOCOLS: dict[str, type[Protocol]] = {}
_P = TypeVar("_P", bound=type[Protocol])


def register_protocol(protocol: _P) -> _P:
    """Class decorator that makes a protocol known under its name."""
    register_class(PROTOCOLS, "protocols", protocol.name, protocol)
    return protocol


def find_protocol(name: str) -> type[Protocol]:
    """The protocol of a name.

    Raises
    ------
    CalcarineError
        If there is none.
    """
    if name not in PROTOCOLS:
        raise CalcarineError(
            f"there is no protocol {name!r}: choose among {', '.join(sorted(PROTOCOLS))}."
        )
    return PROTOCOLS[name]
