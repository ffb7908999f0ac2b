"""Data and weights on disk, a bound on memory, fits that go on after an interruption."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from calcarine.linear import (
    RidgeError,
    _fit,
    _predictors,
    _quadratic_forms,
    _results,
    predict_linear,
    ridge,
    ridge_cv,
)

ALPHAS = np.logspace(-1, 4, 6)
pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


def make_data(n=60, p=20, t=14, *, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.3, 3, p) + 5
    Y = X @ rng.normal(size=(p, t)) / np.sqrt(p) + rng.normal(size=(n, t)) * 2
    return X, Y


@pytest.fixture(scope="module")
def data():
    X, Y = make_data()
    return X, Y, np.repeat(np.arange(20), 3)


def equal(a, b):
    """Everything but the place of the weights, bit by bit."""
    for name in ("coef", "intercept", "alpha", "cv_scores", "cv_curve", "x_mean", "y_mean"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.solver, a.precision) == (b.solver, b.precision)


# Arrays on disk


def on_zarr(folder, name, values):
    array = zarr.create_array(
        str(folder / f"{name}.zarr"), shape=values.shape, dtype=values.dtype, chunks=(17, 5)
    )
    array[:] = values
    return zarr.open_array(str(folder / f"{name}.zarr"), mode="r")


def on_hdf5(folder, name, values):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file.create_dataset("values", data=values, chunks=(11, 3), compression="gzip")
    return h5py.File(folder / f"{name}.h5", "r")["values"]


def on_memory_map(folder, name, values):
    np.save(folder / f"{name}.npy", values)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


STORES = {"zarr": on_zarr, "HDF5": on_hdf5, "memory map": on_memory_map}


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_memory_map_that_lets_go_of_its_pages_loses_nothing(mode, tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 2500)).astype("f4")
    np.save(tmp_path / "y.npy", values)
    y = np.load(tmp_path / "y.npy", mmap_mode=mode)
    if mode != "r":
        y[3, 5] = values[3, 5] = 1.5  # which no file has under mode "c"
    for view in (y, y.view(np.memmap), np.asarray(y)):
        column = _predictors.read_columns(view, slice(5, 6), "Y")
        np.testing.assert_array_equal(column[:, 0], values[:, 5])
        np.testing.assert_array_equal(y, values)


STATM = Path("/proc/self/statm")


@pytest.mark.skipif(not STATM.exists(), reason="Only Linux tells how many pages are mapped.")
def test_a_fit_holds_no_pages_of_its_data(tmp_path):
    def mapped():
        return int(STATM.read_text().split()[2]) * resource.getpagesize() / 1e6

    X, Y = make_data(n=200, p=30, t=40_000)
    x, y = (on_memory_map(tmp_path, n, v.astype("f4")) for n, v in (("x", X), ("y", Y)))  # 32 MB
    ridge_cv(x, y[:, :50], alphas=ALPHAS, cv="gcv")  # libraries map pages, too
    before = mapped()
    assert np.isfinite(y).all()
    assert mapped() > before + 25
    result = ridge_cv(x, y, alphas=ALPHAS, out=tmp_path / "fit", cv="gcv")
    assert mapped() < before + 5
    assert result.coef.shape == (30, 40_000)
    guess = np.lib.format.open_memmap(tmp_path / "guess.npy", "w+", "f4", (200, 40_000))
    predict_linear(x, result.coef, result.x_mean, result.y_mean, out=guess)
    assert mapped() < before + 5
    plain = X @ result.coef[:, -9:].astype(float) + result.intercept[-9:]
    np.testing.assert_allclose(guess[:, -9:], plain, rtol=1e-4, atol=1e-4)


def test_quadratic_forms_may_take_the_memory_of_targets_and_weights(tmp_path, monkeypatch):
    spares = []

    def seen(*arguments):
        spares.append(arguments[-1])

    monkeypatch.setattr(_fit, "forms_for", seen)
    X, Y = make_data(n=100, p=20, t=3000)
    y = on_memory_map(tmp_path, "y", Y)
    ridge_cv(X, Y, alphas=ALPHAS)
    ridge_cv(X, Y[:, :2], alphas=ALPHAS)
    ridge_cv(X, y, alphas=ALPHAS, out=tmp_path / "fit")
    ridge_cv(X, y, alphas=ALPHAS)
    ridge_cv(X, Y, alphas=ALPHAS, memory=1e9)
    whole, few, disk, weights, told = spares
    assert whole == Y.nbytes + 20 * 3000 * 8
    assert few == disk < weights == 20 * 3000 * 8
    assert whole < told < 1e9


def test_a_fit_of_another_block_size_that_stops_leaves_what_was_finished(
    data, tmp_path, monkeypatch
):
    X, Y, groups = data
    options = {"alphas": ALPHAS, "groups": groups, "out": tmp_path / "fit"}
    ridge_cv(X, Y, block_size=4, **options)
    whole = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)

    def stopped(design, block, chosen, out=None):
        if out is not None:  # the product is there, its scale is not
            out[...] = 0
        raise KeyboardInterrupt

    monkeypatch.setattr(_fit, "solve_weights", stopped)
    with pytest.raises(KeyboardInterrupt):
        ridge_cv(X, Y, block_size=7, **options)
    monkeypatch.undo()
    again = ridge_cv(X, Y, block_size=4, **options)
    np.testing.assert_allclose(again.coef, whole.coef, rtol=1e-9, atol=1e-12)


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks of rows even for small data."""
    monkeypatch.setattr("calcarine.linear._predictors.CHUNK_VALUES", 400)


@pytest.mark.parametrize("store", sorted(STORES))
@pytest.mark.parametrize("options", [{}, {"cv": "logo"}, {"alpha_per": "all"}, {"out": True}])
def test_data_on_disk_equal_data_in_memory(store, options, data, tmp_path, small_chunks):
    X, Y, groups = data
    X = X.astype("f4")
    x, y = STORES[store](tmp_path, "x", X), STORES[store](tmp_path, "y", Y)
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 4, **options}
    if options.pop("out", None):
        here, there = {"out": tmp_path / "here"}, {"out": tmp_path / "there"}
    else:
        here = there = {}
    near, far = ridge_cv(X, Y, **options, **here), ridge_cv(x, y, **options, **there)
    np.testing.assert_allclose(far.x_mean, near.x_mean, rtol=1e-12)
    np.testing.assert_allclose(far.coef, near.coef, rtol=1e-4)
    np.testing.assert_array_equal(far.alpha, near.alpha)
    np.testing.assert_allclose(far.predict(x), near.predict(X), rtol=1e-5)


@pytest.mark.parametrize("store", sorted(STORES))
def test_nan_on_disk_is_named_by_its_place(store, data, tmp_path, small_chunks):
    X, Y, groups = data
    bad = X.copy()
    bad[47, 13] = np.nan
    x = STORES[store](tmp_path, "x", bad)
    with pytest.raises(RidgeError, match=r"X holds NaN.*row 47 column 13 \(nan\) \(counted"):
        ridge_cv(x, Y, groups=groups)
    result = ridge_cv(X, Y, groups=groups)
    with pytest.raises(RidgeError, match=r"X holds NaN.*row 47 column 13 \(nan\)"):
        result.predict(x)
    bad = Y.copy()
    bad[31, 9] = -np.inf
    y = STORES[store](tmp_path, "y", bad)
    with pytest.raises(RidgeError, match=r"Y holds NaN.*row 31 column 9 \(-inf\)"):
        ridge_cv(X, y, groups=groups, block_size=4)


@pytest.mark.parametrize("store", ["zarr", "HDF5"])
def test_unusable_arrays_on_disk_are_told(store, data, tmp_path):
    X, Y, _ = data
    for values, message in [
        (X[0], r"X on disk has shape \(20,\)"),
        (X[None], r"X on disk has shape \(1, 60, 20\)"),
        (X + 1j, "type complex128; pass a 2-D array of numbers"),
    ]:
        if values.ndim == 2:
            x = STORES[store](tmp_path, "x", values)
        elif store == "zarr":
            x = zarr.array(values)
        else:
            x = h5py.File(tmp_path / f"{values.ndim}.h5", "w")
            x = x.create_dataset("values", data=values)
        with pytest.raises(RidgeError, match=message) as caught:
            ridge_cv(x, Y)
        assert "\n" not in str(caught.value)


def test_memory_map_of_one_target(data, tmp_path):
    X, Y, _ = data
    y = on_memory_map(tmp_path, "y", Y[:, 0])
    np.testing.assert_array_equal(ridge_cv(X, y).coef, ridge_cv(X, Y[:, 0]).coef)


class Watched:
    """Passes for a zarr array and remembers what was read of it."""

    def __init__(self, values):
        self.values, self.read = values, []
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        self.read.append(key)
        return self.values[key]


Watched.__module__ = "zarr.watched"


def test_each_column_of_targets_is_read_once(data, tmp_path):
    X, Y, groups = data
    blocks = [slice(i, min(i + 4, 14)) for i in range(0, 14, 4)]
    for options in ({}, {"out": tmp_path / "fit"}):
        y = Watched(Y)
        ridge_cv(X, y, groups=groups, block_size=4, **options)
        assert y.read == [(slice(None), block) for block in blocks]
    y = Watched(Y)
    ridge_cv(X, y, groups=groups, block_size=4, alpha_per="all")
    assert y.read == [(slice(None), block) for block in blocks] * 2


# A bound on memory


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((300, 80), {}),
        ((120, 300), {"dtype": "float32"}),
        ((300, 80), {"dtype": "float32", "score": "correlation"}),
        ((300, 80), {"cv": "logo"}),
        ((120, 300), {"cv": "logo"}),
        ((120, 300), {"cv": "gcv"}),
        ((300, 80), {"alpha_per": "all"}),
        ((300, 260), {}),
    ],
)
def test_memory_bounds_what_a_fit_takes(shape, options):
    X, Y = make_data(*shape, t=600)
    X, Y = X.astype(options.get("dtype", "f8")), Y.astype("f4")
    options = {"alphas": ALPHAS, "groups": np.arange(shape[0]) // 3, **options}
    whole = ridge_cv(X, Y, **options)
    with pytest.raises(RidgeError, match=r"memory leaves .* GB for decomp.* GB more") as caught:
        ridge_cv(X, Y, memory=1000, **options)
    assert "\n" not in str(caught.value)
    needed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit, "check_room", lambda room, *rest: needed.append((room, rest[0])))
        # Quadratic forms are used only where there is room.
        patch.setattr(_quadratic_forms, "forms_pay", lambda *sizes: False)
        _blocks_for(X, Y, 1e9, options)
    least = 1e9 + max(take - room for room, take in needed)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RidgeError):
        patch.setattr(_quadratic_forms, "forms_pay", lambda *sizes: False)
        ridge_cv(X, Y, memory=least - 1, **options)
    for memory in (1.2 * least, 2 * least):
        tracemalloc.start()
        try:
            result = ridge_cv(X, Y, memory=memory, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        returned = result.coef.nbytes + 2 * len(ALPHAS) * 600 * 8 + 4 * 600 * 8
        assert peak - returned < memory + 100_000
        np.testing.assert_array_equal(result.alpha, whole.alpha)
        np.testing.assert_allclose(
            result.predict(X[:3]), whole.predict(X[:3]), rtol=1e-5, atol=1e-4
        )


class _StopError(Exception):
    pass


def _blocks_for(X, Y, memory, options):
    """The blocks that a bound gives, without solving them."""
    found = []

    def stop(inputs, blocks, *rest):
        found.append(blocks)
        raise _StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "solve_blocks", stop)
        with pytest.raises(_StopError):
            ridge_cv(X, Y, memory=memory, **options)
    return found[0]


def test_less_memory_makes_smaller_blocks():
    X, Y = make_data(300, 80, 600)
    options = {"alphas": ALPHAS}
    sizes = [
        [block.stop - block.start for block in _blocks_for(X, Y, memory, options)]
        for memory in (None, 1e9, 5e6, 4e6)
    ]
    assert sizes[0] == sizes[1] == [600]
    assert 600 > max(sizes[2]) > max(sizes[3]) > 0
    assert all(sum(size) == 600 for size in sizes)
    for memory in (0, -1, np.nan, "1GB", True):
        with pytest.raises(RidgeError, match="give a number of bytes above 0"):
            ridge_cv(X, Y, memory=memory)


# Weights in a folder


@pytest.mark.parametrize("shape", [(60, 20), (30, 70)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"alpha_per": "all"}, {"alpha_per": [0, 1] * 7}, {"cv": "gcv"}, {"cv": "logo"}]
)
def test_weights_in_a_folder_are_those_in_memory(shape, dtype, options, tmp_path):
    X, Y = make_data(*shape)
    options = {"alphas": ALPHAS, "dtype": dtype, "block_size": 4, **options}
    near, far = ridge_cv(X, Y, **options), ridge_cv(X, Y, out=tmp_path / "a" / "fit", **options)
    equal(near, far)
    assert isinstance(far.coef, np.memmap)
    assert far.coef.dtype == dtype
    with pytest.raises(ValueError, match="read-only"):
        far.coef[0, 0] = 1.0
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "fit" / "coef.npy"), near.coef)
    np.testing.assert_array_equal(far.predict(X), near.predict(X))


class _Solved:
    """Counts what is solved, and breaks off before the k-th."""

    def __init__(self, monkeypatch, name, stop=None):
        self.count, self.stop = 0, stop
        original = getattr(_fit, name)

        def counted(*arguments):
            if self.count == self.stop:
                raise KeyboardInterrupt
            self.count += 1
            return original(*arguments)

        monkeypatch.setattr(_fit, name, counted)


@pytest.mark.parametrize("options", [{}, {"search": "local"}, {"cv": "logo"}, {"alpha_per": "all"}])
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_interrupted_fit_goes_on(options, stop, data, tmp_path):
    X, Y, groups = data
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 4, **options}
    whole = ridge_cv(X, Y, **options)
    options["out"] = tmp_path / "fit"
    with pytest.MonkeyPatch.context() as patch:
        _Solved(patch, "solve_block", stop)
        with pytest.raises(KeyboardInterrupt):
            ridge_cv(X, Y, **options)
    with pytest.MonkeyPatch.context() as patch:
        solved = _Solved(patch, "solve_block")
        equal(ridge_cv(X, Y, **options), whole)
        assert solved.count == 4 - stop
        equal(ridge_cv(X, Y, **options), whole)
        assert solved.count == 4 - stop


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_second_pass_of_shared_penalties_goes_on(stop, data, tmp_path):
    X, Y, groups = data
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 4, "alpha_per": "all"}
    whole = ridge_cv(X, Y, **options)
    options["out"] = tmp_path / "fit"
    with pytest.MonkeyPatch.context() as patch:
        _Solved(patch, "fit_block_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            ridge_cv(X, Y, **options)
    with pytest.MonkeyPatch.context() as patch:
        solved, weighed = _Solved(patch, "solve_block"), _Solved(patch, "fit_block_weights")
        equal(ridge_cv(X, Y, **options), whole)
        assert (solved.count, weighed.count) == (0, 4 - stop)


_CHILD = """
import os, sys
import h5py
import numpy as np
from calcarine.linear import _results, ridge
X, Y = np.load(sys.argv[1]), np.load(sys.argv[2], mmap_mode="r")
keep = _results.WeightFolder.keep
def slow(self, block, answer):
    keep(self, block, answer)
    print(block.start, flush=True)
    if block.start == 8:
        self.coef[:, 12:] = 7.0  # half-written weights of the next block
        sys.stdin.read()
_results.WeightFolder.keep = slow
ridge.ridge_cv(X, Y, alphas=np.logspace(-1, 4, 6), block_size=4, out=sys.argv[3])
"""


def test_killed_process_is_taken_up(data, tmp_path):
    X, Y, _ = data
    for name, values in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", values)
    files = [str(tmp_path / name) for name in ("x.npy", "y.npy", "fit")]
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    with child:
        for line in child.stdout:
            if line.strip() == b"8":
                break
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    options = {"alphas": ALPHAS, "block_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        solved = _Solved(patch, "solve_block")
        result = ridge_cv(X, Y, out=tmp_path / "fit", **options)
        assert solved.count == 1
    equal(result, ridge_cv(X, Y, **options))


@pytest.mark.parametrize(
    "change",
    [
        {"alphas": ALPHAS * (1 + 1e-12)},
        {"alphas": ALPHAS[:-1]},
        {"fit_intercept": False},
        {"standardize": False},
        {"cv": "gcv"},
        {"cv": "logo"},
        {"groups": np.arange(60)},
        {"n_folds": 4},
        {"search": "local"},
        {"score": "correlation"},
        {"solver": "dual"},
        {"dtype": "float32"},
        {"alpha_per": "all"},
        {"alpha_per": np.arange(14) // 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_refused(change, data, tmp_path):
    X, Y, groups = data
    options = {"alphas": ALPHAS, "groups": groups, "out": tmp_path / "fit"}
    ridge_cv(X, Y, **options)
    with pytest.raises(RidgeError, match="holds a fit of other data or settings") as caught:
        ridge_cv(X, Y, **{**options, **change})
    assert "\n" not in str(caught.value)
    ridge_cv(X, Y, **options)


def test_other_groups_of_leave_one_group_out_and_other_labels_are_refused(data, tmp_path):
    X, Y, groups = data
    for name, first, second in [
        ("groups", groups, np.arange(60) // 2),
        ("alpha_per", np.arange(14) // 7, np.arange(14) // 2),
    ]:
        options = {"alphas": ALPHAS, "cv": "logo", "out": tmp_path / name}
        ridge_cv(X, Y, **{name: first}, **options)
        with pytest.raises(RidgeError, match="other data or settings"):
            ridge_cv(X, Y, **{name: second}, **options)


def test_other_data_are_refused(data, tmp_path):
    X, Y, _ = data
    plain = {"fit_intercept": False, "standardize": False}
    options = {"alphas": ALPHAS, "out": tmp_path / "fit", "block_size": 4, **plain}
    ridge_cv(X, Y, **options)
    flipped = X * np.where(np.arange(20) == 3, -1, 1)  # has the same kernel
    small = X.copy()
    small[5, 5] = np.nextafter(small[5, 5], 100)
    for other in (flipped, small, X.astype("f4"), X[::-1]):
        with pytest.raises(RidgeError, match="other data or settings"):
            ridge_cv(other, Y, **options)
    for other in (Y[:, :-1], Y.astype("f4")):
        with pytest.raises(RidgeError, match="other data or settings"):
            ridge_cv(X, other, **options)
    changed = Y.copy()
    changed[0, 9] += 1e-9
    with pytest.raises(RidgeError, match=r"Y differs from the Y of the fit.*columns 8 to 11"):
        ridge_cv(X, changed, **options)
    rows, groups = np.arange(60)[::-1], np.arange(60)  # the same folds
    with pytest.raises(RidgeError, match="other data or settings"):
        ridge_cv(X, Y, target_rows=rows, groups=groups, **options)


def test_another_block_size_solves_again_and_is_right(data, tmp_path):
    X, Y, _ = data
    options = {"alphas": ALPHAS, "out": tmp_path / "fit"}
    ridge_cv(X, Y, block_size=4, **options)
    again = ridge_cv(X, Y, block_size=5, **options)
    equal(again, ridge_cv(X, Y, alphas=ALPHAS, block_size=5))


def test_disk_that_is_full_only_when_room_is_taken(data, tmp_path, monkeypatch):
    X, Y, _ = data
    errors = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EOPNOTSUPP, "no")]

    def reserve(*arguments):
        raise errors.pop(0)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    with pytest.raises(RidgeError, match=r"No space left on device.*GB of room"):
        ridge_cv(X, Y, out=tmp_path / "fit")
    assert not (tmp_path / "fit" / "coef.npy").exists()
    equal(ridge_cv(X, Y, out=tmp_path / "fit"), ridge_cv(X, Y))
    assert not errors


def test_folders_of_others_are_left_alone(data, tmp_path):
    X, Y, _ = data
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RidgeError, match="is not empty and holds no fit; choose another out"):
        ridge_cv(X, Y, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    for content in ("", "[]", "{}", '{"key": 3}', "\x00"):
        (tmp_path / "fit").mkdir(exist_ok=True)
        (tmp_path / "fit" / "fit.json").write_text(content)
        with pytest.raises(RidgeError, match="other data or settings"):
            ridge_cv(X, Y, out=tmp_path / "fit")
    with pytest.raises(RidgeError, match="cannot be written to") as caught:
        ridge_cv(X, Y, out=tmp_path / "notes.txt" / "fit")
    assert "\n" not in str(caught.value)
    with pytest.raises(RidgeError, match="cannot be written to"):
        ridge_cv(X, Y, out=tmp_path / "notes.txt")


def test_folder_that_may_not_be_written(data, tmp_path):
    X, Y, _ = data
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # the system manager may write everywhere but here
        folder = "/proc/self/fdinfo"
        with pytest.raises(RidgeError, match=r"holds no fit|cannot be written"):
            ridge_cv(X, Y, out=folder)
        folder = "/proc/fit"
    with pytest.raises(RidgeError, match=r"cannot be written to.* GB of room"):
        ridge_cv(X, Y, out=folder)


def test_full_disk_is_told_before_any_work(data, tmp_path):
    """Writing to a memory map without room behind it would end the process."""
    X, Y, _ = data
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(RidgeError, match="cannot be written to"):
            ridge_cv(X, Y, out=tmp_path / "fit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    result = ridge_cv(X, Y, out=tmp_path / "fit")
    equal(result, ridge_cv(X, Y))


@pytest.mark.parametrize("options", [{}, {"alpha_per": "all"}])
@pytest.mark.parametrize(
    "damage", ["lost", "cut", "other", "archive", "block cut", "block lost", "part"]
)
def test_damaged_folders_are_mended(damage, options, data, tmp_path):
    X, Y, _ = data
    options = {"alphas": ALPHAS, "block_size": 4, **options}
    whole = ridge_cv(X, Y, **options)
    options["out"] = folder = tmp_path / "fit"
    ridge_cv(X, Y, **options)
    weights, block = folder / "coef.npy", sorted(folder.glob("block-*.npz"))[1]
    if damage == "lost":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "other":
        np.save(weights, np.zeros((3, 3)))
    elif damage == "archive":
        np.savez(weights.with_suffix(".npz"), a=np.zeros(3))
        weights.with_suffix(".npz").rename(weights)
    elif damage == "block cut":
        block.write_bytes(block.read_bytes()[:100])
    elif damage == "block lost":
        block.unlink()
    else:
        block.rename(block.with_name(block.name + ".part"))
    equal(ridge_cv(X, Y, **options), whole)


def test_interruption_before_anything_was_solved(data, tmp_path):
    X, Y, _ = data
    folder = tmp_path / "fit"
    folder.mkdir()
    (folder / "fit.json.0123abcd.part").write_text('{"ke')
    equal(ridge_cv(X, Y, out=folder), ridge_cv(X, Y))
    for file in folder.iterdir():
        if file.name != "fit.json":
            file.unlink()
    equal(ridge_cv(X, Y, out=folder), ridge_cv(X, Y))
    assert set(json.loads((folder / "fit.json").read_text())) == {"key"}


def test_files_of_a_folder_are_never_unpickled(data, tmp_path):
    X, Y, _ = data
    ridge_cv(X, Y, out=tmp_path / "fit")
    trap = np.array([_Bomb()], dtype=object)
    block = next((tmp_path / "fit").glob("block-*.npz"))
    np.savez(block, digest=trap, table=trap, r2=trap, mean=trap, chosen=trap)
    equal(ridge_cv(X, Y, out=tmp_path / "fit"), ridge_cv(X, Y))
    np.save(tmp_path / "fit" / "coef.npy", trap, allow_pickle=True)
    equal(ridge_cv(X, Y, out=tmp_path / "fit"), ridge_cv(X, Y))


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


# Predictions


def test_predictions_stream_from_disk_to_disk(data, tmp_path, small_chunks, monkeypatch):
    X, Y, _ = data
    monkeypatch.setattr("calcarine.linear._results._PREDICT_COLUMNS", 5)
    fit = ridge_cv(X, Y, out=tmp_path / "fit")
    more = make_data(150)[0]
    expected = fit.predict(more)
    assert expected.dtype == np.float64
    for dtype in ("f8", "f4"):
        out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", dtype, (150, 14))
        x = on_memory_map(tmp_path, "more", more)
        given = predict_linear(x, fit.coef, fit.x_mean, fit.y_mean, out=out)
        assert given is out
        out.flush()
        np.testing.assert_allclose(
            np.load(tmp_path / "out.npy"), expected, rtol=1e-12 if dtype == "f8" else 1e-5
        )
    x = on_zarr(tmp_path, "more", more)
    out = zarr.create_array(str(tmp_path / "out.zarr"), shape=(150, 14), dtype="f8", chunks=(40, 4))
    predict_linear(x, fit.coef, fit.x_mean, fit.y_mean, out=out)
    np.testing.assert_allclose(out[:], expected, rtol=1e-12)


def test_streamed_predictions_need_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    x = on_memory_map(tmp_path, "x", rng.normal(size=(4000, 50)))
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "f4", (4000, 500))
    coef = rng.normal(size=(50, 500)).astype("f4")
    tracemalloc.start()
    try:
        predict_linear(x, coef, np.zeros(50), np.zeros(500), out=out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6 < out.nbytes


def test_unusable_places_for_predictions_are_told(data):
    X, Y, _ = data
    fit = ridge_cv(X, Y)
    for out in (np.empty((60, 13)), np.empty((59, 14)), np.empty((60, 14), int)):
        with pytest.raises(RidgeError, match=r"out has shape.*prediction has shape \(60, 14\)"):
            predict_linear(X, fit.coef, fit.x_mean, fit.y_mean, out=out)
    with pytest.raises(RidgeError, match="the fit had 20 columns"):
        predict_linear(X[:, 1:], fit.coef, fit.x_mean, fit.y_mean)
    assert _results.digest_of(fit.coef) != _results.digest_of(fit.coef[::-1])


@pytest.mark.parametrize("search", ["full", "local"])
def test_a_fit_with_other_blocks_leaves_nothing_of_another_fit(rng, tmp_path, search):
    X, (Y, other) = rng.normal(size=(60, 20)), rng.normal(size=(2, 60, 3))
    first = np.array(ridge_cv(X, Y, out=tmp_path / "f", search=search).coef)
    ridge_cv(X, other, out=tmp_path / "f", search=search, block_size=2)
    again = ridge_cv(X, Y, out=tmp_path / "f", search=search)
    np.testing.assert_array_equal(again.coef, first)
