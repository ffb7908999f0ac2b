"""Conversion of the class-conditional model cin256-v2 of CompVis from its single file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calcarine.checkpoints import check_safetensors
from calcarine.checkpoints.single_file import (
    averaged,
    check_weights,
    convert_once,
    digests,
    read_single_file,
)
from calcarine.diffusion.model_folder import check_folder
from calcarine.errors import DamagedFileError, MissingFileError
from calcarine.files import digest_file, write_text

__all__ = [
    "CIN256",
    "CLASSES",
    "CLASS_WEIGHT",
    "architecture",
    "build_models",
    "check_class_folder",
    "convert_state",
    "converted_folder",
    "empty_models",
    "official_configs",
]

CIN256 = Path(__file__).parent / "cin256_v2"
"""Configuration of cin256-v2 in diffusers' format, without weights."""

COMPONENTS = ("vae", "unet", "scheduler")
MODEL_FILES = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model"}
CLASSES = "class_embedding.safetensors"
"""File of the class embedding in a converted folder, with one tensor ``weight``."""

CLASS_WEIGHT = "cond_stage_model.embedding.weight"
"""Name of the class embedding in the original layout."""

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
Shapes = dict[str, tuple[int, ...]]


def converted_folder(file: Path, ema: bool = True, cache: str | Path | None = None) -> Path:
    """Return a folder in diffusers' format with the model of a single file, converted once.

    Parameters
    ----------
    file : Path
        ``.ckpt`` or ``.safetensors`` with the keys ``model.diffusion_model.*``,
        ``first_stage_model.*`` and ``cond_stage_model.embedding.weight``.
    ema : bool
        Use the averaged weights ``model_ema.*`` of the U-Net, if the file has them.
    cache : str or Path, optional
        See `calcarine.checkpoints.single_file.convert_once`.

    Raises
    ------
    DamagedFileError
        If the file is truncated, holds more than weights, or is another model.
    """

    def write(folder: Path) -> None:
        _convert(file, folder, ema)
        check_class_folder(folder)

    frames = sorted(part for part in CIN256.rglob("*.json") if part.is_file())
    return convert_once([digest_file(file), str(bool(ema)), *digests(frames)], write, cache)


def check_class_folder(folder: Path) -> None:
    """Raise unless a folder holds a complete class-conditional model."""
    check_folder(folder, COMPONENTS, MODEL_FILES)
    if not (folder / CLASSES).is_file():
        raise MissingFileError(
            f"{folder} has no {CLASSES}, so it is not a class-conditional model; copy it again."
        )
    check_safetensors(folder / CLASSES)


def _convert(file: Path, folder: Path, ema: bool) -> None:
    from safetensors.torch import save_file

    state = read_single_file(file)
    name = str(file)
    configs = architecture(state, name)
    states = convert_state(state, configs, ema, name)
    shutil.copytree(CIN256, folder, dirs_exist_ok=True)
    for part, stem in MODEL_FILES.items():
        write_text(folder / part / "config.json", json.dumps(configs[part], indent=2))
        save_file(states[part], folder / part / f"{stem}.safetensors", {"format": "pt"})
    save_file(states["classes"], folder / CLASSES, {"format": "pt"})
    write_text(folder / "converted.json", json.dumps({"file": file.name, "ema": ema}, indent=2))


def official_configs() -> dict[str, dict[str, Any]]:
    """Return the configurations of "unet", "vae" and "scheduler" of the published model."""
    files = {part: CIN256 / part / "config.json" for part in ("unet", "vae")}
    files["scheduler"] = CIN256 / "scheduler" / "scheduler_config.json"
    return {part: dict(json.loads(file.read_text())) for part, file in files.items()}


def architecture(
    state: Mapping[str, Any], name: str = "The checkpoint"
) -> dict[str, dict[str, Any]]:
    """Infer the configurations of U-Net and autoencoder from names and shapes of the weights.

    Settings that shapes do not determine (heads, groups of the norms, side of the latents, noise
    schedule) are those of the published model.

    Parameters
    ----------
    state : mapping of str to tensor
        Weights in the original layout.
    name : str
        Name of the weights for errors.

    Returns
    -------
    dict
        Configurations of "unet" and "vae".

    Raises
    ------
    DamagedFileError
        If parts or necessary weights are missing, or the noise schedule is another one.
    """
    for prefix in (_UNET, _VAE, CLASS_WEIGHT):
        if not any(key.startswith(prefix) for key in state):
            raise DamagedFileError(
                f"{name} has no weights named {prefix}, so it is not the class-conditional model "
                "cin256-v2 in its original layout."
            )
    configs = official_configs()
    _check_schedule(state, configs["scheduler"], name)
    unet, vae = configs["unet"], configs["vae"]
    try:
        unet.update(_unet_config(_shapes(state, _UNET)))
        vae.update(_vae_config(_shapes(state, _VAE)))
    except (KeyError, IndexError, ValueError) as error:
        raise DamagedFileError(
            f"{name} lacks weights of cin256-v2 that determine its widths ({error}); copy it again."
        ) from error
    if "scale_factor" in state:
        vae["scaling_factor"] = float(state["scale_factor"])
    vae["sample_size"] = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    return {"unet": unet, "vae": vae}


def _shapes(state: Mapping[str, Any], prefix: str) -> Shapes:
    return {
        key.removeprefix(prefix): tuple(value.shape)
        for key, value in state.items()
        if key.startswith(prefix)
    }


def _unet_config(shapes: Shapes) -> dict[str, Any]:
    levels: list[list[int]] = [[]]
    blocks = {key.split(".")[1] for key in shapes if key.startswith("input_blocks.")}
    for number in range(1, len(blocks)):
        if f"input_blocks.{number}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(number)
    attends = [f"input_blocks.{level[0]}.1.norm.weight" in shapes for level in levels]
    depths = {
        key.split(".")[3] for key in shapes if key.startswith("middle_block.1.transformer_blocks.")
    }
    middle = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": [
            shapes[f"input_blocks.{level[-1]}.0.out_layers.3.weight"][0] for level in levels
        ],
        "layers_per_block": len(levels[0]),
        "down_block_types": [
            "CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends
        ],
        "up_block_types": [
            "CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)
        ],
        "cross_attention_dim": shapes[middle][1],
        "transformer_layers_per_block": len(depths),
    }


def _vae_config(shapes: Shapes) -> dict[str, Any]:
    levels: list[int] = []
    while f"encoder.down.{len(levels)}.block.0.conv1.weight" in shapes:
        levels.append(shapes[f"encoder.down.{len(levels)}.block.0.conv1.weight"][0])
    layers = {key.split(".")[4] for key in shapes if key.startswith("encoder.down.0.block.")}
    codes, width = shapes["quantize.embedding.weight"]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": levels,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": len(layers),
        "latent_channels": shapes["encoder.conv_out.weight"][0],
        "num_vq_embeddings": codes,
        "vq_embed_dim": width,
    }


def _check_schedule(state: Mapping[str, Any], scheduler: Mapping[str, Any], name: str) -> None:
    """Raise if the file holds another noise schedule."""
    import torch
    from diffusers import DDIMScheduler

    betas = state.get("betas")
    if betas is None:
        return
    expected = DDIMScheduler.from_config(dict(scheduler)).betas
    same = betas.shape == expected.shape and torch.allclose(betas.float(), expected, rtol=1e-3)
    if not same:
        raise DamagedFileError(
            f"{name} is another model: its noise schedule (betas) differs from that of cin256-v2."
        )


def convert_state(
    state: Mapping[str, Any],
    configs: Mapping[str, dict[str, Any]],
    ema: bool = True,
    name: str = "The checkpoint",
) -> dict[str, dict[str, Any]]:
    """Convert original names of weights to diffusers' names.

    Parameters
    ----------
    state : mapping of str to tensor
        Weights in the original layout.
    configs : dict
        Result of `architecture`.
    ema : bool
        Use the averaged weights of the U-Net, if there are any.
    name : str
        Name of the weights for errors.

    Returns
    -------
    dict
        Weights of "unet" and "vae", and ``weight`` of "classes", (classes, width).

    Raises
    ------
    DamagedFileError
        If a weight is missing, unknown, or does not fit the shapes of the others.
    """
    from diffusers.loaders.single_file_utils import (
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
    )

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    try:
        unet = convert_ldm_unet_checkpoint(
            averaged(state, _UNET) if ema else state, configs["unet"]
        )
        vae = convert_ldm_vae_checkpoint(state, configs["vae"])
        vae["quantize.embedding.weight"] = state[f"{_VAE}quantize.embedding.weight"]
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        raise DamagedFileError(f"{name} lacks weights of cin256-v2; copy it again.") from error
    states = {"unet": unet, "vae": vae, "classes": {"weight": state[CLASS_WEIGHT]}}
    for part, shapes in _expected(configs, states["classes"]["weight"], name).items():
        check_weights(name, part, states[part], shapes, "its other weights need")
        strange = sorted(set(states[part]) - set(shapes))
        if strange:
            raise DamagedFileError(
                f"{name} is another model: cin256-v2 has no weight {strange[0]} in its {part} "
                f"({len(strange)} such)."
            )
        states[part] = {key: value.contiguous() for key, value in states[part].items()}
    return states


def _expected(configs: Mapping[str, dict[str, Any]], classes: Any, name: str) -> dict[str, Shapes]:
    """Return the shape of every weight, from models on the meta device."""
    try:
        models = empty_models(configs)
    except (ValueError, TypeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DamagedFileError(f"{name} is another model than cin256-v2: {first}") from error
    shapes: dict[str, Shapes] = {
        part: {key: tuple(value.shape) for key, value in model.named_parameters()}
        for part, model in models.items()
    }
    rows = classes.shape[0] if classes.ndim else 0
    return {**shapes, "classes": {"weight": (rows, configs["unet"]["cross_attention_dim"])}}


def empty_models(configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Make U-Net and autoencoder without memory, on torch's meta device."""
    import torch

    with torch.device("meta"):
        return build_models(configs)


def build_models(configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Make U-Net and autoencoder with random weights."""
    from diffusers import UNet2DConditionModel, VQModel

    return {
        "unet": UNet2DConditionModel.from_config(configs["unet"]),
        "vae": VQModel.from_config(configs["vae"]),
    }
