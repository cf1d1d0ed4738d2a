"""Where the commands of ``keys`` keep them: behind an API, or in a database of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from orchestrator.api.protocol.names import MAX_REASON_CHARACTERS, check_text
from orchestrator.cli.client import Client, segment
from orchestrator.cli.reading.choose import chosen_url
from orchestrator.cli.reading.database import reading
from orchestrator.domain.scopes import EVERYTHING, Role
from orchestrator.errors import Unavailable
from orchestrator.history.views import View, key_view
from orchestrator.owner_key import new_key
from orchestrator.ports.store import EventStore
from orchestrator.service.access_record import AccessRecord
from orchestrator.service.keys import KeyKeeper, MadeKey, WantedKey, lifetime_of, list_keys
from orchestrator.time_ordered_ids import TimeOrderedIds


class Keeping(Protocol):
    """Keys, as `/v1/keys` shows them. Every method raises ``OrchestratorError`` with what to do."""

    def create(self, wanted: Mapping[str, Any]) -> View:
        """Make the key that a body of `POST /v1/keys` describes."""
        ...

    def rotate(self, name: str) -> View:
        """Make the key that takes the place of the live one of a name."""
        ...

    def revoke(self, key: str, reason: str) -> list[View]:
        """End a key, by its id, or all of a name; return those that were live."""
        ...

    def keys(self) -> list[View]:
        """Return all keys."""
        ...


@contextmanager
def chosen_keeping(url: str | None, database_url: str | None, data: Path | None) -> Iterator[Keeping]:
    """Give where the keys are. Raises ``InvalidInput`` where both a server and a database are named by options."""
    server = chosen_url(url, database_url, data)
    if server is not None:
        yield KeepingByApi(server)
        return
    from orchestrator.bootstrap import user_name  # here: it imports Celery, which no command over HTTP needs

    with reading(database_url, data, changes=True) as store:
        yield KeepingInDatabase(store, actor=f"local:{user_name()}")


class KeepingByApi:
    """Asks a server, which must grant the scope ``keys``."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self, wanted: Mapping[str, Any]) -> View:
        """Post a key."""
        return self._made("/v1/keys", {name: value for name, value in wanted.items() if value is not None})

    def rotate(self, name: str) -> View:
        """Post another one."""
        return self._made(f"/v1/keys/{segment(name)}/rotate", {})

    def revoke(self, key: str, reason: str) -> list[View]:
        """Delete."""
        with Client(self._url) as client:
            query = urlencode({"reason": reason})
            ended: list[View] = client.delete(f"/v1/keys/{segment(key)}?{query}")["revoked"]
        return ended

    def keys(self) -> list[View]:
        """Get them."""
        with Client(self._url) as client:
            items: list[View] = client.get("/v1/keys")[0]["items"]
        return items

    def _made(self, path: str, body: Mapping[str, Any]) -> View:
        """Ask once: the server shows a key once, so that a second try would only hide what became of the first."""
        with Client(self._url, retries=0) as client:
            try:
                made: View = client.post(path, body)
            except Unavailable as error:
                raise Unavailable(
                    f"{error} (if the key was made all the same, `orchestrator keys list` shows it: revoke it "
                    "by its id)"
                ) from None
        return made


class KeepingInDatabase:
    """Changes the database itself: whoever may write to it needs no key."""

    def __init__(self, store: EventStore, *, actor: str) -> None:
        self._store, self._actor, self._ids = store, actor, TimeOrderedIds()
        self._keeper = KeyKeeper(store, self._ids, new_key=new_key)

    def create(self, wanted: Mapping[str, Any]) -> View:
        """Make a key, refused where the API refuses it."""
        expires = wanted["expires"]
        key = WantedKey(
            name=wanted["name"],
            role=Role(wanted["role"]),
            scopes=wanted["scopes"],
            expires_after=None if expires is None else lifetime_of(expires, field="--expires"),
            writes_per_minute=wanted["writes_per_minute"],
            reads_per_minute=wanted["reads_per_minute"],
        )
        return _shown(self._keeper.create(key, actor=self._actor, within=EVERYTHING))

    def rotate(self, name: str) -> View:
        """Make another one of that name."""
        return _shown(self._keeper.rotate(name, actor=self._actor, within=EVERYTHING))

    def revoke(self, key: str, reason: str) -> list[View]:
        """End it."""
        check_text(reason, "--reason", most=MAX_REASON_CHARACTERS)
        ended = self._keeper.revoke(key, actor=self._actor, reason=reason)
        return [{"id": one.id, "name": one.name} for one in ended]

    def keys(self) -> list[View]:
        """Read them; that somebody did is recorded first, as an API does."""
        AccessRecord(self._store, self._ids).exported(self._actor, "keys", {})
        keys, now = list_keys(self._store)
        return [key_view(key, now) for key in keys]


def _shown(made: MadeKey) -> View:
    return {"key": made.key, **key_view(made.stored, made.stored.created_at)}
