"""What every check needs at hand: the ledger, the policies, where findings go, and what the auditor has told."""

from __future__ import annotations

from orchestrator.audit.verify.ledger import Ledger, Workspace
from orchestrator.audit.verify.policies import Policies
from orchestrator.audit.verify.report import Findings, Promise, Violation


class Judge:
    """Takes what is found at the event that is read. ``tick_us`` None: L1 and L2 are not checked.

    ``slots`` is how many cycles run at once before a start waits its turn: while so many run, a wait is
    explained. 1, the least there can be, excuses most.
    """

    def __init__(self, ledger: Ledger, findings: Findings, *, tick_us: int | None, slots: int) -> None:
        self.ledger, self.findings = ledger, findings
        self.policies = Policies(ledger)
        self.tick_us, self.slots = tick_us, slots
        self.line: int | None = None

    def broken(self, promise: Promise, workspace: Workspace | None, positions: tuple[int, ...], text: str) -> None:
        """Take a violation: the positions that contradict each other, and one sentence."""
        if self.ledger.position > self.findings.after:
            self.always_broken(promise, workspace, positions, text)

    def always_broken(
        self, promise: Promise, workspace: Workspace | None, positions: tuple[int, ...], text: str
    ) -> None:
        """Take a violation wherever the reporting begins."""
        name = workspace.id if workspace is not None else None
        where = tuple(sorted({position for position in positions if position}))
        self.findings.add(Violation(promise=promise, positions=where, workspace=name, text=text, line=self.line))
        counts = self.ledger.violations
        counts[promise.value] = counts.get(promise.value, 0) + 1

    def crowded(self, at: int) -> int:
        """Return for how long, up to now, so many cycles ran that others had to wait."""
        ledger = self.ledger
        return ledger.crowded_us + (at - ledger.crowded_since if ledger.running >= self.slots else 0)

    def cycle_begins(self, at: int) -> None:
        """Count a cycle that runs from now on."""
        self.ledger.running += 1
        if self.ledger.running == self.slots:
            self.ledger.crowded_since = at

    def cycle_ends(self, at: int) -> None:
        """Count one less."""
        if self.ledger.running == self.slots:
            self.ledger.crowded_us += at - self.ledger.crowded_since
        self.ledger.running -= 1
