"""The conversation of ``calcarine datasets download``: sizes, terms, consent, progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calcarine.datasets.download.assets import Asset
from calcarine.datasets.provider import DatasetInfo


def download_dataset(
    info: DatasetInfo,
    assets: Sequence[Asset],
    folder: Path,
    accept_terms: bool,
    dry_run: bool,
    workers: int,
) -> None:
    """Show what would be downloaded, ask for consent, and download it."""
    raise NotImplementedError
