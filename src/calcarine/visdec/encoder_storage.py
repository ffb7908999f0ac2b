"""Masked autoencoders on disk: weights in safetensors, the rest in JSON. Loading runs no code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from calcarine.checkpoints import load_safetensors
from calcarine.errors import CalcarineError
from calcarine.files import atomic_write, digest_file, read_json, write_text
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder

__all__ = [
    "has_own_positions",
    "keep_positions",
    "load_encoder",
    "new_autoencoder",
    "read_about",
    "save_encoder",
    "set_positions",
]

FORMAT = "calcarine-fmri-autoencoder-1"
"""Name and version of the layout, written into the JSON."""

POSITIONS = ("encoder.positions", "decoder_positions")
"""Names of the positions in a state dict that has any."""


def save_encoder(folder: str | Path, autoencoder: FMRIAutoencoder, about: dict[str, Any]) -> Path:
    """Write a masked autoencoder to ``encoder.safetensors`` and ``encoder.json`` of a folder.

    Parameters
    ----------
    folder : str or Path
        Made when missing.
    autoencoder
    about : dict
        Where the weights come from; plain JSON.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CalcarineError
        When ``about`` is no plain JSON, or the folder cannot be written.

    Notes
    -----
    Each file is written aside and renamed. The JSON comes last and holds a hash of configuration
    and weights, so an interruption between the two is noticed when loading. Positions that are
    no sines (:func:`set_positions`) are stored with the weights.
    """
    folder = Path(folder)
    weights, description = _paths(folder)
    config = autoencoder.config.to_json()
    state = {key: value.cpu().contiguous() for key, value in autoencoder.state_dict().items()}
    try:
        text = json.dumps({"about": about}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CalcarineError(
            f"What is told about an encoder must be plain JSON ({error}); give words, numbers, "
            "lists and dictionaries."
        ) from error
    try:
        with atomic_write(weights) as aside:
            save_file(state, aside, {"format": "pt"})
            digest = digest_file(aside)
        content = {"format": FORMAT, "sha256": _digest(config, digest), "config": config}
        write_text(description, json.dumps(content | json.loads(text), indent=2))
    except (OSError, SafetensorError) as error:
        raise CalcarineError(
            f"Could not write the encoder to {folder} ({error}); choose a folder with room that "
            "you may write to."
        ) from error
    return folder


def load_encoder(folder: str | Path) -> FMRIAutoencoder:
    """Read a masked autoencoder that :func:`save_encoder` wrote, in float32 on the CPU.

    Raises
    ------
    CalcarineError
        When a file is missing, truncated, changed, or belongs to another save.
    """
    weights, description = _paths(Path(folder))
    content = _described(description)
    if not weights.is_file():
        raise CalcarineError(f"{folder} has no {weights.name}; copy the encoder again, whole.")
    state = load_safetensors(weights)
    if content["sha256"] != _digest(content["config"], digest_file(weights)):
        raise CalcarineError(
            f"{weights} is not the file that {description.name} describes; the last save was "
            "interrupted or a file was changed, so copy or save the encoder again."
        )
    config = AutoencoderConfig.from_json(content["config"])
    autoencoder = new_autoencoder(config)
    if all(name in state for name in POSITIONS):
        set_positions(autoencoder, *(state[name] for name in POSITIONS))
    try:
        autoencoder.load_state_dict(state)
    except RuntimeError as error:
        raise CalcarineError(
            f"The weights of {weights} do not fit their configuration; they were written by "
            "another version of calcarine, so save the encoder again."
        ) from error
    return autoencoder.eval()


def read_about(folder: str | Path) -> dict[str, Any]:
    """What was told about an encoder when it was saved."""
    return dict(_described(_paths(Path(folder))[1])["about"])


def new_autoencoder(config: AutoencoderConfig, seed: int = 0) -> FMRIAutoencoder:
    """A fresh autoencoder, the same for a seed; the caller's random numbers go on as if unasked."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return FMRIAutoencoder(config)


def set_positions(
    autoencoder: FMRIAutoencoder, encoder: torch.Tensor, decoder: torch.Tensor
) -> None:
    """Give an autoencoder other positions than the fixed sines.

    They then belong to its ``state_dict``, so that nothing can store the weights without them,
    and a strict reader that knows only sines refuses them.

    Parameters
    ----------
    encoder, decoder
        Shapes (patches + 1, dim) and (patches + 1, decoder dim); the first row is for the class
        token.
    """
    keep_positions(autoencoder.encoder, encoder)
    keep_positions(autoencoder, decoder, "decoder_positions")


def keep_positions(module: nn.Module, table: torch.Tensor, name: str = "positions") -> None:
    """Give one part of an autoencoder other positions, stored with its weights."""
    old = getattr(module, name)
    if table.shape != old.shape:
        raise CalcarineError(
            f"Positions of shape {tuple(table.shape)} do not fit a network that needs "
            f"{tuple(old.shape)}."
        )
    module.register_buffer(name, table.detach().to(old).clone(), persistent=True)


def has_own_positions(autoencoder: FMRIAutoencoder) -> bool:
    """Whether the positions were given by :func:`set_positions`."""
    return any(name in autoencoder.state_dict() for name in POSITIONS)


def _paths(folder: Path) -> tuple[Path, Path]:
    return folder / "encoder.safetensors", folder / "encoder.json"


def _digest(config: dict[str, Any], weights: str) -> str:
    text = json.dumps([config, weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _described(path: Path) -> dict[str, Any]:
    """Content of the JSON, whose parts are known to be there."""
    try:
        content = read_json(path)
    except OSError as error:
        raise CalcarineError(
            f"There is no encoder in {path.parent}: {path.name} cannot be read "
            f"({error.strerror}); give a folder that save_encoder wrote."
        ) from error
    except ValueError as error:
        raise CalcarineError(f"{path} is no whole JSON; copy the encoder again.") from error
    parts = content if isinstance(content, dict) else {}
    if parts.get("format") != FORMAT:
        raise CalcarineError(f"{path} is not of the format {FORMAT}; save the encoder again.")
    if not (isinstance(parts.get("config"), dict) and isinstance(parts.get("about"), dict)):
        raise CalcarineError(f"{path} lacks its config or its about; copy the encoder again.")
    return {"sha256": None, **parts}
