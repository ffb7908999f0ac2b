"""The error of a decoder that is used before it is fitted."""

from __future__ import annotations

from typing import Any

from sklearn import exceptions

from calcarine.errors import CalcarineError

__all__ = ["NotFittedError", "check_fitted"]


class NotFittedError(CalcarineError, exceptions.NotFittedError):  # type: ignore[misc]
    """A decoder was used before it was fitted; also scikit-learn's error of that name."""


def check_fitted(estimator: Any, attribute: str) -> None:
    """Raise unless an estimator has an attribute that only ``fit`` sets."""
    if not hasattr(estimator, attribute):
        name = type(estimator).__name__
        raise NotFittedError(f"This {name} is not fitted yet; call fit first, or load a saved one.")
