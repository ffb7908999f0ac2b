"""Folders of diffusion models in diffusers' format: location, completeness, download."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calcarine.checkpoints import check_safetensors
from calcarine.errors import DamagedFileError, MissingFileError, SettingError
from calcarine.files import digest_file, read_json

__all__ = [
    "COMPONENTS",
    "MINI",
    "MODEL_FILES",
    "check_folder",
    "digest_folder",
    "download",
    "download_model",
    "find_variant",
    "locate",
    "variant_notes",
]

MINI = Path(__file__).parent / "mini"
COMPONENTS = ("vae", "text_encoder", "unet", "tokenizer", "scheduler")
MODEL_FILES = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""Parts with weights, and the stem of their file."""

_FURTHER_INPUTS = {
    "addition_embed_type": "further embeddings, as in SDXL",
    "class_embed_type": "a class or noise level, as in upscalers",
    "num_class_embeds": "a class or noise level, as in upscalers",
    "encoder_hid_dim_type": "image embeddings",
    "time_cond_proj_dim": "the guidance scale as an input, as in latent consistency models",
}
"""Settings of a U-Net with further inputs, and what these are."""


def locate(source: str | Path) -> str | Path:
    """Return the path of ``"mini"``, a folder or a single file; a hub id is returned unchanged."""
    if str(source) == "mini":
        return MINI
    path = Path(source)
    if path.exists():
        return path
    parts = str(source).split("/")
    if len(parts) == 2 and all(parts) and not str(source).startswith("."):
        return str(source)
    raise MissingFileError(
        f"There is no diffusion model at '{source}': give 'mini', a folder in diffusers' format "
        "or a hub id such as CompVis/stable-diffusion-v1-4."
    )


def check_folder(
    folder: Path,
    components: Sequence[str] = COMPONENTS,
    files: Mapping[str, str] = MODEL_FILES,
) -> None:
    """Raise unless a folder holds a complete model.

    Parameters
    ----------
    folder : Path
    components : sequence of str
        Parts of the model; those of Stable Diffusion v1 by default.
    files : mapping of str to str
        Parts with weights, and the stem of their file.

    Raises
    ------
    MissingFileError
        If a part is missing.
    DamagedFileError
        If a part is truncated or pickled.
    SettingError
        If the model is of an unsupported kind.
    """
    if folder.is_file():
        raise SettingError(
            f"{folder} is a file; a model is a folder in diffusers' format with model_index.json, "
            "or one original .ckpt or .safetensors file."
        )
    if not (folder / "model_index.json").exists():
        raise MissingFileError(
            f"{folder} has no model_index.json; a model folder in diffusers' format has one "
            "(save_pretrained writes it)."
        )
    _check_kind(folder)
    for name in components:
        if not (folder / name).is_dir():
            raise MissingFileError(
                f"{folder} lacks its part '{name}'; copy the complete model again."
            )
    for name, stem in files.items():
        weights = sorted((folder / name).glob(f"{stem}*.safetensors"))
        if not weights:
            pickled = [
                p.name for p in (folder / name).iterdir() if p.suffix in (".bin", ".pt", ".ckpt")
            ]
            if pickled:
                raise DamagedFileError(
                    f"{folder / name} holds only {pickled[0]}, a pickle, which can run code when "
                    "opened and is refused; convert it to safetensors with diffusers first."
                )
            raise MissingFileError(
                f"{folder / name} holds no {stem}.safetensors; copy the model again."
            )
        for file in weights:
            check_safetensors(file)


def _check_kind(folder: Path) -> None:
    """Raise for unsupported kinds of models, which would fail or be wrong later."""
    index, unet = _json(folder / "model_index.json"), folder / "unet" / "config.json"
    config = _json(unet) if unet.is_file() else {}
    name = str(index.get("_class_name") or "a model of another kind")
    advice = "choose a text-to-image model such as Stable Diffusion v1 or v2."
    if "text_encoder_2" in index and "unet" in index:
        raise SettingError(
            f"{folder} is SDXL ({name}); its second text encoder and time conditions are not "
            f"supported; {advice}"
        )
    if "unet" not in index and any(key.startswith("transformer") for key in index):
        raise SettingError(f"{folder} is {name}, a model with a transformer and no U-Net; {advice}")
    needs = dict.fromkeys(
        words for key, words in _FURTHER_INPUTS.items() if config.get(key) is not None
    )
    if needs:
        raise SettingError(
            f"The U-Net of {folder} ({name}) needs {' and '.join(needs)} in addition to latents, "
            f"time and text, which is not supported; {advice}"
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{file} is not valid JSON; copy the model again.") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{file} is not a configuration; copy the model again.")
    return content


def find_variant(folder: Path, stem: str) -> str | None:
    """Return the variant of the weights of a folder; None for plain files.

    Parameters
    ----------
    folder : Path
        Folder of one part, such as ``unet``.
    stem : str
        Stem such as ``diffusion_pytorch_model``. Files of a variant are
        ``{stem}.fp16.safetensors`` or ``{stem}.fp16-00001-of-00002.safetensors``.

    Returns
    -------
    str or None
        ``"fp16"`` if it exists, else the only variant.

    Raises
    ------
    SettingError
        If there are several other variants and no plain files.
    """
    pattern = re.compile(
        rf"{re.escape(stem)}(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?\.safetensors"
    )
    matches = (pattern.fullmatch(file.name) for file in sorted(folder.glob("*.safetensors")))
    variants = {match["variant"] for match in matches if match}
    if not variants or None in variants:
        return None
    if "fp16" in variants:
        return "fp16"
    if len(variants) > 1:
        names = ", ".join(sorted(map(str, variants)))
        raise SettingError(
            f"{folder} holds several variants of the weights ({names}) and no {stem}.safetensors; "
            "rename the files of the one to use."
        )
    return variants.pop()


def variant_notes(folder: Path, parts: Sequence[str]) -> list[str]:
    """Return a note if parts of a model are read from a variant instead of plain weights."""
    variants = {part: find_variant(folder / part, MODEL_FILES[part]) for part in parts}
    used = [f"{part} ({variant})" for part, variant in variants.items() if variant is not None]
    if not used:
        return []
    return [f"{folder} has no plain weights of {', '.join(used)}; the variant in brackets is used."]


def digest_folder(folder: Path) -> str:
    """Return the SHA-256 of names and content of the model's files."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json", ".txt") and file.name != "training.json":
            total.update(str(file.relative_to(folder)).encode())
            total.update(bytes.fromhex(digest_file(file)))
    return total.hexdigest()


def download_model(name: str) -> Path:
    """Return the folder of a model of the hub; download it if it is not in the cache.

    Parts without plain weights are downloaded as ``fp16``.
    """
    described = ["*.json", "*/*.json", "*/*.txt"]
    folder = download(name, described)
    if (folder / "model_index.json").is_file():
        _check_kind(folder)  # before gigabytes are downloaded
    folder = download(name, [*described, *(f"{part}/*.safetensors" for part in MODEL_FILES)])
    bare = [
        f"{part}/{stem}.fp16*.safetensors"
        for part, stem in MODEL_FILES.items()
        if not list((folder / part).glob(f"{stem}*.safetensors"))
    ]
    indices = [f"{part}/*.index.fp16.json" for part in MODEL_FILES]
    return download(name, [*bare, *indices], unwanted=()) if bare else folder


def download(
    name: str, patterns: Sequence[str], unwanted: Sequence[str] = ("*fp16*", "*non_ema*", "safety*")
) -> Path:
    """Return the folder of a model in the hub's cache; download it first if necessary."""
    from huggingface_hub import snapshot_download

    wanted, left_out = list(patterns), list(unwanted)
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=left_out))
    except Exception as error:
        raise MissingFileError(
            f"The model '{name}' is not in the cache and could not be downloaded "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error
