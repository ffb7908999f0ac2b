"""Command ``calcarine seeds``: thin; it parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli.datasets import Data, Subject
from calcarine.cli.visdec import Name, Settings
from calcarine.errors import CalcarineError


def seeds(
    file: Annotated[Path | None, typer.Argument(help="Experiment in YAML, if it is one.")] = None,
    preset: Annotated[str | None, typer.Option(help="Named settings, such as takagi.")] = None,
    dataset: Name = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path, typer.Option(help="Output folder; the same one continues.")] = Path(
        "runs/seeds"
    ),
    n: Annotated[int, typer.Option("--seeds", min=2, help="How many seeds of the noise.")] = 3,
    settings: Settings = None,
) -> None:
    """Run an experiment with several seeds of the noise, and show how scores spread."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.progress import RichProgress
    from calcarine.experiment.seeds import HEADINGS, run_seeds

    if file is None and preset is None:
        raise CalcarineError("Say what to run: --preset takagi, or the path of a YAML file.")
    if file is not None and file.is_dir():
        file = file / "experiment.yaml"
    table = run_seeds(
        out,
        preset=preset,
        file=file,
        settings=settings or (),
        seeds=n,
        progress=RichProgress(),
        name=dataset,
        data=data,
        subject=subject,
    )
    print_table(table.title, HEADINGS, table.cells)
    print(f"Table: {out / 'seeds.csv'}, {out / 'seeds.json'}")
