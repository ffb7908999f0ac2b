"""Reconstruct seen pictures from fMRI with latent diffusion models."""

__version__ = "0.1.0"
