"""Features of the pictures in a folder."""

import numpy as np
import pytest
from PIL import Image

import calcarine as ca
from calcarine.errors import DamagedFileError, MissingFileError, SettingError
from calcarine.features import FeatureStore, extract_folder, load_vision_model, vision_transformers
from calcarine.stimuli import StimulusSet, read_picture, resize_images


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.PNG", "more/c.jpg", ".hidden.png"):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / name)
    (place / "notes.txt").write_text("no picture")
    return place


def test_pictures_are_found_in_order_and_of_one_size(folder):
    pictures = StimulusSet.from_pictures(folder, 20)
    assert pictures.ids == ("photos/a.PNG", "photos/b.png", "photos/more/c.jpg")
    assert pictures.captions() == [()] * 3
    expected = resize_images(read_picture(folder / "b.png")[None, :, 10:50], 20)[0]
    np.testing.assert_array_equal(pictures.image("photos/b.png"), expected)
    assert StimulusSet.from_pictures(folder, (10, 20)).images().shape == (3, 10, 20, 3)


def test_its_digest_follows_files_without_reading_them(folder, monkeypatch):
    first = StimulusSet.from_pictures(folder, 20).digest()
    assert StimulusSet.from_pictures(folder, 20).digest() == first
    assert StimulusSet.from_pictures(folder, 21).digest() != first
    (folder / "b.png").write_bytes(b"damaged")
    assert StimulusSet.from_pictures(folder, 20).digest() != first


def test_features_are_extracted_in_batches_and_stored(folder, tmp_path, monkeypatch):
    model, store = ca.LatentDiffusion.from_pretrained("mini"), FeatureStore(tmp_path / "store")
    batches = []
    whole = vision_transformers.VisionModel.features

    def counted(self, images, *args):
        batches.append(len(images))
        return whole(self, images, *args)

    monkeypatch.setattr(vision_transformers.VisionModel, "features", counted)
    options = {"size": 64, "batch_size": 2}
    pictures, found = extract_folder(["hf:mini", "hf:mini:1:mean"], model, folder, store, **options)
    assert max(batches) == 2
    expected = whole(load_vision_model("mini", "cpu"), pictures.images())
    np.testing.assert_allclose(found["hf:mini"][:], expected, atol=1e-5)
    assert found["hf:mini:1:mean"].shape == (3, 128)
    batches.clear()
    extract_folder(["hf:mini"], model, folder, store, **options)
    assert not batches


def test_unreadable_pictures_are_all_named(folder, tmp_path):
    model, store = ca.LatentDiffusion.from_pretrained("mini"), FeatureStore(tmp_path / "store")
    for number in range(6):
        (folder / f"z{number}.png").write_bytes(b"no picture")
    with pytest.raises(DamagedFileError) as caught:
        extract_folder(["hf:mini"], model, folder, store, size=64)
    text = str(caught.value)
    assert text.startswith(f"6 of 9 pictures in {folder} cannot be read: photos/z0.png, ")
    assert "photos/z4.png and 1 more; save them again" in text and "z5" not in text
    # Damage to pixels shows only when they are read.
    for number in range(6):
        (folder / f"z{number}.png").unlink()
    content = (folder / "more" / "c.jpg").read_bytes()
    (folder / "more" / "c.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match=r"c\.jpg cannot be read"):
        extract_folder(["hf:mini"], model, folder, store, size=64)


def test_mistakes_are_one_sentence(folder, tmp_path):
    model, store = ca.LatentDiffusion.from_pretrained("mini"), FeatureStore(tmp_path / "store")
    with pytest.raises(SettingError, match="have no features 'z'; choose features of a network"):
        extract_folder(["z"], model, folder, store, size=64)
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        StimulusSet.from_pictures(tmp_path / "nowhere", 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="empty holds no pictures; they end with"):
        StimulusSet.from_pictures(tmp_path / "empty", 64)
