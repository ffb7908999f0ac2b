"""``python -m calcarine``."""

from calcarine.cli import main

main()
