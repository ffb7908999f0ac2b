"""The conditioner that the third phase of Vis-Dec starts from, and checks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError

if TYPE_CHECKING:
    import torch

    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.training import TrainingConfig
    from calcarine.visdec.conditioner import Conditioner
    from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder
    from calcarine.visdec.published_conditioner import PublishedConditioner
    from calcarine.visdec.settings import FinetuneLoss

__all__ = ["SEED_STEP", "check_text", "initial_conditioner", "text_contexts"]

SEED_STEP = 7919
"""Distance of the seeds with which networks of successive phases are initialised."""


def check_text(model: ConditionalDiffusion, tokens: int | None) -> None:
    """Raise unless contexts of this number of tokens can be aligned with a model's text."""
    from calcarine.diffusion import LatentDiffusion

    if not isinstance(model, LatentDiffusion):
        raise SettingError(
            f"The diffusion model {model.name} has no text, so conditions cannot be aligned with "
            "it; set visdec.finetune.loss.align to 0."
        )
    if tokens not in (None, model.context_shape[0]):
        raise SettingError(
            f"Conditions of {tokens} tokens cannot be aligned with text of "
            f"{model.context_shape[0]}; leave visdec.finetune.loss.tokens out, or set "
            "visdec.finetune.loss.align to 0."
        )


def text_contexts(
    contexts: Callable[[Sequence[str]], NDArray[np.float32]] | None,
    ids: Sequence[str],
) -> torch.Tensor:
    """Return the contexts of the text of stimuli."""
    import torch

    if contexts is None:
        raise SettingError(
            "There is no text to align conditions with; set finetune.loss.align to 0."
        )
    return torch.from_numpy(contexts(ids))


def initial_conditioner(
    start: FMRIAutoencoder | PublishedConditioner,
    model: ConditionalDiffusion,
    n_patches: int,
    config: FinetuneLoss,
    training: TrainingConfig | None,
) -> tuple[Conditioner, dict[str, torch.Tensor]]:
    """Return the initial conditioner, and initial weights of the U-Net."""
    import torch

    from calcarine.visdec.conditioner import Conditioner
    from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder

    if not isinstance(start, FMRIAutoencoder):
        _check_published(start, n_patches, config)
        return start.conditioner, start.unet_weights(model)
    if training is None:
        raise SettingError(
            "Only a published conditioner can be used without training; train this one."
        )
    tokens = config.tokens or getattr(model, "context_shape", (77,))[0]
    with torch.random.fork_rng():
        torch.manual_seed(training.seed + 2 * SEED_STEP)
        conditioner = Conditioner(
            start.encoder,
            n_patches,
            tokens,
            model.context_width,
            model.time_embed_dim if config.time_condition else None,
            latent_shape=model.latent_shape if config.latent else None,
        )
    context = _empty_context(model, tokens) if config.begin == "empty" else None
    if context is not None:
        conditioner.start_from_context(context)
    return conditioner, {}


def _check_published(start: PublishedConditioner, n_patches: int, config: FinetuneLoss) -> None:
    """Raise if settings or the subject disagree with a published conditioner."""
    shape, path = start.conditioner.shape, start.path
    if shape["n_patches"] != n_patches:
        extra = (
            " If these are the ones, the voxels fill their last patch; the published code then "
            "adds another, and such models are not supported."
        )
        one_short = shape["n_patches"] == n_patches + 1
        raise SettingError(
            f"{path} takes {shape['n_patches']} patches of {shape['encoder']['patch']} "
            f"voxels, and the responses make {n_patches}; choose the subject and the region "
            f"(visdec.roi) that it was trained on.{extra if one_short else ''}"
        )
    if config.tokens not in (None, shape["tokens"]):
        raise SettingError(
            f"{path} makes {shape['tokens']} tokens instead of the {config.tokens} of "
            f"visdec.finetune.loss.tokens; set it to {shape['tokens']}."
        )
    if config.latent:
        raise SettingError(
            f"{path} predicts no latent, like all published models; set "
            "visdec.finetune.loss.latent to 0 and visdec.finetune.strength to 1."
        )
    if (shape["time_width"] is not None) != config.time_condition:
        has = "a" if shape["time_width"] else "no"
        raise SettingError(
            f"{path} makes {has} time condition; set visdec.finetune.loss.time_condition="
            f"{'true' if shape['time_width'] else 'false'}."
        )


def _empty_context(model: ConditionalDiffusion, tokens: int) -> torch.Tensor | None:
    """Return the unconditional context of a model with text, if it has this number of tokens."""
    import torch

    from calcarine.diffusion import LatentDiffusion

    if isinstance(model, LatentDiffusion) and model.context_shape[0] == tokens:
        return torch.from_numpy(model.embed_text([""]))
    return None
