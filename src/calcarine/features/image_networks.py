"""Layers of image networks as feature spaces: ``net:alexnet:features.5``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.checkpoints.network_weights import WeightsFile, WeightsStore
from calcarine.devices import BatchSizes, resolve_device, tf32_products
from calcarine.errors import DamagedFileError, MissingWeightsError, SettingError, need_extra

__all__ = ["ImageNetwork", "load_network", "network_layer", "run_hooked"]


@dataclass(frozen=True, eq=False)
class ImageNetwork:
    """An image network with the preprocessing that it was trained with.

    Attributes
    ----------
    module : torch.nn.Module
        Takes a float batch of shape (n, 3, h, w).
    prepare : callable
        Turns a uint8 tensor of shape (n, 3, height, width) into such a batch.
    digest : str
        Hash of the weights.
    batch_sizes : BatchSizes
        Numbers of pictures that fit into the memory of a GPU.
    """

    module: torch.nn.Module
    prepare: Callable[[torch.Tensor], torch.Tensor]
    digest: str
    batch_sizes: BatchSizes = field(default_factory=BatchSizes, repr=False)


def load_network(name: str, device: str | torch.device | None = None) -> ImageNetwork:
    """Load a classifier of torchvision with its default weights, from torch's cache.

    Parameters
    ----------
    name : str
        A name in `torchvision.models.list_models`, such as ``alexnet``.
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one. Image
        networks compute in float32.

    Raises
    ------
    SettingError
        If there is no such network.
    MissingWeightsError
        If its weights are not in the cache; nothing is downloaded.
    """
    need_extra("metrics", "torchvision")
    from torchvision import models

    target = resolve_device(device)

    try:
        weights: Any = models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError) as error:
        raise SettingError(
            f"torchvision has no network {name} with weights; choose for example alexnet, vgg19, "
            "resnet50 or inception_v3."
        ) from error
    file = WeightsFile(weights.url.rsplit("/", 1)[-1], weights.url, "see its address")
    try:
        state, digest = WeightsStore().state(file)
    except MissingWeightsError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise MissingWeightsError(
            f"The weights of {name} are not in the cache; get {weights.url} into {place}."
        ) from error
    module = models.get_model(name, weights=None)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DamagedFileError(
            f"{file.file} holds the weights of another network than {name}; get {weights.url} "
            "again."
        ) from error
    return ImageNetwork(module.eval().to(target), weights.transforms(), digest)


def run_hooked(
    network: Any, inputs: torch.Tensor, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the outputs of submodules, copied before later layers can change them in place."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.update({name: output.detach().clone()})

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@torch.inference_mode()
def network_layer(
    network: ImageNetwork, layer: str, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the output of a layer for pictures.

    Parameters
    ----------
    network : ImageNetwork
        See `load_network`.
    layer : str
        Path of a module, such as ``features.5``.
    images : uint8 array of shape (n, height, width, 3)
        They are read at once, or in smaller batches if the memory of a GPU is too small.

    Returns
    -------
    float32 array of shape (n, ...)
    """
    try:
        network.module.get_submodule(layer)
    except AttributeError as error:
        known = [name for name, _ in network.module.named_modules() if name]
        raise SettingError(
            f"This network has no layer {layer}; it has {', '.join(known[:6])} and so on."
        ) from error
    device = next(network.module.parameters()).device

    def extract(rows: slice) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.ascontiguousarray(images[rows])).permute(0, 3, 1, 2)
        inputs = network.prepare(pixels).to(device)
        with tf32_products(False):
            outputs = run_hooked(network.module, inputs, [layer])
        return np.asarray(outputs[layer].float().cpu().numpy())

    count = len(images)
    return np.concatenate([*network.batch_sizes.run(extract, count, count, "image network")])
