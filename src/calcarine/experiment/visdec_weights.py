"""Weights that Vis-Dec starts from, and what they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.brain import Split
from calcarine.errors import LeakageError, SettingError

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder

__all__ = ["encoder_history", "refuse_test_leak", "starting_weights", "unknown_history"]

_HISTORY = ("dataset", "subject", "trained on", "transductive")


def encoder_history(work: Workspace, phase: str, split: Split) -> dict[str, Any]:
    """Return what a later user of the encoder must know: the responses it was trained on.

    Parameters
    ----------
    work : Workspace
    phase : {"pretrain", "guide"}
    split : Split

    Returns
    -------
    dict
        Ready for JSON; stored with the weights.
    """
    dataset = work.dataset
    return {
        "phase": phase,
        "dataset": dataset.name,
        "subject": dataset.subject,
        "trained on": sorted(split.train),
        "transductive": work.config.visdec.transductive,
        "roi": work.config.visdec.roi,
        "met before": _earlier_training(work),
        "unknown": unknown_history(work.config.visdec.pretrain.start),
    }


def unknown_history(start: str | None) -> bool:
    """Return whether weights go back, over any number of trainings, to published ones.

    Parameters
    ----------
    start : str or None
        Folder of your own weights, or a published file.
    """
    from calcarine.visdec.encoder_storage import read_about

    if start is None:
        return False
    return not Path(start).is_dir() or bool(read_about(start).get("unknown"))


def starting_weights(
    work: Workspace, split: Split, shape: AutoencoderConfig, phase: str
) -> FMRIAutoencoder | None:
    """Return the weights that training starts from, with as many patches as the data need.

    Parameters
    ----------
    work : Workspace
    split : Split
        Split whose test responses the weights must not have been trained on.
    shape : AutoencoderConfig
        Shape that the settings ask for.
    phase : {"pretrain", "guide", "finetune"}
        The first phase that trains the weights. Published weights begin the last phase with the
        positions that the published code gives them, see
        :func:`calcarine.visdec.other_lengths.interpolated`.

    Returns
    -------
    FMRIAutoencoder or None
        None where the settings name no weights.

    Raises
    ------
    LeakageError
        If the weights were trained on test responses of the split.
    CalcarineError
        If the weights have another shape.
    """
    source = work.config.visdec.pretrain.start
    if source is None:
        return None
    from calcarine.visdec.encoder_storage import has_own_positions, load_encoder, read_about
    from calcarine.visdec.other_lengths import interpolated
    from calcarine.visdec.published_encoder import load_published_encoder

    place = Path(source)
    if place.is_dir():
        refuse_test_leak(work, split, read_about(place), place)
        weights = load_encoder(place)
    else:
        weights = work.load(lambda: load_published_encoder(place)).autoencoder
    _check_patches(weights.config, shape, place)
    if shape.embedding == "own":
        _refuse_other_voxels(work, read_about(place), place)
    # In its earlier phases, the published code fits the vectors to the weights, not the positions
    # to the vectors, so a patch keeps its position. Learned positions can only be stretched.
    stretched = has_own_positions(weights) or (phase == "finetune" and not place.is_dir())
    return interpolated(weights, shape.n_patches, "nearest" if stretched else "sine")


def _check_patches(found: AutoencoderConfig, wanted: AutoencoderConfig, place: Path) -> None:
    """Raise if weights cut or embed vectors in another way than the settings ask for."""
    if found.patch != wanted.patch:
        raise SettingError(
            f"{place} has patches of {found.patch} voxels, and visdec.encoder.patch is "
            f"{wanted.patch}; set it to {found.patch}."
        )
    if found.embedding != wanted.embedding:
        raise SettingError(
            f"{place} embeds patches by {found.embedding} weights, and visdec.encoder.embedding "
            f"is {wanted.embedding}; set it to {found.embedding}."
        )


def refuse_test_leak(work: Workspace, split: Split, about: dict[str, Any], place: Path) -> None:
    """Refuse weights that were trained on responses tested here, over any number of trainings.

    Parameters
    ----------
    work : Workspace
    split : Split
    about : dict
        History of the weights, as :func:`encoder_history` returns it.
    place : Path
        Where the weights are, for the error.

    Raises
    ------
    LeakageError
        Unless ``visdec.allow_transductive`` is set.
    """
    if work.config.visdec.allow_transductive:
        return
    for entry in (about, *about.get("met before", [])):
        same = entry.get("dataset") == work.dataset.name
        same = same and entry.get("subject") in (None, work.dataset.subject)
        trained_on = entry.get("trained on")
        leaks = trained_on is None or set(trained_on) & set(split.test)
        if not same or not (leaks or entry.get("transductive")):
            continue
        raise LeakageError(
            f"The weights in {place} were trained on responses of this subject that are test "
            f"responses in {split.name}; start from other weights, or set "
            "visdec.allow_transductive=true, which the report will say."
        )


def _earlier_training(work: Workspace) -> list[dict[str, Any]]:
    """Return the responses that came in by the pool, or by the weights at the start."""
    from calcarine.visdec.encoder_storage import read_about

    config = work.config.visdec.pretrain
    history: list[dict[str, Any]] = []
    if work.config.visdec.runs("pretrain"):
        # Assume all of their training stimuli, of any subject where none is named.
        history += [
            {"dataset": part.name, "subject": part.subject}
            for part in config.pool
            if part.source == "dataset"
        ]
    if config.start is not None and Path(config.start).is_dir():
        about = read_about(config.start)
        history += [{name: about.get(name) for name in _HISTORY}, *about.get("met before", [])]
    return history


def _refuse_other_voxels(work: Workspace, about: dict[str, Any], place: Path) -> None:
    """Refuse weights that belong to each patch, on other voxels than their own."""
    dataset = work.dataset
    here = {"dataset": dataset.name, "subject": dataset.subject, "roi": work.config.visdec.roi}
    different = [name for name, value in here.items() if about.get(name) != value]
    if different:
        name = different[0]
        raise SettingError(
            f"{place} has its own weights for each patch, for the {name} {about.get(name)} and "
            f"not {here[name]}; start from weights of the same voxels, or train with "
            "visdec.encoder.embedding=shared."
        )
