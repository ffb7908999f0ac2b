"""The dialogue of ``calcarine datasets download``: sizes, terms, consent, progress."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import filesize

from calcarine.brain.assets import Asset, UsageTerms
from calcarine.brain.info import DatasetInfo
from calcarine.download.download_record import RECORD_NAME, DownloadRecord
from calcarine.download.parallel import fetch_all
from calcarine.download.planned_files import PlannedFile, find_damaged, plan_files, request_sizes
from calcarine.download.progress import PrintedProgress
from calcarine.errors import CalcarineError, SettingError
from calcarine.files.locks import folder_lock

__all__ = ["access_instructions", "download_dataset"]


def download_dataset(
    info: DatasetInfo,
    assets: Sequence[Asset],
    folder: str | Path,
    accept_terms: bool,
    dry_run: bool,
    workers: int,
    verify: bool = False,
) -> None:
    """Show what will be downloaded, ask for consent, and download it.

    Parameters
    ----------
    info, assets
        The data set, and the files to download.
    folder : str or Path
        Folder of the files.
    accept_terms : bool
        Whether consent was given beforehand; otherwise you are asked on a terminal.
    dry_run : bool
        Show the list and the terms only.
    workers : int
        Number of parallel downloads.
    verify : bool
        Read existing files and compare their hashes.

    Raises
    ------
    CalcarineError
        If the terms are not accepted, or something could not be downloaded.

    Examples
    --------
    >>> from calcarine.datasets import dataset_info, list_assets
    >>> from calcarine.download import download_dataset
    >>> info, assets = dataset_info("god"), list_assets("god", ["S1"])
    >>> download_dataset(info, assets, "god", False, dry_run=True, workers=2)  # doctest: +SKIP
    """
    folder = Path(folder)
    if not assets:
        print(access_instructions(info))
        return
    wanted = _distinct(info, assets)
    record = DownloadRecord(folder, info.name)
    answers = request_sizes(wanted, record)
    rows = plan_files(wanted, folder, record, answers)
    damaged: set[str] = set()
    if verify:
        damaged = _verify(rows, folder, record)
        rows = plan_files(wanted, folder, record, answers, damaged)
    _show(info, rows, folder)
    todo = [row for row in rows if row.is_open]
    if dry_run or todo:
        _show_terms(info)
    if dry_run:
        return
    if todo:
        _check_room(todo, folder)
        how = _consent(info, record, accept_terms)
        with folder_lock(folder):
            # Another process may have worked here while the terms were read.
            record = DownloadRecord(folder, info.name)
            rows = plan_files(wanted, folder, record, answers, damaged)
            if how:
                record.accept(_terms(info), how)
            _fetch(rows, folder, record, workers)
    _close(info, rows, folder)


def access_instructions(info: DatasetInfo) -> str:
    """Describe how to get a data set that cannot be downloaded."""
    if info.access:
        return f"{info.title}: calcarine downloads nothing of it. {info.access}"
    if not info.needs_folder:
        return f"{info.title}: made by calcarine itself; there is nothing to download."
    return (
        f"{info.title}: calcarine downloads nothing of it. Get {', '.join(info.files)} from "
        f"{info.source}; licence: {info.licence}."
    )


def _distinct(info: DatasetInfo, assets: Sequence[Asset]) -> list[Asset]:
    """Return each file once: subjects may share files."""
    results: dict[str, Asset] = {}
    for asset in assets:
        if results.setdefault(asset.path, asset) != asset:
            raise CalcarineError(f"Data set {info.name} lists two different files {asset.path}.")
    return list(results.values())


def _terms(info: DatasetInfo) -> UsageTerms:
    return info.terms or UsageTerms(f"Licence of {info.title}", info.source, info.licence)


def _show(info: DatasetInfo, rows: Sequence[PlannedFile], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    print(info.title)
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "size", "state", ""):
        table.add_column(heading, overflow="fold", justify="right" if heading == "size" else "left")
    for row in rows:
        have = (
            f"partial, {filesize.decimal(row.have)} are there"
            if row.state == "partial"
            else row.state
        )
        table.add_row(row.asset.path, _size(row), have, row.note)
    console = Console()
    # In a file or a pipe nothing should be cut or wrapped to 80 columns.
    Console(width=None if console.is_terminal else 160, markup=False).print(table)
    print(_sum(rows, folder))


def _size(row: PlannedFile) -> str:
    if row.size is None:
        return "?"
    return filesize.decimal(row.size) if row.sure else f"~{filesize.decimal(row.size)}"


def _sum(rows: Sequence[PlannedFile], folder: Path) -> str:
    files = "1 file" if len(rows) == 1 else f"{len(rows)} files"
    known = [row for row in rows if row.size is not None]
    about = "" if all(row.sure for row in known) else "~"
    sizes = [about + filesize.decimal(sum(row.size or 0 for row in known))] if known else []
    if len(known) < len(rows):
        sizes.append(f"{len(rows) - len(known)} of unknown size")
    need, free = sum(row.need for row in rows), _free(folder)
    more = (
        f"{about}{filesize.decimal(need)} to download"
        if need or len(known) == len(rows)
        else "to download"
    )
    return (
        f"{files}, {' and '.join(sizes)}; "
        f"{filesize.decimal(sum(row.have for row in rows))} are there; {more} to {folder}, "
        f"where {filesize.decimal(free)} are free{', which is too little' * (need > free)}."
    )


def _free(folder: Path) -> int:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _check_room(todo: Sequence[PlannedFile], folder: Path) -> None:
    need, free = sum(row.need for row in todo if row.sure), _free(folder)
    if need > free:
        raise CalcarineError(
            f"{folder} has {filesize.decimal(free)} free and the download needs "
            f"{filesize.decimal(need)} more; make room or give a folder on another disk with --to."
        )


def _show_terms(info: DatasetInfo) -> None:
    terms = _terms(info)
    print(f"\nTerms: {terms.title}\n{terms.summary}\nWhole text: {terms.url}")
    if info.access:
        print(f"Access: {info.access}")
    print()


def _consent(info: DatasetInfo, record: DownloadRecord, accept_terms: bool) -> str:
    """Return how consent was given; empty if it is on record already."""
    before = record.accepted(_terms(info))
    if before:
        print(f"These terms were accepted on {before} ({record.path}).")
        return ""
    if accept_terms:
        return "--accept-terms"
    if not is_terminal():
        raise SettingError(
            f"The terms of {info.name} must be accepted before anything is downloaded: read them "
            "and give the same command with --accept-terms."
        )
    try:
        answer = input("Type yes to accept these terms and download: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        raise CalcarineError("The terms were not accepted, so nothing was downloaded.")
    return "typed yes"


def is_terminal() -> bool:
    """Return whether a person at a terminal can be asked."""
    return sys.stdin.isatty()


def _verify(rows: Sequence[PlannedFile], folder: Path, record: DownloadRecord) -> set[str]:
    damaged, checked, unknown = find_damaged(rows, folder, record, PrintedProgress())
    more = f"; of {unknown} no hash is known" if unknown else ""
    print(f"Read {checked} files: {checked - len(damaged)} are whole, {len(damaged)} not{more}.")
    return damaged


def _fetch(rows: Sequence[PlannedFile], folder: Path, record: DownloadRecord, workers: int) -> None:
    results = {
        row.asset.path: {"url": row.asset.url, "size": row.have, "sha256": None}
        for row in rows
        if row.state == "there"
        and row.asset.members is None
        and record.entry(row.asset.path, row.asset.url) is None
    }
    if results:
        record.put_all(results, "found")
    todo = [row for row in rows if row.is_open]
    sizes = {row.asset.path: row.size for row in todo}
    have = sum(row.have for row in todo)
    with PrintedProgress(sizes, have) as watcher:
        failures = fetch_all(todo, folder, record, watcher, workers)
    if len(failures) == 1:
        raise CalcarineError(f"1 of {len(todo)} files failed: {next(iter(failures.values()))}")
    if failures:
        raise CalcarineError(
            f"{len(failures)} of {len(todo)} files failed, for the reasons above: "
            f"{', '.join(failures)}; the same command resumes with what is missing."
        )


def _close(info: DatasetInfo, rows: Sequence[PlannedFile], folder: Path) -> None:
    blocked = [row.asset.path for row in rows if row.state == "in the way"]
    if blocked:
        raise CalcarineError(
            f"Other files in {folder} have the names of {', '.join(blocked)}; move them away and "
            "give the same command again."
        )
    what = "The file is" if len(rows) == 1 else f"All {len(rows)} files are"
    print(f"{what} in {folder}; {RECORD_NAME} there says where they are from.")
    print(f"Try: calcarine datasets check {folder}")
