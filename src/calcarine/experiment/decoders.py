"""Fitting the decoders of every split."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import Split
from calcarine.decoding import Decoder, PixelRegression, choose_settings
from calcarine.errors import CalcarineError, ShapeError
from calcarine.experiment.penalty_notes import penalty_notes
from calcarine.experiment.progress import Advance
from calcarine.experiment.reconstructions import reconstructor
from calcarine.experiment.run_directory import readable
from calcarine.experiment.shared_pieces import Piece, SharedPieces, folder_piece
from calcarine.files import atomic_write, read_json, write_text

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

__all__ = ["decoder_summaries", "fit_decoders", "share_decoders"]


def fit_decoders(work: Workspace) -> None:
    """Fit the decoders of every split and predict its test stimuli.

    Where the experiment searches for strength and guidance, they are chosen inside the training
    data of each split.
    """
    _fits(work).lead()
    with readable(work.run.decoder, "fit"):
        notes = penalty_notes(decoder_summaries(work))
    for note in notes:
        work.progress.say(note)
    if work.chooses_settings:
        _searches(work).lead()


def share_decoders(work: Workspace) -> None:
    """Share the splits of `fit_decoders` in another process."""
    _fits(work).share()
    if work.chooses_settings:
        _searches(work).share()


def _fits(work: Workspace) -> SharedPieces:
    return SharedPieces(
        work, "fit", "decoders", "Decoders", [_fit(work, split) for split in work.splits]
    )


def _fit(work: Workspace, split: Split) -> Piece:
    """Return the piece that fits the decoders of a split."""
    folder = work.run.decoder / split.name

    def write(advance: Advance) -> None:
        _fit_split(work, split, folder)
        advance(1)

    # What is chosen for a split is written there later, as a piece of its own.
    return folder_piece(folder, write, besides=[_settings_file(work, split)])


def decoder_summaries(work: Workspace) -> dict[str, Any]:
    """Read the summary of each target of every split's decoders, by name of the split."""
    summaries = {}
    for split in work.splits:
        folder = work.run.decoder / split.name
        with readable(folder, "fit"):
            summaries[split.name] = read_json(folder / "summary.json")
    return summaries


def _fit_split(work: Workspace, split: Split, folder: Path) -> None:
    from safetensors.numpy import save_file

    predicted: dict[str, NDArray[Any]] = {}
    summary = {}
    if work.config.ridge.enabled:
        decoder = work.new_decoder().fit(work.dataset, split, work.z, work.c)
        folder.mkdir(parents=True, exist_ok=True)
        decoder.save(folder)
        predicted = _predicted(work, decoder, split)
        predicted["reliability_z"] = _reliability(decoder, predicted["z"])
        made = getattr(decoder, "summary_", {})
        summary = {name: asdict(value) for name, value in made.items()}
    if work.config.evaluation.direct_ridge:
        pixels = PixelRegression(work.roi["pixels"], **work.ridge_options)
        pixels.fit(work.dataset, split)
        predicted["direct"] = pixels.predict(work.dataset, split)
        summary["direct ridge"] = asdict(pixels.summary_)
    _write_json(folder / "summary.json", summary)
    with atomic_write(folder / "predictions.safetensors") as partial:
        save_file(predicted, partial)


def _predicted(work: Workspace, decoder: Decoder, split: Split) -> dict[str, NDArray[Any]]:
    """Return what a decoder predicts for the test stimuli, checked: it may be anybody's."""
    latents = decoder.predict(work.dataset, split)
    predicted = {}
    for name, target in (("z", work.z), ("c", work.c)):
        who = f"For the test stimuli of {split.name} the decoder '{work.config.decoder.name}'"
        if name not in latents:
            raise ShapeError(f"{who} predicted no {name}; predict must return z and c.")
        predicted[name] = np.ascontiguousarray(latents[name], np.float32)
        shape = len(split.test), *target.shape[1:]
        if predicted[name].shape != shape:
            raise ShapeError(
                f"{who} predicted {name} of shape {predicted[name].shape}; it must be {shape}."
            )
        if not np.isfinite(predicted[name]).all():
            raise CalcarineError(f"{who} predicted values of {name} that are not finite.")
    return predicted


def _reliability(decoder: Decoder, z: NDArray[Any]) -> NDArray[Any]:
    """Return how well each value of z is predicted; all alike if the decoder does not say."""
    if hasattr(decoder, "reliability"):
        return np.asarray(decoder.reliability("z"))
    return np.ones(z.shape[1:])


def _searches(work: Workspace) -> SharedPieces:
    pieces = [_search(work, split) for split in work.splits]
    return SharedPieces(work, "fit", "settings", "Choosing settings", pieces)


def _search(work: Workspace, split: Split) -> Piece:
    """Return the piece that chooses strength and guidance inside the training data of a split."""
    search, file = work.config.generation.search, _settings_file(work, split)

    def make(advance: Advance) -> None:
        chosen = choose_settings(
            reconstructor(work, steps=search.steps),
            work.new_decoder(),
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

    size = len(search.strengths) * len(search.guidances) * search.n_stimuli
    return Piece(size, lambda: [file], lambda made: made.holds(file), make)


def _settings_file(work: Workspace, split: Split) -> Path:
    return work.run.decoder / split.name / "settings.json"


def _write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=2))
