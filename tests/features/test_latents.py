import numpy as np
import pytest

from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.features import FeatureStore, text_conditioning, visual_latent
from calcarine.features.latents import count_without_category
from calcarine.features.semantic_map_colours import coloured_maps, palette
from calcarine.stimuli import StimulusSet, resize_images


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def stimuli(rng):
    return StimulusSet.from_arrays(
        rng.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8),
        captions=["a cat"] * 5,
        categories=[("cat",), ("dog", "cat"), ("dog",), ("a",), ("b",)],
        semantic_maps=rng.integers(0, 3, (5, 40, 40), dtype=np.uint8),
    )


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path)


def test_size_and_filter_are_those_asked_for(store, model, stimuli):
    z = visual_latent(store, model, stimuli, 24, resize="lanczos")
    images = resize_images(stimuli.images(), 24, filter="lanczos")
    assert z.shape == (5, 4, 3, 3)
    assert np.allclose(z, model.encode(images), atol=1e-6)
    assert not np.allclose(z, visual_latent(store, model, stimuli, 24))
    with pytest.raises(CalcarineError, match="multiple of 8"):
        visual_latent(store, model, stimuli, 25)


def test_samples_belong_to_the_stimulus_and_scatter_about_the_mode(store, model, stimuli, tmp_path):
    mode = visual_latent(store, model, stimuli, 64)
    drawn = visual_latent(store, model, stimuli, 64, posterior="sample", seed=1)
    other = visual_latent(store, model, stimuli, 64, posterior="sample", seed=2)
    assert not np.allclose(mode, drawn) and not np.allclose(drawn, other)
    some = stimuli.subset([stimuli.ids[3], stimuli.ids[1]])
    again = visual_latent(FeatureStore(tmp_path / "b"), model, some, 64, posterior="sample", seed=1)
    assert np.allclose(again, drawn[[3, 1]], atol=1e-5)
    images = resize_images(stimuli.images()[:1], 64)
    keys = [("x", i) for i in range(300)]
    many = model.encode(np.repeat(images, 300, axis=0), sample=keys)
    assert np.allclose(many.mean(0), mode[0], atol=5 * many.std(0).max() / np.sqrt(300))


def test_categories_take_the_place_of_captions(store, model, stimuli):
    c = text_conditioning(store, model, stimuli, text="categories")
    states = model.embed_text(["dog", "cat"])
    assert np.allclose(c[1], states.mean(0), atol=1e-6)
    assert np.allclose(c[2], states[0], atol=1e-6)
    assert not np.allclose(c, text_conditioning(store, model, stimuli))
    bare = StimulusSet.from_arrays(stimuli.images())
    empty = text_conditioning(store, model, bare, text="categories")
    assert np.allclose(empty, model.embed_text([""]), atol=1e-6)
    told = StimulusSet.from_arrays(stimuli.images(), captions=["a cat"] * len(bare))
    with pytest.raises(CalcarineError, match=r"No stimulus has a category.*features.text=captions"):
        text_conditioning(store, model, told, text="categories")
    with pytest.raises(
        CalcarineError, match=r"no caption, first .* or set features.text=categories"
    ):
        text_conditioning(store, model, bare)


def test_a_picture_without_category_gets_the_empty_text(store, model, stimuli, rng):
    """One picture in a hundred of COCO shows no object; an id of WordNet is no text."""
    some = StimulusSet.from_arrays(
        stimuli.images(),
        captions=["a cat"] * 5,
        categories=[("cat", "n02121620"), (), ("dog",), ("n02084071",), ("b",)],
    )
    c = text_conditioning(store, model, some, text="categories")
    empty, cat = model.embed_text(["", "cat"])
    assert np.allclose(c[[1, 3]], empty, atol=1e-6)
    assert np.allclose(c[0], cat, atol=1e-6)
    assert count_without_category(some, "categories") == 2
    assert count_without_category(some, "captions") == 0


def test_semantic_maps_take_the_place_of_images(store, model, stimuli):
    z = visual_latent(store, model, stimuli, 64, picture="semantic_map")
    coloured = coloured_maps(stimuli.semantic_maps())
    assert np.allclose(z, model.encode(resize_images(coloured, 64, nearest=True)), atol=1e-6)
    with pytest.raises(CalcarineError, match="no semantic map"):
        visual_latent(
            store, model, StimulusSet.from_arrays(stimuli.images()), 64, picture="semantic_map"
        )


def test_changed_maps_and_labels_are_made_anew(store, model, stimuli):
    options = {"picture": "semantic_map"}
    before = visual_latent(store, model, stimuli, 64, **options)
    changed = StimulusSet.from_arrays(
        stimuli.images(),
        categories=["x"] * 5,
        captions=["a cat"] * 5,
        semantic_maps=stimuli.semantic_maps() + 1,
    )
    assert not np.allclose(visual_latent(store, model, changed, 64, **options), before)
    c = text_conditioning(store, model, stimuli, text="categories")
    assert not np.allclose(text_conditioning(store, model, changed, text="categories"), c)


def test_classes_have_colours_of_their_own():
    colours = palette()
    assert len({tuple(row) for row in colours}) == 256 and not colours[0].any()
    first = colours[:25].astype(int)
    apart = np.abs(first[:, None] - first[None]).sum(-1) + 1000 * np.eye(25, dtype=int)
    assert apart.min() >= 20
