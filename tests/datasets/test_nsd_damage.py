"""Damaged files: one sentence or a whole load, never another error."""

import shutil

import numpy as np
import pytest

from calcarine.datasets import nsd, registry
from calcarine.errors import CalcarineError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    registry.write_fake_dataset(
        "nsd", root / "hdf5", n_subjects=1, sessions=2, trials=12, picture=8
    )
    registry.write_fake_dataset(
        "nsd", root / "nii.gz", n_subjects=1, sessions=2, trials=12, picture=8, betas="nii.gz"
    )
    return root


def use(folder, prepared, name=None):
    """Shape of the responses that a file (or any) has a part in; None where it is refused."""
    try:
        found = nsd.recording(folder)
        rows = np.concatenate([found.read(s) for s in found.trials["session"].unique()])
        if name and any(part in str(name) for part in ("roi", "label", "ppdata/subj01/func")):
            return rows.shape
        # What is prepared stays from the first time, when all was whole.
        stimuli = nsd.load(folder, prepared=prepared).stimuli
        few = stimuli.ids[:3]
        stimuli.images(few), stimuli.captions(), stimuli.semantic_maps(few)
    except CalcarineError as error:
        assert "\n" not in str(error)
        return None
    return rows.shape


def every_file(folder):
    return [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SIMULATED.txt"
    ]


def damaged(content, rng):
    """Cut in the middle and at the end; a byte changed near the start and anywhere."""
    yield content[: len(content) // 2]
    yield content[:-1]
    for limit in (2048, len(content)):
        changed = bytearray(content)
        changed[int(rng.integers(min(limit, len(content))))] ^= int(rng.integers(1, 256))
        yield bytes(changed)


@pytest.mark.parametrize("kind", ["hdf5", "nii.gz"])
def test_changed_and_cut_files_never_raise_another_error(small, tmp_path, kind):
    rng = np.random.default_rng(5)
    folder = shutil.copytree(small / kind, tmp_path / "files")
    whole = use(folder, tmp_path / "prepared")
    assert whole == (24, len(nsd.recording(folder).voxels))
    names = [n for n in every_file(folder) if kind == "hdf5" or "session" in n.name]
    refused = 0
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for number, other in enumerate(damaged(content, rng)):
            path.write_bytes(other)
            shape = use(folder, tmp_path / "prepared", name)
            refused += shape is None
            assert shape in (None, whole), name
            if number in (0, 2):
                assert nsd.check(folder)
        path.write_bytes(content)
    # Cut in the middle, nothing but a table of labels is still of use.
    assert refused >= 1.5 * len(names)
    assert use(folder, tmp_path / "prepared") == whole


def test_a_missing_file_and_a_folder_in_its_place_are_told(small, tmp_path):
    folder = shutil.copytree(small / "hdf5", tmp_path / "files")
    whole = use(folder, tmp_path / "prepared")
    for name in every_file(folder):
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        # Without the betas of a session the other one is loaded.
        fits = (None, (12, whole[1])) if "session" in name.name else (None, whole)
        assert use(folder, tmp_path / "prepared", name) in fits
        assert nsd.check(folder)
        path.mkdir()
        assert use(folder, tmp_path / "prepared", name) in fits
        path.rmdir()
        path.write_bytes(content)
