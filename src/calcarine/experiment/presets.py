"""Presets: named settings to start an experiment from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
# The Vis-Dec paper and its documented command (140, 60 and 700 epochs).
_VISDEC_PAPER: dict[str, Any] = {
    "enabled": True,
    "model": "model.ckpt",
    "pretrain": {
        "pool": ["own"],
        "training": {
            "steps": 76_000,
            "batch_size": 250,
            "lr": 2.5e-4,
            "warmup_steps": 21_800,
            "weight_decay": 0.05,
            "clip": 0.8,
            "precision": "16",
        },
    },
    "guide": {
        "image_autoencoder": "facebook/vit-mae-base",
        "image_decoder_depth": 6,
        "fmri_decoder_depth": 6,
        "training": {
            "steps": 4_500,
            "batch_size": 16,
            "lr": 5.3e-5,
            "warmup_steps": 150,
            "precision": "16",
        },
    },
    "finetune": {
        "loss": {"drop_condition": 0.0, "tokens": 77, "begin": "random"},
        "training": {
            "steps": 105_000,
            "batch_size": 8,
            "lr": 5.3e-5,
            "schedule": "constant",
            "clip": 0.5,
            "weight_decay": 0.01,
            "betas": [0.9, 0.999],
        },
        "sampler": "plms",
        "steps": 250,
    },
}
# A size for a laptop and the mini model.
_VISDEC_MINI: dict[str, Any] = {
    "enabled": True,
    "encoder": {
        "patch": 32,
        "dim": 128,
        "depth": 2,
        "heads": 4,
        "decoder_dim": 96,
        "decoder_depth": 1,
        "decoder_heads": 4,
        "embedding": "own",
    },
    "pretrain": {
        "pool": ["rest", "own"],
        "augmentation": {"drop": 0.1},
        "training": {
            "steps": 800,
            "batch_size": 64,
            "lr": 2e-3,
            "warmup_steps": 100,
            "validate_every": 200,
        },
    },
    "guide": {
        "augmentation": {"drop": 0.1},
        "training": {
            "steps": 200,
            "batch_size": 32,
            "lr": 5e-4,
            "warmup_steps": 30,
            "validate_every": 50,
        },
    },
    "finetune": {
        "loss": {"align": 1.0, "latent": 1.0},
        "augmentation": {"noise": 0.2, "drop": 0.1},
        "training": {
            "steps": 400,
            "batch_size": 24,
            "lr": 2e-3,
            "warmup_steps": 50,
            "validate_every": 100,
        },
        "strength": 0.8,
        "guidance": 2.0,
        "steps": 30,
        "samples": 2,
    },
}

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
        {"name": "visdec2023", "ridge": {"enabled": False}, "visdec": _VISDEC_PAPER},
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
