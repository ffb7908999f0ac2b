"""What a data set says of itself: its digest, and summaries for JSON and for people."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import numpy as np

from calcarine.display import listed

__all__ = ["describe", "digest", "summary", "title"]


def digest(dataset: Any) -> str:
    """Return what `BrainDataset.digest` returns."""
    sizes = [dataset.n_trials, dataset.n_voxels]
    total = hashlib.sha256(json.dumps([dataset.name, dataset.subject, sizes]).encode())
    for start in range(0, dataset.n_trials, 1000):
        rows = dataset.responses[{"trial": slice(start, start + 1000)}].values
        total.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    repeats = [int(value) for value in dataset.responses.coords["repeat"].values]
    trials = [list(dataset.trial_stimuli), dataset.sessions.tolist(), repeats]
    total.update(json.dumps(trials).encode())
    total.update(dataset.voxels.to_csv(index=False).encode())
    for name in sorted(dataset.rois):
        total.update(json.dumps(name).encode() + np.packbits(dataset.rois[name]).tobytes())
    total.update(dataset.stimuli.digest().encode())
    total.update("".join(split.digest() for split in dataset.splits).encode())
    return total.hexdigest()


def describe(dataset: Any) -> dict[str, Any]:
    """Return what `BrainDataset.describe` returns."""
    times = Counter(Counter(dataset.trial_stimuli).values())
    return {
        "name": dataset.name,
        "subject": dataset.subject,
        "kind": "simulated" if dataset.simulated else "measured",
        "simulated": dataset.simulated,
        "trials": dataset.n_trials,
        "stimuli": len(dataset.stimuli),
        "picture_size": list(dataset.stimuli.size),
        "sessions": len(np.unique(dataset.sessions)),
        "voxels": {
            "all": dataset.n_voxels,
            **{name: int(mask.sum()) for name, mask in dataset.rois.items()},
        },
        "repeats": {str(repeat): times[repeat] for repeat in sorted(times)},
        "splits": {s.name: {"train": len(s.train), "test": len(s.test)} for s in dataset.splits},
        "scaling": dataset.scaling_note(),
        "judge": dataset.judge,
        "source": dataset.source,
        "licence": dataset.licence,
    }


def summary(dataset: Any) -> dict[str, object]:
    """Return the rows that a `BrainDataset` prints."""
    sizes = {"all": dataset.n_voxels, **{k: int(mask.sum()) for k, mask in dataset.rois.items()}}
    splits = [f"{s.name} (train {len(s.train):,}, test {len(s.test):,})" for s in dataset.splits]
    shown = len(set(dataset.trial_stimuli))
    height, width = dataset.stimuli.size
    return {
        "trials": f"{dataset.n_trials:,} of {shown:,} stimuli",
        "sessions": len(np.unique(dataset.sessions)),
        "voxels": listed(f"{name} {count:,}" for name, count in sizes.items()),
        "pictures": f"{height} x {width} pixels",
        "splits": listed(splits, 3),
        "scaling": dataset.scaling_note(dataset.splits[:1]),
    }


def title(dataset: Any) -> str:
    """Return the first line that a `BrainDataset` prints."""
    kind = "simulated" if dataset.simulated else "measured"
    return f"BrainDataset {dataset.name}, subject {dataset.subject} ({kind})"
