"""Conditions of a U-Net for each picture, and the parameters that are trained for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.errors import SettingError, ShapeError

__all__ = [
    "DenoisingConditions",
    "add_time_condition",
    "freeze_except",
    "make_denoising_conditions",
    "time_embed_dim",
    "trainable_parts",
]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DenoisingConditions:
    """Contexts and time conditions of n pictures, conditional and unconditional.

    Attributes
    ----------
    context : float32 array of shape (n, tokens, width)
        Conditional contexts.
    empty : float32 array of shape (1, tokens, width), optional
        Unconditional context, if generation is guided.
    time : float32 array of shape (n, time_embed_dim), optional
        Conditional time conditions, if the U-Net takes any.
    empty_time : float32 array of shape (1, time_embed_dim), optional
        Unconditional time condition.
    """

    context: Array
    empty: Array | None
    time: Array | None
    empty_time: Array | None

    @property
    def guided(self) -> bool:
        """Whether the U-Net also predicts without condition."""
        return self.empty is not None

    def for_batch(
        self, rows: slice, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Return the arguments of the U-Net for a batch; unconditional rows come first."""

        def stacked(conditional: Array, empty: Array | None) -> torch.Tensor:
            here = torch.from_numpy(np.ascontiguousarray(conditional[rows])).to(device, dtype)
            if empty is None:
                return here
            without = torch.from_numpy(np.ascontiguousarray(empty)).to(device, dtype)
            return torch.cat([without.expand(len(here), *without.shape[1:]), here])

        arguments = {"encoder_hidden_states": stacked(self.context, self.empty)}
        if self.time is not None:
            arguments["class_labels"] = stacked(self.time, self.empty_time if self.guided else None)
        return arguments


def make_denoising_conditions(
    unet: Any,
    context: Array,
    empty: Array | None,
    time: Array | None,
    empty_time: Array | None,
    *,
    guided: bool,
) -> DenoisingConditions:
    """Check the conditions of a U-Net and collect them.

    Parameters
    ----------
    unet : UNet2DConditionModel
    context : float32 array of shape (n, tokens, width)
        Conditional contexts.
    empty : float32 array of shape (tokens, width) or (1, tokens, width), optional
        Unconditional context. One token stands for any number of equal tokens, because attention
        to equal tokens equals attention to one.
    time : float32 array of shape (n, time_embed_dim), optional
        Conditional time conditions.
    empty_time : float32 array of shape (time_embed_dim,) or (1, time_embed_dim), optional
        Unconditional time condition; zeros by default.
    guided : bool
        Whether the unconditional context is used; it is checked in any case.

    Returns
    -------
    DenoisingConditions

    Raises
    ------
    ShapeError
        If a shape does not fit.
    SettingError
        If there is a time condition and the U-Net takes none.
    """
    width = int(unet.config.cross_attention_dim)
    if context.ndim != 3 or context.shape[1] < 1 or context.shape[2] != width:
        raise ShapeError(
            f"The context has shape {context.shape}; this model takes (n, tokens, {width})."
        )
    if empty is not None:
        empty = _one_row(empty, 3)
        if empty.shape[:1] != (1,) or empty.shape[2:] != (width,):
            raise ShapeError(
                f"The empty context has shape {empty.shape}; it must be (tokens, {width}) or "
                f"(1, tokens, {width})."
            )
        if empty.shape[1] not in (1, context.shape[1]):
            raise ShapeError(
                f"The empty context has {empty.shape[1]} tokens and the context "
                f"{context.shape[1]}; give as many, or one."
            )
        if empty.shape[1] != context.shape[1]:
            empty = np.repeat(empty, context.shape[1], axis=1)
    times = _time(unet, len(context), time, empty_time)
    return DenoisingConditions(context, empty if guided else None, *times)


def _time(
    unet: Any, count: int, time: Array | None, empty: Array | None
) -> tuple[Array | None, Array | None]:
    if unet.class_embedding is None:
        if time is not None or empty is not None:
            raise SettingError(
                "This U-Net takes no time condition yet; call add_time_condition(model.unet) first."
            )
        return None, None
    wide = time_embed_dim(unet)
    zeros = np.zeros((1, wide), np.float32)
    time = np.repeat(zeros, count, axis=0) if time is None else time
    empty = zeros if empty is None else _one_row(empty, 2)
    if time.shape != (count, wide):
        raise ShapeError(
            f"The time condition has shape {time.shape}; {count} contexts of this model take "
            f"({count}, {wide})."
        )
    if empty.shape != (1, wide):
        raise ShapeError(
            f"The empty time condition has shape {empty.shape}; it must be ({wide},) or "
            f"(1, {wide})."
        )
    return time, empty


def _one_row(values: Array, ndim: int) -> Array:
    return values[None] if values.ndim == ndim - 1 else values


def time_embed_dim(unet: Any) -> int:
    """Return the width of a U-Net's time embedding, and so of a time condition."""
    return int(unet.time_embedding.linear_2.out_features)


def add_time_condition(unet: Any) -> None:
    """Make a U-Net of diffusers accept time conditions.

    The U-Net then needs ``class_labels`` of shape (n, time_embed_dim), which it adds to the time
    embedding; zeros have no effect. A second call does nothing.

    Parameters
    ----------
    unet : UNet2DConditionModel

    Raises
    ------
    SettingError
        If the U-Net has a class embedding of its own.

    Notes
    -----
    Source: the second part of the "double condition" of MinD-Vis (Chen et al. 2023), also used by
    Vis-Dec (Sun et al. 2023).

    Examples
    --------
    >>> from calcarine.diffusion import add_time_condition, random_class_conditional
    >>> model = random_class_conditional(tiny=True)
    >>> add_time_condition(model.unet)
    >>> type(model.unet.class_embedding).__name__
    'Identity'
    """
    if isinstance(unet.class_embedding, torch.nn.Identity):
        return
    if unet.class_embedding is not None or unet.config.class_embeddings_concat:
        raise SettingError(
            "This U-Net has a class embedding of its own in the place of a time condition; choose "
            "a model that is conditioned on its context alone."
        )
    unet.class_embedding = torch.nn.Identity()


def trainable_parts(unet: Any) -> tuple[str, ...]:
    """Return the names of the parameters that Vis-Dec trains in the U-Net.

    These are the cross-attention (``attn2``) of every transformer block and the norm before it
    (``norm2``).

    Parameters
    ----------
    unet : UNet2DConditionModel

    Returns
    -------
    tuple of str
        Names and order of ``unet.named_parameters()``.

    Notes
    -----
    The code of MinD-Vis and Vis-Dec trains every parameter of the whole model with ``attn2``,
    ``norm2`` or ``time_embed_condtion`` in its name. In its U-Net, these are the parameters that
    this function returns, and the layers of the time condition, which belong to the conditioner
    here. They also include ``norm2`` of the residual blocks of the autoencoder, which receives no
    gradient, and ``norm2`` of the fMRI encoder, which is trained in any case. In diffusers, the
    residual blocks of the U-Net have a ``norm2`` too; it is not trained.

    Examples
    --------
    >>> from calcarine.diffusion import random_class_conditional, trainable_parts
    >>> names = trainable_parts(random_class_conditional(tiny=True).unet)
    >>> all("attn2" in name or "norm2" in name for name in names)
    True
    """
    from diffusers.models.attention import BasicTransformerBlock

    wanted = tuple(
        f"{block}.{part}."
        for block, module in unet.named_modules()
        if isinstance(module, BasicTransformerBlock)
        for part in ("attn2", "norm2")
    )
    return tuple(name for name, _ in unet.named_parameters() if name.startswith(wanted))


def freeze_except(unet: Any, names: Iterable[str]) -> None:
    """Freeze all parameters of a network except some.

    Parameters
    ----------
    unet : torch.nn.Module
    names : iterable of str
        Parameters to train, by their names in ``unet.named_parameters()``.

    Raises
    ------
    SettingError
        If the network has no parameter of a name; it is not changed then.

    Examples
    --------
    >>> from calcarine.diffusion import freeze_except, random_class_conditional, trainable_parts
    >>> unet = random_class_conditional(tiny=True).unet
    >>> freeze_except(unet, trainable_parts(unet))
    >>> unet.conv_in.weight.requires_grad
    False
    """
    wanted, known = set(names), dict(unet.named_parameters())
    strange = sorted(wanted - set(known))
    if strange:
        raise SettingError(
            f"The network has no parameter {strange[0]} ({len(strange)} such); choose names from "
            "trainable_parts."
        )
    for name, parameter in known.items():
        parameter.requires_grad_(name in wanted)
