"""Executors whose library is an extra: which this process has, and how to get the others."""

from __future__ import annotations

from importlib.util import find_spec

MODULES: dict[str, str] = {"docker": "docker", "systemd": "dbus_fast", "webhook": "standardwebhooks"}
"""The module that each needs. Its extra, in pyproject.toml, has the executor's name."""


def is_installed(executor: str) -> bool:
    """Return whether an executor has all that it needs; what it needs is not imported by this."""
    module = MODULES.get(executor)
    return module is None or find_spec(module) is not None


def how_to_get(executor: str) -> str | None:
    """Return a sentence with the command that installs what an executor lacks; None where it lacks nothing."""
    if is_installed(executor):
        return None
    return (
        f"executor {executor} needs a package that is not installed here; "
        f"run `pip install 'restart-orchestrator[{executor}]'` where the API and where its workers run"
    )
