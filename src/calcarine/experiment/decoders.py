"""Fitting the decoders of every split."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import Split
from calcarine.decoding import LatentRegression, PixelRegression, choose_settings
from calcarine.experiment.reconstructions import reconstructor
from calcarine.files import atomic_write, write_text

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

__all__ = ["fit_decoders"]


def fit_decoders(work: Workspace) -> None:
    """Fit the decoders of every split and predict its test stimuli.

    Where the experiment searches for strength and guidance, they are chosen inside the training
    data of each split.
    """
    made = work.run.made("fit")
    with work.progress.track("Decoders", len(work.splits)) as advance:
        for split in work.splits:
            folder = work.run.decoder / split.name
            if not made.holds_below(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _fit_split(work, split, folder)
                made.add(file for file in folder.rglob("*") if file.is_file())
            advance(1)
    if work.config.chooses_settings([len(split.train) for split in work.splits]):
        _choose_settings(work)


def _fit_split(work: Workspace, split: Split, folder: Path) -> None:
    from safetensors.numpy import save_file

    predicted: dict[str, NDArray[Any]] = {}
    summary = {}
    if work.config.ridge.enabled:
        regression = LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options)
        regression.fit(work.dataset, split, work.z, work.c).save(folder)
        latents = regression.predict(work.dataset, split)
        predicted = {name: np.ascontiguousarray(values) for name, values in latents.items()}
        predicted["reliability_z"] = regression.reliability("z")
        summary = {name: asdict(value) for name, value in regression.summary_.items()}
    if work.config.evaluation.direct_ridge:
        pixels = PixelRegression(work.roi["pixels"], **work.ridge_options)
        pixels.fit(work.dataset, split)
        predicted["direct"] = pixels.predict(work.dataset, split)
        summary["direct ridge"] = asdict(pixels.summary_)
    _write_json(folder / "summary.json", summary)
    with atomic_write(folder / "predictions.safetensors") as partial:
        save_file(predicted, partial)


def _choose_settings(work: Workspace) -> None:
    search, made = work.config.generation.search, work.run.made("fit")
    pairs = len(search.strengths) * len(search.guidances)
    total = pairs * search.n_stimuli * len(work.splits)
    with work.progress.track("Choosing settings", total) as advance:
        for split in work.splits:
            file = work.run.decoder / split.name / "settings.json"
            if made.holds(file):
                advance(pairs * search.n_stimuli)
                continue
            chosen = choose_settings(
                reconstructor(work, steps=search.steps),
                LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options),
                work.dataset,
                split,
                work.z,
                work.c,
                search.strengths,
                search.guidances,
                search.n_stimuli,
                work.config.generation.seed,
                advance,
            )
            _write_json(file, chosen.to_json())
            made.add([file])


def _write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=2))
