"""Natural Scenes Dataset (Allen et al. 2022): eight subjects, 7T, up to 30,000 trials each."""

from calcarine.datasets.nsd.check import check
from calcarine.datasets.nsd.download import assets
from calcarine.datasets.nsd.fake import fake
from calcarine.datasets.nsd.layout import INFO
from calcarine.datasets.nsd.load import load, recording

__all__ = ["INFO", "assets", "check", "fake", "load", "recording"]
