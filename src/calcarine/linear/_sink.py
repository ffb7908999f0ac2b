"""Where the weights of a fit go: into memory, or to a folder from which a fit can go on."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.files import is_partial_file, read_json, write_bytes, write_text
from calcarine.linear._checks import FloatArray, RidgeError
from calcarine.linear._sources import Matrix, release
from calcarine.linear._targets import Answer

_PER_BLOCK = ("table", "r2", "mean", "chosen")


class Memory:
    """Keeps everything in arrays; `direct` when who solves a block can write to them."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int, direct: bool = False
    ) -> None:
        self.coef: FloatArray = np.empty(shape, dtype)
        self.direct = direct
        n_targets = shape[1]
        self.found = Answer(
            np.empty((n_alphas, n_targets)),
            np.empty((n_alphas, n_targets)),
            np.empty(n_targets),
            np.empty(n_targets, np.intp),
            None,
        )

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        """Whether a block was solved before, from the same targets."""
        return False

    def keep(self, block: slice, answer: Answer) -> None:
        """Take in the answer of one block."""
        self._take(block, answer.coef)
        for name in _PER_BLOCK:
            getattr(self.found, name)[..., block] = getattr(answer, name)

    def room(self, block: slice) -> FloatArray | None:
        """Where the weights of a block may be written before they are kept."""
        return self.coef[:, block] if self.direct else None

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        """Whether a block was given its weights before, for the same penalties."""
        return False

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        """Take in the weights of one block, for penalties chosen over all of them."""
        self._take(block, coef)

    def _take(self, block: slice, coef: FloatArray | None) -> None:
        if coef is not None and not np.may_share_memory(coef, self.coef):  # else it is there
            self.coef[:, block] = coef

    def answers(self) -> Answer:
        """Scores, means and choices of all targets."""
        return self.found

    def weights(self) -> FloatArray:
        """Weights of all targets, shape (p, t)."""
        return self.coef


class Folder(Memory):
    """Writes weights to ``coef.npy`` and what is known of each finished block to a small file.

    A block counts as finished when its file is there, which is written after its weights. Those
    come whole: columns may be vouched for by the file of another block, of an earlier size. Where
    targets share a penalty, weights come in a second pass with small files of their own.
    """

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int
    ) -> None:
        super().__init__((0, shape[1]), dtype, n_alphas)
        self.folder, self.digests = folder, dict[int, str]()
        try:
            _claim(folder, key)
            self.coef = self._open(folder / "coef.npy", shape, dtype)
        except (OSError, ValueError) as error:
            if isinstance(error, RidgeError):
                raise
            raise RidgeError(
                f"The weights cannot be written to {folder} ({error}); choose a folder with "
                f"{shape[0] * shape[1] * dtype.itemsize / 1e9:.2f} GB of room, or delete it."
            ) from error

    def _open(self, file: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> FloatArray:
        try:
            # "r+" alone would lengthen a file that was cut off.
            whole = np.lib.format.open_memmap(file, "r")
            if whole.shape == shape and whole.dtype == dtype:
                return np.lib.format.open_memmap(file, "r+")
        except (FileNotFoundError, ValueError):
            pass
        # Lost or cut off: what the small files say was written is not there.
        for stale in self.folder.glob("*-[0-9]*.npz"):
            stale.unlink()
        coef = np.lib.format.open_memmap(file, "w+", dtype, shape)
        try:
            _reserve(file)
        except OSError:
            file.unlink()
            raise
        return coef

    def _read(self, kind: str, block: slice) -> dict[str, npt.NDArray[Any]] | None:
        """What was written of a block; None if it was not, or not whole."""
        try:
            with np.load(self._file(kind, block), allow_pickle=False) as stored:
                content = dict(stored)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if str(content.pop("digest", "")) != self.digests[block.start]:
            raise RidgeError(
                f"Y is not what it was when {self.folder} was begun (columns {block.start} "
                f"to {block.stop - 1} differ); choose another out, or delete that folder."
            )
        return content

    def _write(self, kind: str, block: slice, **content: Any) -> None:
        self.coef.flush()  # type: ignore[attr-defined]
        release(self.coef)
        packed = io.BytesIO()
        np.savez(packed, digest=np.asarray(self.digests[block.start]), **content)
        write_bytes(self._file(kind, block), packed.getvalue())

    def _disown(self, kinds: Sequence[str], block: slice) -> None:
        """Files of other blocks vouch for none of these columns any more: they are overwritten."""
        for kind in kinds:
            own = self._file(kind, block)
            for file in self.folder.glob(f"{kind}-*.npz"):
                _, start, stop = file.stem.split("-")
                if file != own and int(start) < block.stop and block.start < int(stop):
                    file.unlink()

    def _file(self, kind: str, block: slice) -> Path:
        return self.folder / f"{kind}-{block.start:08d}-{block.stop:08d}.npz"

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        self.digests[block.start] = digest_of(y)
        stored = self._read("block", block)
        if stored is None or set(stored) != set(_PER_BLOCK):
            return False
        for name in _PER_BLOCK:
            getattr(self.found, name)[..., block] = stored[name]
        return True

    def keep(self, block: slice, answer: Answer) -> None:
        self._disown(("block", "weights"), block)
        super().keep(block, answer)
        self._write("block", block, **{name: getattr(answer, name) for name in _PER_BLOCK})

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        stored = self._read("weights", block)
        return stored is not None and np.array_equal(stored.get("chosen", []), chosen)

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        self._disown(("weights",), block)
        super().keep_weights(block, chosen, coef)
        self._write("weights", block, chosen=chosen)

    def weights(self) -> FloatArray:
        """Weights of all targets as a read-only memory map, shape (p, t)."""
        self.coef.flush()  # type: ignore[attr-defined]
        return np.load(self.folder / "coef.npy", mmap_mode="r")  # type: ignore[no-any-return]


def _reserve(file: Path) -> None:
    """Take the room of a sparse file: without it a write to its memory map ends the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(file, "r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _claim(folder: Path, key: str) -> None:
    """Make the folder of a fit, or check that it holds this one.

    Raises
    ------
    RidgeError
        When it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "fit.json"
    if about.exists():
        try:
            same = read_json(about)["key"] == key
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise RidgeError(
                f"{folder} holds a fit of other data or settings; choose another out, or "
                "delete that folder."
            )
    elif any(not is_partial_file(file) for file in folder.iterdir()):
        raise RidgeError(f"{folder} is not empty and holds no fit; choose another out.")
    else:
        write_text(about, json.dumps({"key": key}))


def open_sink(
    out: str | os.PathLike[str] | None,
    key: str | None,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    n_alphas: int,
    *,
    direct: bool,
) -> Memory:
    """A sink in memory, or in the folder `out`.

    Raises
    ------
    RidgeError
        When the folder holds another fit or cannot be written.
    """
    if out is None or key is None:
        return Memory(shape, dtype, n_alphas, direct)
    return Folder(Path(out), key, shape, dtype, n_alphas)


def fit_key(x: Matrix, x_digest: str, y: Matrix, *settings: Any) -> str:
    """Digest of everything that decides the weights, save the values of Y.

    Parameters
    ----------
    x, y : matrices
        Shape and type count; the values of X by their digest.
    x_digest : str
    settings : arrays, or what has a telling repr
    """
    parts = [x_digest, repr((x.shape, str(x.dtype), y.shape, str(y.dtype)))]
    for setting in settings:
        is_array = isinstance(setting, np.ndarray)
        parts.append(digest_of(setting) if is_array else repr(setting))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_of(array: npt.NDArray[Any]) -> str:
    """Digest of the values of an array, in C order."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
