import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from calcarine.errors import CalcarineError
from calcarine.stimuli import StimulusSet, resize_images, scenes


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, pictures):
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / "sub" / f"{index}.png")
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(root / "map.png")
    return root


def records():
    return [
        {
            "id": f"00{index}",
            "file": f"sub/{index}.png",
            "captions": f"a cat {index}|one more cat",
            "category": "cat|animal",
            "semantic_map": "map.png",
        }
        for index in range(4)
    ]


def write_table(root, kind, rows):
    path = root / f"table.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    return path


def test_arrays_come_back_in_the_order_asked_for(pictures):
    found = StimulusSet.from_arrays(pictures, list("abcd"), captions=["x", ["y", "z"], "u", "v"])
    assert found.ids == ("a", "b", "c", "d")
    assert len(found) == 4
    assert found.size == (6, 8)
    np.testing.assert_array_equal(found.images(["d", "b"]), pictures[[3, 1]])
    np.testing.assert_array_equal(found.image("c"), pictures[2])
    assert found.captions(["b", "a"]) == [("y", "z"), ("x",)]
    assert found.categories(["a"]) == [()]


def test_changing_what_was_read_changes_nothing(pictures):
    found = StimulusSet.from_arrays(pictures)
    found.images()[:] = 0
    np.testing.assert_array_equal(found.images(), pictures)


def test_subset_keeps_order_and_refuses_strangers(pictures):
    found = StimulusSet.from_arrays(pictures, list("abcd")).subset(["d", "a"])
    assert found.ids == ("d", "a")
    np.testing.assert_array_equal(found.images(), pictures[[3, 0]])
    with pytest.raises(CalcarineError, match="b is not in this set"):
        found.image("b")


@pytest.mark.parametrize(
    ("ids", "message"),
    [(list("abca"), "a occurs 2 times"), (["a", "", "c", "d"], "empty id"), (["a"], "1 ids for 4")],
)
def test_bad_ids_are_told(pictures, ids, message):
    with pytest.raises(CalcarineError, match=message):
        StimulusSet.from_arrays(pictures, ids)


def test_wrong_arrays_are_told(pictures):
    with pytest.raises(CalcarineError, match="uint8 of shape"):
        StimulusSet.from_arrays(pictures.astype(np.float32))
    with pytest.raises(CalcarineError, match="Semantic maps must be"):
        StimulusSet.from_arrays(pictures, semantic_maps=np.zeros((4, 8, 6), np.uint8))


def test_absent_semantic_maps_are_told(pictures):
    with pytest.raises(CalcarineError, match="stimulus-00000 has no semantic map"):
        StimulusSet.from_arrays(pictures).semantic_maps()


def test_one_text_is_not_a_list_of_ids(pictures):
    with pytest.raises(CalcarineError, match="Give a list"):
        StimulusSet.from_arrays(pictures, list("abcd")).images("ab")


def test_digest_sees_pictures_captions_ids_and_order(pictures):
    def digest(images=pictures, ids=("a", "b", "c", "d"), captions=("1", "2", "3", "4")):
        return StimulusSet.from_arrays(images, ids, captions).digest()

    other = pictures.copy()
    other[2, 3, 4, 1] ^= 1
    changed = [
        digest(images=other),
        digest(ids=("a", "b", "d", "c")),
        digest(captions=("1", "2", "3", "5")),
    ]
    assert digest() == digest()
    assert len({digest(), *changed}) == 4
    assert len(digest()) == 64


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "parquet"])
def test_folder_is_read_from_every_kind_of_table(folder, pictures, kind):
    table = write_table(folder, kind, records())
    found = StimulusSet.from_folder(folder, table)
    assert found.ids == ("000", "001", "002", "003")
    np.testing.assert_array_equal(found.images(), pictures)
    assert found.captions(["002"]) == [("a cat 2", "one more cat")]
    assert found.categories(["002"]) == [("cat", "animal")]
    np.testing.assert_array_equal(found.semantic_maps(["000"])[0].ravel(), np.arange(48))


def test_table_may_be_named_as_in_the_folder_and_hold_caption_columns(folder):
    rows = [{"id": "a", "file": "sub/0.png", "caption_1": "one", "caption_2": "two"}]
    write_table(folder, "csv", rows)
    assert StimulusSet.from_folder(folder, "table.csv").captions() == [("one", "two")]


def test_files_are_read_lazily(folder):
    found = StimulusSet.from_folder(folder, write_table(folder, "csv", records()))
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(folder / "sub" / "3.png")
    assert (found.image("003") == 7).all()


def test_missing_file_is_named(folder):
    (folder / "sub" / "2.png").unlink()
    with pytest.raises(CalcarineError, match=r"002.*2\.png does not exist"):
        StimulusSet.from_folder(folder, write_table(folder, "csv", records()))


@pytest.mark.parametrize("column", ["file", "semantic_map"])
def test_files_outside_the_folder_are_refused(folder, column):
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder.parent / "secret.png")
    rows = records()
    rows[1][column] = "../secret.png"
    with pytest.raises(CalcarineError, match="lies outside"):
        StimulusSet.from_folder(folder, write_table(folder, "json", rows))


def test_links_out_of_the_folder_are_refused(folder):
    outside = folder.parent / "secret.png"
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(outside)
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(CalcarineError, match="lies outside"):
        rows = [{"id": "a", "file": "link.png"}]
        StimulusSet.from_folder(folder, write_table(folder, "json", rows))


def test_damaged_picture_is_named(folder):
    found = StimulusSet.from_folder(folder, write_table(folder, "csv", records()))
    path = folder / "sub" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CalcarineError, match=r"1\.png cannot be read"):
        found.images()


def test_other_sizes_are_told_or_fitted(folder, pictures):
    Image.fromarray(np.full((12, 12, 3), 9, np.uint8)).save(folder / "sub" / "3.png")
    table = write_table(folder, "csv", records())
    with pytest.raises(CalcarineError, match="12 x 12 pixels"):
        StimulusSet.from_folder(folder, table).images()
    fitted = StimulusSet.from_folder(folder, table, size=6)
    assert fitted.images().shape == (4, 6, 6, 3)
    # Cropped, not squeezed.
    np.testing.assert_array_equal(fitted.image("000"), pictures[0][:, 1:7])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "name,file\na,b\n", "no column id"),
        ("t.csv", "id,file\n", "no rows"),
        ("t.json", "{", "cannot be read"),
        ("t.json", "[1, 2]", "cannot be read|no column"),
        ("t.xls", "", "ends in .xls"),
        ("t.parquet", "no parquet", "cannot be read"),
    ],
)
def test_bad_tables_are_told(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(CalcarineError, match=message):
        StimulusSet.from_folder(folder, name)


def test_absent_folder_or_table_is_told(folder):
    with pytest.raises(CalcarineError, match=r"folder .* does not exist"):
        StimulusSet.from_folder(folder / "nowhere", "t.csv")
    with pytest.raises(CalcarineError, match=r"table .* does not exist"):
        StimulusSet.from_folder(folder, "t.csv")


def test_scenes_are_those_of_the_generator_and_drawn_once(monkeypatch):
    calls = []
    original = scenes.render
    monkeypatch.setattr(scenes, "render", lambda *a, **k: (calls.append(a), original(*a, **k))[1])
    found = StimulusSet.from_scenes(7, [3, 12], size=32)
    assert found.ids == ("scene-7-00003", "scene-7-00012")
    assert calls == []
    truth = original(7, 12, size=32)
    np.testing.assert_array_equal(found.image("scene-7-00012"), truth.image)
    np.testing.assert_array_equal(found.semantic_maps()[1], truth.semantic_map)
    assert found.captions()[1] == truth.captions
    assert found.categories()[1] == truth.categories
    assert sorted(calls) == [(7, 3), (7, 12)]


def test_joined_sets_keep_all(pictures):
    first = StimulusSet.from_arrays(pictures, list("abcd"), captions=list("1234"))
    second = StimulusSet.from_arrays(pictures[::-1].copy(), list("efgh"), captions=list("5678"))
    both = StimulusSet.joined([first, second])
    assert both.ids == tuple("abcdefgh")
    np.testing.assert_array_equal(both.image("e"), pictures[3])
    assert both.captions(["h", "a"]) == [("8",), ("1",)]
    with pytest.raises(CalcarineError, match="occurs 2 times"):
        StimulusSet.joined([first, first])
    with pytest.raises(CalcarineError, match="one size"):
        StimulusSet.joined([first, StimulusSet.from_scenes(1, [0], 16)])


def test_resize_copies_pixels_of_binary_figures():
    figure = np.zeros((1, 2, 2, 3), np.uint8)
    figure[0, 0, 1] = 255
    enlarged = resize_images(figure, 4, nearest=True)
    np.testing.assert_array_equal(enlarged[0], figure[0].repeat(2, 0).repeat(2, 1))
