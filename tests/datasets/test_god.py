import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import RidgeCV

from calcarine.datasets import god, registry
from calcarine.datasets.bdata import BData, write_bdata
from calcarine.datasets.god._ids import first_index, names_of, stimulus_name
from calcarine.errors import CalcarineError

FORMS = ("h5", "npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("god") / "data"
    registry.write_fake_dataset("god", place)
    return place


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def changed(path, **arrays):
    """Rewrite some arrays of an npz; None removes one."""
    with np.load(path) as file:
        content = {**file, **arrays}
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


def by_picture(dataset):
    """Responses of each picture, in an order that is the same for both forms."""
    shown = np.array(dataset.trial_stimuli)
    values = dataset.responses.values
    rows = {key: values[shown == key] for key in set(shown.tolist())}
    return {key: found[np.lexsort(found.T)] for key, found in rows.items()}


@given(st.integers(1, 99_999_999), st.integers(1, 999_999))
def test_every_label_gives_its_picture(synset, number):
    assert stimulus_name(float(f"{synset}.{number:06d}")) == f"n{synset:08d}_{number}"
    # As other programs compute it, which may differ in the last bit.
    assert stimulus_name(synset + number / 1e6) == f"n{synset:08d}_{number}"


def test_zeros_at_the_end_of_a_label_count():
    assert stimulus_name(1518878.010042) == "n01518878_10042"
    assert stimulus_name(1518878.00001) == "n01518878_10"
    assert stimulus_name(1518878.000001) == "n01518878_1"
    assert stimulus_name(1518878.12) == "n01518878_120000"


@pytest.mark.parametrize("label", [1518878.0, 1518878.0100421, -1.5, np.nan, np.inf, 0.01, 1e9])
def test_what_is_no_label_is_told(label):
    with pytest.raises(CalcarineError, match=r"picture|label"):
        stimulus_name(label)


def test_labels_that_went_through_float32_are_told():
    labels = np.array([1518878.510042, 1443537.251182])
    with pytest.raises(CalcarineError, match="float32"):
        names_of(labels.astype(np.float32).astype(np.float64), "here")


@given(st.lists(st.integers(0, 59), min_size=1), st.integers(0, 1))
def test_an_index_is_read_by_its_range_or_refused(index, base):
    given_index = np.array(index) + base
    if (min(index) == 0 and base == 0) or (max(index) == 59 and base == 1):
        assert first_index(given_index, 60, "x") == base
    elif min(given_index) >= 1 and max(given_index) < 60:
        with pytest.raises(CalcarineError, match="first_index=0"):
            first_index(given_index, 60, "x")
    else:
        assert first_index(given_index, 60, "x") in (0, 1)
    assert first_index(given_index, 60, "x", base) == base


def test_both_forms_give_the_same_responses_to_the_same_pictures(folder):
    one, two = (god.load(folder, "S1", form=form) for form in FORMS)
    first, second = by_picture(one), by_picture(two)
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
    assert set(one.splits[0].test) == set(two.splits[0].test)
    assert one.simulated
    assert two.simulated
    for name, mask in one.rois.items():
        np.testing.assert_array_equal(mask, two.rois[name])


def test_trials_are_as_the_file_has_them(folder):
    """An oracle that shares no code with the reader."""
    found = god.load(folder, "S2")
    with h5py.File(folder / "Subject2.h5") as file:
        matrix = file["dataset"][:]
        keys = [key.decode() for key in file["metadata/key"][:]]
        marks = dict(zip(keys, file["metadata/value"][:], strict=True))
    column = {key: matrix[:, marks[key] == 1][:, 0] for key in ("DataType", "stimulus_id", "Run")}
    kept = column["DataType"] != 3
    ids = [
        "n{:08d}_{}".format(*(int(part) for part in f"{value:.6f}".split(".")))
        for value in column["stimulus_id"][kept]
    ]
    assert list(found.trial_stimuli) == ids
    voxel = marks["VoxelData"] == 1
    np.testing.assert_array_equal(found.responses.values, matrix[kept][:, voxel].astype(np.float32))
    np.testing.assert_array_equal(found.voxels["y"], marks["voxel_y"][voxel])
    np.testing.assert_array_equal(found.rois["V2"], marks["ROI_V2"][voxel] == 1)
    np.testing.assert_array_equal(found.responses.coords["run"], column["Run"][kept])
    early = found.rois["V1"] | found.rois["V2"] | found.rois["V3"]
    np.testing.assert_array_equal(found.rois["early"], early)
    np.testing.assert_array_equal(found.rois["ventral"], found.rois["HVC"])


def test_sessions_of_training_and_test_are_different_sessions(folder):
    found = god.load(folder, "S1")
    test = np.isin(found.trial_stimuli, found.splits[0].test)
    assert not set(found.sessions[test]) & set(found.sessions[~test])
    assert len(set(found.sessions)) == 4


@pytest.mark.parametrize("form", FORMS)
def test_each_trial_has_its_picture(folder, form):
    files = god.load(folder, "S1", form=form, size=16)
    array = god.load(folder, "S1", form=form, pictures=str(folder / "images_16.npz"))
    np.testing.assert_array_equal(array.stimuli.images(files.stimuli.ids), files.stimuli.images())
    for key in (*files.splits[0].test, *files.splits[0].train[:5]):
        side = "test" if key in files.splits[0].test else "training"
        with Image.open(folder / "stimuli" / side / f"{key}.JPEG") as picture:
            np.testing.assert_array_equal(files.stimuli.image(key), np.asarray(picture))


def test_picture_arrays_without_lists_follow_image_index(folder, copy):
    wanted = god.load(folder, "S1", size=16)
    shutil.rmtree(copy / "stimuli")
    for path in copy.glob("*.csv"):
        path.unlink()
    found = god.load(copy, "S1", form="h5")
    assert found.stimuli.size == (16, 16)
    np.testing.assert_array_equal(found.stimuli.images(wanted.stimuli.ids), wanted.stimuli.images())


def test_the_order_of_a_list_is_kept_and_not_sorted(copy):
    """Pictures in an order of their own, and an index that follows it."""
    names = ("imagenet_training_label.csv", "images_16.npz", "sbj_1.npz")
    before = god.load(copy, "S1", form="npz", pictures=str(copy / names[1]))
    lines = (copy / names[0]).read_text().splitlines()
    order = np.random.default_rng(3).permutation(len(lines))
    (copy / names[0]).write_text("\n".join(lines[row] for row in order))
    with np.load(copy / names[1]) as file:
        changed(copy / names[1], train_images=file["train_images"][order])
    with np.load(copy / names[2]) as file:
        changed(copy / names[2], arr_3=np.argsort(order)[file["arr_3"]])
    for form in FORMS:
        after = god.load(copy, "S1", form=form, pictures=str(copy / names[1]))
        assert by_picture(after).keys() == by_picture(before).keys()
        np.testing.assert_array_equal(
            after.stimuli.images(before.stimuli.ids), before.stimuli.images()
        )
    assert after.trial_stimuli == before.trial_stimuli


@pytest.mark.parametrize("key", ["arr_3", "arr_4"])
def test_indices_from_one_are_told_from_indices_from_zero(folder, copy, key):
    with np.load(copy / "sbj_1.npz") as file:
        changed(copy / "sbj_1.npz", **{key: file[key] + 1})
    wanted, found = (god.load(place, "S1", form="npz") for place in (folder, copy))
    assert found.trial_stimuli == wanted.trial_stimuli
    if key == "arr_3":
        told = [row for row in god.check(copy, "S1") if "arr_3" in row.what]
        assert (told[0].status, told[0].found) == ("note", "begins at 1")


def test_labels_in_another_order_than_the_means_are_told(copy):
    with np.load(copy / "sbj_1.npz") as file:
        labels = file["arr_4"]
    changed(copy / "sbj_1.npz", arr_4=labels.max() - labels)
    with pytest.raises(CalcarineError, match="arr_4 orders them differently"):
        god.load(copy, "S1", form="npz")
    assert any(row.status == "wrong" for row in god.check(copy, "S1"))


def test_means_alone_are_a_test(folder, copy):
    wanted = god.load(folder, "S1", form="npz").test()
    changed(copy / "sbj_1.npz", arr_1=None, arr_4=None)
    found = god.load(copy, "S1", form="npz").test()
    assert found.stimulus_ids == wanted.stimulus_ids
    np.testing.assert_allclose(found.data, wanted.data, atol=1e-5)


def test_values_in_0_to_1_are_pictures_too(folder, copy):
    wanted = god.load(folder, "S1", pictures=str(folder / "images_16.npz")).stimuli
    with np.load(copy / "images_16.npz") as file:
        halves = {key: (file[key] / 255).astype(np.float32) for key in file.files}
    changed(copy / "images_16.npz", **halves)
    found = god.load(copy, "S1", pictures=str(copy / "images_16.npz")).stimuli
    np.testing.assert_array_equal(found.images(), wanted.images())
    changed(copy / "images_16.npz", train_images=halves["train_images"] - 0.5)
    with pytest.raises(CalcarineError, match=r"should be in 0\.\.1 or in 0\.\.255"):
        god.load(copy, "S1", pictures=str(copy / "images_16.npz"))


def relabelled(path, key, values, vmap=None):
    """Replace a column of a BData file, and its key."""
    with h5py.File(path, "a") as file:
        keys = [name.decode() for name in file["metadata/key"][:]]
        row = keys.index("stimulus_id")
        column = int(np.flatnonzero(file["metadata/value"][row] == 1)[0])
        file["dataset"][:, column] = values(file["dataset"][:, column])
        keys[row] = key
        del file["metadata/key"]
        file["metadata/key"] = np.array(keys, dtype="S")
        for number, text in (vmap or {}).items():
            file[f"vmap/{key}/{number}"] = text


def test_labels_as_text_and_as_index_give_the_same_pictures(folder, copy):
    wanted = god.load(folder, "S1").trial_stimuli
    relabelled(copy / "Subject1.h5", "unused", lambda labels: labels)
    assert god.load(copy, "S1").trial_stimuli == wanted  # by image_index and the lists
    shutil.copy(folder / "Subject1.h5", copy / "Subject1.h5")
    with h5py.File(copy / "Subject1.h5") as file:
        known = np.unique(file["dataset"][:, 71])
    texts = {
        str(row): (stimulus_name(value) if value % 1 else f"n{int(value):08d}") + ".JPEG"
        for row, value in enumerate(known)
    }
    relabelled(copy / "Subject1.h5", "Label", lambda x: np.searchsorted(known, x), texts)
    assert god.load(copy, "S1").trial_stimuli == wanted


def test_responses_and_labels_may_stand_in_any_column(tmp_path):
    rng = np.random.default_rng(0)
    brain, other = rng.normal(size=(6, 4)), rng.normal(size=(6, 1))
    parts = {"a": brain[:, :1], "DataType": other, "b": brain[:, 1:3], "c": brain[:, 3:]}
    voxel = np.array([1, np.nan, 1, 1, 1])
    write_bdata(tmp_path / "x.h5", parts, {"VoxelData": voxel}, {"a": "first"})
    found = BData.open(tmp_path / "x.h5")
    np.testing.assert_array_equal(found.select("VoxelData"), brain)
    table = found.columns().set_index("key")
    assert table.loc["VoxelData", "columns"] == 4
    assert table.loc["a", "description"] == "first"
    assert table.loc["DataType", "low"] == other.min()
    with pytest.raises(CalcarineError, match="no columns ROI_V9; it has a, DataType"):
        found.mask("ROI_V9")


def test_columns_are_told_by_folder_and_file(folder):
    one, two = god.columns(folder, "S2"), god.columns(folder / "Subject2.h5")
    assert one.equals(two)
    assert {"VoxelData", "ROI_V1", "DataType"} <= set(one["key"])


def test_imagery_is_a_test_by_category(folder):
    seen, imagined = (god.load(folder, "S1", test=kind) for kind in ("perception", "imagery"))
    assert imagined.splits[0].test == seen.splits[0].test
    assert imagined.describe()["repeats"] == {"1": 60, "2": 8}
    assert not np.allclose(imagined.test().data, seen.test().data)
    with pytest.raises(CalcarineError, match="no imagery trials; load the form h5"):
        god.load(folder, "S1", form="npz", test="imagery")


@pytest.mark.parametrize("scale", ["training", "training-scalar"])
def test_scaling_knows_training_trials_alone(folder, copy, scale):
    plain, scaled = god.load(folder, "S1"), god.load(folder, "S1", scale=scale)
    train = plain.train().data.astype(np.float64)
    axis = 0 if scale == "training" else None
    wanted = (plain.test().data - train.mean(axis)) / train.std(axis)
    np.testing.assert_allclose(scaled.test().data, wanted, atol=1e-4)
    with np.load(copy / "sbj_1.npz") as file:
        changed(copy / "sbj_1.npz", arr_1=file["arr_1"] * 50, arr_2=file["arr_2"] * 50)
    louder = god.load(copy, "S1", form="npz", scale=scale)
    same = god.load(folder, "S1", form="npz", scale=scale)
    np.testing.assert_array_equal(louder.train().data, same.train().data)


def test_the_split_is_zero_shot(folder):
    split = god.load(folder).splits[0]
    assert (len(split.train), len(split.test)) == (60, 8)
    assert not {k[:9] for k in split.train} & {k[:9] for k in split.test}
    assert "no category is in both" in split.rule


def test_missing_pictures_are_told_when_asked_for(copy):
    shutil.rmtree(copy / "stimuli")
    (copy / "images_16.npz").unlink()
    found = god.load(copy, "S1")
    with pytest.raises(CalcarineError, match="on request only: fill in the form"):
        found.stimuli.image(found.splits[0].test[0])
    told = [row for row in god.check(copy) if row.status == "missing"]
    assert [row.what for row in told] == ["pictures"]


def test_one_missing_picture_is_named(copy):
    lost = sorted((copy / "stimuli" / "test").iterdir())[2]
    lost.unlink()
    with pytest.raises(CalcarineError, match=f"1 of 68 pictures .* {lost.stem}"):
        god.load(copy)


def test_a_ridge_finds_the_planted_signal(folder):
    found = god.load(folder, "S1", size=16)
    train, test = found.train(), found.test()

    def colours(ids):
        return found.stimuli.images(ids)[:, 4::8, 4::8].reshape(len(ids), -1).astype(float)

    truth = colours(test.stimulus_ids)
    ridge = RidgeCV(np.logspace(-1, 4, 20)).fit(train.data, colours(train.stimulus_ids))
    guess = ridge.predict(test.data)
    assert np.corrcoef(guess.ravel(), truth.ravel())[0, 1] > 0.8
    turned = np.roll(truth, 1, axis=0)
    assert np.corrcoef(guess.ravel(), turned.ravel())[0, 1] < 0.3


def test_the_folder_is_told_by_either_form(folder, copy):
    assert registry.recognise_datasets(folder) == ("god",)
    for path in copy.glob("Subject*.h5"):
        path.unlink()
    assert registry.recognise_datasets(copy) == ("god",)
    assert registry.recognise_datasets(copy.parent) == ()


def test_downloads_are_the_published_files():
    found = god.assets(["S1", "S5"])
    assert [asset.path for asset in found] == ["Subject1.h5", "Subject5.h5"]
    assert found[1].url == "https://ndownloader.figshare.com/files/15049658"


def test_wrong_options_and_missing_files_are_told(folder, tmp_path):
    for options, message in [
        ({"subject": "S9"}, "no subject S9; it has S1"),
        ({"form": "mat"}, "form is auto, h5 or npz"),
        ({"scale": "run"}, "scale is none, session, training, session-all or"),
        ({"size": 0}, "at least 1"),
        ({"pictures": "nowhere"}, "nowhere does not exist"),
    ]:
        with pytest.raises(CalcarineError, match=message):
            god.load(folder, **options)
    with pytest.raises(CalcarineError, match=r"no Subject1\.h5 and no sbj_1\.npz in"):
        god.load(tmp_path)
    with pytest.raises(CalcarineError, match="needs the folder"):
        god.load()


def damaged(rng, content, trial):
    """A copy with a few bytes changed, or cut short."""
    if trial % 3 == 0:
        return content[: int(rng.integers(0, len(content)))]
    found = bytearray(content)
    # Headers are small, so half of the changes go there.
    reach = min(len(found), 2048) if trial % 2 else len(found)
    for place in rng.integers(0, reach, 1 + trial % 4):
        found[place] ^= int(rng.integers(1, 256))
    return bytes(found)


@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_are_told_or_read_whole(folder, tmp_path):
    rng = np.random.default_rng(5)
    place = tmp_path / "d"
    place.mkdir()
    names = [
        "Subject1.h5",
        "sbj_1.npz",
        "images_16.npz",
        "imagenet_training_label.csv",
        "imagenet_testing_label.csv",
        "imagenet_class_index.json",
    ]
    for name in names:
        shutil.copy(folder / name, place / name)
    sizes = {form: god.load(place, "S1", form=form).responses.shape for form in FORMS}
    told = 0
    for name in names:
        content = (place / name).read_bytes()
        for trial in range(24 if name in names[:2] else 8):
            (place / name).write_bytes(damaged(rng, content, trial))
            for form in FORMS:
                try:
                    found = god.load(place, "S1", form=form)
                    found.stimuli.images()
                    assert found.responses.shape == sizes[form]
                except CalcarineError as error:
                    told += 1
                    assert "\n" not in str(error)
            assert god.check(place, "S1")
        (place / name).write_bytes(content)
    assert told > 40


@pytest.mark.parametrize("name", ["Subject1.mat", "subject01.mat", "sbj_1.mat"])
def test_a_file_in_matlabs_form_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file")
    message = rf"no Subject1.h5 .*\(there is {name}, MATLAB's form, which is not read\); get it"
    with pytest.raises(CalcarineError, match=message):
        god.load(tmp_path, "S1")
    found = next(f for f in god.check(tmp_path) if f.status == "missing")
    assert name in found.found
    (tmp_path / name).rename(tmp_path / "Subject12.mat")
    with pytest.raises(CalcarineError, match=r"no Subject1.h5 and no sbj_1.npz in \S+; get it"):
        god.load(tmp_path, "S1")
