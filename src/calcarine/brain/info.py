"""What is known about a data set before it is loaded, and what a reader of one offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from calcarine.brain.assets import UsageTerms
from calcarine.errors import SettingError, did_you_mean

if TYPE_CHECKING:
    from calcarine.brain.dataset import BrainDataset

__all__ = ["OPTIONAL_FUNCTIONS", "DatasetInfo", "DatasetReader", "pick_subject"]

OPTIONAL_FUNCTIONS = ("assets", "check", "fake", "prepare", "recording")
"""What a `DatasetReader` may offer besides ``INFO`` and ``load``."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is loaded.

    Attributes
    ----------
    name, title : str
        Short and long name.
    simulated : bool
        Whether the responses are simulated.
    subjects : tuple of str
        Names of the subjects; the first is the default. Empty if any name is allowed.
    source, licence : str
        Where the data comes from, and what you may do with it.
    needs_folder : bool
        Whether `load` needs a folder of files.
    files : tuple of str
        Names of the files in the folder. A folder is recognised by the first of them; ``|``
        separates alternatives.
    access : str
        How to get the files if they cannot be downloaded.
    terms : UsageTerms, optional
        The conditions that a download asks you to accept.
    options : tuple of (str, str)
        Names of the options of ``load``, each with a short description.

    Examples
    --------
    >>> from calcarine.datasets import dataset_info
    >>> info = dataset_info("nsd")
    >>> info.title
    'Natural Scenes Dataset (Allen et al. 2022)'
    >>> info.subjects[:2], info.needs_folder
    (('subj01', 'subj02'), True)
    """

    name: str
    title: str
    simulated: bool
    subjects: tuple[str, ...]
    source: str
    licence: str
    needs_folder: bool
    files: tuple[str, ...] = ()
    access: str = ""
    terms: UsageTerms | None = None
    options: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class DatasetReader(Protocol):
    """What a reader of a data set offers: a module, a class or any object with these attributes.

    Register one with `calcarine.datasets.register_dataset`, or under the entry-point group
    ``calcarine.datasets`` of your package.

    Attributes
    ----------
    INFO : DatasetInfo
        What is known before loading.
    load : callable
        ``load(data, subject, **options)`` returns a `BrainDataset`. `data` is the folder that the
        user gives, or None. Options are keyword arguments of the signature, with defaults.

    Notes
    -----
    A reader may also offer these functions:

    ``check(data, subject)``
        Returns a list of `calcarine.quality.check_results.CheckResult`.
    ``assets(subjects, **options)``
        Returns the list of `calcarine.brain.assets.Asset` to download; empty if nothing can be
        downloaded, and ``INFO.access`` then says how to get the files.
    ``fake(folder, *, full_size, seed, **options)``
        Writes files in the official layout with simulated content.
    ``recording(data, subject, **options)``
        Returns a `calcarine.datasets.prepare.preparation.Recording`, for data whose responses are
        prepared on disk.
    ``prepare(data, subject, folder, workers, progress, **options)``
        Instead of `recording`, for what is not responses to stimuli: returns an object with
        ``path`` and a one-line ``summary``.
    """

    INFO: DatasetInfo

    @property
    def load(self) -> Callable[..., BrainDataset]:
        """Function that loads a subject."""
        ...


def pick_subject(info: DatasetInfo, subject: str | None) -> str:
    """Return the subject if the data set has it, and the first subject for None.

    Parameters
    ----------
    info : DatasetInfo
        If it lists no subjects, any name is allowed.
    subject : str, optional
        A name.

    Raises
    ------
    SettingError
        If the data set has no such subject.
    """
    if not info.subjects:
        return subject or ""
    if subject is None:
        return info.subjects[0]
    if subject not in info.subjects:
        raise SettingError(
            f"Data set {info.name} has no subject {subject}; it has {', '.join(info.subjects)}."
            + did_you_mean(subject, info.subjects)
        )
    return subject
