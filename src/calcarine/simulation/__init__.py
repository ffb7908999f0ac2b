"""Brains whose truth is known: a simulated cortex, at work and at rest, and tuned voxels."""
