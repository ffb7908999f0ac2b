"""Names of stimuli that are equal but for how they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_ENDINGS = "png|jpg|jpeg|jpe|jp2|bmp|tif|tiff|webp|gif|ppm|pgm|tga|npy|npz|pt|mat|svg|heic|avif"
_ENDING = re.compile(rf"\.(?:{_ENDINGS})$")
_SIDES = re.compile(r"^(?:train|training|test|testing|val|validation)$")


@lru_cache(maxsize=200_000)
def plain(name: str) -> tuple[str, ...]:
    """A name without what only writing adds: folders first, its own name last.

    Case, blanks, endings of pictures, slashes of either kind and zeros before a number are left
    out.

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
    """Numbers as a table of floats writes them are whole numbers; zeros inside a number stay."""
    part = re.sub(r"^(\d+)\.0$", r"\1", part)
    return re.sub(r"(?<!\d)(\d+)", lambda match: str(int(match[1])), part)


class Names:
    """Names of one side, by which those of the other are found however they are written.

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
        # Where one name is in several folders, the folder is a part of the name.
        self._folders_matter = any(
            len({parts for parts, _ in each}) > 1 for each in self._by_end.values()
        )

    def find(self, name: str) -> str | None:
        """The name that means the same, or None.

        One may have folders that the other lacks; folders that both have must agree.
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
        """A name that is the same but for its folder, where the folder may say nothing.

        Folders matter that are named after a side (train, test), that hold equal names, or whose
        pictures are only numbered.
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
    """How two names that mean the same differ, in words.

    Parameters
    ----------
    name, other : str

    Returns
    -------
    str
    """
    if name == other:
        return "the same id"
    result = []
    ends = [text.replace("\\", "/").rsplit("/", 1) for text in (name.strip(), other.strip())]
    if (ends[0][0] if len(ends[0]) > 1 else "") != (ends[1][0] if len(ends[1]) > 1 else ""):
        result.append("folder")
    own, its = (end[-1] for end in ends)
    endings = [m.group() if (m := _ENDING.search(text.casefold())) else "" for text in (own, its)]
    if endings[0] != endings[1]:
        result.append("ending")
    own, its = (
        text[: len(text) - len(ending)] for text, ending in zip((own, its), endings, strict=True)
    )
    bare = ["".join(text.split()) for text in (own, its)]
    if name != name.strip() or other != other.strip() or (bare[0], bare[1]) != (own, its):
        result.append("blanks")
    if bare[0] != bare[1] and bare[0].casefold() == bare[1].casefold():
        result.append("case")
    elif bare[0].casefold() != bare[1].casefold():
        result.append("how its number is written")
    return f"the same id but for {' and '.join(result) or 'how it is written'}"


def canonical(names: Iterable[str]) -> dict[str, str]:
    """For each name the one that stands for all that mean the same.

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
    # The shortest path first: longer ones end with it.
    for name in sorted(unique, key=lambda each: len(plain(each))):
        own = plain(name)
        ends = [own[-length:] for length in range(1, len(own) + 1)]
        key = next((end for end in ends if end in first), own)
        result[name] = first.setdefault(key, name)
    return result
