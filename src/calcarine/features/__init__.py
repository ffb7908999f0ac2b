"""Feature spaces of stimuli and their store."""

from calcarine.features.latents import text_conditioning, visual_latent
from calcarine.features.store import FeatureStore

__all__ = ["FeatureStore", "text_conditioning", "visual_latent"]
