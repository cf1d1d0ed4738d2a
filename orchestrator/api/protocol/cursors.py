"""Opaque cursors: where a page ended, bound to the query it belongs to.

A cursor is base64url of canonical JSON behind its checksum. The checksum is no secret: a forged cursor could
name nothing but another place in the same list. It turns a cut, changed or misplaced cursor into a clean refusal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.api.protocol.problems import RequestRefused, refused
from orchestrator.domain.encoding import canonical_json

_CHECK_BYTES = 8
_MOST_CHARACTERS = 1_000


@dataclass(frozen=True, kw_only=True)
class Paging:
    """The pages of one query: ``name`` and ``filters`` say which."""

    name: str
    filters: Mapping[str, Any]

    def cursor(self, place: str | int) -> str:
        """Return the cursor of the page after ``place``."""
        payload = canonical_json([place]).encode()
        return base64.urlsafe_b64encode(self._check(payload) + payload).rstrip(b"=").decode()

    def place(self, cursor: str | None, kind: type[str] | type[int]) -> str | int | None:
        """Return the place that a cursor names, None without one. Raises ``RequestRefused``."""
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _bad() from None
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if len(cursor) > _MOST_CHARACTERS or check != self._check(payload):
            raise _bad()
        try:
            found = msgspec.json.decode(payload, type=tuple[kind])  # type: ignore[valid-type]
        except msgspec.MsgspecError:
            raise _bad() from None
        place: str | int = found[0]
        return place

    def _check(self, payload: bytes) -> bytes:
        whole = canonical_json([self.name, self.filters]).encode() + b"\n" + payload
        return hashlib.sha256(whole).digest()[:_CHECK_BYTES]


def _bad() -> RequestRefused:
    detail = "the cursor is not one of this query's; begin again without it, and change no filter between pages"
    return refused("invalid-input", detail, parameter="cursor")
