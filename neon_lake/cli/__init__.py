"""The command line, a thin shell over the verbs."""

from neon_lake.cli.commands import main

__all__ = ["main"]
