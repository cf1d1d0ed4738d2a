"""The numbers that decide when: their defaults, their layers, their validation (CONTRACT section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

from msgspec import Struct

from orchestrator.domain.durations import format_duration, parse_duration
from orchestrator.domain.path_patterns import check_patterns
from orchestrator.domain.path_rules import PathRules
from orchestrator.errors import InvalidInput


class Edge(StrEnum):
    """Which end of a burst is due: its quiet end, or its first write too."""

    TRAILING = "trailing"
    LEADING = "leading"


class Mode(StrEnum):
    """``shadow``: everything is decided and recorded, nothing is executed."""

    LIVE = "live"
    SHADOW = "shadow"


class Action(StrEnum):
    """What a write asks for, by the first path rule that matches it."""

    RESTART = "restart"
    RELOAD = "reload"
    RECORD = "record"


class Rule(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One path rule in gitignore syntax; a number that is None is the policy's."""

    OMITTED: ClassVar[frozenset[str]] = frozenset({"quiet_ms", "max_wait_ms"})

    match: tuple[str, ...]
    action: Action = Action.RESTART
    quiet_ms: int | None = None
    max_wait_ms: int | None = None


class Policy(Struct, frozen=True, kw_only=True):
    """All numbers in force for one workspace. Durations are milliseconds."""

    quiet_ms: int = 15_000
    max_wait_ms: int = 60_000
    max_count: int = 10_000
    edge: Edge = Edge.TRAILING
    min_interval_ms: int = 60_000
    settle_ms: int = 30_000
    cycle_timeout_ms: int = 300_000
    max_attempts: int = 3
    retry_backoff_ms: int = 5_000
    retry_backoff_max_ms: int = 300_000
    give_up_backoff_ms: int = 300_000
    lease_ms: int = 30_000
    rules: tuple[Rule, ...] = ()
    max_concurrent: int | None = None
    mode: Mode = Mode.LIVE
    version: int = 0

    def rule_for(self, path: str) -> Rule | None:
        """Return the first rule that matches ``path``; None means restart with the policy's numbers."""
        first = path_rules(self.rules).first(path) if self.rules else None
        return None if first is None else self.rules[first]


@lru_cache(maxsize=512)
def path_rules(rules: tuple[Rule, ...]) -> PathRules:
    """Return rules compiled, which takes 10 us a pattern (measured); kept, as policies change rarely."""
    return PathRules(rule.match for rule in rules)


class PolicyPatch(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One layer: what it says, and None where it says nothing."""

    OMITTED: ClassVar[frozenset[str]] = frozenset(
        {
            *("quiet_ms", "max_wait_ms", "max_count", "edge", "min_interval_ms", "settle_ms", "cycle_timeout_ms"),
            *("max_attempts", "retry_backoff_ms", "retry_backoff_max_ms", "give_up_backoff_ms", "lease_ms"),
            *("rules", "max_concurrent", "mode"),
        }
    )

    quiet_ms: int | None = None
    max_wait_ms: int | None = None
    max_count: int | None = None
    edge: Edge | None = None
    min_interval_ms: int | None = None
    settle_ms: int | None = None
    cycle_timeout_ms: int | None = None
    max_attempts: int | None = None
    retry_backoff_ms: int | None = None
    retry_backoff_max_ms: int | None = None
    give_up_backoff_ms: int | None = None
    lease_ms: int | None = None
    rules: tuple[Rule, ...] | None = None
    max_concurrent: int | None = None
    mode: Mode | None = None


class PolicyLayer(Struct, frozen=True, kw_only=True, cache_hash=True):
    """A stored layer: ``settings``, ``default`` or ``fleet:NAME``, and its version."""

    scope: str
    policy: PolicyPatch
    version: int


SETTINGS_SCOPE = "settings"
DEFAULT_SCOPE = "default"
DEFAULT_FLEET = "default"
"""The fleet of a workspace that names none."""


def fleet_scope(fleet: str) -> str:
    """Return the scope name of a fleet's policy."""
    return f"fleet:{fleet}"


DURATIONS_FROM_ZERO = ("quiet", "min_interval", "settle", "retry_backoff")
DURATIONS_ABOVE_ZERO = ("max_wait", "cycle_timeout", "retry_backoff_max", "give_up_backoff", "lease")
COUNTS = {"max_count": 1_000_000_000, "max_attempts": 1_000, "max_concurrent": 1_000_000}
MAX_RULES = 1_000
ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


class Policies(Struct, frozen=True, kw_only=True):
    """The stored layers; the nearest wins field by field."""

    layers: Mapping[str, PolicyLayer]

    def in_force(self, fleet: str, own: PolicyPatch) -> Policy:
        """Return the numbers of a workspace of ``fleet`` whose own policy is ``own``.

        ``version`` is the newest of the stored layers in force; a workspace's own
        policy is named by its workspace's events.
        """
        stored = self.layers.get
        return _merged(stored(SETTINGS_SCOPE), stored(DEFAULT_SCOPE), stored(fleet_scope(fleet)), own)


@lru_cache(maxsize=4096)
def _merged(
    settings: PolicyLayer | None, default: PolicyLayer | None, fleet: PolicyLayer | None, own: PolicyPatch
) -> Policy:
    """Merge layers, the last one nearest. Kept: a transaction asks for the same numbers at every step."""
    layers = [layer for layer in (settings, default, fleet) if layer is not None]
    values: dict[str, Any] = {}
    for patch in (*(layer.policy for layer in layers), own):
        values |= said_by(patch)
    return Policy(**values, version=max((layer.version for layer in layers), default=0))


def said_by(patch: PolicyPatch) -> dict[str, Any]:
    """Return only the fields that a layer sets."""
    pairs = ((name, getattr(patch, name)) for name in patch.__struct_fields__)
    return {name: value for name, value in pairs if value is not None}


def parse_policy(given: Mapping[str, Any], *, field: str = "policy") -> PolicyPatch:
    """Return the layer that a person wrote: durations as ``15s``, or as seconds.

    Raises ``InvalidInput`` naming the field for unknown fields, wrong types, negative or absurd
    values, and zero where zero makes no sense.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        at = f"{field}.{name}"
        if value is None and name in {item.removesuffix("_ms") for item in PolicyPatch.OMITTED}:
            continue
        if name in DURATIONS_FROM_ZERO or name in DURATIONS_ABOVE_ZERO:
            values[f"{name}_ms"] = _duration(name, value, at)
        elif name in COUNTS:
            values[name] = _count(value, at, most=COUNTS[name])
        elif name == "edge":
            values[name] = _choice(Edge, value, at)
        elif name == "mode":
            values[name] = _choice(Mode, value, at)
        elif name == "rules":
            values[name] = _rules(value, at)
        else:
            known = sorted(item.removesuffix("_ms") for item in PolicyPatch.OMITTED)
            near = get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            raise InvalidInput(f"{at}: unknown field; {meant}", field=at)
    return PolicyPatch(**values)


LEASE_LEAST_TICKS = 3
"""A lease is renewed at every third of it and looked at every tick. Source: CONTRACT section 2."""


def check_lease(lease_ms: int | None, *, tick_ms: int, field: str = "policy.lease") -> None:
    """Raise ``InvalidInput`` for a lease that no worker could keep: it would be called lost at every look."""
    least_ms = LEASE_LEAST_TICKS * tick_ms
    if lease_ms is not None and lease_ms < least_ms:
        raise InvalidInput(
            f"{field}: {format_duration(lease_ms)} is shorter than {LEASE_LEAST_TICKS} ticks; "
            f"give {format_duration(least_ms)} or more (a tick is {format_duration(tick_ms)})",
            field=field,
        )


def render_policy(policy: Policy | PolicyPatch) -> dict[str, Any]:
    """Return a policy as people write it; fields that a layer leaves open are left out."""
    rendered: dict[str, Any] = {}
    for name in policy.__struct_fields__:
        value = getattr(policy, name)
        if name == "version" or (value is None and isinstance(policy, PolicyPatch)):
            continue
        if name.endswith("_ms"):
            rendered[name.removesuffix("_ms")] = format_duration(value)
        elif name == "rules":
            rendered["rules"] = [_render_rule(rule) for rule in value]
        else:
            rendered[name] = value.value if isinstance(value, StrEnum) else value
    return rendered


def _render_rule(rule: Rule) -> dict[str, Any]:
    rendered: dict[str, Any] = {"match": list(rule.match), "action": rule.action.value}
    if rule.quiet_ms is not None:
        rendered["quiet"] = format_duration(rule.quiet_ms)
    if rule.max_wait_ms is not None:
        rendered["max_wait"] = format_duration(rule.max_wait_ms)
    return rendered


def _duration(name: str, value: Any, at: str) -> int:
    if not isinstance(value, str | int | float):
        raise InvalidInput(f"{at}: {value!r} is not a duration; write it as 15s, 1m30s or 500ms", field=at)
    ms = parse_duration(value, field=at)
    if ms == 0 and name in DURATIONS_ABOVE_ZERO:
        raise InvalidInput(f"{at}: must be longer than 0s", field=at)
    return ms


def _count(value: Any, at: str, *, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidInput(f"{at}: {value!r} is not a whole number from 1 to {most}", field=at)
    return value


def _choice(kind: type[ChoiceT], value: Any, at: str) -> ChoiceT:
    if not isinstance(value, str) or value not in [item.value for item in kind]:
        raise InvalidInput(f"{at}: {value!r} is none of {', '.join(item.value for item in kind)}", field=at)
    return kind(value)


def _rules(value: Any, at: str) -> tuple[Rule, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidInput(f"{at}: must be a list of rules", field=at)
    if len(value) > MAX_RULES:
        raise InvalidInput(f"{at}: at most {MAX_RULES} rules", field=at)
    return tuple(_rule(item, f"{at}[{index}]") for index, item in enumerate(value))


def _rule(value: Any, at: str) -> Rule:
    if not isinstance(value, Mapping) or "match" not in value:
        raise InvalidInput(f'{at}: must be like {{"match": ["docs/**"], "action": "record"}}', field=at)
    unknown = sorted(set(value) - {"match", "action", "quiet", "max_wait"})
    if unknown:
        raise InvalidInput(f"{at}.{unknown[0]}: unknown field", field=f"{at}.{unknown[0]}")
    match = [value["match"]] if isinstance(value["match"], str) else value["match"]
    if not isinstance(match, Sequence) or not all(isinstance(item, str) for item in match):
        raise InvalidInput(f"{at}.match: must be a pattern or a list of patterns", field=f"{at}.match")
    try:
        check_patterns(tuple(match))
    except InvalidInput as error:
        raise InvalidInput(f"{at}.match: {error}", field=f"{at}.match") from None
    quiet, max_wait = value.get("quiet"), value.get("max_wait")
    return Rule(
        match=tuple(match),
        action=_choice(Action, value.get("action", Action.RESTART.value), f"{at}.action"),
        quiet_ms=None if quiet is None else _duration("quiet", quiet, f"{at}.quiet"),
        max_wait_ms=None if max_wait is None else _duration("max_wait", max_wait, f"{at}.max_wait"),
    )
