"""Getting the files of a data set."""
