"""Paths in a description, and the numeric arrays in these files."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._data_files import natural_key
from calcarine.datasets._numpy_files import reason
from calcarine.datasets.described.array_formats import (
    HDF5,
    KEYED,
    ArrayInfo,
    Writer,
    describe_file,
    ending,
    read_file,
)
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError
from calcarine.files import content_missing
from calcarine.files.matlab_v73 import is_hdf5

__all__ = ["ArrayFile", "ArrayStack", "check_content", "find", "find_all", "one_trial", "stamp"]

_KINDS = "|".join(kind.removeprefix(".") for kind in KEYED)
_KEYED = re.compile(rf"^(?P<file>.+\.(?:{_KINDS})):(?P<key>[^:]+)$", re.IGNORECASE)


def find(root: Path, name: str, what: str) -> Path:
    """Return the path of an existing file or folder of a description.

    Raises
    ------
    CalcarineError
        If there is none.
    """
    path = _place(root, name)
    check_content(path, what)
    if not _exists(path):
        raise MissingFileError(
            f"The {what} {path} does not exist; check the path in the description."
        )
    return path


def check_content(path: Path, what: str) -> None:
    """Raise if a file is a link of DataLad whose content was not fetched.

    Raises
    ------
    CalcarineError
        Naming the command that fetches it.
    """
    try:
        lost = content_missing(path)
    except (OSError, ValueError, RuntimeError):  # names that are no paths, links in a circle
        return
    if lost is not None:
        raise MissingFileError(f"The {what} {path.name}: {lost}.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _place(root: Path, name: str) -> Path:
    try:
        return root / Path(name).expanduser()
    except (RuntimeError, ValueError):
        return root / name


def stamp(path: Path) -> list[Any]:
    """Return what changes when a file changes: name, size and time."""
    about = path.stat()
    return [path.name, about.st_size, about.st_mtime_ns]


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """A numeric array in a file; `ENDINGS` lists the file formats.

    Attributes
    ----------
    path : Path
        The file.
    about : ArrayInfo
        What is in it.
    """

    path: Path
    about: ArrayInfo

    @classmethod
    def open_all(
        cls, root: Path, names: str | Sequence[str], what: str, kinds: str = "uif"
    ) -> tuple[ArrayFile, ...]:
        """Open the files of a name, a pattern (naturally sorted) or a list (in its order)."""
        return tuple(cls.open(*place, what, kinds) for place in find_all(root, names, what))

    @classmethod
    def open(cls, path: Path, key: str, what: str, kinds: str = "uif") -> ArrayFile:
        """Read what an array is, not its numbers.

        Parameters
        ----------
        path, key
            The file, and the name of the array if it holds several.
        what : str
            Purpose of the file, for errors.
        kinds : str
            Kinds of numbers (of numpy) that it may hold.

        Raises
        ------
        CalcarineError
            If the file is damaged, of an unknown kind or holds no such array.
        """
        check_content(path, what)
        try:
            about = describe_file(path, key, what)
            if about.dtype.kind not in kinds:
                raise ValueError(f"{about.key or 'it'} holds {about.dtype}, no numbers")
        except CalcarineError:
            raise
        except Exception as error:  # damaged files raise errors of many kinds
            raise _damaged(path, what, error) from error
        return cls(path, about)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, with the axes in the order of the file."""
        return self.about.shape

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Affine of a volume: voxel indices to millimetres."""
        return self.about.affine

    def stamps(self) -> list[list[Any]]:
        """What changes when the array changes."""
        return [[*stamp(self.path), self.about.key, self.about.reverse]]

    def with_axes(self, writer: Writer | None) -> ArrayFile:
        """The same array, its axes in the order of numpy or of MATLAB if it is in HDF5."""
        own = self.about
        in_hdf5 = ending(self.path) in (*HDF5, ".mat") and is_hdf5(self.path)
        if writer is None or not in_hdf5:
            return self
        reverse = writer == "matlab"
        shape = own.shape if reverse == own.reverse else own.shape[::-1]
        return replace(self, about=replace(own, writer=writer, reverse=reverse, shape=shape))

    def read(self, part: tuple[slice, ...] | None = None) -> NDArray[Any]:
        """The numbers, all of them or a part.

        Raises
        ------
        CalcarineError
            If they cannot be read.
        """
        chosen = part if part is not None else (slice(None),) * len(self.shape)
        try:
            result = read_file(self.path, self.about, chosen)
            if result.dtype.kind not in "buif" or result.ndim != len(self.shape):
                raise ValueError(f"it gives {result.dtype} of shape {result.shape}")
        except CalcarineError:
            raise
        except Exception as error:  # as in open
            raise _damaged(self.path, "file", error) from error
        return result


@dataclass(frozen=True, eq=False)
class ArrayStack:
    """Files of one trial each, as one array whose first axis is trials.

    Attributes
    ----------
    files : tuple of ArrayFile
        In order of the trials.
    about : ArrayInfo
        What the array as a whole is.
    """

    files: tuple[ArrayFile, ...]
    about: ArrayInfo

    @classmethod
    def of(cls, files: Sequence[ArrayFile]) -> ArrayStack | None:
        """A stack of files that hold one trial each and are of one shape; None if they are not."""
        shapes = {one_trial(file) for file in files}
        if len(shapes) != 1 or None in shapes:
            return None
        (shape,) = shapes
        assert shape is not None
        about = replace(
            files[0].about, shape=(len(files), *shape), trial_axes=(0,), trials_last=False
        )
        return cls(tuple(files), about)

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0].path

    @property
    def shape(self) -> tuple[int, ...]:
        """Trials, and the axes of one."""
        return self.about.shape

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Path of the first file."""
        return self.about.affine

    def stamps(self) -> list[list[Any]]:
        """Those of all files."""
        return [each for file in self.files for each in file.stamps()]

    def read(self, part: tuple[slice, ...] | None = None) -> NDArray[Any]:
        """See `ArrayFile.read`."""
        chosen = part if part is not None else (slice(None),) * len(self.shape)
        rows = self.files[chosen[0]]
        values = [file.read().reshape(self.shape[1:])[chosen[1:]] for file in rows]
        return np.stack(values)


def one_trial(file: ArrayFile) -> tuple[int, ...] | None:
    """Return the shape of the single trial that a file may hold; None if it holds several."""
    shape = file.shape
    if file.about.trial_axes == (0,) and len(shape) == 2:  # maps of CIFTI, arrays of GIFTI
        return shape[1:] if shape[0] == 1 else None
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if file.affine is None and shape[1:] == (1, 1):
        return shape[:1]
    if len(shape) == 2 and 1 in shape:
        return (max(shape),)
    return shape if len(shape) in (1, 3) else None


def find_all(root: Path, names: str | Sequence[str], what: str) -> list[tuple[Path, str]]:
    """Return the files of a name, a pattern (naturally sorted) or a list, with array keys.

    Raises
    ------
    CalcarineError
        If there is none.
    """
    listed = [names] if isinstance(names, str) else list(names)
    return [place for name in listed for place in _matches(root, name, what)]


def _matches(root: Path, name: str, what: str) -> list[tuple[Path, str]]:
    """Return the existing files of one name or pattern, with array keys."""
    keyed = _KEYED.match(name)
    file, key = (keyed["file"], keyed["key"]) if keyed else (name, "")
    if not any(sign in file for sign in "*?[") or _exists(_place(root, file)):
        path = find(root, file, what)
        if path.is_dir():
            raise SettingError(f"The {what} {path} is a folder; give its files, as {file}/*.npy.")
        return [(path, key)]
    place = _place(root, file)
    # Signs in the name of the folder itself are no pattern.
    inside = place.is_relative_to(root) and not Path(file).is_absolute()
    pattern = str(Path(glob.escape(str(root)), file)) if inside else str(place)
    try:
        # By folders first, so that the files of a session stay together.
        paths = sorted(
            map(Path, glob.glob(pattern)), key=lambda p: [natural_key(x) for x in p.parts]
        )
    except (OSError, ValueError, re.error):
        paths = []
    if not paths:
        raise MissingFileError(f"No file is like {place}; check the {what} in the description.")
    return [(path, key) for path in paths]


def _damaged(path: Path, what: str, error: BaseException) -> CalcarineError:
    return DamagedFileError(
        f"The {what} {path} cannot be read ({reason(error)}); it is damaged or of another kind."
    )
