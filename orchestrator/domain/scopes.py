"""What a key may do: scopes, each everywhere or over what a glob of fleets or workspaces names (CONTRACT section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from orchestrator.errors import InvalidInput

_GLOB = re.compile(r"[A-Za-z0-9._:*?-]{1,128}")


class Scope(StrEnum):
    """What one may be allowed to do."""

    READ = "read"
    WRITES = "writes"
    RESTARTS = "restarts"
    CANCEL = "cancel"
    HOLDS = "holds"
    PROBES = "probes"
    POLICIES = "policies"
    REGISTER = "register"
    REGISTER_CODE = "register-code"
    """Every target or policy that names a program, a path or an address."""
    OVERRIDE = "override"
    WAIVE = "waive"
    SUBSCRIPTIONS = "subscriptions"
    AUDIT = "audit"
    EXPORT = "export"
    KEYS = "keys"
    METRICS = "metrics"


class Role(StrEnum):
    """A bundle of scopes."""

    WRITER = "writer"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


ROLES: Mapping[Role, frozenset[Scope]] = {
    Role.WRITER: frozenset({Scope.READ, Scope.WRITES}),
    Role.OPERATOR: frozenset(Scope) - {Scope.REGISTER_CODE, Scope.KEYS, Scope.AUDIT, Scope.EXPORT},
    Role.AUDITOR: frozenset({Scope.READ, Scope.AUDIT, Scope.EXPORT, Scope.METRICS}),
    Role.ADMIN: frozenset(Scope),
}

OF_EVERYTHING: frozenset[Scope] = frozenset({Scope.SUBSCRIPTIONS, Scope.AUDIT, Scope.KEYS, Scope.METRICS})
"""Scopes of what has no workspace: a glob would bound nothing."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Over which workspaces something holds: all, or those whose fleet or whose id one of these globs matches."""

    everywhere: bool = False
    fleets: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()

    def holds(self, workspace: str, fleet: str) -> bool:
        """Return whether it reaches a workspace that is in that fleet."""
        return self.everywhere or self.holds_workspace(workspace) or self.holds_fleet(fleet)

    def holds_fleet(self, fleet: str) -> bool:
        """Return whether it reaches a whole fleet."""
        return self.everywhere or any(_matches(glob, fleet) for glob in self.fleets)

    def holds_workspace(self, workspace: str) -> bool:
        """Return whether it reaches a workspace whatever its fleet."""
        return self.everywhere or any(_matches(glob, workspace) for glob in self.workspaces)

    def is_within(self, other: Reach) -> bool:
        """Return whether the other surely reaches all that this one does: False also where that is not proven.

        A fleet is within no globs of workspaces, nor the other way round: a whole fleet is more than its workspaces.
        """
        if self.everywhere or other.everywhere:
            return other.everywhere
        pairs = ((self.fleets, other.fleets), (self.workspaces, other.workspaces))
        return all(any(_covers(wide, glob) for wide in theirs) for own, theirs in pairs for glob in own)

    @property
    def is_empty(self) -> bool:
        """True if it reaches nothing."""
        return not (self.everywhere or self.fleets or self.workspaces)

    def __str__(self) -> str:
        """Say it as the words of a scope do."""
        if self.everywhere:
            return "everything"
        named = [f"fleet={glob}" for glob in self.fleets] + [f"workspace={glob}" for glob in self.workspaces]
        return ", ".join(named) or "nothing"


NOWHERE = Reach()
EVERYWHERE = Reach(everywhere=True)


@dataclass(frozen=True)
class Grants:
    """What somebody may do, and over what."""

    reaches: Mapping[Scope, Reach]

    def reach(self, scope: Scope) -> Reach:
        """Return over what a scope holds."""
        return self.reaches.get(scope, NOWHERE)

    def spelled(self) -> list[str]:
        """Return the scopes as they are written, sorted."""
        words: list[str] = []
        for scope, reach in self.reaches.items():
            words += [scope.value] if reach.everywhere else []
            words += [f"{scope.value}@fleet={glob}" for glob in reach.fleets]
            words += [f"{scope.value}@workspace={glob}" for glob in reach.workspaces]
        return sorted(words)

    def beyond(self, other: Grants) -> list[str]:
        """Return the scopes, as they are written, that somebody with the other grants cannot be sure to have."""
        return [word for word in self.spelled() if not _is_within(word, other)]


def grants_of(scopes: Iterable[Scope]) -> Grants:
    """Return these scopes, each over everything."""
    return Grants(dict.fromkeys(scopes, EVERYWHERE))


EVERYTHING = grants_of(Scope)
"""What the owner may do, and whoever may write to the database."""


def parse_grants(words: Sequence[str]) -> Grants:
    """Read scopes as ``NAME``, ``NAME@fleet=GLOB`` or ``NAME@workspace=GLOB``; several of one name add up.

    Raises ``InvalidInput`` that names the word.
    """
    reaches: dict[Scope, Reach] = {}
    for word in words:
        scope, reach = _parsed(word)
        reaches[scope] = _both(reaches.get(scope, NOWHERE), reach)
    return Grants(reaches)


def granted(role: Role, words: Sequence[str]) -> Grants:
    """Return what a key of a role may do; a scope that is named takes the place of the role's, or comes beside it.

    So ``writer`` with ``writes@fleet=web-*`` reads everything and writes those fleets alone.
    """
    return Grants({**grants_of(ROLES[role]).reaches, **parse_grants(words).reaches})


def _parsed(word: str) -> tuple[Scope, Reach]:
    name, at, bound = word.partition("@")
    try:
        scope = Scope(name)
    except ValueError:
        known = ", ".join(scope.value for scope in Scope)
        raise InvalidInput(f"scope {word[:100]!r}: there is no scope {name[:60]!r}; use one of {known}") from None
    if not at:
        return scope, EVERYWHERE
    kind, equals, glob = bound.partition("=")
    if kind not in ("fleet", "workspace") or not equals or not _GLOB.fullmatch(glob):
        raise InvalidInput(
            f"scope {word[:100]!r}: after @ comes fleet=GLOB or workspace=GLOB, letters of a name with * and ?, "
            f"like {name}@fleet=web-*"
        )
    if scope in OF_EVERYTHING:
        raise InvalidInput(f"scope {word[:100]!r}: {name} is about no single workspace, so it takes no @")
    return scope, Reach(fleets=(glob,)) if kind == "fleet" else Reach(workspaces=(glob,))


def _both(one: Reach, other: Reach) -> Reach:
    if one.everywhere or other.everywhere:
        return EVERYWHERE
    return Reach(
        fleets=tuple(sorted({*one.fleets, *other.fleets})),
        workspaces=tuple(sorted({*one.workspaces, *other.workspaces})),
    )


def _is_within(word: str, grants: Grants) -> bool:
    scope, reach = _parsed(word)
    return reach.is_within(grants.reach(scope))


def _matches(glob: str, name: str) -> bool:
    return _pattern(glob).fullmatch(name) is not None


def _covers(wide: str, narrow: str) -> bool:
    """Return whether a glob matches whatever another does, as far as that shows letter by letter.

    It does if it matches the other one read as a name, in which ``?`` is a letter like others, and ``*``, which may
    stand for none or many, is matched by ``*`` alone.
    """
    return _matches(wide, narrow)


@lru_cache(maxsize=10_000)
def _pattern(glob: str) -> re.Pattern[str]:
    """Return a glob as a pattern: runs of ``*`` are one, so that no name makes it slow. No name holds a ``*``."""
    parts = {"*": ".*", "?": "[^*]"}
    return re.compile("".join(parts.get(letter, re.escape(letter)) for letter in re.sub(r"\*+", "*", glob)))
