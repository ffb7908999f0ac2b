"""Splits made by a rule, each with random partners of the same sizes.

A hard split differs from a random one in two things: its rule, and often a smaller training set.
Random partners of the same sizes show how much of a drop in scores is due to the rule.
All makers sort the ids first, so the order in which these come changes nothing, and give the split
with its partners as a `SplitWithPartners`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError, ShapeError
from calcarine.splits.feature_distances import FloatArray, clusters, mahalanobis, nearest
from calcarine.splits.stimulus_pool import (
    SplitWithPartners,
    StimulusPool,
    TestSize,
    pool_of,
    size_of_test,
    with_partners,
)

__all__ = [
    "category_holdout",
    "cluster_holdout",
    "minimum_distance",
    "out_of_distribution",
    "random_split",
]


def random_split(
    ids: Sequence[str], test_size: TestSize = 0.1, seed: int = 0, n_partners: int = 0
) -> SplitWithPartners:
    """Draw test stimuli at random.

    Parameters
    ----------
    ids : sequence of str
        Stimuli that were shown, each once.
    test_size : TestSize
        Number of test stimuli, or a share of all between 0 and 1.
    seed : int
        The same seed gives the same split, in any order of ``ids``.
    n_partners : int
        Further random splits of the same sizes.

    Raises
    ------
    CalcarineError
        If ids or sizes are wrong.

    Examples
    --------
    >>> from calcarine.splits import random_split
    >>> made = random_split([f"img{i}" for i in range(20)], test_size=0.25, n_partners=2)
    >>> len(made.split.train), len(made.split.test)
    (15, 5)
    >>> len(made.partners)  # further random splits, to see how much scores depend on the split
    2
    """
    pool = pool_of(ids)
    test = _drawn(pool, test_size, seed)
    rule = f"random, {test.sum()} test stimuli"
    return with_partners(pool, f"random-{seed}", ~test, test, rule, seed, n_partners)


def minimum_distance(
    ids: Sequence[str],
    features: ArrayLike,
    tau: float | None = None,
    quantile: float | None = None,
    test_size: TestSize = 0.1,
    metric: str = "correlation",
    seed: int = 0,
    n_partners: int = 3,
    space: str = "features",
) -> SplitWithPartners:
    """Keep every training stimulus at least tau away from every test stimulus.

    Test stimuli are drawn at random; training stimuli nearer than tau to any
    of them are dropped.

    Parameters
    ----------
    ids, test_size, seed
        See `random_split`.
    features : array
        Shape (n, ...), rows as ``ids``.
    tau : float, optional
        Smallest distance allowed.
    quantile : float, optional
        Instead of tau: tau is this quantile of the distances of all stimuli
        to their nearest neighbours, so of random neighbours about this share
        would be too near.
    metric : str
        ``"correlation"``, ``"cosine"`` or ``"euclidean"``.
    n_partners : int
        Random splits of the sizes that are left.
    space : str
        Name of the features, for the rule.

    Raises
    ------
    CalcarineError
        If both or none of tau and quantile are given, or nothing is left.

    Examples
    --------
    >>> from calcarine.splits import minimum_distance
    >>> ids = ["a", "b", "c", "d", "e", "f"]
    >>> features = [[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]]  # three pairs of similar pictures
    >>> made = minimum_distance(ids, features, tau=1, test_size=1, metric="euclidean")
    >>> made.split.test, made.dropped  # the neighbour is not used in training
    (('d',), ('c',))
    """
    pool, values = _with_features(ids, features, metric)
    if (tau is None) == (quantile is None):
        raise SettingError("Give either tau or a quantile of distances, and not both.")
    how = ""
    if quantile is not None:
        if not 0 < quantile < 1:
            raise SettingError(f"The quantile {quantile} must be between 0 and 1.")
        between = nearest(values, values, metric, own=np.arange(len(pool)))[0][:, 0]
        tau = float(np.quantile(between, quantile))
        how = f" (quantile {quantile:g} of distances to the nearest neighbour)"
    limit = float(tau or 0.0)
    if not np.isfinite(limit) or limit <= 0:
        raise SettingError(f"tau must be above 0, not {limit:g}.")
    test = _drawn(pool, test_size, seed)
    train = ~test
    away = nearest(values[train], values[test], metric)[0][:, 0]
    train[np.flatnonzero(train)[away < limit]] = False
    rule = (
        f"minimum distance: {test.sum()} test stimuli drawn at random, training stimuli nearer "
        f"than {limit:.6g}{how} to any of them dropped; {metric} distance of {space}"
    )
    return with_partners(pool, f"minimum-distance-{seed}", train, test, rule, seed, n_partners)


def cluster_holdout(
    ids: Sequence[str],
    features: ArrayLike,
    n_clusters: int = 10,
    test_size: TestSize = 0.1,
    method: Literal["kmeans", "agglomerative"] = "kmeans",
    metric: str = "correlation",
    seed: int = 0,
    n_partners: int = 3,
    space: str = "features",
) -> SplitWithPartners:
    """Hold out whole clusters of stimuli.

    Clusters are put in random order; one after the other becomes test as long
    as the test set does not grow above its size.  If even the first is
    larger, the smallest cluster alone is test.

    Parameters
    ----------
    ids, features, metric, n_partners, space
        See `minimum_distance`; for the metrics of angle, rows are brought to
        length 1 before clustering.
    n_clusters : int
        Clusters in all.
    test_size : TestSize
        Most test stimuli.
    method : {"kmeans", "agglomerative"}
        ``"kmeans"`` or ``"agglomerative"`` (Ward), by scikit-learn.
    seed : int
        Of k-means and of the order of clusters.

    Raises
    ------
    CalcarineError
        If there are not between 2 and n clusters.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.splits import cluster_holdout
    >>> ids = [f"img{i}" for i in range(12)]
    >>> features = np.repeat(10 * np.eye(3), 4, axis=0) + np.random.default_rng(0).random((12, 3))
    >>> split = cluster_holdout(ids, features, n_clusters=3, test_size=4).split
    >>> split.test  # one of three clusters
    ('img4', 'img5', 'img6', 'img7')
    """
    pool, values = _with_features(ids, features, metric)
    if not 2 <= n_clusters <= len(pool):
        raise SettingError(f"{len(pool)} stimuli cannot be cut into {n_clusters} clusters.")
    labels = clusters(values, n_clusters, method, seed)
    most = size_of_test(test_size, len(pool))
    sizes = np.bincount(labels, minlength=n_clusters)
    # Names of clusters are arbitrary; their order by first member is not.
    known = [label for label in dict.fromkeys(labels.tolist()) if sizes[label]]
    held: list[int] = []
    for label in np.random.default_rng([seed, 0]).permutation(known):
        if sizes[[*held, int(label)]].sum() <= most:
            held.append(int(label))
    held = held or [min(known, key=lambda label: (sizes[label], known.index(label)))]
    test = np.isin(labels, held)
    rule = (
        f"cluster hold-out: {len(held)} of {len(known)} clusters ({method}) whole, in random order "
        f"as long as there are at most {most} test stimuli; {metric} distance of {space}"
    )
    return with_partners(pool, f"cluster-{seed}", ~test, test, rule, seed, n_partners)


def category_holdout(
    ids: Sequence[str],
    categories: Sequence[Sequence[str]],
    held: int | Sequence[str] = 1,
    match: Literal["main", "any"] = "main",
    seed: int = 0,
    n_partners: int = 3,
) -> SplitWithPartners:
    """Hold out all stimuli of some categories.

    No training stimulus shows a category that is held out.

    Parameters
    ----------
    ids, seed, n_partners
        See `random_split`.
    categories : sequence of sequence of str
        Of each stimulus, the main one first.
    held : int or sequence of str
        Names of categories, or how many to draw.
    match : {"main", "any"}
        ``"main"``: test stimuli are those whose main category is held out,
        and those that show it together with another are dropped; ``"any"``: both
        are test.  Stimuli without a category are dropped.

    Raises
    ------
    CalcarineError
        If there are no categories, or a name is unknown.

    Examples
    --------
    >>> from calcarine.splits import category_holdout
    >>> categories = [("dog",), ("cat",), ("dog", "cat"), ("bus",)]
    >>> made = category_holdout(["a", "b", "c", "d"], categories, held=["cat"], n_partners=0)
    >>> made.split.train, made.split.test
    (('a', 'd'), ('b',))
    >>> made.dropped  # shows a cat, but mainly a dog
    ('c',)
    """
    pool = pool_of(ids)
    if len(categories) != len(pool):
        raise ShapeError(f"There are {len(categories)} categories for {len(pool)} stimuli.")
    if match not in ("main", "any"):
        raise SettingError(f"Categories match by main or any, not by {match}.")
    own = [tuple(categories[row]) for row in pool.order]
    names = _held_names(own, held, match, seed)
    shows = np.array([not names.isdisjoint(parts) for parts in own])
    main = np.array([bool(parts) and parts[0] in names for parts in own])
    known = np.array([bool(parts) for parts in own])
    test = main if match == "main" else shows
    rule = (
        f"category hold-out: {', '.join(sorted(names))} by {match} category, test; what shows "
        "them otherwise, or has no category, dropped"
    )
    name = f"category-{seed}"
    return with_partners(pool, name, known & ~shows, test, rule, seed, n_partners)


def out_of_distribution(
    ids: Sequence[str],
    features: ArrayLike,
    test_size: TestSize = 0.1,
    method: Literal["neighbours", "mahalanobis"] = "neighbours",
    n_neighbours: int = 10,
    n_components: int = 20,
    metric: str = "correlation",
    seed: int = 0,
    n_partners: int = 3,
    space: str = "features",
) -> SplitWithPartners:
    """Hold out the stimuli that are farthest from the rest.

    Parameters
    ----------
    ids, features, test_size, metric, n_partners, space
        See `minimum_distance`.
    method : {"neighbours", "mahalanobis"}
        ``"neighbours"``: by the mean distance to the nearest neighbours;
        ``"mahalanobis"``: by the distance from the mean in units of the SD
        along the first principal components.
    n_neighbours, n_components : int
        Of the two methods.
    seed : int
        Of the partners; the split itself has nothing random.

    Raises
    ------
    CalcarineError
        If a number or name is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.splits import out_of_distribution
    >>> features = np.random.default_rng(0).random((20, 2))
    >>> features[7] = [9, 9]  # unlike all others
    >>> ids = [f"img{i}" for i in range(20)]
    >>> out_of_distribution(ids, features, test_size=1, metric="euclidean").split.test
    ('img7',)
    """
    pool, values = _with_features(ids, features, metric)
    count = size_of_test(test_size, len(pool))
    if method == "neighbours" and n_neighbours >= 1:
        far = nearest(values, values, metric, n_neighbours, np.arange(len(pool)))[0].mean(1)
        how = f"mean distance to {min(n_neighbours, len(pool) - 1)} nearest neighbours"
    elif method == "mahalanobis" and n_components >= 1:
        far, used = mahalanobis(values, n_components)
        how = f"Mahalanobis distance in {used} principal components"
    else:
        raise SettingError(
            f"The method for far stimuli is neighbours or mahalanobis, not {method} with "
            f"{n_neighbours} neighbours or {n_components} components."
        )
    test = np.zeros(len(pool), dtype=np.bool_)
    # Rounding keeps equally far stimuli equal, so that the earlier id goes first.
    test[np.argsort(-np.round(far, 12), kind="stable")[:count]] = True
    rule = f"out of distribution: {count} stimuli of largest {how}; {metric} distance of {space}"
    return with_partners(pool, f"out-of-distribution-{seed}", ~test, test, rule, seed, n_partners)


def _with_features(
    ids: Sequence[str], features: ArrayLike, metric: str
) -> tuple[StimulusPool, FloatArray]:
    pool = pool_of(ids, features, metric)
    assert pool.features is not None
    return pool, pool.features


def _drawn(pool: StimulusPool, test_size: TestSize, seed: int) -> NDArray[np.bool_]:
    count = size_of_test(test_size, len(pool))
    if seed < 0:
        raise SettingError(f"The seed {seed} cannot be below 0.")
    test = np.zeros(len(pool), dtype=np.bool_)
    test[np.random.default_rng([seed, 0]).permutation(len(pool))[:count]] = True
    return test


def _held_names(
    own: list[tuple[str, ...]], held: int | Sequence[str], match: str, seed: int
) -> frozenset[str]:
    usable = sorted({name for parts in own for name in (parts[:1] if match == "main" else parts)})
    if not usable:
        raise SettingError("These stimuli have no categories; choose another rule.")
    if isinstance(held, int):
        if not 0 < held < len(usable):
            raise SettingError(
                f"{held} categories cannot be held out of {len(usable)}; hold out fewer."
            )
        order = np.random.default_rng([seed, 0]).permutation(len(usable))
        return frozenset(usable[place] for place in order[:held])
    unknown = [name for name in held if name not in usable]
    if unknown or not held:
        kind = "main category" if match == "main" else "category"
        raise SettingError(
            f"There is no {kind} {unknown[0] if unknown else 'named'}; there are "
            f"{', '.join(usable[:20])}{' and others' if len(usable) > 20 else ''}."
        )
    return frozenset(held)
