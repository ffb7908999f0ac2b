"""Vis-Dec (Sun et al. 2023): masked autoencoders, guidance by images, conditioned diffusion."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.visdec.brain_conditioning import BrainConditioning, VoxelScale
    from calcarine.visdec.encoder_storage import load_encoder, save_encoder
    from calcarine.visdec.estimator import VisDec
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
    from calcarine.visdec.image_autoencoder import ImageAutoencoder
    from calcarine.visdec.padding import pad_to_patches
    from calcarine.visdec.patches import join_patched, patch_vectors
    from calcarine.visdec.phases import TrainingStimuli
    from calcarine.visdec.published_conditioner import load_published_conditioner
    from calcarine.visdec.published_encoder import load_published_encoder
    from calcarine.visdec.settings import VisDecSettings

__all__ = [
    "AutoencoderConfig",
    "BrainConditioning",
    "FMRIAutoencoder",
    "ImageAutoencoder",
    "TrainingStimuli",
    "VisDec",
    "VisDecSettings",
    "VoxelScale",
    "join_patched",
    "load_encoder",
    "load_published_conditioner",
    "load_published_encoder",
    "pad_to_patches",
    "patch_vectors",
    "save_encoder",
]

# Imported when they are used: settings are light, and networks need torch.
_MODULES = {
    "AutoencoderConfig": "fmri_autoencoder",
    "BrainConditioning": "brain_conditioning",
    "FMRIAutoencoder": "fmri_autoencoder",
    "ImageAutoencoder": "image_autoencoder",
    "TrainingStimuli": "phases",
    "VisDec": "estimator",
    "VisDecSettings": "settings",
    "VoxelScale": "brain_conditioning",
    "join_patched": "patches",
    "load_encoder": "encoder_storage",
    "load_published_conditioner": "published_conditioner",
    "load_published_encoder": "published_encoder",
    "pad_to_patches": "padding",
    "patch_vectors": "patches",
    "save_encoder": "encoder_storage",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
