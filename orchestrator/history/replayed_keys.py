"""The keys as the log has them, beside those that are stored: a live one that no event made is somebody's tampering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from orchestrator.domain.access_events import KeyCreated, KeyRevoked
from orchestrator.domain.encoding import canonical_json
from orchestrator.domain.events import EventData
from orchestrator.ports.keys import StoredKey


class ReplayedKeys:
    """Takes the events of keys. What the log does not hold of a key is not compared: its last use.

    Nor its digest, where a version made it that did not write that down.
    """

    def __init__(self) -> None:
        self._created: dict[str, KeyCreated] = {}
        self._revoked: set[str] = set()

    def take(self, data: EventData) -> None:
        """Take an event of no workspace; those that are not about keys are passed over."""
        if isinstance(data, KeyCreated):
            self._created[data.key] = data
        elif isinstance(data, KeyRevoked):
            self._revoked.add(data.key)

    def differences(self, stored: Sequence[StoredKey], now: datetime) -> Iterator[tuple[str, str, str | None]]:
        """Yield every live key that is not what its events say: its id, what is stored, what they say (None: no key).

        A key that was replaced ends sooner than its event says, never later.
        """
        for key in stored:
            if not key.is_live(now):
                continue
            created = self._created.get(key.id)
            said = None if created is None or key.id in self._revoked else _said(created)
            if said != _said(key) or (created is not None and _is_another(key, created)):
                yield key.id, _spelled(key), None if created is None or said is None else _spelled(created)


def _said(key: StoredKey | KeyCreated) -> tuple[Any, ...]:
    return key.name, key.role, sorted(key.scopes), key.writes_per_minute, key.reads_per_minute


def _is_another(key: StoredKey, created: KeyCreated) -> bool:
    return _lasts_longer(key, created) or created.digest not in (None, key.digest)


def _lasts_longer(key: StoredKey, created: KeyCreated) -> bool:
    return created.expires_at is not None and (key.expires_at is None or key.expires_at > created.expires_at)


def _spelled(key: StoredKey | KeyCreated) -> str:
    return canonical_json([*_said(key), key.expires_at, key.digest])
