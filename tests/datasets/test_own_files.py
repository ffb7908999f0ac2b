"""Betas, masks and regions in every kind of file that a description may name."""

import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from nibabel import cifti2
from scipy.io import loadmat, savemat

from calcarine.datasets import own, registry
from calcarine.datasets.described.description_arrays import ArrayFile
from calcarine.datasets.described.regions import VoxelGrid
from calcarine.errors import CalcarineError
from calcarine.files.matlab_v5 import read_v5

N = 90
SHAPE = (7, 8, 6)
CUBE = (6, 5, 6)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "lab"
    registry.write_fake_dataset("own", root, betas="nii")
    return root


@pytest.fixture
def lab(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "lab", ignore=shutil.ignore_patterns("prepared")))


def describe(folder, **changes):
    path = folder / "calcarine.yaml"
    tree = {**yaml.safe_load(path.read_text()), "zscore": "none", **changes}
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
    return folder


def volumes(folder):
    """All trials of a subject, shape (x, y, z, trial), and its affine."""
    images = [nib.load(p) for p in sorted((folder / "betas").glob("*.nii.gz"))]
    return np.concatenate([np.asarray(i.dataobj) for i in images], -1), images[0].affine


def mask_of(folder):
    return np.asarray(nib.load(folder / "mask.nii.gz").dataobj) > 0


def rows(folder):
    """Responses that are right: (trial, voxel) in the order of numpy."""
    return volumes(folder)[0][mask_of(folder)].T


def write_mat73(path, arrays, block=True, attribute=True):
    """As MATLAB's save -v7.3: axes reversed, classes named, a block before the HDF5 file."""
    with h5py.File(path, "w", userblock_size=512 if block else 0) as file:
        for name, values in arrays.items():
            file[name] = np.asarray(values).T
            if attribute:
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    if block:
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov  2".ljust(512))


def cubic(folder, rng):
    """A subject whose grid has x and z of one length, and an asymmetric mask."""
    mask = np.zeros(CUBE, np.uint8)
    mask[:3, 1:4, 1:6] = 1
    affine = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    left = mask.copy()
    left[2] = 0
    nib.save(nib.Nifti1Image(left, affine), folder / "left.nii.gz")
    values = rng.normal(size=(*CUBE, N)).astype(np.float32)
    describe(folder, rois={"left": "left.nii.gz"})
    return values, values[mask > 0].T, left[mask > 0] > 0


@pytest.mark.parametrize(("block", "attribute"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["betas.mat", "betas.h5"])
def test_matlab_arrays_on_a_cubic_grid_are_not_transposed(lab, rng, name, block, attribute):
    values, wanted, left = cubic(lab, rng)
    write_mat73(lab / name, {"modelmd": values}, block, attribute)
    found = own.load(describe(lab, betas=name))
    np.testing.assert_array_equal(found.responses.values, wanted)
    np.testing.assert_array_equal(found.rois["left"], left)


def test_glmsingle_of_matlab_is_known_by_its_name(lab, rng):
    values, wanted, _ = cubic(lab, rng)
    write_mat73(lab / "x.mat", {"modelmd": values, "R2": np.ones(CUBE)}, False, False)
    np.testing.assert_array_equal(own.load(describe(lab, betas="x.mat")).responses.values, wanted)


def test_arrays_of_unknown_origin_are_asked_for_and_never_guessed(lab, rng):
    values, wanted, _ = cubic(lab, rng)
    with h5py.File(lab / "x.h5", "w") as file:
        file["b"] = values.T  # h5write of MATLAB leaves no mark
        file["python"] = values
    with pytest.raises(CalcarineError, match=r"add 'betas_axes: numpy' .* or 'betas_axes: matlab'"):
        own.load(describe(lab, betas="x.h5:b"))
    with pytest.raises(CalcarineError, match="betas_axes"):
        own.load(describe(lab, betas="x.h5:python", mask=None))
    describe(lab, mask="mask.nii.gz")
    found = own.load(describe(lab, betas="x.h5:b", betas_axes="matlab"))
    np.testing.assert_array_equal(found.responses.values, wanted)
    found = own.load(describe(lab, betas="x.h5:python", betas_axes="numpy"))
    np.testing.assert_array_equal(found.responses.values, wanted)


def test_where_shapes_tell_no_question_is_asked(lab):
    whole, _ = volumes(lab)
    with h5py.File(lab / "x.h5", "w") as file:
        file["right"] = whole
        file["reversed"] = whole.T
    wanted = rows(lab)
    found = own.load(describe(lab, betas="x.h5:right"))
    np.testing.assert_array_equal(found.responses.values, wanted)
    with pytest.raises(CalcarineError, match="'betas_axes: matlab' reads the file as MATLAB"):
        own.load(describe(lab, betas="x.h5:reversed"))
    found = own.load(describe(lab, betas_axes="matlab"))
    np.testing.assert_array_equal(found.responses.values, wanted)


def test_masks_and_regions_of_matlab_are_turned_too(lab, rng):
    values, wanted, left = cubic(lab, rng)
    np.save(lab / "betas.npy", np.moveaxis(values, -1, 0))
    for name in ("mask", "left"):
        image = np.asarray(nib.load(lab / f"{name}.nii.gz").dataobj)
        write_mat73(lab / f"{name}.mat", {"m": image})
        savemat(lab / f"{name}-v5.mat", {"m": image})
        with h5py.File(lab / f"{name}.h5", "w") as file:
            file["m"] = image
    describe(lab, betas="betas.npy", layout="trials-first")
    for form in (".mat", "-v5.mat"):
        found = own.load(describe(lab, mask=f"mask{form}", rois={"left": f"left{form}"}))
        np.testing.assert_array_equal(found.responses.values, wanted)
        np.testing.assert_array_equal(found.rois["left"], left)
    with pytest.raises(CalcarineError, match=r"mask.h5 does not say .* save it as NIfTI"):
        own.load(describe(lab, mask="mask.h5"))


def test_rows_of_voxels_of_matlab_need_their_order(lab):
    wanted = rows(lab)
    mask = mask_of(lab)
    turned = volumes(lab)[0].transpose(2, 1, 0, 3)[mask.T].T  # as find(mask) orders voxels
    early = np.asarray(nib.load(lab / "early.nii.gz").dataobj).T[mask.T]
    write_mat73(lab / "x.mat", {"b": turned.T})
    np.save(lab / "early.npy", early)
    describe(lab, betas="x.mat", rois={"early": "early.npy"})
    with pytest.raises(CalcarineError, match=r"add 'voxel_order: matlab' .* 'voxel_order: numpy'"):
        own.load(lab)
    found = own.load(describe(lab, voxel_order="matlab"))
    np.testing.assert_array_equal(found.responses.values, wanted)
    np.testing.assert_array_equal(
        found.rois["early"], np.asarray(nib.load(lab / "early.nii.gz").dataobj)[mask] > 0
    )
    write_mat73(lab / "x.mat", {"b": wanted})
    found = own.load(describe(lab, voxel_order="numpy"))
    np.testing.assert_array_equal(found.responses.values, wanted)


def test_the_order_of_matlab_is_undone(rng):
    mask = rng.random((3, 4, 5)) < 0.5
    numbers = np.arange(mask.size).reshape(mask.shape)
    in_matlab = numbers.T[mask.T]
    np.testing.assert_array_equal(in_matlab[VoxelGrid(mask).from_matlab()], numbers[mask])


def struct_v5(path, whole):
    savemat(path, {"results": {"modelmd": whole, "R2": np.ones(3)}, "note": "text"})


def cells_v5(path, whole):
    cell = np.empty(2, object)
    cell[:] = [{"R2": np.ones(3)}, {"modelmd": whole, "HRFindex": np.ones(4)}]
    savemat(path, {"results": cell})


def struct_v73(path, whole):
    write_mat73(path, {"results/modelmd": whole, "results/R2": np.ones(3)})


def cells_v73(path, whole):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["#refs#/a/modelmd"] = whole.T
        file["#refs#/b/R2"] = np.ones(3)
        refs = np.array([[file["#refs#/b"].ref, file["#refs#/a"].ref]], dtype=h5py.ref_dtype)
        file["results"] = refs
        file["results"].attrs["MATLAB_class"] = np.bytes_("cell")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


MATLAB = [struct_v5, cells_v5, struct_v73, cells_v73]


@pytest.mark.parametrize("write", MATLAB)
def test_structs_of_glmsingle_are_read(lab, write):
    write(lab / "r.mat", volumes(lab)[0].astype(float))
    found = own.load(describe(lab, betas="r.mat"))
    np.testing.assert_allclose(found.responses.values, rows(lab), rtol=1e-6)
    key = "results{2}.modelmd" if "cells" in write.__name__ else "results.modelmd"
    by_name = own.load(describe(lab, betas=f"r.mat:{key}"))
    np.testing.assert_array_equal(by_name.responses.values, found.responses.values)
    with pytest.raises(CalcarineError, match=r"holds no betas; it holds results"):
        own.load(describe(lab, betas="r.mat:betas"))


def test_a_v5_file_of_scipy_and_an_npz_are_rows_of_voxels(lab):
    wanted = rows(lab)
    savemat(lab / "b.mat", {"betas": wanted})
    np.savez(lab / "b.npz", betas=wanted, other=np.ones(3))
    for name in ("b.mat", "b.npz:betas"):
        found = own.load(describe(lab, betas=name))
        np.testing.assert_array_equal(found.responses.values, wanted)
    with pytest.raises(CalcarineError, match=r"b.npz holds betas, other; say which .* b.npz:KEY"):
        own.load(describe(lab, betas="b.npz"))
    np.savez(lab / "b.npz", betas=np.array([{}], object))
    with pytest.raises(CalcarineError, match="holds Python objects, which are not read"):
        own.load(describe(lab, betas="b.npz"))


def gifti(values, path, side="CortexLeft"):
    meta = nib.gifti.GiftiMetaData(AnatomicalStructurePrimary=side)
    arrays = [nib.gifti.GiftiDataArray(row.astype(np.float32)) for row in np.atleast_2d(values)]
    nib.save(nib.GiftiImage(meta=meta, darrays=arrays), path)


def axis_of(count, first=0):
    whole = cifti2.BrainModelAxis.from_mask(np.ones(count + first, bool), "CortexLeft")
    return whole[first:]


def dscalar(values, path, first=0):
    names = cifti2.ScalarAxis([f"t{i}" for i in range(len(values))])
    header = cifti2.Cifti2Header.from_axes((names, axis_of(values.shape[1], first)))
    nib.save(nib.Cifti2Image(values.astype(np.float32), header), path)


def dtseries(values, path):
    frames = cifti2.SeriesAxis(0, 1, len(values))
    header = cifti2.Cifti2Header.from_axes((frames, axis_of(values.shape[1])))
    nib.save(nib.Cifti2Image(values.astype(np.float32), header), path)


def mgh(values, path):
    columns = values.T[:, None, None].astype(np.float32)
    nib.save(nib.MGHImage(columns if len(values) > 1 else columns[..., 0], np.eye(4)), path)


SURFACES = [
    (gifti, ".func.gii"),
    (dscalar, ".dscalar.nii"),
    (dtseries, ".dtseries.nii"),
    (mgh, ".mgh"),
    (mgh, ".mgz"),
]


@pytest.mark.parametrize(("write", "ending"), SURFACES)
def test_surface_files_are_rows_of_vertices(lab, rng, write, ending):
    values = rng.normal(size=(N, 40)).astype(np.float32)
    for number in range(3):
        write(values[30 * number : 30 * number + 30], lab / f"s{number}{ending}")
    found = own.load(describe(lab, betas=f"s*{ending}", mask=None, rois={}))
    np.testing.assert_array_equal(found.responses.values, values)
    assert np.isnan(found.voxels.to_numpy()).all()
    inside = np.arange(40) % 3 > 0
    one = {".mgh": ".mgh", ".mgz": ".mgz"}.get(ending, ".dscalar.nii")
    one = ".shape.gii" if write is gifti else one
    (dscalar if write is dtseries else write)(inside[None], lab / f"mask{one}")
    (dscalar if write is dtseries else write)(inside[None], lab / f"v1{one}")
    found = own.load(describe(lab, mask=f"mask{one}", rois={"v1": f"v1{one}"}))
    np.testing.assert_array_equal(found.responses.values, values[:, inside])
    assert found.rois["v1"].all()
    # One file a trial.
    for number, row in enumerate(values):
        write(row[None], lab / f"trial{number}{ending}")
    found = own.load(describe(lab, betas=f"trial*{ending}"))
    np.testing.assert_array_equal(found.responses.values, values[:, inside])


def test_other_vertices_are_refused(lab, rng):
    values = rng.normal(size=(N, 40))
    dscalar(values, lab / "b.dscalar.nii")
    dscalar(np.ones((1, 40)), lab / "m.dscalar.nii", first=3)
    with pytest.raises(CalcarineError, match="are CIFTI files of different vertices; give files"):
        own.load(describe(lab, betas="b.dscalar.nii", mask="m.dscalar.nii", rois={}))
    gifti(values, lab / "b.func.gii")
    gifti(np.ones((1, 40)), lab / "m.func.gii", "CortexRight")
    with pytest.raises(CalcarineError, match=r"different vertices \(CortexLeft, CortexRight\)"):
        own.load(describe(lab, betas="b.func.gii", mask="m.func.gii"))


def test_mgz_volumes_are_volumes(lab):
    whole, affine = volumes(lab)
    nib.save(nib.MGHImage(whole, affine), lab / "b.mgz")
    nib.save(nib.MGHImage(mask_of(lab).astype(np.uint8), affine), lab / "m.mgz")
    found = own.load(describe(lab, betas="b.mgz", mask="m.mgz"))
    np.testing.assert_array_equal(found.responses.values, rows(lab))


def images(lab, pattern="beta_{}.nii", start=1):
    whole, affine = volumes(lab)
    for number in range(N):
        path = lab / pattern.format(number + start)
        path.parent.mkdir(exist_ok=True, parents=True)
        nib.save(nib.Nifti1Image(whole[..., number], affine), path)


@pytest.mark.parametrize("pattern", ["beta_{}.nii", "beta_{}.nii.gz"])
def test_one_image_a_trial_in_natural_order(lab, pattern):
    images(lab, pattern)
    found = own.load(describe(lab, betas=pattern.format("*")))
    np.testing.assert_array_equal(found.responses.values, rows(lab))
    (lab / pattern.format(17)).unlink()
    with pytest.raises(CalcarineError, match=r"There are 89 files of one trial each.* 90 trials"):
        own.load(lab)


def test_images_of_a_session_stay_together(lab):
    whole, affine = volumes(lab)
    for number in range(N):
        folder = lab / "est" / f"session{number // 30 + 9}"
        folder.mkdir(exist_ok=True, parents=True)
        nib.save(nib.Nifti1Image(whole[..., number], affine), folder / f"b{number % 30}.nii")
    found = own.load(describe(lab, betas="est/*/b*.nii"))
    np.testing.assert_array_equal(found.responses.values, rows(lab))


def test_the_table_may_name_a_file_a_trial(lab, rng):
    images(lab, "lss/{}.nii")
    table = pd.read_csv(lab / "trials.csv")
    order = np.concatenate(
        [part + 30 * n for n, part in enumerate(rng.permutation(30) for _ in range(3))]
    )
    table["betas"] = [f"lss/{number + 1}.nii" for number in range(N)]
    table.iloc[order].to_csv(lab / "trials.csv", index=False)
    found = own.load(describe(lab, betas=None))
    np.testing.assert_array_equal(found.responses.values, rows(lab)[order])
    table["betas"] = "lss/1.nii"
    table.to_csv(lab / "trials.csv", index=False)
    with pytest.raises(CalcarineError, match=r"names lss/1.nii for two trials"):
        own.load(lab)


def test_images_of_other_places_are_refused(lab):
    images(lab)
    image = nib.load(lab / "beta_40.nii")
    moved = nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([-1, 1, 1, 1]))
    nib.save(moved, lab / "beta_40.nii")
    with pytest.raises(CalcarineError, match=r"beta_40.nii and .*beta_1.nii have the same shape"):
        own.load(describe(lab, betas="beta_*.nii"))


def test_a_table_of_trials_a_session(lab):
    table = pd.read_csv(lab / "trials.csv")
    wanted = own.load(describe(lab))
    for number in (1, 2, 3):
        part = table[table["session"] == number]
        part[["stimulus"]].to_csv(lab / f"trials{number + 8}.csv", index=False)
        part.to_csv(lab / f"numbered{number}.tsv", index=False, sep="\t")
        part.assign(session=1).to_csv(lab / f"same{number}.csv", index=False)
    for trials in ("trials?*.csv", "numbered*.tsv", [f"trials{n}.csv" for n in (9, 10, 11)]):
        (lab / "trials.csv").unlink(missing_ok=True)
        found = own.load(describe(lab, trials=trials))
        np.testing.assert_array_equal(found.responses.values, wanted.responses.values)
        assert found.sessions.tolist() == wanted.sessions.tolist()
        assert list(found.trial_stimuli) == list(wanted.trial_stimuli)
    with pytest.raises(CalcarineError, match=r"both hold trials of session 1; number"):
        own.load(describe(lab, trials="same*.csv"))


def resaved(path):
    """As after get_fdata and saving with the old header: integers with a slope."""
    image = nib.load(path)
    integers = nib.Nifti1Image(np.rint(image.get_fdata()).astype(np.int16), image.affine)
    nib.save(integers, path)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine, image.header), path)
    again = nib.load(path)
    assert again.dataobj.slope != 1
    return again.get_fdata()


def test_masks_and_atlases_saved_again_are_read_as_they_were(lab):
    affine = nib.load(lab / "mask.nii.gz").affine
    early, ventral = (
        np.asarray(nib.load(lab / f"{n}.nii.gz").dataobj, int) for n in ("early", "ventral")
    )
    for top in (7, 2000):
        atlas = (3 * early + top * ventral).astype(np.int16)
        nib.save(nib.Nifti1Image(atlas, affine), lab / "atlas.nii.gz")
        rois = {"file": "atlas.nii.gz", "labels": {"early": 3, "ventral": top}}
        wanted = own.load(describe(lab, rois=rois))
        values = resaved(lab / "atlas.nii.gz")
        assert (values != np.round(values)).any()
        values = resaved(lab / "mask.nii.gz")
        found = own.load(lab)
        for name in ("early", "ventral"):
            np.testing.assert_array_equal(found.rois[name], wanted.rois[name])
        np.testing.assert_array_equal(found.responses.values, wanted.responses.values)


def test_fractions_are_refused_with_the_reason(lab):
    image = nib.load(lab / "mask.nii.gz")
    values = np.asarray(image.dataobj).astype(float)
    values[3, 4, 2] = 0.4
    nib.save(nib.Nifti1Image(values, image.affine), lab / "mask.nii.gz")
    with pytest.raises(CalcarineError, match=r"holds 0.4 at \(3, 4, 2\), which is not a whole num"):
        own.load(describe(lab))
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(values, image.affine, header), lab / "mask.nii.gz")
    with pytest.raises(CalcarineError, match=r"scl_slope 1.5\d*e-05 and scl_inter 0.5"):
        own.load(lab)


@pytest.mark.parametrize("form", ["external", "link", "virtual", "nested"])
def test_arrays_in_other_files_are_not_followed(lab, form):
    secret = lab / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.zeros((N, 4))
    with h5py.File(lab / "b.h5", "w") as file:
        if form == "external":
            raw = lab / "secret.bin"
            raw.write_bytes(bytes(8 * N * 4))
            file.create_dataset("b", (N, 4), "f8", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        elif form == "link":
            file["b"] = h5py.ExternalLink(str(secret), "x")
        elif form == "virtual":
            layout = h5py.VirtualLayout((N, 4), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "x", (N, 4))
            file.create_virtual_dataset("b", layout)
        else:
            file["a/b"] = h5py.ExternalLink(str(secret), "x")
            file["b"] = np.zeros((N, 4))
    with pytest.raises(CalcarineError, match=r"b is stored in another file, .*secret.* not follow"):
        ArrayFile.open(lab / "b.h5", "b", "betas")


def test_links_within_a_file_are_followed(lab):
    with h5py.File(lab / "b.h5", "w") as file:
        file["group/x"] = np.arange(6.0)
        file["group/loop"] = file["group"]
        file["b"] = h5py.SoftLink("/group/x")
        layout = h5py.VirtualLayout((6,), "f8")
        layout[:] = h5py.VirtualSource(".", "/group/x", (6,))
        file.create_virtual_dataset("v", layout)
    for name in ("b", "v"):
        array = ArrayFile.open(lab / "b.h5", name, "betas")
        np.testing.assert_array_equal(array.read(), np.arange(6.0))


def write_each_kind(folder, values):
    """One file of betas of each kind; gives their names."""
    savemat(folder / "v5.mat", {"r": {"modelmd": values, "n": "text"}})
    cells_v73(folder / "v73.mat", values.T)
    np.savez(folder / "b.npz", betas=values)
    np.savez_compressed(folder / "c.npz", betas=values)
    gifti(values, folder / "b.func.gii")
    dscalar(values, folder / "b.dscalar.nii")
    mgh(values, folder / "b.mgh")
    mgh(values, folder / "b.mgz")
    return ["v5.mat", "v73.mat", "b.npz", "c.npz", "b.func.gii", "b.dscalar.nii", "b.mgh", "b.mgz"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_of_each_kind_are_told_or_read(tmp_path, rng, seed):
    values = rng.normal(size=(12, 9)).astype(np.float32)
    damage = np.random.default_rng(seed)
    for name in write_each_kind(tmp_path, values):
        whole = (tmp_path / name).read_bytes()
        for turn in range(8):
            content = bytearray(whole)
            if turn == 0:
                content = content[: damage.integers(len(whole))]
            for place in damage.integers(0, min(len(whole), 3000), turn):
                content[min(place, len(content) - 1)] ^= int(damage.integers(1, 256))
            (tmp_path / name).write_bytes(content)
            try:
                ArrayFile.open(tmp_path / name, "", "betas").read()
            except CalcarineError as error:
                assert "\n" not in str(error) and name in str(error)


def test_pictures_of_packed_files_are_read_as_they_are_now(tmp_path):
    for number in (1, 2):
        np.savez(tmp_path / "p.npz", p=np.full((3, 4), number))
        savemat(tmp_path / "p.mat", {"p": np.full((3, 4), number)})
        for name in ("p.npz", "p.mat"):
            array = ArrayFile.open(tmp_path / name, "p", "images")
            assert (array.read() == number).all()
            assert (array.read((slice(0, 1), slice(None))) == number).all()


def test_names_of_groups_may_be_written_in_two_ways(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["s1/betas"] = np.ones(3)
        file["s2.betas"] = np.full(3, 2.0)
        file["text"] = "no numbers"
    for key, value in (("s1/betas", 1), ("s1.betas", 1), ("/s1/betas", 1), ("s2.betas", 2)):
        assert (ArrayFile.open(tmp_path / "a.h5", key, "betas").read() == value).all()
    with pytest.raises(CalcarineError, match=r"holds no text; it holds s1.betas, s2.betas"):
        ArrayFile.open(tmp_path / "a.h5", "text", "betas")


@pytest.mark.parametrize("compressed", [False, True])
def test_v5_files_are_read_as_scipy_reads_them(tmp_path, rng, compressed):
    kinds = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
    tree = {kind: rng.integers(0, 99, (2, 3, 4)).astype(kind) for kind in kinds}
    tree["logical"] = rng.random((3, 2)) < 0.5
    tree["one"] = 3.0
    tree["text"], tree["complex"], tree["empty"] = "words", np.ones(2) * 1j, np.zeros((0, 3))
    path = tmp_path / "a.mat"
    savemat(path, tree, do_compression=compressed)
    found, by_matlab = read_v5(path)
    assert not by_matlab
    assert sorted(found) == sorted([*kinds, "logical", "one"])
    whole = loadmat(path)
    for name, values in found.items():
        np.testing.assert_array_equal(values, whole[name])
        assert values.dtype == (bool if name == "logical" else whole[name].dtype)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"MAT-file Platform: ", b"MAT-file, Platform:"))
    assert read_v5(path)[1]
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CalcarineError, match=r"a.mat cannot be read"):
        ArrayFile.open(path, "f8", "betas")


def test_damaged_structs_of_v5_end_nothing(tmp_path, rng):
    """The reader of SciPy ends the process on some of these."""
    values = rng.normal(size=(12, 9))
    struct_v5(tmp_path / "a.mat", values)
    whole = (tmp_path / "a.mat").read_bytes()
    for place in range(124, 700):
        content = bytearray(whole)
        content[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.mat").write_bytes(content)
        try:
            ArrayFile.open(tmp_path / "a.mat", "results.modelmd", "betas").read()
        except CalcarineError as error:
            assert "\n" not in str(error)


def test_every_file_of_betas_is_asked_about(lab, rng):
    values, _, _ = cubic(lab, rng)
    for number in range(3):
        part = values[..., 30 * number : 30 * number + 30]
        if number < 2:
            write_mat73(lab / f"s{number}.h5", {"b": part})
        else:
            with h5py.File(lab / "s2.h5", "w") as file:
                file["b"] = part
    with pytest.raises(CalcarineError, match=r"s2.h5 does not say whether Python or MATLAB"):
        own.load(describe(lab, betas="s*.h5", layout="trials-last"))
