"""What people and programs do to a workspace, one transaction each: load, decide, append, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide
from orchestrator.domain.policy import Policies
from orchestrator.domain.policy_in_force import policy_in_force
from orchestrator.domain.restart_projection import SETTLED, RestartProjection
from orchestrator.domain.scopes import Scope
from orchestrator.domain.secret_values import HOW_TO_WRITE, secrets_in
from orchestrator.domain.state import Hold, Registration, WorkspaceState
from orchestrator.errors import Conflict, Forbidden, InvalidTarget, NotFound
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Asked, Unit
from orchestrator.ports.workspaces import StoredWorkspace
from orchestrator.service.announce import announce
from orchestrator.service.append import BY_ITSELF, Author, append, carry_out, check_reach, expected_at
from orchestrator.service.idempotency import AnswerT, RequestKey, keys_of, once
from orchestrator.service.write_budget import charge

SCOPES_OF_COMMANDS: Mapping[type[cmd.Command], Scope] = {
    cmd.Register: Scope.REGISTER,
    cmd.Remove: Scope.REGISTER,
    cmd.RequestRestart: Scope.RESTARTS,
    cmd.ReportProbe: Scope.PROBES,
    cmd.Hold: Scope.HOLDS,
    cmd.Release: Scope.HOLDS,
    cmd.Cancel: Scope.CANCEL,
}
"""With what scope each command is carried out that somebody asks for."""


@dataclass(frozen=True, kw_only=True)
class RequestedRestart:
    """An accepted request. ``due_at`` is when its restart is due as things stand."""

    id: str
    position: int
    due_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ProbeAnswer:
    """What a probe led to: requested, suppressed (by ``reason``) or ignored (it was healthy)."""

    decision: str
    reason: ev.Suppression | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has no answer of its own. ``changed`` is False if nothing had to be recorded."""

    changed: bool
    replaced: Hold | None = None
    """The hold that this one takes the place of, if there was one."""


@dataclass(frozen=True, kw_only=True)
class _CarriedOut:
    """What a command did to a workspace."""

    before: WorkspaceState
    after: WorkspaceState
    recorded: Sequence[ev.Recorded]
    policies: Policies


class Operator:
    """Carries out commands. ``on_removed`` is told of a workspace after its removal is committed; it must not raise."""

    def __init__(self, store: CoreStore, ids: Ids, *, on_removed: Callable[[str], None] | None = None) -> None:
        self._store, self._ids = store, ids
        self._on_removed = [] if on_removed is None else [on_removed]

    def tell_first(self, on_removed: Callable[[str], None]) -> None:
        """Tell this one of removals too, before those that are told already."""
        self._on_removed.insert(0, on_removed)

    def register(
        self,
        workspace: str,
        registration: Registration,
        author: Author,
        *,
        code: Author | None = None,
        create_only: bool = False,
    ) -> tuple[StoredWorkspace, bool]:
        """Register or change a workspace; return its row, and whether it is new.

        ``code``: the same author with the reach of ``register-code``, where the target names what is run or called.
        Either scope must reach the workspace where it goes and, unless it is new, where it is, else ``Forbidden``.
        Raises ``Conflict`` with ``create_only`` if it exists already.
        """
        command, by = cmd.Register(registration=registration), (author,) if code is None else (author, code)
        _need(author, SCOPES_OF_COMMANDS[cmd.Register])
        if code is not None:
            _need(code, Scope.REGISTER_CODE)
        if not create_only:
            unchanged = self._unchanged_by(workspace, command, *by)
            if unchanged is not None:
                return StoredWorkspace(state=unchanged.state, due_at=unchanged.due_at), False

        def step(tx: Transaction) -> tuple[StoredWorkspace | None, bool, list[ev.Recorded]]:
            stored = tx.workspace(workspace)
            state = stored.state if stored else WorkspaceState(workspace=workspace)
            for each in by:
                _check_move(each, state, registration)
            if create_only and state.registered:
                raise Conflict(f"workspace {workspace!r} is registered already")
            charge(tx, author.budget, 1)
            _, recorded = carry_out(tx, state, command, author, self._ids, tx.policies())
            return tx.workspace(workspace), not state.registered, recorded

        stored, is_new, recorded = self._store.commit(Unit(name="register", workspaces=(workspace,), step=step))
        announce(recorded)
        if stored is None:
            raise NotFound(f"workspace {workspace!r} vanished")
        return StoredWorkspace(state=stored.state, due_at=stored.due_at), is_new

    def request_restart(
        self, workspace: str, command: cmd.RequestRestart, author: Author, request: RequestKey | None = None
    ) -> tuple[RequestedRestart, bool]:
        """Record a request for a restart. Raises ``NotFound``."""

        def answer(done: _CarriedOut) -> RequestedRestart:
            due_at = expected_at(done.after, policy_in_force(done.after, done.policies))
            requested = done.recorded[0]
            return RequestedRestart(id=requested.id, position=requested.position, due_at=due_at)

        return self._carry_out(workspace, command, author, request, RequestedRestart, answer)

    def report_probe(
        self, workspace: str, command: cmd.ReportProbe, author: Author, request: RequestKey | None = None
    ) -> tuple[ProbeAnswer, bool]:
        """Record what a probe leads to. Raises ``NotFound``."""
        _need(author, SCOPES_OF_COMMANDS[cmd.ReportProbe])
        if command.healthy and request is None and self._unchanged_by(workspace, command, author) is not None:
            return ProbeAnswer(decision="ignored"), False

        def answer(done: _CarriedOut) -> ProbeAnswer:
            if not done.recorded:
                return ProbeAnswer(decision="ignored")
            first = done.recorded[0]
            if isinstance(first.data, ev.ProbeSuppressed):
                return ProbeAnswer(decision="suppressed", reason=first.data.reason, id=first.id)
            return ProbeAnswer(decision="requested", id=first.id)

        return self._carry_out(workspace, command, author, request, ProbeAnswer, answer)

    def change(
        self,
        workspace: str,
        command: cmd.Hold | cmd.Release | cmd.Remove,
        author: Author,
        request: RequestKey | None = None,
    ) -> tuple[Done, bool]:
        """Hold, release or remove a workspace. Raises ``NotFound``, ``InvalidInput``."""

        def answer(done: _CarriedOut) -> Done:
            return Done(
                changed=bool(done.recorded), replaced=done.before.hold if isinstance(command, cmd.Hold) else None
            )

        done = self._carry_out(workspace, command, author, request, Done, answer)
        for on_removed in self._on_removed if isinstance(command, cmd.Remove) else ():
            on_removed(workspace)
        return done

    def cancel(
        self, record: RestartProjection, reason: str, author: Author, request: RequestKey | None = None
    ) -> tuple[Done, bool]:
        """Cancel a queued or retrying restart; its range is waived. Raises ``Conflict``."""

        def answer(_: _CarriedOut) -> Done:
            return Done(changed=True)

        if record.state in SETTLED and request is None:
            raise Conflict(
                f"restart {record.id} is {record.state.value}; only a queued or retrying one can be cancelled"
            )
        command = cmd.Cancel(restart=record.id, reason=reason)
        return self._carry_out(record.workspace, command, author, request, Done, answer)

    def report_exit(self, workspace: str, exited: ev.ProcessExited) -> None:
        """Record that a supervised child ended by itself."""

        def step(tx: Transaction) -> list[ev.Recorded]:
            state = _state_of(tx, workspace, BY_ITSELF)
            if not state.registered:
                return []
            return append(tx, state, [exited], BY_ITSELF, self._ids, tx.policies())[1]

        announce(self._store.commit(Unit(name="exit", workspaces=(workspace,), step=step)))

    def _unchanged_by(self, workspace: str, command: cmd.Command, *by: Author) -> StoredWorkspace | None:
        """Return a workspace's row where a command records nothing, as things stand; None where it may.

        What records nothing need not wait for the lock that every write waits for. Raises what the command does.
        """
        with self._store.read() as reader:
            stored = reader.workspace(workspace)
            if stored is None:
                return None
            for author in by:
                check_reach(author.reach, author.scope, stored.state)
            policy = policy_in_force(stored.state, reader.policies())
            return None if decide(stored.state, command, policy, reader.clock()) else stored

    def _carry_out(
        self,
        workspace: str,
        command: cmd.Command,
        author: Author,
        request: RequestKey | None,
        kind: type[AnswerT],
        answer: Callable[[_CarriedOut], AnswerT],
    ) -> tuple[AnswerT, bool]:
        _need(author, SCOPES_OF_COMMANDS[type(command)])

        def step(tx: Transaction) -> tuple[tuple[AnswerT, bool], list[ev.Recorded]]:
            events: list[ev.Recorded] = []
            if not author.reach.everywhere:  # an earlier answer is of the workspace too
                _state_of(tx, workspace, author)

            def compute() -> AnswerT:
                state = _state_of(tx, workspace, author)
                policies = tx.policies()
                after, recorded = carry_out(tx, state, command, author, self._ids, policies)
                charge(tx, author.budget, 1)
                events.extend(recorded)
                return answer(_CarriedOut(before=state, after=after, recorded=recorded, policies=policies))

            return once(tx, author.actor, request, kind, compute), events

        asked = Asked(answers=keys_of(author.actor, request), decides=True)
        unit = Unit(name="command", workspaces=(workspace,), step=step, asked=asked, hurried=True)
        answered, events = self._store.commit(unit)
        announce(events)
        return answered


def refuse_secrets(target: Mapping[str, Any]) -> None:
    """Raise ``InvalidTarget`` for a target with a plain value that looks like a secret: it would stay in the log."""
    found = secrets_in(target)
    if found:
        raise InvalidTarget(
            f"target field {found[0]!r} looks like a secret, and a target is kept in the log for ever; {HOW_TO_WRITE}"
            + ("" if found[0].startswith("env.") else ", as a variable of `env` that the program reads"),
            field=found[0],
        )


def _need(author: Author, scope: Scope) -> None:
    """Raise ``Forbidden`` for somebody who was let in for something else; what no request asked for has no scope."""
    if author.scope not in ("", scope):
        raise Forbidden(f"this is carried out with the scope {scope}, not {author.scope}", needs=scope)


def _check_move(author: Author, state: WorkspaceState, to: Registration) -> None:
    """Raise ``Forbidden`` where somebody reaches a workspace not where it is, or not where it goes."""
    if state.registration is not None:  # what was never registered is nobody's
        check_reach(author.reach, author.scope, state)
    check_reach(author.reach, author.scope, WorkspaceState(workspace=state.workspace, registration=to))


def _state_of(tx: Transaction, workspace: str, author: Author) -> WorkspaceState:
    stored = tx.workspace(workspace)
    state = stored.state if stored else WorkspaceState(workspace=workspace)
    check_reach(author.reach, author.scope, state)
    return state
