"""A diffusion model of either kind from wherever it lies."""

from __future__ import annotations

from pathlib import Path

import torch

from calcarine.checkpoints import check_safetensors
from calcarine.checkpoints.single_file import is_single_file, read_single_file
from calcarine.diffusion.cin256 import CLASS_WEIGHT, CLASSES
from calcarine.diffusion.class_conditional import load_class_conditional
from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.latent_diffusion import LatentDiffusion


def load_model(
    source: str | Path = "mini",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    cache: str | Path | None = None,
) -> ConditionalDiffusion:
    """Load a model under text or under classes; what is there tells which.

    Parameters
    ----------
    source : str or Path
        As in :meth:`LatentDiffusion.from_pretrained` or
        :func:`calcarine.diffusion.load_class_conditional`.
    device, dtype, cache
        As there.

    Returns
    -------
    ConditionalDiffusion
        A `LatentDiffusion` where there is a text encoder.

    Raises
    ------
    CalcarineError
        As there.
    """
    if _has_classes(Path(source)):
        return load_class_conditional(source, device, dtype, cache)
    return LatentDiffusion.from_pretrained(source, device, dtype, cache=cache)


def _has_classes(place: Path) -> bool:
    if not is_single_file(place):
        return (place / CLASSES).is_file()
    if place.suffix == ".safetensors":
        from safetensors import safe_open

        check_safetensors(place)
        with safe_open(place, framework="pt") as file:
            return CLASS_WEIGHT in file.keys()  # noqa: SIM118 - no mapping
    return CLASS_WEIGHT in read_single_file(place)
