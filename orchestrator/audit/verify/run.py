"""A verification from its source to its report."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.audit.verify.ledger import Ledger
from orchestrator.audit.verify.lines import Envelope, Line, Unreadable
from orchestrator.audit.verify.log_pass import Verifier
from orchestrator.audit.verify.report import Promise, Report, Violation, verdicts
from orchestrator.audit.verify.sealed_roots import SealCheck

_NO_CHECKPOINT = "needs --checkpoint and --pubkey"
_NO_DATABASE = "needs a database: the tables are not in a file"
_NO_TICK = "needs --tick, the interval at which the coalescer looks"


class Verification:
    """Reads lines, and answers for each promise: good, violated or not checked."""

    def __init__(
        self,
        *,
        ledger: Ledger | None = None,
        after: int = 0,
        tick_us: int | None = None,
        slots: int = 1,
        seal: SealCheck | None = None,
    ) -> None:
        """Begin, or go on from ``ledger``: what is read up to its position is skipped. See ``Verifier``."""
        self.verifier = Verifier(ledger=ledger, after=after, tick_us=tick_us, slots=slots)
        self._begun_at = self.verifier.ledger.position
        self._seal = seal
        self.read_to_end = True
        self._remarks: dict[Promise, str] = {}
        self.not_checked: dict[Promise, str] = {Promise.S10: _NO_DATABASE}
        if seal is None:
            self.not_checked[Promise.S8] = _NO_CHECKPOINT
        if tick_us is None:
            self.not_checked |= {Promise.L1: _NO_TICK, Promise.L2: _NO_TICK}

    @property
    def ledger(self) -> Ledger:
        """Return what is known of the log up to where it was read."""
        return self.verifier.ledger

    def read(self, lines: Iterator[Line]) -> None:
        """Take all lines, up to the first that cannot be read."""
        try:
            self._take_all(lines)
        except Unreadable as error:
            self._stop(error)

    def finish(self, *, whole: bool = True) -> None:
        """Judge what is open at the end. ``whole`` False: more of the log comes after what was read."""
        if not self.read_to_end:
            return
        if self.ledger.events == 0:
            self.verifier.foreign("there is no event in it at all")
        self.verifier.finish(whole=whole)
        if self._seal is not None:
            self._seal.finish()
            self._remarks[Promise.S8] = f"up to position {self._seal.sealed_to}, which is how far it is sealed"
        self._add_unsealed()

    def add(self, promise: Promise, positions: tuple[int, ...], text: str, workspace: str | None = None) -> None:
        """Take a finding that was made elsewhere; S10 is."""
        found = Violation(promise=promise, positions=positions, workspace=workspace, text=text)
        self.verifier.findings.add(found)

    def report(self, source: str) -> Report:
        """Return the answer."""
        findings = self.verifier.findings
        return Report(
            good=findings.total == 0,
            source=source,
            first_position=self.ledger.first_position,
            last_position=self.ledger.position,
            promises=verdicts(findings, self.not_checked, self._remarks),
            violations=tuple(findings.kept),
            violations_left_out=findings.total - len(findings.kept),
            sums=self.verifier.sums(),
            explained=self.ledger.explained,
            passed_over=dict(sorted(self.ledger.passed_over.items())),
        )

    def _take_all(self, lines: Iterator[Line]) -> None:
        take, seal, skipping = self.verifier.take, self._seal, self._begun_at
        for number, (line, event) in enumerate(lines, 1):
            if seal is not None:
                seal.add(line, event.position)
            if not skipping:
                take(event, number)
            elif event.position >= skipping:
                self._require_same(event)
                skipping = 0
        if skipping:
            raise self._another_log()

    def _require_same(self, event: Envelope) -> None:
        if (event.position, event.id) != (self._begun_at, self.ledger.last_id):
            raise self._another_log()

    def _another_log(self) -> Unreadable:
        last = f"event {self.ledger.last_id} at position {self._begun_at}"
        return Unreadable(f"this is not the log that the saved state is of: it does not hold {last}")

    def _add_unsealed(self) -> None:
        for positions, text in self._seal.broken if self._seal is not None else ():
            self.add(Promise.S8, positions, text)

    def _stop(self, error: Unreadable) -> None:
        self.read_to_end = False
        self._add_unsealed()
        self.verifier.unreadable(error)
        reason = f"nothing after position {self.ledger.position} could be read"
        self.not_checked = dict.fromkeys(Promise, reason) | self.not_checked
