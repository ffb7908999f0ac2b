"""Pictures are reproducible, well filled and truthfully captioned."""

from __future__ import annotations

import hashlib
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.stimuli import scenes
from calcarine.stimuli._drawing import Bounds, Pose, ShapePainter, mix, pose_bounds, shade
from calcarine.stimuli._objects import CATALOG

SAMPLE = 400
seeds = st.integers(0, 2**32 - 1)
indices = st.integers(0, 10**7)


@pytest.fixture(scope="module")
def sample() -> list[scenes.RenderedScene]:
    return [scenes.render(11, index) for index in range(SAMPLE)]


def silhouette(item: scenes.SceneObject, pixels: int) -> tuple[np.ndarray, Bounds]:
    """Mask of an object that is neither covered nor cut off."""
    outline = scenes._outline(item.size)
    pose = Pose(item.x, item.y, item.size, item.mirror, item.rotation)
    bounds = pose_bounds(pose, pixels, outline)
    pen = ShapePainter(pose, pixels, outline, bounds, silhouette=True)
    CATALOG[item.kind].painter(pen, item.color, item.shape)
    return pen.mask(), bounds


def test_numbers_of_kinds_and_backgrounds() -> None:
    assert len(set(scenes.KINDS)) == 24
    assert len(set(scenes.BACKGROUNDS)) == 8
    assert set(scenes.SUPERCATEGORY) == set(scenes.KINDS)
    assert not set(scenes.KINDS) & set(scenes.SYNONYMS.values())
    assert all(3 <= len(entry.colors) <= 5 for entry in CATALOG.values())


@settings(max_examples=30, deadline=None)
@given(seeds, indices)
def test_same_arguments_give_the_same_picture(seed: int, index: int) -> None:
    first = scenes.render(seed, index)
    scenes.render(seed, index + 1)
    second = scenes.render(seed, index)
    assert first.scene == second.scene
    assert first.captions == second.captions
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.semantic_map, second.semantic_map)


def test_order_of_drawing_does_not_matter(sample: list[scenes.RenderedScene]) -> None:
    for index in (30, 3, 17):
        np.testing.assert_array_equal(scenes.render(11, index).image, sample[index].image)


def test_drawing_needs_nothing_but_the_description(sample: list[scenes.RenderedScene]) -> None:
    image, semantic_map = scenes.draw(sample[5].scene)
    np.testing.assert_array_equal(image, sample[5].image)
    np.testing.assert_array_equal(semantic_map, sample[5].semantic_map)


def test_pictures_of_this_version_never_change() -> None:
    digest = hashlib.sha256()
    for index in range(8):
        picture = scenes.render(2024, index)
        digest.update(picture.image.tobytes())
        digest.update(picture.semantic_map.tobytes())
        digest.update("\n".join(picture.captions).encode())
    assert scenes.SCENES_VERSION == 1
    assert digest.hexdigest()[:16] == "bef883cbd3f20db0"


def test_pictures_differ(sample: list[scenes.RenderedScene]) -> None:
    images = np.stack([picture.image for picture in sample[:100]]).astype(float)
    distances = [np.abs(a - b).mean() for a, b in itertools.pairwise(images)]
    assert min(distances) > 4.0
    assert np.mean(distances) > 40.0
    assert len({picture.image.tobytes() for picture in sample}) == SAMPLE
    assert not np.array_equal(scenes.render(12, 0).image, sample[0].image)


def test_everything_occurs(sample: list[scenes.RenderedScene]) -> None:
    kinds = {item.kind for picture in sample for item in picture.scene.objects}
    assert kinds == set(scenes.KINDS)
    assert {picture.scene.background for picture in sample} == set(scenes.BACKGROUNDS)
    counts = np.bincount([len(picture.scene.objects) for picture in sample], minlength=5)
    np.testing.assert_allclose(counts / SAMPLE, [0.0, 0.42, 0.34, 0.16, 0.08], atol=0.08)


def test_no_kind_twice_and_depth_is_the_order(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        items = picture.scene.objects
        assert len({item.kind for item in items}) == len(items)
        assert [item.depth for item in items] == list(range(len(items)))
        assert all(0.28 <= item.size <= 0.7 for item in items)


def test_semantic_map_shows_the_objects(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        expected = {8 + scenes.KINDS.index(item.kind) for item in picture.scene.objects}
        expected.add(scenes.BACKGROUNDS.index(picture.scene.background))
        assert set(np.unique(picture.semantic_map).tolist()) == expected


@pytest.mark.parametrize("size", [64, 96])
def test_objects_are_visible_and_in_the_frame(size: int) -> None:
    for index in range(150):
        scene = scenes.describe(7, index)
        semantic_map = scenes.draw(scene, size)[1]
        for item in scene.objects:
            mask, b = silhouette(item, size)
            clip = b.clipped(size)
            inside = mask[
                clip.top - b.top : clip.bottom - b.top, clip.left - b.left : clip.right - b.left
            ]
            visible = np.count_nonzero(semantic_map == 8 + scenes.KINDS.index(item.kind))
            assert inside.sum() >= 0.9 * mask.sum()
            assert visible >= 0.7 * inside.sum()
            assert visible >= 0.02 * size * size


def test_crowded_fallback_is_free_of_overlap() -> None:
    scene = next(s for i in range(200) if len((s := scenes.describe(3, i)).objects) == 4)
    crowded = scenes._in_quarters(list(scene.objects))
    assert len({(item.x, item.y) for item in crowded}) == 4
    full = scenes.draw(scenes.Scene(0, 0, "sea", scene.params, crowded))[1]
    for item in crowded:
        visible = np.count_nonzero(full == 8 + scenes.KINDS.index(item.kind))
        assert visible == np.count_nonzero(silhouette(item, 64)[0])


def test_every_kind_stands_out_of_every_background() -> None:
    params = scenes.describe(0, 0).params
    rng = np.random.default_rng(0)
    for kind in scenes.KINDS:
        item = scenes._draft(rng, kind, 0, 1)
        for background in scenes.BACKGROUNDS:
            empty = scenes.draw(scenes.Scene(0, 0, background, params, ()))[0].astype(float)
            image, semantic_map = scenes.draw(scenes.Scene(0, 0, background, params, (item,)))
            difference = np.abs(image - empty).max(axis=2)[semantic_map >= 8]
            assert np.mean(difference > 25) > 0.3, (kind, background)


@pytest.mark.parametrize("size", [32, 48, 128, 256])
def test_size_changes_the_resolution_only(size: int) -> None:
    scene = scenes.describe(5, 1)
    image, semantic_map = scenes.draw(scene, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert semantic_map.shape == (size, size)
    reference, reference_map = scenes.draw(scene, 64)
    areas = np.bincount(semantic_map.ravel(), minlength=32) / size**2
    np.testing.assert_allclose(
        areas, np.bincount(reference_map.ravel(), minlength=32) / 64**2, atol=0.03
    )
    np.testing.assert_allclose(image.mean((0, 1)), reference.mean((0, 1)), atol=5.0)


def test_categories_are_ordered_by_visible_area(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample[:100]:
        areas = [
            np.count_nonzero(picture.semantic_map == 8 + scenes.KINDS.index(kind))
            for kind in picture.categories
        ]
        assert areas == sorted(areas, reverse=True)
        assert set(picture.categories) == {item.kind for item in picture.scene.objects}
    assert scenes.categories(sample[0].scene) == sample[0].categories


def test_five_different_captions_name_all_objects(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        assert len(set(picture.captions)) == 5
        for text in picture.captions:
            words = text.split()
            for item in picture.scene.objects:
                names = {item.kind, scenes.SYNONYMS.get(item.kind, item.kind)}
                assert len(names & set(words)) == 1, (item.kind, text)


def test_caption_names_no_other_kind(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        absent = set(scenes.KINDS) - set(picture.categories)
        absent |= {scenes.SYNONYMS[kind] for kind in absent if kind in scenes.SYNONYMS}
        for text in picture.captions:
            assert not absent & set(text.split())


def test_caption_length_alphabet_and_grammar(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        for text in picture.captions:
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", text), text
            assert len(text.split()) <= 20
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_vocabulary_is_small() -> None:
    words: set[str] = set()
    for index in range(1500):
        for text in scenes.captions(scenes.describe(1, index)):
            words |= set(text.split())
    assert 60 <= len(words) <= 160


def test_colors_in_captions_are_true(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        if len(picture.scene.objects) < 4:
            for item in picture.scene.objects:
                assert item.color_name in picture.captions[0].split()


def test_sides_in_captions_are_true(sample: list[scenes.RenderedScene]) -> None:
    for picture in sample:
        if len(picture.scene.objects) == 1:
            (item,) = picture.scene.objects
            assert ("on the left" in picture.captions[3]) == (item.x < 0.4)
            assert ("on the right" in picture.captions[3]) == (item.x > 0.6)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 0.4), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_disk_has_the_right_area(radius: float, x: float, y: float) -> None:
    pixels = 64
    image = np.zeros((pixels, pixels, 3), dtype=np.float32)
    pen = ShapePainter(Pose(0.0, 0.0, 2.0), pixels, 0.0, Bounds(0, pixels, 0, pixels))
    pen.disk(x, y, radius, (1.0, 1.0, 1.0))
    pen.paint(image)
    inside = max(abs(x - 0.5), abs(y - 0.5)) + radius < 0.49
    area = image[:, :, 0].sum() / pixels**2
    assert area <= np.pi * radius**2 * 1.02
    if inside:
        assert area == pytest.approx(np.pi * radius**2, rel=0.02)


def test_box_polygon_and_line_agree() -> None:
    pictures = []
    for shape in ("box", "polygon", "turned"):
        image = np.zeros((64, 64, 3), dtype=np.float32)
        pen = ShapePainter(Pose(0.5, 0.5, 1.0), 64, 0.0, Bounds(0, 64, 0, 64))
        if shape == "box":
            pen.box(0.1, 0.0, 0.5, 0.3, (200.0, 100.0, 50.0))
        elif shape == "turned":
            pen.box(0.1, 0.0, 0.3, 0.5, (200.0, 100.0, 50.0), angle=90.0)
        else:
            corners = [(-0.4, -0.3), (0.6, -0.3), (0.6, 0.3), (-0.4, 0.3)]
            pen.polygon(corners, (200.0, 100.0, 50.0))
        pen.paint(image)
        pictures.append(image)
    np.testing.assert_allclose(pictures[1], pictures[0], atol=0.1)
    np.testing.assert_allclose(pictures[2], pictures[0], atol=0.1)


def test_mirrored_pose_mirrors_the_picture() -> None:
    pictures = []
    for mirror in (False, True):
        image = np.zeros((64, 64, 3), dtype=np.float32)
        pen = ShapePainter(Pose(0.5, 0.5, 0.8, mirror), 64, 0.01, Bounds(0, 64, 0, 64))
        CATALOG["fish"].painter(pen, (255.0, 0.0, 0.0), (0.2, 0.4, 0.1))
        pen.paint(image)
        pictures.append(image)
    np.testing.assert_allclose(pictures[1], pictures[0][:, ::-1], atol=0.1)
    assert not np.allclose(pictures[0], pictures[1])


def test_colors_can_be_mixed() -> None:
    assert mix((0.0, 10.0, 20.0), (100.0, 10.0, 0.0), 0.5) == (50.0, 10.0, 10.0)
    assert shade((100.0, 50.0, 0.0), 0.5) == (50.0, 25.0, 0.0)
    assert shade((55.0, 155.0, 255.0), 1.5) == (155.0, 205.0, 255.0)
