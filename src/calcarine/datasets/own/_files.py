"""Paths in a description, and arrays of numbers in the files they lead to."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._arrays import reason
from calcarine.datasets.provider import natural
from calcarine.errors import CalcarineError

__all__ = ["ArrayFile", "find", "stamp"]

_HDF5 = (".h5", ".hdf5", ".hdf", ".mat")
_KEYED = re.compile(r"^(?P<file>.+\.(?:h5|hdf5|hdf|mat)):(?P<key>[^:]+)$", re.IGNORECASE)


def find(root: Path, name: str, what: str) -> Path:
    """An existing file or folder of a description.

    Raises
    ------
    CalcarineError
        If there is none.
    """
    path = _place(root, name)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise CalcarineError(
            f"The {what} {path} does not exist; check the path in the description."
        )
    return path


def _place(root: Path, name: str) -> Path:
    try:
        return root / Path(name).expanduser()
    except (RuntimeError, ValueError):
        return root / name


def stamp(path: Path) -> list[Any]:
    """What tells whether a file has changed: name, size and time."""
    about = path.stat()
    return [path.name, about.st_size, about.st_mtime_ns]


@dataclass(frozen=True)
class ArrayFile:
    """An array of numbers in a ``.npy``, HDF5 or NIfTI file.

    Attributes
    ----------
    path
        The file.
    key
        Of the array in an HDF5 file, empty elsewhere.
    shape
        Of the array.
    affine
        Of a NIfTI image, voxel indices to millimetres.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None = None

    @classmethod
    def open_all(cls, root: Path, names: str | Sequence[str], what: str) -> tuple[ArrayFile, ...]:
        """Files of a name, a pattern (in natural order) or a list (as it stands)."""
        listed = [names] if isinstance(names, str) else list(names)
        return tuple(
            cls.open(*place, what) for name in listed for place in _matches(root, name, what)
        )

    @classmethod
    def open(cls, path: Path, key: str, what: str) -> ArrayFile:
        """Read what an array is, not its numbers.

        Raises
        ------
        CalcarineError
            If the file is damaged, of an unknown kind or holds no such array.
        """
        kind = _suffix(path)
        try:
            if kind == ".npy":
                found = _open_npy(path)
                return cls(path, "", tuple(found.shape))
            if kind in _HDF5:
                import h5py

                with h5py.File(path, "r") as file:
                    chosen = _choose(file, path, key, what)
                    if file[chosen].dtype.kind not in "uif":
                        raise ValueError(f"{chosen} holds {file[chosen].dtype}, no numbers")
                    return cls(path, chosen, tuple(int(n) for n in file[chosen].shape))
            if kind in (".nii", ".nii.gz"):
                import nibabel as nib

                image: Any = nib.load(path)
                affine = np.asarray(image.affine, dtype=np.float64)
                if not np.isfinite(affine).all() or min(image.shape, default=0) < 1:
                    raise ValueError(f"its affine or its shape {image.shape} is senseless")
                return cls(path, "", tuple(int(n) for n in image.shape), affine)
        except CalcarineError:
            raise
        except Exception as error:  # damaged files raise errors of many kinds
            raise _damaged(path, what, error) from error
        raise CalcarineError(
            f"The {what} {path} ends in {kind or 'nothing'}; use .npy, .h5, .hdf5, .nii or .nii.gz."
        )

    @property
    def trials_last(self) -> bool:
        """Whether trials usually come last: in images, and in what GLMsingle writes."""
        return self.affine is not None or self.key == "betasmd"

    def read(self, part: tuple[slice, ...] | None = None) -> NDArray[Any]:
        """The numbers, all of them or a part.

        Raises
        ------
        CalcarineError
            If they cannot be read.
        """
        chosen = part if part is not None else (slice(None),) * len(self.shape)
        try:
            if self.affine is not None:
                import nibabel as nib

                image: Any = nib.load(self.path)
                found = np.asarray(image.dataobj[chosen] if chosen else image.dataobj)
            elif self.key:
                import h5py

                with h5py.File(self.path, "r") as file:
                    found = np.asarray(file[self.key][chosen])
            else:
                found = np.array(_open_npy(self.path)[chosen])
            if found.dtype.kind not in "uif" or found.ndim != len(self.shape):
                raise ValueError(f"it gives {found.dtype} of shape {found.shape}")
        except CalcarineError:
            raise
        except Exception as error:  # as in open
            raise _damaged(self.path, "file", error) from error
        return found


def _matches(root: Path, name: str, what: str) -> list[tuple[Path, str]]:
    """Existing files of one name or pattern, each with its key."""
    keyed = _KEYED.match(name)
    file, key = (keyed["file"], keyed["key"]) if keyed else (name, "")
    if not any(sign in file for sign in "*?["):
        path = find(root, file, what)
        if path.is_dir():
            raise CalcarineError(f"The {what} {path} is a folder; give its files, as {file}/*.npy.")
        return [(path, key)]
    place = _place(root, file)
    # Signs in the name of the folder itself are no pattern.
    inside = place.is_relative_to(root) and not Path(file).is_absolute()
    pattern = str(Path(glob.escape(str(root)), file)) if inside else str(place)
    try:
        paths = sorted((Path(p) for p in glob.glob(pattern)), key=lambda p: natural(p.name))
    except (OSError, ValueError, re.error):
        paths = []
    if not paths:
        raise CalcarineError(f"No file is like {place}; check the {what} in the description.")
    return [(path, key) for path in paths]


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise CalcarineError(
                f"{path} holds Python objects, which are not read because they could run any code; "
                "save betasmd alone with np.save, or have GLMsingle write the .hdf5 form."
            ) from error
        raise
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "uif":
        raise ValueError(f"it holds {getattr(found, 'dtype', 'no numbers')}")
    return found


def _choose(file: Any, path: Path, key: str, what: str) -> str:
    import h5py

    known = [name for name in file if isinstance(file.get(name), h5py.Dataset)]
    if key:
        if not isinstance(file.get(key), h5py.Dataset):
            raise CalcarineError(
                f"The {what} {path} holds no {key}; it holds {', '.join(known[:8]) or 'nothing'}."
            )
        return key
    if "betasmd" in known:
        return "betasmd"
    if len(known) == 1:
        return known[0]
    raise CalcarineError(
        f"The {what} {path} holds {', '.join(known[:8]) or 'no array'}; say which, as "
        f"{path.name}:KEY."
    )


def _damaged(path: Path, what: str, error: BaseException) -> CalcarineError:
    return CalcarineError(
        f"The {what} {path} cannot be read ({reason(error)}); it is damaged or of another kind."
    )
