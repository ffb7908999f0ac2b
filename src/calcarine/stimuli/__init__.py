"""Pictures shown to the observer and their descriptions."""

from calcarine.stimuli.images import resize_images
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["StimulusSet", "resize_images"]
