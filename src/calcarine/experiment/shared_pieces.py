"""Pieces of a stage's work that write files, done by one process or shared by several."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calcarine.experiment.progress import Advance
from calcarine.files import parse_json

if TYPE_CHECKING:
    from calcarine.experiment.stage_files import WrittenFiles
    from calcarine.experiment.workspace import Workspace

__all__ = ["Piece", "SharedPieces"]


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
        pieces, total = self._pieces, sum(piece.size for piece in self._pieces)
        with (
            self._work.progress.track(self._label, total) as advance,
            closing(self._queue.work(len(pieces), lambda n: advance(pieces[n].size))) as numbers,
        ):
            for number in numbers:
                piece = pieces[number]
                if piece.kept(self._made):
                    advance(piece.size)
                else:
                    piece.make(advance)
                self._queue.remark(number, json.dumps(self._made.digests(piece.files())))
