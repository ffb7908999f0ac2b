"""Decoders from responses to latents, and the pictures that are made from them."""

from calcarine.decoding._fitted import NotFittedError
from calcarine.decoding.bottleneck import Bottleneck
from calcarine.decoding.embedding_regression import EmbeddingRegression
from calcarine.decoding.gallery import Gallery
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.decoding.pixels import PixelRegression
from calcarine.decoding.reconstruct import Reconstructor, choose_by_brain
from calcarine.decoding.registry import (
    DECODERS,
    Decoder,
    load_decoder,
    make_decoder,
    register_decoder,
)
from calcarine.decoding.retrieval import Retrieval, retrieve
from calcarine.decoding.ridge_fits import TargetSummary
from calcarine.decoding.settings_search import ChosenSettings, choose_settings

__all__ = [
    "DECODERS",
    "Bottleneck",
    "ChosenSettings",
    "Decoder",
    "EmbeddingRegression",
    "Gallery",
    "LatentRegression",
    "NotFittedError",
    "PixelRegression",
    "Reconstructor",
    "Retrieval",
    "TargetSummary",
    "choose_by_brain",
    "choose_settings",
    "load_decoder",
    "make_decoder",
    "register_decoder",
    "retrieve",
]
