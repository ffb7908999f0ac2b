"""Conversion of any model's scheduler to DDIM, as in diffusers' pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calcarine.errors import DamagedFileError, SettingError
from calcarine.files import read_json

__all__ = ["DDPM_FAMILY", "as_ddim", "ddim_from_config", "load_ddim"]

DDPM_FAMILY = frozenset(
    {
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "RePaintScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    }
)
"""Classes of diffusers with the noise schedule of DDPM (betas at discrete times)."""

_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_FORCED: dict[str, Any] = {"clip_sample": False, "steps_offset": 1}


def ddim_from_config(config: Mapping[str, Any], where: str | Path) -> tuple[Any, list[str]]:
    """Make DDIM with the noise schedule of a configuration from the family of DDPM.

    Parameters
    ----------
    config : mapping
        Content of a ``scheduler_config.json``; without ``_class_name``, DDIM is assumed.
    where : str or Path
        Name of the configuration for messages.

    Returns
    -------
    scheduler : DDIMScheduler
    notes : list of str
        What was changed, in one sentence; empty without changes.

    Raises
    ------
    SettingError
        If the configuration is of another family (flow matching, EDM, consistency models and
        others), or has a noise schedule that DDIM does not support.

    Notes
    -----
    Source: the constructors of diffusers' Stable Diffusion pipelines, which set ``clip_sample``
    to False and ``steps_offset`` to 1. Both matter: ``clip_sample``, DDIM's default, clips
    predictions to the range from -1 to 1, which latents exceed by far.
    """
    from diffusers import DDIMScheduler

    name = str(config.get("_class_name") or "DDIMScheduler")
    _check_family(name, config, where)
    known = {key: value for key, value in config.items() if key not in _FORCED}
    try:
        scheduler = DDIMScheduler.from_config(known, **_FORCED)
    except Exception as error:  # diffusers does not check types
        raise DamagedFileError(
            f"The scheduler of {where} has a setting that DDIM cannot use ({error}); copy the "
            "model again, whole."
        ) from error
    if not bool(scheduler.alphas_cumprod.isfinite().all()):
        raise DamagedFileError(
            f"The noise schedule of {where} has values that are not finite; copy the model again, "
            "whole."
        )
    changes = [] if name == "DDIMScheduler" else [f"{name} becomes DDIMScheduler"]
    for key, value in _FORCED.items():
        # In other classes, the setting is missing or has another meaning.
        old = config.get(key, "missing")
        if old != value and (name == "DDIMScheduler" or old != "missing"):
            changes.append(f"{key} becomes {json.dumps(value)} (was {_shown(old)})")
    if not changes:
        return scheduler, []
    return scheduler, [
        f"The scheduler of {where} is converted to DDIM as in diffusers' pipelines: "
        f"{'; '.join(changes)}."
    ]


def as_ddim(scheduler: Any, where: str) -> tuple[Any, list[str]]:
    """A scheduler of diffusers as DDIM; see `ddim_from_config`.

    Parameters
    ----------
    scheduler
        Returned as it is where nothing needs to be changed.
    where : str
        Name of the model, for sentences.
    """
    from diffusers import DDIMScheduler

    config = dict(scheduler.config)
    named = isinstance(scheduler, DDIMScheduler)
    config["_class_name"] = "DDIMScheduler" if named else type(scheduler).__name__
    converted, notes = ddim_from_config(config, where)
    return (converted, notes) if notes else (scheduler, [])


def load_ddim(file: Path) -> tuple[Any, list[str]]:
    """DDIM from a ``scheduler_config.json``; see `ddim_from_config`."""
    try:
        config = read_json(file)
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file} is missing or not valid JSON; copy the model again."
        ) from error
    if not isinstance(config, dict):
        raise DamagedFileError(f"{file} is not a configuration; copy the model again.")
    return ddim_from_config(config, file)


def _check_family(name: str, config: Mapping[str, Any], where: str | Path) -> None:
    prediction = config.get("prediction_type", "epsilon")
    flows = "Flow" in name or config.get("use_flow_sigmas") or prediction == "flow_prediction"
    if flows:
        raise SettingError(
            f"The scheduler of {where} ({name}) is of a model trained by flow matching, which DDIM "
            "cannot sample; choose a model such as Stable Diffusion v1 or v2."
        )
    if name not in DDPM_FAMILY:
        raise SettingError(
            f"The scheduler of {where} ({name}) is not of the family of DDPM, so DDIM cannot "
            "sample its model; choose a model such as Stable Diffusion v1 or v2."
        )
    if prediction not in _PREDICTIONS:
        raise SettingError(
            f"The scheduler of {where} is for a model that predicts {prediction!r}; DDIM supports "
            f"{', '.join(_PREDICTIONS)}."
        )
    schedule = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is None and schedule not in _BETAS:
        raise SettingError(
            f"The scheduler of {where} has the noise schedule {schedule!r}, which DDIM does not "
            f"support; it supports {', '.join(_BETAS)} and trained_betas."
        )


def _shown(value: Any) -> str:
    return "missing" if value == "missing" else json.dumps(value, default=str)
