"""Damage of prepared subjects and of features is an error or changes nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from calcarine.brain import Split
from calcarine.datasets.prepare.preparation import Recording, prepare
from calcarine.datasets.prepare.prepared_subject import PreparedSubject
from calcarine.errors import CalcarineError
from calcarine.features.store import FeatureSpace, FeatureStore
from calcarine.files.zarr_files import DamagedArrayError, create_array, open_array, problem, seal
from calcarine.linear import RidgeCV

VOXELS, TRIALS = 300, 12


def recording():
    values = np.random.default_rng(3).normal(size=(2 * TRIALS, VOXELS)).astype(np.float32)
    stimuli = [f"s{i % 8}" for i in range(2 * TRIALS)]
    return Recording(
        dataset="toy",
        subject="a",
        source="here",
        licence="none",
        trials=pd.DataFrame({"stimulus": stimuli, "session": np.repeat([1, 2], TRIALS)}),
        voxels=pd.DataFrame(np.zeros((VOXELS, 3)), columns=["x", "y", "z"]),
        rois={"left": np.arange(VOXELS) < 4},
        splits=(Split("first", tuple(f"s{i}" for i in range(6)), ("s6", "s7"), "by number"),),
        read=lambda session: values[(session - 1) * TRIALS : session * TRIALS].copy(),
    )


def features(folder, **changes):
    def extract(rows):
        rng = np.random.default_rng(rows.start)
        return {"z": rng.normal(size=(rows.stop - rows.start, 50)).astype(np.float32)}

    return FeatureStore(folder).get_many([FeatureSpace("z", {}, (50,))], 40, extract, 8)["z"]


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def empty(path, rng):
    path.write_bytes(b"")


def remove(path, rng):
    path.unlink()


DAMAGE = [flip, cut, empty, remove]


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")


def subject(folder):
    data = prepare(recording(), folder)
    whole = data.responses().values
    scaling = data.scaling()
    return [
        whole,
        scaling.mean,
        scaling.scale,
        np.array(list(data.trials["stimulus"])),
        data.rois["left"],
        data.voxels.to_numpy(),
    ]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_of_a_prepared_subject_is_told_or_mended(tmp_path, damage):
    wanted = subject(tmp_path / "whole")
    rng = np.random.default_rng(DAMAGE.index(damage))
    paths = files_of(tmp_path / "whole")
    chunks = [p for p in paths if "/c/" in str(p)]
    chosen = [*rng.choice(np.array(paths, object), 8), *rng.choice(np.array(chunks, object), 5)]
    for path in chosen:
        copy = Path(shutil.copytree(tmp_path / "whole", tmp_path / "copy"))
        damage(copy / path.relative_to(tmp_path / "whole"), rng)
        for _ in range(2):
            try:
                found = subject(copy)
            except CalcarineError as error:
                assert (
                    "\n" not in str(error) and "prepare" in str(error) and str(copy) in str(error)
                )
                continue
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)
        if "sessions" in path.parts:  # the second call has mended it
            np.testing.assert_array_equal(subject(copy)[0], wanted[0])
        shutil.rmtree(copy)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_features_are_told_and_extracted_again(tmp_path, damage):
    wanted = features(tmp_path / "whole")[:]
    rng = np.random.default_rng(DAMAGE.index(damage))
    paths = files_of(tmp_path / "whole")
    for path in rng.choice(np.array(paths, object), 12):
        copy = Path(shutil.copytree(tmp_path / "whole", tmp_path / "copy"))
        damage(copy / path.relative_to(tmp_path / "whole"), rng)
        try:
            np.testing.assert_array_equal(features(copy)[:], wanted)
        except CalcarineError as error:
            assert str(error).startswith(f"{copy}/z-") and "to extract these features" in str(error)
        np.testing.assert_array_equal(features(copy)[:], wanted)
        shutil.rmtree(copy)


def test_features_read_whole_are_extracted_again_at_once(tmp_path):
    store, calls = FeatureStore(tmp_path), []

    def extract(rows):
        calls.append(rows.start)
        return np.full((rows.stop - rows.start, 3), rows.start, np.float32)

    wanted = store.get("z", {}, 20, (3,), extract, chunk=10)
    flip(next(tmp_path.glob("*.zarr/c/1/0")), np.random.default_rng(0))
    np.testing.assert_array_equal(store.get("z", {}, 20, (3,), extract, chunk=10), wanted)
    assert calls == [0, 10, 0, 10]


def test_a_ridge_says_which_features_are_damaged(tmp_path, rng):
    found = features(tmp_path)
    flip(next(tmp_path.glob("*.zarr/c/3/0")), rng)
    with pytest.raises(DamagedArrayError, match=r"z-\w+.zarr is damaged .*; run the"):
        RidgeCV(alphas=[1.0]).fit(found, rng.normal(size=(40, 2)))


def test_a_wrong_index_is_no_damage(tmp_path):
    found = features(tmp_path)
    for key in ((slice(None), "x"), (0, 0, 0), 99):
        with pytest.raises(Exception) as told:
            found[key]
        assert not isinstance(told.value, CalcarineError)
    assert problem(next(tmp_path.glob("*.zarr"))) is None


def test_what_earlier_versions_wrote_is_read(tmp_path):
    wanted = subject(tmp_path / "p")
    (path,) = (tmp_path / "p").iterdir()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k not in ("digest", "digests")})
    )
    for session in path.glob("sessions/*.zarr"):
        group = zarr.open_group(str(session), mode="r")
        arrays = {name: np.asarray(group[name][:]) for name in ("betas", "mean", "scale")}
        shutil.rmtree(session)
        new = zarr.open_group(str(session), mode="w")
        for name, values in arrays.items():
            new.create_array(name, data=values, compressors=None)
    store = PreparedSubject.open(path)
    assert not store.missing()
    np.testing.assert_array_equal(store.responses().values, wanted[0])
    np.testing.assert_array_equal(store.scaling().mean, wanted[1])
    old = tmp_path / "f" / f"{FeatureSpace('z', {}, (50,)).key()}.zarr"
    zarr.create_array(store=str(old), data=np.ones((40, 50), np.float32), chunks=(8, 50))
    assert features(tmp_path / "f")[:].sum() == 40 * 50
    (old / "zarr.json").write_text("")
    assert features(tmp_path / "f")[:].sum() != 40 * 50  # extracted again


def test_arrays_carry_the_codec_of_zarr_itself(tmp_path):
    array = create_array(str(tmp_path / "a.zarr"), (4, 3), (2, 3), "float32", compress=True)
    array[:] = 0
    seal(tmp_path / "a.zarr")
    about = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert [codec["name"] for codec in about["codecs"]] == ["bytes", "zstd", "crc32c"]
    found = open_array(tmp_path / "a.zarr", "", "make it again")
    assert np.asarray(found).tolist() == np.zeros((4, 3)).tolist() and len(found) == 4
    (tmp_path / "a.zarr" / "c" / "1" / "0").unlink()
    with pytest.raises(DamagedArrayError, match=r"a.zarr is damaged \(.* missing\); make it again"):
        open_array(tmp_path / "a.zarr", "", "make it again")


def test_the_digest_of_a_stored_array_is_that_of_its_content(tmp_path, rng):
    values = rng.normal(size=(7, 5)).astype(np.float32)

    def digest(name, values, chunks=(2, 5), sealed=True):
        place = tmp_path / name
        group = zarr.open_group(place, mode="w")
        array = create_array(group, values.shape, chunks, "float32", name="x", compress=True)
        array[:] = values
        # Another array of the same group is no part of it.
        create_array(group, (1,), (1,), "float64", name="y")[:] = rng.normal()
        if sealed:
            seal(place)
        return open_array(place, "x", "").digest()

    found = digest("a", values)
    assert found == digest("b", values)
    changed = values.copy()
    changed[6, 4] += 1e-6
    assert len({found, digest("c", changed), digest("d", values[:, :4])}) == 3
    assert digest("e", values, sealed=False) is None
