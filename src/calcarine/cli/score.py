"""Commands ``calcarine score`` and ``calcarine compare``: thin; they parse, call and print."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine.cli.table import print_table
from calcarine.errors import CalcarineError

Protocols = Annotated[
    list[str] | None,
    typer.Option("--protocol", help="May be given often: see docs/protocols.md; or 'all'."),
]


def score(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run, if it is one.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Pictures seen: folder, .pt, .npy.")] = None,
    images: Annotated[Path | None, typer.Option(help="Reconstructions, likewise.")] = None,
    protocol: Protocols = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of networks' weights.")] = None,
    download: Annotated[bool, typer.Option(help="Fetch weights that are missing.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the scores, JSON.")] = None,
    method: Annotated[str | None, typer.Option(help="Name of the method.")] = None,
    subject: Annotated[str | None, typer.Option(help="Whose brain it was.")] = None,
    test_set: Annotated[str | None, typer.Option(help="Its name, such as nsd-982.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="scenes, digits, or a judge's folder; the run's own, else scenes."),
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Training pictures, for floors.")] = None,
    blurry: Annotated[Path | None, typer.Option(help="Low-level pictures for mindeye.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="Embeddings or betas, .npz or .pt.")] = None,
    sampled: Annotated[int | None, typer.Option(help="Draws instead of closed forms.")] = None,
    n_boot: Annotated[int, typer.Option(help="Bootstrap resamples.", min=1)] = 2000,
    n_permutations: Annotated[int, typer.Option(help="Shuffles.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Of resamples, shuffles and draws.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Changes no score.", min=1)] = 16,
) -> None:
    """Score a folder of reconstructions by the field's protocols."""
    from calcarine.evaluation.inputs.array_files import read_arrays
    from calcarine.evaluation.protocols import PROTOCOLS
    from calcarine.evaluation.results.score_files import write_scores
    from calcarine.evaluation.scoring.score import score_folder
    from calcarine.evaluation.scoring.settings import ScoreSettings

    if sampled is not None and sampled < 1:
        raise CalcarineError(f"--sampled is {sampled}: choose at least 1, as 1000.")
    names = protocol or ["calcarine"]
    with _nobody_changes(run, out):
        own_judge, samples = _as_in_the_run(run)
        settings = ScoreSettings(
            protocols=sorted(PROTOCOLS) if names == ["all"] else names,
            weights=weights,
            download=download,
            judge=judge or own_judge,
            draws=sampled,
            n_boot=n_boot,
            n_permutations=n_permutations,
            seed=seed,
            batch_size=batch_size,
        )
        result = score_folder(
            truth,
            images,
            run=run,
            method=method,
            test_set=test_set,
            train=train,
            blurry=blurry,
            inputs=None if inputs is None else read_arrays(inputs),
            samples=samples,
            settings=settings,
        )
        _print_scores(result)
        if out is not None:
            write_scores(out, result, subject)
            print(f"Wrote {out}")


def _nobody_changes(run: Path | None, out: Path | None) -> AbstractContextManager[object]:
    """Let no other command change a run's pictures while they are scored."""
    from calcarine.files import is_inside
    from calcarine.files.locks import folder_lock

    if run is None or not run.is_dir():
        return nullcontext()
    return folder_lock(run, writes=out is not None and is_inside(out, run))


def _as_in_the_run(run: Path | None) -> tuple[str | None, dict[str, int]]:
    """Judge of a run's pictures, and how many samples of z_c the run's own scores are of."""
    if run is None or not (run / "experiment.yaml").is_file():
        return "scenes", {}
    from calcarine.experiment.run_directory import RunDirectory

    found = RunDirectory(run)
    # Candidates beyond the samples are only there to be chosen from.
    samples = {"z_c": found.experiment.generation.samples}
    return found.manifest().get("judge", "scenes"), samples


def compare(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of 'score --out'.")] = None,
    published: Annotated[
        list[str] | None, typer.Option(help="A published system; may be given often.")
    ] = None,
    mix: Annotated[bool, typer.Option(help="Other protocols, pools, test sets; marked.")] = False,
    list_published: Annotated[bool, typer.Option(help="Show the published systems.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the table, JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Of resamples and sign flips.", min=0)] = 0,
) -> None:
    """Compare methods and papers, if their scores may stand in one table."""
    from calcarine.evaluation.comparison.compare import compare_scores
    from calcarine.evaluation.comparison.published import published_systems
    from calcarine.evaluation.comparison.tables import comparison_content, comparison_table

    if list_published:
        print("\n".join(published_systems()))
        return
    found = compare_scores(files or [], published or [], mix=mix, seed=seed)
    headings, rows, footnotes = comparison_table(found)
    print_table("", headings, rows)
    for line in footnotes:
        print(line)
    if out is not None:
        import json

        from calcarine.files import write_text

        write_text(out, json.dumps(comparison_content(found), indent=1, allow_nan=False) + "\n")
        print(f"Wrote {out}")


def _print_scores(result: Any) -> None:
    from calcarine.evaluation.results.tables import HEADINGS, tables

    for title, rows, closing in tables(result.records):
        print_table(title, HEADINGS, rows)
        if closing:
            print(closing)
        print()
    for note in result.notes:
        print(f"Note: {note}")
