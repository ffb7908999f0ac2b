"""The registry of data sets: finding, loading, checking and preparing them by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import OPTIONAL_FUNCTIONS, DatasetInfo, DatasetReader
from calcarine.errors import CalcarineError, MissingFileError, SettingError, did_you_mean
from calcarine.files.registries import is_redefined, load_entry_points
from calcarine.quality.check_results import CheckResult

__all__ = [
    "ENTRY_POINTS",
    "READERS",
    "check_dataset",
    "dataset_info",
    "find_reader",
    "list_assets",
    "list_datasets",
    "load_dataset",
    "prepare_dataset",
    "recognise_datasets",
    "register_dataset",
    "write_fake_dataset",
]

ENTRY_POINTS = "calcarine.datasets"
"""The entry-point group under which other packages register readers."""

READERS: dict[str, DatasetReader] = {}
"""Readers by the name of their data set, as far as they are loaded; see `find_reader`."""

# Imported when first used: a reader may need libraries that the others do not.
_BUILT_IN = {
    "simulated": "calcarine.simulation.subject",
    "digits69": "calcarine.datasets.small:digits69",
    "miyawaki_vbcca": "calcarine.datasets.small:miyawaki_vbcca",
    "ncc_s2": "calcarine.datasets.small:ncc_s2",
    "haxby_slice": "calcarine.datasets.small:haxby_slice",
    "nsd": "calcarine.datasets.nsd",
    "god": "calcarine.datasets.god",
    "bold5000": "calcarine.datasets.bold5000",
    "hcp": "calcarine.datasets.hcp",
    "own": "calcarine.datasets.own",
    "bids": "calcarine.datasets.bids",
}


def register_dataset(reader: DatasetReader) -> None:
    """Make a data set available by its name, in Python and on the command line.

    A package can register its readers without calling this function, as entry points; see
    `calcarine.files.registries.load_entry_points`.

    Parameters
    ----------
    reader : DatasetReader
        A module, a class or an object with ``INFO`` and ``load``. A class that is defined again,
        as in a cell of a notebook that is run twice, takes the place of the earlier one.

    Raises
    ------
    SettingError
        If the reader lacks something, or another data set has its name.

    See Also
    --------
    calcarine.brain.DatasetReader : What a reader offers.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.brain import DatasetInfo
    >>> from calcarine.datasets import load_dataset, register_dataset
    >>> class Noise:
    ...     INFO = DatasetInfo("noise", "Noise alone", True, ("S1",), "made up", "CC0", False)
    ...
    ...     @staticmethod
    ...     def load(data=None, subject=None, n_voxels=20):
    ...         seen = ca.StimulusSet.from_scenes(seed=0, indices=range(10))
    ...         betas = np.random.default_rng(0).standard_normal((10, n_voxels))
    ...         return ca.BrainDataset.from_arrays(betas, seen.ids, seen, simulated=True)
    >>> register_dataset(Noise)
    >>> load_dataset("noise", n_voxels=5).n_voxels
    5
    """
    name = _check_reader(reader)
    taken = name in _BUILT_IN and READERS.get(name) is not reader
    if taken or (name in READERS and not is_redefined(READERS[name], reader)):
        raise SettingError(
            f"There is already a data set {name}; give the INFO of the new reader another name."
        )
    READERS[name] = reader


def _check_reader(reader: Any) -> str:
    """Return the name of a reader's data set; raise if the reader is incomplete."""
    about = getattr(reader, "INFO", None)
    if not isinstance(about, DatasetInfo):
        raise SettingError(
            f"The reader {_describe(reader)} has no INFO of type "
            "calcarine.brain.DatasetInfo; see calcarine.brain.DatasetReader."
        )
    for function in ("load", *OPTIONAL_FUNCTIONS):
        value = getattr(reader, function, None)
        if not callable(value) and (function == "load" or value is not None):
            raise SettingError(
                f"The reader of data set {about.name} needs {function} to be a function; see "
                "calcarine.brain.DatasetReader."
            )
    return about.name


def _describe(reader: object) -> str:
    return str(getattr(reader, "__name__", None) or type(reader).__name__)


def find_reader(name: str) -> DatasetReader:
    """Return the reader of a data set.

    Parameters
    ----------
    name : str
        A name that `list_datasets` lists.

    Raises
    ------
    SettingError
        If there is no such data set; the message lists those there are.

    Examples
    --------
    >>> from calcarine.datasets import find_reader
    >>> reader = find_reader("god")
    >>> reader.INFO.title
    'Generic Object Decoding (Horikawa & Kamitani 2017)'
    """
    if name not in READERS and name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        loaded: Any = import_module(module)
        READERS[name] = getattr(loaded, attribute) if attribute else loaded
    if name not in READERS:
        _register_entry_points()
    if name not in READERS:
        known = list(dict.fromkeys([*_BUILT_IN, *READERS]))
        raise SettingError(
            f"There is no data set {name}; there are {', '.join(known)}."
            + did_you_mean(name, known)
        )
    return READERS[name]


def _register_entry_points() -> None:
    """Register the readers of other packages; warn about those that cannot be used."""
    for name, reader in load_entry_points(ENTRY_POINTS).items():
        if any(known is reader for known in READERS.values()) or name in _refused:
            continue
        try:
            register_dataset(reader)
        except SettingError as error:
            _refused.add(name)
            warnings.warn(
                f"The entry point {name!r} of {ENTRY_POINTS} is not used: {error}",
                UserWarning,
                stacklevel=3,
            )


_refused: set[str] = set()


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Return what is known about every data set: simulated ones first, registered ones last.

    Examples
    --------
    >>> from calcarine.datasets import list_datasets
    >>> [info.name for info in list_datasets() if info.simulated]
    ['simulated']
    >>> "nsd" in [info.name for info in list_datasets()]
    True
    """
    _register_entry_points()
    names = dict.fromkeys([*_BUILT_IN, *READERS])
    return tuple(find_reader(name).INFO for name in names)


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known about a data set before it is loaded.

    Raises
    ------
    SettingError
        If there is no such data set; the message lists those there are.

    Examples
    --------
    >>> from calcarine.datasets import dataset_info
    >>> info = dataset_info("god")
    >>> info.subjects
    ('S1', 'S2', 'S3', 'S4', 'S5')
    >>> info.needs_folder
    True
    """
    return find_reader(name).INFO


def load_dataset(
    name: str,
    data: str | Path | None = None,
    subject: str | None = None,
    **options: Any,
) -> BrainDataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        A name that `list_datasets` lists.
    data : str or Path, optional
        Folder with the files, or the folder above it. Simulated data needs none.
    subject : str, optional
        By default the first subject.
    **options
        Options of the data set; its ``load`` function describes them.

    Returns
    -------
    BrainDataset

    Raises
    ------
    SettingError
        If the name, the subject or an option is wrong.
    MissingFileError
        If a file is missing.
    DamagedFileError
        If a file is damaged.

    Examples
    --------
    >>> from calcarine.datasets import load_dataset
    >>> load_dataset("simulated", n_train=20, n_test=4).n_trials  # three repeats
    72
    """
    about = dataset_info(name)
    if data is not None and about.simulated and not about.needs_folder:
        raise SettingError(
            f"Data set {name} is simulated and reads no files; leave the folder {data} out, or "
            "name its data set (--dataset)."
        )
    loaded: BrainDataset = _call(name, "load", options, data=data, subject=subject)
    return loaded


def prepare_dataset(
    name: str,
    data: str | Path,
    subject: str | None = None,
    folder: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Any:
    """Mask, scale and store the responses of a subject, so that `load_dataset` is fast.

    Parameters
    ----------
    name, data, subject
        See `load_dataset`.
    folder : str or Path, optional
        Where the prepared subject is stored; by default ``prepared`` in the data folder, where
        `load_dataset` looks for it.
    workers, progress
        See `calcarine.datasets.prepare.preparation.prepare`.
    **options
        Options of the data set; its ``load`` function describes them.

    Returns
    -------
    PreparedSubject
        For a data set that prepares in its own way (``hcp``), an object with ``path`` and
        ``summary``.

    Raises
    ------
    CalcarineError
        If this data set needs no preparation, or a file is wrong.

    Examples
    --------
    >>> from calcarine.datasets import prepare_dataset, write_fake_dataset
    >>> write_fake_dataset("own", "study-prepare-dataset")
    >>> prepared = prepare_dataset("own", "study-prepare-dataset")
    >>> prepared.path.parent.name
    'prepared'
    """
    if callable(getattr(find_reader(name), "prepare", None)):
        given = {"data": data, "subject": subject, "folder": folder}
        return _call(name, "prepare", options, **given, workers=workers, progress=progress)
    from calcarine.datasets.prepare.preparation import prepare

    recording = _call(name, "recording", options, data=data, subject=subject)
    place = Path(data)
    root = place if place.is_dir() else place.parent
    return prepare(recording, folder or root / "prepared", workers, progress)


def write_fake_dataset(
    name: str, folder: str | Path, *, full_size: bool = False, seed: int = 0, **options: Any
) -> None:
    """Write files in the official layout of a data set, with simulated content.

    Parameters
    ----------
    name : str
        A measured data set.
    folder : str or Path
        A new or empty folder, so that no measured file is overwritten.
    full_size : bool
        Write files of the true sizes, for a rehearsal, instead of small ones.
    seed : int
        Seed of the content.
    **options
        Options of the data set; its ``fake`` function describes them.

    Raises
    ------
    SettingError
        If the folder is not empty, or the data set is simulated anyway.

    Examples
    --------
    >>> from calcarine.datasets import load_dataset, write_fake_dataset
    >>> write_fake_dataset("god", "god")  # to try a script before the files are downloaded
    >>> brain = load_dataset("god", data="god")
    >>> brain.subject, sorted(brain.rois)[:3]
    ('S1', ['FFA', 'HVC', 'LOC'])
    """
    root = Path(folder)
    _check_options(name, "fake", options)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SettingError(f"{root} is not empty; give a new folder for simulated files.")
    root.mkdir(parents=True, exist_ok=True)
    (root / "SIMULATED.txt").write_text(
        f"These files have the layout of {dataset_info(name).title}.\nTheir content was made by a "
        "program: nothing in them was measured.\n"
    )
    _call(name, "fake", options, folder=root, full_size=full_size, seed=seed)


def check_dataset(name: str, data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Check which files of a data set are in a folder and whether they are complete.

    Parameters
    ----------
    name, data, subject
        See `load_dataset`.

    Returns
    -------
    list of CheckResult

    Raises
    ------
    SettingError
        If there is no such data set, or it has no files to check.

    Examples
    --------
    >>> from calcarine.datasets import check_dataset, write_fake_dataset
    >>> write_fake_dataset("own", "study-check-dataset")
    >>> sorted({row.status for row in check_dataset("own", "study-check-dataset")})
    ['note', 'ok']
    """
    _check_options(name, "check", {})
    try:
        results: list[CheckResult] = _call(name, "check", {}, data=data, subject=subject)
    except CalcarineError as error:
        return [CheckResult("files", "missing", "nothing that can be checked", advice=str(error))]
    return results


def recognise_datasets(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the data sets whose files a folder holds.

    Parameters
    ----------
    folder : str or Path
        A folder, or the folder above it.

    Raises
    ------
    MissingFileError
        If the folder does not exist.

    Examples
    --------
    >>> from calcarine.datasets import recognise_datasets, write_fake_dataset
    >>> write_fake_dataset("god", "downloads")
    >>> recognise_datasets("downloads")
    ('god',)
    """
    root = Path(folder)
    if not root.exists():
        raise MissingFileError(f"{root} does not exist; give the folder of a data set.")
    return tuple(
        about.name
        for about in list_datasets()
        if about.files
        and any(
            any(place.glob(pattern))
            for place in (root, root / about.name)
            for pattern in about.files[0].split("|")
        )
    )


def list_assets(name: str, subjects: Sequence[str] | None = None, **options: Any) -> list[Asset]:
    """Return the files to download for some subjects of a data set.

    Parameters
    ----------
    name : str
        A measured data set.
    subjects : sequence of str, optional
        By default the first subject.
    **options
        Options of the data set; its ``assets`` function describes them.

    Examples
    --------
    >>> from calcarine.datasets import list_assets
    >>> files = list_assets("nsd", ["subj01"], sessions=2, images=False, captions=False)
    >>> [path.split("/")[-1] for file in files if "betas_session" in (path := file.path)]
    ['betas_session01.hdf5', 'betas_session02.hdf5']
    """
    listed: list[Asset] = _call(name, "assets", options, subjects=subjects)
    return listed


def _call(name: str, function: str, options: dict[str, Any], **arguments: Any) -> Any:
    _check_options(name, function, options)
    try:
        return getattr(find_reader(name), function)(**arguments, **options)
    except CalcarineError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingError(f"An option of data set {name} is wrong: {error}.") from error


_NO_OPTIONS = {
    "load": ("data", "subject"),
    "assets": ("subjects",),
    "fake": ("folder", "full_size", "seed"),
    "check": ("data", "subject"),
    "recording": ("data", "subject"),
    "prepare": ("data", "subject", "folder", "workers", "progress"),
}
"""Arguments of the functions of a reader that are not options."""


def _check_options(name: str, function: str, options: dict[str, Any]) -> None:
    about = dataset_info(name)
    called = getattr(find_reader(name), function, None)
    if called is None:
        why = "it is simulated" if about.simulated else "its files are small and read as they are"
        what = {"recording": "prepare", "assets": "download"}.get(function, function)
        raise SettingError(f"Data set {name} has nothing to {what}: {why}.")
    parameters = inspect.signature(called).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    known = [key for key in parameters if key not in _NO_OPTIONS[function]]
    for key in options:
        if key not in known:
            raise SettingError(
                f"Data set {name} has no option {key}; it has {', '.join(known) or 'none'}."
                + did_you_mean(key, known)
            )
