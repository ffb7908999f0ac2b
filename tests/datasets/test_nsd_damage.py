"""Damaged files: one sentence or a whole load, never another error."""

import shutil

import numpy as np
import pytest

from calcarine.datasets import nsd, registry
from calcarine.errors import CalcarineError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    registry.fake("nsd", root / "hdf5", n_subjects=1, sessions=2, trials=12, picture=8)
    registry.fake("nsd", root / "nii.gz", n_subjects=1, sessions=2, trials=12, picture=8,
                  betas="nii.gz")  # fmt: skip
    return root


def use(folder, prepared):
    """Load and look at everything."""
    try:
        found = nsd.load(folder, prepared=prepared, mask="nsdgeneral", workers=1)
        values = found.responses.values
        ids = found.stimuli.ids
        found.stimuli.images(ids[:3])
        found.stimuli.captions()
        found.stimuli.categories(ids[:3])
        found.stimuli.semantic_maps(ids[:3])
    except CalcarineError as error:
        assert "\n" not in str(error)
        return None
    return values.shape


def every_file(folder):
    return [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SIMULATED.txt"
    ]


@pytest.mark.parametrize("kind", ["hdf5", "nii.gz"])
def test_flipped_and_cut_files_never_raise_another_error(small, tmp_path, kind):
    rng = np.random.default_rng(5)
    folder = shutil.copytree(small / kind, tmp_path / "files")
    whole = use(folder, tmp_path / "whole")
    assert whole == (24, len(nsd.recording(folder).voxels))
    refused = 0
    for name in every_file(folder):
        path = folder / name
        content = path.read_bytes()
        head = min(len(content), 2048)  # where the structure of most formats is
        cuts = [0, len(content) // 2, len(content) - 1]
        flips = [int(rng.integers(head)), int(rng.integers(len(content)))]
        for place in flips:
            damaged = bytearray(content)
            damaged[place] ^= int(rng.integers(1, 256))
            cuts.append(bytes(damaged))
        for what in cuts:
            path.write_bytes(content[:what] if isinstance(what, int) else what)
            shutil.rmtree(tmp_path / "again", ignore_errors=True)
            shape = use(folder, tmp_path / "again")
            refused += shape is None
            assert shape in (None, whole) or "roi" in name.parts or "label" in name.parts
            assert nsd.check(folder)
        path.write_bytes(content)
    assert refused > 40
    assert use(folder, tmp_path / "end") == whole


def test_a_folder_in_place_of_a_file_and_a_missing_file_are_told(small, tmp_path):
    folder = shutil.copytree(small / "hdf5", tmp_path / "files")
    for name in every_file(folder):
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        use(folder, tmp_path / "p")
        path.mkdir()
        use(folder, tmp_path / "p")
        assert nsd.check(folder)
        path.rmdir()
        path.write_bytes(content)
