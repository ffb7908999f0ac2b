"""Finding the weights of the networks that metrics and features use."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.checkpoints.formats import file_format, load_safetensors
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    MissingWeightsError,
    out_of_memory,
)
from calcarine.files import atomic_write, digest_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALEXNET",
    "CLIP_FOLDER",
    "CLIP_NAME",
    "EFFICIENTNET_V1",
    "EFFICIENTNET_V2",
    "FID_INCEPTION",
    "INCEPTION",
    "LPIPS",
    "SWAV",
    "VIT_H_14",
    "WeightsFile",
    "WeightsStore",
    "state_digest",
]

_TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and where to get it.

    Parameters
    ----------
    file : str
        Name in a folder of weights and in torch's cache. Where it ends in ``-`` and hexadecimal
        digits, these begin the SHA-256 of the file.
    url : str
        Address at its owners.
    size : str
        For people, such as "233 MB".

    Examples
    --------
    >>> from calcarine.checkpoints import WeightsFile
    >>> url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    >>> WeightsFile("alexnet-owt-7be5be79.pth", url, "233 MB").size
    '233 MB'
    """

    file: str
    url: str
    size: str


def _torchvision(file: str, size: str) -> WeightsFile:
    return WeightsFile(file, _TORCHVISION + file, size)


ALEXNET = _torchvision("alexnet-owt-7be5be79.pth", "233 MB")
INCEPTION = _torchvision("inception_v3_google-0cc3c7bd.pth", "104 MB")
EFFICIENTNET_V1 = _torchvision("efficientnet_b1_rwightman-bac287d4.pth", "30 MB")
EFFICIENTNET_V2 = _torchvision("efficientnet_b1-c27df63c.pth", "30 MB")
VIT_H_14 = _torchvision("vit_h_14_swag-80465313.pth", "2.4 GB")
SWAV = WeightsFile(
    "swav_800ep_pretrain.pth.tar",
    "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
    "108 MB",
)
FID_INCEPTION = WeightsFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    "95 MB",
)
LPIPS = WeightsFile(
    "lpips_v0.1_alex.pth",
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
    "6 kB",
)
CLIP_NAME = "openai/clip-vit-large-patch14"
CLIP_FOLDER = "clip-vit-large-patch14"


class WeightsStore:
    """Finds weights in a folder, then in the caches of torch and Hugging Face.

    Parameters
    ----------
    folder : path, optional
    download : bool
        Fetch what is missing, into `folder` or torch's cache. Nothing is fetched without it.

    Examples
    --------
    >>> from calcarine.checkpoints import WeightsFile, WeightsStore
    >>> store = WeightsStore("weights", download=True)
    >>> url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    >>> wanted = WeightsFile("alexnet-owt-7be5be79.pth", url, "233 MB")
    >>> path, digest = store.find(wanted)  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path | None = None, download: bool = False) -> None:
        self.folder = None if folder is None else Path(folder)
        self.download = download
        if self.folder is not None and not self.folder.is_dir() and not download:
            raise MissingFileError(
                f"there is no folder of weights at {self.folder}: make it, or leave the option out."
            )

    def find(self, wanted: WeightsFile) -> tuple[Path, str | None]:
        """Return the path of a file of weights, and its SHA-256 if its name holds part of it.

        Raises
        ------
        MissingWeightsError
            If it is nowhere; the sentence names the file and its source.
        CalcarineError
            If its content does not fit the hash in its name.
        """
        for place in self._places():
            for path in (place / wanted.file, (place / wanted.file).with_suffix(".safetensors")):
                if path.is_file():
                    return path, _checked_hash(path)
        if not self.download:
            raise MissingWeightsError(
                f"the weights {wanted.file} ({wanted.size}) are missing; get them from "
                f"{wanted.url} and name their folder with --weights (of a run: "
                "evaluation.weights), or allow --download"
            )
        return _fetch(wanted, self._places()[0]), None

    def state(self, wanted: WeightsFile) -> tuple[dict[str, torch.Tensor], str]:
        """Return the tensors of a file of weights and its SHA-256; only tensors are unpickled."""
        path, digest = self.find(wanted)
        content = _content(path)
        if content is None:
            raise DamagedFileError(
                f"{path} is damaged or holds more than weights: get it again from {wanted.url}."
            )
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        return dict(content), digest or digest_file(path)

    def clip(self) -> Path:
        """Return the folder of CLIP ViT-L/14 in the format of transformers.

        Raises
        ------
        MissingWeightsError
            If it is nowhere.
        """
        for place in self._places():
            if (place / CLIP_FOLDER / "config.json").is_file():
                return place / CLIP_FOLDER
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            result = snapshot_download(
                CLIP_NAME,
                local_files_only=not self.download,
                allow_patterns=["config.json", "model.safetensors"],
            )
        except (LocalEntryNotFoundError, OSError, ValueError):
            result = ""
        if not result or not (Path(result) / "model.safetensors").is_file():
            raise MissingWeightsError(
                f"the weights of CLIP ViT-L/14 (1.7 GB) are missing; get config.json and "
                f"model.safetensors from https://huggingface.co/{CLIP_NAME} into a folder "
                f"{CLIP_FOLDER} of the one named with --weights, or allow --download"
            )
        return Path(result)

    def _places(self) -> list[Path]:
        import torch

        cache = Path(torch.hub.get_dir()) / "checkpoints"
        return [cache] if self.folder is None else [self.folder, cache]


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hexadecimal) of tensors with their names."""
    result = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        result.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        result.update(value.numpy().tobytes())
    return result.hexdigest()


def _content(path: Path) -> Any:
    """Return the content of a file of weights; None if it is damaged or holds more than tensors."""
    if path.suffix == ".safetensors" or file_format(path) == "safetensors":
        try:
            return load_safetensors(path)
        except CalcarineError:
            return None
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Broken bytes are instructions to the unpickler, and may end in any kind of error.
    except Exception as error:
        if out_of_memory(error):
            raise
        return None


def _promised(name: str) -> str | None:
    """Return the beginning of the SHA-256 that is part of the name of a file."""
    match = re.search(r"-([0-9a-f]{8})\.pth$", name)
    return match[1] if match else None


def _checked_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file whose name holds part of it; None for others."""
    promised = _promised(path.name)
    if promised is None:
        return None
    digest = digest_file(path)
    if not digest.startswith(promised):
        raise DamagedFileError(
            f"{path} is damaged or another file, for its content does not fit the hash in its "
            "name: remove it and get it again."
        )
    return digest


def _fetch(wanted: WeightsFile, folder: Path) -> Path:
    import torch

    path = folder / wanted.file
    try:
        with atomic_write(path) as temporary:
            torch.hub.download_url_to_file(
                wanted.url, str(temporary), _promised(wanted.file), progress=False
            )
    except (OSError, RuntimeError) as error:
        raise MissingWeightsError(
            f"the weights {wanted.file} could not be fetched from {wanted.url} "
            f"({type(error).__name__}); look at the connection, or get the file by hand"
        ) from None
    return path
