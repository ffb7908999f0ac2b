"""Steps of denoising: the model's own scheduler, or PLMS over the same noise levels."""

from __future__ import annotations

import inspect
from typing import Any

from calcarine.errors import SettingError

__all__ = ["SAMPLERS", "check_sampler", "check_steps", "make_stepper", "timesteps"]

SAMPLERS = ("ddim", "plms")


def timesteps(scheduler: Any, steps: int, strength: float) -> list[int]:
    """Return the timesteps that remain at a strength, noisiest first."""
    if not 0 <= strength <= 1:
        raise SettingError(f"strength is {strength}; choose it between 0 (keep z) and 1.")
    most = scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise SettingError(f"steps is {steps}; choose it between 1 and {most}.")
    scheduler.set_timesteps(steps)
    times: list[int] = scheduler.timesteps.tolist()
    if max(times) >= most:
        raise SettingError(
            f"steps is {steps}, but this model's schedule starts at the second of its {most} noise "
            "levels (steps_offset); choose fewer."
        )
    kept = min(int(steps * strength), steps)
    return times[steps - kept :]


def check_steps(steps: int, strength: float, name: str = "") -> None:
    """Raise if a strength above 0 leaves no denoising step, so that the context has no effect.

    Parameters
    ----------
    steps : int
        Steps of the whole schedule.
    strength : float
        Exactly 0 keeps the latents on purpose and is allowed.
    name : str
        Name of the setting for the error message.

    Notes
    -----
    The number of steps is ``int(steps * strength)``, as in diffusers' image-to-image pipelines.
    """
    if strength > 0 and int(steps * strength) < 1:
        setting = f" ({name})" if name else ""
        raise SettingError(
            f"Of {steps} steps strength {strength:g} leaves no denoising step{setting}; raise one "
            "of them."
        )


def check_sampler(name: str, scheduler: Any) -> None:
    """Raise unless a sampler exists and fits the model's noise schedule."""
    if name not in SAMPLERS:
        raise SettingError(f"There is no sampler '{name}'; choose one of {', '.join(SAMPLERS)}.")
    if name == "ddim":
        return
    if float(scheduler.alphas_cumprod[-1]) < 1e-12:
        raise SettingError(
            "The noise schedule of this model ends without signal (zero terminal SNR), and the "
            "sampler plms divides by the signal; choose ddim."
        )
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise SettingError(
            f"The sampler plms needs a model that predicts noise or v, not '{kind}'; choose ddim."
        )


def make_stepper(name: str, scheduler: Any, steps: int, times: list[int]) -> tuple[Any, list[int]]:
    """Return a scheduler for one batch, and its timesteps.

    Parameters
    ----------
    name : str
        ``"ddim"``: the model's own scheduler; ``"plms"``: pseudo linear multi-step.
    scheduler
        Scheduler of the model, set to ``steps``.
    times : list of int
        Timesteps, as `timesteps` returns them.

    Returns
    -------
    scheduler
        PLMS keeps earlier predictions, so each batch has a scheduler of its own.
    times : list of int
        PLMS evaluates the second timestep twice, because its first step is one of Heun's method.

    Notes
    -----
    Source of PLMS: Liu et al. (2022, arXiv 2202.09778), as implemented in the latent diffusion
    models of CompVis. The timestep that occurs twice is the second one that remains at the
    strength. diffusers' image-to-image pipelines repeat the second one of the whole schedule, so
    their PLMS is one noise level off at strengths below 1.
    """
    if name == "ddim":
        return scheduler, times
    from diffusers import PNDMScheduler

    known = inspect.signature(PNDMScheduler.__init__).parameters
    settings = {key: value for key, value in scheduler.config.items() if key in known}
    own: Any = PNDMScheduler(**{**settings, "skip_prk_steps": True})
    own.set_timesteps(steps)
    return own, [*times[:2], *times[1:]]
