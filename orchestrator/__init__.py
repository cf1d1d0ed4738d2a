"""Restart a workspace once, at the right moment, and say why."""

from importlib.metadata import version

__version__ = version("restart-orchestrator")
