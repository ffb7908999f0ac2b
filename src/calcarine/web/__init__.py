"""Pages for people: the human rating study and the gallery of a run."""
