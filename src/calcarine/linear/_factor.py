r"""Factors of symmetric matrices that solve :math:`(G + \alpha) w = b` for many penalties.

An eigendecomposition gives that, at the cost of many matrix products. It gives more than ridge
needs: with an orthogonal Q for which :math:`Q^T G Q` is *block tridiagonal*, every
penalty is one cheap block Cholesky factorisation away, and Q is found by products of large
matrices alone (the first stage of the two-stage tridiagonalisation of Dongarra, Hammarling &
Sorensen 1989 and Bischof, Lang & Sun 2000, with the compact WY form of Schreiber & Van Loan
1989).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calcarine.linear._arrays import Array, Ops, dtype_of

BLOCK = 64
_ITERATIONS = 12
_SMALL = 256
"""Below this size an eigendecomposition costs less than the many small products of a band."""


@dataclass
class Spectral:
    """Eigenvalues; ``solve`` divides. Null directions get weight 0 under penalty 0."""

    eigen: Array
    ops: Ops

    @property
    def size(self) -> int:
        return int(self.eigen.shape[0])

    def solve(self, b: Array, alpha: float, out: Array | None = None) -> Array:
        shifted = self.eigen + alpha
        inverse = 1.0 / (shifted + (shifted == 0)) * (shifted != 0)
        if out is None:
            return b * inverse[:, None]
        out[...] = b
        out *= inverse[:, None]
        return out

    def n_bytes(self, n_alphas: int) -> int:
        return self.size * dtype_of(self.eigen).itemsize

    def trace_inverse(self, alpha: float) -> float:
        shifted = self.ops.get(self.eigen).astype(np.float64) + alpha
        return float((1.0 / shifted[shifted > 0]).sum())

    def condition(self, alpha: float) -> float:
        """Largest over smallest eigenvalue of the matrix plus alpha."""
        values = self.ops.get(self.eigen).astype(np.float64) + alpha
        return float(values.max() / values.min()) if values.min() > 0 else np.inf


@dataclass
class Banded:
    """Block tridiagonal matrix of ``n_blocks`` square blocks.

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
    _cache: dict[float, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _cholesky(self, alpha: float) -> tuple[Array, Array, Array]:
        """Inverse factors L_k^-1, and the couplings of forward and backward substitution."""
        if alpha in self._cache:
            return self._cache[alpha]
        ops, (count, width, _) = self.ops, self.diagonal.shape
        shift = ops.eye(width, self.diagonal) * alpha
        inverse = ops.empty((count, width, width), self.diagonal)
        forward = ops.empty((count - 1, width, width), self.diagonal)
        backward = ops.empty((count - 1, width, width), self.diagonal)
        block = self.diagonal[0] + shift
        for k in range(count):
            inverse[k] = ops.inverse_lower(ops.cholesky(block))
            if k + 1 < count:
                coupling = self.below[k] @ inverse[k].T
                backward[k] = (coupling @ inverse[k]).T
                block = self.diagonal[k + 1] + shift - coupling @ coupling.T
                forward[k] = coupling
        for k in range(count - 1):
            forward[k] = inverse[k + 1] @ forward[k]
        self._cache[alpha] = (inverse, forward, backward)
        return self._cache[alpha]

    def solve(self, b: Array, alpha: float, out: Array | None = None) -> Array:
        """Solve for all columns of b, shape (size, t), into `out` of that shape if it is given."""
        inverse, forward, backward = self._cholesky(alpha)
        count, width, _ = self.diagonal.shape
        if out is None:
            out = self.ops.empty(tuple(b.shape), b)
        rows = [slice(k * width, min((k + 1) * width, self.size)) for k in range(count)]
        for k in range(count):
            n = rows[k].stop - rows[k].start
            part = inverse[k][:n, :n] @ b[rows[k]]
            if k:
                part -= forward[k - 1][:n] @ out[rows[k - 1]]
            out[rows[k]] = part
        for k in reversed(range(count)):
            n = rows[k].stop - rows[k].start
            part = inverse[k][:n, :n].T @ out[rows[k]]
            if k + 1 < count:
                m = rows[k + 1].stop - rows[k + 1].start
                part -= backward[k][:, :m] @ out[rows[k + 1]]
            out[rows[k]] = part
        return out

    def n_bytes(self, n_alphas: int) -> int:
        """Memory that the factors of that many penalties take."""
        return n_alphas * factor_values(self.size) * dtype_of(self.diagonal).itemsize

    def trace_inverse(self, alpha: float) -> float:
        """Trace of the inverse, by the recurrence for the diagonal blocks of an inverse."""
        inverse, _, backward = self._cholesky(alpha)
        count, width, _ = self.diagonal.shape
        total, last = 0.0, None
        for k in reversed(range(count)):
            last_here = inverse[k].T @ inverse[k]
            if last is not None:
                last_here += backward[k] @ last @ backward[k].T
            last = last_here
            n = min(self.size - k * width, width)
            total += float(self.ops.get(last).diagonal()[:n].astype(np.float64).sum())
        return total

    def condition(self, alpha: float) -> float:
        """Largest over smallest eigenvalue of the matrix plus alpha, by (inverse) iteration.

        Infinite when the shifted matrix is not positive definite at this precision.
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


Solver = Spectral | Banded


def factor_values(size: int) -> int:
    """How many numbers the factors of one penalty hold."""
    return 3 * BLOCK * (size + BLOCK) if size > _SMALL else size


def factorize(gram: Array, ops: Ops, *, small: int = _SMALL) -> tuple[Array, Solver]:
    r"""Find Q and a solver of :math:`(Q^T G Q + \alpha) w = b`.

    Parameters
    ----------
    gram : array, shape (p, p)
        Symmetric, overwritten.
    ops : Ops
    small : int
        Up to this size by eigenvectors.

    Returns
    -------
    basis : array, shape (p, p)
    solver : Spectral or Banded
    """
    if gram.shape[0] <= small:
        eigen, vectors = ops.eigh(gram)
        return vectors, Spectral(eigen * (eigen > 0), ops)
    return _band(gram, ops)


def _band(a: Array, ops: Ops) -> tuple[Array, Banded]:
    """Reduce a symmetric matrix to block tridiagonal form by block Householder reflections."""
    size, width = a.shape[0], BLOCK
    count = -(-size // width)
    diagonal = ops.empty((count, width, width), a)
    below = ops.empty((count - 1, width, width), a)
    below[...] = 0
    reflectors: list[tuple[int, Array, Array]] = []
    buffer = ops.empty((size * size,), a)
    for k in range(count):
        here, rest = slice(k * width, (k + 1) * width), slice((k + 1) * width, size)
        block = a[here, here]
        n = block.shape[0]
        diagonal[k] = ops.eye(width, a)
        diagonal[k][:n, :n] = (block + block.T) / 2
        m = size - (k + 1) * width
        if m <= 0:
            break
        panel = a[rest, here]
        if m <= width:  # a last block that is not higher than the panel needs no reflection
            below[k][:m] = panel
            continue
        v, tau, r = ops.householder(panel)
        below[k] = r
        t = _compact(v, tau, ops)
        reflectors.append((rest.start, v, t))
        trailing = a[rest, rest]
        av = (trailing @ v) @ t
        y = av - v @ (t.T @ (v.T @ av)) / 2
        left, right = _beside(v, y, ops), _beside(y, v, ops)
        # The update goes through a buffer that is used again, in slabs that stay in the cache.
        update = buffer[: m * m].reshape(m, m)
        trailing -= ops.matmul(left, right.T, out=update)
    basis = ops.eye(size, a)
    for start, v, t in reversed(reflectors):
        part = basis[start:, start:]
        m = part.shape[0]
        update = buffer[: m * m].reshape(m, m)
        part -= ops.matmul(v @ t, v.T @ part, out=update)
    return basis, Banded(diagonal, below, size, ops)


def _beside(a: Array, b: Array, ops: Ops) -> Array:
    both = ops.empty((a.shape[0], a.shape[1] + b.shape[1]), a)
    both[:, : a.shape[1]] = a
    both[:, a.shape[1] :] = b
    return both


def _compact(v: Array, tau: Array, ops: Ops) -> Array:
    """T (b, b), upper triangular, with H_1 ... H_b = I - V T V^T.

    Column by column (Schreiber & Van Loan 1989, eq. 3.3); a reflector with tau 0 does nothing and
    gets a zero row and column.
    """
    products = np.asarray(ops.get(v.T @ v), dtype=np.float64)
    factors = np.asarray(ops.get(tau), dtype=np.float64)
    t = np.zeros_like(products)
    for j, factor in enumerate(factors):
        t[j, j] = factor
        t[:j, j] = -factor * (t[:j, :j] @ products[:j, j])
    return ops.put(t, dtype_of(v))
