"""Where a model is found, and its components."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calcarine.checkpoints import check_loaded
from calcarine.checkpoints.single_file import is_single_file
from calcarine.diffusion.model_folder import (
    check_folder,
    download_model,
    find_variant,
    locate,
    variant_notes,
)
from calcarine.diffusion.original import converted_folder
from calcarine.diffusion.schedulers import load_ddim
from calcarine.diffusion.tokenizer import check_tokenizer, check_words
from calcarine.errors import CalcarineError, out_of_memory
from calcarine.files import read_json

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
"""Classes of diffusers that may stand for the autoencoder."""

OTHER_PARTS_OF_CLIP = ("text_projection.", "vision_model.", "visual_projection.", "logit_scale")
"""Weights that a file of a whole CLIP holds beside the text encoder's."""


def model_folder(source: str | Path, *single_file_options: Any) -> Path:
    """Folder of a model, found, converted or downloaded."""
    place = locate(source)
    if isinstance(place, str):
        place = download_model(place)
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


def load_parts(place: Path, dtype: torch.dtype, vae: Any) -> tuple[tuple[Any, ...], list[str]]:
    """Autoencoder, text encoder, tokenizer, U-Net and scheduler of a folder, and notes on them."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTokenizer

    check_tokenizer(place / "tokenizer")
    scheduler, notes = load_ddim(place / "scheduler" / "scheduler_config.json")
    with loading_errors(place):
        words = CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True)
    parts = (
        vae or load_autoencoder(place / "vae", dtype),
        _load_text_encoder(place / "text_encoder", dtype),
        words,
        load_network(UNet2DConditionModel, place / "unet", dtype),
        scheduler,
    )
    check_words(words, parts[1], place)
    return parts, notes + variant_notes(
        place, ("vae", "text_encoder", "unet") if vae is None else ("text_encoder", "unet")
    )


def load_network(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A network of diffusers from its folder, with all of its weights.

    Parameters
    ----------
    kind : class
        Such as ``UNet2DConditionModel``.
    folder : Path
        With ``config.json`` and safetensors, whole or in shards; where there is only a variant
        such as ``*.fp16.safetensors``, that is read.
    dtype : torch.dtype

    Raises
    ------
    CalcarineError
        If weights are missing, unknown or of another shape, or the folder cannot be read.
    """
    with loading_errors(folder):
        network, info = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # True needs accelerate, which is no dependency
            variant=find_variant(folder, "diffusion_pytorch_model"),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the info, and refused below
        )
    check_loaded(info, folder)
    return network


def load_autoencoder(folder: Path, dtype: torch.dtype) -> Any:
    """The autoencoder of diffusers that the ``config.json`` of a folder names."""
    import diffusers

    with loading_errors(folder):
        about = read_json(folder / "config.json")
        name = about.get("_class_name", AUTOENCODERS[0])
    if name not in AUTOENCODERS:
        raise CalcarineError(
            f"The autoencoder in {folder} is of the kind {name}; those that can be used are "
            f"{', '.join(AUTOENCODERS)}."
        )
    return load_network(getattr(diffusers, name), folder, dtype)


def _load_text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with loading_errors(folder):
        loaded: Any = CLIPTextModel.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=find_variant(folder, "model"),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the info, and refused below
        )
    network, info = loaded
    check_loaded(info, folder, unused=OTHER_PARTS_OF_CLIP)
    return network


@contextmanager
def loading_errors(place: Path) -> Iterator[None]:
    """Whatever goes wrong while a model is loaded becomes one sentence."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        raise CalcarineError(f"The model in {place} could not be loaded: {first}") from error
