"""Reading diffusion checkpoints: safetensors only, every failure one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calcarine.errors import CalcarineError
from calcarine.files import digest_file

MINI = Path(__file__).parent / "mini"
COMPONENTS = ("vae", "text_encoder", "unet", "tokenizer", "scheduler")
MODEL_FILES = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""Parts with weights and the name of their file."""


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


def check_safetensors(file: Path) -> None:
    """Raise one clear sentence when ``file`` is not one whole safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        start = handle.read(8)
        if start[:1] == b"\x80" or start[:2] == b"PK":
            raise CalcarineError(
                f"{file} is a pickle under another name and is refused; weights must be "
                "safetensors."
            )
        length = int.from_bytes(start, "little") if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise CalcarineError(f"{file} is not a whole safetensors file; copy it again.")
        try:
            header: dict[str, Any] = json.loads(handle.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CalcarineError(f"{file} is not a safetensors file; copy it again.") from error
    if 8 + length + max(ends, default=0) != size:
        raise CalcarineError(
            f"{file} is truncated ({size} bytes, {8 + length + max(ends, default=0)} expected); "
            "copy it again."
        )


def digest_folder(folder: Path) -> str:
    """SHA-256 over names and content of the model's files."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json", ".txt") and file.name != "training.json":
            total.update(str(file.relative_to(folder)).encode())
            total.update(bytes.fromhex(digest_file(file)))
    return total.hexdigest()


def download(name: str, patterns: list[str]) -> Path:
    """Folder of a model in the hub's cache, downloaded when it is not there."""
    from huggingface_hub import snapshot_download

    unwanted = ["*fp16*", "*non_ema*", "safety*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=unwanted))
    except Exception as error:
        raise CalcarineError(
            f"The model '{name}' is not in the cache and could not be downloaded "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error
