"""Subjects that a YAML file describes: betas or BIDS derivatives, pictures, regions, splits."""
