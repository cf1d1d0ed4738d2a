"""Registrations, holds, removals and policies: who there is, under which numbers."""

from __future__ import annotations

import msgspec

from orchestrator.audit.verify import event_data as data_of
from orchestrator.audit.verify.absences import need_of
from orchestrator.audit.verify.judge import Judge
from orchestrator.audit.verify.ledger import Layer, Workspace
from orchestrator.audit.verify.lines import Envelope, microseconds, spell_instant
from orchestrator.audit.verify.report import Promise

_DEFAULT_POOL, _SUPERVISED, _OF_NO_UP = "default", "process", "up"
_FIRST_VERSION = 1
_SYSTEM = "system"
"""The actor of what the product does by itself."""
_registered = msgspec.json.Decoder(data_of.Registered).decode
_held = msgspec.json.Decoder(data_of.Held).decode
_reason = msgspec.json.Decoder(data_of.Reason).decode
_policy_changed = msgspec.json.Decoder(data_of.PolicyChanged).decode


def registered(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a registration or its change."""
    data = _registered(event.data)
    workspace.registered, workspace.fleet, workspace.policy = True, data.fleet, data.policy
    workspace.policy_position = event.position
    pool = data.target.get("pool")
    otherwise = _OF_NO_UP if data.executor == _SUPERVISED else _DEFAULT_POOL
    workspace.need = need_of(data.executor, pool if isinstance(pool, str) else otherwise)
    workspace.note_change()
    workspace.floor = at


def held(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a hold; one that replaces another goes on."""
    until = _held(event.data).until
    workspace.held_position = event.position
    workspace.held_until = None if until is None else microseconds(until)


def released(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take the end of a hold: the tick ends one only when its ``until`` has passed, a person at any time."""
    _reason(event.data)
    until = workspace.held_until
    if event.actor == _SYSTEM and workspace.held_position and (until is None or at < until):
        ends = "never ends by itself" if until is None else f"lasts until {spell_instant(until)}"
        text = f"a hold that {ends} is released at {spell_instant(at)}, and by nobody"
        judge.broken(Promise.S5, workspace, (workspace.held_position, event.position), text)
    workspace.held_position, workspace.held_until = 0, None
    workspace.floor = at


def removed(judge: Judge, workspace: Workspace, event: Envelope, at: int) -> None:
    """Take a removal. What is unsettled ends before it, what is pending is waived after it, in its transaction."""
    _reason(event.data)
    restart = workspace.restart
    if restart is not None:
        position = restart.open.position if restart.open else restart.position
        judge.broken(
            Promise.S6,
            workspace,
            (position, event.position),
            f"the workspace is removed while {restart.id} is unsettled; it must be cancelled in the same transaction",
        )
        if restart.open is not None:
            judge.cycle_ends(at)
        workspace.restart = None
    workspace.registered = False
    workspace.held_position, workspace.held_until = 0, None
    workspace.next_try_at, workspace.give_ups = None, 0
    workspace.waivable, workspace.waivable_at = workspace.last_pending, at


def policy_changed(judge: Judge, event: Envelope, at: int) -> None:
    """Take a policy layer."""
    data = _policy_changed(event.data)
    layer = Layer(policy=data.policy, version=data.policy_version, position=event.position)
    newest = max(judge.ledger.layers.values(), key=lambda known: known.version, default=None)
    if newest is not None and newest.version >= layer.version:
        judge.broken(
            Promise.LOG,
            None,
            (newest.position, event.position),
            f"policy version {layer.version} comes after version {newest.version}",
        )
    if newest is None:
        judge.ledger.has_all_policies = layer.version == _FIRST_VERSION
    judge.policies.change(data.scope, layer)
    judge.ledger.policy_changed_at = at
    for workspace in judge.ledger.workspaces.values():
        workspace.note_change()
