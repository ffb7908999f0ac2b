"""Files on disk: atomic writes, digests, locks, and safe readers."""

from __future__ import annotations

from calcarine.files.local_files import (
    atomic_write,
    content_missing,
    digest_file,
    disk_full_error,
    existing_folder,
    explain_full_disk,
    free_space,
    is_annexed,
    is_disk_full,
    is_inside,
    is_partial_file,
    parse_json,
    read_json,
    remove_partial_files,
    write_bytes,
    write_text,
)

__all__ = [
    "atomic_write",
    "content_missing",
    "digest_file",
    "disk_full_error",
    "existing_folder",
    "explain_full_disk",
    "free_space",
    "is_annexed",
    "is_disk_full",
    "is_inside",
    "is_partial_file",
    "parse_json",
    "read_json",
    "remove_partial_files",
    "write_bytes",
    "write_text",
]
