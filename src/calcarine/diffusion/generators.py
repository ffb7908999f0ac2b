"""Diffusion models by name: load any kind from a folder, a file or a hub id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from calcarine.checkpoints import check_safetensors
from calcarine.checkpoints.single_file import is_single_file, read_single_file
from calcarine.devices import resolve_device, resolve_precision
from calcarine.diffusion.cin256_conversion import CLASS_WEIGHT, CLASSES
from calcarine.diffusion.class_conditional import load_class_conditional
from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.latent_diffusion import LatentDiffusion
from calcarine.errors import SettingError
from calcarine.files.registries import load_entry_points, register_entry

__all__ = ["GENERATORS", "Loader", "describe_model", "load_model", "register_generator"]

Loader = Callable[..., ConditionalDiffusion]
"""Called as ``loader(device, dtype)``; returns a model."""

_L = TypeVar("_L", bound=Loader)

GENERATORS: dict[str, Loader] = {}
"""Loaders of your own models, by the name under which settings choose them."""


def register_generator(name: str) -> Callable[[_L], _L]:
    """Register a function that loads a model under a name.

    Parameters
    ----------
    name : str
        `load_model`, and with it the settings ``generation.model`` and ``visdec.model``, then
        takes this name.

    Returns
    -------
    callable
        Decorator of a function ``loader(device, dtype)`` that returns a
        :class:`calcarine.diffusion.ConditionalDiffusion`.

    Raises
    ------
    SettingError
        If another loader has this name.

    Notes
    -----
    Other packages register a loader under the entry-point group ``calcarine.generators``.

    Examples
    --------
    >>> from calcarine.diffusion import load_model, random_class_conditional, register_generator
    >>> @register_generator("random-tiny")
    ... def load_random(device, dtype):
    ...     return random_class_conditional(tiny=True, device=device)
    >>> load_model("random-tiny").image_size
    32
    """

    def register(loader: _L) -> _L:
        register_entry(GENERATORS, "generators", name, loader)
        return loader

    return register


def load_model(
    source: str | Path = "mini",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = torch.float32,
    *,
    cache: str | Path | None = None,
    autoencoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> ConditionalDiffusion:
    """Load a model that is conditioned on text or on classes.

    Parameters
    ----------
    source : str or Path
        A name in `GENERATORS`, or a source for :meth:`LatentDiffusion.from_pretrained` or
        :func:`calcarine.diffusion.load_class_conditional`; the files decide which.
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one.
    dtype : str or torch.dtype
        See :func:`calcarine.devices.resolve_precision`; by default float32.
    cache : str or Path, optional
        Folder of converted single files.
    autoencoder, tokenizer : str or Path, optional
        For models with a text encoder; see :meth:`LatentDiffusion.from_pretrained`.

    Returns
    -------
    ConditionalDiffusion
        A `LatentDiffusion` if the model has a text encoder.

    Raises
    ------
    MissingFileError
        If there is no such model, or a part of it is missing.
    DamagedFileError
        If a part is truncated, or pickled and therefore unsafe to read.
    SettingError
        If the device is missing or lacks the precision, or an autoencoder or a tokenizer is given
        for a model that takes none.

    Examples
    --------
    >>> from calcarine.diffusion import load_model
    >>> model = load_model("mini", device="cpu")
    >>> model.image_size, model.latent_shape
    (64, (4, 16, 16))
    """
    device = resolve_device(device)
    dtype = resolve_precision(dtype, device)
    loaders = load_entry_points("calcarine.generators") | GENERATORS
    if str(source) in loaders:
        _refuse_parts(source, "has its own loader", autoencoder, tokenizer)
        return _load_registered(str(source), loaders[str(source)], device, dtype)
    if _has_classes(Path(source)):
        _refuse_parts(source, "is conditioned on classes", autoencoder, tokenizer)
        return load_class_conditional(source, device, dtype, cache)
    return LatentDiffusion.from_pretrained(
        source, device, dtype, autoencoder=autoencoder, tokenizer=tokenizer, cache=cache
    )


def describe_model(source: str | Path = "mini", **options: Any) -> ConditionalDiffusion:
    """Load a model as `load_model` does, without its weights where its format allows it.

    Parameters
    ----------
    source : str or Path
    **options
        See `load_model`.

    Returns
    -------
    ConditionalDiffusion
        A `LatentDiffusion` of a folder, a hub id or a single file has no weights: its sizes, its
        digest and its notes can be read, and it computes nothing. Other models are complete.
    """
    loaders = load_entry_points("calcarine.generators") | GENERATORS
    if str(source) in loaders or _has_classes(Path(source)):
        return load_model(source, **options)
    return LatentDiffusion.from_pretrained(source, **options, weights=False)


def _refuse_parts(source: str | Path, why: str, *parts: str | Path | None) -> None:
    if any(part is not None for part in parts):
        raise SettingError(
            f"The model {source} {why} and takes neither autoencoder nor tokenizer; leave them out."
        )


def _load_registered(
    name: str, loader: Loader, device: torch.device, dtype: torch.dtype
) -> ConditionalDiffusion:
    model = loader(device, dtype)
    if not isinstance(model, ConditionalDiffusion):
        raise SettingError(
            f"The loader of the generator '{name}' returned a {type(model).__name__}; it must "
            "return a ConditionalDiffusion, such as a LatentDiffusion."
        )
    return model


def _has_classes(path: Path) -> bool:
    """Return whether a folder or single file holds a class-conditional model."""
    if not is_single_file(path):
        return (path / CLASSES).is_file()
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        check_safetensors(path)
        with safe_open(path, framework="pt") as file:
            return CLASS_WEIGHT in file.keys()  # noqa: SIM118 - no mapping
    return CLASS_WEIGHT in read_single_file(path)
