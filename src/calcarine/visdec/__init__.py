"""Vis-Dec (Sun et al. 2023): masked autoencoders, guidance by images, conditioned diffusion."""
