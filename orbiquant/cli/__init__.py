"""The command line: `orbiquant …`."""

from orbiquant.cli.program import main

__all__ = ["main"]
