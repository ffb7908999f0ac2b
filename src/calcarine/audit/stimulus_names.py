"""Match names of stimuli that differ only in spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["Names", "canonical", "difference", "plain"]

_ENDINGS = "png|jpg|jpeg|jpe|jp2|bmp|tif|tiff|webp|gif|ppm|pgm|tga|npy|npz|pt|mat|svg|heic|avif"
_ENDING = re.compile(rf"\.(?:{_ENDINGS})$")
_SIDES = re.compile(r"^(?:train|training|test|testing|val|validation)$")


@lru_cache(maxsize=200_000)
def plain(name: str) -> tuple[str, ...]:
    """Return the normalised parts of a name: folders first, its own name last.

    Case, blanks, file endings of pictures, both kinds of slashes and leading zeros are ignored.

    Parameters
    ----------
    name : str

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> plain("stimuli/Test-001.PNG ")
    ('stimuli', 'test-1')
    """
    text = unicodedata.normalize("NFKC", name).casefold().replace("\\", "/")
    parts = ["".join(part.split()) for part in text.split("/")]
    parts = [part for part in parts if part not in ("", ".")] or [""]
    parts[-1] = _ENDING.sub("", parts[-1]) or parts[-1]
    return tuple(_whole(part) for part in parts)


def _whole(part: str) -> str:
    """Write numbers such as 1.0 and 01 as 1; zeros inside a number stay."""
    part = re.sub(r"^(\d+)\.0$", r"\1", part)
    return re.sub(r"(?<!\d)(\d+)", lambda match: str(int(match[1])), part)


class Names:
    """Names of one side, among which names of the other side are found in any spelling.

    Parameters
    ----------
    names : iterable of str
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.exact = dict.fromkeys(names)
        self._by_end: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for name in self.exact:
            parts = plain(name)
            self._by_end.setdefault(parts[-1], []).append((parts, name))
        # If a name is in several folders, the folder is part of the name.
        self._folders_matter = any(
            len({parts for parts, _ in each}) > 1 for each in self._by_end.values()
        )

    def find(self, name: str) -> str | None:
        """Return the matching name, or None.

        Either name can have additional folders; folders that both have must agree.
        """
        if name in self.exact:
            return name
        own = plain(name)
        for parts, other in self._by_end.get(own[-1], ()):
            both = min(len(parts), len(own))
            if parts[-both:] == own[-both:]:
                return other
        return None

    def elsewhere(self, name: str) -> str | None:
        """Return a name that differs only in a folder that may be irrelevant, or None.

        The folder is relevant if it is named after a side (train, test), if folders contain equal
        names, or if the names are only numbers.
        """
        own = plain(name)
        if self._folders_matter or own[-1].isdigit() or _names_a_side(own):
            return None
        return next(
            (other for parts, other in self._by_end.get(own[-1], ()) if not _names_a_side(parts)),
            None,
        )


def _names_a_side(parts: tuple[str, ...]) -> bool:
    return any(_SIDES.match(part) for part in parts[:-1])


def difference(name: str, other: str) -> str:
    """Describe how two matching names differ.

    Parameters
    ----------
    name, other : str

    Returns
    -------
    str
    """
    if name == other:
        return "same id"
    result = []
    ends = [text.replace("\\", "/").rsplit("/", 1) for text in (name.strip(), other.strip())]
    if (ends[0][0] if len(ends[0]) > 1 else "") != (ends[1][0] if len(ends[1]) > 1 else ""):
        result.append("folder")
    own, its = (end[-1] for end in ends)
    endings = [m.group() if (m := _ENDING.search(text.casefold())) else "" for text in (own, its)]
    if endings[0] != endings[1]:
        result.append("file ending")
    own, its = (
        text[: len(text) - len(ending)] for text, ending in zip((own, its), endings, strict=True)
    )
    bare = ["".join(text.split()) for text in (own, its)]
    if name != name.strip() or other != other.strip() or (bare[0], bare[1]) != (own, its):
        result.append("blanks")
    if bare[0] != bare[1] and bare[0].casefold() == bare[1].casefold():
        result.append("case")
    elif bare[0].casefold() != bare[1].casefold():
        result.append("spelling of the number")
    return f"same id except for {' and '.join(result) or 'spelling'}"


def canonical(names: Iterable[str]) -> dict[str, str]:
    """Map each name to one representative of all matching names.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    dict of str to str
    """
    unique = list(dict.fromkeys(names))
    first: dict[tuple[str, ...], str] = {}
    result = {}
    # Shortest paths first, because longer ones end with them.
    for name in sorted(unique, key=lambda each: len(plain(each))):
        own = plain(name)
        ends = [own[-length:] for length in range(1, len(own) + 1)]
        key = next((end for end in ends if end in first), own)
        result[name] = first.setdefault(key, name)
    return result
