"""Checks of the fields of a target. Every refusal is an ``InvalidTarget`` that names the field."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.domain.durations import format_duration, parse_duration
from orchestrator.domain.secret_values import MASK, is_secret_name, looks_secret
from orchestrator.errors import InvalidInput, InvalidTarget

_SHOWN = 60


def refuse_unknown(fields: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    """Refuse a field that is not one of ``known``; ``where`` is put before its name (``ready.``)."""
    for name in fields:
        if name not in known:
            field = f"{where}{name}"
            raise InvalidTarget(f"target field {field!r} is unknown; it takes {', '.join(sorted(known))}", field=field)


def mapping(value: object, field: str) -> Mapping[str, Any]:
    """Return the value if it is an object with names for keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise wrong(value, field, "an object")
    return value


def text(value: object, field: str, *, empty: bool = False) -> str:
    """Return the value if it is text that can be an argument or a path: no NUL, no lone surrogate."""
    if not isinstance(value, str) or not (value or empty):
        raise wrong(value, field, "text" if empty else "text that is not empty")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise wrong(value, field, "text without NUL and without lone surrogates")
    return value


def one_of(value: object, choices: Collection[str], field: str) -> str:
    """Return the value if it is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise wrong(value, field, f"one of {', '.join(choices)}")
    return value


def flag(value: object, field: str) -> bool:
    """Return the value if it is true or false."""
    if not isinstance(value, bool):
        raise wrong(value, field, "true or false")
    return value


def signal_name(value: object, field: str) -> str:
    """Return a signal's name without ``SIG``: ``TERM``. KILL and STOP are refused: no program can act on them."""
    name = value.upper().removeprefix("SIG") if isinstance(value, str) else ""
    if f"SIG{name}" not in signal.Signals.__members__ or name in ("KILL", "STOP"):
        raise wrong(value, field, "a signal's name, such as TERM, INT, QUIT, HUP or USR1 (not KILL or STOP)")
    return name


def signal_number(name: str) -> int:
    """Return the number of a name that ``signal_name`` returned."""
    return signal.Signals[f"SIG{name}"]


def count(value: object, field: str, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """Return the value if it is an integer from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(value, field, f"an integer from {low} to {high}")
    return value


def duration(value: object, field: str, *, low_ms: int = 0, high_ms: int | None = None) -> str:
    """Return the duration in its shortest spelling. Text or whole seconds; floats are refused (CONTRACT section 3)."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise wrong(value, field, "a duration such as 15s or 500ms")
    try:
        ms = parse_duration(value, field=field)
    except InvalidInput as error:
        raise InvalidTarget(f"target field {error}", field=field) from error
    if ms < low_ms or (high_ms is not None and ms > high_ms):
        limit = f"at least {format_duration(low_ms)}"
        if high_ms is not None:
            limit += f" and at most {format_duration(high_ms)}"
        raise wrong(value, field, limit)
    return format_duration(ms)


def argv(value: object, field: str) -> list[str]:
    """Return the value if it is a program and its arguments."""
    if not isinstance(value, list | tuple) or not value:
        raise wrong(value, field, "a list: the program and its arguments")
    return [text(part, f"{field}[{index}]", empty=index > 0) for index, part in enumerate(value)]


def wrong(value: object, field: str, wanted: str) -> InvalidTarget:
    """Return the refusal of a value."""
    name = field.rpartition(".")[2]
    shown = MASK if is_secret_name(name) or looks_secret(name, str(value)) else ascii(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return InvalidTarget(f"target field {field!r} must be {wanted}, not {shown}", field=field)


def required(target: Mapping[str, Any], name: str, where: str = "") -> object:
    """Return the field's value; refuse the target if it has none."""
    if name not in target:
        field = f"{where}{name}"
        raise InvalidTarget(f"target field {field!r} is missing", field=field)
    value: object = target[name]
    return value


def seconds(normalised: str) -> float:
    """Return the seconds of a duration that ``duration`` returned."""
    return parse_duration(normalised) / 1000
