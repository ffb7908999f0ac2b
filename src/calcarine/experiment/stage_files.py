"""Files that a stage wrote; others in their place belong to other settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from calcarine.errors import CalcarineError
from calcarine.files import digest_file, parse_json, write_text

__all__ = ["WrittenFiles"]


class WrittenFiles:
    """Files that one stage wrote under one key, with their SHA-256.

    A run's lock keeps two commands apart where the file system has locks. Where it has none, a
    file that another command put in its place is noticed here.

    Parameters
    ----------
    run : Path
        Folder of the run.
    stage : str
    key : str or None
        Key of the stage; files that were written under another key do not count.
    """

    def __init__(self, run: Path, stage: str, key: str | None) -> None:
        self._run, self._stage, self._key = run, stage, key
        self._file = run / ".stages" / f"{stage}.made"
        self._digests = self._read()

    def holds(self, path: Path) -> bool:
        """Return whether a file is as this stage wrote it."""
        name = str(path.relative_to(self._run))
        return name in self._digests and self._is_whole(name)

    def holds_below(self, folder: Path) -> bool:
        """Return whether this stage wrote files below a folder and all are unchanged."""
        own = [name for name in self._digests if (self._run / name).is_relative_to(folder)]
        return bool(own) and all(self._is_whole(name) for name in own)

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """Return the SHA-256 of files by their path in the run."""
        return {str(path.relative_to(self._run)): digest_file(path) for path in paths}

    def add(self, paths: Iterable[Path]) -> None:
        """Record the content of files that were just written."""
        self.record(self.digests(paths))

    def record(self, digests: Mapping[str, str]) -> None:
        """Record files by what `digests` returned, in this process or another."""
        if not self._digests:
            write_text(self._file, json.dumps({"key": self._key}))
        with open(self._file, "a", encoding="utf-8") as lines:
            # Each starts with a new line: a killed process leaves half of its last one.
            lines.writelines("\n" + json.dumps(pair) for pair in digests.items())
        self._digests |= digests

    def finish(self) -> None:
        """Refuse files that another program changed; then write the list in order.

        The list is the same for a stage that was interrupted as for one that was not.

        Raises
        ------
        CalcarineError
            If a file was changed; the next call makes it again.
        """
        changed = [name for name in self._digests if not self._is_whole(name)]
        if changed:
            raise CalcarineError(
                f"{self._run / changed[0]} was changed or deleted while '{self._stage}' ran, "
                "perhaps by another calcarine process; stop it, then repeat the command."
            )
        if self._digests:
            # Interrupted commands leave half lines and names twice; folders list in any order.
            pairs = sorted(self._digests.items())
            lines = [json.dumps({"key": self._key}), *map(json.dumps, pairs)]
            write_text(self._file, "\n".join(lines))

    def _is_whole(self, name: str) -> bool:
        try:
            return digest_file(self._run / name) == self._digests[name]
        except FileNotFoundError:
            return False

    def _read(self) -> dict[str, str]:
        try:
            head, *lines = self._file.read_text(encoding="utf-8").splitlines()
            if parse_json(head) != {"key": self._key}:
                return {}
        except (OSError, ValueError):
            return {}
        digests = {}
        for line in lines:
            try:
                name, digest = parse_json(line)
                digests[str(name)] = str(digest)
            except (ValueError, TypeError):
                continue
        return digests
