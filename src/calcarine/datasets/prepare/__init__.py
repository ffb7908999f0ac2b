"""Preparing responses: from the files of a data set to one subject's responses on disk."""
