"""A latent diffusion model that is conditioned on classes: cin256-v2 of CompVis and variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.checkpoints import load_safetensors
from calcarine.checkpoints.single_file import is_single_file
from calcarine.devices import resolve_device, resolve_precision
from calcarine.diffusion.cin256_conversion import (
    CLASSES,
    build_models,
    check_class_folder,
    converted_folder,
    official_configs,
)
from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.ddim_conversion import load_ddim
from calcarine.diffusion.loading import (
    digest_as,
    load_network,
    loading_errors,
)
from calcarine.diffusion.model_folder import digest_folder
from calcarine.errors import MissingFileError, SettingError, ShapeError

__all__ = [
    "UNCONDITIONAL",
    "ClassConditionalDiffusion",
    "class_context",
    "load_class_conditional",
    "random_class_conditional",
]

UNCONDITIONAL = 1000
"""Row of the class embedding for no class: the unconditional context."""

_TINY: dict[str, dict[str, Any]] = {
    "unet": {
        "block_out_channels": [32, 64],
        "cross_attention_dim": 32,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "layers_per_block": 1,
        "sample_size": 8,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "vae": {
        "block_out_channels": [32, 32, 32],
        "layers_per_block": 1,
        "num_vq_embeddings": 64,
        "sample_size": 32,
    },
}


class ClassConditionalDiffusion(ConditionalDiffusion):
    """A model with a context of one token, the embedding of a class.

    Parameters
    ----------
    vae : VQModel
    unet : UNet2DConditionModel
    scheduler : DDIMScheduler
    class_embedding : float32 array of shape (classes, width)
        1001 rows in cin256-v2: the classes of ImageNet and one for no class.
    name, digest : str
        See `ConditionalDiffusion`.

    Examples
    --------
    >>> from calcarine.diffusion import class_context, random_class_conditional
    >>> model = random_class_conditional(tiny=True)
    >>> context = class_context(model, [207, 282])  # classes of ImageNet
    >>> model.generate(context, [("a", 0), ("b", 0)], guidance=1.0, steps=2).shape
    (2, 3, 8, 8)
    """

    def __init__(
        self,
        vae: Any,
        unet: Any,
        scheduler: Any,
        class_embedding: NDArray[np.float32],
        name: str = "custom",
        digest: str = "",
    ) -> None:
        super().__init__(vae, unet, scheduler, name, digest)
        if class_embedding.ndim != 2 or class_embedding.shape[1] != self.context_width:
            raise ShapeError(
                f"The class embedding has shape {class_embedding.shape} and the U-Net takes "
                f"contexts of width {self.context_width}: these parts are not of one model."
            )
        self.class_embedding = class_embedding


def class_context(model: ConditionalDiffusion, labels: Sequence[int]) -> NDArray[np.float32]:
    """Return the contexts of classes.

    Parameters
    ----------
    model : ConditionalDiffusion
        From `load_class_conditional` or `random_class_conditional`.
    labels : sequence of n int
        Classes of ImageNet, 0 to 999, or `UNCONDITIONAL` (1000) for no class. Guidance needs the
        latter: ``empty=class_context(model, [UNCONDITIONAL])``.

    Returns
    -------
    float32 array of shape (n, 1, width)

    Raises
    ------
    SettingError
        If the model has no classes, or not these.

    Examples
    --------
    >>> from calcarine.diffusion import UNCONDITIONAL, class_context, random_class_conditional
    >>> model = random_class_conditional(tiny=True)
    >>> class_context(model, [207, UNCONDITIONAL]).shape
    (2, 1, 32)
    """
    if not isinstance(model, ClassConditionalDiffusion):
        raise SettingError(
            f"The model {model.name} has no classes; load one with load_class_conditional."
        )
    count = len(model.class_embedding)
    rows = np.asarray(labels)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ShapeError("Labels must be whole numbers, one for each picture.")
    strange = rows[(rows < 0) | (rows >= count)]
    if strange.size:
        raise SettingError(f"There is no class {strange[0]}; this model has 0 to {count - 1}.")
    contexts: NDArray[np.float32] = model.class_embedding[rows.astype(np.int64)][:, None]
    return contexts


def load_class_conditional(
    source: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = torch.float32,
    cache: str | Path | None = None,
    *,
    ema: bool = True,
) -> ClassConditionalDiffusion:
    """Load cin256-v2, or a model of the same architecture.

    Parameters
    ----------
    source : str or Path
        The published single file ``model.ckpt`` (or the same as ``.safetensors``), which is
        converted once, or the folder of such a conversion.
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one.
    dtype : str or torch.dtype
        Precision of the U-Net; see :func:`calcarine.devices.resolve_precision`. The autoencoder
        stays in float32, because its search for the nearest code needs it.
    cache : str or Path, optional
        Folder of conversions; by default ``CALCARINE_CACHE``, else ``~/.cache/calcarine``.
    ema : bool
        Use the averaged weights of the U-Net, if a single file has them. The published fine-tuning
        of MinD-Vis and Vis-Dec starts from the weights that are not averaged.

    Returns
    -------
    ClassConditionalDiffusion

    Raises
    ------
    MissingFileError
        If there is no such file or folder, or a part is missing.
    DamagedFileError
        If a part is truncated, pickled, or of another model.

    Notes
    -----
    Source: Rombach et al. (2022), class-conditional ImageNet model (github.com/CompVis/
    latent-diffusion, ``cin256-v2``). Pictures of 256 x 256 px have latents of 3 x 64 x 64. Encoding
    returns the latent before quantisation; decoding quantises first. Widths, depths, and the
    numbers of codes and classes are read from the weights.

    Examples
    --------
    >>> from calcarine.diffusion import class_context, load_class_conditional
    >>> model = load_class_conditional("cin256-v2/model.ckpt")  # doctest: +SKIP
    >>> model.generate(class_context(model, [207]), [("retriever", 0)]).shape  # doctest: +SKIP
    (1, 256, 256, 3)
    """
    target = resolve_device(device)
    dtype = resolve_precision(dtype, target)
    place = Path(source)
    if is_single_file(place):
        place = converted_folder(place, ema, cache)
    elif not place.is_dir():
        raise MissingFileError(
            f"There is no class-conditional model at '{source}': give the file model.ckpt of "
            "cin256-v2, or a folder converted from it."
        )
    check_class_folder(place)
    parts, notes = _load_parts(place, dtype)
    digest = digest_as(digest_folder(place), dtype)
    model = ClassConditionalDiffusion(*parts, str(source), digest)
    model.add_notes(notes)
    return model.to(target)


def _load_parts(
    place: Path, dtype: torch.dtype
) -> tuple[tuple[Any, Any, Any, NDArray[np.float32]], list[str]]:
    from diffusers import UNet2DConditionModel, VQModel

    scheduler, notes = load_ddim(place / "scheduler" / "scheduler_config.json")
    with loading_errors(place / CLASSES):
        classes = load_safetensors(place / CLASSES)["weight"].float().numpy()
    parts = (
        load_network(VQModel, place / "vae", torch.float32),
        load_network(UNet2DConditionModel, place / "unet", dtype),
        scheduler,
        classes,
    )
    return parts, notes


def random_class_conditional(
    tiny: bool = False, seed: int = 0, device: str | torch.device | None = "cpu"
) -> ClassConditionalDiffusion:
    """Make a model of the same architecture with random weights, for tests and benchmarks.

    Parameters
    ----------
    tiny : bool
        Two levels and latents of 3 x 8 x 8 (pictures of 32 x 32 px, contexts of width 32) instead
        of the published sizes, which take 1.8 GB.
    seed : int
        Seed of the weights; the state of torch's own generator does not change.
    device : str or torch.device, optional
        None uses a GPU if there is one.

    Examples
    --------
    >>> from calcarine.diffusion import random_class_conditional
    >>> model = random_class_conditional(tiny=True)
    >>> model.image_size, model.context_width
    (32, 32)
    """
    from diffusers import DDIMScheduler

    target = resolve_device(device)
    configs = official_configs()
    if tiny:
        for part, changes in _TINY.items():
            configs[part].update(changes)
    width = configs["unet"]["cross_attention_dim"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = build_models(configs)
        classes = torch.randn(UNCONDITIONAL + 1, width).numpy()
    scheduler = DDIMScheduler.from_config(configs["scheduler"])
    name = f"random-cin256-v2{'-tiny' if tiny else ''}"
    digest = f"{name}-{seed}"
    model = ClassConditionalDiffusion(parts["vae"], parts["unet"], scheduler, classes, name, digest)
    return model.to(target)
