"""The same picture, changed, is found; different pictures of one kind are not."""

import numpy as np
import pytest

from calcarine.splits.transformed_copies import same_pictures
from calcarine.stimuli import StimulusSet, resize_images


@pytest.fixture(scope="module")
def scenes():
    return StimulusSet.from_scenes(4, range(70)).images()


def crop(top, bottom, left, right):
    def cut(images):
        side = images.shape[1]
        part = images[
            :,
            round(top * side) : side - round(bottom * side),
            round(left * side) : side - round(right * side),
        ]
        return resize_images(np.ascontiguousarray(part), side)

    return cut


CHANGES = {
    "mirrored": lambda x: x[:, :, ::-1],
    "turned around": lambda x: x[:, ::-1, ::-1],
    "turned": lambda x: np.rot90(x, 1, (1, 2)),
    "transposed": lambda x: x.transpose(0, 2, 1, 3),
    "grey": lambda x: np.repeat((x @ [0.299, 0.587, 0.114])[..., None], 3, -1).astype(np.uint8),
    "colours exchanged": lambda x: x[..., [2, 0, 1]],
    "gamma": lambda x: (255 * (x / 255) ** 1.6).astype(np.uint8),
    "contrast": lambda x: np.clip(1.4 * (x - 128.0) + 128, 0, 255).astype(np.uint8),
    "a few per cent cropped": crop(0.05, 0.05, 0.05, 0.05),
    "a fifth cropped on the left": crop(0, 0, 0.2, 0),
    "a corner": crop(0.15, 0, 0, 0.15),
    "cropped and mirrored": lambda x: crop(0.1, 0.05, 0.15, 0.05)(x)[:, :, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(scenes, change):
    test, train = scenes[:8], scenes[8:]
    copies = np.ascontiguousarray(CHANGES[change](test[2:5]))
    found = same_pictures(test, np.concatenate([train, copies])).pairs
    assert [(each.row, each.column - len(train)) for each in found] == [(2, 0), (3, 1), (4, 2)]


def test_a_test_picture_that_is_a_crop_of_a_training_picture_is_found(scenes):
    test, train = scenes[:6].copy(), scenes[6:]
    test[1] = crop(0.1, 0.1, 0.1, 0.1)(train[40:41])[0]
    (found,) = same_pictures(test, train).pairs
    assert (found.row, found.column, found.how) == (1, 40, "as a larger picture")


def test_pairs_that_do_not_count_are_left_out(scenes):
    train = np.concatenate([scenes[8:20], scenes[:2, :, ::-1]])
    allowed = np.ones((8, 14), bool)
    allowed[0, 12] = False
    found = same_pictures(scenes[:8], train, allowed).pairs
    assert [(each.row, each.column) for each in found] == [(1, 13)]


def test_strokes_of_one_kind_are_not_the_same_picture(rng):
    """Crosses on black, nearly alike in training too."""

    def cross(y, x):
        image = np.zeros((64, 64, 3), np.uint8)
        image[y - 3 : y + 3, 12:52] = image[12:52, x - 3 : x + 3] = 255
        return image

    images = np.stack([cross(*rng.integers(28, 37, 2)) for _ in range(60)])
    images = np.unique(images, axis=0)
    images = images[rng.permutation(len(images))]
    assert same_pictures(images[:8], images[8:]).pairs == []


def test_pictures_of_one_tone_are_like_none():
    flat = np.full((4, 64, 64, 3), 90, np.uint8)
    assert same_pictures(flat[:2], flat[2:]).pairs == []


def test_training_pictures_that_are_copies_of_each_other_leave_it_undecided(scenes):
    train = np.concatenate([scenes[8:20], scenes[8:20, :, ::-1], scenes[2:4, :, ::-1]])
    found = same_pictures(scenes[:8], train)
    assert found.pairs == [] and "turned or in other colours" in found.undecided
    plain = same_pictures(scenes[:8], train[:12])
    assert plain.pairs == [] and plain.undecided == ()
