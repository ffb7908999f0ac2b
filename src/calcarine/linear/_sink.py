"""Where the weights of a fit go: into memory, or to a folder from which a fit can go on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.files import write_bytes, write_text
from calcarine.linear._checks import FloatArray, RidgeError
from calcarine.linear._design import Design
from calcarine.linear._sources import Matrix
from calcarine.linear._targets import Answer, Choice

_PER_BLOCK = ("table", "r2", "mean", "chosen")


class Memory:
    """Keeps everything in arrays."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int) -> None:
        self.coef: FloatArray = np.empty(shape, dtype)
        n_targets = shape[1]
        self.found = Answer(
            np.empty((n_alphas, n_targets)),
            np.empty((n_alphas, n_targets)),
            np.empty(n_targets),
            np.empty(n_targets, np.intp),
            None,
        )

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def has(self, index: int, block: slice, y: Matrix) -> bool:
        """Whether a block was solved before, from the same targets."""
        return False

    def keep(self, index: int, block: slice, answer: Answer) -> None:
        """Take in the answer of one block."""
        if answer.coef is not None:
            self.keep_weights(block, answer.coef)
        for name in _PER_BLOCK:
            getattr(self.found, name)[..., block] = getattr(answer, name)

    def keep_weights(self, block: slice, coef: FloatArray) -> None:
        """Take in the weights of one block."""
        self.coef[:, block] = coef

    def answers(self) -> Answer:
        """Scores, means and choices of all targets."""
        return self.found

    def weights(self) -> FloatArray:
        """Weights of all targets, shape (p, t)."""
        return self.coef


class Folder(Memory):
    """Writes weights to ``coef.npy`` and each finished block's scores to its own small file.

    A block counts as finished when its file is there, which is written after its weights.
    """

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int
    ) -> None:
        super().__init__((0, shape[1]), dtype, n_alphas)
        self.folder, about, self.digests = folder, folder / "fit.json", dict[int, str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if about.exists():
                if json.loads(about.read_text()).get("key") != key:
                    raise RidgeError(
                        f"{folder} holds a fit of other data or settings; choose another out, or "
                        "delete that folder."
                    )
            elif any(folder.iterdir()):
                raise RidgeError(f"{folder} is not empty and holds no fit; choose another out.")
            else:
                write_text(about, json.dumps({"key": key, "shape": shape, "dtype": dtype.name}))
            file = folder / "coef.npy"
            mode: Any = "r+" if file.exists() else "w+"
            self.coef = np.lib.format.open_memmap(file, mode, dtype, shape)
            if self.coef.shape != shape or self.coef.dtype != dtype:
                raise ValueError("another shape or type")
        except (OSError, ValueError, AttributeError) as error:
            if isinstance(error, RidgeError):
                raise
            raise RidgeError(
                f"The weights cannot be written to {folder} ({error}); choose a folder with "
                f"{shape[0] * shape[1] * dtype.itemsize / 1e9:.2f} GB of room, or delete it."
            ) from error

    def _file(self, index: int) -> Path:
        return self.folder / f"block-{index:06d}.npz"

    def has(self, index: int, block: slice, y: Matrix) -> bool:
        """Whether a block was solved before, from the same targets."""
        file = self._file(index)
        digest = digest_of(np.asarray(y[:, block]))
        self.digests[index] = digest
        if not file.exists():
            return False
        try:
            with np.load(file, allow_pickle=False) as stored:
                if str(stored["digest"]) != digest:
                    raise RidgeError(
                        f"Y is not what it was when {self.folder} was begun (columns {block.start} "
                        f"to {block.stop - 1} differ); choose another out, or delete that folder."
                    )
                for name in _PER_BLOCK:
                    getattr(self.found, name)[..., block] = stored[name]
        except (OSError, ValueError, KeyError, EOFError) as error:
            if isinstance(error, RidgeError):
                raise
            return False
        return True

    def keep(self, index: int, block: slice, answer: Answer) -> None:
        """Take in the answer of one block, weights first."""
        super().keep(index, block, answer)
        self.coef.flush()  # type: ignore[attr-defined]
        content = io.BytesIO()
        parts = {name: getattr(answer, name) for name in _PER_BLOCK}
        np.savez(content, digest=np.asarray(self.digests[index]), **parts)
        write_bytes(self._file(index), content.getvalue())

    def weights(self) -> FloatArray:
        """Weights of all targets as a read-only memory map, shape (p, t)."""
        self.coef.flush()  # type: ignore[attr-defined]
        return np.load(self.folder / "coef.npy", mmap_mode="r")  # type: ignore[no-any-return]


def open_sink(
    out: str | os.PathLike[str] | None,
    key: str | None,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    n_alphas: int,
) -> Memory:
    """A sink in memory, or in the folder `out`.

    Raises
    ------
    RidgeError
        When the folder holds another fit or cannot be written.
    """
    if out is None or key is None:
        return Memory(shape, dtype, n_alphas)
    return Folder(Path(out), key, shape, dtype, n_alphas)


def fit_key(
    design: Design,
    how: Choice,
    shared: npt.NDArray[np.intp] | None,
    blocks: list[slice],
    y: Matrix,
) -> str:
    """Digest of everything that decides the weights, save the values of Y."""
    parts = [
        repr((design.plan, design.kind, how, y.shape, str(y.dtype), blocks)),
        *(digest_of(part) for part in (design.scaler.mean, design.scaler.scale)),
        *(digest_of(system.held) for system in design.folds),
        digest_of(design.target_rows),
        digest_of(design.ops.get(design.full.left)),
        "" if shared is None else digest_of(shared),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_of(array: npt.NDArray[Any]) -> str:
    """Digest of the values of an array, in C order."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
