"""Storage of masked autoencoders: weights as safetensors, the rest as JSON."""

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
from calcarine.errors import CalcarineError, DamagedFileError, ShapeError
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
"""Name and version of the format, stored in the JSON."""

POSITIONS = ("encoder.positions", "decoder_positions")
"""Names of the positions in a state dict, if it has any."""


def save_encoder(folder: str | Path, autoencoder: FMRIAutoencoder, about: dict[str, Any]) -> Path:
    """Write a masked autoencoder to ``encoder.safetensors`` and ``encoder.json`` of a folder.

    Parameters
    ----------
    folder : str or Path
        Created if it does not exist.
    autoencoder : FMRIAutoencoder
    about : dict
        Origin of the weights; plain JSON.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CalcarineError
        If ``about`` is not plain JSON, or the folder cannot be written.

    Notes
    -----
    Both files are written atomically. The JSON is written last and holds a hash of configuration
    and weights, so `load_encoder` detects an interruption between the two. Positions other than
    sines (:func:`set_positions`) are stored with the weights.

    Examples
    --------
    >>> from calcarine.visdec import AutoencoderConfig, FMRIAutoencoder, save_encoder
    >>> config = AutoencoderConfig(n_patches=20, dim=32, depth=2, heads=4, decoder_dim=32)
    >>> folder = save_encoder("encoder", FMRIAutoencoder(config), {"pool": "my data"})
    >>> sorted(path.name for path in folder.iterdir())
    ['encoder.json', 'encoder.safetensors']
    """
    folder = Path(folder)
    weights, description = _paths(folder)
    config = autoencoder.config.to_json()
    state = {key: value.cpu().contiguous() for key, value in autoencoder.state_dict().items()}
    try:
        text = json.dumps({"about": about}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CalcarineError(
            f"The description of an encoder must be plain JSON ({error}); use only texts, "
            "numbers, lists and dictionaries."
        ) from error
    try:
        with atomic_write(weights) as part:
            save_file(state, part, {"format": "pt"})
            digest = digest_file(part)
        content = {"format": FORMAT, "sha256": _digest(config, digest), "config": config}
        write_text(description, json.dumps(content | json.loads(text), indent=2))
    except (OSError, SafetensorError) as error:
        raise CalcarineError(
            f"Could not write the encoder to {folder} ({error}); choose a writable folder with "
            "enough space."
        ) from error
    return folder


def load_encoder(folder: str | Path) -> FMRIAutoencoder:
    """Read a masked autoencoder that :func:`save_encoder` wrote, in float32 on the CPU.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    FMRIAutoencoder

    Raises
    ------
    DamagedFileError
        If a file is missing, truncated, changed, or belongs to another save.

    Examples
    --------
    >>> from calcarine.visdec import AutoencoderConfig, FMRIAutoencoder, load_encoder, save_encoder
    >>> config = AutoencoderConfig(n_patches=20, dim=32, depth=2, heads=4, decoder_dim=32)
    >>> folder = save_encoder("encoder", FMRIAutoencoder(config), {"pool": "my data"})
    >>> load_encoder(folder).config == config
    True
    """
    weights, description = _paths(Path(folder))
    content = _described(description)
    if not weights.is_file():
        raise DamagedFileError(f"{folder} has no {weights.name}; copy the encoder again, whole.")
    state = load_safetensors(weights)
    if content["sha256"] != _digest(content["config"], digest_file(weights)):
        raise DamagedFileError(
            f"{weights} is not the file that {description.name} describes; the last save was "
            "interrupted or a file was changed; copy or save the encoder again."
        )
    config = AutoencoderConfig.from_json(content["config"])
    autoencoder = new_autoencoder(config)
    if all(name in state for name in POSITIONS):
        set_positions(autoencoder, *(state[name] for name in POSITIONS))
    try:
        autoencoder.load_state_dict(state)
    except RuntimeError as error:
        raise DamagedFileError(
            f"The weights of {weights} do not fit their configuration; another version of "
            "calcarine wrote them, so save the encoder again."
        ) from error
    return autoencoder.eval()


def read_about(folder: str | Path) -> dict[str, Any]:
    """Return the description with which an encoder was saved."""
    return dict(_described(_paths(Path(folder))[1])["about"])


def new_autoencoder(config: AutoencoderConfig, seed: int = 0) -> FMRIAutoencoder:
    """Make a new autoencoder from a seed, without changing torch's own random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return FMRIAutoencoder(config)


def set_positions(
    autoencoder: FMRIAutoencoder, encoder: torch.Tensor, decoder: torch.Tensor
) -> None:
    """Replace the fixed sines of an autoencoder by other positions.

    The positions become a part of its ``state_dict`` and are stored with the weights.

    Parameters
    ----------
    autoencoder : FMRIAutoencoder
    encoder, decoder : tensor of shape (patches + 1, dim), (patches + 1, decoder dim)
        The first row is for the class token.
    """
    keep_positions(autoencoder.encoder, encoder)
    keep_positions(autoencoder, decoder, "decoder_positions")


def keep_positions(module: nn.Module, table: torch.Tensor, name: str = "positions") -> None:
    """Replace the positions of one part of an autoencoder, and store them with its weights."""
    old = getattr(module, name)
    if table.shape != old.shape:
        raise ShapeError(
            f"Positions of shape {tuple(table.shape)} do not fit a network that needs "
            f"{tuple(old.shape)}."
        )
    module.register_buffer(name, table.detach().to(old).clone(), persistent=True)


def has_own_positions(autoencoder: FMRIAutoencoder) -> bool:
    """Return whether :func:`set_positions` replaced the positions."""
    return any(name in autoencoder.state_dict() for name in POSITIONS)


def _paths(folder: Path) -> tuple[Path, Path]:
    return folder / "encoder.safetensors", folder / "encoder.json"


def _digest(config: dict[str, Any], weights: str) -> str:
    text = json.dumps([config, weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _described(path: Path) -> dict[str, Any]:
    """Return the content of the JSON, with its parts checked."""
    try:
        content = read_json(path)
    except OSError as error:
        raise DamagedFileError(
            f"There is no encoder in {path.parent}: {path.name} cannot be read "
            f"({error.strerror}); give a folder that save_encoder wrote."
        ) from error
    except ValueError as error:
        raise DamagedFileError(f"{path} is not complete; copy the encoder again.") from error
    parts = content if isinstance(content, dict) else {}
    if parts.get("format") != FORMAT:
        raise DamagedFileError(f"{path} is not of the format {FORMAT}; save the encoder again.")
    if not (isinstance(parts.get("config"), dict) and isinstance(parts.get("about"), dict)):
        raise DamagedFileError(f"{path} lacks its config or its about; copy the encoder again.")
    return {"sha256": None, **parts}
