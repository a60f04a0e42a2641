"""``python -m ragserve``."""

from ragserve.cli import main

main()
