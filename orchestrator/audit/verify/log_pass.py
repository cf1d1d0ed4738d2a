"""One pass over the log: the envelope's order, then each event by its type. Memory: workspaces and what is pending."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.audit.verify import absences, admissions, cycles, event_data, liveness, restarts, triggers
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Ledger, Workspace
from orchestrator.audit.verify.lines import NEWEST_SCHEMA, Envelope, Unreadable, parse_instant
from orchestrator.audit.verify.policies import Policies
from orchestrator.audit.verify.report import Findings, Promise, Sums

Handler = Callable[[Judge, Workspace, Envelope, int], None]

_IDS_KEPT = 1 << 15
_REGISTERED = "WorkspaceRegistered"


def _checked(kind: type[msgspec.Struct]) -> Handler:
    decode = msgspec.json.Decoder(kind).decode

    def check(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
        decode(event.data)

    return check


_OF_CALLERS = frozenset({"KeyCreated", "KeyRevoked", "AccessDenied", "ReadsCounted", "DataExported"})
"""Who may call, and did: nothing that a promise of this pass is about (live keys are S10's, of a database)."""

_FACTS: dict[str, Handler] = {
    "FileWritten": triggers.file_written,
    "ProbeSuppressed": triggers.probe_suppressed,
    "ProcessExited": _checked(event_data.ProcessExited),
}
_DECISIONS: dict[str, Handler] = {
    "RestartRequested": triggers.restart_requested,
    "RestartQueued": restarts.queued,
    "CycleStarted": cycles.started,
    "CycleSucceeded": cycles.succeeded,
    "CycleFailed": cycles.failed,
    "CycleAbandoned": cycles.abandoned,
    "LateResultRejected": cycles.late_result,
    "RestartGaveUp": restarts.gave_up,
    "RestartCancelled": restarts.cancelled,
    "WritesWaived": restarts.waived,
    _REGISTERED: admissions.registered,
    "WorkspaceChanged": admissions.registered,
    "WorkspaceHeld": admissions.held,
    "WorkspaceReleased": admissions.released,
    "WorkspaceRemoved": admissions.removed,
}
_decode_clock = msgspec.json.Decoder(event_data.ClockRegressed).decode


def _require_known_schema(event: Envelope) -> None:
    """Raise ``Unreadable`` where a newer version's rules would be needed; what has no workspace changes none."""
    if event.schema > NEWEST_SCHEMA and event.workspace is not None:
        raise Unreadable(
            f"position {event.position}: {event.type} of schema {event.schema} is newer than this verifier"
        )


class Verifier:
    """Checks every promise that the events alone can show, event by event."""

    def __init__(
        self, *, ledger: Ledger | None = None, after: int = 0, tick_us: int | None = None, slots: int = 1
    ) -> None:
        """Begin, or go on from ``ledger``. Only what becomes plain after position ``after`` is reported.

        ``tick_us`` and ``slots``: see ``Judge``.
        """
        self.ledger = ledger or Ledger()
        self.findings = Findings(after)
        self._judge = Judge(self.ledger, self.findings, tick_us=tick_us, slots=slots)
        self._instant = ""
        self._ids: set[str] = set()
        self._older_ids: set[str] = set()

    @property
    def policies(self) -> Policies:
        """Return what says which numbers are in force at the event that was taken last."""
        return self._judge.policies

    def take(self, event: Envelope, line: int | None = None) -> None:
        """Check the next event. Raises ``Unreadable`` for one whose type or data is not of this product."""
        ledger, judge = self.ledger, self._judge
        judge.line = line
        if not self._in_order(event):
            return
        if event.recorded_at != self._instant:
            self._read_instant(event)
        ledger.events += 1
        _require_known_schema(event)
        name = event.workspace
        try:
            if name is None:
                self._of_nobody(event)
                return
            workspace = ledger.workspaces.get(name)
            if workspace is None:
                workspace = self._meet(name, event)
            if workspace.stuck_position and ledger.at > workspace.stuck_at:
                liveness.tell_stuck(judge, workspace)
            handler = _FACTS.get(event.type)
            if handler is not None:
                if event.version is not None:
                    self._versioned_fact(workspace, event)
                handler(judge, workspace, event, ledger.at)
                if not workspace.registered:
                    liveness.check_stuck(judge, workspace, event.position, ledger.at)
                return
            self._decision(workspace, event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"the data of {event.type} at position {event.position}: {error}", line) from None

    def finish(self, *, whole: bool = True) -> None:
        """Judge what is open at the end. ``whole`` False: the reading stopped inside of the log."""
        if whole:
            for workspace in self.ledger.workspaces.values():
                liveness.check_at_end(self._judge, workspace, self.ledger.at)

    def unreadable(self, error: Unreadable) -> None:
        """Take the end of what can be read as a finding; whoever goes on from here is not told again."""
        if self.ledger.stopped_at == self.ledger.position:
            return
        self.ledger.stopped_at = self.ledger.position
        self._judge.line = error.line or self._judge.line
        self._judge.always_broken(Promise.LOG, None, (self.ledger.position,), f"{error}; nothing after it was read")

    def foreign(self, text: str) -> None:
        """Take it as a finding that this is not the log that it should be."""
        self._judge.always_broken(Promise.LOG, None, (self.ledger.position,), text)

    def sums(self) -> Sums:
        """Return the ledger of all writes so far."""
        ledger = self.ledger
        pending = ledger.pending
        return Sums(
            events=ledger.events,
            workspaces=len(ledger.workspaces),
            accepted=ledger.accepted,
            covered=ledger.covered,
            waived=ledger.waived,
            recorded=ledger.recorded,
            pending=pending,
            imbalance=ledger.accepted - ledger.stated - ledger.recorded - pending,
        )

    def _in_order(self, event: Envelope) -> bool:
        """Check position and id; return False for an event that was there before."""
        ledger, position = self.ledger, event.position
        if event.id in self._ids or event.id in self._older_ids:
            self._judge.broken(Promise.LOG, None, (position, ledger.position), f"event {event.id} is there twice")
            return False
        self._ids.add(event.id)
        if len(self._ids) == _IDS_KEPT:
            self._older_ids, self._ids = self._ids, set()
        if position <= ledger.position:
            text = f"position {position} comes after position {ledger.position}"
            self._judge.broken(Promise.LOG, None, (ledger.position, position), text)
        else:
            ledger.position = position
        ledger.last_id = event.id
        if not ledger.first_position:
            ledger.first_position = position
        return True

    def _read_instant(self, event: Envelope) -> None:
        at = parse_instant(event.recorded_at)
        self._instant = event.recorded_at
        if at < self.ledger.at:
            text = f"recorded_at falls to {event.recorded_at}; recorded time never falls"
            self._judge.broken(Promise.LOG, None, (event.position,), text)
        else:
            self.ledger.at = at

    def _meet(self, name: str, event: Envelope) -> Workspace:
        """Return the state of a workspace that was not met before; its log begins with its registration."""
        workspace = Workspace(id=name)
        self.ledger.workspaces[name] = workspace
        if event.type != _REGISTERED:
            text = (
                f"the first event of workspace {name} is {event.type}, not its registration: what was before is missing"
            )
            self._judge.broken(Promise.LOG, workspace, (event.position,), text)
            workspace.registered = True
            workspace.version = (event.version or 1) - 1
        return workspace

    def _of_nobody(self, event: Envelope) -> None:
        if event.version is not None:
            text = f"{event.type} of no workspace has version {event.version}"
            self._judge.broken(Promise.LOG, None, (event.position,), text)
        if event.type == "PolicyChanged":
            admissions.policy_changed(self._judge, event, self.ledger.at)
        elif event.type == "ExecutorAway":
            absences.away(self._judge, event, self.ledger.at)
        elif event.type == "ExecutorBack":
            absences.back(self._judge, event, self.ledger.at)
        elif event.type == "ClockRegressed":
            _decode_clock(event.data)
        elif event.type in _OF_CALLERS:
            return
        elif event.type in _FACTS or event.type in _DECISIONS:
            raise Unreadable(f"position {event.position}: an event {event.type} of no workspace is not of this product")
        else:  # of a newer version: it changes no workspace, so every promise can be judged without it (CONTRACT 8)
            passed_over = self.ledger.passed_over
            passed_over[event.type] = passed_over.get(event.type, 0) + 1

    def _versioned_fact(self, workspace: Workspace, event: Envelope) -> None:
        text = f"{event.type} is a fact, yet has version {event.version}"
        self._judge.broken(Promise.LOG, workspace, (event.position,), text)

    def _decision(self, workspace: Workspace, event: Envelope) -> None:
        handler = _DECISIONS.get(event.type)
        if handler is None:
            raise Unreadable(f"position {event.position}: an event {event.type} of a workspace is not of this product")
        if event.version != workspace.version + 1:
            text = f"version {event.version} of {workspace.id} follows version {workspace.version}"
            self._judge.broken(Promise.LOG, workspace, (event.position,), text)
        workspace.version = workspace.version + 1 if event.version is None else event.version
        handler(self._judge, workspace, event, self.ledger.at)
        liveness.check_stuck(self._judge, workspace, event.position, self.ledger.at)
