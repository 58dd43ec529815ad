"""``python -m bide``."""

from bide.cli import main

main()
