"""Files in the layout of BOLD5000 release 2 with simulated content."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.datasets.bold5000._layout import HEMISPHERES, REGIONS, beta_name
from calcarine.errors import SettingError
from calcarine.simulation.linear_signal import draw_pictures, responses_with_signal

__all__ = ["fake"]

_WORDS = ("kitchen", "airplanecabin", "homeoffice", "soccerfield", "wavetower")
_SHARES = (("Scene", 1000), ("COCO", 2000), ("ImageNet", 1916))


def fake(
    folder: str | Path,
    *,
    full_size: bool = False,
    seed: int = 0,
    people: tuple[str, ...] | list[str] | None = None,
    voxels: int | None = None,
    size: int | None = None,
) -> None:
    """Write betas, presentation lists and pictures; CSI4 has fewer sessions.

    Parameters
    ----------
    folder : str or Path
        Folder to write to.
    full_size : bool
        4916 pictures, 15 sessions (CSI4: 9) and some 2000 voxels a subject.
    seed : int
        Seed of the content.
    people : tuple of str or list of str, optional
        Subjects; by default CSI1 and CSI4 (all four in full size).
    voxels : int, optional
        In each region and hemisphere.
    size : int, optional
        About how large pictures are; they are of different sizes.

    Examples
    --------
    >>> import os
    >>> from calcarine.datasets import bold5000
    >>> bold5000.fake("bold-fake", people=["CSI1"], voxels=10, size=32)
    >>> sorted(os.listdir("bold-fake"))
    ['BOLD5000_GLMsingle_ROI_betas', 'BOLD5000_Stimuli']
    """
    rng = np.random.default_rng(seed)
    chosen = people or (("CSI1", "CSI2", "CSI3", "CSI4") if full_size else ("CSI1", "CSI4"))
    strange = [name for name in chosen if name not in ("CSI1", "CSI2", "CSI3", "CSI4")]
    if strange:
        raise SettingError(f"BOLD5000 has no subject {strange[0]}; it has CSI1 to CSI4.")
    count, n_repeated, sessions, runs, side, n_voxels = (
        (4916, 113, 15, 10, 375, 200) if full_size else (96, 8, 3, 11, 24, 6)
    )
    names, pictures, features = _pictures(rng, count, side if size is None else size)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pictures(folder, names, pictures, rng)
    repeated = np.sort(rng.choice(count, n_repeated, replace=False))
    scenes = folder / "BOLD5000_Stimuli" / "Scene_Stimuli"
    (scenes / "repeated_stimuli_113_list.txt").write_text(
        "".join(f"{names[row]}\n" for row in repeated)
    )
    for subject in chosen:
        shown = _order(rng, count, repeated, 3 if not full_size else 4)
        lengths = [len(part) for part in np.array_split(shown, sessions)]
        if subject == "CSI4":
            lengths = lengths[: max(2, sessions * 9 // 15)]
            shown = shown[: sum(lengths)]
        _write_lists(folder, subject, [names[row] for row in shown], lengths, runs)
        _write_betas(folder, subject, rng, features, shown, lengths, n_voxels, voxels)


def _order(
    rng: np.random.Generator, count: int, repeated: NDArray[np.int64], times: int
) -> NDArray[np.int64]:
    """Return every picture once and the repeated ones more often, spread over all sessions."""
    once = rng.permutation(np.setdiff1d(np.arange(count), repeated))
    again = np.concatenate([rng.permutation(repeated) for _ in range(times)])
    place = np.sort(rng.choice(len(once) + len(again), len(again), replace=False))
    shown = np.empty(len(once) + len(again), dtype=np.int64)
    shown[place] = again
    shown[np.setdiff1d(np.arange(len(shown)), place)] = once
    return shown


def _pictures(
    rng: np.random.Generator, count: int, side: int
) -> tuple[list[str], NDArray[np.uint8], NDArray[np.float64]]:
    total = sum(share for _, share in _SHARES)
    ends = np.cumsum([share * count // total for _, share in _SHARES])
    groups = np.arange(count, dtype=np.int64) % len(_WORDS)
    pictures, features = draw_pictures(rng, groups, side)
    names = []
    for row in range(count):
        word = _WORDS[groups[row]]
        if row < ends[0]:
            names.append(f"{word}{row + 1}.jpg")
        elif row < ends[1]:
            names.append(f"COCO_train2014_{row * 97:012d}.jpg")
        else:
            names.append(f"n{1440764 + int(groups[row]):08d}_{row * 13}.JPEG")
    return names, pictures, features


def _write_pictures(
    folder: Path, names: list[str], pictures: NDArray[np.uint8], rng: np.random.Generator
) -> None:
    stimuli = folder / "BOLD5000_Stimuli"
    root = stimuli / "Scene_Stimuli" / "Presented_Stimuli"
    for name, _ in _SHARES:
        (root / name).mkdir(parents=True)
    for row, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        origin = "COCO" if name.startswith("COCO") else "Scene"
        origin = "ImageNet" if name.endswith(".JPEG") else origin
        # Wider, as high, or higher: centrally cropped they are the same again.
        wide, high = ((0, 0), (4, 0), (0, 4))[row % 3]
        padded = np.pad(picture, ((high, high), (wide, wide), (0, 0)), mode="edge")
        Image.fromarray(padded).save(root / origin / name, format="JPEG", quality=95, subsampling=0)
    labels = stimuli / "Image_Labels"
    labels.mkdir()
    lines = [f"n{1440764 + row:08d} {word}, simulated {word}" for row, word in enumerate(_WORDS)]
    (labels / "imagenet_final_labels.txt").write_text("\n".join(lines) + "\n")
    (labels / "scene_final_labels.txt").write_text("\n".join(_WORDS) + "\n")


def _write_lists(
    folder: Path, subject: str, shown: list[str], lengths: list[int], runs: int
) -> None:
    seen: Counter[str] = Counter()
    start = 0
    for session, length in enumerate(lengths, start=1):
        name = f"{subject}_sess{session:02d}"
        place = folder / "BOLD5000_Stimuli" / "Stimuli_Presentation_Lists" / subject / name
        place.mkdir(parents=True)
        rows = np.array_split(np.arange(start, start + length), runs)
        for run, part in enumerate(rows, start=1):
            lines = []
            for row in part.tolist():
                lines.append(("rep_" if seen[shown[row]] else "") + shown[row])
                seen[shown[row]] += 1
            (place / f"{name}_run{run:02d}.txt").write_text("".join(f"{t}\n" for t in lines))
        start += length


def _write_betas(
    folder: Path,
    subject: str,
    rng: np.random.Generator,
    features: NDArray[np.float64],
    shown: NDArray[np.int64],
    lengths: list[int],
    default: int,
    voxels: int | None,
) -> None:
    place = folder / "BOLD5000_GLMsingle_ROI_betas" / "py"
    place.mkdir(parents=True, exist_ok=True)
    offset = np.repeat(rng.normal(0, 2, len(lengths)), lengths)
    gain = np.repeat(rng.uniform(0.5, 2, len(lengths)), lengths)
    for region in REGIONS:
        for side in HEMISPHERES:
            count = voxels or default + int(rng.integers(0, 1 + default // 2))
            betas = responses_with_signal(rng, features, shown, count, noise=0.7)
            scaled = (betas * gain[:, None] + offset[:, None]).astype(np.float32)
            np.save(place / beta_name(subject, side, region), scaled)
