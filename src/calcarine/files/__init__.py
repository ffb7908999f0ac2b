"""Files on disk: atomic writes, digests, locks, and readers that believe nothing."""

from __future__ import annotations

from calcarine.files.local import (
    atomic_write,
    content_missing,
    digest_file,
    explain_full_disk,
    free_space,
    is_annexed,
    is_full,
    is_inside,
    is_partial_file,
    no_space,
    read_json,
    remove_partial_files,
    write_bytes,
    write_text,
)

__all__ = [
    "atomic_write",
    "content_missing",
    "digest_file",
    "explain_full_disk",
    "free_space",
    "is_annexed",
    "is_full",
    "is_inside",
    "is_partial_file",
    "no_space",
    "read_json",
    "remove_partial_files",
    "write_bytes",
    "write_text",
]
