"""Latent diffusion models behind one class."""

from calcarine.diffusion.autoencoder import Autoencoder, torch_dtype
from calcarine.diffusion.latent_diffusion import LatentDiffusion
from calcarine.diffusion.noise import gaussian_noise

__all__ = ["Autoencoder", "LatentDiffusion", "gaussian_noise", "torch_dtype"]
