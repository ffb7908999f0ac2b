"""The command line: parse, call, print."""

from calcarine.cli.main import main

__all__ = ["main"]
