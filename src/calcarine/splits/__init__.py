"""Making splits of stimuli, saving them, and checking how similar their sides are."""
