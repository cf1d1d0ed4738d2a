"""Restart a workspace once, at the right moment, and say why."""
