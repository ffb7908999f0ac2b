"""Transformer blocks with the parameter names of timm, which published weights have too."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from calcarine.errors import SettingError

__all__ = [
    "NORM_EPS",
    "Attention",
    "CrossAttention",
    "CrossBlock",
    "Mlp",
    "PatchLinear",
    "TransformerBlock",
    "initialise",
]

NORM_EPS = 1e-6
"""Epsilon of the layer norms of new networks, as in masked autoencoders (He et al. 2022)."""


class Attention(nn.Module):
    """Multi-head self-attention.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    heads : int
        Number of heads; must divide ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = _checked(dim, heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Attend from tokens (batch, n, dim) to those where ``mask`` (batch, n) is True."""
        batch, n, _ = x.shape
        q, k, v = self.qkv(x).view(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended: torch.Tensor = self.proj(
            _joined(F.scaled_dot_product_attention(q, k, v, _key_mask(mask)))
        )
        return attended


class CrossAttention(nn.Module):
    """Multi-head attention with queries from one sequence, and keys and values from another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = _checked(dim, heads)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend from ``queries`` to the tokens of ``context`` where ``mask`` is True."""
        batch, n, _ = queries.shape
        q = self.q(queries).view(batch, n, self.heads, -1).transpose(1, 2)
        k, v = (
            self.kv(context).view(batch, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        attended: torch.Tensor = self.proj(
            _joined(F.scaled_dot_product_attention(q, k, v, _key_mask(mask)))
        )
        return attended


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers to tokens (batch, n, dim)."""
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class PatchLinear(nn.Module):
    """A separate linear layer for each patch.

    Parameters
    ----------
    n_patches : int
        Number of patches of the longest vectors; shorter vectors use the first layers.
    before, after : int
        Widths of input and output.

    Notes
    -----
    Weight decay applies to the biases too, because they have two axes.
    """

    def __init__(self, n_patches: int, before: int, after: int) -> None:
        super().__init__()
        bound = (6 / (before + after)) ** 0.5  # Xavier's, as for the other layers
        self.weight = nn.Parameter(torch.empty(n_patches, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_patches, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, patches, before) to (batch, patches, after)."""
        n = x.shape[1]
        return torch.einsum("bpi,pio->bpo", x, self.weight[:n]) + self.bias[:n]


class TransformerBlock(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    dim, heads : int
        See `Attention`.
    mlp_ratio : float
        Hidden width of the MLP, in units of ``dim`` (1.0 in MinD-Vis and Vis-Dec).
    norm_eps : float
        Epsilon of the layer norms.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float = 1.0, norm_eps: float = NORM_EPS
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the block to tokens (batch, n, dim); ``mask`` as in `Attention`."""
        x = x + self.attn(self.norm1(x), mask)
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossBlock(nn.Module):
    """Self-attention, then cross-attention with another modality, then an MLP.

    Parameters
    ----------
    dim, heads, mlp_ratio
        See `TransformerBlock`.
    direction : {"paper", "code"}
        Source of the queries. In the paper of Vis-Dec (section 3.2), queries come from the other
        modality, and keys and values from this one; in its code it is the reverse. With the
        queries of the other modality, the output has as many tokens as the other modality. It is
        interpolated linearly along the sequence to the tokens of this modality before it is
        added; the output for the class token is added to the class token.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, direction: str) -> None:
        super().__init__()
        if direction not in ("paper", "code"):
            raise SettingError(f"The direction of attention is paper or code, not {direction}.")
        self.direction = direction
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm_own = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm_other = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: torch.Tensor,
        other: torch.Tensor,
        mask: torch.Tensor | None = None,
        other_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Apply the block to tokens (batch, n, dim), with ``other`` of shape (batch, m, dim)."""
        x = x + self.attn(self.norm1(x), mask)
        own, context = self.norm_own(x), self.norm_other(other)
        if self.direction == "code":
            x = x + self.cross(own, context, other_mask)
        else:
            x = x + _interpolate_tokens(self.cross(context, own, mask), x.shape[1])
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


def _interpolate_tokens(tokens: torch.Tensor, n: int) -> torch.Tensor:
    """Interpolate all tokens but the class token to n - 1 tokens."""
    if tokens.shape[1] == n:
        return tokens
    rest = F.interpolate(
        tokens[:, 1:].transpose(1, 2), size=n - 1, mode="linear", align_corners=False
    )
    return torch.cat([tokens[:, :1], rest.transpose(1, 2)], 1)


def _key_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else mask[:, None, None]


def _joined(heads: torch.Tensor) -> torch.Tensor:
    return heads.transpose(1, 2).flatten(2)


def _checked(dim: int, heads: int) -> int:
    if dim % heads:
        raise SettingError(f"{heads} heads do not divide tokens of width {dim}.")
    return heads


def initialise(module: nn.Module) -> None:
    """Initialise linear layers as masked autoencoders do: Xavier, with biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
