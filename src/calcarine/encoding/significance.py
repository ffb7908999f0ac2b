"""Significance of correlations, for every voxel and with correction over all voxels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError

__all__ = ["correlation_p", "discoveries", "permutation_p", "simulated_null"]

_BLOCK = 4_000_000


def correlation_p(
    r: ArrayLike,
    n: int,
    null: Literal["exact", "simulated"] = "exact",
    n_draws: int = 100_000,
    seed: int = 0,
) -> NDArray[np.float64]:
    r"""Return one-sided p values of Pearson correlations under independence.

    Parameters
    ----------
    r : array-like
        Correlations of n pairs of values each, of any shape.
    n : int
        Number of pairs: test stimuli.
    null : {"exact", "simulated"}
        ``"exact"``: :math:`r \sqrt{(n - 2) / (1 - r^2)}` has Student's t distribution with n - 2
        degrees of freedom if one of the two vectors is Gaussian. ``"simulated"``: correlations of
        pairs of independent Gaussian vectors of length n, as in Takagi & Nishimoto (2023),
        section 3.4; no p is then below ``1 / (n_draws + 1)``.
    n_draws, seed : int
        Number of pairs and seed of the simulated null.

    Returns
    -------
    float array with the shape of r
        1 if r is NaN (a constant prediction or response).

    Raises
    ------
    SettingError
        If there are fewer than three pairs or a correlation lies outside -1 to 1.

    Examples
    --------
    >>> from calcarine.encoding import correlation_p
    >>> correlation_p([0.0, 0.2, 0.4], n=100).round(4).tolist()
    [0.5, 0.023, 0.0]
    """
    values = np.asarray(r, dtype=np.float64)
    if n < 3:
        raise SettingError(f"A test of a correlation needs three pairs of values, not {n}.")
    known = np.isfinite(values)
    if (np.abs(values[known]) > 1 + 1e-6).any():
        raise SettingError("A correlation lies outside -1 to 1; pass Pearson correlations.")
    clipped = np.clip(np.where(known, values, -1.0), -1.0, 1.0)
    if null == "exact":
        from scipy.stats import t

        with np.errstate(divide="ignore"):
            p = t.sf(clipped * np.sqrt((n - 2) / (1.0 - clipped**2)), n - 2)
    else:
        drawn = np.sort(simulated_null(n, n_draws, seed))
        above = n_draws - np.searchsorted(drawn, clipped, side="left")
        p = (1.0 + above) / (1.0 + n_draws)
    return np.asarray(np.where(known, p, 1.0))


def simulated_null(n: int, n_draws: int = 100_000, seed: int = 0) -> NDArray[np.float64]:
    """Return correlations of independent pairs of Gaussian vectors of length n."""
    rng = np.random.default_rng(seed)
    drawn = np.empty(n_draws)
    step = max(1, _BLOCK // n)
    for start in range(0, n_draws, step):
        rows = slice(start, min(start + step, n_draws))
        a, b = rng.standard_normal((2, rows.stop - rows.start, n))
        a -= a.mean(1, keepdims=True)
        b -= b.mean(1, keepdims=True)
        length = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        drawn[rows] = np.einsum("ij,ij->i", a, b) / length
    return drawn


def permutation_p(
    predicted: NDArray[np.floating],
    target: NDArray[np.floating],
    n_permutations: int = 1000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one-sided p values of each voxel's correlation over shuffled test stimuli.

    Parameters
    ----------
    predicted, target : float array of shape (n_test, n_voxels)
        Predicted and measured test responses.
    n_permutations, seed : int
        Number of shuffles and their seed. All voxels share the shuffles.

    Returns
    -------
    p, p_family : float array of shape (n_voxels,)
        The second compares each voxel with the largest r of all voxels in a shuffle (Nichols &
        Holmes 2002), which controls the family-wise error rate.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.encoding import permutation_p
    >>> rng = np.random.default_rng(0)
    >>> measured = rng.standard_normal((30, 2))
    >>> predicted = measured * [1, 0] + rng.standard_normal((30, 2)) * [0.5, 1]
    >>> p, p_family = permutation_p(predicted, measured)
    >>> (p < 0.01).tolist()  # the second voxel is not predicted
    [True, False]
    """
    a, b = (_unit_columns(values) for values in (predicted, target))
    observed = np.einsum("ij,ij->j", a, b)
    rng = np.random.default_rng(seed)
    above, above_largest = np.ones(len(observed)), np.ones(len(observed))
    for _ in range(n_permutations):
        drawn = np.einsum("ij,ij->j", a, b[rng.permutation(len(b))])
        above += drawn >= observed - 1e-12
        above_largest += drawn.max() >= observed - 1e-12
    return above / (1 + n_permutations), above_largest / (1 + n_permutations)


def _unit_columns(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centre columns and scale them to length 1; constant columns become 0."""
    about = values - values.mean(0, dtype=np.float64)
    length = np.sqrt(np.einsum("ij,ij->j", about, about))
    return np.asarray(np.divide(about, length, out=np.zeros_like(about), where=length > 0))


def discoveries(
    p: ArrayLike, rate: float = 0.05, method: Literal["bh", "by"] = "bh"
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return the significant voxels at a false discovery rate.

    Parameters
    ----------
    p : array of shape (n_voxels,)
        p value of each voxel.
    rate : float
        Largest expected share of false discoveries.
    method : {"bh", "by"}
        ``"bh"``: Benjamini & Hochberg (1995), for independent or positively dependent voxels;
        ``"by"``: Benjamini & Yekutieli (2001), for any dependence.

    Returns
    -------
    significant : bool array of shape (n_voxels,)
        ``q <= rate``.
    q : float array of shape (n_voxels,)
        Adjusted p values.

    Examples
    --------
    >>> from calcarine.encoding import discoveries
    >>> significant, q = discoveries([0.001, 0.01, 0.04, 0.5])
    >>> significant.tolist()
    [True, True, False, False]
    >>> q.round(3).tolist()
    [0.004, 0.02, 0.053, 0.5]
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p, dtype=np.float64)
    if not 0 < rate < 1:
        raise SettingError(f"The false discovery rate is {rate}; choose it between 0 and 1.")
    if not values.size:
        return np.zeros(0, np.bool_), values
    q = np.asarray(false_discovery_control(values, method=method))
    return q <= rate, q
