"""What a program said, bounded: the beginning and the end are kept."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.secret_values import hide, words_to_hide

LIMIT = 8 * 1024
"""Most bytes (UTF-8) of text that is kept; it goes into an event."""

_MARK_ROOM = 80


class BoundedOutput:
    """Takes any number of bytes and gives at most ``LIMIT`` bytes of text, without the secrets ``hidden``."""

    def __init__(self, hidden: Sequence[str] = ()) -> None:
        self._hidden = words_to_hide(hidden)
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def feed(self, piece: bytes) -> None:
        """Add what was read."""
        self._total += len(piece)
        room = LIMIT - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        del self._tail[:-LIMIT]

    def text(self) -> str:
        """Return it decoded: what is not UTF-8 replaced, NULs escaped, the middle left out if it is long."""
        whole = self._total <= len(self._head) + len(self._tail)
        joined = self._shown(bytes(self._head + self._tail)) if whole else ""
        if whole and len(joined.encode()) <= LIMIT:
            return joined
        mark = f"\n[... {self._total} bytes in all, the middle is left out ...]\n"
        half = (LIMIT - _MARK_ROOM) // 2
        start = self._shown(bytes(self._head)).encode()[:half].decode(errors="ignore")
        end = self._shown(bytes(self._tail or self._head)).encode()[-half:].decode(errors="ignore")
        return start + mark + end

    def _shown(self, raw: bytes) -> str:
        """Decode and mask. Called with all that is kept of one end: a secret on the later cut is whole here."""
        return hide(raw.decode(errors="replace").replace("\0", "\\x00"), self._hidden)
