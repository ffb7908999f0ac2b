"""Commands ``calcarine score`` and ``calcarine compare``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine.cli._options import NoPreset, NoSettings, refuse_settings
from calcarine.cli.table import print_table
from calcarine.errors import SettingError

Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        help="Protocol of scoring, or all; repeatable; by default those of the run, or calcarine. "
        "See docs/protocols.md.",
    ),
]


def score(
    run: Annotated[
        Path | None, typer.Argument(help="Output folder of a run, if you score one.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Pictures that were seen: a folder, .pt or .npy.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Reconstructions: a folder, .pt or .npy.")
    ] = None,
    protocol: Protocols = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of the networks' weights; by default that of the run."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download weights that are missing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the scores.")] = None,
    method: Annotated[str | None, typer.Option(help="Name of the method.")] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Subject, as written into the scores; by default that of the run."),
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(help="Name of the test set, for example nsd-982.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Network that reads the pictures: scenes, digits or a folder; by default that of "
            "the run, and none for other pictures."
        ),
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Training pictures, for floors.")] = None,
    blurry: Annotated[
        Path | None, typer.Option(help="Low-level pictures, for the protocol mindeye.")
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="Embeddings or betas (.npz or .pt).")] = None,
    sampled: Annotated[
        int | None, typer.Option(help="Number of draws, in place of closed forms.")
    ] = None,
    n_boot: Annotated[
        int | None,
        typer.Option(
            help="Number of bootstrap resamples; by default that of the run, or 2000.", min=1
        ),
    ] = None,
    n_permutations: Annotated[
        int | None,
        typer.Option(help="Number of shuffles; by default that of the run, or 2000.", min=1),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of resamples, shuffles and draws; by default that of the run, or 0.", min=0
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Pictures that are processed at once; changes no score.", min=1)
    ] = 16,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where networks compute: auto, cpu, cuda, cuda:N or mps; by default as the "
            "setting compute.device of the run, or auto."
        ),
    ] = None,
    preset: NoPreset = None,
    settings: NoSettings = None,
) -> None:
    """Score reconstructions by the field's protocols; a run by its own settings."""
    from calcarine.evaluation.inputs.array_files import read_arrays
    from calcarine.evaluation.protocols.catalogue import list_protocols
    from calcarine.evaluation.results.score_files import write_scores
    from calcarine.evaluation.scoring.score import score_folder
    from calcarine.evaluation.scoring.settings import ScoreSettings
    from calcarine.experiment.scoring import score_run

    refuse_settings(run, preset, settings)
    if sampled is not None and sampled < 1:
        raise SettingError(f"--sampled is {sampled}; choose at least 1, for example 1000.")
    given: dict[str, Any] = {
        "protocols": list_protocols() if protocol == ["all"] else protocol,
        "weights": weights,
        "judge": judge,
        "draws": sampled,
        "n_boot": n_boot,
        "n_permutations": n_permutations,
        "seed": seed,
        "device": device,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"download": download, "batch_size": batch_size}
    options: dict[str, Any] = {
        "truth": truth,
        "images": images,
        "method": method,
        "test_set": test_set,
        "train": train,
        "blurry": blurry,
        "inputs": None if inputs is None else read_arrays(inputs),
    }
    with _lock(run, out):
        result = (
            score_folder(settings=ScoreSettings(**given), **options)
            if run is None
            else score_run(run, settings=given, **options)
        )
        _print_scores(result)
        if out is not None:
            write_scores(out, result, subject)
            print(f"Wrote {out}")


def _lock(run: Path | None, out: Path | None) -> AbstractContextManager[object]:
    """Lock a run, so that no other command changes its pictures while they are scored."""
    from calcarine.files import is_inside
    from calcarine.files.locks import folder_lock

    if run is None or not run.is_dir():
        return nullcontext()
    return folder_lock(run, writes=out is not None and is_inside(out, run))


def compare(
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON files that 'score --out' wrote.")
    ] = None,
    published: Annotated[
        list[str] | None, typer.Option(help="A published system; repeatable.")
    ] = None,
    mix: Annotated[
        bool,
        typer.Option(
            "--mix",
            help="Allow scores of other protocols, pools and test sets; marked in the table.",
        ),
    ] = False,
    list_published: Annotated[
        bool, typer.Option("--list-published", help="List the published systems.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the table.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of resamples and sign flips.", min=0)] = 0,
) -> None:
    """Compare methods and papers, where their scores are comparable."""
    from calcarine.evaluation.comparison.compare import compare_scores
    from calcarine.evaluation.comparison.published import published_systems
    from calcarine.evaluation.comparison.tables import comparison_content, comparison_table

    if list_published:
        print("\n".join(published_systems()))
        return
    comparison = compare_scores(files or [], published or [], mix=mix, seed=seed)
    headings, rows, footnotes = comparison_table(comparison)
    print_table("", headings, rows)
    for line in footnotes:
        print(line)
    if out is not None:
        import json

        from calcarine.files import write_text

        write_text(
            out, json.dumps(comparison_content(comparison), indent=1, allow_nan=False) + "\n"
        )
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
