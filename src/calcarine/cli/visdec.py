"""Commands of Vis-Dec: the three phases one by one, and the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli.datasets import Data, Subject
from calcarine.errors import CalcarineError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be given often."),
]
Run = Annotated[Path, typer.Argument(help="Output folder of a run.")]
Name = Annotated[str | None, typer.Option("--dataset", help="Data set; see 'datasets list'.")]
Preset = Annotated[str, typer.Option(help="Named settings: visdec2023 or visdec-mini.")]


def pretrain(
    path: Annotated[Path | None, typer.Argument(help="Run's folder to continue.")] = None,
    preset: Preset = "visdec2023",
    dataset: Name = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; the same one continues.")] = None,
    settings: Settings = None,
) -> None:
    """Vis-Dec, first phase: contrastive masked pre-training on fMRI without labels."""
    from calcarine.cli.main import _stage
    from calcarine.experiment import load_experiment
    from calcarine.experiment.run_directory import RunDirectory

    if path is None:
        experiment = load_experiment(
            preset, None, settings or (), name=dataset, data=data, subject=subject
        )
        path = out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}"
        RunDirectory(path, experiment)
    elif settings or dataset or data or subject or out:
        raise CalcarineError("A run's folder has its own settings; give --out for a new run.")
    _stage(path, "pretrain")
    print(f"Weights: {path / 'networks' / 'pretrain'}; next: calcarine guide {path}")


def guide(path: Run) -> None:
    """Vis-Dec, second phase: pictures guide the fMRI encoder."""
    from calcarine.cli.main import _stage

    _stage(path, "guide")
    print(f"Weights: {path / 'networks' / 'guide'}; next: calcarine adapt {path}")


def adapt(path: Run) -> None:
    """Vis-Dec, third phase: the diffusion model learns to listen to the fMRI encoder."""
    from calcarine.cli.main import _stage

    _stage(path, "adapt")
    print(f"Weights: {path / 'networks' / 'adapt'}; next: calcarine run {path}")


def ablate(
    preset: Preset = "visdec-mini",
    dataset: Name = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path, typer.Option(help="Output folder; the same one continues.")] = Path(
        "runs/ablation"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every row.")] = 3,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1;V2", help="Rows of your own: values of a setting, one at a time."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these rows, by name; may be given often.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Vis-Dec with parts left out or changed: a table over seeds, with intervals."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.ablation import paper_rows, run_ablation, varied_rows
    from calcarine.experiment.progress import RichProgress

    rows = varied_rows(vary) if vary else paper_rows()
    table = run_ablation(
        rows,
        out,
        preset=preset,
        settings=settings or (),
        seeds=seeds,
        only=only,
        progress=RichProgress(),
        name=dataset,
        data=data,
        subject=subject,
    )
    print_table(table.title, table.headings, table.cells)
    print(f"Table: {out / 'ablation.csv'}")
