"""Settings of Vis-Dec by name: what differs from the defaults of `settings.py`."""

from __future__ import annotations

from typing import Any

__all__ = ["PRESETS"]

PRESETS: dict[str, dict[str, Any]] = {
    # Trains in minutes on a laptop.
    "mini": {
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
            "augmentation": {"drop": 0.1},
            "training": {
                "steps": 800,
                "batch_size": 64,
                "lr": 2e-3,
                "warmup_steps": 100,
            },
        },
        "guide": {
            "augmentation": {"drop": 0.1},
            "training": {
                "steps": 200,
                "batch_size": 32,
                "lr": 5e-4,
                "warmup_steps": 30,
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
            },
            "strength": 0.8,
            "guidance": 2.0,
            "steps": 30,
        },
    },
    # The paper and its documented command, whose lengths are in epochs.
    "paper": {
        "pretrain": {
            "training": {
                "epochs": 140,
                "batch_size": 250,
                "lr": 2.5e-4,
                "warmup_epochs": 40,
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
                "epochs": 60,
                "batch_size": 16,
                "lr": 5.3e-5,
                "warmup_epochs": 2,
                "precision": "16",
            },
        },
        "finetune": {
            "loss": {"drop_condition": 0.0, "tokens": 77, "begin": "random"},
            "training": {
                "epochs": 700,
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
    },
}
"""Settings of Vis-Dec by name."""
