"""Downloading the files of a data set."""
