"""Retrieval in a gallery, against loops and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, skew

from calcarine.decoding import Gallery, retrieval, retrieve
from calcarine.errors import SettingError, ShapeError

NAMES = [f"picture {i}" for i in range(60)]


def made(seed=0, noise=1.0, n=20, m=60, width=8):
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(m, width))
    return gallery[:n] + noise * rng.normal(size=(n, width)), gallery


def similarities(decoded, gallery, mean, metric):
    """Cosine or correlation of every pair, one at a time."""
    table = np.empty((len(decoded), len(gallery)))
    for i, a in enumerate(decoded):
        for j, b in enumerate(gallery):
            a0, b0 = a - mean, b - mean
            if metric == "correlation":
                a0, b0 = a0 - a0.mean(), b0 - b0.mean()
            table[i, j] = a0 @ b0 / np.sqrt((a0 @ a0) * (b0 @ b0))
    return table


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
@pytest.mark.parametrize("hubs", ["keep", "csls"])
@pytest.mark.parametrize("block", [200, 32_000_000])
def test_ranks_are_those_of_a_loop_in_any_blocks(monkeypatch, metric, hubs, block):
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", block)
    decoded, gallery = made()
    mean = gallery.mean(0)
    table = similarities(decoded, gallery, mean, metric)
    if hubs == "csls":
        table = table - np.sort(table, axis=0)[-10:].mean(0) / 2
    found = retrieve(decoded, gallery, NAMES[:20], NAMES, mean=mean, metric=metric, hubs=hubs, k=4)
    forward = [rankdata(-row)[i] for i, row in enumerate(table)]
    backward = [rankdata(-table[:, i])[i] for i in range(20)]
    np.testing.assert_array_equal(found.rank, forward)
    others = [[rankdata(-row)[i] for row in table] for i in range(20)]
    np.testing.assert_array_equal(found.places, others)
    np.testing.assert_array_equal(found.backward_rank, backward)
    order = np.argsort(-table, axis=1)
    assert found.nearest == tuple(tuple(NAMES[j] for j in row[:4]) for row in order)
    np.testing.assert_allclose(found.similarity, -np.sort(-table, axis=1)[:, :4], atol=1e-6)
    hits = np.bincount(order[:, :10].ravel(), minlength=60)
    assert found.hubness == pytest.approx(skew(hits))
    assert found.gallery_size == 60
    assert found.top(3) == np.mean(np.array(forward) <= 3)
    assert found.top(2, backward=True) == np.mean(np.array(backward) <= 2)
    assert found.median_rank == np.median(forward)
    assert found.rank_percentile == pytest.approx(np.mean((60 - np.array(forward)) / 59))


def test_the_truth_is_found_and_a_shuffled_brain_is_at_chance():
    _, gallery = made(m=60, n=60, width=40)
    perfect = retrieve(gallery, gallery, NAMES)
    assert perfect.top(1) == perfect.top(1, backward=True) == perfect.rank_percentile == 1
    # All pairs, whatever the order: the mean rank percentile over all derangements is one half.
    shifted = [
        retrieve(np.roll(gallery, shift, axis=0), gallery, NAMES).rank_percentile
        for shift in range(1, 60)
    ]
    # Each row meets every other picture once: ranks 2 to 60, as the first is the row itself.
    assert np.mean(shifted) == pytest.approx(np.mean((60 - np.arange(2, 61)) / 59))


def test_equal_similarities_share_their_rank():
    gallery = np.eye(4)
    found = retrieve(np.zeros((4, 4)), gallery, NAMES[:4])
    np.testing.assert_array_equal(found.rank, 2.5)
    assert found.rank_percentile == 0.5 and found.hubness == pytest.approx(0)


def test_predictions_that_are_shrunk_towards_the_mean_are_found_about_it():
    rng = np.random.default_rng(1)
    far = 10 + rng.normal(size=(60, 30))
    shrunk = far.mean(0) + 0.05 * (far[:20] - far.mean(0))
    about = retrieve(shrunk, far, NAMES[:20], NAMES, mean=far.mean(0))
    assert about.top(1) == 1
    plain = retrieve(shrunk + 0.02 * rng.normal(size=shrunk.shape), far, NAMES[:20], NAMES)
    assert plain.hubness > about.hubness


def test_scaling_finds_pictures_in_spite_of_hubs():
    rng = np.random.default_rng(2)
    gallery = rng.normal(size=(60, 20))
    shared = 6 * np.eye(20)[0]  # of all that is decoded, and of the last pictures
    gallery[-8:] = shared + 0.5 * rng.normal(size=(8, 20))
    decoded = gallery[:40] + shared + 0.5 * rng.normal(size=(40, 20))
    kept, scaled = (
        retrieve(decoded, gallery, NAMES[:40], NAMES, hubs=hubs) for hubs in ("keep", "csls")
    )
    assert kept.hubness > 1 and kept.top(1) < 0.1 and scaled.top(1) > 0.6


@given(seed=st.integers(0, 1000), n=st.integers(1, 12), extra=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_the_order_of_gallery_and_embeddings_does_not_matter(seed, n, extra):
    decoded, gallery = made(seed, n=n, m=n + extra)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n), rng.permutation(n + extra)
    one = retrieve(decoded, gallery, NAMES[:n], NAMES[: n + extra], k=1)
    right, names = [NAMES[i] for i in rows], [NAMES[i] for i in columns]
    other = retrieve(decoded[rows], gallery[columns], right, names, k=1)
    np.testing.assert_array_equal(one.rank[rows], other.rank)
    np.testing.assert_array_equal(one.backward_rank[rows], other.backward_rank)
    assert [one.nearest[i] for i in rows] == list(other.nearest)


def test_one_embedding_alone_is_found_as_among_others():
    decoded, gallery = made(noise=0.5)
    together = retrieve(decoded, gallery, NAMES[:20], NAMES)
    for row in range(20):
        alone = retrieve(decoded[row : row + 1], gallery, [NAMES[row]], NAMES)
        assert alone.rank[0] == together.rank[row] and alone.nearest[0] == together.nearest[row]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"right": ["nobody", *NAMES[1:20]]}, "lacks 1 of the pictures .* 'nobody'"),
        ({"ids": [*NAMES[:59], NAMES[0]]}, "holds 'picture 0' twice"),
        ({"ids": NAMES[:50]}, "60 embeddings and 50 ids"),
        ({"right": NAMES[:19]}, "20 decoded embeddings and 19 ids"),
        ({"decoded": np.zeros((20, 7))}, r"\(7,\) and those of the gallery \(8,\)"),
        ({"mean": np.zeros(7)}, r"mean has the shape \(7,\)"),
        ({"decoded": np.full((20, 8), np.nan)}, "Row 0 of the decoded embeddings"),
        ({"k": 0}, "k is 0"),
        ({"gallery": np.zeros((1, 8)), "ids": NAMES[:1]}, "at least two"),
    ],
)
def test_mistakes_are_one_sentence(changes, message):
    decoded, gallery = made()
    options = {"decoded": decoded, "gallery": gallery, "right": NAMES[:20], "ids": NAMES}
    options |= changes
    with pytest.raises((ShapeError, SettingError), match=message):
        retrieve(**options)


def test_unknown_settings_are_named():
    decoded, gallery = made()
    with pytest.raises(SettingError, match=r"cosine or correlation.*Did you mean"):
        retrieve(decoded, gallery, NAMES[:20], NAMES, metric="cosin")


def test_it_prints_the_size_of_the_gallery_beside_the_scores():
    decoded, gallery = made(noise=0)
    found = retrieve(decoded, gallery, NAMES[:20], NAMES)
    assert "gallery 60 pictures" in repr(found) and "top-1 1.000 (chance 0.0167)" in repr(found)
    assert "Retrieval" in found._repr_html_()


@pytest.mark.parametrize("block", [50, 32_000_000])
@pytest.mark.parametrize("hubs", ["keep", "csls"])
def test_a_joined_gallery_is_one_array(monkeypatch, tmp_path, block, hubs):
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", block)
    decoded, values = made()
    np.save(tmp_path / "some.npy", values[25:])
    on_disk = np.load(tmp_path / "some.npy", mmap_mode="r")
    parts = [Gallery(values[:25], NAMES[:25]), Gallery(on_disk, NAMES[25:])]
    joined = Gallery.joined(parts)
    assert len(joined) == 60 and joined.shape == (8,) and "60 pictures" in repr(joined)
    one = retrieve(decoded, joined, NAMES[:20], hubs=hubs)
    other = retrieve(decoded, values, NAMES[:20], NAMES, hubs=hubs)
    np.testing.assert_array_equal(one.places, other.places)
    assert one.nearest == other.nearest and one.hubness == other.hubness


@pytest.mark.parametrize("block", [50, 32_000_000])
def test_without_the_seen_pictures_only_the_nearest_are_known(monkeypatch, block):
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", block)
    decoded, values = made()
    found = retrieve(decoded, Gallery(values[20:], NAMES[20:]), None, k=3)
    table = similarities(decoded, values[20:], 0, "cosine")
    order = np.argsort(-table, axis=1)[:, :3]
    assert found.nearest == tuple(tuple(NAMES[20 + at] for at in row) for row in order)
    assert not found.has_ranks and found.places is None and found.backward_rank is None
    assert "gallery 40 pictures, ranks none, because it lacks" in repr(found)
    assert "Retrieval(of 20" in repr(found)
    for ask in (lambda: found.rank, lambda: found.top(1, backward=True), lambda: found.percentiles):
        with pytest.raises(SettingError, match="lacks the pictures that were seen, so no rank"):
            ask()


def test_a_gallery_is_read_once_where_no_pass_over_all_of_it_is_needed(monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", 800)  # ten pictures at a time
    decoded, values = made()
    read = []

    class Counted:
        shape = values.shape

        def __getitem__(self, rows):
            read.append(rows)
            return values[rows]

    retrieve(decoded, Gallery(Counted(), NAMES), NAMES[:20])
    assert len(read) == 6 + 2
    read.clear()
    retrieve(decoded, Gallery(Counted(), NAMES), None)
    assert len(read) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gallery(np.zeros((3, 2)), ["a", "b"]), "3 embeddings and 2 ids"),
        (lambda: Gallery(np.zeros((2, 2)), ["a", "a"]), "holds 'a' twice"),
        (lambda: Gallery.joined([]), "no gallery to join"),
        (
            lambda: Gallery.joined(
                [Gallery(np.zeros((1, 2)), ["a"]), Gallery(np.zeros((1, 3)), ["b"])]
            ),
            r"shapes \(2,\) and \(3,\); join those of one kind",
        ),
        (
            lambda: Gallery.joined([Gallery(np.zeros((1, 2)), ["a"])] * 2),
            "holds 'a' twice; leave one",
        ),
        (lambda: retrieve(np.zeros((1, 2)), np.zeros((3, 2)), None), "no ids; give them as ids"),
    ],
)
def test_mistakes_in_galleries_are_one_sentence(make, message):
    with pytest.raises((ShapeError, SettingError), match=message):
        make()
