"""The command line: arguments to configuration to a command. Commands are imported when run."""

from ragserve.cli.ending import main

__all__ = ["main"]
