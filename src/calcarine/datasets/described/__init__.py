"""Subjects described by a YAML file: betas or BIDS derivatives, pictures, regions, splits."""
