import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import RidgeCV

from calcarine.brain.scaling import zscore_sessions
from calcarine.datasets import bold5000, registry
from calcarine.datasets._data_files import natural_key
from calcarine.errors import CalcarineError

BETAS = "BOLD5000_GLMsingle_ROI_betas/py"
SCENES = "BOLD5000_Stimuli/Scene_Stimuli"
LISTS = "BOLD5000_Stimuli/Stimuli_Presentation_Lists"
ORDER = [
    f"{side}{region}"
    for region in ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
    for side in ("LH", "RH")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bold5000") / "data"
    registry.write_fake_dataset("bold5000", place)
    return place


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def beta_file(folder, subject, part):
    name = f"{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{part}.npy"
    return folder / BETAS / name


def lines_of(folder, subject):
    """Sessions and lines, by zero-padded names, whose text order is their order."""
    files = sorted((folder / LISTS / subject).glob("*/*.txt"))
    return [(int(f.parent.name[-2:]), line) for f in files for line in f.read_text().split()]


@pytest.mark.parametrize("subject", ["CSI1", "CSI4"])
def test_trials_are_the_lists_and_columns_the_regions_in_order(folder, subject):
    found = bold5000.load(folder, subject, size=24, zscore="none")
    rows = lines_of(folder, subject)
    shown = [line.removeprefix("rep_") for _, line in rows]
    assert list(found.trial_stimuli) == shown
    assert found.sessions.tolist() == [session for session, _ in rows]
    marked = found.responses.coords["marked_repeat"].values
    assert marked.tolist() == [line.startswith("rep_") for _, line in rows]
    assert marked.tolist() == (found.responses.coords["repeat"].values > 0).tolist()
    parts = [np.load(beta_file(folder, subject, part)) for part in ORDER]
    np.testing.assert_array_equal(found.responses.values, np.concatenate(parts, axis=1))
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    for number, part in enumerate(ORDER):
        own = np.flatnonzero(found.rois[part])
        assert own.tolist() == list(range(ends[number], ends[number + 1]))
    np.testing.assert_array_equal(found.rois["LOC"], found.rois["LHLOC"] | found.rois["RHLOC"])
    np.testing.assert_array_equal(found.rois["early"], ~found.rois["ventral"])
    assert found.simulated


def test_sessions_are_scaled_by_training_trials(folder):
    raw, found = (bold5000.load(folder, size=24, zscore=how) for how in ("none", "session"))
    split = found.split("repeated113")
    train = np.isin(raw.trial_stimuli, split.train)
    wanted = zscore_sessions(raw.responses.values, raw.sessions, train)
    np.testing.assert_allclose(found.responses.values, wanted, atol=1e-5)
    assert found.scaling.stimuli == frozenset(split.train)


def test_test_trials_do_not_reach_the_training(folder, copy):
    before = bold5000.load(folder, size=24)
    test = np.isin(before.trial_stimuli, before.splits[0].test)
    for part in ORDER:
        values = np.load(beta_file(copy, "CSI1", part))
        values[test] *= 100
        np.save(beta_file(copy, "CSI1", part), values)
    after = bold5000.load(copy, size=24)
    np.testing.assert_array_equal(after.train().data, before.train().data)
    assert not np.allclose(after.test().data, before.test().data)


def test_the_repeated_pictures_are_the_test_and_averaged(folder):
    found = bold5000.load(folder, size=24)
    listed = (folder / SCENES / "repeated_stimuli_113_list.txt").read_text().split()
    assert set(found.splits[0].test) == set(listed)
    test = found.test()
    assert test.data.shape == (8, found.n_voxels)
    rows = np.array(found.trial_stimuli) == test.stimulus_ids[3]
    assert rows.sum() == 3
    np.testing.assert_allclose(test.data[3], found.responses.values[rows].mean(0), atol=1e-5)


def test_run_10_comes_after_run_2(folder, copy):
    """As text, run10 stands before run2; the betas would belong to other pictures."""
    wanted = bold5000.load(folder, size=24).trial_stimuli
    for path in sorted((copy / LISTS).glob("*/*/*.txt")):
        head, number = path.stem.rsplit("run", 1)
        path.rename(path.with_name(f"{head}run{int(number)}.txt"))
    assert bold5000.load(copy, size=24).trial_stimuli == wanted
    for place in sorted((copy / LISTS / "CSI1").iterdir()):
        place.rename(place.with_name(place.name.replace("sess0", "sess")))
    assert bold5000.load(copy, size=24).trial_stimuli == wanted


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_names_sort_by_their_numbers(numbers):
    names = sorted((f"CSI1_sess01_run{number}.txt" for number in numbers), key=natural_key)
    assert names == [f"CSI1_sess01_run{number}.txt" for number in sorted(numbers)]


def test_a_repeat_is_its_picture(folder, copy):
    """With rep_ kept, a repeat would be another stimulus and lie in the training."""
    found = bold5000.load(folder, size=24)
    assert not [key for key in found.stimuli.ids if key.startswith("rep_")]
    times = found.describe()["repeats"]
    assert times == {"1": 88, "3": 8}


def test_pictures_are_cropped_centrally_and_named_by_file(folder):
    found = bold5000.load(folder, size=24)
    shapes = set()
    for path in sorted((folder / SCENES / "Presented_Stimuli").glob("*/*")):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        shapes.add(pixels.shape)
        top, left = ((size - 24) // 2 for size in pixels.shape[:2])
        middle = pixels[top : top + 24, left : left + 24]
        np.testing.assert_array_equal(found.stimuli.image(path.name), middle)
    assert len(shapes) == 3
    assert bold5000.load(folder, size=10).stimuli.images().shape == (96, 10, 10, 3)


def test_categories_come_from_names_and_labels(folder):
    found = bold5000.load(folder, size=24).stimuli
    by_kind = {"n": [], "C": [], "s": []}
    for key, own in zip(found.ids, found.categories(), strict=True):
        by_kind["s" if key.endswith(".jpg") and key[0] != "C" else key[0]].append((key, own))
    assert all(by_kind.values())
    _, own = by_kind["n"][0]
    assert own[1] == f"simulated {own[0]}"
    assert all(name != each.split("_")[0] for each, names in by_kind["n"] for name in names)
    assert all(own == () for _, own in by_kind["C"])
    assert all(own == (key.rstrip(".jpg").rstrip("0123456789"),) for key, own in by_kind["s"])


def test_the_fourth_subject_has_fewer_sessions(folder):
    found = bold5000.load(folder, "CSI4", size=24)
    assert sorted(set(found.sessions)) == [1, 2]
    assert found.n_trials < bold5000.load(folder, "CSI1", size=24).n_trials
    assert len(found.test()) > 0


def test_betas_that_do_not_fit_the_lists_are_told_with_both_numbers(copy):
    path = beta_file(copy, "CSI1", "LHPPA")
    np.save(path, np.load(path)[:-1])
    with pytest.raises(CalcarineError, match=r"LHPPA.* \(111, .* 112 trials"):
        bold5000.load(copy)
    told = [row for row in bold5000.check(copy, "CSI1") if row.status == "wrong"]
    assert [(row.found[:10], row.expected) for row in told] == [("shape (111", "112 trials")]


def test_what_is_missing_is_told(copy, tmp_path):
    picture = sorted((copy / SCENES / "Presented_Stimuli" / "COCO").iterdir())[0]
    picture.unlink()
    with pytest.raises(CalcarineError, match=f"1 of 96 pictures .* {picture.name}"):
        bold5000.load(copy)
    beta_file(copy, "CSI1", "RHRSC").unlink()
    with pytest.raises(CalcarineError, match=r"RHRSC\.npy does not exist"):
        bold5000.load(copy)
    (copy / SCENES / "repeated_stimuli_113_list.txt").unlink()
    lost = {row.what for row in bold5000.check(copy, "CSI1") if row.status == "missing"}
    assert len(lost) == 3
    shutil.rmtree(copy / LISTS / "CSI1")
    with pytest.raises(CalcarineError, match="no presentation lists"):
        bold5000.load(copy)
    shutil.rmtree(copy / LISTS)
    with pytest.raises(CalcarineError, match=r"unpack BOLD5000_Stimuli\.zip"):
        bold5000.load(copy)
    with pytest.raises(CalcarineError, match="there is no BOLD5000_GLMsingle_ROI_betas"):
        bold5000.load(tmp_path)
    assert [row.status for row in bold5000.check(tmp_path)] == ["missing"]


def test_nothing_is_unpickled(copy):
    path = beta_file(copy, "CSI1", "LHLOC")
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CalcarineError, match="cannot be read as an array of numbers"):
        bold5000.load(copy)


def test_nan_is_told(copy):
    path = beta_file(copy, "CSI1", "LHLOC")
    values = np.load(path)
    values[3, 1] = np.nan
    np.save(path, values)
    with pytest.raises(CalcarineError, match=r"1 of \d+ voxels of CSI1 hold NaN"):
        bold5000.load(copy)
    assert any("NaN" in row.found for row in bold5000.check(copy, "CSI1"))


def test_the_check_says_how_sessions_are_scaled(folder):
    found = {row.what: row.found for row in bold5000.check(folder, "CSI1")}
    assert found["CSI1: z-scoring"] == bold5000.load(folder, size=24).describe()["scaling"]
    other = bold5000.load(folder, size=24, zscore="training")
    assert other.describe()["scaling"].startswith("all sessions z-scored by all training trials")
    assert np.ptp(other.scaling.mean, axis=0).max() == 0
    with pytest.raises(CalcarineError, match="zscore is session, training, session-all or none"):
        bold5000.load(folder, zscore="run")


def test_a_ridge_finds_the_planted_signal(folder):
    found = bold5000.load(folder, size=24)
    train, test = found.train(), found.test()

    def colours(ids):
        pictures = found.stimuli.images(ids)[:, 6::12, 6::12]
        return pictures.reshape(len(ids), -1).astype(float)

    truth = colours(test.stimulus_ids)
    ridge = RidgeCV(np.logspace(-1, 4, 20)).fit(train.data, colours(train.stimulus_ids))
    guess = ridge.predict(test.data)
    assert np.corrcoef(guess.ravel(), truth.ravel())[0, 1] > 0.8
    assert np.corrcoef(guess.ravel(), np.roll(truth, 1, axis=0).ravel())[0, 1] < 0.4


def test_the_folder_is_told(folder, tmp_path):
    assert registry.recognise_datasets(folder) == ("bold5000",)
    assert registry.recognise_datasets(folder / BETAS) == ()
    shutil.copytree(folder, tmp_path / "bold5000")
    assert registry.recognise_datasets(tmp_path) == ("bold5000",)
    assert bold5000.load(tmp_path, size=24).simulated
    assert registry.list_assets("bold5000") == []
    assert "bold5000.org" in registry.dataset_info("bold5000").access


def damaged(rng, content, trial):
    """A copy with a few bytes changed, or cut short."""
    if trial % 3 == 0:
        return content[: int(rng.integers(0, len(content)))]
    found = bytearray(content)
    reach = min(len(found), 128) if trial % 2 else len(found)
    for place in rng.integers(0, reach, 1 + trial % 4):
        found[place] ^= int(rng.integers(1, 256))
    return bytes(found)


@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_are_told_or_read_whole(folder, copy):
    rng = np.random.default_rng(6)
    run = sorted((copy / LISTS / "CSI4").glob("*/*.txt"))[3]
    names = bold5000.load(folder, "CSI4", size=24).trial_stimuli
    shown = copy / SCENES / "Presented_Stimuli" / "COCO"
    shown /= next(name for name in names if name.startswith("COCO"))
    paths = [
        beta_file(copy, "CSI4", "LHEarlyVis"),
        beta_file(copy, "CSI4", "RHRSC"),
        run,
        copy / SCENES / "repeated_stimuli_113_list.txt",
        copy / "BOLD5000_Stimuli/Image_Labels/imagenet_final_labels.txt",
        shown,
    ]
    shape = bold5000.load(folder, "CSI4", size=24).responses.shape
    told = 0
    for path in paths:
        content = path.read_bytes()
        for trial in range(24 if path.suffix == ".npy" else 10):
            path.write_bytes(damaged(rng, content, trial))
            try:
                found = bold5000.load(copy, "CSI4", size=24)
                found.stimuli.images()
                assert found.responses.shape == shape
            except CalcarineError as error:
                told += 1
                assert "\n" not in str(error)
            assert bold5000.check(copy, "CSI4")
        path.write_bytes(content)
    assert told > 30
