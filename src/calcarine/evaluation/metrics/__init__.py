"""Metrics: what is computed from ground truths and reconstructions."""
