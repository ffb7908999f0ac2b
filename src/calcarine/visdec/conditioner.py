"""The fMRI encoder as conditioner of a latent diffusion model (Sun et al. 2023, section 3.3)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIEncoder
from calcarine.visdec.patches import PatchedVectors

__all__ = ["Conditioner", "ConditionerOutput"]

_OF_TOKEN = 8
"""Numbers of each token that a told latent is made of."""


class ConditionerOutput(NamedTuple):
    """What the U-Net is told.

    Attributes
    ----------
    context
        Shape (batch, tokens, width), for cross-attention.
    time
        Shape (batch, time width), added to the embedding of the time step; None if not used.
    latent
        Shape (batch, channels, h, w): the latent that sampling may begin from; None if not told.
    """

    context: torch.Tensor
    time: torch.Tensor | None
    latent: torch.Tensor | None = None


class Conditioner(nn.Module):
    """Tokens of the fMRI encoder to a context and a time condition.

    Parameters
    ----------
    encoder
    n_patches
        Patches of this subject's vectors.
    tokens, width
        Of the context (77 x 512 in the paper).
    time_width
        Width of the U-Net's time embedding; None leaves the time condition out.
    class_token
        Whether patches attend to the encoder's class token, as in its pre-training; in the
        published code, and so in published weights, they do not.
    latent_shape
        Of a latent (channels, h, w) that is told beside the context; None leaves it out.

    Notes
    -----
    As in MinD-Vis and Vis-Dec: the class token is left out, two pointwise convolutions over the
    tokens bring their number to ``n / 2`` and to ``tokens``, and a linear layer brings their
    width. The time condition comes from the context in the same way. The context of "no
    condition", for classifier-free guidance, is learned. The latent, which the papers' models do
    not tell, comes from the same tokens by a linear map through a few numbers of each.
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
        if not class_token:  # nothing would ever train it
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
                nn.Linear(encoder.config.dim, _OF_TOKEN),
                nn.Flatten(1),
                nn.Linear(tokens * _OF_TOKEN, math.prod(latent_shape)),
                nn.Unflatten(1, latent_shape),
            )

    def start_from_context(self, context: torch.Tensor) -> None:
        """Let all conditions begin at one context (tokens, width), to which the brain then adds.

        The published code begins at random. From the context of the empty text a model that was
        trained on text sets out with pictures, and has only to learn which.
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
        """Let all told latents begin around one (channels, h, w)."""
        assert self.latent is not None
        last = self.latent[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(latent.flatten())

    @classmethod
    def from_shape(cls, shape: dict[str, Any]) -> Conditioner:
        """A conditioner with random weights of the shape that another one tells."""
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
        """Condition of each vector."""
        told: bool = self.shape["class_token"]
        tokens = self.encoder(vectors, class_token=told).tokens[:, int(told) :]
        mixed = self.mix(tokens)
        context = self.base + self.to_width(mixed)
        return ConditionerOutput(
            context,
            None if self.time is None else self.time(context),
            None if self.latent is None else self.latent(mixed),
        )

    def without(self, condition: ConditionerOutput, left_out: torch.Tensor) -> ConditionerOutput:
        """The same condition, replaced by "no condition" where ``left_out`` (batch) is True."""
        context = torch.where(left_out[:, None, None], self.empty, condition.context)
        if condition.time is None or self.empty_time is None:
            return condition._replace(context=context)
        time = torch.where(left_out[:, None], self.empty_time, condition.time)
        return condition._replace(context=context, time=time)
