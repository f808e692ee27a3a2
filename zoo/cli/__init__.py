"""The command line, `zoo`."""

from zoo.cli.app import main

__all__ = ["main"]
