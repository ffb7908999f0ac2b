"""Exact binomial intervals and tests."""

from __future__ import annotations

__all__ = ["proportion_interval", "tail_probability"]


def proportion_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) confidence interval of a proportion.

    Parameters
    ----------
    hits, n : int
        Number of successes, and of trials.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
    """
    from scipy.stats import beta

    rest = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(rest, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - rest, hits + 1, n - hits))
    return low, high


def tail_probability(hits: int, n: int, chance: float) -> float:
    """Return the exact probability of at least this number of successes in ``n`` trials."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, n, chance))
