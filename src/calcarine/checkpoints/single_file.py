"""Models in one file in the original layout: read as weights only, converted once.

Nothing in the file is run: pickles are read by torch's restricted reader.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calcarine.checkpoints.formats import file_format, is_zip, load_safetensors
from calcarine.errors import DamagedFileError, out_of_memory
from calcarine.files import digest_file
from calcarine.files.locks import folder_lock

__all__ = [
    "averaged",
    "cache_folder",
    "check_weights",
    "convert_once",
    "digests",
    "is_single_file",
    "read_single_file",
]

# Checkpoints of Lightning name this class next to the weights; an empty class replaces it.
_STAND_IN = type(
    "ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"}
)


def is_single_file(path: str | Path) -> bool:
    """Return whether ``path`` is a file that may hold a model in the original layout."""
    path = Path(path)
    return path.is_file() and path.suffix in (".ckpt", ".safetensors")


def cache_folder() -> Path:
    """Return the folder of converted models: ``CALCARINE_CACHE``, else ``~/.cache/calcarine``."""
    return Path(os.environ.get("CALCARINE_CACHE") or Path.home() / ".cache" / "calcarine")


def convert_once(
    parts: Sequence[str], write: Callable[[Path], None], cache: str | Path | None = None
) -> Path:
    """Return the folder of a converted model; convert it if that has not been done.

    Parameters
    ----------
    parts : sequence of str
        What decides on the result: digests and settings, whose hash is the folder's name.
    write : callable
        Given a folder, fills it with the model.
    cache : str or Path, optional
        Parent of the folder; by default `cache_folder`.

    Notes
    -----
    It is written to a temporary folder and renamed, so no half-written model is found. One process
    converts at a time, and removes what one that was killed left of the same model.
    """
    name = hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
    final = Path(cache or cache_folder()) / "converted" / name
    if (final / "model_index.json").exists():
        return final
    with folder_lock(final.parent, wait=True):
        if (final / "model_index.json").exists():  # another process was quicker
            return final
        for left in final.parent.glob(f"{name}.part-*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=final.parent))
        try:
            write(temporary)
            if not final.exists():
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def read_single_file(file: str | Path) -> dict[str, Any]:
    """Return the tensors of an original checkpoint by name, memory-mapped if possible.

    Raises
    ------
    CalcarineError
        If the file is not whole, or reading it would run code.
    """
    file = Path(file)
    import torch

    kind = file_format(file)
    if file.suffix == ".safetensors" or kind == "safetensors":
        return load_safetensors(file)
    mapped = is_zip(file)
    if kind == "zip" and not mapped:
        raise DamagedFileError(f"{file} is truncated; copy it again.")
    if kind == "unknown":
        raise DamagedFileError(f"{file} is not a whole checkpoint; copy it again.")
    try:
        with _named_classes():
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        if out_of_memory(error):
            raise
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise DamagedFileError(
                f"{file} holds more than weights and reading it could run code, so it is refused; "
                "get the model as safetensors."
            ) from error
        raise DamagedFileError(f"{file} is not a whole checkpoint; copy it again.") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise DamagedFileError(f"{file} holds no weights by name, so it is not a diffusion model.")
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}


@contextmanager
def _named_classes() -> Iterator[None]:
    """Allow a checkpoint to name Lightning's callback, and nothing else."""
    import torch

    try:
        allowed = torch.serialization.safe_globals([_STAND_IN])
    except AttributeError:  # before torch 2.5 such a file is refused
        yield
        return
    with allowed:
        yield


def averaged(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the weights with the moving averages of the U-Net, if all of its weights have one."""
    averages = {
        key: state.get("model_ema." + key.removeprefix("model.").replace(".", ""))
        for key in state
        if key.startswith(prefix)
    }
    if any(value is None for value in averages.values()):
        return dict(state)
    return {**state, **averages}


def check_weights(
    name: str,
    part: str,
    found: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    owner: str,
    advice: str = "",
) -> None:
    """Raise unless all weights exist and have the right shapes.

    Parameters
    ----------
    name : str
        The content of the file.
    part : str
        Which part of the model.
    found, expected : mappings by name
        Tensors and shapes.
    whose, advice : str
        The model with the expected shapes, and advice, for the message.
    """
    # Some versions of transformers leave out the prefix that all files have.
    plain = {key.removeprefix("text_model."): value for key, value in found.items()}
    wanted = {key.removeprefix("text_model."): shape for key, shape in expected.items()}
    for key, shape in wanted.items():
        if plain.get(key) is None:
            raise DamagedFileError(f"{name} lacks the weight {key} of the {part}; copy it again.")
        if tuple(plain[key].shape) != shape:
            raise DamagedFileError(
                f"{name} is another model: {key} of its {part} has shape "
                f"{tuple(plain[key].shape)} where {owner} {shape}{advice}."
            )


def digests(files: Sequence[Path]) -> list[str]:
    """Return the names and content hashes of files."""
    return [f"{file.name}:{digest_file(file)}" for file in files]
