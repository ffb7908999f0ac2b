"""What the module of a data set offers, and helpers for finding and reading its files.

A data set is one module (or package) of ``calcarine.datasets`` with

``INFO``
    a `DatasetInfo`;
``load(data, subject, **options)``
    gives a `BrainDataset`;

and, if its files are measured,

``fake(folder, *, full_size, seed, **options)``
    writes files in the official layout with simulated content;
``check(data, subject)``
    gives a list of `Finding`;
``assets(subjects, **options)``
    gives the list of `Asset` that a download needs, empty where nothing can
    be downloaded (``INFO.access`` then says how one gets the files);
``recording(data, subject, **options)``
    only where responses are prepared on disk: gives a `Recording`;
``prepare(data, subject, folder, workers, progress, **options)``
    instead, where what is prepared are no responses to stimuli: gives an
    object with ``path`` and a ``summary`` in one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from calcarine.brain.assets import Terms
from calcarine.errors import SettingError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is loaded.

    Attributes
    ----------
    name, title
        Short and long name.
    simulated
        Whether the responses were made by a program.
    subjects
        Their names; the first is the default.
    source, licence
        Where the data is from and what may be done with it.
    needs_folder
        Whether files must be given.
    files
        Names of these files in the folder; the first tells the data set, by
        any of its forms if there are several with ``|`` between.
    access
        How one gets what cannot be downloaded, in plain sentences.
    terms
        What a download asks the user to accept.
    options
        Names of options of ``load``, and what each does in a few words.
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
    terms: Terms | None = None
    options: tuple[tuple[str, str], ...] = ()


def pick_subject(info: DatasetInfo, subject: str | None) -> str:
    """Return the named subject, or the first; any name where none are listed."""
    if not info.subjects:
        return subject or ""
    if subject is None:
        return info.subjects[0]
    if subject not in info.subjects:
        raise SettingError(
            f"Data set {info.name} has no subject {subject}; it has {', '.join(info.subjects)}."
        )
    return subject
