"""Exact intervals of shares and exact tests of counts."""

from __future__ import annotations


def share(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a share.

    Parameters
    ----------
    hits, n : int
    level : float

    Returns
    -------
    low, high : float
    """
    from scipy.stats import beta

    rest = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(rest, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - rest, hits + 1, n - hits))
    return low, high


def at_least(hits: int, n: int, chance: float) -> float:
    """Exact probability of so many hits or more, each with probability ``chance``."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, n, chance))
