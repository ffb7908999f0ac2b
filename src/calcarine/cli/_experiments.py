"""The experiment that options of the command line describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import SettingError

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment

__all__ = ["experiment_and_folder"]


def experiment_and_folder(
    purpose: str,
    file: Path | None,
    preset: str | None,
    out: Path | None,
    settings: Sequence[str],
    **dataset: Any,
) -> tuple[Experiment, Path]:
    """Return an experiment and its output folder.

    Parameters
    ----------
    purpose : str
        Verb of the command, for its error.
    file : Path, optional
        YAML file, or the folder of a run to resume.
    preset, out, settings, **dataset
        Options of the command; see `calcarine.experiment.load_experiment`.

    Returns
    -------
    experiment : Experiment
    out : Path

    Raises
    ------
    CalcarineError
        If neither a file nor a preset is given, or a setting is wrong.
    """
    from calcarine.experiment import load_experiment

    if file is None and preset is None:
        raise SettingError(
            f"Nothing to {purpose}: give --preset takagi or the path of a YAML file."
        )
    if file is not None and file.is_dir():
        file, out = file / "experiment.yaml", out or file
    experiment = load_experiment(preset, file, settings, **dataset)
    return experiment, out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}"
