"""Errors that are the user's to mend: one sentence each, what, where and how."""

from __future__ import annotations


class CalcarineError(Exception):
    """A mistake in the input, told in one sentence; the command line exits with 2."""


class LeakageError(CalcarineError):
    """Test data was about to reach a fit."""
