"""Confidence intervals, permutation tests and corrections for multiple tests."""
