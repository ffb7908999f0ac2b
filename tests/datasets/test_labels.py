"""Label images that were read as fractions and saved as integers again."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from calcarine.datasets import registry
from calcarine.datasets._integer_labels import scaling_of, whole_numbers
from calcarine.datasets.nsd.files import read_labels
from calcarine.errors import CalcarineError


def save_again(path, labels):
    """As get_fdata and Nifti1Image(data, affine, header) do; gives what is then read."""
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.eye(4)), path)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine, image.header), path)
    values = nib.load(path).get_fdata()
    assert (values != np.rint(values)).any()
    return values


@pytest.mark.parametrize("top", [1, 7, 180, 3000])
def test_labels_are_what_they_were(tmp_path, rng, top):
    labels = rng.integers(-1, top + 1, (5, 6, 7))
    path = tmp_path / "roi.nii.gz"
    values = save_again(path, labels)
    scaling = scaling_of(nib.load(path))
    np.testing.assert_array_equal(whole_numbers(values, path, "atlas", scaling), labels)
    np.testing.assert_array_equal(read_labels(path)[0], labels)


def test_the_tolerance_is_a_thousandth_or_half_a_step():
    path = Path("x.nii")
    near = np.array([0.9991, 2.0009])
    np.testing.assert_array_equal(whole_numbers(near, path, "mask"), [1, 2])
    for value in (1.0011, 0.5, np.nan, np.inf):
        with pytest.raises(CalcarineError, match="which is not a whole number; 1 of 2 values"):
            whole_numbers(np.array([1.0, value]), path, "mask")
    np.testing.assert_array_equal(whole_numbers(near + 0.02, path, "mask", (0.05, 0.0)), [1, 2])
    with pytest.raises(CalcarineError, match=r"scl_slope 0.5 and scl_inter 0\)"):
        whole_numbers(np.array([1.5]), path, "mask", (0.5, 0.0))


def test_images_without_a_scaling_have_none(tmp_path):
    for kind in (np.uint8, np.int16, np.float32):
        nib.save(nib.Nifti1Image(np.ones((2, 2, 2), kind), np.eye(4)), tmp_path / "a.nii")
        assert scaling_of(nib.load(tmp_path / "a.nii")) is None


def test_the_mask_of_a_slice_keeps_its_voxels(tmp_path):
    registry.write_fake_dataset("haxby_slice", tmp_path)
    wanted = registry.load_dataset("haxby_slice", tmp_path)
    path = tmp_path / "mask.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj).astype(float)
    raw = np.clip(np.rint((values - 0.5) * 65535), -32767, 32767).astype(np.int16)
    again = nib.Nifti1Image(raw, image.affine)
    again.header.set_slope_inter(1 / 65535, 0.50001)
    nib.save(again, path)
    assert (nib.load(path).get_fdata() > 0).all()
    found = registry.load_dataset("haxby_slice", tmp_path)
    np.testing.assert_array_equal(found.voxels, wanted.voxels)
