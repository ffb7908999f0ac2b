"""Matching written names of pictures with known names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from calcarine.stimuli.image_files import PICTURE_SUFFIXES

__all__ = ["loose_name", "match_names", "plain_name"]


def plain_name(name: str) -> str:
    r"""Return a name without folders and without the ending of a picture file.

    Parameters
    ----------
    name : str
        Such as ``"stimuli/pic000.png"`` or ``"C:\exp\pic000.png"``.

    Returns
    -------
    str
        Such as ``"pic000"``.
    """
    last = re.split(r"[/\\]", name.strip())[-1]
    return _without_ending(last)


def loose_name(name: str) -> str:
    """Return a plain name without case and leading zeros: ``IMG_007`` becomes ``img_7``."""
    text = unicodedata.normalize("NFC", plain_name(name)).casefold()
    return re.sub(r"\d+", lambda found: found[0].lstrip("0") or "0", text)


def match_names(
    written: Iterable[str], known: Sequence[str], *, loose: bool = True
) -> dict[str, str]:
    """Return the known name that each written name means.

    The names themselves come first, then names without endings, then without folders, then
    without differences of case and leading zeros.  Where a comparison would make two known or two
    written names one, it is not used.

    Parameters
    ----------
    written : iterable of str
        Such as the ids of a table.
    known : sequence of str
        Such as the names of pictures, unique.
    loose : bool
        Whether case and leading zeros may differ.

    Returns
    -------
    dict of str to str
        Known name by written name; written names that mean none are left out.

    Examples
    --------
    >>> match_names(["pic000.png", "pic001.png"], ["pic000", "pic001"])
    {'pic000.png': 'pic000', 'pic001.png': 'pic001'}
    """
    names = list(dict.fromkeys(written))
    exact = set(known)
    found = {name: name for name in names if name in exact}
    ways: list[Callable[[str], str]] = [lambda name: _without_ending(name.strip()), plain_name]
    for way in [*ways, loose_name] if loose else ways:
        places = _unique(known, way)
        meant = {name: way(name) for name in names}
        clashes = _clashes(meant)
        taken = set(found.values())
        for name in names:
            target = places.get(meant[name])
            if name in found or target is None or meant[name] in clashes or target in taken:
                continue
            found[name] = target
    return found


def _without_ending(name: str) -> str:
    lower = name.lower()
    ending = next((end for end in PICTURE_SUFFIXES if lower.endswith(end)), "")
    return name[: len(name) - len(ending)] if len(ending) < len(name) else name


def _unique(known: Sequence[str], way: Callable[[str], str]) -> dict[str, str]:
    places: dict[str, list[str]] = {}
    for name in known:
        places.setdefault(way(name), []).append(name)
    return {key: names[0] for key, names in places.items() if len(names) == 1}


def _clashes(meant: dict[str, str]) -> set[str]:
    return {key for key, times in Counter(meant.values()).items() if times > 1}
