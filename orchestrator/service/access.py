"""Who asks, and what they may: the one place that admits callers, and the one check of a scope (CONTRACT section 8)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import Unauthenticated

_HOW = (
    "send the owner's key as `Authorization: Bearer ro_...`: `orchestrator up` keeps it in its data folder, in "
    "owner.key, elsewhere ORCHESTRATOR_OWNER_KEY names its file; the commands of `orchestrator` send it by themselves"
)


class Scope(StrEnum):
    """What is asked for by name. All else is open to whoever is admitted."""

    REGISTER = "register"
    REGISTER_CODE = "register-code"
    """Every target or policy that names a program, a path or an address."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks: the actor of what they do, and what they may."""

    actor: str
    scopes: frozenset[Scope]


UNAUTHENTICATED = Principal(actor="unauthenticated", scopes=frozenset({Scope.REGISTER}))


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whom the owner's key speaks for. The key itself is not kept."""

    digest: bytes
    """SHA-256 of the key."""
    name: str


class Access:
    """Admits callers of one process."""

    def __init__(self, owner: Owner | None, *, closed: bool) -> None:
        """``closed``: nobody without a key is admitted."""
        self._digest = b"" if owner is None else owner.digest
        self._owner = None if owner is None else Principal(actor=f"user:{owner.name}", scopes=frozenset(Scope))
        self._closed = closed

    def admit(self, authorization: str | None) -> Principal:
        """Return who asks, by the header ``Authorization``. Raises ``Unauthenticated``, also for a wrong key."""
        if authorization is None:
            if self._closed:
                raise Unauthenticated(f"this API answers nobody without a key; {_HOW}")
            return UNAUTHENTICATED
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(f"Authorization must be `Bearer KEY`; {_HOW}")
        if self._owner is None:
            raise Unauthenticated(
                "this API has no key, so none is right: make one with `orchestrator keys owner FILE`, and start it "
                "with ORCHESTRATOR_OWNER_KEY=FILE; or leave Authorization out"
            )
        if not hmac.compare_digest(digest_of(key.strip()), self._digest):
            raise Unauthenticated(f"the key is not the one of this API; {_HOW}")
        return self._owner


def require(principal: Principal, scope: Scope, why: str) -> None:
    """Return if the caller may. Raises ``Unauthenticated``; ``why`` says what of the request needs the scope."""
    if scope not in principal.scopes:
        raise Unauthenticated(f"{why}, which needs {scope}; {_HOW}")


def digest_of(key: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
