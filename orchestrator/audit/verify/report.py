"""What a verification found: each violation with the positions that contradict each other, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

KEPT_MOST = 1_000
"""Violations that are kept word for word; all of them are counted."""


class Promise(StrEnum):
    """The promises of CONTRACT section 4, and ``log``: that this is a whole log of this product at all."""

    LOG = "log"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    S4 = "S4"
    S5 = "S5"
    S6 = "S6"
    S7 = "S7"
    S8 = "S8"
    S9 = "S9"
    S10 = "S10"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"


MEANING: dict[Promise, str] = {
    Promise.LOG: "every line is an event, positions and versions rise, time never falls, ids are unique",
    Promise.S1: "every write is exactly one of covered, waived, pending",
    Promise.S2: "accepted = covered + waived + recorded + pending",
    Promise.S3: "never two live cycles of a workspace, and only the current fence ends one",
    Promise.S4: "restarts keep min_interval, retries keep retry_at",
    Promise.S5: "nothing is queued before it is due, or under a hold",
    Promise.S6: "one unsettled restart a workspace, and ranges that tile",
    Promise.S7: "stamps and fences rise with every cycle",
    Promise.S8: "the log is what was sealed: nothing was edited, cut or put in",
    Promise.S9: "every restart has a cause, every suppressed probe is an event, and a write's rule is one in force",
    Promise.S10: "folding the log gives the tables, byte for byte",
    Promise.L1: "a write is covered in time",
    Promise.L2: "a dead worker's cycle is abandoned in time and goes on",
    Promise.L3: "nothing that waits is stuck",
    Promise.L4: "when writes stop, at most one restart follows the running one",
}


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One promise that the log shows broken, where, and how. ``line`` counts the lines of a file from 1."""

    promise: Promise
    positions: tuple[int, ...]
    workspace: str | None
    text: str
    line: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one promise: ``good`` (``reason``: how far), ``violated``, or ``not checked`` and why."""

    promise: Promise
    meaning: str
    verdict: str
    violations: int = 0
    reason: str | None = None


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger of writes (S2), and how much was read. ``imbalance`` is by the counts that the events state."""

    events: int
    workspaces: int
    accepted: int
    covered: int
    waived: int
    recorded: int
    pending: int
    imbalance: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. ``explained``: waits beyond the bound of L1 with a reason that the log shows.

    ``passed_over``: how many events of no workspace are of a type that a newer version added, by type.
    """

    good: bool
    source: str
    first_position: int
    last_position: int
    promises: tuple[Verdict, ...]
    violations: tuple[Violation, ...]
    violations_left_out: int
    sums: Sums
    explained: int
    passed_over: Mapping[str, int] = {}


class Findings:
    """Takes violations as they are found. Those that are plain by position ``after`` are not reported."""

    def __init__(self, after: int = 0) -> None:
        self.after = after or -1
        self.counts: dict[Promise, int] = dict.fromkeys(Promise, 0)
        self.kept: list[Violation] = []

    @property
    def total(self) -> int:
        """How many were found."""
        return sum(self.counts.values())

    def add(self, found: Violation) -> None:
        """Take one."""
        self.counts[found.promise] += 1
        if len(self.kept) < KEPT_MOST:
            self.kept.append(found)


def verdicts(
    findings: Findings, not_checked: Mapping[Promise, str], remarks: Mapping[Promise, str]
) -> tuple[Verdict, ...]:
    """Return what became of each promise; one that was broken stays so, whatever else was not checked."""
    return tuple(
        _verdict(promise, findings.counts[promise], not_checked.get(promise), remarks.get(promise))
        for promise in Promise
    )


def _verdict(promise: Promise, violations: int, unchecked: str | None, remark: str | None) -> Verdict:
    word = "violated" if violations else "good" if unchecked is None else "not checked"
    reason = None if violations else unchecked or remark
    return Verdict(promise=promise, meaning=MEANING[promise], verdict=word, violations=violations, reason=reason)
