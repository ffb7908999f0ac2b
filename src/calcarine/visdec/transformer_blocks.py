"""Transformer blocks; their parameters are named as in timm, as published weights are."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from calcarine.errors import CalcarineError

__all__ = ["Attention", "CrossBlock", "Mlp", "PatchLinear", "TransformerBlock", "initialise"]


class Attention(nn.Module):
    """Self-attention of several heads.

    Parameters
    ----------
    dim, heads
        Width of tokens and number of heads, which must divide it.
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
        return self.proj(_joined(F.scaled_dot_product_attention(q, k, v, _keys(mask))))


class CrossAttention(nn.Module):
    """Attention whose queries come from one sequence, keys and values from another."""

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
        return self.proj(_joined(F.scaled_dot_product_attention(q, k, v, _keys(mask))))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PatchLinear(nn.Module):
    """A linear layer of its own for each patch.

    Parameters
    ----------
    n_patches
        Of the longest vectors; shorter ones use the first layers.
    before, after
        Widths.

    Notes
    -----
    Its biases, one row a patch, decay with the weights.
    """

    def __init__(self, n_patches: int, before: int, after: int) -> None:
        super().__init__()
        bound = (6 / (before + after)) ** 0.5  # Xavier's, as of the other layers
        self.weight = nn.Parameter(torch.empty(n_patches, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_patches, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, patches, before) to (batch, patches, after)."""
        n = x.shape[1]
        return torch.einsum("bpi,pio->bpo", x, self.weight[:n]) + self.bias[:n]


class TransformerBlock(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    dim, heads
    mlp_ratio
        Hidden width of the MLP over ``dim`` (1.0 in MinD-Vis and Vis-Dec).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 1.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Self-attention, then cross-attention with another modality, then an MLP.

    Parameters
    ----------
    dim, heads, mlp_ratio
    direction : {"paper", "code"}
        Who asks. In the paper of Vis-Dec (section 3.2) the other modality asks, with keys and
        values of the own one; in its code the own modality asks, with keys and values of the
        other. Answers to the other modality's questions are as many as its tokens, so they are
        brought to the own number of tokens by linear interpolation along the sequence before
        they are added; the class token's answer is added to the class token.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, direction: str) -> None:
        super().__init__()
        if direction not in ("paper", "code"):
            raise CalcarineError(f"The direction of attention is paper or code, not {direction}.")
        self.direction = direction
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm_own = nn.LayerNorm(dim, eps=1e-6)
        self.norm_other = nn.LayerNorm(dim, eps=1e-6)
        self.cross = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: torch.Tensor,
        other: torch.Tensor,
        mask: torch.Tensor | None = None,
        other_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Own tokens (batch, n, dim) after listening to ``other`` (batch, m, dim)."""
        x = x + self.attn(self.norm1(x), mask)
        own, foreign = self.norm_own(x), self.norm_other(other)
        if self.direction == "code":
            x = x + self.cross(own, foreign, other_mask)
        else:
            x = x + _as_many(self.cross(foreign, own, mask), x.shape[1])
        return x + self.mlp(self.norm2(x))


def _as_many(tokens: torch.Tensor, n: int) -> torch.Tensor:
    """A class token and others brought to a class token and n - 1 others."""
    if tokens.shape[1] == n:
        return tokens
    rest = F.interpolate(
        tokens[:, 1:].transpose(1, 2), size=n - 1, mode="linear", align_corners=False
    )
    return torch.cat([tokens[:, :1], rest.transpose(1, 2)], 1)


def _keys(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else mask[:, None, None]


def _joined(heads: torch.Tensor) -> torch.Tensor:
    return heads.transpose(1, 2).flatten(2)


def _checked(dim: int, heads: int) -> int:
    if dim % heads:
        raise CalcarineError(f"{heads} heads do not divide tokens of width {dim}.")
    return heads


def initialise(module: nn.Module) -> None:
    """Linear layers by Xavier with biases 0, as masked autoencoders begin."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
