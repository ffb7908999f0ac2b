"""Pictures shown to the observer and their descriptions."""

from calcarine.stimuli.image_files import read_picture
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["StimulusSet", "read_picture", "resize_images"]
