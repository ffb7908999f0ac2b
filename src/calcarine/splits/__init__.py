"""Making splits of stimuli, their files, and checks of likeness between their sides."""
