"""Score reconstructions under named protocols."""
