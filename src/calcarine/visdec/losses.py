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
    guess: torch.Tensor, truth: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of a patch, averaged over the masked patches of the batch.

    Parameters
    ----------
    guess, truth
        Shape (batch, patches, voxels of a patch).
    hidden
        bool, shape (batch, patches).
    """
    errors = (guess - truth).square().mean(-1)
    return (errors * hidden).sum() / hidden.sum().clamp(min=1)


def cosine_scores(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosines s(a_i, b_j) of the rows of two matrices, shape (len(a), len(b))."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def self_contrast(
    first: torch.Tensor,
    second: torch.Tensor,
    truth: torch.Tensor,
    temperature: float = 0.1,
    form: Literal["paper", "code"] = "paper",
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """A reconstruction should be nearer to its own vector than to another's.

    Parameters
    ----------
    first, second
        Reconstructions y^1 and y^2 from the two maskings, shape (batch, voxels).
    truth
        Vectors x, of the same shape.
    same
        bool, shape (batch, batch): pairs that are one vector, drawn twice into the batch. They
        are no negatives.

    Notes
    -----
    ``"code"`` is the mean over i of ``-log exp(s(y_i^1, x_i)/t) / sum_j exp(s(y_i^1, x_j)/t)``.
    ``"paper"`` is the mean of that and of its counterpart for the second branch, whose
    negatives are the pairs (y_j^2, x_i): ``-log exp(s(y_i^2, x_i)/t) / sum_j
    exp(s(y_j^2, x_i)/t)``.
    """
    near = _nce(cosine_scores(first, truth), temperature, same)
    if form == "code":
        return near
    return (near + _nce(cosine_scores(truth, second), temperature, same)) / 2


def cross_contrast(
    first: torch.Tensor,
    second: torch.Tensor,
    temperature: float = 0.1,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Two reconstructions of one vector should be nearer to each other than to another's.

    Mean over i of ``-log exp(s(y_i^1, y_i^2)/t) / sum_j exp(s(y_i^1, y_j^2)/t)``.
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
    guesses: tuple[torch.Tensor, torch.Tensor],
    truth: torch.Tensor,
    hidden: tuple[torch.Tensor, torch.Tensor],
    valid: torch.Tensor,
    config: ContrastLoss,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """All losses of one batch.

    Parameters
    ----------
    guesses
        Guesses of all patches from the two maskings, each (batch, patches, voxels of a patch).
    truth
        Of the same shape.
    hidden
        Masked patches of each masking, bool, (batch, patches).
    valid
        bool, (batch, patches): patches that the vectors have.
    rows
        int64, (batch,): which vector each is, where one may be drawn twice.

    Returns
    -------
    total, parts
        ``total`` is the weighted sum; ``parts`` holds each loss without its weight.

    Notes
    -----
    With the form ``"paper"`` the total is ``w_r L_r + w_s L_S + w_c L_C``; with ``"code"``,
    ``w_r L_r + (w_s L_S + w_c L_C) / 2``. L_r is the mean over both maskings. On several devices,
    and with gradients accumulated, contrasts are within each micro-batch.
    """
    with torch.autocast(truth.device.type, enabled=False):
        both = [guess.float() for guess in guesses]
        first, second, target = ((x * valid[..., None]).flatten(1) for x in (*both, truth.float()))
        told = [
            reconstruction_loss(guess, truth.float(), mask)
            for guess, mask in zip(both, hidden, strict=True)
        ]
        same = None if rows is None else rows[:, None] == rows
        parts = {
            "reconstruction": (told[0] + told[1]) / 2,
            "self_contrast": self_contrast(
                first, second, target, config.temperature, config.form, same
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
