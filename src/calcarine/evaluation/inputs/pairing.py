"""Pair files of reconstructions with ground truths by the naming schemes of published systems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calcarine.errors import CalcarineError
from calcarine.stimuli.names import loose_name

__all__ = ["PairedFiles", "ground_truth_files", "pair_files"]

_SAMPLE = re.compile(r"^(?P<name>.+)_(?:sample-?|s)?(?P<number>\d+)$")
# The code of Takagi & Nishimoto writes 00000_org.png next to 00000_000.png, 00000_001.png.
_ORIGINAL = "_org"
# The code of MinD-Vis writes the ground truth test0-0.png next to the samples test0-1.png.
_COPY = re.compile(r"^test(?P<name>\d+)-(?P<number>\d+)$")


@dataclass
class PairedFiles:
    """Files by the name of their ground truth.

    Parameters
    ----------
    made : dict of str to dict of int to Path
        Files of each ground truth by sample number; -1 for a file without a number.
    unmatched : list of str
        Names without a ground truth.
    notes : list of str
        Names that were matched in another spelling, and files that were left out.
    """

    made: dict[str, dict[int, Path]]
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ground_truth_files(
    files: Mapping[str, Path], folder: Path
) -> tuple[dict[str, Path], list[str]]:
    """Find the ground truths of a folder that can also contain reconstructions.

    Parameters
    ----------
    files : mapping of str to Path
        Files by name without ending.
    folder : Path
        The folder, for notes.

    Returns
    -------
    truths : dict of str to Path
    notes : list of str
    """
    marked = {
        name.removesuffix(_ORIGINAL): path
        for name, path in files.items()
        if name.endswith(_ORIGINAL) and name != _ORIGINAL
    }
    copies = {name: result for name in files if (result := _COPY.match(name))}
    form = f"NAME{_ORIGINAL}"
    if files and len(copies) == len(files):
        form = "testN-0"
        marked = {f"test{m['name']}": files[k] for k, m in copies.items() if int(m["number"]) == 0}
    kept = set(marked.values())
    others = [name for name, path in files.items() if path not in kept]
    if not marked or any(_sample(name, marked)[0] is None for name in others):
        return dict(files), []
    if not others:
        return marked, []
    return marked, [f"The ground truths are the {len(marked)} files {form} in {folder}."]


def pair_files(ids: Sequence[str], files: Mapping[str, Path], folder: Path) -> PairedFiles:
    """Pair each file with its ground truth.

    Parameters
    ----------
    ids : sequence of str
        Names of the ground truths.
    files : mapping of str to Path
        Files by name without ending.
    folder : Path
        The folder, for notes and errors.

    Returns
    -------
    Paired

    Raises
    ------
    CalcarineError
        If two files are the same sample of a ground truth.
    """
    result = PairedFiles({name: {} for name in ids})
    loose = _loose(ids)
    left_out, spelled = [], []
    for stem, path in sorted(files.items()):
        name, number = _sample(stem, result.made)
        if name is None:
            key, number = _sample(loose_name(stem), loose)
            name = None if key is None else loose[key]
            if name is not None and number is not None:
                spelled.append((stem, name))
        if name is None:
            result.unmatched.append(stem)
        elif number is None:
            left_out.append(stem)
        elif number in result.made[name]:
            raise CalcarineError(
                f"{result.made[name][number].name} and {path.name} in {folder} are the same sample "
                f"of {name!r}; keep one of them."
            )
        else:
            result.made[name][number] = path
    if spelled:
        result.notes.append(
            f"Names in {folder} differ from those of the ground truths in zeros, case or form and "
            f"were paired, for example {spelled[0][0]!r} with {spelled[0][1]!r}."
        )
    if left_out:
        result.notes.append(
            f"{len(left_out)} files in {folder}, for example {left_out[0]!r}, are left out, "
            "because their names are those of ground truths."
        )
    if result.unmatched and not any(result.made.values()):
        return _by_number(ids, files, folder) or result
    return result


def _sample(stem: str, known: Mapping[str, object]) -> tuple[str | None, int | None]:
    """Return ground truth and sample number of a file; -1 without number, None for ground truths.

    An exact name of a ground truth has priority.
    """
    if stem in known:
        return stem, -1
    match = _SAMPLE.match(stem)
    if match and match["name"] in known:
        return match["name"], int(match["number"])
    if stem.endswith(_ORIGINAL) and stem.removesuffix(_ORIGINAL) in known:
        return stem.removesuffix(_ORIGINAL), None
    match = _COPY.match(stem)
    for name in () if match is None else (f"test{match['name']}", match["name"]):
        if match is not None and name in known:
            number = int(match["number"])
            return name, number or None
    return None, -1


def _loose(ids: Sequence[str]) -> dict[str, str]:
    """Return ground truths by their loose names, if these are unique."""
    times = Counter(loose_name(name) for name in ids)
    return {loose_name(name): name for name in ids if times[loose_name(name)] == 1}


def _by_number(ids: Sequence[str], files: Mapping[str, Path], folder: Path) -> PairedFiles | None:
    """Pair names such as gt_0 and recon_0, if each side has one form around a number."""
    truths, made = _numbers(ids), _numbers(list(files))
    if truths is None or made is None or set(truths) != set(made):
        return None
    result = PairedFiles({name: {-1: files[made[number]]} for number, name in truths.items()})
    first = min(truths)
    result.notes.append(
        f"Names in {folder} were paired with the ground truths by their numbers, for example "
        f"{made[first]!r} with {truths[first]!r}."
    )
    return result


def _numbers(names: Sequence[str]) -> dict[int, str] | None:
    """Return names by the number in each, if the text around the number is the same in all."""
    parts = [re.fullmatch(r"(\D*)(\d+)(\D*)", name) for name in names]
    result = {int(part[2]): name for part, name in zip(parts, names, strict=True) if part}
    around = {(part[1], part[3]) for part in parts if part}
    return result if len(result) == len(names) and len(around) == 1 else None
