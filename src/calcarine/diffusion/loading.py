"""Where a model is found, and its components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from calcarine.diffusion.checkpoints import check_folder, download, locate
from calcarine.diffusion.original import converted_folder, is_single_file
from calcarine.errors import CalcarineError


def model_folder(source: str | Path, *single_file_options: Any) -> Path:
    """Folder of a model, found, converted or downloaded."""
    place = locate(source)
    if isinstance(place, str):
        weights = [f"{part}/*.safetensors" for part in ("vae", "unet", "text_encoder")]
        place = download(place, ["*.json", "*/*.json", "*/*.txt", *weights])
    elif is_single_file(place):
        place = converted_folder(place, *single_file_options)
    check_folder(place)
    return place


def load_parts(place: Path, dtype: torch.dtype, vae: Any) -> tuple[Any, ...]:
    """Autoencoder, text encoder, tokenizer, U-Net and scheduler of a folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    options["low_cpu_mem_usage"] = False  # True needs accelerate, which is no dependency
    try:
        return (
            vae or AutoencoderKL.from_pretrained(place, subfolder="vae", **options),
            CLIPTextModel.from_pretrained(
                place / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True
            ),
            CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True),
            UNet2DConditionModel.from_pretrained(place, subfolder="unet", **options),
            DDIMScheduler.from_pretrained(place, subfolder="scheduler"),
        )
    except Exception as error:
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        raise CalcarineError(f"The model in {place} could not be loaded: {first}") from error
