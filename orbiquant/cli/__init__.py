"""The command line: `orbiquant …`."""

from orbiquant.cli.app import main

__all__ = ["main"]
