"""Which path rule matches each write: worked out before the locks, by the rules that its workspace had last.

Nobody waits under the append lock for a path to be matched: there the rules are only compared. Where they are others
than thought, nothing is stored, and whoever asked matches by those and comes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.domain.paths import check_path, escape_path
from orchestrator.domain.policy import Rule, path_rules
from orchestrator.errors import InvalidInput, StorageUnavailable

Rules = tuple[Rule, ...]
TRIES = 5
"""Rules that change again between so many tries are somebody's mistake; nothing is stored then."""
_KEPT = 20_000


class RulesMoved(Exception):
    """Some workspaces' rules are others than those by which writes were matched. ``rules``: by workspace."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        super().__init__(f"the path rules of {', '.join(sorted(rules))} are others than thought")
        self.rules = rules


class LastRules:
    """The path rules that workspaces had when they were last written to; none are kept for one without.

    Safe for many threads: each of its steps is one of a dictionary's.
    """

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._kept: dict[str, Rules] = {}

    def of(self, workspace: str) -> Rules:
        """Return a workspace's rules, as far as is known."""
        return self._kept.get(workspace, ())

    def note(self, workspace: str, rules: Rules) -> None:
        """Keep a workspace's rules; where there are too many, all others are forgotten."""
        if len(self._kept) >= self._most and workspace not in self._kept:
            self._kept.clear()
        if rules:
            self._kept[workspace] = rules
        else:
            self._kept.pop(workspace, None)


LAST = LastRules()
"""What this process knows; a guess only, as the rules are compared under the lock."""


class Matching:
    """The rules of some writes' paths. Begin with ``match_by_last``; ``learn`` what a ``RulesMoved`` says."""

    def __init__(self, written: Iterable[tuple[str, str]]) -> None:
        """``written``: workspace and path of each write, as its caller reports it."""
        self._last = LAST
        self._paths: dict[str, set[str]] = {}
        for workspace, path in written:
            self._paths.setdefault(workspace, set()).add(path)
        self._rules: dict[str, Rules] = {}
        self._found: dict[tuple[str, str], Rule | None] = {}

    def match_by_last(self) -> None:
        """Match by the rules that the workspaces had last, as far as this process knows."""
        for workspace in self._paths:
            self._match(workspace, self._last.of(workspace))

    def learn(self, rules: Mapping[str, Rules]) -> None:
        """Match by other rules, and remember them for the next time."""
        for workspace, now in rules.items():
            self._last.note(workspace, now)
            self._match(workspace, now)

    @property
    def pairs(self) -> int:
        """Return how many paths are matched with how many rules by ``match_by_last``: what that takes."""
        return sum(len(paths) * len(self._last.of(name)) for name, paths in self._paths.items())

    def is_by(self, workspace: str, rules: Rules) -> bool:
        """Return whether a workspace's paths were matched by these rules."""
        return self._rules.get(workspace) == rules

    def rule(self, workspace: str, path: str) -> Rule | None:
        """Return the first rule that matches a path that was named at the beginning; None if none does."""
        return self._found[workspace, path] if self._rules[workspace] else None

    def _match(self, workspace: str, rules: Rules) -> None:
        self._rules[workspace] = rules
        if not rules:
            return
        compiled = path_rules(rules)
        for path in self._paths[workspace]:
            first = compiled.first(escape_path(path)[0]) if _is_legal(path) else None
            self._found[workspace, path] = None if first is None else rules[first]


def _is_legal(path: str) -> bool:
    try:
        check_path(path)
    except InvalidInput:
        return False
    return True


def rules_keep_changing() -> StorageUnavailable:
    """Return the error for writes whose rules were others at every try."""
    return StorageUnavailable("the path rules changed again and again meanwhile; nothing was stored, try again")
