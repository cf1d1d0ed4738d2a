"""The part of a target that names a program and how to stop it; and how its child is launched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import InvalidTarget
from orchestrator.ports.executor import Order
from workers.executors import target_fields as fields
from workers.executors.secret_references import Secret, resolve, text_or_reference, values_of
from workers.supervision.launch import Launch

PROGRAM_FIELDS = frozenset({"argv", "cwd", "env", "grace", "stop_signal"})
DEFAULT_STOP_SIGNAL = "TERM"

_SETTINGS_PREFIX = "ORCHESTRATOR_"
_OURS = ("WORKSPACE", "RESTART", "CYCLE", "FENCE", "REASON", "KIND")
_PASSED_ON = frozenset({"ORCHESTRATOR_URL"})
"""Not a secret, and what a child needs to report writes of its own."""


def normalise_program(target: Mapping[str, Any], *, default_grace: str) -> dict[str, Any]:
    """Return the fields checked and with defaults. ``cwd`` and ``stop_signal`` are left out where they say nothing.

    Raises ``InvalidTarget`` that names the field.
    """
    normal: dict[str, Any] = {
        "argv": fields.argv(fields.required(target, "argv"), "argv"),
        "env": _normalise_env(target.get("env", {})),
        "grace": fields.duration(target.get("grace", default_grace), "grace"),
    }
    stop_signal = fields.signal_name(target.get("stop_signal", DEFAULT_STOP_SIGNAL), "stop_signal")
    if stop_signal != DEFAULT_STOP_SIGNAL:
        normal["stop_signal"] = stop_signal
    if "cwd" in target:
        normal["cwd"] = fields.text(target["cwd"], "cwd")
    return normal


def launch_of(order: Order) -> Launch:
    """Return the launch of the order's own program."""
    env = child_environment(order)
    return Launch(
        argv=order.target["argv"],
        env=env,
        hidden=values_of(order.target, env),
        cwd=order.target.get("cwd"),
        grace_s=fields.seconds(order.target["grace"]),
        stop_signal=fields.signal_number(order.target.get("stop_signal", DEFAULT_STOP_SIGNAL)),
    )


def child_environment(order: Order) -> dict[str, str]:
    """Return the worker's environment, less the product's settings, plus the target's ``env`` and the order's own.

    The settings stay behind because they hold the database's and the broker's passwords. References are resolved:
    raises ``PermanentError`` or ``TransientError`` where one cannot be.
    """
    settings = {name for name in os.environ if name.startswith(_SETTINGS_PREFIX)} - _PASSED_ON
    inherited = {name: value for name, value in os.environ.items() if name not in settings}
    return {
        **inherited,
        **{name: resolve(value, f"env.{name}") for name, value in order.target.get("env", {}).items()},
        "ORCHESTRATOR_WORKSPACE": order.workspace,
        "ORCHESTRATOR_RESTART": order.restart,
        "ORCHESTRATOR_CYCLE": order.cycle,
        "ORCHESTRATOR_FENCE": str(order.fence),
        "ORCHESTRATOR_REASON": _printable(order.reason),
        "ORCHESTRATOR_KIND": order.kind,
    }


def _normalise_env(value: object) -> dict[str, Secret]:
    env = fields.mapping(value, "env")
    return {_env_name(name): text_or_reference(env[name], f"env.{name}") for name in sorted(env)}


def _env_name(name: str) -> str:
    field = f"env.{name}"
    fields.text(name, field)
    if "=" in name:
        raise InvalidTarget(f"target field {field!r}: a variable's name cannot hold '='", field=field)
    if name in {_SETTINGS_PREFIX + ours for ours in _OURS}:
        raise InvalidTarget(f"target field {field!r} is set by the orchestrator; choose another name", field=field)
    return name


def _printable(reason: str) -> str:
    return reason.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
