"""What a U-Net is told of each picture, and which of its parts learn to listen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.errors import CalcarineError

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
    """Contexts and time conditions of n pictures, and their counterparts without condition.

    Attributes
    ----------
    context : float32 array of shape (n, tokens, width)
    empty : float32 array of shape (1, tokens, width), optional
        There when generation is guided.
    time : float32 array of shape (n, time_embed_dim), optional
        There when the U-Net takes time conditions.
    empty_time : float32 array of shape (1, time_embed_dim), optional
    """

    context: Array
    empty: Array | None
    time: Array | None
    empty_time: Array | None

    @property
    def guided(self) -> bool:
        """Whether the U-Net is also asked without condition."""
        return self.empty is not None

    def for_batch(
        self, rows: slice, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Keyword arguments of the U-Net for some pictures; those without condition come first."""

        def stacked(told: Array, empty: Array | None) -> torch.Tensor:
            here = torch.from_numpy(np.ascontiguousarray(told[rows])).to(device, dtype)
            if empty is None:
                return here
            without = torch.from_numpy(np.ascontiguousarray(empty)).to(device, dtype)
            return torch.cat([without.expand(len(here), *without.shape[1:]), here])

        found = {"encoder_hidden_states": stacked(self.context, self.empty)}
        if self.time is not None:
            found["class_labels"] = stacked(self.time, self.empty_time if self.guided else None)
        return found


def make_denoising_conditions(
    unet: Any,
    context: Array,
    empty: Array | None,
    time: Array | None,
    empty_time: Array | None,
    *,
    guided: bool,
) -> DenoisingConditions:
    """Conditions of a U-Net, checked.

    Parameters
    ----------
    unet : UNet2DConditionModel
    context : float32 array of shape (n, tokens, width)
    empty : float32 array of shape (tokens, width) or (1, tokens, width), optional
        One token stands for any number of equal ones, for attention to equal tokens is attention
        to one.
    time : float32 array of shape (n, time_embed_dim), optional
    empty_time : float32 array of shape (time_embed_dim,) or (1, time_embed_dim), optional
        Zeros by default.
    guided : bool
        Whether what is empty is needed; it is checked either way.

    Raises
    ------
    CalcarineError
        If a shape does not fit, or the U-Net takes no time condition and one is given.
    """
    width = int(unet.config.cross_attention_dim)
    if context.ndim != 3 or context.shape[1] < 1 or context.shape[2] != width:
        raise CalcarineError(
            f"The context has shape {context.shape}; this model takes (n, tokens, {width})."
        )
    if empty is not None:
        empty = _one_row(empty, 3)
        if empty.shape[:1] != (1,) or empty.shape[2:] != (width,):
            raise CalcarineError(
                f"The empty context has shape {empty.shape}; it must be (tokens, {width}) or "
                f"(1, tokens, {width})."
            )
        if empty.shape[1] not in (1, context.shape[1]):
            raise CalcarineError(
                f"The empty context has {empty.shape[1]} tokens and the context "
                f"{context.shape[1]}; their numbers must agree, or the empty one has 1."
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
            raise CalcarineError(
                "This U-Net takes no time condition yet; call add_time_condition(model.unet) first."
            )
        return None, None
    wide = time_embed_dim(unet)
    zeros = np.zeros((1, wide), np.float32)
    time = np.repeat(zeros, count, axis=0) if time is None else time
    empty = zeros if empty is None else _one_row(empty, 2)
    if time.shape != (count, wide):
        raise CalcarineError(
            f"The time condition has shape {time.shape}; {count} contexts of this model take "
            f"({count}, {wide})."
        )
    if empty.shape != (1, wide):
        raise CalcarineError(
            f"The empty time condition has shape {empty.shape}; it must be ({wide},) or "
            f"(1, {wide})."
        )
    return time, empty


def _one_row(values: Array, ndim: int) -> Array:
    return values[None] if values.ndim == ndim - 1 else values


def time_embed_dim(unet: Any) -> int:
    """Width of a U-Net's time embedding, and so of a time condition."""
    return int(unet.time_embedding.linear_2.out_features)


def add_time_condition(unet: Any) -> None:
    """Let a U-Net of diffusers take time conditions.

    From then on the U-Net must be given ``class_labels`` of shape (n, time_embed_dim), which it
    adds to the time embedding; zeros change nothing. Doing so twice does nothing more.

    Parameters
    ----------
    unet : UNet2DConditionModel

    Raises
    ------
    CalcarineError
        If the U-Net has a class embedding of its own.

    Notes
    -----
    Source: the second road of the "double condition" of MinD-Vis (Chen et al. 2023), used by
    Vis-Dec (Sun et al. 2023).
    """
    if isinstance(unet.class_embedding, torch.nn.Identity):
        return
    if unet.class_embedding is not None or unet.config.class_embeddings_concat:
        raise CalcarineError(
            "This U-Net has a class embedding of its own, where a time condition would go; take a "
            "model that is conditioned by its context alone."
        )
    unet.class_embedding = torch.nn.Identity()


def trainable_parts(unet: Any) -> tuple[str, ...]:
    """Names of the parameters that Vis-Dec trains in the U-Net.

    Of every transformer block these are the cross-attention (``attn2``) and the norm before it
    (``norm2``).

    Parameters
    ----------
    unet : UNet2DConditionModel

    Returns
    -------
    tuple of str
        As in ``unet.named_parameters()``, in its order.

    Notes
    -----
    The code of MinD-Vis and Vis-Dec takes every parameter of the whole model whose name has
    ``attn2``, ``norm2`` or ``time_embed_condtion`` in it. In the U-Net, whose residual blocks
    call their norms otherwise there (``in_layers``, ``out_layers``), that gives what this function
    gives, and the layers that make the time condition, which here belong to the conditioner. It
    also gives ``norm2`` of the first stage's residual blocks, which no gradient reaches, and a
    second time ``norm2`` of the fMRI encoder, which is trained anyway. In diffusers' names the
    U-Net's residual blocks have a ``norm2`` too; they are not taken.
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
    """Let some parameters of a network take gradients, and no others.

    Parameters
    ----------
    unet : torch.nn.Module
    names : iterable of str
        As in ``unet.named_parameters()``.

    Raises
    ------
    CalcarineError
        If the network has no parameter of a name; nothing is changed then.
    """
    wanted, known = set(names), dict(unet.named_parameters())
    strange = sorted(wanted - set(known))
    if strange:
        raise CalcarineError(
            f"The network has no parameter {strange[0]} ({len(strange)} such); take names from "
            "trainable_parts."
        )
    for name, parameter in known.items():
        parameter.requires_grad_(name in wanted)
