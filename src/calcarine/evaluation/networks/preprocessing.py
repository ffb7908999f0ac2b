"""Preprocessing of pictures for networks, exactly as each protocol defines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.evaluation.inputs.image_stacks import as_uint8

if TYPE_CHECKING:
    import torch

__all__ = [
    "BLURRY_SHARE",
    "MEANS",
    "PLAIN",
    "Preprocessing",
    "output_size",
    "resize_picture",
    "tensorflow_resize",
]

Picture = NDArray[Any]

MEANS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_PIL = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Weight of the low-level picture that MindEye2 blends into the refined one.
BLURRY_SHARE = 0.25


@dataclass(frozen=True)
class Preprocessing:
    """Steps from a picture to a tensor, applied in the order of the parameters.

    Parameters
    ----------
    kind : {"pil", "tensor", "tf1"}
        Resize with Pillow on uint8 (antialiased), with torch on floats (not antialiased, like
        torchvision for tensors before 0.17), or like TensorFlow 1 (for FID).
    base : int or "truth", optional
        Size of a first resize with Pillow's bicubic filter: a square, or the size of the ground
        truths.
    sizes : tuple of int or (int, int)
        Successive resizes; an int is the length of the shorter side.
    crop : int, optional
        Side of a centre crop.
    interpolation : {"bilinear", "bicubic"}
    normalise : {"imagenet", "clip", "half"}, optional
        Mean and standard deviation of the channels; by default values stay in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import Preprocessing
    >>> steps = Preprocessing(sizes=(256,), crop=224, normalise="imagenet")
    >>> picture = np.zeros((480, 640, 3), np.uint8)
    >>> steps.apply(picture, truth_size=(480, 640)).shape
    torch.Size([3, 224, 224])
    """

    kind: Literal["pil", "tensor", "tf1"] = "pil"
    base: int | Literal["truth"] | None = None
    sizes: tuple[int | tuple[int, int], ...] = ()
    crop: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    normalise: Literal["imagenet", "clip", "half"] | None = None

    def apply(
        self, picture: Picture, truth_size: tuple[int, int], blurry: Picture | None = None
    ) -> torch.Tensor:
        """Prepare one picture.

        Parameters
        ----------
        picture : uint8 or float (in [0, 1]) array of shape (height, width, 3)
        truth_size : (int, int)
            Height and width of the ground truths, for ``base="truth"``.
        blurry : array like `picture`, optional
            Low-level reconstruction that is blended in after the first resize with a weight of
            .25 (MindEye2); only if ``kind`` is "tensor".

        Returns
        -------
        float32 tensor of shape (3, height, width)
        """
        if self.base is not None:
            size = truth_size if self.base == "truth" else (self.base, self.base)
            picture = resize_picture(picture, size)
        if self.kind == "tensor":
            return self._normalised(self._by_torch(picture, blurry))
        if self.kind == "tf1":
            return tensorflow_resize(_raw_tensor(as_uint8(picture)), 299).sub(128).div(128)
        return self._normalised(_raw_tensor(self._by_pillow(as_uint8(picture))).div(255))

    def _by_pillow(self, picture: Picture) -> Picture:
        image = Image.fromarray(np.ascontiguousarray(picture))
        for size in self.sizes:
            height, width = output_size((image.height, image.width), size)
            if (image.height, image.width) != (height, width):
                image = image.resize((width, height), _PIL[self.interpolation])
        if self.crop is not None:
            residual = round((image.width - self.crop) / 2)
            top = round((image.height - self.crop) / 2)
            image = image.crop((residual, top, residual + self.crop, top + self.crop))
        return np.asarray(image)

    def _by_torch(self, picture: Picture, blurry: Picture | None) -> torch.Tensor:
        import torch

        x = _float_tensor(picture)
        for step, size in enumerate(self.sizes):
            required = output_size((x.shape[-2], x.shape[-1]), size)
            if tuple(x.shape[-2:]) != required:
                x = torch.nn.functional.interpolate(
                    x[None], size=required, mode=self.interpolation, align_corners=False
                )[0]
            if step == 0 and blurry is not None:
                first = Preprocessing(
                    "tensor", sizes=self.sizes[:1], interpolation=self.interpolation
                )
                low = first.apply(blurry, (0, 0))
                x = (1 - BLURRY_SHARE) * x + BLURRY_SHARE * low
        return x

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        if self.normalise is None:
            return x
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in MEANS[self.normalise])
        return (x - mean) / std


PLAIN = Preprocessing()


def output_size(size: tuple[int, int], required: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width after a resize; an int is the length of the shorter side."""
    if not isinstance(required, int):
        return required
    height, width = size
    if height <= width:
        return required, int(required * width / height)
    return int(required * height / width), required


def resize_picture(picture: Picture, size: tuple[int, int]) -> Picture:
    """Resize one picture with Pillow's bicubic filter, unless it already has this size."""
    if picture.shape[:2] == size:
        return picture
    image = Image.fromarray(np.ascontiguousarray(as_uint8(picture)))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def tensorflow_resize(x: torch.Tensor, side: int) -> torch.Tensor:
    """Resize bilinearly like TensorFlow 1: corners at the origin, no half-pixel shift.

    Parameters
    ----------
    x : float tensor of shape (channels, height, width)
    side : int
        Height and width of the result.

    Returns
    -------
    float tensor of shape (channels, side, side)
    """
    import torch

    for axis in (1, 2):
        length = x.shape[axis]
        place = torch.arange(side, dtype=x.dtype) * (length / side)
        low = place.floor().clamp(0, length - 1).long()
        high = (low + 1).clamp(max=length - 1)
        share = (place - low).reshape(-1, 1) if axis == 1 else place - low
        before, after = x.index_select(axis, low), x.index_select(axis, high)
        x = before + (after - before) * share
    return x


def _raw_tensor(picture: Picture) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float()


def _float_tensor(picture: Picture) -> torch.Tensor:
    x = _raw_tensor(picture)
    return x.div(255) if picture.dtype == np.uint8 else x.clamp(0, 1)
