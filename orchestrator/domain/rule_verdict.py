"""Which path rule decides about a path, and what each rule before it said: for whoever asks why."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from orchestrator.domain.path_rules import PathRules
from orchestrator.domain.paths import check_path, escape_path
from orchestrator.domain.policy import Rule, path_rules


class RuleSaid(Struct, frozen=True, kw_only=True):
    """What one rule said of a path: its last pattern that speaks, None if none does."""

    number: int
    """1 is the first."""
    pattern: str | None
    matches: bool


class RuleVerdict(Struct, frozen=True, kw_only=True):
    """The rules in their order up to the one that decides; ``decided`` is its number, None: no rule matches."""

    path: str
    decided: int | None
    rule: Rule | None
    said: tuple[RuleSaid, ...]


def rule_verdict(rules: Sequence[Rule], path: str) -> RuleVerdict:
    """Return which rule decides about a path that is written. Raises ``InvalidInput`` for one that cannot be."""
    check_path(path)
    stored = escape_path(path)[0]
    first = path_rules(tuple(rules)).first(stored)
    looked_at = rules if first is None else rules[: first + 1]
    said = tuple(_said(number, rule, stored) for number, rule in enumerate(looked_at, start=1))
    return RuleVerdict(
        path=path,
        decided=None if first is None else first + 1,
        rule=None if first is None else rules[first],
        said=said,
    )


def _said(number: int, rule: Rule, path: str) -> RuleSaid:
    for pattern in reversed(rule.match):
        # One that takes out matches nothing by itself: it speaks where the pattern without its `!` would match.
        includes = not pattern.startswith("!")
        if PathRules([(pattern if includes else pattern[1:],)]).first(path) is not None:
            return RuleSaid(number=number, pattern=pattern, matches=includes)
    return RuleSaid(number=number, pattern=None, matches=False)
