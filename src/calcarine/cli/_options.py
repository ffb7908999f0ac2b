"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine.errors import SettingError

__all__ = [
    "DaskAddress",
    "DataFolder",
    "DatasetArgument",
    "DatasetName",
    "DatasetOptions",
    "ExperimentFile",
    "JobOptions",
    "NoPreset",
    "NoSettings",
    "OptionalRun",
    "Out",
    "PresetName",
    "Run",
    "Settings",
    "SlurmJobs",
    "Store",
    "SubjectName",
    "Transductive",
    "Workers",
    "complete_preset",
    "complete_setting",
    "options_from",
    "refuse_settings",
    "refuse_with_a_run",
    "with_flags",
]


def complete_preset(incomplete: str) -> list[str]:
    """Return the presets that begin with a text, for the shell."""
    from calcarine.experiment.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Return the keys of settings that begin with a text, for the shell."""
    from calcarine.experiment.settings_table import all_settings

    return [setting.key for setting in all_settings() if setting.key.startswith(incomplete)]


def _complete_assignment(incomplete: str) -> list[str]:
    return [f"{key}=" for key in complete_setting(incomplete) if "[]" not in key]


Run = Annotated[Path, typer.Argument(help="Output folder of a run.", metavar="RUN")]
OptionalRun = Annotated[
    Path | None, typer.Argument(help="Output folder of a run to resume.", metavar="RUN")
]
ExperimentFile = Annotated[
    Path | None,
    typer.Argument(help="YAML file of an experiment, or the folder of a run to resume."),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Named settings; 'calcarine presets' lists them.",
        autocompletion=complete_preset,
    ),
]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="Data set; 'calcarine datasets list' shows them.")
]
DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the data set; 'calcarine datasets list' shows them."
    ),
]
DataFolder = Annotated[Path | None, typer.Option("--data", help="Folder of the data set's files.")]
SubjectName = Annotated[
    str | None, typer.Option("--subject", help="Subject; by default the first.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Output folder; the same folder resumes.")]
# Options that stages do not take, known to them only to say what to do instead.
NoSettings = Annotated[list[str] | None, typer.Option("--set", hidden=True)]
NoPreset = Annotated[str | None, typer.Option("--preset", hidden=True)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting; repeatable. 'calcarine settings' lists them.",
        autocompletion=_complete_assignment,
    ),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Option of the data set; repeatable. 'calcarine datasets info NAME' lists them.",
    ),
]
Transductive = Annotated[
    bool,
    typer.Option(
        "--allow-transductive",
        help="Allow test responses in the pool of Vis-Dec; all results then say so.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes of this machine that share features, decoders, pictures, scores and "
        "encoding models; with several GPUs, each has its own. The same command again, here or on "
        "another machine, takes part too.",
    ),
]
DaskAddress = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Scheduler of a Dask cluster whose workers share them too, as tcp://node1:8786; or "
        "slurm, for --workers jobs of SLURM by dask-jobqueue.",
    ),
]
SlurmJobs = Annotated[
    int,
    typer.Option(
        "--slurm",
        min=0,
        metavar="N",
        help="Submit N jobs to SLURM that share the work, and end; the same command again adds "
        "more.",
    ),
]
JobOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--job",
        metavar="KEY=VALUE",
        help="Parameter of these jobs, as submitit names it: timeout_min (1440 by default), "
        "mem_gb, cpus_per_task, gpus_per_node, slurm_partition; repeatable.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Folder of features that runs share (compute.store); by default the environment "
        "variable CALCARINE_STORE, or without it the run's own.",
    ),
]


def with_flags(
    settings: list[str] | None, store: Path | None = None, allow_transductive: bool = False
) -> list[str]:
    """Return the settings, with those that have a flag of their own."""
    flags = [] if store is None else [f"compute.store={json.dumps(str(store))}"]
    flags += ["visdec.allow_transductive=true"] if allow_transductive else []
    return [*(settings or ()), *flags]


def refuse_with_a_run(path: Path, *options: object) -> None:
    """Refuse options of a new run next to the folder of an old one."""
    if any(options):
        raise SettingError(
            f"A run's folder has its own settings (in {path / 'experiment.yaml'}), so the other "
            f"options are not used; change settings with 'calcarine run {path} --set KEY=VALUE', "
            "or make a new run with 'calcarine init FOLDER --preset NAME'."
        )


def refuse_settings(run: Path | None, *options: object) -> None:
    """Refuse settings of a command that takes none, with or without the folder of a run."""
    if run is not None:
        refuse_with_a_run(run, *options)
    elif any(options):
        raise SettingError(
            "Only runs have settings, so without the folder of a run --set and --preset are not "
            "used; leave them out."
        )


def options_from(settings: list[str] | None) -> dict[str, Any]:
    """Return ``KEY=VALUE`` texts as a dictionary, with values read as YAML."""
    import yaml

    options: dict[str, Any] = {}
    for text in settings or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise SettingError(f"'{text}' is not an option; write key=value, as sessions=37.")
        try:
            options[key] = yaml.safe_load(value)
        except Exception as error:  # yaml has errors of many kinds for tags and dates
            raise SettingError(f"The value in '{text}' cannot be read as YAML.") from error
    return options
