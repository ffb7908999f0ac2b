"""Presets: named settings to start an experiment from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calcarine.visdec.presets import PRESETS as PHASES
from calcarine.visdec.settings import merge_settings

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Named settings.

    Attributes
    ----------
    purpose : str
        What the preset is for, in one sentence.
    settings : dict
        The settings that differ from the defaults.
    on_dataset : dict of str to dict
        Further settings on a data set, by its name.
    """

    purpose: str
    settings: dict[str, Any]
    on_dataset: Mapping[str, dict[str, Any]] = field(default_factory=dict)


# Takagi & Nishimoto 2023.
_PAPER: dict[str, Any] = {
    "model": "CompVis/stable-diffusion-v1-4",
    "strength": 0.8,
    "guidance": 5.0,
    "steps": 50,
    "samples": 5,
    "z_empty_text": True,
    "search": {"enabled": False},
}
# The paper's data: regions of `streams` uncut by nsdgeneral, sessions 1 to 37, the whole brain
# where voxels are encoded, and the identification by networks.
_ON_NSD: dict[str, Any] = {
    "dataset": {"options": {"mask": "streams", "sessions": 37}},
    "evaluation": {"protocols": ["calcarine", "takagi"]},
}
_SIMULATED: dict[str, Any] = {
    "name": "simulated",
    "subject": "subj01",
    "options": {"n_train": 900, "n_test": 40},
}
# The phases are those of :class:`calcarine.visdec.VisDecSettings`; a run adds data and models.
_VISDEC_PAPER = merge_settings(
    PHASES["paper"],
    {"enabled": True, "model": "model.ckpt", "pretrain": {"pool": ["own"]}},
)
_VISDEC_MINI = merge_settings(
    PHASES["mini"],
    {"enabled": True, "pretrain": {"pool": ["rest", "own"]}, "finetune": {"samples": 2}},
)

PRESETS: dict[str, Preset] = {
    "takagi": Preset(
        "Decode z and c by ridge regression and make pictures of them with the mini model, on any "
        "data set.",
        {"name": "takagi", "generation": {"candidates": 5}},
    ),
    "takagi2023": Preset(
        "The settings of Takagi & Nishimoto (2023) with Stable Diffusion 1.4, sound decoders and "
        "encoding maps.",
        {
            "name": "takagi2023",
            "features": {"resize": "lanczos"},
            "generation": {**_PAPER, "candidates": 5},
            "encoding": {"enabled": True, "train": "trials"},
        },
        {
            "nsd": {
                **_ON_NSD,
                "dataset": {"options": {"mask": "brain+streams", "sessions": 37}},
            }
        },
    ),
    "takagi2023-compat": Preset(
        "The same with the decoders as the published code fits them, to compare with its results.",
        {
            "name": "takagi2023-compat",
            "dataset": {"zscore_sessions": False},
            "features": {"resize": "lanczos", "posterior": "sample"},
            "ridge": {
                "alphas": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
                "intercept": False,
                "grouped": False,
            },
            "generation": _PAPER,
        },
        {"nsd": _ON_NSD},
    ),
    "encoding": Preset(
        "Map which parts of the diffusion model predict which voxels; 'calcarine encode' uses it.",
        {"name": "encoding", "encoding": {"enabled": True}},
    ),
    "visdec2023": Preset(
        "Vis-Dec with the networks and training of Sun et al. (2023); needs a GPU and their "
        "diffusion model.",
        {
            "name": "visdec2023",
            "ridge": {"enabled": False},
            "evaluation": {"protocols": ["calcarine", "mind-vis"]},
            "visdec": _VISDEC_PAPER,
        },
        {"god": {"visdec": {"roi": "VC"}}},
    ),
    "visdec-mini": Preset(
        "Vis-Dec and the ridge decoders on a simulated brain, small enough for a laptop.",
        {
            "name": "visdec-mini",
            "dataset": _SIMULATED,
            "generation": {"samples": 2, "steps": 30, "search": {"enabled": False}},
            "visdec": _VISDEC_MINI,
        },
    ),
    "demo": Preset(
        "A simulated brain decoded in minutes, without any download; 'calcarine demo' runs it.",
        {
            "name": "demo",
            "dataset": _SIMULATED,
            "generation": {"samples": 2, "steps": 30, "search": {"enabled": False}},
            "evaluation": {"ceiling_samples": 1},
        },
    ),
}
