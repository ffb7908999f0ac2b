"""Command ``calcarine bottleneck``."""

from __future__ import annotations

from typing import Annotated

import typer

from calcarine.cli._options import NoPreset, NoSettings, Run, refuse_with_a_run
from calcarine.cli.table import print_table
from calcarine.errors import SettingError


def bottleneck(
    path: Run,
    ranks: Annotated[
        str | None, typer.Option(help="Numbers of dimensions of z and of c, for example 0,1,2,4,8.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="z, c or z_c; repeatable. By default z_c.")
    ] = None,
    preset: NoPreset = None,
    settings: NoSettings = None,
) -> None:
    """Decode a run again through fewer dimensions, to see how many its scores need."""
    from calcarine.devices import tf32_products
    from calcarine.evaluation.networks.judge_names import judges_of
    from calcarine.experiment.bottleneck_curve import RANKS, bottleneck_curve
    from calcarine.experiment.progress import ConsoleProgress
    from calcarine.experiment.run_directory import opened_run
    from calcarine.experiment.workspace import Workspace
    from calcarine.reporting import build_report
    from calcarine.reporting.bottleneck_figure import HEADINGS, curve_rows, read_curve

    refuse_with_a_run(path, preset, settings)
    chosen = RANKS if ranks is None else _numbers(ranks)
    with opened_run(path) as run, tf32_products(run.experiment.compute.tf32):
        bottleneck_curve(Workspace(run, ConsoleProgress()), chosen, method or ("z_c",))
        curve = read_curve(path)
        judges = judges_of(curve)
        print_table(f"judge: {', '.join(judges)}" if judges else "", HEADINGS, curve_rows(curve))
        if (path / "report.html").exists():
            print(f"Report: {build_report(path)}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"--ranks {text} is not a list of numbers; write them as 0,1,2,4,8."
        ) from None
