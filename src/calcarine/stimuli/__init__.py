"""What was shown: pictures with captions, categories and semantic maps."""

from calcarine.stimuli.image_files import read_picture
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["StimulusSet", "read_picture", "resize_images"]
