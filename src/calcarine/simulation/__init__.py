"""Simulated brains with a known ground truth: a visual cortex, rest, and tuned voxels."""
