"""Layers of image networks as feature spaces: ``net:alexnet:features.5``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.files import digest_file

__all__ = ["ImageNetwork", "load_network", "network_layer"]


@dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A network with the preparation of pictures that it was trained with.

    Attributes
    ----------
    module
        Takes a float batch of shape (n, 3, h, w).
    prepare
        uint8 pictures as a tensor of shape (n, 3, height, width) to such a batch.
    digest
        Hash of the weights.
    """

    module: torch.nn.Module
    prepare: Callable[[torch.Tensor], torch.Tensor]
    digest: str


def load_network(name: str) -> ImageNetwork:
    """A classifier of torchvision with its default weights, from torch's cache.

    Parameters
    ----------
    name
        As in `torchvision.models.list_models`, such as ``alexnet``.

    Raises
    ------
    CalcarineError
        If there is no such network or its weights are not in the cache;
        nothing is downloaded.
    """
    from torchvision import models

    try:
        weights: Any = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    except (ValueError, AttributeError) as error:
        raise CalcarineError(
            f"torchvision has no network {name} with weights; alexnet, vgg19, resnet50 and "
            "inception_v3 are some it has."
        ) from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file():
        raise CalcarineError(
            f"The weights of {name} are not in the cache; get {weights.url} and put it at {file}."
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        module = models.get_model(name, weights=None)
        module.load_state_dict(state)
    except Exception as error:  # a damaged file raises errors of many kinds
        raise CalcarineError(
            f"{file} is damaged or not the weights of {name} ({type(error).__name__}); get "
            f"{weights.url} again."
        ) from error
    return ImageNetwork(module.eval(), weights.transforms(), digest_file(file))


@torch.inference_mode()
def network_layer(
    network: ImageNetwork, layer: str, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Output of a layer for some pictures.

    Parameters
    ----------
    network
        See `load_network`.
    layer
        Path of a module, such as ``features.5``.
    images
        uint8, shape (n, height, width, 3).

    Returns
    -------
    float32 array of shape (n, ...)
    """
    try:
        module = network.module.get_submodule(layer)
    except AttributeError as error:
        known = [name for name, _ in network.module.named_modules() if name]
        raise CalcarineError(
            f"This network has no layer {layer}; it has {', '.join(known[:6])} and so on."
        ) from error
    heard: list[torch.Tensor] = []
    # A later layer may write into this one's output, so it is copied.
    hook = module.register_forward_hook(lambda *call: heard.append(call[2].detach().clone()))
    try:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        network.module(network.prepare(pixels))
    finally:
        hook.remove()
    return heard[0].float().numpy()
