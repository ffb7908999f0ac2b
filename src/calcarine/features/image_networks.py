"""Layers of image networks as feature spaces: ``net:alexnet:features.5``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.checkpoints.network_weights import WeightsFile, WeightsStore
from calcarine.errors import CalcarineError, MissingWeightsError, need_extra

__all__ = ["ImageNetwork", "load_network", "network_layer", "run_hooked"]


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
    need_extra("metrics", "torchvision")
    from torchvision import models

    try:
        weights: Any = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    except (ValueError, AttributeError) as error:
        raise CalcarineError(
            f"torchvision has no network {name} with weights; alexnet, vgg19, resnet50 and "
            "inception_v3 are some it has."
        ) from error
    file = WeightsFile(weights.url.rsplit("/", 1)[-1], weights.url, "see its address")
    try:
        state, digest = WeightsStore().state(file)
    except MissingWeightsError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise CalcarineError(
            f"The weights of {name} are not in the cache; get {weights.url} into {place}."
        ) from error
    module = models.get_model(name, weights=None)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CalcarineError(
            f"{file.file} holds the weights of another network than {name}; get {weights.url} "
            "again."
        ) from error
    return ImageNetwork(module.eval(), weights.transforms(), digest)


def run_hooked(
    network: Any, inputs: torch.Tensor, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Outputs of submodules, copied at once, before a later step can change them in place."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: found.update({name: output.detach().clone()})

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


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
        network.module.get_submodule(layer)
    except AttributeError as error:
        known = [name for name, _ in network.module.named_modules() if name]
        raise CalcarineError(
            f"This network has no layer {layer}; it has {', '.join(known[:6])} and so on."
        ) from error
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    heard = run_hooked(network.module, network.prepare(pixels), [layer])
    return heard[layer].float().numpy()
