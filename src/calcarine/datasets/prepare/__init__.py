"""From a data set's own files to one subject's responses on disk."""
