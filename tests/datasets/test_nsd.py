"""The Natural Scenes Dataset through its official files, simulated at a small size."""

import gzip
import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat

from calcarine.datasets import nsd, registry
from calcarine.datasets.nsd.betas import read_session, session_shape
from calcarine.datasets.nsd.layout import NSDLayout
from calcarine.datasets.prepare.preparation import prepare
from calcarine.errors import CalcarineError
from calcarine.linear import ridge_cv
from calcarine.stimuli.scenes import render

LENGTHS = (30, 26, 31)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nsd") / "files"
    registry.write_fake_dataset("nsd", folder, trials=list(LENGTHS))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "files")


def files(folder, subject="subj01"):
    return NSDLayout(folder, subject)


def edit_table(path, change, separator="\t"):
    table = pd.read_csv(path, sep=separator)
    change(table)
    table.rename(columns={"Unnamed: 0": ""}).to_csv(path, sep=separator, index=False)


def edit_design(folder, **changes):
    path = files(folder).expdesign
    found = {name: value for name, value in loadmat(path).items() if name[0] != "_"}
    for name, change in changes.items():
        found[name] = change(found[name].astype(np.int64))
    savemat(path, found)


def edit_volume(path, change):
    image = nib.load(path)
    values = change(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(values, image.affine), path)


def refuses(folder, message, **options):
    with pytest.raises(CalcarineError, match=message) as caught:
        nsd.recording(folder, **options)
    assert "\n" not in str(caught.value)


# -- what is read is what is in the files


def test_responses_are_masked_stored_values_over_300(made, tmp_path):
    found = nsd.recording(made, mask="early", zscore="none")
    labels = np.asarray(nib.load(files(made).roi("streams")).dataobj)
    inside = np.argwhere(labels.transpose(2, 1, 0) == 1)  # z, y, x, as the betas have them
    for session in (1, 2, 3):
        with h5py.File(files(made).session(session)) as file:
            stored = file["betas"][()]
        wanted = np.stack([stored[:, z, y, x] for z, y, x in inside], axis=1) / np.float32(300)
        np.testing.assert_array_equal(found.read(session), wanted)
        assert len(wanted) == LENGTHS[session - 1]
    table = found.voxels
    np.testing.assert_array_equal(table[["k", "j", "i"]], inside)
    affine = nib.load(files(made).roi("streams")).affine
    np.testing.assert_allclose(
        table[["x", "y", "z"]], nib.affines.apply_affine(affine, inside[:, ::-1])
    )
    ncsnr = nib.load(files(made).ncsnr).get_fdata()
    np.testing.assert_allclose(table["ncsnr"], [ncsnr[x, y, z] for z, y, x in inside])
    loaded = nsd.load(made, mask="early", zscore="none", prepared=tmp_path)
    np.testing.assert_array_equal(loaded.responses.values[:30], found.read(1))
    assert loaded.simulated and loaded.scaling is None


@pytest.mark.parametrize(
    "settings",
    [
        {"chunks": (1, 6, 7, 8), "compression": "gzip"},
        {"chunks": (30, 1, 1, 1)},
        {"chunks": (7, 2, 3, 5), "compression": "lzf", "shuffle": True},
        {},
        {"dtype": ">i2"},
    ],
)
@pytest.mark.parametrize("block", [2**25, 2000])
def test_every_storage_of_hdf5_gives_the_same(made, tmp_path, monkeypatch, settings, block):
    monkeypatch.setattr("calcarine.datasets.nsd.betas._BLOCK", block)
    monkeypatch.setattr("calcarine.datasets.nsd.betas._GAP", block // 200)
    source = files(made).session(1)
    other = tmp_path / source.name
    with h5py.File(source) as old, h5py.File(other, "w") as new:
        new.create_dataset("betas", data=old["betas"][()], **settings)
    voxels = np.array([0, 3, 50, 51, 160, 335])
    with h5py.File(source) as file:
        wanted = file["betas"][()].reshape(30, -1)[:, voxels] / np.float32(300)
    np.testing.assert_array_equal(read_session(other, session_shape(other), voxels), wanted)


def test_hdf5_with_a_user_block_is_read_right_and_external_storage_is_refused(made, tmp_path):
    source = files(made).session(1)
    with h5py.File(source) as old:
        values = old["betas"][()]
    first, second = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    with h5py.File(first, "w", userblock_size=1024) as new:
        new["betas"] = values
    with h5py.File(second, "w") as new:
        name = str(tmp_path / "raw")
        new.create_dataset("betas", data=values, external=[(name, 0, h5py.h5f.UNLIMITED)])
    voxels = np.arange(10, 300, 7)
    wanted = values.reshape(len(values), -1)[:, voxels] / np.float32(300)
    np.testing.assert_array_equal(read_session(first, session_shape(first), voxels), wanted)
    with pytest.raises(CalcarineError, match="/betas is stored in another file"):
        session_shape(second)


def test_nifti_betas_give_the_same(made, tmp_path):
    registry.write_fake_dataset("nsd", tmp_path / "n", trials=list(LENGTHS), betas="nii.gz")
    one, other = nsd.recording(made), nsd.recording(tmp_path / "n")
    assert files(tmp_path / "n").session(2).name == "betas_session02.nii.gz"
    for session in (1, 2, 3):
        np.testing.assert_array_equal(one.read(session), other.read(session))


def test_outside_of_cortex_is_minus_one_and_in_no_region(made):
    found = nsd.recording(made, mask="streams")
    volume = np.asarray(nib.load(files(made).roi("streams")).dataobj)
    assert (volume == -1).any() and (volume == 0).sum() == 0
    assert len(found.voxels) == (volume > 0).sum()
    general = np.asarray(nib.load(files(made).roi("nsdgeneral")).dataobj)
    assert set(np.unique(general)) == {-1, 0, 1}
    assert len(nsd.recording(made).voxels) == (general == 1).sum()


def test_regions_are_those_of_the_volumes(made):
    found = nsd.recording(made, mask="brain")
    index = tuple(found.voxels[["i", "j", "k"]].to_numpy().T)
    prf = np.asarray(nib.load(files(made).roi("prf-visualrois")).dataobj)[index]
    floc = np.asarray(nib.load(files(made).roi("floc-places")).dataobj)[index]
    for name, labels, values in [
        ("V1", prf, (1, 2)),
        ("V2", prf, (3, 4)),
        ("V3d", prf, (6,)),
        ("hV4", prf, (7,)),
        ("PPA", floc, (2,)),
        ("floc-places", floc, (1, 2, 3)),
    ]:
        np.testing.assert_array_equal(found.rois[name], np.isin(labels, values))
    both = nsd.recording(made, mask="V1v + hV4")
    assert len(both.voxels) == np.isin(prf, (1, 7)).sum()


def test_a_missing_label_table_gives_the_known_names(folder):
    before = nsd.recording(folder).rois
    for atlas in ("streams", "floc-words"):
        files(folder).labels(atlas).unlink()
    after = nsd.recording(folder).rois
    assert before.keys() == after.keys()
    files(folder).labels("floc-faces").write_text("0 Unknown\n2 myface\n")
    assert nsd.recording(folder).rois["myface"].sum() == before["FFA-1"].sum()


# -- which picture a trial shows


def test_a_trial_has_the_picture_that_was_shown(made, tmp_path):
    """Row of imgBrick, 73KID, masterordering and subjectim all meet in the pixels."""
    found = nsd.load(made, "subj02", prepared=tmp_path)
    design = loadmat(files(made).expdesign)
    order, images = design["masterordering"][0].astype(int), design["subjectim"][1].astype(int)
    assert found.n_trials == sum(LENGTHS)
    for trial in range(0, found.n_trials, 7):
        number = images[order[trial] - 1] - 1
        key = found.trial_stimuli[trial]
        assert key == f"nsd-{number:05d}"
        scene = render(0, number, 32)
        np.testing.assert_array_equal(found.stimuli.image(key), scene.image)
        assert found.stimuli.captions([key])[0] == tuple(scene.captions)
        objects = np.maximum(scene.semantic_map.astype(int) - 7, 0)
        np.testing.assert_array_equal(found.stimuli.semantic_maps([key])[0], objects)
        assert set(found.stimuli.categories([key])[0]) == set(scene.categories)
    assert found.sessions.tolist() == np.repeat([1, 2, 3], LENGTHS).tolist()


def test_the_test_side_is_the_shared_pictures_as_they_came(made, tmp_path):
    one, two = (nsd.load(made, s, prepared=tmp_path) for s in ("subj01", "subj02"))
    shared = {f"nsd-{n - 1:05d}" for n in loadmat(files(made).expdesign)["sharedix"][0].astype(int)}
    split = one.split()
    assert split.name == "shared" and [s.name for s in one.splits] == ["shared"]
    first = list(dict.fromkeys(one.trial_stimuli))
    assert split.test == tuple(k for k in first if k in shared) != tuple(sorted(split.test))
    assert split.train == tuple(k for k in first if k not in shared)
    # Pictures come in one order to all, so averaged rows line up between subjects.
    assert split.test == two.split().test
    rows = np.flatnonzero(np.array(one.trial_stimuli) == split.test[2])
    np.testing.assert_allclose(
        one.test().data[2], one.responses.values[rows].mean(0, dtype=np.float64), atol=1e-6
    )


def test_takagi2023_is_offered_for_the_first_37_sessions_alone(tmp_path):
    registry.write_fake_dataset(
        "nsd", tmp_path / "f", sessions=38, trials=8, n_subjects=1, picture=8
    )
    names = [s.name for s in nsd.recording(tmp_path / "f", sessions=37).splits]
    assert names == ["shared", "takagi2023"]
    for other in (None, 36, [*range(1, 37), 38]):
        found = nsd.recording(tmp_path / "f", sessions=other)
        assert [s.name for s in found.splits] == ["shared"]
    takagi = nsd.recording(tmp_path / "f", sessions=37).splits[1]
    trials = nsd.recording(tmp_path / "f").trials
    seen = trials[(trials["session"] <= 37) & trials["shared"]]["stimulus"]
    assert takagi.test == tuple(dict.fromkeys(seen))
    what = {f.what: f for f in nsd.check(tmp_path / "f")}
    found = what["subj01 test pictures (takagi2023)"]
    assert (found.status, found.found) == ("note", str(len(takagi.test)))
    assert "982" in found.expected


def test_sessions_can_be_chosen(made):
    assert set(nsd.recording(made, sessions=2).trials["session"]) == {1, 2}
    assert set(nsd.recording(made, sessions=[3, 1]).trials["session"]) == {1, 3}
    assert nsd.recording(made, sessions=[3]).read(3).shape[0] == LENGTHS[2]
    first = "1 of the 4 chosen sessions are missing, the first is .*betas_session04.hdf5; get it"
    refuses(made, f"{first} from s3://natural.* or set dataset.options.sessions=3 to", sessions=4)
    refuses(made, "has no sessions 0", sessions=0)
    refuses(made, "sessions are a number, such as 37, or a list", sessions="first")
    refuses(made, "sessions are a number, such as 37, or a list", sessions=["1"])


def test_betas_that_were_fetched_again_are_prepared_again(folder, tmp_path):
    path = files(folder).session(1)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(2))
    before = prepare(nsd.recording(folder), tmp_path)
    path.write_bytes(content)
    assert prepare(nsd.recording(folder), tmp_path).path != before.path


# -- traps: each is told, with the trial and both values


def test_ids_of_responses_that_count_from_0_are_told(folder):
    design = loadmat(files(folder).expdesign)
    first = int(design["subjectim"][1, int(design["masterordering"][0, 0]) - 1])
    for subject in ("subj01", "subj02"):
        path = files(folder, subject).responses
        edit_table(path, lambda t: t.__setitem__("73KID", t["73KID"] - 1))
    # One subject saw the very first picture; without it the other files must tell.
    refuses(folder, r"73KID 0 in trial \d+, and ids there count from 1 to 250 .*count from 0")
    message = rf"trial 1 has 73KID {first - 1} .* and {first} in .*all differ by one"
    refuses(folder, message, subject="subj02")
    what = {f.what: f.status for f in nsd.check(folder)}
    assert what["subj01 73KID range"] == what["subj02 responses.tsv"] == "wrong"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("masterordering", "masterordering, which counts from 1|10KID"),
        ("subjectim", "subjectim, which counts from 1|trial 1 has 73KID .*all differ by one"),
        ("sharedix", "sharedix, which counts from 1|contradicts itself in trial"),
    ],
)
def test_a_design_that_counts_from_0_is_told(folder, name, message):
    edit_design(folder, **{name: lambda v: v - 1})
    refuses(folder, message)
    assert any(f.status == "wrong" for f in nsd.check(folder))


def test_stim_info_that_counts_from_1_is_told(folder):
    def shift(table):
        table["Unnamed: 0"] += 1
        table["nsdId"] += 1

    edit_table(files(folder).stim_info, shift, ",")
    refuses(folder, "has 1 as its first column in row 0, which should be 0: rows count from 0")
    what = {f.what: f for f in nsd.check(folder)}
    assert what["subj01 nsdId range"].status == "wrong"


def test_stim_info_that_is_shifted_by_a_row_is_told(folder):
    def roll(table):
        for name in [c for c in table.columns if "rep" in c or c == "shared1000"]:
            table[name] = np.roll(table[name], 1)

    edit_table(files(folder).stim_info, roll, ",")
    refuses(folder, "picture .* sharedix of nsd_expdesign.mat says the opposite")
    edit_table(files(folder).stim_info, lambda t: t.pop("shared1000"), ",")
    refuses(folder, r"gives picture \d+ \(from 0\) the trials .* shows it in trial 1;")


def test_trials_of_stim_info_that_count_from_0_are_told(folder):
    def shift(table):
        for repeat in range(3):
            table[f"subject1_rep{repeat}"] -= 1

    edit_table(files(folder).stim_info, shift, ",")
    refuses(folder, "shows it in trial 1; rows count from 0, trials from 1")
    assert len(nsd.recording(folder, "subj02").trials) == sum(LENGTHS)


def test_one_wrong_trial_is_named_with_both_values(folder):
    was = int(pd.read_csv(files(folder).responses, sep="\t")["73KID"][41])
    other = was % 250 + 1

    def change(table):
        table.loc[41, "73KID"] = other

    edit_table(files(folder).responses, change)
    refuses(folder, rf"trial 42 has 73KID {other} in .* and {was} in .*\(1 of 87 trials differ\)")


def test_the_subjects_do_not_get_each_others_pictures(folder):
    shutil.copy(files(folder, "subj02").responses, files(folder).responses)
    refuses(folder, "has 73KID .* in responses.tsv of subj01")


def test_session_lengths_must_agree_and_are_not_assumed(folder):
    def one_more(table):
        table.loc[30, "SESSION"] = 1

    edit_table(files(folder).responses, one_more)
    refuses(folder, "betas_session01.hdf5 holds 30 trials and responses.tsv has 31 of session 1")
    edit_table(files(folder).responses, lambda t: t.__setitem__("SESSION", t["SESSION"] - 1))
    refuses(folder, "has SESSION 0 in trial 1")


def test_turned_masks_and_turned_betas_are_told(folder):
    roi = files(folder).roi("nsdgeneral")
    edit_volume(roi, lambda v: v.T)
    refuses(folder, r"brainmask.nii.gz has \(8, 7, 6\) voxels .* nsdgeneral.nii.gz has \(6, 7, 8\)")
    for path in [*roi.parent.glob("*.nii.gz"), files(folder).brainmask]:
        if path != roi:
            edit_volume(path, lambda v: v.T)
    files(folder).ncsnr.unlink()
    refuses(folder, r"\(8, 7, 6\) .* the masks have \(6, 7, 8\): .* opposite order")


def test_betas_with_turned_axes_are_told(folder):
    path = files(folder).session(2)
    with h5py.File(path, "a") as file:
        values = file["betas"][()]
        del file["betas"]
        file["betas"] = values.transpose(0, 3, 2, 1)
    refuses(folder, r"betas_session02.hdf5 has \(6, 7, 8\) voxels .*opposite order")
    assert any("opposite order" in f.found for f in nsd.check(folder))


def test_betas_that_are_not_int16_are_told(folder):
    path = files(folder).session(1)
    with h5py.File(path, "a") as file:
        values = file["betas"][()]
        del file["betas"]
        file["betas"] = values / 300.0
    refuses(folder, "has betas of float64 .*should be int16")


def test_masks_of_no_voxels_and_unknown_masks_are_told(folder):
    refuses(folder, "has no mask V9; it has nsdgeneral, brain, streams", mask="V9")
    refuses(folder, "no mask of an empty name", mask="V1+")
    edit_volume(files(folder).roi("nsdgeneral"), lambda v: np.minimum(v, 0))
    refuses(folder, "mask nsdgeneral has no voxels")
    files(folder).roi("nsdgeneral").unlink()
    refuses(folder, "there is no .*nsdgeneral.nii.gz; get it from s3://")
    with pytest.raises(CalcarineError, match=r"there is no folder .*nothing; check its name"):
        nsd.recording(folder / "nothing")


# -- pictures and captions


def test_pictures_are_resized_and_captions_may_be_missing(folder, tmp_path):
    found = nsd.load(folder, size=16, sessions=1, prepared=tmp_path)
    key = found.stimuli.ids[0]
    assert found.stimuli.image(key).shape == (16, 16, 3)
    whole = nsd.load(folder, sessions=1, prepared=tmp_path).stimuli
    np.testing.assert_array_equal(
        found.stimuli.semantic_maps([key])[0], whole.semantic_maps([key])[0][1::2, 1::2]
    )
    shutil.rmtree(files(folder).annotations("captions", "val2017").parent)
    bare = nsd.load(folder, sessions=1, prepared=tmp_path).stimuli
    assert bare.captions([key]) == bare.categories([key]) == [()]
    with pytest.raises(CalcarineError, match="no semantic map"):
        bare.semantic_maps([key])
    with pytest.raises(CalcarineError, match=r"captions_train2017.json; get it from http://images"):
        nsd.load(folder, sessions=1, prepared=tmp_path, captions=True)
    missing = [f for f in nsd.check(folder) if f.status == "missing"]
    assert [f.what.split("_")[0] for f in missing] == [
        "captions",
        "captions",
        "instances",
        "instances",
    ]
    assert all("annotations_trainval2017.zip" in f.advice for f in missing)


def test_fewer_pictures_than_ids_are_told(folder, tmp_path):
    path = files(folder).stimuli
    with h5py.File(path) as file:
        values = file["imgBrick"][()]
    with h5py.File(path, "w") as file:
        file["imgBrick"] = values[:100]
    with pytest.raises(CalcarineError, match=r"is row \d+ of imgBrick .* has rows 0 to 99"):
        nsd.load(folder, prepared=tmp_path)
    assert any(f.what == "nsd_stimuli.hdf5" and f.status == "wrong" for f in nsd.check(folder))


# -- signal, preparation, check, assets


def test_ridge_finds_the_planted_signal_where_it_was_planted(tmp_path):
    registry.write_fake_dataset("nsd", tmp_path / "f", n_subjects=1, sessions=4, trials=100)
    found = registry.load_dataset("nsd", tmp_path / "f", size=8)
    assert found.simulated and (tmp_path / "f/prepared").is_dir()

    pictures = dict(zip(found.stimuli.ids, found.stimuli.images(), strict=True))

    def score(roi):
        """Mean correlation over pixels of predicted and true pictures of the test."""
        train, test = found.train(roi=roi), found.test(roi=roi)
        y = [
            np.stack([pictures[key].mean(2).ravel() for key in part.stimulus_ids])
            for part in (train, test)
        ]
        guess = ridge_cv(train.data, y[0], groups=train.stimulus_ids).predict(test.data)
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(guess.T, y[1].T, strict=True)])

    nothing = score("midventral+midlateral+midparietal")
    assert score("early") > 0.3
    assert abs(nothing) < 0.15


def test_a_stopped_preparation_goes_on_to_the_same_numbers(made, tmp_path):
    found = nsd.recording(made)
    whole = prepare(found, tmp_path / "a", workers=2)
    part = prepare(found, tmp_path / "b", workers=2)
    shutil.rmtree(part.session_path(2))
    assert part.missing() == (2,)
    again = prepare(nsd.recording(made), tmp_path / "b")
    assert again.path == part.path and not again.missing()
    np.testing.assert_array_equal(again.responses().values, whole.responses().values)
    assert prepare(nsd.recording(made, mask="V1"), tmp_path / "b").path != again.path


def test_check_of_whole_files_finds_nothing_to_mend(made):
    results = registry.check_dataset("nsd", made)
    assert {f.status for f in results} == {"ok", "note"}
    told = {f.what: f.found for f in results}["subj01 z-scoring"]
    assert told == "each session z-scored by its training trials"
    assert (
        registry.recognise_datasets(made)
        == ("nsd",)
        == registry.recognise_datasets(made.parent / "files")
    )
    only = registry.check_dataset("nsd", made, "subj02")
    assert not any("subj01" in f.what for f in only)


def test_check_says_what_is_missing_and_where_it_comes_from(folder):
    files(folder).ncsnr.rename(files(folder).betas / "ncsnr_b3.nii.gz")
    files(folder).labels("streams").unlink()
    files(folder).session(2).unlink()
    what = {f.what: f for f in nsd.check(folder, "subj01")}
    assert "ncsnr_b3.nii.gz its official name" in what["subj01 ncsnr.nii.gz"].advice
    assert what["subj01 streams.mgz.ctab"].advice.endswith("label/streams.mgz.ctab")
    lost = what["subj01 betas"]
    assert lost.status == "missing" and "without 2" in lost.found
    assert "betas_session02" in lost.advice
    empty = {f.what: f.status for f in nsd.check(folder, "subj05")}
    assert empty["subj05 betas"] == empty["subj05 responses.tsv"] == "missing"


def test_assets_are_of_the_sessions_that_are_asked_for():
    names = [
        a.path for a in registry.list_assets("nsd", sessions=[3, 1]) if "betas_session" in a.path
    ]
    assert [name[-7:-5] for name in names] == ["01", "03"]
    with pytest.raises(CalcarineError, match="sessions are a number, such as 37, or a list"):
        registry.list_assets("nsd", sessions="all")


def test_assets_are_the_official_files_in_their_layout(made):
    found = {a.path: a for a in registry.list_assets("nsd", ["subj01"])}
    for path in made.rglob("*"):
        name = path.relative_to(made).as_posix()
        if (
            path.is_file()
            and "subj02" not in name
            and path.parent.name != "annotations"
            and name != "SIMULATED.txt"
        ):
            assert found[name].url == f"s3://natural-scenes-dataset/{name}"
    betas = [a for name, a in found.items() if "betas_session" in name]
    assert len(betas) == 40 and betas[0].size == 750 * 81 * 104 * 83 * 2 and not betas[0].exact
    (archive,) = (a for a in found.values() if a.members is not None)
    places = {f"{archive.path.rsplit('/', 1)[0]}/{member}" for member in archive.members}
    wanted = {
        files(made).annotations(k, s)
        for k in ("captions", "instances")
        for s in ("train2017", "val2017")
    }
    assert places == {path.relative_to(made).as_posix() for path in wanted}
    few = registry.list_assets(
        "nsd", ["subj03", "subj08"], sessions=2, betas="nii.gz", images=False, captions=False
    )
    assert sum("betas_session" in a.path for a in few) == 4
    with pytest.raises(CalcarineError, match="subj08 has sessions 1 to 30"):
        registry.list_assets("nsd", ["subj08"], sessions=40)


def test_full_size_has_true_dimensions_and_voxel_counts(tmp_path):
    registry.write_fake_dataset(
        "nsd", tmp_path / "f", full_size=True, sessions=1, trials=40, images=2
    )
    found = nsd.recording(tmp_path / "f", zscore="none")
    assert (len(found.voxels), found.rois["early"].sum()) == (15724, 5917)
    assert found.read(1).shape == (40, 15724)
    with h5py.File(files(tmp_path / "f").stimuli) as file:
        assert file["imgBrick"].shape == (73000, 425, 425, 3)
    status = {f.what: f.status for f in nsd.check(tmp_path / "f")}
    for what in ("nsdgeneral", "volume", "73KID range", "pictures in stim info"):
        assert status[f"subj01 {what}"] == "ok"
    assert status["nsd_stimuli.hdf5"] == "ok"


def test_captions_json_is_read_whatever_its_spacing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("calcarine.datasets.nsd.annotations._BLOCK", 37)
    wanted = nsd.load(folder, prepared=tmp_path).stimuli
    for path in files(folder).annotations("captions", "val2017").parent.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=3))
    other = nsd.load(folder, prepared=tmp_path).stimuli
    assert wanted.captions() == other.captions() and all(len(c) == 5 for c in other.captions())
    np.testing.assert_array_equal(wanted.semantic_maps(), other.semantic_maps())


def test_a_truncated_nifti_is_told(made, tmp_path):
    registry.write_fake_dataset(
        "nsd", tmp_path / "n", trials=5, betas="nii.gz", n_subjects=1, sessions=2
    )
    path = files(tmp_path / "n").session(1)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-100]))
    found = nsd.recording(tmp_path / "n")
    with pytest.raises(CalcarineError, match=r"betas_session01.nii.gz cannot be read .it ends too"):
        found.read(1)
