"""Metrics equal their definitions, written out as slow loops, and scikit-image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from calcarine.errors import CalcarineError
from calcarine.evaluation.metrics import matrices, similarity
from calcarine.evaluation.metrics.structural_similarity import LocalMoments, structure
from calcarine.evaluation.scoring.score import score_arrays

N, S, HEIGHT, WIDTH = 5, 2, 17, 14


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (N, HEIGHT, WIDTH, 3)).astype(np.uint8)
    noise = rng.integers(0, 256, (N, S, HEIGHT, WIDTH, 3))
    return truth, ((truth[:, None].astype(int) + noise) // 2).astype(np.uint8)


def feature_correlations(truth: np.ndarray, recon: np.ndarray) -> np.ndarray:
    """All pairs, averaged over samples."""
    each = [similarity.correlation_matrix(truth, recon[:, s]) for s in range(recon.shape[1])]
    return np.mean(each, axis=0)


def pixel_correlations(truth: np.ndarray, recon: np.ndarray) -> np.ndarray:
    return feature_correlations(truth.reshape(len(truth), -1), recon.reshape(*recon.shape[:2], -1))


def ssims(truth: np.ndarray, recon: np.ndarray, kind: str = "2d") -> np.ndarray:
    """All pairs at once, averaged over samples."""
    x, y = (
        LocalMoments.of((p / 255 if p.dtype == np.uint8 else p) @ matrices.GRAY, kind)
        for p in (truth[:, None, None], recon[None])
    )
    return structure(x, y).mean(axis=2)


def reference_ssim(x: np.ndarray, y: np.ndarray, kind: str) -> float:
    return structural_similarity(
        rgb2gray(x / 255),
        rgb2gray(y / 255),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1 if kind == "columns" else None,
    )


def slow_identification(
    scores: np.ndarray, direction: str, tie: float, groups: np.ndarray
) -> np.ndarray:
    n = len(scores)
    shares = np.full((n, n), np.nan)
    for i, j in itertools.product(range(n), repeat=2):
        if groups[i] != groups[j]:
            continue
        candidate = j if direction == "image" else i
        rivals = [k for k in range(n) if k != candidate and groups[k] == groups[i]]
        won = []
        for k in rivals:
            other = scores[i, k] if direction == "image" else scores[k, j]
            won.append(1.0 if scores[i, j] > other else tie if scores[i, j] == other else 0.0)
        shares[i, j] = np.mean(won)
    return shares


def test_pixel_correlation_is_pearson_averaged_over_samples(pictures):
    truth, recon = pictures
    matrix = pixel_correlations(truth, recon)
    for i, j in itertools.product(range(N), repeat=2):
        expected = [np.corrcoef(truth[i].ravel(), sample.ravel())[0, 1] for sample in recon[j]]
        assert matrix[i, j] == pytest.approx(np.mean(expected), abs=1e-12)


def test_floats_in_unit_range_score_as_bytes_do(pictures):
    truth, recon = pictures
    for metric in (pixel_correlations, ssims):
        np.testing.assert_allclose(
            metric(truth / 255, (recon / 255).astype(np.float64)), metric(truth, recon), atol=1e-12
        )


def test_small_blocks_change_nothing(pictures, monkeypatch):
    truth, recon = pictures
    whole = pixel_correlations(truth, recon)
    monkeypatch.setattr(similarity, "_BLOCK", 7)
    monkeypatch.setattr(similarity, "_ROWS_BYTES", 1)
    np.testing.assert_allclose(pixel_correlations(truth, recon), whole, atol=1e-13)


@pytest.mark.parametrize("kind", ["2d", "columns"])
def test_ssim_equals_scikit_image(pictures, kind):
    truth, recon = pictures
    matrix = ssims(truth, recon, kind)
    for i, j in itertools.product(range(N), repeat=2):
        expected = np.mean([reference_ssim(truth[i], sample, kind) for sample in recon[j]])
        assert matrix[i, j] == pytest.approx(expected, abs=1e-9)
    x, y = (LocalMoments.of(p / 255 @ matrices.GRAY, kind) for p in (truth, recon[:, 0]))
    own = ssims(truth, recon[:, :1], kind)
    np.testing.assert_allclose(structure(x, y), np.diagonal(own), atol=1e-13)


def test_the_two_ssims_differ(pictures):
    assert np.abs(ssims(*pictures) - ssims(*pictures, "columns")).max() > 0.01


def test_ssim_of_smallest_and_too_small_images():
    rng = np.random.default_rng(1)
    truth, recon = rng.random((2, 11, 11, 3)), rng.random((2, 1, 11, 11, 3))
    expected = reference_ssim(truth[0] * 255, recon[1, 0] * 255, "2d")
    assert ssims(truth, recon)[0, 1] == pytest.approx(expected, abs=1e-9)
    found = score_arrays(truth[:, :10], recon[:, :, :10], judge=None, n_boot=9, n_permutations=9)
    assert any(
        "left out SSIM, because the pictures are smaller than the window" in note
        for note in found.notes
    )


def test_feature_correlation_of_constant_vectors_is_zero():
    rng = np.random.default_rng(2)
    truth, recon = rng.random((4, 30)), rng.random((4, 1, 30))
    truth[1], recon[2] = 0.1, 1e6 / 3
    matrix = feature_correlations(truth, recon)
    assert (matrix[1] == 0).all() and (matrix[:, 2] == 0).all()
    expected = np.corrcoef(truth[0], recon[3, 0])[0, 1]
    assert matrix[0, 3] == pytest.approx(expected, abs=1e-12)


def test_features_that_are_not_finite_are_refused():
    truth = np.ones((3, 4))
    recon = np.ones((3, 1, 4))
    recon[1, 0, 2] = np.nan
    with pytest.raises(CalcarineError, match="NaN"):
        feature_correlations(truth, recon)


@pytest.mark.parametrize("direction", ["image", "reconstruction"])
@pytest.mark.parametrize("ties", ["half", "failure"])
@pytest.mark.parametrize("grouped", [False, True])
def test_identification_equals_double_loop(direction, ties, grouped):
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 6, (9, 9)) / 7
    groups = np.array([0, 1, 0, 1, 1, 0, 2, 2, 0]) if grouped else np.zeros(9, int)
    expected = slow_identification(scores, direction, 0.5 if ties == "half" else 0.0, groups)
    labels = groups if grouped else None
    matrix = matrices.identification_matrix(scores, direction, ties, labels)
    np.testing.assert_allclose(matrix, expected, atol=1e-14)
    assert np.isnan(matrix).any() == grouped


def test_mindeye_and_takagi_formulas_are_the_diagonals():
    rng = np.random.default_rng(4)
    r = rng.random((8, 8)) + 0.3 * np.eye(8)
    mindeye = ((r < np.diag(r)[None]).sum(axis=0) / 7).mean()
    takagi = ((r < np.diag(r)[:, None]).sum(axis=1) / 7).mean()
    assert mindeye != takagi
    for direction, expected in (("reconstruction", mindeye), ("image", takagi)):
        value = np.diagonal(matrices.identification_matrix(r, direction, "failure")).mean()
        assert value == pytest.approx(expected)


@pytest.mark.parametrize("direction", ["image", "reconstruction"])
def test_perfect_reconstructions_are_always_identified(pictures, direction):
    truth = pictures[0]
    matrix = pixel_correlations(truth, truth[:, None])
    assert (np.diagonal(matrices.identification_matrix(matrix, direction, "failure")) == 1).all()
    np.testing.assert_allclose(np.diagonal(ssims(truth, truth[:, None])), 1)


@pytest.mark.parametrize(("ties", "expected"), [("half", 0.5), ("failure", 0.0)])
def test_one_picture_for_everything_identifies_nothing(pictures, ties, expected):
    truth = pictures[0]
    same = np.broadcast_to(truth[0], (N, S, *truth.shape[1:]))
    gray = np.full((N, 1, *truth.shape[1:]), 99, np.uint8)
    for recon, direction in ((same, "image"), (gray, "image"), (gray, "reconstruction")):
        matrix = pixel_correlations(truth, recon)
        shares = matrices.identification_matrix(matrix, direction, ties)
        np.testing.assert_array_equal(np.diagonal(shares), expected)


def test_a_group_of_one_is_refused():
    with pytest.raises(CalcarineError, match="group b"):
        matrices.identification_matrix(np.eye(3), groups=["a", "b", "a"])


@pytest.mark.parametrize(("n_way", "k"), [(2, 1), (5, 1), (5, 3), (12, 2), (12, 12)])
def test_closed_form_equals_drawing(n_way, k):
    rng = np.random.default_rng(5)
    truth, recon = rng.dirichlet(np.ones(12), 3), rng.dirichlet(np.ones(12), (3, 2))
    exact = matrices.n_way_top_k_matrix(truth, recon, n_way, k)
    drawn = matrices.n_way_top_k_sampled(truth, recon, n_way, k, n_draws=4000, seed=1)
    # Five standard errors of a proportion over 4000 draws.
    np.testing.assert_allclose(exact, drawn, atol=5 * 0.5 / np.sqrt(4000))
    if n_way == 12:
        np.testing.assert_allclose(exact, drawn, atol=1e-12)


def test_undecided_classifier_is_at_chance_and_a_sure_one_at_one():
    truth = np.eye(10)[:4]
    flat = np.full((4, 1, 10), 0.1)
    np.testing.assert_allclose(matrices.n_way_top_k_matrix(truth, flat, 6, 2), 2 / 6)
    sure = matrices.n_way_top_k_matrix(truth, truth[:, None] * 0.5 + 0.05, 10, 1)
    np.testing.assert_allclose(np.diagonal(sure), 1)
    # Nine classes share the lower rank, so a wrong one never wins against the top class.
    np.testing.assert_allclose(sure[~np.eye(4, dtype=bool)], 0, atol=1e-12)


@pytest.mark.parametrize(("n_way", "k"), [(11, 1), (5, 6), (5, 0)])
def test_impossible_n_way_is_refused(n_way, k):
    with pytest.raises(CalcarineError, match="n_way <= classes"):
        matrices.n_way_top_k_matrix(np.eye(10), np.eye(10)[:, None], n_way, k)


def test_labels_are_read_among_the_allowed_classes():
    probabilities = np.array([[[0.1, 0.5, 0.4], [0.6, 0.1, 0.3]], [[0.2, 0.7, 0.1]] * 2])
    np.testing.assert_allclose(matrices.label_matrix([1, 0], probabilities), [[0.5, 1], [0.5, 0]])
    restricted = matrices.label_matrix([2, 0], probabilities, [2, 0])
    np.testing.assert_allclose(restricted, [[0.5, 0], [0.5, 1]])
    with pytest.raises(CalcarineError, match="label"):
        matrices.label_matrix([1, 0], probabilities, [0, 2])


@pytest.mark.parametrize(
    "recon",
    [
        np.zeros((3, 1, 12, 12, 3), np.uint8),
        np.zeros((2, 0, 12, 12, 3), np.uint8),
        np.full((2, 1, 12, 12, 3), 1.5),
        np.full((2, 1, 12, 12, 3), np.nan),
        np.zeros((2, 1, 12, 12, 3), np.int64),
    ],
)
def test_images_that_do_not_fit_are_refused(recon):
    truth = np.zeros((2, 12, 12, 3), np.uint8)
    with pytest.raises(CalcarineError, match="give"):
        score_arrays(truth, recon)
