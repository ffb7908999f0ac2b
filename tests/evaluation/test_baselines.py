"""Floors depend on the training images, the seed and the stimulus, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from calcarine.errors import CalcarineError
from calcarine.evaluation.baselines import blurred_truth, random_training_image, training_mean

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
