"""``python -m calcarine.cli``."""

from calcarine.cli import main

main()
