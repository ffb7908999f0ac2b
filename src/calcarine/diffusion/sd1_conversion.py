"""Conversion of the original single file of Stable Diffusion v1 to a folder.

No code of the file is run: torch's restricted reader reads weights only from pickles.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calcarine.checkpoints.single_file import (
    averaged,
    check_weights,
    convert_once,
    digests,
    read_single_file,
)
from calcarine.diffusion.model_folder import MODEL_FILES, check_folder
from calcarine.diffusion.tokenizer import find_tokenizer
from calcarine.errors import DamagedFileError
from calcarine.files import digest_file, read_json, write_text

__all__ = ["SD_V1", "convert_state", "converted_folder"]

SD_V1 = Path(__file__).parent / "sd_v1"
"""Configuration of Stable Diffusion v1 in diffusers' format, without weights and tokenizer."""

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def converted_folder(
    file: Path,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    ema: bool = True,
    cache: str | Path | None = None,
) -> Path:
    """Return a folder in diffusers' format with the model of a single file, converted once.

    Parameters
    ----------
    file : Path
        ``.ckpt`` or ``.safetensors`` with the keys ``model.diffusion_model.*``,
        ``first_stage_model.*`` and ``cond_stage_model.transformer.*``.
    tokenizer : str or Path, optional
        Folder with ``vocab.json`` and ``merges.txt``; from the hub or its cache by default.
    config : str or Path, optional
        Folder with ``unet/config.json`` and so on, for a model of other widths; Stable Diffusion
        v1 by default.
    ema : bool
        Use the averaged weights ``model_ema.*`` of the U-Net, if the file has them.
    cache : str or Path, optional
        Folder of conversions; by default ``CALCARINE_CACHE``, else ``~/.cache/calcarine``.

    Returns
    -------
    Path

    Raises
    ------
    DamagedFileError
        If the file is truncated, holds more than weights, or is another model.

    Notes
    -----
    The name of the folder is a hash of the file, its settings and the tokenizer. The write is
    atomic.
    """
    frame = SD_V1 if config is None else Path(config)
    words = find_tokenizer(tokenizer)
    frames = sorted(part for part in frame.rglob("*.json") if part.is_file())
    parts = [digest_file(file), str(bool(ema)), *digests(frames), *digests(words)]

    def write(folder: Path) -> None:
        _convert(file, frame, words, folder, ema)
        check_folder(folder)

    return convert_once(parts, write, cache)


def _convert(file: Path, frame: Path, words: list[Path], folder: Path, ema: bool) -> None:
    """Write configuration, tokenizer and weights of ``file`` into ``folder``."""
    from safetensors.torch import save_file

    states = convert_state(read_single_file(file), frame, ema, str(file))
    shutil.copytree(frame, folder, dirs_exist_ok=True)
    (folder / "tokenizer").mkdir(exist_ok=True)
    for word in words:
        shutil.copyfile(word, folder / "tokenizer" / word.name)
    for part, state in states.items():
        save_file(state, folder / part / f"{MODEL_FILES[part]}.safetensors", {"format": "pt"})
    about = {"file": file.name, "ema": ema}
    write_text(folder / "converted.json", json.dumps(about, indent=2))


def convert_state(
    state: Mapping[str, Any], frame: Path, ema: bool = True, name: str = "The checkpoint"
) -> dict[str, dict[str, Any]]:
    """Convert original names of weights to diffusers' names.

    Parameters
    ----------
    state : mapping of str to tensor
        Weights in the original layout.
    frame : Path
        Folder with the configuration of each part.
    ema : bool
        Use the averaged weights of the U-Net, if there are any.
    name : str
        Name of the weights for errors.

    Returns
    -------
    dict
        Weights of "unet", "vae" and "text_encoder".

    Raises
    ------
    DamagedFileError
        If weights are missing, or their shapes differ from the configuration.
    """
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
    )

    for prefix in (_UNET, _VAE, _TEXT):
        if not any(key.startswith(prefix) for key in state):
            raise DamagedFileError(
                f"{name} has no weights named {prefix}*; it is not Stable Diffusion v1 in its "
                "original layout."
            )
    configs = {part: _read_config(frame / part / "config.json") for part in MODEL_FILES}
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    try:
        states = {
            "unet": convert_ldm_unet_checkpoint(
                averaged(state, _UNET) if ema else state, configs["unet"]
            ),
            "vae": convert_ldm_vae_checkpoint(state, configs["vae"]),
            "text_encoder": convert_ldm_clip_checkpoint(state),
        }
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        raise DamagedFileError(
            f"{name} lacks weights of Stable Diffusion v1; copy it again, or give its config."
        ) from error
    # A buffer of older versions, not a weight.
    states["text_encoder"].pop("text_model.embeddings.position_ids", None)
    for part, shapes in _expected(configs).items():
        check_weights(
            name, part, states[part], shapes, "Stable Diffusion v1 has", "; give its config"
        )
        states[part] = {key: value.contiguous() for key, value in states[part].items()}
    return states


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFileError(
            f"{file} is missing or not JSON; a config folder has one for unet, vae and "
            "text_encoder."
        ) from error


def _expected(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every weight, from models on the meta device."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        models = {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
        }
    return {
        part: {key: tuple(value.shape) for key, value in model.named_parameters()}
        for part, model in models.items()
    }
