"""Command ``calcarine ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._options import (
    DataFolder,
    DatasetName,
    PresetName,
    Settings,
    Store,
    SubjectName,
    Transductive,
    with_flags,
)
from calcarine.errors import SettingError

__all__ = ["ablate"]


def ablate(
    preset: PresetName = "visdec-mini",
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Annotated[Path, typer.Option(help="Output folder; the same folder resumes.")] = Path(
        "runs/ablation"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of every row.")] = 3,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1;V2",
            help="Make rows of your own: values of a setting, one at a time; repeatable.",
        ),
    ] = None,
    product: Annotated[
        bool, typer.Option("--product", help="Make a row of every combination of --vary.")
    ] = False,
    max_rows: Annotated[int, typer.Option(min=1, help="Refuse to train more rows than this.")] = 32,
    only: Annotated[
        list[str] | None, typer.Option(help="Train only this row, by name; repeatable.")
    ] = None,
    allow_transductive: Transductive = False,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Train Vis-Dec with parts left out or changed: a table over seeds, with intervals."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.ablation import run_ablation
    from calcarine.experiment.ablation_rows import paper_rows, product_rows, varied_rows
    from calcarine.experiment.progress import ConsoleProgress

    if product and not vary:
        raise SettingError("--product combines values; give them with --vary KEY=V1;V2.")
    preset, settings = preset or "visdec-mini", with_flags(settings, store, allow_transductive)
    if vary:
        rows = (product_rows if product else varied_rows)(vary)
    else:
        rows = paper_rows(preset, settings)
    table = run_ablation(
        rows,
        out,
        preset=preset,
        settings=settings,
        seeds=seeds,
        only=only,
        max_rows=max_rows,
        progress=ConsoleProgress(),
        name=dataset,
        data=data,
        subject=subject,
    )
    print_table(table.title, table.headings, table.cells)
    print(f"Table: {out / 'ablation.csv'}, {out / 'ablation.json'}")
