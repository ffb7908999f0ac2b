"""Floors depend on the training images, the seed and the stimulus, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from calcarine.errors import CalcarineError
from calcarine.evaluation.baselines import (
    blurred_truth,
    nearest_training_image,
    random_training_image,
    training_mean,
)

TRAIN = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3)).astype(np.uint8)
IDS = [f"s{i}" for i in range(200)]


def test_training_mean_is_the_rounded_mean_for_everyone():
    floor = training_mean(TRAIN, 4)
    assert floor.shape == (4, 1, 6, 5, 3) and floor.dtype == np.uint8
    np.testing.assert_array_equal(floor[3, 0], np.round(TRAIN.astype(float).mean(axis=0)))
    np.testing.assert_array_equal(floor[0], floor[1])


def test_random_training_images_do_not_depend_on_order():
    floor = random_training_image(TRAIN, IDS, n_samples=2)
    reversed_ = random_training_image(TRAIN, IDS[::-1], n_samples=2)
    np.testing.assert_array_equal(floor, reversed_[::-1])
    np.testing.assert_array_equal(random_training_image(TRAIN, IDS[7:8], n_samples=2)[0], floor[7])
    other = random_training_image(TRAIN, IDS, n_samples=2, seed=1)
    assert (other != floor).any()
    assert (floor[:, 0] != floor[:, 1]).any()


def test_random_training_images_come_from_everywhere_in_training():
    floor = random_training_image(TRAIN, IDS)
    rows = [np.flatnonzero((image[0] == TRAIN).all(axis=(1, 2, 3))) for image in floor]
    assert all(len(row) == 1 for row in rows)
    assert len({int(row[0]) for row in rows}) > 25


def test_blur_keeps_the_mean_and_removes_detail():
    flat = np.full((1, 8, 8, 3), 7, np.uint8)
    np.testing.assert_array_equal(blurred_truth(flat, 2.0)[:, 0], flat)
    blurred = blurred_truth(TRAIN, 2.0)
    assert blurred.shape == (30, 1, 6, 5, 3)
    assert blurred.std() < 0.5 * TRAIN.std()
    np.testing.assert_array_equal(blurred_truth(TRAIN, 0.0)[:, 0], TRAIN)


def test_no_images_are_refused():
    for floor in (
        training_mean,
        lambda x: random_training_image(x, ["a"]),
        lambda x: blurred_truth(x, 1),
    ):
        with pytest.raises(CalcarineError, match="at least one"):
            floor(TRAIN[:0])


def test_the_nearest_training_image_is_the_one_that_correlates_most():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    known, decoded = rng.normal(size=(20, 4, 3, 3)), rng.normal(2, 5, size=(7, 4, 3, 3))
    decoded[0] = -3 * known[11] + 40  # as unlike as can be
    decoded[1] = 0.1 * known[4] - 7  # alike, whatever the scale
    found = nearest_training_image(images, known, decoded)
    assert found.shape == (7, 1, 8, 8, 3)
    for row, picture in zip(decoded, found, strict=True):
        r = [np.corrcoef(row.ravel(), other.ravel())[0, 1] for other in known]
        np.testing.assert_array_equal(picture[0], images[int(np.argmax(r))])
    np.testing.assert_array_equal(found[1, 0], images[4])
    assert not np.array_equal(found[0, 0], images[11])
    with pytest.raises(CalcarineError, match="do not fit"):
        nearest_training_image(images, known[:5], decoded)
