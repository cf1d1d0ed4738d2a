"""An API with an owner's key, and the keys that its owner makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.owner_key import make_owner_key
from orchestrator.service.access import Access
from tests.api.conftest import Api, served

Header = dict[str, str]


@dataclass(frozen=True)
class Keyring:
    """Makes keys; ``owner`` is the header that sends the owner's."""

    api: Api
    owner: Header

    def made(self, name: str, role: str = "writer", *scopes: str, **fields: Any) -> dict[str, Any]:
        """Return a new key, as it was answered."""
        body = {"name": name, "role": role, "scopes": list(scopes), **fields}
        answer = self.api.http.post("/v1/keys", json=body, headers=self.owner)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def header(self, name: str, role: str = "writer", *scopes: str, **fields: Any) -> Header:
        """Return the header that sends a new key."""
        return bearer(self.made(name, role, *scopes, **fields)["key"])

    def revoke(self, name: str) -> None:
        """End the keys of a name."""
        answer = self.api.http.delete(f"/v1/keys/{name}", headers=self.owner)
        assert answer.status_code == 200, answer.text

    @property
    def access(self) -> Access:
        """What admits the callers of this API."""
        access: Access = self.api.server.app.state.access
        return access


def bearer(key: str) -> Header:
    """Return the header that sends a key."""
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def keyed(url: str, folder: Path, **given: Any) -> Iterator[Keyring]:
    """Serve the API over a database with an owner's key, which is kept in ``folder``."""
    path = folder / "owner.key"
    owner = bearer(path.read_text().strip() if path.exists() else make_owner_key(path))
    with served(url, owner_key=path, **given) as api:
        yield Keyring(api, owner)
