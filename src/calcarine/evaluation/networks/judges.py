"""Judges: small bundled image classifiers for scoring without any download.

The package contains two judges: one for procedural scenes and one for handwritten digits. Neither
was trained on an image that the bundled diffusion model was trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calcarine.checkpoints import load_safetensors
from calcarine.devices import BatchSizes, resolve_device, tf32_products
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
)
from calcarine.evaluation.networks.judge_names import JUDGE_NAMES
from calcarine.files import read_json
from calcarine.stimuli.images import resize_images

__all__ = [
    "JUDGE_NAMES",
    "JUDGE_SIZE",
    "LAYERS",
    "Judge",
    "JudgeNet",
    "JudgeReading",
    "judge_digest",
    "load_judge",
]

JUDGE_SIZE = 64
_JUDGES = Path(__file__).parent / "judge_weights"
_EARLY_SIDE = 16
LAYERS = ("early", "middle", "late")


def _block(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(width, width, 1)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class JudgeNet(nn.Module):
    """Convolutional classifier with layers that are used as image features.

    Parameters
    ----------
    labels : sequence of str
        Names of the classes.
    widths : tuple of int
        Channels of the three stages (1/2, 1/4 and 1/8 of the image size).
    """

    def __init__(self, labels: list[str], widths: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.widths = tuple(widths)
        a, b, c = widths
        self.early = _block(3, a, 2)
        self.middle = nn.Sequential(_block(a, b, 2), _Residual(b))
        self.late = nn.Sequential(_block(b, c, 2), _Residual(c))
        self.present = nn.Linear(2 * c, len(labels))
        self.main = nn.Linear(2 * c, len(labels))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute layers and logits of images ``(n, 3, 64, 64)`` in [0, 1].

        ``present`` has one logit for each class (is it in the picture?), ``main`` the logits of
        the class that fills most of the picture.
        """
        early = self.early(2 * x - 1)
        middle = self.middle(early)
        late = self.late(middle)
        pooled = torch.cat([late.mean((2, 3)), late.amax((2, 3))], 1)
        return {
            "early": early,
            "middle": middle,
            "late": late,
            "present": self.present(pooled),
            "main": self.main(pooled),
        }


@dataclass(frozen=True)
class JudgeReading:
    """Features and class probabilities of n images.

    Parameters
    ----------
    layers : dict of str to float32 array of shape (n, features)
        Activations of the layers "early", "middle" and "late".
    probabilities : float32 array of shape (n, classes)
        Probability that each class is the main one; rows sum to 1.
    present : float32 array of shape (n, classes)
        Probability that each class is in the picture.
    """

    layers: dict[str, NDArray[np.float32]]
    probabilities: NDArray[np.float32]
    present: NDArray[np.float32]


class Judge:
    """A trained `JudgeNet` with preprocessing.

    Parameters
    ----------
    net : JudgeNet
        Network with its weights.
    name : str
        Name for reports.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.evaluation import load_judge
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> judge = load_judge("scenes")
    >>> probabilities = judge.read(seen.images()).probabilities
    >>> [judge.labels[i] for i in probabilities.argmax(axis=1)]
    ['clock', 'banana']
    >>> [categories[0] for categories in seen.categories()]  # what the scenes show
    ['clock', 'banana']
    """

    def __init__(self, net: JudgeNet, name: str = "judge") -> None:
        self.net = net.float().eval()
        self.name = name
        self._batch_sizes = BatchSizes()

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device."""
        self.net.to(device)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.net.labels

    def read(self, images: NDArray[np.uint8], batch_size: int = 64) -> JudgeReading:
        """Compute features and class probabilities; they do not depend on the batch size.

        Parameters
        ----------
        images : uint8 array of shape (n, height, width, 3)
            Resized to 64 x 64.
        batch_size : int
            Number of images in a batch.

        Returns
        -------
        JudgeReading
            Equal images have exactly equal results.

        Raises
        ------
        CalcarineError
            If the images are not uint8 of this shape, or there is no image.
        """
        _check_readable(images, batch_size)
        first, inverse = _distinct(images)
        parts = [
            *self._batch_sizes.run(
                lambda rows: self._read_batch(images[first[rows]]), len(first), batch_size, "judge"
            )
        ]
        joined = {key: np.concatenate([part[key] for part in parts])[inverse] for key in parts[0]}
        return JudgeReading(
            {layer: joined[layer] for layer in LAYERS}, joined["main"], joined["present"]
        )

    def _read_batch(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        device = next(self.net.parameters()).device
        pixels = torch.from_numpy(resize_images(images, JUDGE_SIZE).copy()).to(device)
        with torch.inference_mode(), tf32_products(False):
            out = self.net(pixels.permute(0, 3, 1, 2).contiguous().float() / 255)
            if out["early"].shape[-1] > _EARLY_SIDE:
                out["early"] = nn.functional.adaptive_avg_pool2d(out["early"], _EARLY_SIDE)
            out["main"] = out["main"].softmax(1)
            out["present"] = out["present"].sigmoid()
            return {key: value.flatten(1).cpu().numpy() for key, value in out.items()}


def load_judge(name: str | Path, device: str | torch.device | None = None) -> Judge:
    """Load a judge.

    Parameters
    ----------
    name : {"scenes", "digits"} or path
        A bundled judge, or a folder with one ``.safetensors`` file (the weights) and a ``.json``
        file of the same name with "labels" and "widths".
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one.

    Returns
    -------
    Judge
        With float32 weights.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged, or describes another network.

    Examples
    --------
    >>> from calcarine.evaluation.networks.judges import load_judge
    >>> load_judge("digits").labels[:3]
    ('zero', 'one', 'two')
    """
    target = resolve_device(device)
    weights = _weights_path(name)
    if not weights.is_file():
        raise MissingFileError(
            f"The weights of the judge {str(name)!r} are missing at {weights}; install the package "
            "again, or give the folder of a judge."
        )
    net = _new_net(weights.with_suffix(".json"))
    try:
        net.load_state_dict(_read_weights(weights))
    except RuntimeError:
        raise DamagedFileError(
            f"The weights in {weights} do not fit the network described in "
            f"{weights.with_suffix('.json').name}; use the two files of the same judge."
        ) from None
    return Judge(net, weights.stem).to(target)


def judge_digest(name: str | Path) -> str:
    """Return the SHA-256 of a judge's weights, for provenance."""
    path = _weights_path(name)
    if not path.is_file():
        raise MissingFileError(
            f"The weights of the judge {str(name)!r} are missing at {path}; install the package "
            "again."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _weights_path(name: str | Path) -> Path:
    if str(name) in JUDGE_NAMES:
        return _JUDGES / f"{name}.safetensors"
    folder = Path(name)
    if not folder.is_dir():
        raise SettingError(
            f"There is no judge {str(name)!r}; choose {' or '.join(JUDGE_NAMES)}, or give the "
            "folder of a judge."
        )
    result = sorted(folder.glob("*.safetensors"))
    if len(result) != 1:
        raise SettingError(
            f"The folder {folder} has {len(result)} .safetensors files; give a folder with "
            "exactly one judge."
        )
    return result[0]


def _new_net(path: Path) -> JudgeNet:
    problem = f"The description {path} of a judge is missing or damaged"
    try:
        described: Any = read_json(path)
        labels, widths = list(described["labels"]), tuple(described["widths"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CalcarineError(f'{problem}; write JSON with "labels" and "widths".') from None
    if not labels or len(set(map(str, labels))) < len(labels):
        raise CalcarineError(f"{problem}; list every class once.")
    if len(widths) != 3 or not all(type(w) is int and 0 < w <= 4096 for w in widths):
        raise SettingError(f"{problem}; give three integers as widths.")
    return JudgeNet([str(label) for label in labels], widths)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    state = load_safetensors(path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise DamagedFileError(f"{path} has weights that are not finite; copy or train it again.")
    return state


def _distinct(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the distinct images, and for each image its index among them."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    inverse = np.empty(len(images), np.int64)
    for row, image in enumerate(images):
        place = places.setdefault(image.tobytes(), len(first))
        if place == len(first):
            first.append(row)
        inverse[row] = place
    return np.asarray(first), inverse


def _check_readable(images: NDArray[np.uint8], batch_size: int) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        raise ShapeError(
            f"A judge needs uint8 images of shape (n, height, width, 3), not {images.dtype} of "
            f"shape {images.shape}; convert them first."
        )
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}; choose at least 1.")
