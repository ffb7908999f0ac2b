"""Steps of denoising: the model's own scheduler, or PLMS over the same noise levels."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from calcarine.errors import CalcarineError

SAMPLERS = ("ddim", "plms")


def timesteps(scheduler: Any, steps: int, strength: float) -> torch.Tensor:
    """The timesteps that a strength leaves of ``steps``, noisiest first."""
    if not 0 <= strength <= 1:
        raise CalcarineError(f"strength is {strength}; it lies between 0 (keep z) and 1.")
    most = scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise CalcarineError(f"steps is {steps}; it lies between 1 and {most}.")
    scheduler.set_timesteps(steps)
    if int(max(scheduler.timesteps)) >= most:
        raise CalcarineError(
            f"steps is {steps}, but this model's schedule begins at the second of its {most} noise "
            f"levels (steps_offset); choose fewer."
        )
    kept = min(int(steps * strength), steps)
    return torch.as_tensor(scheduler.timesteps)[steps - kept :]


def check_steps(steps: int, strength: float, name: str = "") -> None:
    """Raise one sentence where a strength above 0 leaves no step, so that no context would count.

    Parameters
    ----------
    steps : int
    strength : float
        Exactly 0 keeps the latents on purpose and is allowed.
    name : str
        Of the setting, for the sentence.

    Notes
    -----
    Source of the count: diffusers' image-to-image pipelines, ``int(steps * strength)``.
    """
    if strength > 0 and int(steps * strength) < 1:
        told = f" ({name})" if name else ""
        raise CalcarineError(
            f"Of {steps} steps strength {strength:g} leaves none{told}; raise one of them."
        )


def check_sampler(name: str, scheduler: Any) -> None:
    """Raise one sentence unless a sampler is known and fits the model's noise schedule."""
    if name not in SAMPLERS:
        raise CalcarineError(f"There is no sampler '{name}'; choose one of {', '.join(SAMPLERS)}.")
    if name == "ddim":
        return
    if float(scheduler.alphas_cumprod[-1]) < 1e-12:
        raise CalcarineError(
            "The noise schedule of this model ends without any signal (zero terminal SNR), which "
            "the sampler plms divides by; choose ddim."
        )
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise CalcarineError(
            f"The sampler plms takes models that predict noise or v, not '{kind}'; choose ddim."
        )


def begin(name: str, scheduler: Any, steps: int, times: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """A scheduler for one batch, and the timesteps it wants.

    Parameters
    ----------
    name : str
        ``"ddim"``: the model's own scheduler; ``"plms"``: pseudo linear multi-step.
    scheduler
        Of the model, set to ``steps``.
    times
        As `timesteps` gives them.

    Returns
    -------
    scheduler
        That of PLMS remembers what it was told, so each batch has its own.
    times
        PLMS asks twice at the second: the first step is a step of Heun's.

    Notes
    -----
    Source of PLMS: Liu et al. 2022 (arXiv 2202.09778), in the form of the latent diffusion models
    of CompVis. What is doubled is the second of the times that the strength leaves. diffusers'
    image-to-image pipelines double the second of the whole schedule, so that their PLMS is one
    noise level out of step where the strength is below 1.
    """
    if name == "ddim":
        return scheduler, times
    from diffusers import PNDMScheduler

    known = inspect.signature(PNDMScheduler.__init__).parameters
    settings = {key: value for key, value in scheduler.config.items() if key in known}
    own: Any = PNDMScheduler(**{**settings, "skip_prk_steps": True})
    own.set_timesteps(steps)
    return own, torch.cat([times[:2], times[1:]])
