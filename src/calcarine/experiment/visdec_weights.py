"""Weights that Vis-Dec starts from, and what they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.brain import Split
from calcarine.errors import CalcarineError, LeakageError

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder

__all__ = ["encoder_history", "starting_weights", "unknown_history"]


def encoder_history(work: Workspace, phase: str, split: Split) -> dict[str, Any]:
    """What a later user of the encoder must know: whose responses it has met."""
    dataset = work.dataset
    return {
        "phase": phase,
        "dataset": dataset.name,
        "subject": dataset.subject,
        "trained on": sorted(split.train),
        "transductive": work.config.visdec.transductive,
        "roi": work.config.visdec.roi,
        "met before": _met_before(work),
        "unknown": unknown_history(work.config.visdec.pretrain.start),
    }


def _met_before(work: Workspace) -> list[dict[str, Any]]:
    """Whose responses came in by the pool, or by the weights that were begun from."""
    from calcarine.visdec.encoder_storage import read_about

    config = work.config.visdec.pretrain
    met: list[dict[str, Any]] = []
    if work.config.visdec.runs("pretrain"):
        # All of their training stimuli may have been met, of any subject where none is named.
        met += [
            {"dataset": part.name, "subject": part.subject}
            for part in config.pool
            if part.source == "dataset"
        ]
    if config.start is not None and Path(config.start).is_dir():
        about = read_about(config.start)
        met += [{name: about.get(name) for name in _MET}, *about.get("met before", [])]
    return met


_MET = ("dataset", "subject", "trained on", "transductive")


def unknown_history(start: str | None) -> bool:
    """Whether weights began, at whatever remove, from published ones."""
    from calcarine.visdec.encoder_storage import read_about

    if start is None:
        return False
    return not Path(start).is_dir() or bool(read_about(start).get("unknown"))


def _refuse_if_met(work: Workspace, split: Split, about: dict[str, Any], place: Path) -> None:
    """Weights must not have met what is tested here, of this subject, at whatever remove."""
    if work.config.visdec.allow_transductive:
        return
    for entry in (about, *about.get("met before", [])):
        same = entry.get("dataset") == work.dataset.name
        same = same and entry.get("subject") in (None, work.dataset.subject)
        trained_on = entry.get("trained on")
        met = trained_on is None or set(trained_on) & set(split.test)
        if not same or not (met or entry.get("transductive")):
            continue
        raise LeakageError(
            f"The weights in {place} were trained on responses of this subject that are test "
            f"responses in {split.name}; begin elsewhere, or set visdec.allow_transductive=true, "
            "which the report will say."
        )


def _refuse_other_voxels(work: Workspace, about: dict[str, Any], place: Path) -> None:
    """Weights of each patch's own are those of certain voxels."""
    dataset = work.dataset
    here = {"dataset": dataset.name, "subject": dataset.subject, "roi": work.config.visdec.roi}
    strange = [name for name, value in here.items() if about.get(name) != value]
    if strange:
        raise CalcarineError(
            f"{place} has weights of each patch's own, for the {strange[0]} "
            f"{about.get(strange[0])} and not {here[strange[0]]}; begin from weights of the same "
            "voxels, or train with visdec.encoder.embedding=shared."
        )


def starting_weights(
    work: Workspace, split: Split, shape: AutoencoderConfig
) -> FMRIAutoencoder | None:
    """Weights to begin from, brought to the number of patches that is needed here."""
    source = work.config.visdec.pretrain.start
    if source is None:
        return None
    from calcarine.visdec.encoder_storage import has_own_positions, load_encoder, read_about
    from calcarine.visdec.published_encoder import interpolated, load_published_encoder

    place = Path(source)
    if place.is_dir():
        _refuse_if_met(work, split, read_about(place), place)
    found = load_encoder(place) if place.is_dir() else load_published_encoder(place).autoencoder
    if found.config.patch != shape.patch:
        raise CalcarineError(
            f"{place} has patches of {found.config.patch} voxels, and visdec.encoder.patch is "
            f"{shape.patch}; set it to {found.config.patch}."
        )
    if found.config.embedding != shape.embedding:
        raise CalcarineError(
            f"{place} embeds patches by {found.config.embedding} weights, and "
            f"visdec.encoder.embedding is {shape.embedding}; set it to {found.config.embedding}."
        )
    if shape.embedding == "own":
        _refuse_other_voxels(work, read_about(place), place)
    # Of a table that is not the sines only a stretched one is known, as in the published code.
    own = has_own_positions(found)
    return interpolated(found, shape.n_patches, "interpolate" if own else "sine")
