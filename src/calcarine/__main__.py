"""Run the command line with ``python -m calcarine``."""

from calcarine.cli import main

main()
