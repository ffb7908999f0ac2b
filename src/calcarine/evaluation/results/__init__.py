"""The results of an evaluation: scores, score files and tables."""
