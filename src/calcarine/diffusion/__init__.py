"""Latent diffusion models behind one class."""

from calcarine.diffusion.autoencoder import Autoencoder, torch_dtype
from calcarine.diffusion.class_conditional import (
    class_context,
    load_class_conditional,
    random_class_conditional,
)
from calcarine.diffusion.conditional import (
    ConditionalDiffusion,
    add_time_condition,
    freeze_except,
    trainable_parts,
)
from calcarine.diffusion.generators import load_model
from calcarine.diffusion.latent_diffusion import LatentDiffusion
from calcarine.diffusion.noise import gaussian_noise

__all__ = [
    "Autoencoder",
    "ConditionalDiffusion",
    "LatentDiffusion",
    "add_time_condition",
    "class_context",
    "freeze_except",
    "gaussian_noise",
    "load_class_conditional",
    "load_model",
    "random_class_conditional",
    "torch_dtype",
    "trainable_parts",
]
