r"""Solvers of :math:`(G + \alpha) w = b` for a symmetric matrix G and many penalties.

An eigendecomposition of G solves this for every penalty, but costs as much as many matrix
products. Ridge needs less: with an orthogonal Q for which :math:`Q^T G Q` is *block tridiagonal*,
each penalty takes one cheap block Cholesky factorisation, and Q comes from products of large
matrices alone. This is the first stage of the two-stage tridiagonalisation (Dongarra, Hammarling &
Sorensen 1989; Bischof, Lang & Sun 2000) in the compact WY form (Schreiber & Van Loan 1989).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from calcarine.linear._backends import Array, Ops, dtype_of

Sums = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

BLOCK = 64
_SLAB, _COLUMNS = 256, 1024
_TOGETHER = 4
_ITERATIONS = 12
_SMALL = 256
"""Up to this size an eigendecomposition is cheaper than the many small block products."""
SUBSTITUTION = 768
"""Cost of one row of block substitution, in multiplications of a large matrix product."""
EIGENVECTORS = 13
"""Extra cost of an eigendecomposition on a CPU, in matrix products of its order."""


@dataclass
class EigenSolver:
    """Solver in the basis of eigenvectors; null directions get weight 0 at penalty 0."""

    eigen: Array
    ops: Ops
    substitution: ClassVar[int] = 32

    @property
    def size(self) -> int:
        return int(self.eigen.shape[0])

    def inverse(self, alpha: float) -> npt.NDArray[np.float64]:
        """Return inverse eigenvalues plus penalty, shape (size,); 0 where their sum is 0."""
        shifted = self.ops.get(self.eigen).astype(np.float64) + alpha
        return np.asarray(1.0 / (shifted + (shifted == 0)) * (shifted != 0))

    def solve(self, b: Array, alpha: float, out: Array | None = None) -> Array:
        inverse = self.ops.put(self.inverse(alpha), dtype_of(b))
        if out is None:
            return b * inverse[:, None]
        out[...] = b
        out *= inverse[:, None]
        return out

    def sums(self, b: Array, alphas: Sequence[float]) -> Iterator[Sums]:
        """Yield for each penalty the squares of the solutions and their products with b."""
        # In units of the largest eigenvalue, because its square may overflow.
        unit = (float(abs(self.eigen).max()) if self.size else 1.0) or 1.0
        inverse = unit * np.stack([self.inverse(alpha) for alpha in alphas])
        weights = np.concatenate([inverse**2, inverse])
        squares, products = np.split(self.ops.weighted_squares(weights, b, unit**-0.5), 2)
        yield from zip(squares / unit, products, strict=True)

    def forget(self) -> None:
        """Do nothing; no factors are cached."""

    def n_bytes(self, n_alphas: int) -> int:
        return self.size * dtype_of(self.eigen).itemsize

    def trace_inverse(self, alpha: float) -> float:
        return float(self.inverse(alpha).sum())

    def condition(self, alpha: float) -> float:
        """Return the largest over the smallest eigenvalue of the matrix plus alpha."""
        values = self.ops.get(self.eigen).astype(np.float64) + alpha
        return float(values.max() / values.min()) if values.min() > 0 else np.inf


@dataclass
class BlockTridiagonal:
    """Solver for a block tridiagonal matrix of ``n_blocks`` square blocks.

    Attributes
    ----------
    diagonal : array, shape (n_blocks, b, b)
    below : array, shape (n_blocks - 1, b, b)
        Block k couples block row k + 1 with block column k.
    size : int
        Order of the matrix without the padding of the last block, whose diagonal is 1.
    """

    diagonal: Array
    below: Array
    size: int
    ops: Ops
    substitution: ClassVar[int] = SUBSTITUTION
    _cache: dict[float, tuple[Array, Array]] = field(default_factory=dict, repr=False)
    _traces: dict[float, float] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _cholesky(self, alpha: float) -> tuple[Array, Array]:
        """Return the factors of forward and backward substitution, each (n_blocks, b, 2 b).

        Forward: [-L_k^-1 C_k, L_k^-1] for blocks k - 1 and k; backward: the same transposed, for
        blocks k and k + 1. L_k is the Cholesky factor of block k, C_k its coupling to block k - 1.
        """
        if alpha in self._cache:
            return self._cache[alpha]
        ops, (count, width, _) = self.ops, self.diagonal.shape
        shift = ops.eye(width, self.diagonal) * alpha
        forward = ops.empty((count, width, 2 * width), self.diagonal)
        backward = ops.empty((count, width, 2 * width), self.diagonal)
        block = self.diagonal[0] + shift
        for k in range(count):
            inverse = ops.inverse_lower(ops.cholesky(block))
            forward[k, :, width:] = inverse
            backward[k, :, :width] = inverse.T
            if k:
                forward[k, :, :width] = inverse @ forward[k, :, :width]
            if k + 1 < count:
                coupling = self.below[k] @ inverse.T
                backward[k, :, width:] = -(coupling @ inverse).T
                block = self.diagonal[k + 1] + shift - coupling @ coupling.T
                forward[k + 1, :, :width] = -coupling
        self._cache[alpha] = (forward, backward)
        return self._cache[alpha]

    def solve(self, b: Array, alpha: float, out: Array | None = None) -> Array:
        """Solve for all columns of b, shape (size, t); the result goes to `out` if given."""
        if out is None:
            out = self.ops.empty(tuple(b.shape), b)
        if dtype_of(b) != dtype_of(self.diagonal):  # float32 targets, float64 matrix
            for start in range(0, b.shape[1], _COLUMNS):
                some = slice(start, start + _COLUMNS)
                out[:, some] = self.solve(self.ops.put(b[:, some], dtype_of(self.diagonal)), alpha)
            return out
        forward, backward = self._cholesky(alpha)
        count, width, _ = self.diagonal.shape
        out[...] = b
        buffer = self.ops.empty((width, b.shape[1]), b)
        # The rows that a step reads are contiguous: the block and the one solved before it.
        for k in range(count):
            first, stop = k * width, min((k + 1) * width, self.size)
            before = width if k else 0
            factor = forward[k, : stop - first, width - before : width + stop - first]
            part = buffer[: stop - first]
            self.ops.matmul(factor, out[first - before : stop], out=part)
            out[first:stop] = part
        for k in reversed(range(count)):
            first, stop = k * width, min((k + 1) * width, self.size)
            end = min(stop + width, self.size)
            part = buffer[: stop - first]
            self.ops.matmul(backward[k, : stop - first, : end - first], out[first:end], out=part)
            out[first:stop] = part
        return out

    def sums(self, b: Array, alphas: Sequence[float]) -> Iterator[Sums]:
        """Yield for each penalty the squares of the solutions and their products with b."""
        out = None
        for alpha in alphas:
            out = self.solve(b, alpha, out)
            yield self.ops.column_dots(out, out), self.ops.column_dots(b, out)

    def forget(self) -> None:
        """Delete the cached factors of all penalties."""
        self._cache.clear()

    def n_bytes(self, n_alphas: int) -> int:
        """Return the bytes that the factors of `n_alphas` penalties take."""
        return n_alphas * factor_values(self.size) * dtype_of(self.diagonal).itemsize

    def trace_inverse(self, alpha: float) -> float:
        """Return the trace of the inverse, by the recurrence for its diagonal blocks."""
        if alpha not in self._traces:  # every block of targets needs it
            self._traces[alpha] = self._trace_inverse(alpha)
        return self._traces[alpha]

    def _trace_inverse(self, alpha: float) -> float:
        _, backward = self._cholesky(alpha)
        count, width, _ = self.diagonal.shape
        total, last = 0.0, None
        for k in reversed(range(count)):
            inverse, coupling = backward[k, :, :width], backward[k, :, width:]
            last_here = inverse @ inverse.T
            if last is not None:
                last_here += coupling @ last @ coupling.T
            last = last_here
            n = min(self.size - k * width, width)
            total += float(self.ops.get(last).diagonal()[:n].astype(np.float64).sum())
        return total

    def condition(self, alpha: float) -> float:
        """Return the largest over the smallest eigenvalue of the matrix plus alpha.

        Found by (inverse) iteration. Infinite when the shifted matrix is not positive definite in
        this precision.
        """
        count, width, _ = self.diagonal.shape
        draw = np.random.default_rng(0).standard_normal((self.size, 2))
        start = self.ops.put(draw, dtype_of(self.diagonal))
        largest = smallest = 0.0
        v = start
        padded = self.ops.empty((count * width, 2), start)
        for _ in range(_ITERATIONS):
            padded[...] = 0
            padded[: self.size] = v / float(abs(v).max())
            blocks = padded.reshape(count, width, 2)
            product = self.diagonal @ blocks
            if count > 1:
                product[1:] += self.below @ blocks[:-1]
                product[:-1] += self.below.swapaxes(1, 2) @ blocks[1:]
            v = product.reshape(count * width, 2)[: self.size]
            largest = float(abs(v).max())
        v = start
        try:
            for _ in range(_ITERATIONS):
                v = self.solve(v / float(abs(v).max()), alpha)
                smallest = 1.0 / float(abs(v).max())
        except np.linalg.LinAlgError:
            return np.inf
        return (largest + alpha) / smallest if np.isfinite(smallest) and smallest > 0 else np.inf


Solver = EigenSolver | BlockTridiagonal


def factor_values(size: int) -> int:
    """Return how many numbers the factors of one penalty hold."""
    return 4 * BLOCK * (size + BLOCK) if size > _SMALL else size


def factorize(gram: Array, ops: Ops, columns: int = 0) -> tuple[Array, Solver]:
    r"""Return Q and a solver of :math:`(Q^T G Q + \alpha) w = b`.

    Parameters
    ----------
    gram : array, shape (p, p)
        Symmetric, overwritten.
    ops : Ops
    columns : int
        Number of columns of b, over all penalties. An eigendecomposition costs more but makes each
        column cheaper, so it is used for many columns.

    Returns
    -------
    basis : array, shape (p, p)
    solver : EigenSolver or BlockTridiagonal
    """
    if _use_eigenvectors(gram.shape[0], columns if ops.device == "cpu" else 0):
        eigen, vectors = ops.eigh(gram)
        return vectors, EigenSolver(eigen * (eigen > 0), ops)
    return _block_tridiagonal(gram, ops)


def _use_eigenvectors(size: int, columns: int) -> bool:
    return size <= _SMALL or columns * SUBSTITUTION > EIGENVECTORS * size**2


def _block_tridiagonal(a: Array, ops: Ops) -> tuple[Array, BlockTridiagonal]:
    """Reduce a symmetric matrix to block tridiagonal form by block Householder reflections.

    Only the lower triangle of the trailing matrix is updated, slab by slab, and each slab is
    multiplied by the next reflectors while it is in the cache.
    """
    size, width = a.shape[0], BLOCK
    count = -(-size // width)
    diagonal = ops.empty((count, width, width), a)
    below = ops.empty((count - 1, width, width), a)
    below[...] = 0
    reflectors: list[tuple[int, Array, Array]] = []
    slab = _SLAB if ops.device == "cpu" else size
    buffer = ops.empty((slab * size,), a)
    pending: tuple[Array, Array] | None = None
    for k in range(count):
        first, stop = k * width, min((k + 1) * width, size)
        n, m = stop - first, size - stop
        panel = a[first:, first:stop]
        if pending is not None:
            panel = panel - pending[0] @ pending[1][:n].T
            pending = pending[0][n:], pending[1][n:]
        diagonal[k] = ops.eye(width, a)
        diagonal[k][:n, :n] = (panel[:n] + panel[:n].T) / 2
        if m <= 0:
            break
        if m <= width:  # a last block no taller than the panel needs no reflection
            below[k][:m] = panel[n:]
            continue
        v, tau, r = ops.householder(panel[n:])
        below[k] = r
        t = _compact(v, tau, ops)
        reflectors.append((stop, v, t))
        av = ops.empty((m, width), a)
        for high in range(slab * (stop // slab + 1), size + slab, slab):
            low, high = max(high - slab, stop), min(high, size)
            rows, columns = slice(low - stop, high - stop), slice(0, high - stop)
            part = a[low:high, stop:high]
            if pending is not None:
                update = buffer[: part.shape[0] * part.shape[1]].reshape(tuple(part.shape))
                part -= ops.matmul(pending[0][rows], pending[1][columns].T, out=update)
            av[rows] = part @ v[columns]
            av[: rows.start] += part[:, : rows.start].T @ v[rows]
        av = av @ t
        y = av - v @ (t.T @ (v.T @ av)) / 2
        pending = _side_by_side(v, y, ops), _side_by_side(y, v, ops)
    return _product(reflectors, size, slab, buffer, a, ops), BlockTridiagonal(
        diagonal, below, size, ops
    )


def _product(
    reflectors: list[tuple[int, Array, Array]],
    size: int,
    slab: int,
    buffer: Array,
    like: Array,
    ops: Ops,
) -> Array:
    """Return Q, a few reflectors at a time."""
    basis = ops.eye(size, like)
    for end in range(len(reflectors), 0, -_TOGETHER):
        start, v, t = _joined(reflectors[max(end - _TOGETHER, 0) : end], ops)
        part = basis[start:, start:]
        left, right = v @ t, v.T @ part
        for low in range(0, part.shape[0], slab):
            rows = slice(low, min(low + slab, part.shape[0]))
            shape = (rows.stop - rows.start, part.shape[1])
            update = buffer[: shape[0] * shape[1]].reshape(shape)
            part[rows] -= ops.matmul(left[rows], right, out=update)
    return basis


def _joined(reflectors: list[tuple[int, Array, Array]], ops: Ops) -> tuple[int, Array, Array]:
    """Return the product of successive reflectors as one (Schreiber & Van Loan 1989, eq. 3.4)."""
    start, v, t = reflectors[0]
    for first, next_v, next_t in reflectors[1:]:
        padded = ops.empty((v.shape[0], v.shape[1] + next_v.shape[1]), v)
        padded[...] = 0
        padded[:, : v.shape[1]] = v
        padded[first - start :, v.shape[1] :] = next_v
        n = t.shape[0]
        larger = ops.empty((n + next_t.shape[0],) * 2, t)
        larger[...] = 0
        larger[:n, :n], larger[n:, n:] = t, next_t
        larger[:n, n:] = -(t @ (v[first - start :].T @ next_v) @ next_t)
        v, t = padded, larger
    return start, v, t


def _side_by_side(a: Array, b: Array, ops: Ops) -> Array:
    both = ops.empty((a.shape[0], a.shape[1] + b.shape[1]), a)
    both[:, : a.shape[1]] = a
    both[:, a.shape[1] :] = b
    return both


def _compact(v: Array, tau: Array, ops: Ops) -> Array:
    """Return T (b, b), upper triangular, with H_1 ... H_b = I - V T V^T.

    Its inverse is the upper triangle of V^T V with 1 / tau on the diagonal (Joffrain et al.
    2006). A reflector with tau 0 does nothing and gets a zero row and column.
    """
    products = np.asarray(ops.get(v.T @ v), dtype=np.float64)
    factors = np.asarray(ops.get(tau), dtype=np.float64)
    idle = factors == 0
    inverse = np.triu(products, 1)
    inverse[idle] = inverse[:, idle] = 0
    np.fill_diagonal(inverse, 1 / np.where(idle, 1, factors))
    t = np.triu(scipy.linalg.lapack.dtrtri(inverse)[0])
    t[idle, idle] = 0
    return ops.put(t, dtype_of(v))
