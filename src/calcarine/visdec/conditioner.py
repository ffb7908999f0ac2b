"""Conditioner of a latent diffusion model from the fMRI encoder (Sun et al. 2023, section 3.3)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIEncoder
from calcarine.visdec.patches import PatchedVectors

__all__ = ["Conditioner", "ConditionerOutput"]

_NUMBERS_PER_TOKEN = 8
"""Numbers of each token from which the latent is predicted."""


class ConditionerOutput(NamedTuple):
    """Conditions of the U-Net for each vector.

    Attributes
    ----------
    context : tensor of shape (batch, tokens, width)
        For cross-attention.
    time : tensor of shape (batch, time width), optional
        Added to the embedding of the time step.
    latent : tensor of shape (batch, channels, h, w), optional
        Predicted latent, from which sampling can start.
    """

    context: torch.Tensor
    time: torch.Tensor | None
    latent: torch.Tensor | None = None


class Conditioner(nn.Module):
    """Network from the tokens of the fMRI encoder to a context and a time condition.

    Parameters
    ----------
    encoder : FMRIEncoder
    n_patches : int
        Number of patches of the subject's vectors.
    tokens, width : int
        Shape of the context (77 x 512 in the paper).
    time_width : int or None
        Width of the U-Net's time embedding; None leaves the time condition out.
    class_token : bool
        Whether patches attend to the encoder's class token, as in its pre-training. In the
        published code, and therefore with published weights, they do not.
    latent_shape : tuple of int, optional
        Shape (channels, h, w) of a latent that is predicted too; by default there is none.

    Notes
    -----
    As in MinD-Vis and Vis-Dec, the class token is removed, two pointwise convolutions over the
    tokens change their number to ``n / 2`` and then to ``tokens``, and a linear layer changes
    their width. The time condition is computed from the context in the same way. The
    unconditional context, for classifier-free guidance, is learned. The latent, which the papers'
    models do not predict, is a linear function of a few numbers of each token.
    """

    def __init__(
        self,
        encoder: FMRIEncoder,
        n_patches: int,
        tokens: int,
        width: int,
        time_width: int | None,
        *,
        class_token: bool = True,
        latent_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.shape: dict[str, Any] = {
            "encoder": encoder.config.to_json(),
            "n_patches": n_patches,
            "tokens": tokens,
            "width": width,
            "time_width": time_width,
            "class_token": class_token,
            "latent_shape": latent_shape,
        }
        self.encoder = encoder
        if not class_token:  # it would receive no gradient
            encoder.cls_token.requires_grad_(False)
        half = max(1, n_patches // 2)
        self.mix = nn.Sequential(nn.Conv1d(n_patches, half, 1), nn.Conv1d(half, tokens, 1))
        self.to_width = nn.Linear(encoder.config.dim, width)
        self.base = nn.Parameter(torch.zeros(1, tokens, width))
        self.empty = nn.Parameter(torch.zeros(1, tokens, width))
        self.time: nn.Sequential | None = None
        self.empty_time: nn.Parameter | None = None
        if time_width is not None:
            few = max(1, tokens // 2)
            self.time = nn.Sequential(
                nn.Conv1d(tokens, few, 1),
                nn.Conv1d(few, 1, 1),
                nn.Flatten(1),
                nn.Linear(width, time_width),
            )
            self.empty_time = nn.Parameter(torch.zeros(1, time_width))
        self.latent: nn.Sequential | None = None
        if latent_shape is not None:
            self.latent = nn.Sequential(
                nn.Linear(encoder.config.dim, _NUMBERS_PER_TOKEN),
                nn.Flatten(1),
                nn.Linear(tokens * _NUMBERS_PER_TOKEN, math.prod(latent_shape)),
                nn.Unflatten(1, latent_shape),
            )

    def start_from_context(self, context: torch.Tensor) -> None:
        """Initialise all contexts near one context (tokens, width).

        The published code starts from random contexts. From the context of the empty text, a model
        that was trained on text produces pictures from the start, and only learns which.
        """
        with torch.no_grad():
            for parameter in (self.base, self.empty):
                parameter.copy_(context)
            self.to_width.weight.mul_(0.1)
            self.to_width.bias.zero_()
            if self.time is not None:
                for parameter in self.time[-1].parameters():
                    parameter.zero_()

    def start_from_latent(self, latent: torch.Tensor) -> None:
        """Initialise all predicted latents near one latent (channels, h, w)."""
        assert self.latent is not None
        last = self.latent[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(latent.flatten())

    @classmethod
    def from_shape(cls, shape: dict[str, Any]) -> Conditioner:
        """Make a conditioner with random weights from the ``shape`` of another one."""
        encoder = FMRIEncoder(AutoencoderConfig.from_json(shape["encoder"]))
        sizes = (shape[k] for k in ("n_patches", "tokens", "width", "time_width"))
        latent = shape.get("latent_shape")
        return cls(
            encoder,
            *sizes,
            class_token=shape.get("class_token", True),
            latent_shape=None if latent is None else tuple(latent),
        )

    def forward(self, vectors: PatchedVectors) -> ConditionerOutput:
        """Return the conditions of each vector."""
        with_class: bool = self.shape["class_token"]
        tokens = self.encoder(vectors, class_token=with_class).tokens[:, int(with_class) :]
        mixed = self.mix(tokens)
        context = self.base + self.to_width(mixed)
        return ConditionerOutput(
            context,
            None if self.time is None else self.time(context),
            None if self.latent is None else self.latent(mixed),
        )

    def without(self, condition: ConditionerOutput, left_out: torch.Tensor) -> ConditionerOutput:
        """Replace conditions by the unconditional ones where ``left_out`` (batch) is True."""
        context = torch.where(left_out[:, None, None], self.empty, condition.context)
        if condition.time is None or self.empty_time is None:
            return condition._replace(context=context)
        time = torch.where(left_out[:, None], self.empty_time, condition.time)
        return condition._replace(context=context, time=time)
