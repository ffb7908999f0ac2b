"""A subject in BIDS derivatives, as fMRIPrep writes them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo
from calcarine.datasets._data_files import find_file
from calcarine.datasets.bids._fake import write_bids
from calcarine.datasets.described.bids_layout import subjects_in
from calcarine.datasets.described.check import check_subject
from calcarine.datasets.described.described_subject import DescribedSubject, open_subject
from calcarine.datasets.described.description import FILE, BidsPart, Description, validated
from calcarine.datasets.own import describe
from calcarine.datasets.prepare.preparation import Recording
from calcarine.errors import CalcarineError, SettingError
from calcarine.quality.check_results import CheckResult

__all__ = ["INFO", "assets", "check", "fake", "load", "recording"]

_ABOUT = "dataset_description.json"

INFO = DatasetInfo(
    name="bids",
    title="A subject of your own in BIDS derivatives (fMRIPrep)",
    simulated=False,
    subjects=(),
    source="your own recordings (docs/own-data.md shows what is needed)",
    licence="yours",
    needs_folder=True,
    files=(_ABOUT,),
    access="These are your own files; docs/own-data.md shows which are needed.",
)


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    size: int | None = None,
    prepared: str | Path | None = None,
    images: str | None = None,
    captions: str | None = None,
    test: str | float | dict[str, Any] = "repeated",
    mask: str | None = None,
    rois: dict[str, Any] | None = None,
    zscore: str = "session",
    raw: str | None = None,
    task: str | None = None,
    space: str | None = None,
    stimulus: str | None = None,
    nuisance: Sequence[str] = (),
    ignore: Sequence[str] = (),
    confounds: Sequence[str] = ("motion", "cosine"),
    method: str = "lsa",
    hrf: str = "glover",
    high_pass: float = 1 / 128,
    delay: float = 5.0,
    session: str | None = None,
    duration: float | None = None,
    late_trials: str = "refuse",
    runs_without_bold: str = "refuse",
) -> BrainDataset:
    """Load a subject from preprocessed runs and their events.

    Each run is modelled alone (see
    `calcarine.datasets.prepare.events.trial_betas`); responses are in percent
    signal change, one per trial.

    Parameters
    ----------
    data : str or Path, optional
        Folder of derivatives, or a YAML file with the key ``bids`` (or a
        folder with such a ``calcarine.yaml``).  A YAML file says everything,
        and the options below ``prepared`` are then not used.
    subject : str, optional
        Label without ``sub-``; left out, the only one.
    size : int, optional
        Crop pictures centrally and bring them to this side in pixels.
    prepared : str or Path, optional
        Folder of prepared subjects; ``prepared`` in the folder if left out.
    images, captions, test, mask, rois, zscore
        As in a description; paths are from the folder of derivatives.
    raw : str, optional
        Folder of the raw data set, where the events are.
    task, space : str, optional
        Required if there are several; ``"native"`` for names without a space.
    stimulus : str, optional
        Column of the events that names the picture; ``stimulus``,
        ``stim_file`` and others are known.
    nuisance, ignore : sequence of str
        Trial types that are modelled and are no trials, and those that are
        left out.
    confounds : sequence of str
        ``motion``, ``motion24``, ``cosine``, ``wm_csf``, ``global_signal``,
        ``acompcor``, or columns.
    method, hrf, high_pass, delay
        See `trial_betas`.
    session : str, optional
        What is z-scored together: ``"ses"`` or ``"run"``; by default the
        session where there are several, else the run.
    duration : float, optional
        Seconds of trials whose duration in the events is ``n/a``.
    late_trials : str
        ``"drop"`` leaves out trials that begin after the end of their run,
        as where a scan was stopped.
    runs_without_bold : str
        ``"drop"`` leaves out runs that have events and no preprocessed time
        series.

    Raises
    ------
    CalcarineError
        With one sentence for the first thing that is missing or does not fit.

    Examples
    --------
    >>> from calcarine.datasets import bids
    >>> bids.fake("bids")
    >>> brain = bids.load("bids")
    >>> brain.n_trials, brain.n_voxels
    (64, 164)
    """
    given = {key: value for key, value in locals().items() if key not in _OWN_ARGUMENTS}
    return _open(data, subject, given).load(size, prepared)


def recording(data: str | Path, subject: str | None = None, **options: Any) -> Recording:
    """Return what to prepare; see `load` for the options, except ``size`` and ``prepared``.

    Examples
    --------
    >>> from calcarine.datasets import bids
    >>> bids.fake("bids-recording")
    >>> recording = bids.recording("bids-recording")
    >>> len(recording.trials), recording.zscore
    (64, 'session')
    """
    bound = _RECORDING.bind(data, subject, **options)
    bound.apply_defaults()
    return _open(data, subject, bound.kwargs).recording


_OWN_ARGUMENTS = ("data", "subject", "size", "prepared")
_LOAD = inspect.signature(load)
_RECORDING = _LOAD.replace(
    parameters=[
        each for name, each in _LOAD.parameters.items() if name not in ("size", "prepared")
    ],
    return_annotation="Recording",
)
# The registry reads the options from the signature.
recording.__signature__ = _RECORDING  # type: ignore[attr-defined]


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Check the derivatives and the description, without preparing anything.

    Examples
    --------
    >>> from calcarine.datasets import bids
    >>> bids.fake("bids-check")
    >>> for row in bids.check("bids-check")[:3]:
    ...     print(row.what, row.status)
    description ok
    trials ok
    stimuli ok
    """
    try:
        description, root = _describe(data, subject, {})
    except CalcarineError as error:
        there = (Path(data) / _ABOUT).exists()
        advice = "See docs/own-data.md."
        return [CheckResult("derivatives", "wrong" if there else "missing", str(error), "", advice)]
    return check_subject(INFO, description, root)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """Return nothing: the files are yours.

    Examples
    --------
    >>> from calcarine.datasets import bids
    >>> bids.assets()
    []
    """
    return []


def fake(folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
    """Write raw events and derivatives with a simulated BOLD signal.

    Parameters
    ----------
    folder : str or Path
        Where to; ``derivatives/fmriprep`` in it has the derivatives.
    full_size : bool
        Write ten sessions of ten runs and 20,000 voxels instead of two of two and 160.
    seed : int
        Seed of the content.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.datasets import bids
    >>> bids.fake("bids-fake")
    >>> [path.name for path in Path("bids-fake").glob("sub-*")]
    ['sub-01']
    """
    write_bids(Path(folder), full_size, seed)


def _open(data: str | Path | None, subject: str | None, given: dict[str, Any]) -> DescribedSubject:
    description, root = _describe(data, subject, given)
    return open_subject(INFO, description, root)


def _describe(
    data: str | Path | None, subject: str | None, given: dict[str, Any]
) -> tuple[Description, Path]:
    """Return the description from a YAML file or from options, and the folder of its paths."""
    if data is not None and (Path(data).is_file() or (Path(data) / FILE).is_file()):
        description, path = describe(data, subject)
        if description.bids is None:
            raise SettingError(f"{path} has no key bids; load it as the data set own.")
        return description, path.parent
    root = find_file(INFO, data, _ABOUT).resolve().parent
    known = subjects_in(root)
    if subject is None and len(known) != 1:
        raise SettingError(
            f"{root} has {len(known)} subjects ({', '.join(known[:12]) or 'none'}); say which."
        )
    if given.get("images") is None:
        raise SettingError(
            f"Say where the pictures are with the option images, or describe {root} in a "
            f"{FILE} with the key bids (docs/own-data.md)."
        )
    options = {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()}
    part = {key: value for key, value in options.items() if key in BidsPart.model_fields}
    rest = {key: value for key, value in options.items() if key not in part and value is not None}
    tree = {
        "name": "bids",
        "subject": (subject or known[0]).removeprefix("sub-"),
        "bids": {"derivatives": ".", **part},
        **rest,
    }
    tree.setdefault("test", "repeated")
    return validated(tree, "An option of data set bids"), root
