"""The design of a simulated experiment, and the tables that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.nsd.layout import (
    COCO_SPLITS,
    N_IMAGES,
    N_PER_SUBJECT,
    N_SHARED,
    SESSION_TRIALS,
    SUBJECTS,
    NSDLayout,
)
from calcarine.files import atomic_write, write_text
from calcarine.stimuli.scenes import BACKGROUNDS, KINDS, SUPERCATEGORY, RenderedScene

__all__ = [
    "FakePlan",
    "Numbers",
    "compress_runs",
    "encode_runs",
    "make_plan",
    "write_coco",
    "write_tables",
]

Numbers = NDArray[np.int64]
_REPEATS, _RUNS = 3, 12


@dataclass(frozen=True, eq=False)
class FakePlan:
    """Design of the experiment; pictures and their order count from 1, as in the official file.

    Attributes
    ----------
    lengths
        Trials of each session with betas.
    n_subjects
        Subjects with files.
    done
        Trials in the tables of responses: more than there are betas of, when
        of full size.
    order
        Shape (planned trials,): number of the trial's picture among the subject's.
    images
        Shape (8, pictures a subject): the subjects' pictures, shared ones first.
    shared
        Shape (shared,), ascending.
    n_images
        Of all subjects.
    coco_ids, coco_splits, crops
        Of each picture: number, 0 or 1 (training or validation), and the
        parts cut off at top, bottom, left and right.
    """

    lengths: tuple[int, ...]
    n_subjects: int
    done: int
    order: Numbers
    images: Numbers
    shared: Numbers
    n_images: int
    coco_ids: Numbers
    coco_splits: Numbers
    crops: NDArray[np.float64]

    def shown(self, subject: int) -> Numbers:
        """Return the pictures, from 0, of the trials with betas; ``subject`` counts from 0."""
        return np.asarray(self.images[subject][self.order[: sum(self.lengths)] - 1] - 1)


def make_plan(
    lengths: Sequence[int], n_subjects: int, full_size: bool, rng: np.random.Generator
) -> FakePlan:
    """Plan an experiment: every picture three times, some of them for all subjects."""
    if full_size:
        n_images, own, shared = N_IMAGES, N_PER_SUBJECT, N_SHARED
        planned = max(_REPEATS * own, sum(lengths))
        done = planned
    else:
        # A session more than there is, as some subjects did not come to the last ones.
        planned = sum(lengths) + max(lengths)
        own = max(8, -(-planned // _REPEATS))
        shared = own // 4
        n_images, done = shared + len(SUBJECTS) * (own - shared), sum(lengths)
    order = rng.permutation(np.resize(np.arange(1, own + 1), max(planned, own)))
    numbers = rng.permutation(n_images) + 1
    common = np.sort(numbers[:shared])
    rest = np.sort(numbers[shared:].reshape(len(SUBJECTS), -1), axis=1)
    images = np.hstack([np.tile(common, (len(SUBJECTS), 1)), rest])
    # A quarter of a side more than the picture, left or right, above or below.
    cuts = np.array([(0, 0, 1, 1), (0, 0, 0, 2), (1, 1, 0, 0), (2, 0, 0, 0)]) / 6
    return FakePlan(
        tuple(lengths),
        n_subjects,
        done,
        order,
        images,
        common,
        n_images,
        rng.permutation(max(600_000, n_images))[:n_images] + 1,
        (rng.random(n_images) < 0.2).astype(np.int64),
        cuts[rng.integers(0, 4, n_images)],
    )


def write_tables(layouts: Sequence[NSDLayout], plan: FakePlan, rng: np.random.Generator) -> None:
    """Write the design, the table of pictures and the responses of each subject."""
    from scipy.io import savemat

    with atomic_write(layouts[0].expdesign) as temporary, open(temporary, "wb") as file:
        savemat(
            file,
            {
                "masterordering": plan.order[None].astype(np.uint16),
                "subjectim": plan.images.astype(np.int32),
                "sharedix": plan.shared[None].astype(np.int32),
            },
            do_compression=False,
        )
    with atomic_write(layouts[0].stim_info) as temporary:
        _stim_info(plan).to_csv(temporary)
    for layout in layouts:
        with atomic_write(layout.responses) as temporary:
            _responses(layout, plan, rng).to_csv(temporary, sep="\t", index=False)


def _stim_info(plan: FakePlan) -> pd.DataFrame:
    index = np.arange(plan.n_images)
    columns: dict[str, Any] = {
        "cocoId": plan.coco_ids,
        "cocoSplit": [COCO_SPLITS[split] for split in plan.coco_splits],
        "cropBox": [str(tuple(float(part) for part in row)) for row in plan.crops],
        "loss": 0.0,
        "nsdId": index,
        "flagged": False,
        "BOLD5000": False,
        "shared1000": np.isin(index + 1, plan.shared),
    }
    for row in range(len(SUBJECTS)):
        columns[f"subject{row + 1}"] = np.isin(index + 1, plan.images[row]).astype(int)
    for row in range(len(SUBJECTS)):
        shown = pd.Series(plan.images[row][plan.order - 1] - 1)
        trials = np.zeros((plan.n_images, max(_REPEATS, int(shown.value_counts().max()))), int)
        trials[shown, shown.groupby(shown).cumcount()] = np.arange(1, len(shown) + 1)
        for repeat in range(_REPEATS):
            columns[f"subject{row + 1}_rep{repeat}"] = trials[:, repeat]
    return pd.DataFrame(columns)


def _responses(layout: NSDLayout, plan: FakePlan, rng: np.random.Generator) -> pd.DataFrame:
    lengths = list(plan.lengths)
    while sum(lengths) < plan.done:
        lengths.append(min(SESSION_TRIALS, plan.done - sum(lengths)))
    order = plan.order[: plan.done]
    session = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    within = np.concatenate([np.arange(length) for length in lengths])
    per_run = np.repeat([-(-length // _RUNS) for length in lengths], lengths)
    repeat = pd.Series(order).groupby(order).cumcount().to_numpy()
    old = (repeat > 0).astype(int)
    right = (rng.random(plan.done) < 0.85).astype(int)
    return pd.DataFrame(
        {
            "SUBJECT": layout.number,
            "SESSION": session,
            "RUN": within // per_run + 1,
            "TRIAL": within % per_run + 1,
            "73KID": plan.images[layout.number - 1][order - 1],
            "10KID": order,
            "TIME": 737000.0 + 7 * session + within * 4 / 86400,
            "ISOLD": old,
            "ISCORRECT": right,
            "RT": np.round(rng.uniform(400, 2500, plan.done), 2),
            "CHANGEMIND": 0,
            "MEMORYRECENT": np.nan,
            "MEMORYFIRST": np.nan,
            "ISOLDCURRENT": old,
            "ISCORRECTCURRENT": right,
            "TOTAL1": 1,
            "TOTAL2": 0,
            "BUTTON": np.where(right == old, 2, 1),
            "MISSINGDATA": 0,
        }
    )


def write_coco(
    layout: NSDLayout, plan: FakePlan, drawn: Mapping[int, RenderedScene], side: int
) -> None:
    """Write captions and objects of the drawn pictures, and of some that were not shown."""
    other = max(600_000, plan.n_images) + 1
    for number, split in enumerate(COCO_SPLITS):
        own = sorted(image for image in drawn if plan.coco_splits[image] == number)
        images, captions, objects = [], [], []
        for image in own:
            scene, name = drawn[image], int(plan.coco_ids[image])
            crop = plan.crops[image]
            height, width = (round(side / (1 - crop[a] - crop[b])) for a, b in ((0, 1), (2, 3)))
            images.append({"id": name, "height": height, "width": width})
            captions += [{"image_id": name, "caption": text} for text in scene.captions]
            corner = (round(crop[0] * height), round(crop[2] * width))
            objects += _objects(scene, name, (height, width), corner, side)
        images.append({"id": other + number, "height": side, "width": side})
        captions.append({"image_id": other + number, "caption": "a picture that was not shown"})
        start = {"info": {"description": "simulated"}, "licenses": [], "images": images}
        for entry, each in enumerate((*captions, *objects)):
            each["id"] = entry
        kinds = [
            {"id": kind, "name": word, "supercategory": SUPERCATEGORY[word]}
            for kind, word in enumerate(KINDS, 1)
        ]
        content: dict[str, dict[str, Any]] = {
            "captions": {**start, "annotations": captions},
            "instances": {**start, "annotations": objects, "categories": kinds},
        }
        for kind, value in content.items():
            write_text(layout.annotations(kind, split), json.dumps(value))


def _objects(
    scene: RenderedScene,
    image: int,
    size: tuple[int, int],
    corner: tuple[int, int],
    side: int,
) -> list[dict[str, Any]]:
    """Return the objects of a picture, in turn in the three forms that COCO has for outlines."""
    results = []
    factor = side // len(scene.semantic_map)
    for kind in range(len(KINDS)):
        small = scene.semantic_map == len(BACKGROUNDS) + kind
        if not small.any():
            continue
        whole = np.zeros(size, dtype=np.bool_)
        inside = small.repeat(factor, 0).repeat(factor, 1)
        whole[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = inside
        form = (image + kind) % 3
        shape: Any
        if form == 0:
            shape = _rectangles(small, corner, factor)
        else:
            counts = encode_runs(whole)
            shape = {
                "size": list(size),
                "counts": counts if form == 1 else compress_runs(counts),
            }
        results.append(
            {
                "image_id": image,
                "category_id": kind + 1,
                "segmentation": shape,
                "area": int(whole.sum()),
                "iscrowd": int(form == 1),
                "bbox": [0, 0, *size[::-1]],
            }
        )
    return results


def _rectangles(mask: NDArray[np.bool_], corner: tuple[int, int], factor: int) -> list[list[float]]:
    """Return outlines: a rectangle for each run of a row."""
    outlines = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        top, bottom = (corner[0] + factor * edge for edge in (y, y + 1))
        for start, end in edges.reshape(-1, 2).tolist():
            left, right = corner[1] + factor * start, corner[1] + factor * end
            outlines.append(
                [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]
            )
    return outlines


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return run lengths down the columns; the first is outside."""
    flat = mask.T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *counts] if flat[0] else counts


def compress_runs(counts: Sequence[int]) -> str:
    """Return COCO's text for run lengths; see `calcarine.datasets.nsd.coco_maps.run_lengths`."""
    letters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr(48 + (bits | 32 if more else bits)))
    return "".join(letters)
