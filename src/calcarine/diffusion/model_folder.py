"""Folders of diffusion models in diffusers' format: where they lie and whether they are whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calcarine.checkpoints import check_safetensors
from calcarine.errors import CalcarineError
from calcarine.files import digest_file, read_json

MINI = Path(__file__).parent / "mini"
COMPONENTS = ("vae", "text_encoder", "unet", "tokenizer", "scheduler")
MODEL_FILES = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""Parts with weights and the name of their file."""


_FURTHER_INPUTS = {
    "addition_embed_type": "further embeddings, as SDXL's",
    "class_embed_type": "a class or noise level, as upscalers'",
    "num_class_embeds": "a class or noise level, as upscalers'",
    "encoder_hid_dim_type": "image embeddings",
    "time_cond_proj_dim": "the guidance scale as an input, as latent consistency models'",
}
"""Settings of a U-Net that listens to more, and to what."""


def locate(source: str | Path) -> str | Path:
    """``"mini"``, a folder, a single file or a hub id (``owner/name``) to something loadable."""
    if str(source) == "mini":
        return MINI
    path = Path(source)
    if path.exists():
        return path
    parts = str(source).split("/")
    if len(parts) == 2 and all(parts) and not str(source).startswith("."):
        return str(source)
    raise CalcarineError(
        f"There is no diffusion model at '{source}': give 'mini', a folder in diffusers' format "
        "or a hub id such as CompVis/stable-diffusion-v1-4."
    )


def check_folder(
    folder: Path,
    components: Sequence[str] = COMPONENTS,
    files: Mapping[str, str] = MODEL_FILES,
) -> None:
    """Raise one clear sentence unless ``folder`` holds a whole model.

    Parameters
    ----------
    folder : Path
    components : sequence of str
        Its parts; those of Stable Diffusion v1 by default.
    files : mapping of str to str
        Parts with weights and the name of their file.
    """
    if folder.is_file():
        raise CalcarineError(
            f"{folder} is a file; a model is a folder in diffusers' format with model_index.json, "
            "or one original .ckpt or .safetensors file."
        )
    if not (folder / "model_index.json").exists():
        raise CalcarineError(
            f"{folder} has no model_index.json; a model folder in diffusers' format has one "
            "(save_pretrained writes it)."
        )
    _check_kind(folder)
    for name in components:
        if not (folder / name).is_dir():
            raise CalcarineError(f"{folder} lacks its part '{name}'; copy the model again, whole.")
    for name, stem in files.items():
        found = sorted((folder / name).glob(f"{stem}*.safetensors"))
        if not found:
            pickled = [
                p.name for p in (folder / name).iterdir() if p.suffix in (".bin", ".pt", ".ckpt")
            ]
            if pickled:
                raise CalcarineError(
                    f"{folder / name} holds only {pickled[0]}, a pickle, which can run code when "
                    "opened and is refused; convert it to safetensors with diffusers first."
                )
            raise CalcarineError(
                f"{folder / name} holds no {stem}.safetensors; copy the model again."
            )
        for file in found:
            check_safetensors(file)


def _check_kind(folder: Path) -> None:
    """Raise one sentence for models of other kinds, which would fail or be wrong later on."""
    index, unet = _json(folder / "model_index.json"), folder / "unet" / "config.json"
    config = _json(unet) if unet.is_file() else {}
    name = str(index.get("_class_name") or "a model of another kind")
    advice = "choose a text-to-image model of the kind of Stable Diffusion v1 or v2."
    if "text_encoder_2" in index and "unet" in index:
        raise CalcarineError(
            f"{folder} is SDXL ({name}), whose second text encoder and time conditions are not "
            f"used here; {advice}"
        )
    if "unet" not in index and any(key.startswith("transformer") for key in index):
        raise CalcarineError(
            f"{folder} is {name}, a model with a transformer and no U-Net; {advice}"
        )
    needs = dict.fromkeys(
        words for key, words in _FURTHER_INPUTS.items() if config.get(key) is not None
    )
    if needs:
        raise CalcarineError(
            f"The U-Net of {folder} ({name}) needs {' and '.join(needs)} beside latents, time and "
            f"text, which is not given here; {advice}"
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise CalcarineError(f"{file} is no whole JSON file; copy the model again.") from error
    if not isinstance(content, dict):
        raise CalcarineError(f"{file} is no configuration; copy the model again.")
    return content


def find_variant(folder: Path, stem: str) -> str | None:
    """Which variant of the weights a folder is read from: none where there are plain files.

    Parameters
    ----------
    folder : Path
        Such as ``unet``.
    stem : str
        Such as ``diffusion_pytorch_model``; a variant's files are ``{stem}.fp16.safetensors`` or
        ``{stem}.fp16-00001-of-00002.safetensors``.

    Returns
    -------
    str or None
        ``"fp16"`` where it is there, else the only one there is.

    Raises
    ------
    CalcarineError
        If there are several others, none of which is plain.
    """
    pattern = re.compile(
        rf"{re.escape(stem)}(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?\.safetensors"
    )
    matches = (pattern.fullmatch(file.name) for file in sorted(folder.glob("*.safetensors")))
    found = {match["variant"] for match in matches if match}
    if not found or None in found:
        return None
    if "fp16" in found:
        return "fp16"
    if len(found) > 1:
        raise CalcarineError(
            f"{folder} holds several variants of the weights ({', '.join(sorted(map(str, found)))})"
            f" and no {stem}.safetensors; rename the files of the one to use."
        )
    return found.pop()


def variant_notes(folder: Path, parts: Sequence[str]) -> list[str]:
    """A sentence where parts of a model are read from another variant than the plain one."""
    found = {part: find_variant(folder / part, MODEL_FILES[part]) for part in parts}
    used = [f"{part} ({variant})" for part, variant in found.items() if variant is not None]
    if not used:
        return []
    return [
        f"{folder} has no plain weights of {', '.join(used)}; those of the variant in brackets "
        "are used."
    ]


def digest_folder(folder: Path) -> str:
    """SHA-256 over names and content of the model's files."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json", ".txt") and file.name != "training.json":
            total.update(str(file.relative_to(folder)).encode())
            total.update(bytes.fromhex(digest_file(file)))
    return total.hexdigest()


def download_model(name: str) -> Path:
    """Folder of a text-to-image model of the hub, downloaded where it is not in the cache.

    Plain weights are fetched; parts that have none are fetched as ``fp16``.
    """
    described = ["*.json", "*/*.json", "*/*.txt"]
    folder = download(name, described)
    if (folder / "model_index.json").is_file():
        _check_kind(folder)  # before gigabytes of a model that cannot be used
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
    """Folder of a model in the hub's cache, downloaded when it is not there."""
    from huggingface_hub import snapshot_download

    wanted, left_out = list(patterns), list(unwanted)
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=left_out))
    except Exception as error:
        raise CalcarineError(
            f"The model '{name}' is not in the cache and could not be downloaded "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error
