"""Losses of contrastive masked pre-training (Sun et al. 2023, section 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from calcarine.visdec.settings import ContrastLoss

__all__ = [
    "contrast_losses",
    "cosine_scores",
    "cross_contrast",
    "reconstruction_loss",
    "self_contrast",
]


def reconstruction_loss(
    predicted: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared error of a patch, averaged over the masked patches of the batch.

    Parameters
    ----------
    predicted, target : tensor of shape (batch, patches, voxels of a patch)
    hidden : bool tensor of shape (batch, patches)
        Masked patches.
    """
    errors = (predicted - target).square().mean(-1)
    return (errors * hidden).sum() / hidden.sum().clamp(min=1)


def cosine_scores(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosines s(a_i, b_j) of the rows of two matrices, shape (len(a), len(b))."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def self_contrast(
    first: torch.Tensor,
    second: torch.Tensor,
    target: torch.Tensor,
    temperature: float = 0.1,
    form: Literal["paper", "code"] = "paper",
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Contrast each reconstruction with its own vector and the other vectors of the batch.

    Parameters
    ----------
    first, second : tensor of shape (batch, voxels)
        Reconstructions y^1 and y^2 from the two maskings.
    target : tensor of shape (batch, voxels)
        Vectors x.
    temperature : float
        Temperature t.
    form : {"paper", "code"}
        See Notes.
    same : bool tensor of shape (batch, batch), optional
        Pairs that are the same vector, drawn twice into the batch; they are not negatives.

    Notes
    -----
    ``"code"`` is the mean over i of ``-log exp(s(y_i^1, x_i)/t) / sum_j exp(s(y_i^1, x_j)/t)``.
    ``"paper"`` is the mean of that and of its counterpart for the second branch, whose
    negatives are the pairs (y_j^2, x_i): ``-log exp(s(y_i^2, x_i)/t) / sum_j
    exp(s(y_j^2, x_i)/t)``.
    """
    near = _nce(cosine_scores(first, target), temperature, same)
    if form == "code":
        return near
    return (near + _nce(cosine_scores(target, second), temperature, same)) / 2


def cross_contrast(
    first: torch.Tensor,
    second: torch.Tensor,
    temperature: float = 0.1,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Contrast the two reconstructions of each vector with those of other vectors.

    The loss is the mean over i of ``-log exp(s(y_i^1, y_i^2)/t) / sum_j exp(s(y_i^1, y_j^2)/t)``.
    """
    return _nce(cosine_scores(first, second), temperature, same)


def _nce(
    scores: torch.Tensor, temperature: float, same: torch.Tensor | None = None
) -> torch.Tensor:
    own = torch.arange(len(scores), device=scores.device)
    if same is not None:
        others = same.to(scores.device) & (own[:, None] != own)
        scores = scores.masked_fill(others, -torch.inf)
    return F.cross_entropy(scores / temperature, own)


def contrast_losses(
    predictions: tuple[torch.Tensor, torch.Tensor],
    target: torch.Tensor,
    hidden: tuple[torch.Tensor, torch.Tensor],
    valid: torch.Tensor,
    config: ContrastLoss,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return all losses of one batch.

    Parameters
    ----------
    predictions : pair of tensors of shape (batch, patches, voxels of a patch)
        Predictions of all patches from the two maskings.
    target : tensor of the same shape
        The vectors.
    hidden : pair of bool tensors of shape (batch, patches)
        Masked patches of each masking.
    valid : bool tensor of shape (batch, patches)
        Patches that the vectors have.
    config : ContrastLoss
        Weights and form of the losses.
    rows : int64 tensor of shape (batch,), optional
        Number of each vector, if a vector may be drawn twice.

    Returns
    -------
    total : tensor
        Weighted sum of the losses.
    parts : dict of str to tensor
        Each loss without its weight.

    Notes
    -----
    With the form ``"paper"`` the total is ``w_r L_r + w_s L_S + w_c L_C``; with ``"code"``,
    ``w_r L_r + (w_s L_S + w_c L_C) / 2``. L_r is the mean over both maskings. On several devices,
    and with gradients accumulated, contrasts are within each micro-batch.
    """
    with torch.autocast(target.device.type, enabled=False):
        both = [predicted.float() for predicted in predictions]
        first, second, vectors = (
            (x * valid[..., None]).flatten(1) for x in (*both, target.float())
        )
        errors = [
            reconstruction_loss(predicted, target.float(), masked)
            for predicted, masked in zip(both, hidden, strict=True)
        ]
        same = None if rows is None else rows[:, None] == rows
        parts = {
            "reconstruction": (errors[0] + errors[1]) / 2,
            "self_contrast": self_contrast(
                first, second, vectors, config.temperature, config.form, same
            ),
            "cross_contrast": cross_contrast(first, second, config.temperature, same),
        }
        share = 1.0 if config.form == "paper" else 0.5
        weights = {
            "reconstruction": config.reconstruction,
            "self_contrast": share * config.self_contrast,
            "cross_contrast": share * config.cross_contrast,
        }
        total = sum((weights[name] * parts[name] for name in parts if weights[name]), start=0.0)
        assert isinstance(total, torch.Tensor)
    return total, parts
