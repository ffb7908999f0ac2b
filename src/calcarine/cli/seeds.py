"""Command ``calcarine seeds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._options import (
    DataFolder,
    DatasetName,
    ExperimentFile,
    PresetName,
    Settings,
    Store,
    SubjectName,
    with_flags,
)
from calcarine.errors import SettingError


def seeds(
    file: ExperimentFile = None,
    preset: PresetName = None,
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Annotated[Path, typer.Option(help="Output folder; the same folder resumes.")] = Path(
        "runs/seeds"
    ),
    n: Annotated[int, typer.Option("--seeds", min=2, help="Number of seeds of the noise.")] = 3,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Run an experiment with several seeds of the noise, and show how scores spread."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.progress import ConsoleProgress
    from calcarine.experiment.seeds import HEADINGS, run_seeds

    if file is None and preset is None:
        raise SettingError("Nothing to run: give --preset takagi or the path of a YAML file.")
    if file is not None and file.is_dir():
        file = file / "experiment.yaml"
    table = run_seeds(
        out,
        preset=preset,
        file=file,
        settings=with_flags(settings, store),
        seeds=n,
        progress=ConsoleProgress(),
        name=dataset,
        data=data,
        subject=subject,
    )
    print_table(table.title, HEADINGS, table.cells)
    print(f"Table: {out / 'seeds.csv'}, {out / 'seeds.json'}")
