"""Checks that networks computed finite numbers, and not what becomes a black picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calcarine.errors import CalcarineError

__all__ = ["check_finite", "finite_rows"]

_TOO_LARGE = "numbers became too large for this precision, so set it to"
_ADVICE = {
    torch.float16: f"{_TOO_LARGE} bfloat16 or float32",
    torch.bfloat16: f"{_TOO_LARGE} float32",
}
_SETTING = "(compute.precision in a run, dtype in Python)"


def finite_rows(values: torch.Tensor) -> torch.Tensor:
    """Return whether each row of the first axis is finite, as a tensor on the same device."""
    return torch.isfinite(values).flatten(1).all(1)


def check_finite(
    finite: torch.Tensor,
    what: str,
    dtype: torch.dtype,
    names: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
) -> None:
    """Raise if rows that a network computed are not finite.

    Parameters
    ----------
    finite : bool tensor of shape (n,)
        Whether each row is finite; see `finite_rows`.
    what : str
        Name of the values for the error message, in the plural.
    dtype : torch.dtype
        Precision of the network.
    names : sequence of n str, optional
        What each row belongs to, for example "stimulus 'dog'"; numbers by default.
    where : sequence of n str, optional
        Where each row stopped being finite.

    Raises
    ------
    CalcarineError
        With the first row that is not finite, and the way out.
    """
    if bool(finite.all()):
        return
    bad = [row for row, good in enumerate(finite.tolist()) if not good]
    first = bad[0]
    name = f"number {first + 1} of {len(finite)}" if names is None else names[first]
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    place = "" if where is None else f", {where[first]}"
    precision = str(dtype).removeprefix("torch.")
    advice = (
        f"{_ADVICE[dtype]} {_SETTING}"
        if dtype in _ADVICE
        else "the model's weights or its input are damaged"
    )
    raise CalcarineError(
        f"The model, computing in {precision}, gave {what} that are not finite for {name}{others}"
        f"{place}: {advice}."
    )
