"""Pictures and arrays of a test set, from memory or from files."""
