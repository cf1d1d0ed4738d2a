"""Who asks, and what they may: the one place that admits callers, and the one check of a scope (CONTRACT section 8)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.domain.key_words import digest_of, is_key
from orchestrator.domain.scopes import EVERYTHING, Grants, Reach, Scope, grants_of
from orchestrator.errors import Forbidden, Unauthenticated
from orchestrator.ports.keys import StoredKey
from orchestrator.service.append import Author
from orchestrator.service.key_book import KeyBook, KnownKey
from orchestrator.service.write_budget import WriteBudget

_HOW = (
    "send a key as `Authorization: Bearer ro_...`: the owner's (`orchestrator up` keeps it in its data folder, in "
    "owner.key; elsewhere `orchestrator keys owner FILE` makes one, and ORCHESTRATOR_OWNER_KEY=FILE names it; "
    "the commands of `orchestrator` send it by themselves), or one that `orchestrator keys create` made (the commands "
    "send that of ORCHESTRATOR_KEY)"
)


class Refusal(StrEnum):
    """Why a caller was not admitted, or not let do something."""

    NO_KEY = "no_key"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SCOPE = "scope"
    CROSS_ORIGIN = "cross_origin"
    RATE = "rate"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks: the actor of what they do, and what they may."""

    actor: str
    grants: Grants
    key: str | None = None
    """The id of the key that they came with; None: the owner's key, or none."""
    budget: WriteBudget | None = None
    reads_per_minute: int | None = None


NOBODY = "unauthenticated"
UNAUTHENTICATED = Principal(actor=NOBODY, grants=grants_of(frozenset(Scope) - {Scope.REGISTER_CODE, Scope.KEYS}))
"""Whoever comes without a key where that is allowed: on loopback, say."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whom the owner's key speaks for. The key itself is not kept."""

    digest: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Permit:
    """What one request may do: what every way to the store asks for. Only ``permit`` makes one.

    ``reach`` says over which workspaces it holds.
    """

    principal: Principal
    scope: Scope
    reach: Reach
    traceparent: str | None = field(default=None)

    @property
    def author(self) -> Author:
        """Return in whose name the request acts, and over what."""
        return Author(
            actor=self.principal.actor,
            traceparent=self.traceparent,
            reach=self.reach,
            scope=self.scope.value,
            budget=self.principal.budget,
        )

    def need(self, *scopes: Scope) -> None:
        """Return if the permit is of one of these scopes. Raises ``Forbidden``: some route asked for the wrong one."""
        if self.scope not in scopes:
            raise Forbidden(
                f"this is done with the scope {' or '.join(scopes)}, not {self.scope}", needs=scopes[0].value
            )

    def with_code(self, why: str, workspace: str, fleet: str) -> Permit:
        """Return what the caller may do of ``register-code`` if a workspace of a fleet may name what is run or called.

        Raises ``Unauthenticated``, ``Forbidden``; ``why`` says what of the request needs the scope. Where the
        workspace is now, the service asks: see ``Operator.register``.
        """
        code = permit(self.principal, Scope.REGISTER_CODE, why, traceparent=self.traceparent)
        if not code.reach.holds(workspace, fleet):
            raise Forbidden(
                f"{why}, which needs the scope {code.scope} for workspace {workspace!r} of fleet {fleet!r}; "
                f"{self.principal.actor} has it for {code.reach}",
                needs=code.scope,
            )
        return code


def permit(principal: Principal, scope: Scope, why: str, *, traceparent: str | None = None) -> Permit:
    """Return what a caller may do of a scope. Raises ``Unauthenticated`` or ``Forbidden`` where that is nothing."""
    reach = principal.grants.reach(scope)
    if reach.is_empty:
        if principal is UNAUTHENTICATED:
            raise Unauthenticated(f"{why}, which needs {scope}; {_HOW}", reason=Refusal.NO_KEY)
        raise Forbidden(
            f"{why}, which needs the scope {scope}; {principal.actor} has {', '.join(principal.grants.spelled())}",
            needs=scope,
        )
    return Permit(principal=principal, scope=scope, reach=reach, traceparent=traceparent)


def _principal(found: KnownKey, of_name: tuple[str, ...]) -> Principal:
    """Return whom a key speaks for; ``of_name``: the live keys of its name, which share their limits."""
    key = found.key
    limit = key.writes_per_minute
    return Principal(
        actor=f"key:{key.name}",
        grants=found.grants,
        key=key.id,
        budget=None if limit is None else WriteBudget(keys=of_name, per_minute=limit),
        reads_per_minute=key.reads_per_minute,
    )


def _over(key: StoredKey) -> Unauthenticated:
    """Return the refusal of a key that is known and opens nothing any more."""
    if key.revoked_at is not None:
        why, reason = "was revoked", Refusal.REVOKED
    else:
        why, reason = "has expired", Refusal.EXPIRED
    return Unauthenticated(f"the key {key.name} {why}; {_HOW}", reason=reason, caller=f"key:{key.name}")


class Access:
    """Admits callers of one process."""

    def __init__(self, owner: Owner | None, book: KeyBook, *, closed: bool, checked_in_front: bool = False) -> None:
        """``closed``: nobody without a key is admitted. ``checked_in_front``: what passes requests on knows callers."""
        self._owner_digest = "" if owner is None else owner.digest
        self._owner = None if owner is None else Principal(actor=f"user:{owner.name}", grants=EVERYTHING)
        self.book = book
        self._admitted: tuple[int, dict[str, tuple[StoredKey, Principal]]] = (book.edition, {})
        self._closed, self._checked_in_front = closed, checked_in_front

    def needs_look(self, authorization: str | None) -> bool:
        """Return whether the book must be read again before that caller is admitted; the owner is in no book."""
        return authorization is not None and self.book.is_old and not self._is_owner(authorization)

    def _is_owner(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(digest_of(key.strip()), self._owner_digest)

    def admit(self, authorization: str | None, *, forwarded: bool = False) -> Principal:
        """Return who asks, by the header ``Authorization``, as far as the book knows.

        ``forwarded``: something in front passed the request on, so that loopback says nothing of who sent it.
        Raises ``Unauthenticated``, also for a wrong key; its ``caller`` is named where the key is known.
        """
        if authorization is None:
            if self._closed:
                raise Unauthenticated(f"this API answers nobody without a key; {_HOW}", reason=Refusal.NO_KEY)
            if forwarded and not self._checked_in_front:
                raise Unauthenticated(
                    "a proxy passed the request on, so that where it comes from says nothing of who sent it: it needs "
                    f"a key; {_HOW}",
                    reason=Refusal.NO_KEY,
                )
            return UNAUTHENTICATED
        scheme, _, given = authorization.partition(" ")
        key = given.strip()
        digest = digest_of(key)
        is_bearer = scheme.lower() == "bearer"
        if is_bearer and self._owner is not None and hmac.compare_digest(digest, self._owner_digest):
            return self._owner
        found, caller = self._known(digest)
        if not is_bearer or not (found or is_key(key)):
            raise Unauthenticated(
                "Authorization must be `Bearer KEY`, and a key is ro_ and 33 letters and digits of which the last six "
                f"check the others: this is none, copy it again; {_HOW}",
                reason=Refusal.MALFORMED,
            )
        if found is None or caller is None:
            raise Unauthenticated(f"no key of this API is the one that was sent; {_HOW}", reason=Refusal.UNKNOWN)
        if not found.is_live(self.book.now()):
            raise _over(found)
        self.book.used(found.id)
        return caller

    def _known(self, digest: str) -> tuple[StoredKey, Principal] | tuple[None, None]:
        """Return a key and whom it speaks for, worked out once for each look at the keys. It may be over."""
        edition, admitted = self._admitted
        if edition != self.book.edition:  # read before the key is: kept too short, never too long
            edition, admitted = self._admitted = self.book.edition, {}
        if digest not in admitted:
            found = self.book.find(digest)
            if found is None:
                return None, None
            admitted[digest] = found.key, _principal(found, self.book.live_of(found.key.name))
        return admitted[digest]

    def is_live(self, principal: Principal) -> bool:
        """Return whether somebody who was admitted would still be, as far as the book knows."""
        return principal.key is None or self.book.is_live(principal.key)

    def need_live(self, principal: Principal) -> None:
        """Return if somebody who was admitted would still be. Raises ``Unauthenticated``."""
        if not self.is_live(principal):
            raise Unauthenticated(
                f"the key of {principal.actor} was revoked or has expired while its answer was held; {_HOW}",
                reason=Refusal.REVOKED,
                caller=principal.actor,
            )
