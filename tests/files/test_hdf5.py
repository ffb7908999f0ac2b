"""Every reader of HDF5 files from outside refuses arrays that are stored elsewhere."""

import shutil

import h5py
import numpy as np
import pytest

from calcarine.datasets import god, registry
from calcarine.datasets.bdata import BData, write_bdata
from calcarine.datasets.nsd.betas import read_session, session_shape
from calcarine.datasets.nsd.files import read_matrices
from calcarine.datasets.small import digits69, ncc_s2
from calcarine.errors import CalcarineError
from calcarine.files.hdf5 import open_hdf5
from calcarine.stimuli.stimulus_set import StimulusSet


def elsewhere(path, name):
    """Move an array of a file to another file and leave an external link."""
    other = path.with_name("elsewhere.h5")
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as target:
        target["x"] = file[name][()]
        del file[name]
        file[name] = h5py.ExternalLink(str(other), "x")


def test_bdata(tmp_path):
    write_bdata(tmp_path / "s.h5", {"V": np.ones((4, 3))}, {}, {})
    assert BData.open(tmp_path / "s.h5").shape == (4, 3)
    elsewhere(tmp_path / "s.h5", "dataset")
    with pytest.raises(CalcarineError, match=r"/dataset is stored in another file, .*elsewhere"):
        BData.open(tmp_path / "s.h5")


def test_figures(tmp_path):
    registry.write_fake_dataset("ncc_s2", tmp_path)
    path = next(tmp_path.glob("*.mat"))
    ncc_s2.load(tmp_path)
    elsewhere(path, "D/data")
    with pytest.raises(CalcarineError, match="/D/data is stored in another file"):
        ncc_s2.load(tmp_path)


def test_betas_of_nsd(tmp_path):
    path = tmp_path / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        file["betas"] = np.ones((2, 3, 4, 5), np.int16)
    shape = session_shape(path)
    read_session(path, shape, np.arange(4))
    elsewhere(path, "betas")
    for read in (session_shape, lambda p: read_session(p, shape, np.arange(4))):
        with pytest.raises(CalcarineError, match="/betas is stored in another file"):
            read(path)


def test_pictures(tmp_path):
    path = tmp_path / "p.h5"
    with h5py.File(path, "w") as file:
        file["p"] = np.ones((2, 3, 3, 3), np.uint8)
    StimulusSet.from_hdf5(path, "p", [0], ["a"]).image("a")
    elsewhere(path, "p")
    with pytest.raises(CalcarineError, match="/p is stored in another file"):
        StimulusSet.from_hdf5(path, "p", [0], ["a"])


def test_a_file_that_was_changed_is_searched_again(tmp_path):
    good, bad = tmp_path / "a.h5", tmp_path / "b.h5"
    with h5py.File(good, "w") as file:
        file["x"] = np.ones(3)
    shutil.copy(good, bad)
    elsewhere(bad, "x")
    with open_hdf5(good) as file:
        assert file["x"][0] == 1
    shutil.move(bad, good)
    with pytest.raises(CalcarineError, match="/x is stored in another file"), open_hdf5(good):
        pass


def test_what_is_not_reached_by_name_is_searched_too(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["groups/deep/link"] = h5py.ExternalLink("/etc/passwd", "x")
        file["x"] = np.ones(3)
    with (
        pytest.raises(CalcarineError, match=r"/groups/deep/link is stored in .*/etc/passwd"),
        open_hdf5(tmp_path / "a.h5"),
    ):
        pass


def test_files_of_matlab_that_are_not_read_are_named(tmp_path):
    registry.write_fake_dataset("digits69", tmp_path)
    for name in ("digit69_28x28.mat", "Subject1.mat"):
        with h5py.File(tmp_path / name, "w", userblock_size=512) as file:
            file["dataSet"] = np.ones((3, 4))
    for call in (
        lambda: digits69.load(tmp_path),
        lambda: read_matrices(tmp_path / "Subject1.mat", ["x"]),
    ):
        with pytest.raises(
            CalcarineError, match=r"saved again by MATLAB as version 7.3; save it wi"
        ):
            call()
    with pytest.raises(CalcarineError, match=r"Subject1.mat, MATLAB's form, which is not read"):
        god.load(tmp_path, "S1")
    (row,) = [row for row in god.check(tmp_path) if "Subject1.mat" in row.found]
    assert row.status == "missing" and "get it from" in row.advice
