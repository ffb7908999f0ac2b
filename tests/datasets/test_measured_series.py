"""Two measured time series, and the simulated content of all small sets."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calcarine.datasets import registry
from calcarine.datasets.small import digits69, haxby_slice, miyawaki_vbcca, ncc_s2
from calcarine.errors import CalcarineError
from calcarine.linear import RidgeCV

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")
SMALL = {module.INFO.name: module for module in (digits69, miyawaki_vbcca, ncc_s2, haxby_slice)}


def accuracy(dataset):
    """Share of test responses whose category a ridge on one-hot targets names."""
    category = {
        key: found[0]
        for key, found in zip(dataset.stimuli.ids, dataset.stimuli.categories(), strict=True)
    }
    names = sorted(set(category.values()))
    right = []
    for split in dataset.splits:
        train, test = dataset.train(split), dataset.test(split)
        wanted = np.array([names.index(category[key]) for key in train.stimulus_ids])
        ridge = RidgeCV(cv="logo", alpha_per="all", alphas=np.logspace(-4, 6, 21))
        ridge.fit(train.data, np.eye(len(names))[wanted], groups=train.sessions)
        guess = ridge.predict(test.data).argmax(1)
        right += [names[g] == category[k] for g, k in zip(guess, test.stimulus_ids, strict=True)]
    return float(np.mean(right)), len(names)


@pytest.fixture(scope="session")
def fakes(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    for name in SMALL:
        registry.write_fake_dataset(name, root / name)
    return root


def test_five_figures_are_told_in_a_run_left_out(measured):
    found = ncc_s2.load(measured)
    assert found.responses.shape == (40, 910)
    assert len(found.splits) == 4
    assert not found.simulated
    assert {name: int(mask.sum()) for name, mask in found.rois.items()} == {
        "V1": 910,
        "V1d": 577,
        "V1v": 459,
    }
    score, names = accuracy(found)
    assert names == 5

    assert score >= 0.90


def test_figures_are_those_of_the_other_set_of_the_same_experiment(measured):
    """That one holds them as pixels."""
    here, there = ncc_s2.load(measured), miyawaki_vbcca.load(measured)
    drawn = {
        c[0]: here.stimuli.image(k)
        for k, c in zip(here.stimuli.ids, here.stimuli.categories(), strict=True)
    }
    shown = {
        c[0]: there.stimuli.image(k)
        for k, c in zip(there.stimuli.ids, there.stimuli.categories(), strict=True)
    }
    assert len(drawn) == 5
    for name, picture in drawn.items():
        np.testing.assert_array_equal(picture, shown[name])


def test_eight_categories_are_told_in_a_run_left_out(measured):
    found = haxby_slice.load(measured)
    assert found.responses.shape == (96, 530)
    assert [split.name for split in found.splits] == [f"run-{n:02d}" for n in range(1, 13)]
    assert found.stimuli.captions(["face-run03"])[0][0] == "a face"
    score, names = accuracy(found)
    assert names == 8

    assert score >= 0.70


def test_categories_left_out_leave_no_id_behind(fakes):
    found = ncc_s2.load(fakes, leave_out="category")
    assert len(found.splits) == 5
    for split in found.splits:
        assert all(key.startswith(split.name) for key in split.test)
        assert not any(key.startswith(split.name) for key in split.train)


@pytest.mark.parametrize("name", SMALL)
def test_measured_files_pass_their_check(name, measured):
    results = registry.check_dataset(name, measured)
    assert {row.status for row in results} == {"ok"}
    assert name in registry.recognise_datasets(measured)


@pytest.mark.parametrize("name", SMALL)
def test_simulated_files_have_the_official_shape_and_a_signal(name, fakes):
    results = {row.what: row for row in registry.check_dataset(name, fakes)}
    assert {row.status for row in results.values()} <= {"ok", "note"}
    assert results["SIMULATED.txt"].status == "note"
    assert all(results[what].status == "ok" for what in ("trials", "voxels", "categories"))
    found = registry.load_dataset(name, fakes)
    assert found.simulated
    if name in ("ncc_s2", "haxby_slice"):
        score, names = accuracy(found)
        assert score > 0.6 > 2 / names
    else:
        train = found.train(found.splits[0])
        pictures = found.stimuli.images(train.stimulus_ids)[..., 0].reshape(len(train), -1)
        lit = pictures.std(0) > 0
        link = np.corrcoef(train.data[:, :50].T, pictures[:, lit].T)[:50, 50:]
        shuffled = np.corrcoef(train.data[::-1, :50].T, pictures[:, lit].T)[:50, 50:]
        assert (link**2).mean() > 1.5 * (shuffled**2).mean()


@pytest.mark.parametrize("name", SMALL)
def test_missing_files_are_results(name, tmp_path):
    results = registry.check_dataset(name, tmp_path)
    assert {row.status for row in results} == {"missing"}
    assert SMALL[name].INFO.source in results[0].advice


def test_downloads_are_pinned_to_a_commit():
    for name in ("digits69", "miyawaki_vbcca", "ncc_s2"):
        (asset,) = registry.list_assets(name)
        assert asset.path == SMALL[name].INFO.files[0]
        assert len(asset.url.split("/")[5]) == 40
    assert registry.list_assets("haxby_slice") == []
    assert "PyMVPA" in haxby_slice.INFO.access


@pytest.mark.parametrize("name", SMALL)
@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_are_told_or_read(name, fakes, tmp_path, data):
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(fakes / name, folder)
    files = [folder / each for each in SMALL[name].INFO.files]
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        near = st.integers(0, min(len(whole), 4000) - 1)
        for place in data.draw(st.lists(near, min_size=1, max_size=6)):
            damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found = registry.load_dataset(name, folder)
        assert found.n_trials > 0
    except CalcarineError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)
