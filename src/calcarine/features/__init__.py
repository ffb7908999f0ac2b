"""Feature spaces of stimuli and the store that keeps them."""

from calcarine.features.components import principal_components
from calcarine.features.latents import LatentSettings, text_conditioning, visual_latent
from calcarine.features.picture_folders import extract_folder
from calcarine.features.spaces import SpaceName, extract_spaces
from calcarine.features.store import FeatureStore
from calcarine.features.vision_transformers import VisionModel, load_vision_model

__all__ = [
    "FeatureStore",
    "LatentSettings",
    "SpaceName",
    "VisionModel",
    "extract_folder",
    "extract_spaces",
    "load_vision_model",
    "principal_components",
    "text_conditioning",
    "visual_latent",
]
