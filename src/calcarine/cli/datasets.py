"""Commands ``calcarine datasets ...``: thin; they parse, call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine.errors import CalcarineError

_ROOM_FOR_COLUMNS = 110
"""Letters a line below which a check is told line by line, so that no path is cut up."""

datasets_app = typer.Typer(help="Data sets.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Name of the data set; see 'datasets list'.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set's files.")]
Subject = Annotated[str | None, typer.Option(help="Which person; the first by default.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the data set; may be given often."),
]


def options_from(settings: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a dictionary, values read as YAML."""
    import yaml

    found: dict[str, Any] = {}
    for text in settings or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise CalcarineError(f"'{text}' is no option; write key=value, as sessions=37.")
        try:
            found[key] = yaml.safe_load(value)
        except Exception as error:  # yaml has errors of many kinds for tags and dates
            raise CalcarineError(f"The value in '{text}' cannot be read.") from error
    return found


@datasets_app.command("list")
def list_datasets() -> None:
    """Show the data sets that calcarine can read."""
    from calcarine import datasets

    for info in datasets.list_datasets():
        kind = "simulated" if info.simulated else "measured"
        print(f"{info.name:16} {kind:10} {info.title}")


@datasets_app.command()
def download(
    name: Name,
    subject: Annotated[
        list[str] | None, typer.Option(help="Which person; may be given often; the first.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; data/NAME by default.")] = None,
    accept_terms: Annotated[bool, typer.Option(help="Accept the terms that are shown.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the list, download nothing.")] = False,
    workers: Annotated[int, typer.Option(help="Files at the same time.", min=1, max=32)] = 4,
    verify: Annotated[bool, typer.Option(help="Read files that are there and check them.")] = False,
    settings: Options = None,
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
    folder: Annotated[Path, typer.Argument(help="Folder with a data set's files.")],
    name: Annotated[str | None, typer.Option(help="Which data set, if it cannot be told.")] = None,
    subject: Subject = None,
) -> None:
    """Say what of a data set is in a folder, what is missing, and where it comes from."""
    from calcarine.datasets import registry
    from calcarine.quality.findings import verdict

    names = (name,) if name else registry.recognise_datasets(folder)
    if not names:
        known = ", ".join(info.name for info in registry.list_datasets() if info.needs_folder)
        raise CalcarineError(
            f"{folder} holds no data set that can be told by its files; say which one it should "
            f"be with --name ({known})."
        )
    failed = False
    for each in names:
        findings = registry.check_dataset(each, folder, subject)
        _print_findings(registry.dataset_info(each).title, findings)
        print(verdict(findings))
        failed |= any(finding.status in ("missing", "wrong") for finding in findings)
    if failed:
        raise typer.Exit(1)


def _print_findings(title: str, findings: list[Any]) -> None:
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
    for row in findings:
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
    name: Name,
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    full_size: Annotated[bool, typer.Option(help="True sizes, for a rehearsal.")] = False,
    seed: Annotated[int, typer.Option(help="Of the content.", min=0)] = 0,
    settings: Options = None,
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
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder of the data set's files.")],
    subject: Subject = None,
    out: Annotated[Path | None, typer.Option(help="Where to; 'prepared' in the folder.")] = None,
    workers: Annotated[int, typer.Option(help="Sessions at the same time.", min=1)] = 2,
    settings: Options = None,
) -> None:
    """Mask, scale and store a subject's responses; the same command continues."""
    from calcarine.datasets import registry

    def shown(done: int, total: int) -> None:
        print(f"\r{done} of {total} {unit}", end="", flush=True)

    unit = "subjects" if name == "hcp" else "sessions"
    found = registry.prepare_dataset(
        name, data, subject, out, workers, shown, **options_from(settings)
    )
    if not hasattr(found, "trials"):
        print(f"\n{found.summary}\nPrepared: {found.path}")
        return
    voxels = ", ".join(f"{roi} {int(mask.sum())}" for roi, mask in found.rois.items())
    print(f"\n{len(found.trials)} trials, {len(found.voxels)} voxels ({voxels})")
    print(f"Prepared: {found.path}")


@datasets_app.command("info")
def dataset_info(
    name: Name,
    data: Data = None,
    subject: Subject = None,
    on: Annotated[
        str, typer.Option(help="Whose repeats tell the signal: train, or by name test.")
    ] = "train",
    settings: Options = None,
) -> None:
    """Say what a data set holds and how much signal there is in it."""
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
        print(f"files        {', '.join(about.files)}\nWith --data DIR it says what is in them.")
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
