"""References to secrets in a target, resolved when a worker acts: what they hold is in no event, row, record or log."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.domain.secret_values import HOW_TO_WRITE, references_in
from orchestrator.errors import ExecutionError, InvalidTarget, PermanentError, TransientError
from workers.executors import target_fields as fields

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SETTINGS_PREFIX = "ORCHESTRATOR_"
_MOST_BYTES = 65_536

Secret = str | dict[str, str]
"""Plain text, or ``{"env": NAME}``, or ``{"file": PATH}``."""


def text_or_reference(value: object, field: str) -> Secret:
    """Return a value that may be a reference. Raises ``InvalidTarget``."""
    if not isinstance(value, Mapping):
        return fields.text(value, field, empty=True)
    if len(value) != 1 or not set(value) <= {"env", "file"}:
        raise InvalidTarget(f"target field {field!r} is neither text nor a reference; {HOW_TO_WRITE}", field=field)
    [(kind, name)] = value.items()
    return {kind: _variable(name, field) if kind == "env" else _path(name, field)}


def resolve(value: Secret, field: str) -> str:
    """Return what a value of ``text_or_reference`` stands for, now, in this worker.

    Raises ``PermanentError`` for a variable that this worker lacks and a file that is none, ``TransientError`` for a
    file that is missing: it may just be exchanged. No message holds a value.
    """
    if isinstance(value, str):
        return value
    if "env" in value:
        found = os.environ.get(value["env"])
        if found is None:
            raise PermanentError(
                f"target field {field!r}: this worker has no variable {value['env']}; set it for every worker of the"
                " workspace's pool"
            )
        return found
    return _content(Path(value["file"]), field)


def values_of(target: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values behind the references of a target's ``env``: what a program prints must not show them."""
    given = target.get("env", {})
    return tuple(environment[name] for name, value in given.items() if isinstance(value, Mapping))


def values_behind(target: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values behind all references of a target, of whatever executor; those that cannot be read left out."""
    return tuple(value for kind, name in references_in(target) for value in _readable(kind, name))


def _readable(kind: str, name: str) -> Iterator[str]:
    with suppress(ExecutionError):  # whoever needs it says so
        yield resolve({kind: name}, name)


def _variable(name: object, field: str) -> str:
    text = fields.text(name, f"{field}.env")
    if not _VARIABLE.fullmatch(text):
        raise InvalidTarget(f"target field {field!r}: {text[:60]!r} is no variable's name", field=field)
    if text.upper().startswith(_SETTINGS_PREFIX):
        raise InvalidTarget(
            f"target field {field!r}: {text[:60]} is a setting of the product, which no target may have", field=field
        )
    return text


def _path(path: object, field: str) -> str:
    text = fields.text(path, f"{field}.file")
    if not os.path.isabs(text):
        raise InvalidTarget(f"target field {field!r}: a secret's file is named by an absolute path", field=field)
    return text


def _content(path: Path, field: str) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PermanentError(f"target field {field!r}: {path} is no file")
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        kind = TransientError if isinstance(error, FileNotFoundError) else PermanentError
        raise kind(f"target field {field!r}: the worker cannot read {path}: {error.strerror}") from None
    if len(raw) > _MOST_BYTES:
        raise PermanentError(f"target field {field!r}: {path} is longer than {_MOST_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise PermanentError(f"target field {field!r}: {path} is not UTF-8") from None
    if "\0" in text:
        raise PermanentError(f"target field {field!r}: {path} holds a NUL, which no variable can")
    return text.removesuffix("\n").removesuffix("\r")
