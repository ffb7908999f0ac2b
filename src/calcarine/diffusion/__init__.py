"""Latent diffusion models behind one class."""

from calcarine.diffusion.autoencoder import Autoencoder
from calcarine.diffusion.class_conditional import (
    UNCONDITIONAL,
    ClassConditionalDiffusion,
    class_context,
    load_class_conditional,
    random_class_conditional,
)
from calcarine.diffusion.conditional import (
    ConditionalDiffusion,
    ModelNote,
    add_time_condition,
    freeze_except,
    trainable_parts,
)
from calcarine.diffusion.generators import GENERATORS, load_model, register_generator
from calcarine.diffusion.latent_diffusion import LatentDiffusion
from calcarine.diffusion.noise import gaussian_noise

__all__ = [
    "GENERATORS",
    "UNCONDITIONAL",
    "Autoencoder",
    "ClassConditionalDiffusion",
    "ConditionalDiffusion",
    "LatentDiffusion",
    "ModelNote",
    "add_time_condition",
    "class_context",
    "freeze_except",
    "gaussian_noise",
    "load_class_conditional",
    "load_model",
    "random_class_conditional",
    "register_generator",
    "trainable_parts",
]
