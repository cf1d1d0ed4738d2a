"""Canonical bytes: the one spelling of an event's data and of a workspace's state that is ever stored.

Sorted keys, compact, UTF-8, integers only, instants as RFC 3339 in UTC with six digits. The bytes that
are hashed are the bytes that are kept (DESIGN section 3), so floats are refused: their spelling differs
between encoders (measured: 1e22).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.events import CycleStarted, CycleSucceeded, EventData, FileWritten, RestartQueued, UnknownEvent
from orchestrator.domain.restart_projection import RestartProjection
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.domain.state_of_0002 import OldState, old_of, today_of
from orchestrator.domain.upcast import upcast
from orchestrator.errors import Unreadable

_encoder = msgspec.json.Encoder(order="deterministic")
_direct_encoder = msgspec.json.Encoder(order="sorted")
_DIRECT = frozenset({FileWritten, RestartQueued, CycleStarted, CycleSucceeded})
"""Nearly all events, and of types that hold no mapping of anybody's: only their instants can be spelled otherwise."""
_OTHERWISE_SPELLED = re.compile(r':\d\d(Z|(\.\d{6})?[+-]\d\d:\d\d)"')
"""A whole second, which msgspec spells without digits after it, or an instant that is not in UTC."""
_DECODERS: dict[str, tuple[int, msgspec.json.Decoder[EventData]]] = {
    name: (kind.SCHEMA, msgspec.json.Decoder(kind)) for name, kind in EVENT_TYPES.items()
}
_STATE = msgspec.json.Decoder(WorkspaceState)
_OLD_STATE = msgspec.json.Decoder(OldState)
_REGISTRATION = msgspec.json.Decoder(Registration)
ValueT = TypeVar("ValueT")


class InstantOutOfRange(ValueError):
    """An instant that its offset puts before the year 1 or after 9999."""


@lru_cache(maxsize=256)
def format_instant(at: datetime) -> str:
    """Return RFC 3339 in UTC, always with six digits of a second."""
    # Not strftime: its %Y is not padded, and a caller's occurred_at may lie in any year.
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_instant(text: str) -> datetime:
    """Return the aware instant of an RFC 3339 text. Raises ``ValueError`` for anything else.

    ``InstantOutOfRange`` is the one of them for a text that is well written.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is UTC:  # what is stored ends in Z
        return at
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no offset from UTC; write it like 2026-11-23T12:00:00Z")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InstantOutOfRange(f"{text!r} lies outside of the years 1 to 9999 in UTC") from None


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of plain values. Raises ``TypeError`` for a float."""
    return _encoder.encode(to_plain(value)).decode()


def encode_data(data: EventData) -> str:
    """Return the canonical JSON of an event's data."""
    kind = type(data)
    return _directly(data, kind.OMITTED) if kind in _DIRECT else canonical_json(data)


def decode_data(type_name: str, schema: int, text: str | bytes, *, of_nobody: bool = False) -> EventData:
    """Return the event's data in the current schema, whatever schema it is stored in.

    Data of a newer schema is read as far as it is known: a schema only ever adds fields (``upcast``).
    ``of_nobody``: the event has no workspace; an unknown type is then an ``UnknownEvent``.
    Raises ``Unreadable`` for another type or a schema that this version does not know, and for damaged data.
    """
    known = _DECODERS.get(type_name)
    if known is None and of_nobody:
        return _decode_unknown(type_name, text)
    if known is None:
        raise Unreadable(f"its type {type_name!r} is not one that this version knows: a newer one wrote it")
    newest, decoder = known
    try:
        if schema >= newest:
            return decoder.decode(text)
        plain = msgspec.json.decode(text, type=dict[str, Any])
        return msgspec.convert(upcast(type_name, schema, plain, to=newest), EVENT_TYPES[type_name])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"its data is no {type_name} of schema {schema}: {error}") from None
    except (KeyError, TypeError):
        raise Unreadable(f"there is no schema {schema!r} of {type_name}") from None


def _decode_unknown(type_name: str, text: str | bytes) -> UnknownEvent:
    try:
        return UnknownEvent(name=type_name, stored=msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"its data is no JSON object: {error}") from None


def unreadable_event(position: int, event: str, why: object) -> Unreadable:
    """Return the error for an event that cannot be read or folded: which one, where, and why."""
    where = f"{event} at position {position}"
    return Unreadable(f"the event {where} cannot be read: {why}", table="events", id=where)


def encode_state(state: WorkspaceState) -> str:
    """Return the canonical JSON of a workspace's state; of its registration only where it stands in the log."""
    return _directly(msgspec.structs.replace(state, registration=None), ("registration",))


def decode_state(text: str | bytes, registration: Registration | None) -> WorkspaceState:
    """Return the state of a text that ``encode_state`` made, with the registration that it was left without."""
    return msgspec.structs.replace(_STATE.decode(text), registration=registration)


def encode_old_state(state: WorkspaceState) -> str:
    """Return the canonical JSON of a workspace's state in the shape of revision 0002, its registration included."""
    return _encoder.encode(to_plain(old_of(state))).decode()


def decode_old_state(text: str | bytes, *, registration_position: int) -> WorkspaceState:
    """Return the state of a text in the shape of revision 0002, which does not say where it was registered."""
    return today_of(_OLD_STATE.decode(text), registration_position=registration_position)


def decode_registration(data: str | bytes) -> Registration:
    """Return what a ``WorkspaceRegistered`` or ``WorkspaceChanged`` with this data said."""
    return _REGISTRATION.decode(data)


def decode_projection(plain: Mapping[str, Any]) -> RestartProjection:
    """Return a restart's read model from plain values."""
    return msgspec.convert(plain, RestartProjection, strict=False)  # SQLite's booleans are 0 and 1


_LISTED_PROJECTION = msgspec.json.Decoder(
    msgspec.defstruct(
        "ListedProjection",
        [(field.name, field.type) for field in msgspec.structs.fields(RestartProjection)],
        array_like=True,
    ),
    strict=False,
)


def decode_listed_projection(text: str) -> RestartProjection:
    """Return a restart's read model from a JSON list of its fields' values, in their order."""
    return msgspec.convert(_LISTED_PROJECTION.decode(text), RestartProjection, from_attributes=True)


def _directly(value: msgspec.Struct, omitted: Iterable[str]) -> str:
    """Return what ``canonical_json`` does, ten times as fast, of a struct that holds no mapping.

    Where an instant, or a text that looks like one, would be spelled otherwise, that is asked.
    """
    text = _direct_encoder.encode(value).decode()
    if _OTHERWISE_SPELLED.search(text) is not None:
        plain = to_plain(value)
        for name in omitted:
            if plain.get(name, "") is None:
                del plain[name]
        return _encoder.encode(plain).decode()
    for name in omitted:  # none of them sorts last; in a text of the value's own a quote would follow a backslash
        text = text.replace(f'"{name}":null,', "", 1)
    return text


def to_plain(value: Any) -> Any:
    """Return JSON values only. Raises ``TypeError`` for a float."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    spell = _SPELLINGS.get(kind)
    if spell is None:
        spell = _SPELLINGS[kind] = _spelling_of(kind)
    return spell(value)


_PLAIN = frozenset({type(None), bool, int, str})
_SPELLINGS: dict[type[object], Callable[[Any], Any]] = {}


def _spelling_of(kind: type[Any]) -> Callable[[Any], Any]:
    """Return what makes plain values of a class; asked once for each class."""
    if kind is datetime:
        return format_instant
    if kind is UnknownEvent:
        return lambda value: value.stored  # as it is stored, whatever a newer version's rules for its spelling are
    if issubclass(kind, msgspec.Struct) or is_dataclass(kind):
        return _spelling_of_fields(kind)
    if issubclass(kind, Enum):
        return attrgetter("_value_")  # ``value`` of an enum is a property written in Python
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_plain(item) for key, item in value.items()}
    if issubclass(kind, list | tuple):
        return lambda value: [to_plain(item) for item in value]
    return _refuse


def _refuse(value: object) -> None:
    raise TypeError(f"{value!r} has no canonical spelling; use integers, text, instants and containers of them")


def _spelling_of_fields(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
    shallow: Callable[[Any], dict[str, Any]] = asdict if issubclass(kind, msgspec.Struct) else _of_dataclass
    omitted: frozenset[str] = getattr(kind, "OMITTED", frozenset())

    def plain_fields(value: Any) -> dict[str, Any]:
        plain = shallow(value)
        for name, item in plain.items():
            if type(item) not in _PLAIN:
                plain[name] = to_plain(item)
        for name in omitted:
            if plain[name] is None:
                del plain[name]
        return plain

    return plain_fields


def _of_dataclass(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}
