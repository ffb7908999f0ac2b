"""Commands ``calcarine datasets ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine.cli._options import (
    DataFolder,
    DatasetArgument,
    DatasetOptions,
    SubjectName,
    options_from,
)
from calcarine.errors import MissingFileError

_ROOM_FOR_COLUMNS = 110
"""Width of the terminal below which a check is printed line by line, so that no path is cut."""

datasets_app = typer.Typer(
    help="Find, download, check and prepare data sets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@datasets_app.command("list")
def list_datasets() -> None:
    """Show the data sets that calcarine can read."""
    from calcarine import datasets

    for info in datasets.list_datasets():
        kind = "simulated" if info.simulated else "measured"
        print(f"{info.name:16} {kind:10} {info.title}")


@datasets_app.command()
def download(
    name: DatasetArgument,
    subject: Annotated[
        list[str] | None, typer.Option(help="Subject; repeatable. By default the first.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder for the files; by default data/NAME.")
    ] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms that are shown.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the list and download nothing.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Files that are downloaded at the same time.", min=1, max=32)
    ] = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also check the content of files that exist.")
    ] = False,
    settings: DatasetOptions = None,
) -> None:
    """Download the files that one subject needs, after showing sizes and terms."""
    from calcarine.datasets import registry
    from calcarine.download.command import download_dataset

    about = registry.dataset_info(name)
    offers = hasattr(registry.find_reader(name), "assets")
    wanted = registry.list_assets(name, subject, **options_from(settings)) if offers else []
    folder = to or Path("data") / name
    download_dataset(about, wanted, folder, accept_terms, dry_run, workers, verify)


@datasets_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder with the files of a data set.")],
    name: Annotated[
        str | None, typer.Option(help="Data set, if the files do not show which one it is.")
    ] = None,
    subject: SubjectName = None,
) -> None:
    """Check which files of a data set a folder has, which are missing, and where to get them."""
    from calcarine.datasets import registry
    from calcarine.quality.check_results import verdict

    names = (name,) if name else registry.recognise_datasets(folder)
    if not names:
        known = ", ".join(info.name for info in registry.list_datasets() if info.needs_folder)
        raise MissingFileError(
            f"{folder} does not hold the files of a known data set; name the data set it should "
            f"be with --name ({known})."
        )
    failed = False
    for each in names:
        results = registry.check_dataset(each, folder, subject)
        _print_results(registry.dataset_info(each).title, results)
        print(verdict(results))
        failed |= any(result.status in ("missing", "wrong") for result in results)
    if failed:
        raise typer.Exit(1)


def _print_results(title: str, results: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "cyan", "missing": "yellow", "wrong": "red"}
    console = Console()
    # In a file or a pipe nothing should be cut or wrapped to 80 columns.
    width = console.width if console.is_terminal else 160
    narrow = width < _ROOM_FOR_COLUMNS
    headings = ("", title) if narrow else ("what", "", "found", "expected", "what to do")
    table = Table(title=None if narrow else title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in results:
        mark = Text(row.status, colours[row.status])
        # As texts: a path may hold what rich would take for its markup.
        cells = [Text(part) for part in (row.what, row.found, row.expected, row.advice)]
        if narrow:
            said = ": ".join(part for part in (row.what, row.found) if part)
            said += f" (expected: {row.expected})" if row.expected else ""
            table.add_row(mark, Text("\n".join(part for part in (said, row.advice) if part)))
        else:
            table.add_row(cells[0], mark, *cells[1:])
    Console(width=width).print(table)


@datasets_app.command()
def fake(
    name: DatasetArgument,
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Write files of the true sizes, for a rehearsal.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the content.", min=0)] = 0,
    settings: DatasetOptions = None,
) -> None:
    """Write files in a data set's layout with simulated content."""
    from calcarine.datasets import registry

    registry.write_fake_dataset(
        name, folder, full_size=full_size, seed=seed, **options_from(settings)
    )
    print(f"Wrote simulated files in the layout of {name} to {folder}.")
    print(f"Try: calcarine datasets check {folder}")


@datasets_app.command()
def prepare(
    name: DatasetArgument,
    data: Annotated[Path, typer.Option(help="Folder of the data set's files.")],
    subject: SubjectName = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder; by default prepared (of hcp: npz) in DATA."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Sessions that are processed at the same time.", min=1)
    ] = 2,
    settings: DatasetOptions = None,
) -> None:
    """Mask, scale and store a subject's responses; the same command resumes."""
    from calcarine.datasets import registry

    def shown(done: int, total: int) -> None:
        print(f"\r{done} of {total} {unit}", end="", flush=True)

    unit = "subjects" if name == "hcp" else "sessions"
    prepared = registry.prepare_dataset(
        name, data, subject, out, workers, shown, **options_from(settings)
    )
    if not hasattr(prepared, "trials"):
        print(f"\n{prepared.summary}\nPrepared: {prepared.path}")
        return
    voxels = ", ".join(f"{roi} {int(mask.sum())}" for roi, mask in prepared.rois.items())
    print(f"\n{len(prepared.trials)} trials, {len(prepared.voxels)} voxels ({voxels})")
    print(f"Prepared: {prepared.path}")


@datasets_app.command("info")
def dataset_info(
    name: DatasetArgument,
    data: DataFolder = None,
    subject: SubjectName = None,
    on: Annotated[
        str, typer.Option(help="Stimuli with repeats that measure the signal: train or test.")
    ] = "train",
    settings: DatasetOptions = None,
) -> None:
    """Show what a data set holds and how much signal it has."""
    from calcarine import datasets
    from calcarine.quality.signal import describe_signal

    about = datasets.dataset_info(name)
    if about.needs_folder and data is None:
        print(f"{about.title}\nsource       {about.source}\nlicence      {about.licence}")
        if about.terms is not None:
            print(f"terms        {about.terms.title}: {about.terms.summary} ({about.terms.url})")
        if about.access:
            print(f"how          {about.access}")
        for number, (option, text) in enumerate(about.options):
            print(f"{'' if number else 'options':12} {option}: {text}")
        if about.options:
            print(f"{'':12} In a run: --set dataset.options.NAME=VALUE.")
        print(f"files        {', '.join(about.files)}\nAdd --data DIR to see what is in them.")
        return
    dataset = datasets.load_dataset(name, data, subject, **options_from(settings))
    for key, value in dataset.describe().items():
        print(f"{key:12} {_shown(key, value)}")
    print(f"\n{describe_signal(dataset, on=on)}")


def _shown(key: str, value: Any) -> str:
    if key == "repeats":
        return ", ".join(f"{stimuli} stimuli shown {times} x" for times, stimuli in value.items())
    if key == "splits":
        first = next(iter(value.values()))
        sizes = f"{first['train']} training and {first['test']} test stimuli"
        return sizes if len(value) == 1 else f"{len(value)}, each about {sizes}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
