"""Pieces of a stage's work that write files, done by one process or shared by several."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calcarine.experiment.progress import Advance, Progress
from calcarine.files import parse_json

if TYPE_CHECKING:
    from calcarine.experiment.stage_files import WrittenFiles
    from calcarine.experiment.workspace import Workspace
    from calcarine.files.work_queue import WorkQueue

__all__ = ["Piece", "SharedPieces", "do_pieces", "folder_piece"]


@dataclass(frozen=True)
class Piece:
    """Files that are written together.

    Attributes
    ----------
    size : int
        Units of progress, all of which `make` counts.
    files : callable
        Returns the files of the piece that should exist, or do, once it is made.
    kept : callable
        Returns whether an interrupted command has made the piece.
    make : callable
        Writes the files; takes a counter of units.
    """

    size: int
    files: Callable[[], list[Path]]
    kept: Callable[[WrittenFiles], bool]
    make: Callable[[Advance], None]


def folder_piece(
    folder: Path,
    write: Callable[[Advance], None],
    size: int = 1,
    besides: Sequence[Path] = (),
) -> Piece:
    """Return a piece whose files are those that `write` leaves below a folder, emptied before.

    Parameters
    ----------
    folder : Path
    write : callable
        Takes a counter of units.
    size : int
        Units of progress.
    besides : sequence of Path
        Files below the folder that are not of this piece.
    """

    def make(advance: Advance) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        write(advance)

    def files() -> list[Path]:
        return sorted(file for file in folder.rglob("*") if file.is_file() and file not in besides)

    return Piece(size, files, lambda made: made.holds_below(folder), make)


def do_pieces(
    progress: Progress,
    label: str,
    queue: WorkQueue,
    sizes: Sequence[int],
    do: Callable[[int, Advance], str],
) -> None:
    """Do the pieces that no other process does, and keep the text that each returns.

    Parameters
    ----------
    progress : Progress
    label : str
    queue : WorkQueue
        Its remarks are the texts of all pieces at the end.
    sizes : sequence of int
        Units of progress of each piece.
    do : callable
        Takes the number of a piece and a counter, which it must bring to the piece's size.
    """
    with (
        progress.track(label, sum(sizes)) as advance,
        closing(queue.work(len(sizes), lambda number: advance(sizes[number]))) as numbers,
    ):
        for number in numbers:
            queue.remark(number, do(number, advance))


class SharedPieces:
    """Pieces of a stage's work, each made by one of the processes that share the run.

    Parameters
    ----------
    work : Workspace
    stage : str
    part : str
        Name of this part of the stage's work.
    label : str
        For the progress.
    pieces : sequence of Piece
        The same ones in all processes.
    """

    def __init__(
        self, work: Workspace, stage: str, part: str, label: str, pieces: Sequence[Piece]
    ) -> None:
        self._work, self._label, self._pieces = work, label, pieces
        self._queue, self._made = work.run.queue(stage, part), work.run.made(stage)

    def lead(self) -> None:
        """Make the pieces, or what is left of them, and record the files of all."""
        for number, text in self._queue.remarks().items():
            files = self._pieces[number].files() if number < len(self._pieces) else []
            there = bool(files) and all(file.exists() for file in files)
            if not there or self._made.digests(files) != parse_json(text or "{}"):
                self._queue.forget(number)  # changed since
        self.share()
        for text in self._queue.remarks().values():
            self._made.record(parse_json(text))

    def share(self) -> None:
        """Make the pieces that no other process makes; those that exist are kept."""
        sizes = [piece.size for piece in self._pieces]
        do_pieces(self._work.progress, self._label, self._queue, sizes, self._do)

    def _do(self, number: int, advance: Advance) -> str:
        piece = self._pieces[number]
        if piece.kept(self._made):
            advance(piece.size)
        else:
            piece.make(advance)
        return json.dumps(self._made.digests(piece.files()))
