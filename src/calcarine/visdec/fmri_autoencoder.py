"""Masked autoencoder of voxel vectors (Chen et al. 2023; Sun et al. 2023, section 3.1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from calcarine.errors import SettingError, ShapeError
from calcarine.visdec.masking import Masking, no_masking
from calcarine.visdec.patches import PatchedVectors, sine_positions
from calcarine.visdec.transformer_blocks import (
    NORM_EPS,
    PatchLinear,
    TransformerBlock,
    initialise,
)

__all__ = ["AutoencoderConfig", "Encoded", "FMRIAutoencoder", "FMRIEncoder"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of a masked autoencoder.

    The defaults are those of MinD-Vis and Vis-Dec, except ``norm_eps``.

    Attributes
    ----------
    n_patches : int
        Number of patches of the longest vector (262 for the 4,183 vertices of V1 to V4 of HCP).
    patch : int
        Number of voxels of a patch.
    dim, depth, heads, mlp_ratio
        Shape of the encoder.
    decoder_dim, decoder_depth, decoder_heads : int
        Shape of the decoder; its mlp_ratio is that of the encoder.
    embedding : {"shared", "own"}
        ``"shared"``: all patches share the weights that embed and predict them, as published.
        ``"own"``: each patch has its own weights, because the third voxel of one patch has nothing
        in common with the third voxel of another. For vectors of one subject only.
    norm_eps : float
        Epsilon of all layer norms: 1e-6 in new networks, as in masked autoencoders of pictures (He
        et al. 2022), and 1e-5 in published weights of MinD-Vis and Vis-Dec.

    Examples
    --------
    >>> from calcarine.visdec import AutoencoderConfig
    >>> config = AutoencoderConfig(n_patches=20, dim=32, depth=2, heads=4, decoder_dim=16)
    >>> config.patch * config.n_patches  # voxels at most
    320
    """

    n_patches: int = 262
    patch: int = 16
    dim: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 1.0
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    embedding: Literal["shared", "own"] = "shared"
    norm_eps: float = NORM_EPS

    def to_json(self) -> dict[str, Any]:
        """Return the shape as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> AutoencoderConfig:
        """Return the shape from the dictionary of :meth:`to_json`."""
        absent: dict[str, Any] = {"embedding": "shared", "norm_eps": NORM_EPS}  # in older files
        content = absent | content
        known = {field.name for field in fields(cls)}
        wrong = sorted(set(content) ^ known)
        if wrong:
            raise SettingError(
                f"This is not the configuration of an autoencoder: {', '.join(wrong)} do not agree."
            )
        return cls(**content)


class Encoded(NamedTuple):
    """Tokens of shape (batch, 1 + kept, dim), and their mask (None: no padding)."""

    tokens: torch.Tensor
    mask: torch.Tensor | None


class FMRIEncoder(nn.Module):
    """Transformer that encodes a class token and the visible patches.

    Parameters
    ----------
    config : AutoencoderConfig
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = c = config
        self.patch_embed = _of_patches(c, c.patch, c.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        self.blocks = nn.ModuleList(
            [TransformerBlock(c.dim, c.heads, c.mlp_ratio, c.norm_eps) for _ in range(c.depth)]
        )
        self.norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.positions: torch.Tensor
        self.register_buffer("positions", sine_positions(c.n_patches, c.dim), persistent=False)
        initialise(self)
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(
        self,
        vectors: PatchedVectors,
        masking: Masking | None = None,
        *,
        class_token: bool = True,
    ) -> Encoded:
        """Encode the class token and the visible patches.

        Parameters
        ----------
        vectors : PatchedVectors
            With at most ``config.n_patches`` patches.
        masking : Masking, optional
            By default all patches are visible.
        class_token : bool
            False leaves the class token out, so that patches do not attend to it either.
        """
        if vectors.n_patches > self.config.n_patches:
            raise ShapeError(
                f"The vectors have {vectors.n_patches} patches and the network takes "
                f"{self.config.n_patches}."
            )
        masking = masking or no_masking(vectors.valid)
        if self.config.embedding == "own":
            tokens = masking.take(self.patch_embed(vectors.values))
        else:  # masked patches need no embedding
            tokens = self.patch_embed(masking.take(vectors.values))
        tokens = tokens + self.positions[1:][masking.visible]
        mask = masking.mask
        if class_token:
            first = (self.cls_token + self.positions[0]).expand(len(tokens), -1, -1)
            tokens = torch.cat([first.to(tokens.dtype), tokens], 1)
            mask = _with_class(masking.mask)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return Encoded(self.norm(tokens), mask)


class FMRIAutoencoder(nn.Module):
    """Masked autoencoder: encodes visible patches and predicts all patches.

    Parameters
    ----------
    config : AutoencoderConfig

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from calcarine.visdec import AutoencoderConfig, FMRIAutoencoder, patch_vectors
    >>> from calcarine.visdec.masking import draw_masking
    >>> config = AutoencoderConfig(n_patches=20, dim=32, depth=2, heads=4, decoder_dim=32)
    >>> vectors = patch_vectors(np.random.default_rng(0).standard_normal((3, 320)))
    >>> masking = draw_masking(vectors.valid, 0.75, torch.Generator().manual_seed(0))
    >>> FMRIAutoencoder(config)(vectors, masking).shape
    torch.Size([3, 20, 16])
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = c = config
        self.decoder_embed = nn.Linear(c.dim, c.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_dim))
        self.decoder_blocks = nn.ModuleList(
            [
                TransformerBlock(c.decoder_dim, c.decoder_heads, c.mlp_ratio, c.norm_eps)
                for _ in range(c.decoder_depth)
            ]
        )
        self.decoder_norm = nn.LayerNorm(c.decoder_dim, eps=c.norm_eps)
        self.decoder_pred = _of_patches(c, c.decoder_dim, c.patch)
        self.decoder_positions: torch.Tensor
        self.register_buffer(
            "decoder_positions", sine_positions(c.n_patches, c.decoder_dim), persistent=False
        )
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)
        self.encoder = FMRIEncoder(config)

    @property
    def decoder_parts(self) -> tuple[nn.Module | nn.Parameter, ...]:
        """Everything except the encoder."""
        return (
            self.decoder_embed,
            self.mask_token,
            self.decoder_blocks,
            self.decoder_norm,
            self.decoder_pred,
        )

    def decode(
        self, tokens: torch.Tensor, vectors: PatchedVectors, masking: Masking | None = None
    ) -> torch.Tensor:
        """Predict all patches, shape (batch, patches, voxels of a patch), from encoded tokens."""
        masking = masking or no_masking(vectors.valid)
        known = self.decoder_embed(tokens)
        batch, n = vectors.valid.shape
        seen = known[:, 1:]
        canvas = self.mask_token.to(seen.dtype).expand(batch, n, -1)
        if masking.mask is not None:
            # Padding writes the mask token back, so it has no effect.
            seen = torch.where(masking.mask[..., None], seen, canvas[:, : seen.shape[1]])
        canvas = canvas.scatter(1, masking.visible[..., None].expand_as(seen), seen)
        x = torch.cat([known[:, :1], canvas], 1) + self.decoder_positions[: n + 1]
        mask = None if bool(vectors.valid.all()) else _with_class(vectors.valid)
        for block in self.decoder_blocks:
            x = block(x, mask)
        predicted: torch.Tensor = self.decoder_pred(self.decoder_norm(x[:, 1:]))
        return predicted

    def forward(self, vectors: PatchedVectors, masking: Masking) -> torch.Tensor:
        """Predict all patches from the visible ones."""
        return self.decode(self.encoder(vectors, masking).tokens, vectors, masking)


def _of_patches(config: AutoencoderConfig, before: int, after: int) -> nn.Module:
    if config.embedding == "own":
        return PatchLinear(config.n_patches, before, after)
    return nn.Linear(before, after)


def _with_class(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else nn.functional.pad(mask, (1, 0), value=True)
