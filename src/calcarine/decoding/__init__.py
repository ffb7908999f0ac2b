"""Decoders from responses to latents, and the pictures made from them."""

from calcarine.decoding.latent_regression import LatentRegression, TargetSummary
from calcarine.decoding.pixels import PixelRegression
from calcarine.decoding.reconstruct import Reconstructor, choose_by_brain
from calcarine.decoding.selection import ChosenSettings, choose_settings

__all__ = [
    "ChosenSettings",
    "LatentRegression",
    "PixelRegression",
    "Reconstructor",
    "TargetSummary",
    "choose_by_brain",
    "choose_settings",
]
