"""Training of the bundled mini model and its judges."""
