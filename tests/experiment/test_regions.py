"""Regions that settings name: single ones, and several joined by +."""

import numpy as np
import pytest

from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace

SMALL = "dataset.options={n_train: 12, n_test: 4, n_early: 8, n_ventral: 6, n_other: 4}"


def workspace(folder, *settings, preset="takagi"):
    return Workspace(RunDirectory(folder, load_experiment(preset, None, [SMALL, *settings])))


def test_regions_are_joined_by_plus(tmp_path):
    settings = ["roi.z=early+ventral", "roi.c=ventral + other", "visdec.roi=early+other"]
    work = workspace(tmp_path, *settings, "encoding.roi=early+ventral+other", preset="encoding")
    assert work.roi == {"z": "early+ventral", "c": "ventral + other", "pixels": "early+ventral"}
    split = work.splits[0]
    sizes = [work.dataset.train(split, work.roi[name]).data.shape[1] for name in ("z", "c")]
    assert sizes == [14, 10]
    joined = work.dataset.roi_mask(work.config.encoding.roi)
    parts = [work.dataset.roi_mask(name) for name in ("early", "ventral", "other")]
    np.testing.assert_array_equal(joined, np.any(parts, axis=0))


@pytest.mark.parametrize(
    ("setting", "preset"),
    [
        ("roi.z=V9", "takagi"),
        ("roi.c=early+V9", "takagi"),
        ("roi.pixels=V9", "takagi"),
        ("encoding.roi=V9", "encoding"),
        ("visdec.roi=V9", "visdec-mini"),
    ],
)
def test_a_wrong_region_lists_the_regions_and_how_to_join_them(tmp_path, setting, preset):
    work = workspace(tmp_path, setting, preset=preset)
    with pytest.raises(CalcarineError, match=r"choose among all, early.*join several as A\+B") as e:
        _ = work.roi
    assert setting in str(e.value)
