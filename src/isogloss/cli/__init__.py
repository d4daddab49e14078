"""The command line: parse, call, print."""

from isogloss.cli.app import main

__all__ = ["main"]
