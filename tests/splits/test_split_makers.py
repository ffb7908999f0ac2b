import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from calcarine import datasets
from calcarine.brain import Split
from calcarine.errors import CalcarineError
from calcarine.splits import split_rules
from calcarine.splits.duplicate_search import nearest_training
from calcarine.splits.feature_distances import METRICS, nearest, pixel_features, to_euclidean
from calcarine.splits.split_files import find_split, save_splits
from calcarine.splits.stimulus_pool import shown_stimuli
from calcarine.stimuli import StimulusSet

COUNT = 60
IDS = [f"s{i:02d}" for i in range(COUNT)]


@pytest.fixture
def blobs(rng):
    """Five groups of twelve far from each other."""
    centres = 8 * rng.normal(size=(5, 6))
    return np.repeat(centres, 12, axis=0) + rng.normal(size=(COUNT, 6))


CATEGORIES = [("cat",), ("dog", "cat"), ("car",), ("cat", "car"), ()] * 12

RULES = {
    "random": lambda ids, x, c, **k: split_rules.random_split(ids, 12, **k),
    "minimum distance": lambda ids, x, c, **k: split_rules.minimum_distance(
        ids, x, quantile=0.5, test_size=12, **k
    ),
    "clusters": lambda ids, x, c, **k: split_rules.cluster_holdout(ids, x, 5, 14, **k),
    "agglomerative": lambda ids, x, c, **k: split_rules.cluster_holdout(
        ids, x, 5, 14, method="agglomerative", **k
    ),
    "category": lambda ids, x, c, **k: split_rules.category_holdout(ids, c, 1, **k),
    "far": lambda ids, x, c, **k: split_rules.out_of_distribution(ids, x, 0.2, **k),
    "mahalanobis": lambda ids, x, c, **k: split_rules.out_of_distribution(
        ids, x, 0.2, method="mahalanobis", **k
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_sides_partners_and_dropped_are_as_promised(blobs, rule):
    made = RULES[rule](IDS, blobs, CATEGORIES, seed=3, n_partners=4)
    sides = [*made.split.train, *made.split.test, *made.dropped]
    assert sorted(sides) == IDS
    assert len(made.partners) == 4
    assert len({split.digest() for split in made.all}) == 5
    assert len({split.name for split in made.all}) == 5
    for partner in made.partners:
        assert len(partner.train) == len(made.split.train)
        assert len(partner.test) == len(made.split.test)
        assert set(partner.train) | set(partner.test) <= set(IDS)
    assert f"{len(made.dropped)} are in neither side" in made.split.rule


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_ids_changes_nothing(rule, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(COUNT, 5))
    order = rng.permutation(COUNT)
    first = RULES[rule](IDS, x, CATEGORIES, seed=1, n_partners=1)
    second = RULES[rule](
        [IDS[i] for i in order], x[order], [CATEGORIES[i] for i in order], seed=1, n_partners=1
    )
    assert first == second


@pytest.mark.parametrize("rule", ["random", "minimum distance", "category"])
def test_another_seed_is_another_split(blobs, rule):
    tests = {RULES[rule](IDS, blobs, CATEGORIES, seed=s).split.test for s in range(6)}
    assert len(tests) > 1


@pytest.mark.parametrize("metric", METRICS)
def test_every_test_stimulus_is_tau_away_and_nothing_is_dropped_for_less(blobs, metric):
    made = split_rules.minimum_distance(
        IDS, blobs, quantile=0.4, test_size=10, metric=metric, n_partners=0
    )
    rows = [[IDS.index(key) for key in side] for side in (made.split.test, made.split.train)]
    away = cdist(blobs[rows[0]], blobs[rows[1]], metric)
    between = cdist(blobs, blobs, metric) + np.where(np.eye(COUNT), np.inf, 0)
    tau = np.quantile(between.min(1), 0.4)
    assert away.min() >= tau - 1e-12
    lost = [IDS.index(key) for key in made.dropped]
    assert lost and (cdist(blobs[lost], blobs[rows[0]], metric).min(1) < tau).all()
    assert f"{tau:.6g}" in made.split.rule and metric in made.split.rule
    same = split_rules.minimum_distance(
        IDS, blobs, tau=float(tau), test_size=10, metric=metric, n_partners=0
    )
    assert same.split.test == made.split.test and same.dropped == made.dropped
    found = nearest_training(made.split, IDS, blobs, metric)
    np.testing.assert_allclose(found, away.min(1), atol=1e-9)


def test_whole_clusters_are_held_out(blobs):
    for method in ("kmeans", "agglomerative"):
        made = split_rules.cluster_holdout(IDS, blobs, 5, 30, method, "euclidean", seed=2)
        groups = {IDS.index(key) // 12 for key in made.split.test}
        assert len(groups) == 2 and len(made.split.test) == 24
        assert groups.isdisjoint({IDS.index(key) // 12 for key in made.split.train})
    one = split_rules.cluster_holdout(IDS, blobs, 5, 3, metric="euclidean")
    assert len(one.split.test) == 12  # no cluster is as small as that: the smallest alone


@pytest.mark.parametrize("match", ["main", "any"])
def test_training_never_shows_a_held_category(match):
    made = split_rules.category_holdout(IDS, CATEGORIES, ["cat"], match, n_partners=0)
    shows = dict(zip(IDS, CATEGORIES, strict=True))
    assert all("cat" not in shows[key] and shows[key] for key in made.split.train)
    wanted = (lambda c: c[:1] == ("cat",)) if match == "main" else (lambda c: "cat" in c)
    assert set(made.split.test) == {key for key in IDS if wanted(shows[key])}


def test_the_farthest_are_out_of_distribution(rng):
    x = rng.normal(size=(COUNT, 4))
    x[[5, 17, 40]] += 30 * np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])
    for method in ("neighbours", "mahalanobis"):
        made = split_rules.out_of_distribution(IDS, x, 3, method, metric="euclidean")
        assert made.split.test == ("s05", "s17", "s40")
    far = np.sort(cdist(x, x), axis=1)[:, 1:8].mean(1)
    made = split_rules.out_of_distribution(IDS, x, 9, n_neighbours=7, metric="euclidean")
    assert set(made.split.test) == {IDS[i] for i in np.argsort(-far)[:9]}


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6))
def test_nearest_neighbours_by_blocks(metric, seed, k):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(31, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calcarine.splits.feature_distances._BLOCK", 4)
        found, rows = nearest(to_euclidean(a, 7, metric), to_euclidean(b, 31, metric), metric, k)
        own, _ = nearest(*[to_euclidean(b, 31, metric)] * 2, metric, k, np.arange(31))
    every = cdist(a, b, metric)
    np.testing.assert_allclose(found, np.sort(every, 1)[:, :k], atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(every, rows, 1), found, atol=1e-9)
    np.testing.assert_allclose(own, np.sort(cdist(b, b, metric), 1)[:, 1 : k + 1], atol=1e-7)


def test_pixels_see_colour_and_place():
    images = np.zeros((4, 16, 16, 3), np.uint8)
    images[0, :8, :, 0] = images[1, :8, :, 1] = images[2, 8:, :, 0] = 200
    images[3, :8, :, 0] = 190
    found = pixel_features(StimulusSet.from_arrays(images, list("abcd")), ("d", "a", "b", "c"))
    away = cdist(found[:1], found[1:], "correlation")[0]
    assert away[0] < 0.01 < 0.2 < min(away[1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: split_rules.random_split(["a", "a"]), "list each once"),
        (lambda x: split_rules.random_split(IDS, 60), "from 1 to 59"),
        (lambda x: split_rules.random_split(IDS, 2.5), "does not fit"),
        (lambda x: split_rules.random_split(IDS, seed=-1), "seed -1"),
        (lambda x: split_rules.minimum_distance(IDS, x), "either tau or a quantile"),
        (lambda x: split_rules.minimum_distance(IDS, x, 1.0, 0.5), "not both"),
        (lambda x: split_rules.minimum_distance(IDS, x, 3.0), "no training stimulus is left"),
        (lambda x: split_rules.minimum_distance(IDS, x, -3.0), "tau must be above 0"),
        (lambda x: split_rules.minimum_distance(IDS, x[:5], 1.0), "one row for each of 60"),
        (lambda x: split_rules.minimum_distance(IDS, x * np.nan, 1.0), "finite"),
        (lambda x: split_rules.minimum_distance(IDS, x, 1.0, metric="taxi"), "no distance taxi"),
        (lambda x: split_rules.cluster_holdout(IDS, x, 1), "into 1 clusters"),
        (lambda x: split_rules.cluster_holdout(IDS, x, method="dbscan"), "not by dbscan"),
        (lambda x: split_rules.category_holdout(IDS, [()] * 60), "no categories"),
        (lambda x: split_rules.category_holdout(IDS, CATEGORIES, ["cow"]), "no main category cow"),
        (lambda x: split_rules.category_holdout(IDS, CATEGORIES, 3), "hold out fewer"),
        (lambda x: split_rules.category_holdout(IDS, CATEGORIES[:3]), "3 categories for 60"),
        (lambda x: split_rules.out_of_distribution(IDS, x, method="fame"), "mahalanobis, not fame"),
    ],
)
def test_mistakes_are_told_in_a_sentence(rng, call, message):
    with pytest.raises(CalcarineError, match=message) as told:
        call(rng.normal(size=(COUNT, 4)))
    assert "\n" not in str(told.value)


def test_saved_splits_come_back_and_changed_files_are_refused(tmp_path, blobs):
    made = split_rules.out_of_distribution(IDS, blobs, 6, n_partners=2)
    files = save_splits(made, tmp_path / "new")
    assert [Split.read(file) for file in files] == list(made.all)
    assert all(split.digest()[:8] in f.name for split, f in zip(made.all, files, strict=True))
    content = json.loads(files[0].read_text())
    content["test"], content["train"] = content["test"][1:], [*content["train"], content["test"][0]]
    files[0].write_text(json.dumps(content))
    with pytest.raises(CalcarineError, match="was changed after it was saved"):
        Split.read(files[0])
    files[1].write_text(files[1].read_text()[:-40])
    with pytest.raises(CalcarineError, match="not a saved split"):
        Split.read(files[1])
    files[1].write_text('{"train":' * 100_000)
    with pytest.raises(CalcarineError, match=r"not a saved split .*nested too deeply"):
        Split.read(files[1])
    with pytest.raises(CalcarineError, match="cannot be read: No such file"):
        Split.read(tmp_path / "absent.json")


def test_a_split_is_found_by_name_or_file(tmp_path):
    own = datasets.load_dataset(
        "simulated", n_train=20, n_test=5, n_early=4, n_ventral=4, n_other=4, n_sessions=2
    )
    assert find_split(own, "shared") == own.split()
    made = split_rules.random_split(shown_stimuli(own), 6)
    file = made.split.save(tmp_path / "mine.json")
    assert find_split(own, file) == made.split
    with pytest.raises(CalcarineError, match=r"neither a file nor a split .* has shared"):
        find_split(own, "nothing.json")
    foreign = Split("foreign", ("a",), ("b",), "another subject's").save(tmp_path / "f.json")
    with pytest.raises(CalcarineError, match="stimulus a of split foreign was shown in no trial"):
        find_split(own, foreign)
    bad = Split("../out", made.split.train, made.split.test, "leaves the folder")
    with pytest.raises(CalcarineError, match="cannot name a folder"):
        find_split(own, bad.save(tmp_path / "bad.json"))
