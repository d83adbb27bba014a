"""The command line: ``sciflow <door> <verb>``, each verb the dataclass of its Python recipe."""

from sciflow.cli.app import main

__all__ = ["main"]
