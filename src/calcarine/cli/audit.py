"""Command ``calcarine audit``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calcarine.cli._options import NoPreset, NoSettings, refuse_settings
from calcarine.cli.table import print_table
from calcarine.errors import SettingError
from calcarine.files import is_inside

if TYPE_CHECKING:
    from calcarine.audit import Audit, AuditInputs


def audit(
    run: Annotated[
        Path | None, typer.Argument(help="Output folder of a run, if you audit one.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Reconstructions: a folder, or a stack (.pt, .npy).")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Pictures that were seen: a folder, or a stack.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training pictures: a folder, or a stack.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a row for each trial: stimulus, and optionally role, session, fold, "
            "picture, pretrain."
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="Responses of all trials (.csv, .npz, .npy)."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Predicted features: .npz or .pt with predictions, targets and "
            "train_targets, or .npy with predictions alone."
        ),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="All samples, where --images holds the chosen ones.")
    ] = None,
    other: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures of another method; repeatable."),
    ] = None,
    numbers: Annotated[
        str | None, typer.Option(help='Reported scores, for example "PixCorr .32, SSIM .43".')
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method of the run to audit; z_c by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML page to write; a JSON file of the same name goes with it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of shuffles and resamples.", min=0)] = 0,
    selftest: Annotated[
        int,
        typer.Option(
            help="Instead, plant known mistakes in made-up data with so many seeds, and count "
            "which are detected.",
            min=0,
        ),
    ] = 0,
    preset: NoPreset = None,
    settings: NoSettings = None,
) -> None:
    """Check whether a reported decoding score is real; exit code 1 if a check failed."""
    refuse_settings(run, preset, settings)
    if selftest:
        _selftest(selftest)
        return
    folder_only = {
        "--truth": truth,
        "--train": train,
        "--ids": ids,
        "--responses": responses,
        "--predictions": predictions,
        "--samples": samples,
        "--other": other or None,
    }
    if run is not None:
        given = [name for name, value in {"--images": images, **folder_only}.items() if value]
        if given:
            raise SettingError(f"A run has its own pictures and data; leave out {given[0]}.")
        _audit_run(run, method, numbers, seed, out)
    else:
        if images is None or truth is None:
            raise SettingError(
                "Nothing to audit: give the folder of a run, or --images DIR and --truth DIR."
            )
        if method is not None:
            raise SettingError("--method chooses among the methods of a run; give a run.")
        from calcarine.audit.folders import inputs_from_folders

        inputs = inputs_from_folders(
            images,
            truth,
            train=train,
            ids=ids,
            responses=responses,
            predictions=predictions,
            samples=samples,
            others=other or (),
            numbers=numbers,
            seed=seed,
        )
        _audit(inputs, out or Path("audit.html"))


def _audit_run(
    run: Path, method: str | None, numbers: str | None, seed: int, out: Path | None
) -> None:
    from calcarine.experiment.run_audit_inputs import opened_inputs

    # The page that the report points to is of the leading method.
    name = "audit" if method is None else f"audit-{re.sub('[^a-z0-9]+', '-', method.lower())}"
    page = out or run / f"{name}.html"
    with opened_inputs(run, method, numbers, seed, writes=is_inside(page, run)) as inputs:
        _audit(inputs, page)


def _audit(inputs: AuditInputs, out: Path) -> None:
    from calcarine.audit import audit as run_checks
    from calcarine.reporting.audit_page import build_audit_page

    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingError(f"--out {out} is the page to write; end its name with .html.")
    result = run_checks(inputs)
    page, data = build_audit_page(result, out)
    _print_verdicts(result)
    print(f"\n{result.sentence}\nPage: {page}\nJSON: {data}")
    if result.failed:
        raise typer.Exit(1)


def _print_verdicts(result: Audit) -> None:
    from calcarine.audit import CHECKS

    rows = [(CHECKS[name].title, f.verdict, f.sentence) for name, f in result.findings.items()]
    print_table("", ("check", "verdict", "finding"), rows)


def _selftest(count: int) -> None:
    import sys

    from calcarine.audit.selftest import HEADINGS, detect

    detections = detect(range(count), progress=lambda name: print(f"  {name}", file=sys.stderr))
    print_table(f"Made-up data, seeds: {count}", HEADINGS, [each.row() for each in detections])
    if not all(each.right for each in detections):
        raise typer.Exit(1)
