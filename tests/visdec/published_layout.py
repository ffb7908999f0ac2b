"""The masked autoencoder of MinD-Vis and Vis-Dec in plain torch, from a description of it.

Nothing here comes from calcarine, so weights that are saved from here test what it makes of them.
A convolution over voxels, as wide as its stride, makes tokens; fixed sines are added; blocks with
layer norms before attention and MLP follow, with torch's default epsilon of 1e-5; the decoder gets
a mask token for each hidden patch. Names are those of the published files.
"""

from __future__ import annotations

import math

import torch
from torch import nn

NORM_EPS = 1e-5


def sines(n, width):
    """First sines, then cosines, from fast to slow; zeros for the class token."""
    rows = [[0.0] * width]
    for place in range(n):
        angles = [place / 10000 ** (2 * k / width) for k in range(width // 2)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64).float()


def nearest(table, n):
    """Positions of ``n`` patches: each takes the old one at the same share of the length."""
    old = table.shape[1] - 1
    chosen = [0] + [1 + place * old // n for place in range(n)]
    return table[:, chosen]


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def attended(self, x):
        """One head after the other: each has its own stretch of queries, keys and values."""
        queries, keys, values = self.attn["qkv"](x).chunk(3, -1)
        size = x.shape[-1] // self.heads
        found = []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(size)
            found.append(scores.softmax(-1) @ values[..., part])
        return self.attn["proj"](torch.cat(found, -1))

    def forward(self, x):
        x = x + self.attended(self.norm1(x))
        hidden = self.mlp["fc1"](self.norm2(x))
        return x + self.mlp["fc2"](0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))


class Theirs(nn.Module):
    """The whole autoencoder; ``state_dict`` has the names of the published files."""

    def __init__(
        self,
        n_patches=7,
        patch=4,
        dim=16,
        depth=3,
        heads=2,
        hidden=24,
        decoder_dim=12,
        decoder_depth=2,
        decoder_heads=3,
        decoder_hidden=18,
    ):
        super().__init__()
        self.patch = patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv1d(1, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sines(n_patches, dim)[None], requires_grad=False)
        self.blocks = nn.ModuleList([Block(dim, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(
            sines(n_patches, decoder_dim)[None], requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            [Block(decoder_dim, decoder_heads, decoder_hidden) for _ in range(decoder_depth)]
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(decoder_dim, patch)

    def tokens(self, voxels):
        """Embed (batch, voxels); the first voxels fill the last patch."""
        missing = -voxels.shape[1] % self.patch
        whole = torch.cat([voxels, voxels[:, :missing]], 1)
        return self.patch_embed["proj"](whole[:, None]).transpose(1, 2) + self.pos_embed[:, 1:]

    def encode(self, voxels, visible):
        """Encode the class token and the patches ``visible`` (batch, kept), in any order."""
        tokens = self.tokens(voxels)
        rows = torch.arange(len(tokens))[:, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        x = torch.cat([first, tokens[rows, visible]], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def encode_for_conditioner(self, voxels):
        """Encode all patches without a class token, as in the last phase."""
        x = self.tokens(voxels)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def predict(self, voxels, visible):
        """Predict all patches from some of them."""
        known = self.decoder_embed(self.encode(voxels, visible))
        n = self.decoder_pos_embed.shape[1] - 1
        canvas = self.mask_token.repeat(len(voxels), n, 1)
        canvas[torch.arange(len(voxels))[:, None], visible] = known[:, 1:]
        x = torch.cat([known[:, :1], canvas], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    @torch.no_grad()
    def stretch(self, n):
        """Take the vectors of another length."""
        for name in ("pos_embed", "decoder_pos_embed"):
            table = nn.Parameter(nearest(getattr(self, name), n), requires_grad=False)
            setattr(self, name, table)
        return self


def random_autoencoder(seed=0, **sizes):
    """An autoencoder with random weights, whose class and mask tokens are as small as new ones."""
    network = Theirs(**sizes).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if not value.requires_grad:
                continue
            noise = torch.randn(value.shape, generator=draw)
            if name.endswith("token"):
                value.copy_(0.02 * noise)
            elif "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5 if value.ndim > 1 else 0.1 * noise)
    return network.requires_grad_(False)


def stored(network, decoder=True):
    """The weights as a published file has them; without decoder, as a fine-tuned model has them."""
    return {
        name: value.clone()
        for name, value in network.state_dict().items()
        if decoder or not name.startswith(("decoder_", "mask_token"))
    }
