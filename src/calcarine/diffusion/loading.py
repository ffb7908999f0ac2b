"""Where a model is found, and its components."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calcarine.diffusion.model_folder import check_folder, download, locate
from calcarine.diffusion.original import converted_folder
from calcarine.diffusion.single_file import is_single_file
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


def target_device(device: str | torch.device | None, dtype: torch.dtype) -> torch.device:
    """The device asked for, else CUDA where there is one; float16 is refused on a CPU."""
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype == torch.float16 and target.type == "cpu":
        raise CalcarineError("float16 is for GPUs and there is none; choose float32.")
    return target


def digest_as(digest: str, dtype: torch.dtype) -> str:
    """A digest that says when weights are not kept in float32."""
    if dtype == torch.float32:
        return digest
    return f"{digest}-{str(dtype).removeprefix('torch.')}"


def load_parts(place: Path, dtype: torch.dtype, vae: Any) -> tuple[Any, ...]:
    """Autoencoder, text encoder, tokenizer, U-Net and scheduler of a folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = diffusers_options(dtype)
    with told_in_a_sentence(place):
        return (
            vae or AutoencoderKL.from_pretrained(place, subfolder="vae", **options),
            CLIPTextModel.from_pretrained(
                place / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True
            ),
            CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True),
            UNet2DConditionModel.from_pretrained(place, subfolder="unet", **options),
            DDIMScheduler.from_pretrained(place, subfolder="scheduler"),
        )


def diffusers_options(dtype: torch.dtype) -> dict[str, Any]:
    """How networks of diffusers are read: safetensors only, never from the network."""
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    options["low_cpu_mem_usage"] = False  # True needs accelerate, which is no dependency
    return options


@contextmanager
def told_in_a_sentence(place: Path) -> Iterator[None]:
    """Whatever goes wrong while a model is loaded becomes one sentence."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        raise CalcarineError(f"The model in {place} could not be loaded: {first}") from error
