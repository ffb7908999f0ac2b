"""Block tridiagonal factors against numpy's solve and eigenvalues."""

import copy
from threading import Thread

import numpy as np
import pytest

from calcarine.linear import _solvers
from calcarine.linear._backends import TorchOps, WithoutThreads, ops_for
from calcarine.linear._solvers import BlockTridiagonal, EigenSolver, factorize
from calcarine.linear._validation import RidgeError

DEVICES = ["cpu", "torch:cpu"]
SIZES = [1, 63, 64, 65, 128, 129, 200]


def everywhere(test):
    """All sizes in both precisions on both kinds of array."""
    test = pytest.mark.parametrize("size", SIZES)(test)
    test = pytest.mark.parametrize("dtype", ["float64", "float32"])(test)
    return pytest.mark.parametrize("device", DEVICES)(test)


TOLERANCE = {"float64": 1e-11, "float32": 2e-3}


def matrix(size, spectrum="ordinary", seed=0):
    """A symmetric matrix of known eigenvalues, ascending."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    eigen = {
        "ordinary": np.linspace(1, 100, size),
        "power": np.arange(1, size + 1.0)[::-1] ** -1 * 1e3,
        "steep": np.logspace(-6, 2, size),
        "flat": np.full(size, 3.0),
        "two": np.where(np.arange(size) < size // 2, 1.0, 50.0),
    }[spectrum]
    gram = (q * eigen) @ q.T
    return (gram + gram.T) / 2, eigen


def band(gram, device="cpu", dtype="float64"):
    """Basis and solver of the band, whatever the size, and the operations."""
    ops = ops_for(device)
    return *_solvers._block_tridiagonal(ops.put(gram.copy(), np.dtype(dtype)), ops), ops


def dense(solver):
    """The block tridiagonal matrix without its padding."""
    count, width, _ = solver.diagonal.shape
    full = np.zeros((count * width,) * 2)
    for k in range(count):
        here = slice(k * width, (k + 1) * width)
        full[here, here] = solver.ops.get(solver.diagonal[k])
        if k + 1 < count:
            after = slice((k + 1) * width, (k + 2) * width)
            full[after, here] = solver.ops.get(solver.below[k])
            full[here, after] = full[after, here].T
    return full[: solver.size, : solver.size]


@everywhere
def test_band_is_the_matrix_in_another_orthogonal_basis(size, dtype, device):
    gram, eigen = matrix(size)
    basis, solver, ops = band(gram, device, dtype)
    q = ops.get(basis).astype(float)
    assert ops.get(basis).dtype == dtype
    assert solver.size == size
    tolerance = 100 * np.finfo(dtype).eps * np.sqrt(size)
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=tolerance)
    np.testing.assert_allclose(dense(solver), q.T @ gram @ q, atol=tolerance * eigen[-1])


@everywhere
def test_solves_like_numpy(size, dtype, device):
    gram, _ = matrix(size)
    basis, solver, ops = band(gram, device, dtype)
    b = np.random.default_rng(1).normal(size=(size, 5))
    out = ops.empty((size, 5), basis)
    for alpha in (0.0, 0.5, 1e3, 0.5):
        expected = np.linalg.solve(gram + alpha * np.eye(size), b)
        projected = basis.T @ ops.put(b, np.dtype(dtype))
        close = {"rtol": 0, "atol": TOLERANCE[dtype] * np.abs(expected).max()}
        for solved in (solver.solve(projected, alpha), solver.solve(projected, alpha, out)):
            np.testing.assert_allclose(ops.get(basis @ solved), expected, **close)
        assert solved is out


@everywhere
def test_trace_of_the_inverse(size, dtype, device):
    gram, eigen = matrix(size)
    _, solver, _ = band(gram, device, dtype)
    for alpha in (0.0, 2.0, 1e4):
        np.testing.assert_allclose(
            solver.trace_inverse(alpha), (1 / (eigen + alpha)).sum(), rtol=TOLERANCE[dtype] / 10
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spectrum", ["ordinary", "power", "steep", "flat", "two"])
@pytest.mark.parametrize("size", [65, 128, 300])
def test_condition_within_a_fifth(size, spectrum, device):
    gram, eigen = matrix(size, spectrum)
    _, solver, _ = band(gram, device)
    for alpha in (0.0, 1e-3, 10.0):
        true = (eigen[-1] + alpha) / (eigen[0] + alpha)
        np.testing.assert_allclose(solver.condition(alpha), true, rtol=0.2)


@pytest.mark.parametrize("device", DEVICES)
def test_condition_of_an_indefinite_matrix_is_infinite(device):
    gram, _ = matrix(130)
    _, solver, _ = band(gram - 50 * np.eye(130), device)
    assert solver.condition(0.0) == np.inf
    assert np.isfinite(solver.condition(60.0))


@pytest.mark.parametrize("device", DEVICES)
def test_already_banded_and_zero_matrices(device):
    """Panels of zeros have reflectors that do nothing."""
    for gram in (np.diag(np.arange(1.0, 201)), np.zeros((200, 200)), np.ones((200, 200))):
        basis, solver, ops = band(gram, device)
        q = ops.get(basis)
        np.testing.assert_allclose(q.T @ q, np.eye(200), atol=1e-12)
        b = np.arange(400.0).reshape(200, 2)
        expected = np.linalg.solve(gram + 2 * np.eye(200), b)
        solved = ops.get(basis @ solver.solve(basis.T @ ops.put(b, np.dtype(float)), 2.0))
        np.testing.assert_allclose(solved, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_small_matrices_go_use_eigenvectors(device):
    gram, eigen = matrix(_solvers._SMALL)
    ops = ops_for(device)
    basis, solver = factorize(ops.put(gram.copy(), np.dtype(float)), ops)
    assert isinstance(solver, EigenSolver)
    np.testing.assert_allclose(ops.get(solver.eigen), eigen, rtol=1e-10)
    np.testing.assert_allclose(solver.condition(1.0), 101 / 2, rtol=1e-10)
    np.testing.assert_allclose(solver.trace_inverse(1.0), (1 / (eigen + 1)).sum(), rtol=1e-10)
    b = np.ones((len(gram), 2))
    solved = ops.get(basis @ solver.solve(basis.T @ ops.put(b, np.dtype(float)), 3.0))
    np.testing.assert_allclose(solved, np.linalg.solve(gram + 3 * np.eye(len(gram)), b), rtol=1e-9)
    larger, _ = matrix(_solvers._SMALL + 1)
    assert isinstance(factorize(ops.put(larger, np.dtype(float)), ops)[1], BlockTridiagonal)


@pytest.mark.parametrize("device", DEVICES)
def test_larger_matrices_go_use_eigenvectors_for_very_many_columns(device):
    gram, _ = matrix(_solvers._SMALL + 1)
    ops = ops_for(device)
    kinds = [
        type(factorize(ops.put(gram.copy(), np.dtype(float)), ops, columns)[1])
        for columns in (0, 1000, 2000, 10**6)
    ]
    assert kinds == [BlockTridiagonal, BlockTridiagonal, EigenSolver, EigenSolver]


@pytest.mark.parametrize("device", DEVICES)
def test_weighted_squares_are_summed_in_double_precision(device):
    rng = np.random.default_rng(0)
    weights, a = rng.normal(size=(3, 500)), rng.normal(size=(500, 4)).astype(np.float32)
    ops = ops_for(device)
    found = ops.weighted_squares(weights, ops.put(a, a.dtype), 0.5)
    np.testing.assert_allclose(found, weights @ (a.astype(float) / 2) ** 2, rtol=1e-12)


def test_null_directions_get_no_weight_without_penalty():
    ops = ops_for("cpu")
    solver = EigenSolver(np.array([0.0, 2.0]), ops)
    np.testing.assert_array_equal(solver.solve(np.ones((2, 1)), 0.0), [[0.0], [0.5]])
    assert solver.trace_inverse(0.0) == 0.5
    assert solver.condition(0.0) == np.inf


def test_factors_are_kept_but_not_copied():
    gram, _ = matrix(130)
    for device in DEVICES:
        _, solver, ops = band(gram, device)
        solver.solve(ops.put(np.ones((130, 1)), np.dtype(float)), 1.0)
        assert list(solver._cache) == [1.0]
        again = copy.deepcopy(solver)
        assert not again._cache
        assert type(again.ops) is type(ops)
        np.testing.assert_array_equal(ops.get(again.diagonal), ops.get(solver.diagonal))


def test_columns_dots_are_summed_in_double_precision():
    a = np.full((3000, 2), 0.1, np.float32)
    for device in DEVICES:
        ops = ops_for(device)
        on_device = ops.put(a, a.dtype)
        dots = ops.column_dots(on_device, on_device)
        assert dots.dtype == np.float64
        np.testing.assert_allclose(dots, 3000 * float(np.float32(0.1)) ** 2, rtol=2e-6)


class Library:
    """What threadpoolctl tells of a BLAS."""

    num_threads = 4

    def set_num_threads(self, count):
        self.num_threads = count


def test_threads_are_given_back_when_the_last_leaves():
    library = Library()
    context = WithoutThreads(lambda: [library])
    with context:
        assert library.num_threads == 1
        other = Thread(target=context.__enter__)
        other.start()
        other.join()
    assert library.num_threads == 1  # the other is inside still
    context.__exit__(None, None, None)
    assert library.num_threads == 4
    with pytest.raises(ValueError, match="no"), context:
        raise ValueError("no")
    assert library.num_threads == 4
    with WithoutThreads(list):  # no BLAS that is known
        pass


def test_unknown_devices_are_told():
    assert isinstance(ops_for("torch:cpu"), TorchOps)
    for device in ("gpu", "torch:nowhere", "meta:x"):
        with pytest.raises(RidgeError, match=f"device is '{device}'.*choose 'cpu'") as caught:
            ops_for(device)
        assert "\n" not in str(caught.value)
