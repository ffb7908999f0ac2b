"""Warning when the best penalties lie on an end of those tried."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

EDGE_SHARE = 0.05
"""Share of predictable targets on an end of the penalty grid above which a fit warns."""


class RidgeEdgeWarning(UserWarning):
    """Many targets chose the lowest or highest penalty, so the best may lie outside the grid."""


def edge_fractions(
    best: npt.NDArray[np.intp], predictable: npt.NDArray[np.bool_], n_alphas: int
) -> tuple[float, float]:
    """Share of the predictable targets that chose the first and the last penalty."""
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
    parts, mends = [], []
    if low > 0:
        parts.append(f"{low:.1%} chose the lowest alpha ({alphas[0]:g})")
        mends.append("smaller")
    if high > 0:
        parts.append(f"{high:.1%} chose the highest alpha ({alphas[-1]:g})")
        mends.append("larger")
    warnings.warn(
        f"Of the targets with a held-out {predictable}, {' and '.join(parts)}; "
        f"widen alphas: add {' and '.join(mends)} values.",
        RidgeEdgeWarning,
        stacklevel=4,  # this, the fit and its decorator
    )
