"""Commands of Vis-Dec: the three phases one by one, and the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calcarine.cli.datasets import Data, Subject
from calcarine.cli.one_stage import stage
from calcarine.errors import CalcarineError

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be given often."),
]
Transductive = Annotated[
    bool,
    typer.Option(
        "--allow-transductive",
        help="Allow test responses in the pool of Vis-Dec, which all results then say.",
    ),
]
Run = Annotated[Path, typer.Argument(help="Output folder of a run.")]
Name = Annotated[str | None, typer.Option("--dataset", help="Data set; see 'datasets list'.")]
Preset = Annotated[str, typer.Option(help="Named settings: visdec2023 or visdec-mini.")]


def with_flags(settings: list[str] | None, allow_transductive: bool) -> list[str]:
    """Settings, with those that have a flag of their own."""
    told = ["visdec.allow_transductive=true"] if allow_transductive else []
    return [*(settings or ()), *told]


def refuse_beside_a_run(*options: object) -> None:
    """Options of a new run mean nothing beside the folder of one."""
    if any(options):
        raise CalcarineError(
            "A run's folder has its own settings; leave the other options out, or leave the "
            "folder out for a new run."
        )


def pretrain(
    path: Annotated[Path | None, typer.Argument(help="Run's folder to continue.")] = None,
    preset: Preset = "visdec2023",
    dataset: Name = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; the same one continues.")] = None,
    allow_transductive: Transductive = False,
    settings: Settings = None,
) -> None:
    """Vis-Dec, first phase: contrastive masked pre-training on fMRI without labels."""
    from calcarine.experiment import load_experiment

    settings = with_flags(settings, allow_transductive)
    experiment = None
    if path is None:
        experiment = load_experiment(
            preset, None, settings, name=dataset, data=data, subject=subject
        )
        path = out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}"
    else:
        refuse_beside_a_run(settings, dataset, data, subject, out)
    _tell_weights(stage(path, "pretrain", experiment), "pretrain")
    print(f"Next: calcarine guide {path}")


def guide(path: Run) -> None:
    """Vis-Dec, second phase: pictures guide the fMRI encoder."""
    _tell_weights(stage(path, "guide"), "guide")
    print(f"Next: calcarine finetune {path}")


def finetune(path: Run) -> None:
    """Vis-Dec, third phase: the diffusion model learns to listen to the fMRI encoder."""
    _tell_weights(stage(path, "finetune"), "finetune")
    print(f"Next: calcarine run {path}")


def _tell_weights(work: Workspace, phase: str) -> None:
    from calcarine.experiment.visdec_training import training_folder

    for split in work.splits:
        folder = training_folder(work, phase, split)
        encoder = folder / "encoder"  # what visdec.pretrain.start takes
        print(f"Weights: {encoder if encoder.exists() else folder}")


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
    product: Annotated[
        bool, typer.Option("--product", help="Every combination of the values of --vary is a row.")
    ] = False,
    max_rows: Annotated[
        int, typer.Option(min=1, help="More rows than these are refused, not trained.")
    ] = 32,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these rows, by name; may be given often.")
    ] = None,
    allow_transductive: Transductive = False,
    settings: Settings = None,
) -> None:
    """Vis-Dec with parts left out or changed: a table over seeds, with intervals."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.ablation import run_ablation
    from calcarine.experiment.ablation_rows import paper_rows, product_rows, varied_rows
    from calcarine.experiment.progress import RichProgress

    if product and not vary:
        raise CalcarineError("--product combines values; give them by --vary KEY=V1;V2.")
    rows = (product_rows if product else varied_rows)(vary) if vary else paper_rows()
    table = run_ablation(
        rows,
        out,
        preset=preset,
        settings=with_flags(settings, allow_transductive),
        seeds=seeds,
        only=only,
        max_rows=max_rows,
        progress=RichProgress(),
        name=dataset,
        data=data,
        subject=subject,
    )
    print_table(table.title, table.headings, table.cells)
    print(f"Table: {out / 'ablation.csv'}, {out / 'ablation.json'}")
