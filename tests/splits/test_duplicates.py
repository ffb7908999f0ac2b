import io

import numpy as np
import pytest
from PIL import Image

from calcarine import datasets
from calcarine.brain import Split
from calcarine.errors import CalcarineError
from calcarine.splits.duplicate_search import find_duplicates
from calcarine.splits.feature_distances import pixel_features
from calcarine.splits.picture_hashes import hamming, hash_pictures, nearest_hashes
from calcarine.stimuli import StimulusSet, resize_images


@pytest.fixture(scope="module")
def scenes():
    return StimulusSet.from_scenes(9, range(90)).images()


def jpeg(images, quality=60):
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file).convert("RGB")))
    return np.stack(found)


CHANGES = {
    "nothing": lambda x: x,
    "size": lambda x: resize_images(resize_images(x, 52), 64),
    "brightness": lambda x: np.clip(x * 0.88 + 6.0, 0, 255).astype(np.uint8),
    "compression": jpeg,
    "all": lambda x: jpeg(resize_images(np.clip(x * 1.05, 0, 255).astype(np.uint8), 72), 75),
}


def stimuli(images, prefix):
    return StimulusSet.from_arrays(images, [f"{prefix}{i:02d}" for i in range(len(images))])


def planted(scenes, change, rows=(2, 5)):
    """A split whose first test pictures are changed copies of training pictures."""
    originals = scenes[60 + np.array(rows, int)]
    copies = resize_images(CHANGES[change](originals), 64)
    images = np.concatenate([copies, scenes[:20], scenes[60:]])
    whole = stimuli(images, "p")
    first = 20 + len(rows)
    split = Split("main", whole.ids[first:], whole.ids[:first], "planted")
    return whole, split, [whole.ids[first + row] for row in rows]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(scenes, change):
    whole, split, originals = planted(scenes, change)
    found = find_duplicates(split, whole, pixel_features)
    assert found.table["flag"].tolist() == ["same picture"] * 2 + [""] * 20
    assert found.table["hash_nearest"].tolist()[:2] == originals
    assert found.n_duplicates == 2
    assert set(found.worst(2)["stimulus"]) == set(split.test[:2])
    assert "2 of 22 test stimuli" in found.summary and "2 as the same picture" in found.summary


def test_mirror_images_are_found_when_asked_for(scenes):
    whole, split, _ = planted(scenes, "nothing")
    mirrored = whole.images()
    mirrored[:2] = mirrored[:2, :, ::-1]
    flipped = stimuli(mirrored, "p")
    assert find_duplicates(split, flipped).n_duplicates == 0
    found = find_duplicates(split, flipped, flips=True)
    assert found.table["flag"].tolist()[:3] == ["same picture", "same picture", ""]


def test_the_same_layout_in_another_colour_is_another_picture(rng):
    one = np.zeros((3, 32, 32, 3), np.uint8)
    one[0, 5:20, 8:25, 0] = one[1, 5:20, 8:25, 2] = 220
    one[2] = rng.integers(0, 256, (32, 32, 3))
    whole = stimuli(one, "p")
    found = find_duplicates(Split("main", ("p01", "p02"), ("p00",), "colours"), whole)
    assert found.table["flag"].tolist() == [""]


def test_training_of_other_subjects_is_searched_too(scenes):
    whole, split, _ = planted(scenes, "nothing", rows=())
    pictures = np.stack([whole.image(split.test[4]), scenes[85]])
    by_picture = stimuli(pictures, "q")
    by_id = whole.subset([split.test[7]])
    others = {"B": (by_picture, by_picture.ids), "C": (by_id, by_id.ids)}
    found = find_duplicates(split, whole, pixel_features, others, subject="A")
    assert found.table["flag"].tolist()[4] == "same picture"
    assert found.table["hash_subject"].tolist()[4] == "B"
    assert found.table["nearest_subject"].tolist()[4] == "B"
    assert found.table["distance"].tolist()[4] == pytest.approx(0, abs=1e-6)
    assert found.table["flag"].tolist()[7] == "same stimulus"
    assert found.table["also_in"].tolist()[7] == "C"
    assert found.n_duplicates == 2 and "A and of B, C" in found.summary
    assert find_duplicates(split, whole, pixel_features).n_duplicates == 0


def test_features_as_an_array_and_a_limit(scenes):
    whole, split, _ = planted(scenes, "nothing", rows=())
    values = pixel_features(whole)
    by_function = find_duplicates(split, whole, pixel_features).table["distance"]
    found = find_duplicates(split, whole, values, near=float(by_function.quantile(0.3)))
    np.testing.assert_allclose(found.table["distance"], by_function, atol=1e-6)
    assert (found.table["flag"] == "near").sum() == (by_function <= by_function.quantile(0.3)).sum()
    rows = {key: row for row, key in enumerate(whole.ids)}
    first = found.table.iloc[0]
    pair = values[[rows[first["stimulus"]], rows[first["nearest"]]]]
    assert first["distance"] == pytest.approx(1 - np.corrcoef(pair)[0, 1], abs=1e-5)


def test_without_features_only_pictures_are_compared(scenes):
    whole, split, _ = planted(scenes, "compression")
    found = find_duplicates(split, whole)
    assert found.n_duplicates == 2 and found.table["distance"].isna().all()
    with pytest.raises(CalcarineError, match="hash_limit"):
        find_duplicates(split, whole, hash_limit=200)
    with pytest.raises(CalcarineError, match="there twice"):
        find_duplicates(split, whole, others={"own": (whole, split.train)})


def test_bits_are_counted_as_in_binary(rng, monkeypatch):
    a = rng.integers(0, 2**64, (6, 2), dtype=np.uint64)
    b = rng.integers(0, 2**64, (50, 2), dtype=np.uint64)
    b[20] = b[3]
    every = np.array(
        [
            [sum(bin(int(x) ^ int(y)).count("1") for x, y in zip(p, q, strict=True)) for q in b]
            for p in a
        ]
    )
    monkeypatch.setattr("calcarine.splits.picture_hashes._BLOCK", 1)
    for fallback in (False, True):
        if fallback and hasattr(np, "bitwise_count"):
            monkeypatch.delattr(np, "bitwise_count")
        np.testing.assert_array_equal(hamming(a[:, None], b[None]), every)
        bits, rows = nearest_hashes(a, b, 4)
        np.testing.assert_array_equal(bits, np.sort(every, 1)[:, :4])
        np.testing.assert_array_equal(rows, np.argsort(every, 1, kind="stable")[:, :4])


def test_hashes_do_not_depend_on_each_other(scenes):
    one = np.concatenate([hash_pictures(image[None]) for image in scenes[:5]])
    np.testing.assert_array_equal(one, hash_pictures(scenes[:5]))
    flat = hash_pictures(np.stack([np.full((8, 8, 3), tone, np.uint8) for tone in (90, 140)]))
    assert hamming(flat[0], flat[1]) == 0


def test_handwritten_digits_are_alike_but_not_the_same(measured):
    own = datasets.load_dataset("digits69", measured)
    for split in own.splits:
        found = find_duplicates(split, own.stimuli)
        assert found.table["bits"].min() < 19 and found.n_duplicates == 0
