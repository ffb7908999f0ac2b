"""Files on disk: atomic writes, digests, locks, and readers that believe nothing."""

from __future__ import annotations

from calcarine.files.local import (
    content_missing,
    digest_file,
    free_space,
    is_annexed,
    is_full,
    is_inside,
    is_part,
    no_space,
    read_json,
    remove_parts,
    space_told,
    write_bytes,
    write_text,
    written_aside,
)

__all__ = [
    "content_missing",
    "digest_file",
    "free_space",
    "is_annexed",
    "is_full",
    "is_inside",
    "is_part",
    "no_space",
    "read_json",
    "remove_parts",
    "space_told",
    "write_bytes",
    "write_text",
    "written_aside",
]
