"""Your own subject, described by a short YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo
from calcarine.datasets._data_files import find_file
from calcarine.datasets.described.check import check_subject
from calcarine.datasets.described.described_subject import DescribedSubject, open_subject
from calcarine.datasets.described.description import FILE, Description, read_description
from calcarine.datasets.own._fake import Betas, write_own
from calcarine.datasets.prepare.preparation import Recording
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["INFO", "assets", "check", "fake", "load", "recording"]

INFO = DatasetInfo(
    name="own",
    title="A subject of your own, described by a YAML file",
    simulated=False,
    subjects=(),
    source="your own recordings (docs/own-data.md shows how to describe them)",
    licence="yours",
    needs_folder=True,
    files=(FILE,),
    access="These are your own files; describe them in calcarine.yaml as docs/own-data.md shows.",
)


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    size: int | None = None,
    prepared: str | Path | None = None,
) -> BrainDataset:
    """Load a subject that a YAML file describes.

    Parameters
    ----------
    data : str or Path, optional
        The YAML file, or a folder with ``SUBJECT.yaml`` or ``calcarine.yaml``.
        Its paths are from its own folder.
    subject : str, optional
        Must be the file's; left out, it is the file's.
    size : int, optional
        Crop pictures centrally and bring them to this side in pixels.
    prepared : str or Path, optional
        Folder of prepared subjects; ``prepared`` next to the YAML file if left
        out.

    Returns
    -------
    BrainDataset
        Responses in the order of the table of trials, z-scored within
        sessions by training trials unless the file says otherwise with
        ``zscore``; one split, or a split for each fold; ROIs as the file
        names them.

    Raises
    ------
    CalcarineError
        With one sentence for the first thing that is missing or does not fit.

    Examples
    --------
    >>> from calcarine.datasets import own
    >>> own.fake("study")
    >>> brain = own.load("study")
    >>> brain.n_trials, sorted(brain.rois)
    (90, ['early', 'ventral'])
    """
    return _open(data, subject).load(size, prepared)


def recording(data: str | Path, subject: str | None = None) -> Recording:
    """Return what to prepare; see `load`.

    Examples
    --------
    >>> from calcarine.datasets import own
    >>> own.fake("study-recording")
    >>> recording = own.recording("study-recording")
    >>> len(recording.trials), recording.zscore
    (90, 'session')
    """
    return _open(data, subject).recording


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Check the description and its files, without preparing anything.

    Examples
    --------
    >>> from calcarine.datasets import own
    >>> own.fake("study-check")
    >>> for row in own.check("study-check")[:3]:
    ...     print(row.what, row.status)
    description ok
    trials ok
    stimuli ok
    """
    try:
        description, path = describe(data, subject)
    except CalcarineError as error:
        missing = Path(data).is_dir() and not any(Path(data).glob("*.yaml"))
        advice = "See the example in docs/own-data.md."
        return [
            CheckResult("description", "missing" if missing else "wrong", str(error), "", advice)
        ]
    return check_subject(INFO, description, path.parent)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """Return nothing: the files are yours.

    Examples
    --------
    >>> from calcarine.datasets import own
    >>> own.assets()
    []
    """
    return []


def fake(
    folder: str | Path, *, full_size: bool = False, seed: int = 0, betas: Betas = "npy"
) -> None:
    """Write a described subject with a simulated linear signal.

    Parameters
    ----------
    folder : str or Path
        Folder to write to.
    full_size : bool
        Ten sessions of 300 trials and 20,000 voxels, not three of 30 and 130.
    seed : int
        Seed of the content.
    betas : Betas
        ``"npy"``: (trial, voxel) a session; ``"nii"``: a 4-D image a session;
        ``"h5"``: one array (trial, x, y, z).

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.datasets import own
    >>> own.fake("study-fake")
    >>> [path.name for path in Path("study-fake").glob("*.yaml")]
    ['calcarine.yaml']
    """
    write_own(Path(folder), full_size, seed, betas)


def describe(data: str | Path | None, subject: str | None) -> tuple[Description, Path]:
    """Return the description in a folder or file, and the path of its file."""
    place = Path(data) if data is not None else None
    if place is not None and place.is_file():
        path = place
    elif place is not None and subject and (place / f"{Path(subject).name}.yaml").is_file():
        path = place / f"{Path(subject).name}.yaml"
    else:
        path = find_file(INFO, data, FILE)
    return read_description(path).with_subject(subject), path.resolve()


def _open(data: str | Path | None, subject: str | None) -> DescribedSubject:
    description, path = describe(data, subject)
    return open_subject(INFO, description, path.parent)
