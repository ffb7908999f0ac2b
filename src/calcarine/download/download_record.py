"""``downloads.json``: accepted terms, and which files came from where."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calcarine.brain.assets import UsageTerms
from calcarine.errors import DamagedFileError, SettingError
from calcarine.files import read_json, write_text

__all__ = ["RECORD_NAME", "DownloadRecord"]

RECORD_NAME = "downloads.json"


class DownloadRecord:
    """The record of one folder; every change is written at once.

    Parameters
    ----------
    folder
        The data set's folder; the record may be missing.
    dataset
        Name of the data set.

    Attributes
    ----------
    files : dict
        Of each file by its path: ``url``, ``size`` in bytes, ``sha256``,
        ``etag``, ``modified``, ``fetched`` (or ``found``, where it was there
        before), and ``archive`` where it came out of one.
    terms : list of dict
        What was accepted: ``title``, ``url``, ``summary``, ``accepted`` and ``how``.

    Raises
    ------
    CalcarineError
        If the file is no record or is of another data set.
    """

    def __init__(self, folder: Path, dataset: str) -> None:
        self.path = folder / RECORD_NAME
        self.dataset = dataset
        self.files: dict[str, dict[str, Any]] = {}
        self.terms: list[dict[str, str]] = []
        self._lock = threading.Lock()
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            result = read_json(self.path)
            dataset, self.files, self.terms = result["dataset"], result["files"], result["terms"]
            right = all(isinstance(each, dict) for each in (self.files, *self.files.values()))
            right &= isinstance(self.terms, list) and all(isinstance(t, dict) for t in self.terms)
        except (ValueError, KeyError, TypeError, AttributeError):
            right, dataset = False, ""
        if not right:
            raise DamagedFileError(
                f"{self.path} is damaged; delete it, and existing files are recognised by their "
                "size."
            )
        if dataset != self.dataset:
            raise SettingError(
                f"{self.path.parent} holds downloads of data set {dataset}; give another folder "
                f"for {self.dataset} with --to."
            )

    def accepted(self, terms: UsageTerms) -> str | None:
        """Return when exactly these terms were accepted; None if they were not."""
        for each in self.terms:
            if all(each.get(key) == value for key, value in vars(terms).items()):
                return each.get("accepted")
        return None

    def accept(self, terms: UsageTerms, how: str) -> None:
        """Record that the terms were accepted now."""
        with self._lock:
            self.terms.append({**vars(terms), "accepted": _now(), "how": how})
            self._write()

    def put(self, path: str, url: str, size: int, moment: str = "fetched", **more: Any) -> None:
        """Record a complete file."""
        self.put_all({path: {"url": url, "size": size, **more}}, moment)

    def put_all(self, entries: Mapping[str, dict[str, Any]], moment: str = "fetched") -> None:
        """Record several files in one write."""
        with self._lock:
            for path, entry in entries.items():
                self.files[path] = {**entry, moment: _now()}
            self._write()

    def entry(self, path: str, url: str) -> dict[str, Any] | None:
        """Return what is recorded of a file from this address."""
        result = self.files.get(path)
        return result if result is not None and result.get("url") == url else None

    def taken_from(self, archive: str, url: str) -> dict[str, dict[str, Any]]:
        """Return the files that came out of an archive, by their path."""
        return {
            path: entry
            for path, entry in self.files.items()
            if entry.get("archive") == archive and entry.get("url") == url
        }

    def _write(self) -> None:
        text = {
            "format": 1,
            "dataset": self.dataset,
            "terms": self.terms,
            "files": dict(sorted(self.files.items())),
        }
        write_text(self.path, json.dumps(text, indent=2, ensure_ascii=False) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
