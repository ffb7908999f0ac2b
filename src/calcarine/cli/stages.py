"""Commands that run one stage of a run, made from the list of stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calcarine.cli._options import (
    DataFolder,
    DatasetName,
    NoPreset,
    NoSettings,
    OptionalRun,
    Out,
    Run,
    Settings,
    Store,
    SubjectName,
    Transductive,
    complete_preset,
    refuse_with_a_run,
    with_flags,
)
from calcarine.cli._print import print_result, print_scores
from calcarine.errors import SettingError

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment

__all__ = ["encode", "pretrain", "stage_command"]

_PRETRAIN_PRESET = "visdec2023"


def stage_command(name: str, title: str) -> Callable[..., None]:
    """Return the command that runs one stage of a run.

    Parameters
    ----------
    name : str
        Name of the stage.
    title : str
        Help of the command.
    """

    def command(path: Run, preset: NoPreset = None, settings: NoSettings = None) -> None:
        refuse_with_a_run(path, preset, settings)
        _run_and_print(path, name)

    command.__name__ = name
    command.__doc__ = title
    return command


def encode(
    path: OptionalRun = None,
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Out = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Your own features, one row for each stimulus (.npy or .npz); repeatable.",
        ),
    ] = None,
    preset: NoPreset = None,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Map which parts of the diffusion model predict which voxels."""
    from calcarine.experiment import load_experiment

    experiment = None
    if path is None:
        if preset is not None:
            raise SettingError(
                "A new run of 'encode' has the preset encoding; leave --preset out, or make the "
                f"run first with 'calcarine init FOLDER --preset {preset}'."
            )
        experiment = load_experiment(
            "encoding",
            None,
            with_flags(settings, store),
            features or (),
            name=dataset,
            data=data,
            subject=subject,
        )
        path = out or Path("runs") / f"encoding-{experiment.dataset.name}"
    else:
        refuse_with_a_run(path, settings, store, preset, dataset, data, subject, out, features)
    _run_and_print(path, "encode", experiment)


def pretrain(
    path: OptionalRun = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Named settings; 'calcarine presets' lists them. By default {_PRETRAIN_PRESET}.",
            autocompletion=complete_preset,
        ),
    ] = None,
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Out = None,
    allow_transductive: Transductive = False,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Vis-Dec, first phase: contrastive masked pre-training on fMRI without labels."""
    from calcarine.experiment import load_experiment

    settings = with_flags(settings, store, allow_transductive)
    experiment = None
    if path is None:
        experiment = load_experiment(
            preset or _PRETRAIN_PRESET, None, settings, name=dataset, data=data, subject=subject
        )
        path = out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}"
    else:
        refuse_with_a_run(path, preset, settings, dataset, data, subject, out)
    _run_and_print(path, "pretrain", experiment)


def _run_and_print(path: Path, name: str, experiment: Experiment | None = None) -> None:
    from calcarine.experiment.progress import ConsoleProgress
    from calcarine.experiment.runner import run_one_stage
    from calcarine.experiment.stage import PHASES
    from calcarine.reporting.retrieval_section import retrieval_lines

    work = run_one_stage(path, name, experiment, ConsoleProgress())
    if name == "report":
        print_result(path)
    elif name == "evaluate":
        print_scores(path)
    elif name == "retrieve":
        for line in retrieval_lines(path):
            print(line)
    elif name == "encode":
        print(f"Maps and figures: {path / 'encoding.html'}")
    elif name in PHASES:
        from calcarine.experiment.visdec_training import weights_folder

        for split in work.splits:
            print(f"Weights: {weights_folder(work, name, split)}")
        later = PHASES[PHASES.index(name) + 1 :]
        following = [phase for phase in later if work.config.visdec.runs(phase)]
        print(f"Next: calcarine {following[0] if following else 'run'} {path}")
