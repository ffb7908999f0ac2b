"""Location and components of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calcarine.checkpoints import check_loaded
from calcarine.checkpoints.single_file import is_single_file
from calcarine.diffusion.ddim_conversion import load_ddim
from calcarine.diffusion.model_folder import (
    check_folder,
    download_model,
    find_variant,
    locate,
    variant_notes,
)
from calcarine.diffusion.sd1_conversion import converted_folder
from calcarine.diffusion.tokenizer import check_tokenizer, check_words
from calcarine.errors import CalcarineError, DamagedFileError, SettingError, out_of_memory
from calcarine.files import read_json

__all__ = [
    "AUTOENCODERS",
    "OTHER_PARTS_OF_CLIP",
    "digest_as",
    "load_autoencoder",
    "load_network",
    "load_parts",
    "loading_errors",
    "model_folder",
]

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
"""Classes of diffusers that can be the autoencoder."""

OTHER_PARTS_OF_CLIP = ("text_projection.", "vision_model.", "visual_projection.", "logit_scale")
"""Weights of a complete CLIP that do not belong to its text encoder."""


def model_folder(source: str | Path, *single_file_options: Any) -> Path:
    """Return the folder of a model; convert or download it first if necessary."""
    place = locate(source)
    if isinstance(place, str):
        place = download_model(place)
    elif is_single_file(place):
        place = converted_folder(place, *single_file_options)
    check_folder(place)
    return place


def digest_as(digest: str, dtype: torch.dtype) -> str:
    """Add the precision to a digest, if it is not float32."""
    if dtype == torch.float32:
        return digest
    return f"{digest}-{str(dtype).removeprefix('torch.')}"


def load_parts(
    place: Path, dtype: torch.dtype, vae: Any, weights: bool = True
) -> tuple[tuple[Any, ...], list[str]]:
    """Load autoencoder, text encoder, tokenizer, U-Net and scheduler, with notes on changes.

    Without ``weights``, networks are on PyTorch's device "meta": they have shapes and no values.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTokenizer

    check_tokenizer(place / "tokenizer")
    scheduler, notes = load_ddim(place / "scheduler" / "scheduler_config.json")
    with loading_errors(place):
        words = CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True)
    parts = (
        vae or load_autoencoder(place / "vae", dtype, weights),
        _load_text_encoder(place / "text_encoder", dtype, weights),
        words,
        load_network(UNet2DConditionModel, place / "unet", dtype, weights),
        scheduler,
    )
    check_words(words, parts[1], place)
    return parts, notes + variant_notes(
        place, ("vae", "text_encoder", "unet") if vae is None else ("text_encoder", "unet")
    )


def load_network(kind: Any, folder: Path, dtype: torch.dtype, weights: bool = True) -> Any:
    """Load a network of diffusers with all of its weights.

    Parameters
    ----------
    kind : class
        Class of diffusers, such as ``UNet2DConditionModel``.
    folder : Path
        Folder with ``config.json`` and safetensors, sharded or not. If there is only a variant
        such as ``*.fp16.safetensors``, it is read.
    dtype : torch.dtype
        Precision of the weights.
    weights : bool
        False makes the network on the device "meta", by its configuration alone.

    Raises
    ------
    CalcarineError
        If weights are missing, unknown or of another shape, or the folder cannot be read.
    """
    if not weights:
        with loading_errors(folder), torch.device("meta"):
            network = kind.from_config(kind.load_config(folder))
        return torch.nn.Module.to(network, dtype)
    with loading_errors(folder):
        network, info = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # True needs accelerate
            variant=find_variant(folder, "diffusion_pytorch_model"),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded refuses them
        )
    check_loaded(info, folder)
    return network


def load_autoencoder(folder: Path, dtype: torch.dtype, weights: bool = True) -> Any:
    """Load the autoencoder of the class that the ``config.json`` of a folder names."""
    import diffusers

    with loading_errors(folder):
        about = read_json(folder / "config.json")
        name = about.get("_class_name", AUTOENCODERS[0])
    if name not in AUTOENCODERS:
        raise SettingError(
            f"The autoencoder in {folder} is of the class {name}; choose one of "
            f"{', '.join(AUTOENCODERS)}."
        )
    return load_network(getattr(diffusers, name), folder, dtype, weights)


def _load_text_encoder(folder: Path, dtype: torch.dtype, weights: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel
    from transformers.utils import logging

    if not weights:
        with loading_errors(folder), torch.device("meta"):
            encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder))
        return torch.nn.Module.to(encoder, dtype)
    logging.disable_progress_bar()
    with loading_errors(folder):
        loaded: Any = CLIPTextModel.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=find_variant(folder, "model"),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded refuses them
        )
    network, info = loaded
    check_loaded(info, folder, unused=OTHER_PARTS_OF_CLIP)
    return network


@contextmanager
def loading_errors(place: Path) -> Iterator[None]:
    """Turn any error while a model is loaded into a `DamagedFileError`."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        if out_of_memory(error):
            _refuse_impossible_size(place, error)
            raise
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        raise DamagedFileError(f"The model in {place} could not be loaded: {first}") from error


def _refuse_impossible_size(place: Path, error: Exception) -> None:
    """Raise if a single weight would take more memory than the files of all weights."""
    wanted = re.search(r"tried to allocate (\d+) bytes", str(error))
    files = sum(file.stat().st_size for file in place.rglob("*.safetensors"))
    # Weights in half precision take twice their size when they are read as float32.
    if wanted and int(wanted[1]) > 2 * files:
        raise DamagedFileError(
            f"The config.json in {place} describes a network that is larger than its weights "
            f"({int(wanted[1]) / 1e9:.1f} GB for one of them, {files / 1e9:.3f} GB in the files); "
            "copy the complete model again."
        ) from error
