"""What people and programs do to the virtual workspaces: save bursts, storms, requests, probes, holds, removals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random

from bench.virtual_fleet import VirtualFleet
from bench.virtual_log import VirtualLog
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.policy import (
    DEFAULT_SCOPE,
    SETTINGS_SCOPE,
    Action,
    Policy,
    PolicyPatch,
    fleet_scope,
    parse_policy,
)
from orchestrator.domain.state import Registration, WorkspaceState
from orchestrator.service.append import SYSTEM, Author

_FLEETS = ("web", "web", "web", "api", "api", "batch", "edge", "ci", "trial")
_RULES = [
    {"match": ["docs/**", "*.log"], "action": "record"},
    {"match": "*.css", "action": "reload"},
    {"match": "migrations/**", "quiet": "5s", "max_wait": "30s"},
]
_FLEET_POLICIES: dict[str, dict[str, object]] = {
    "edge": {"edge": "leading", "min_interval": "30s"},
    "ci": {"max_concurrent": 12, "max_count": 12},
    "trial": {"mode": "shadow"},
    "batch": {"quiet": "20s", "max_wait": "2m", "give_up_backoff": "1m"},
}
_FOLDERS = ("src/app", "src/app", "src/lib", "tests", "docs", "migrations", "static")
_ENDINGS = {"docs": "md", "static": "css"}
_THINK_S = 480.0
_CONSTANT = 0.02
_STORMS = 0.0005
_POLICY_CHANGES_EVERY_S = 3_600.0
_CLOCK_STEPS_EVERY_S = 20_000.0


class VirtualPeople:
    """Plans what people do on a fleet, for ever."""

    def __init__(self, fleet: VirtualFleet, log: VirtualLog, random: Random) -> None:
        self._fleet, self._log, self._random = fleet, log, random
        self._sources = 0

    def arrive(self, workspaces: int) -> None:
        """Set policies, register the workspaces, and let each begin within a few minutes."""
        floor = Policy()
        numbers = {name: getattr(floor, name) for name in PolicyPatch.OMITTED}
        self._log.change_policy(SETTINGS_SCOPE, PolicyPatch(**numbers), SYSTEM)
        self._log.change_policy(DEFAULT_SCOPE, parse_policy({"rules": _RULES}), "local:admin")
        for name, policy in _FLEET_POLICIES.items():
            self._log.change_policy(fleet_scope(name), parse_policy(policy), "local:admin")
        for number in range(workspaces):
            self._begin(f"ws-{number:04d}", constant=self._random.random() < _CONSTANT)
        self._fleet.after(_POLICY_CHANGES_EVERY_S, self._change_policy)
        self._fleet.after(_CLOCK_STEPS_EVERY_S, self._clock_steps_back)

    def _begin(self, workspace: str, *, constant: bool) -> None:
        fleet = self._random.choice(_FLEETS)
        act = self._write_for_ever if constant else self._think
        self._fleet.after(self._random.uniform(0, 60), partial(self._come, workspace, fleet, act))

    def _come(self, workspace: str, fleet: str, act: Callable[[str], None]) -> None:
        self._register(workspace, fleet)
        self._fleet.after(self._random.uniform(1, _THINK_S), partial(act, workspace))

    def _register(self, workspace: str, fleet: str) -> None:
        labels = {"tier": self._random.choice(("front", "back")), "team": f"team-{self._random.randrange(20)}"}
        own = parse_policy({"quiet": "10s"} if self._random.random() < 0.05 else {})
        target = {"container": workspace, "signal": "SIGTERM"}
        registration = Registration(fleet=fleet, labels=labels, executor="simulated", target=target, policy=own)
        self._log.carry_out(workspace, cmd.Register(registration=registration), Author(actor="key:provisioner"))
        self._fleet.follow(workspace)

    def _think(self, workspace: str) -> None:
        """Do one thing, and plan the next."""
        if not self._log.state(workspace).registered:
            return
        took = self._storm(workspace) if self._random.random() < _STORMS else self._burst(workspace)
        self._perhaps(workspace, took)
        self._fleet.after(took + self._random.expovariate(1 / _THINK_S), partial(self._think, workspace))

    def _burst(self, workspace: str) -> float:
        """Save: 10 to 17 writes in 30 to 60 s, one by one or, from a client that batches, together."""
        writes, took = self._random.randint(10, 17), self._random.uniform(30, 60)
        author = f"local:dev-{int(workspace[3:]) % 300}"
        if self._random.random() < 0.1:
            self._fleet.after(1.0, partial(self._write, workspace, author, writes))
        else:
            for _ in range(writes):
                self._fleet.after(self._random.uniform(0, took), partial(self._write, workspace, author))
        return took

    def _storm(self, workspace: str) -> float:
        """Check out another branch: hundreds of writes at once."""
        batches = self._random.randint(3, 12)
        for second in range(batches):
            count = self._random.randint(40, 100)
            self._fleet.after(1 + second, partial(self._write, workspace, "key:git", count))
        return float(batches)

    def _write_for_ever(self, workspace: str) -> None:
        if not self._log.state(workspace).registered:
            return
        self._write(workspace, "key:sync")
        self._fleet.after(self._random.uniform(2, 6), partial(self._write_for_ever, workspace))

    def _perhaps(self, workspace: str, took: float) -> None:
        """Sometimes do something rarer, during the burst or after it."""
        rarer: tuple[tuple[float, Callable[[str], None]], ...] = (
            (0.02, partial(self._ask, trigger=ev.Trigger.MANUAL, reason="it looks stuck")),
            (0.02, partial(self._ask, trigger=ev.Trigger.MUTATION, reason="a secret was rotated")),
            (0.08, self._probe),
            (0.01, self._hold),
            (0.05, self._cancel),
            (0.01, self._exit),
            (0.001, self._remove),
            (0.002, self._move),
        )
        for often, act in rarer:
            if self._random.random() < often:
                self._fleet.after(self._random.uniform(0, took + 120), partial(self._if_there, workspace, act))

    def _if_there(self, workspace: str, act: Callable[[str], None]) -> None:
        before = self._log.state(workspace)
        if before.registered:
            act(workspace)
            self._fleet.count_ended(before)
            self._fleet.follow(workspace)

    def _write(self, workspace: str, author: str, count: int = 1) -> None:
        """Record writes in one transaction, as ``service.record`` does."""
        state = self._log.state(workspace)
        if not state.registered:
            return
        policy, opened, ruled = self._log.policy(workspace), False, False
        for _ in range(count):
            data = self._fact(state, policy, opened=opened)
            opened = opened or data.decision is ev.WriteDecision.OPENED_WINDOW
            ruled = ruled or data.max_wait_ms is not None
            self._log.append(workspace, [data], self._author(author))
        self._fleet.written(workspace, ruled=ruled)

    def _fact(self, state: WorkspaceState, policy: Policy, *, opened: bool) -> ev.FileWritten:
        folder = self._random.choice(_FOLDERS)
        path = f"{folder}/part_{min(99, int(self._random.expovariate(0.15))):02d}.{_ENDINGS.get(folder, 'py')}"
        rule = policy.rule_for(path)
        action = rule.action if rule else Action.RESTART
        known = self._random.random() < 0.3
        return ev.FileWritten(
            path=path,
            op=ev.Operation.MODIFIED if self._random.random() < 0.95 else ev.Operation.CREATED,
            action=action,
            digest=f"sha256:{self._random.getrandbits(256):064x}" if known else None,
            size=self._random.randrange(40_000) if known else None,
            decision=_decision(state, action, opened=opened),
            rule=" ".join(rule.match) if rule else None,
            quiet_ms=rule.quiet_ms if rule else None,
            max_wait_ms=rule.max_wait_ms if rule else None,
        )

    def _author(self, actor: str) -> Author:
        if self._random.random() >= 0.3:
            return Author(actor=actor)
        self._sources += 1
        occurred_at = self._log.now - timedelta(milliseconds=self._random.randrange(1, 900))
        return Author(actor=actor, source_id=f"save-{self._sources}", occurred_at=occurred_at)

    def _ask(self, workspace: str, trigger: ev.Trigger, reason: str) -> None:
        self._log.carry_out(workspace, cmd.RequestRestart(trigger=trigger, reason=reason), Author(actor="local:ann"))

    def _probe(self, workspace: str) -> None:
        command = cmd.ReportProbe(healthy=False, detail="GET /healthz: connection refused")
        self._log.carry_out(workspace, command, Author(actor="key:monitor"))

    def _hold(self, workspace: str) -> None:
        lasts = self._random.uniform(60, 900)
        until = self._log.now + timedelta(seconds=lasts) if self._random.random() < 0.5 else None
        self._log.carry_out(workspace, cmd.Hold(reason="demo at noon", until=until), Author(actor="local:ann"))
        if until is None:
            self._fleet.after(lasts, partial(self._if_there, workspace, self._release))

    def _release(self, workspace: str) -> None:
        command = cmd.Release(reason="the demo is over")
        self._log.carry_out(workspace, command, Author(actor="local:ann"))

    def _cancel(self, workspace: str) -> None:
        restart = self._log.state(workspace).restart
        if restart is not None and restart.cycle is None:
            command = cmd.Cancel(restart=restart.id, reason="not now")
            self._log.carry_out(workspace, command, Author(actor="local:ann"))

    def _exit(self, workspace: str) -> None:
        exited = ev.ProcessExited(exit_code=137, signal=9, respawn_after_ms=1_000)
        self._log.append(workspace, [exited])

    def _remove(self, workspace: str) -> None:
        """Remove, and half of the time register again later."""
        state = self._log.state(workspace)
        fleet = state.registration.fleet if state.registration else "web"
        self._log.carry_out(workspace, cmd.Remove(reason="the project is over"), Author(actor="key:provisioner"))
        if self._random.random() < 0.5:
            self._fleet.after(self._random.uniform(600, 3_600), partial(self._come, workspace, fleet, self._think))

    def _move(self, workspace: str) -> None:
        """Change the registration: another fleet. Not under a running cycle, whose place in its fleet is counted."""
        if self._log.state(workspace).restart is None:
            self._register(workspace, self._random.choice(_FLEETS))

    def _change_policy(self) -> None:
        quiet = self._random.choice(("10s", "15s", "20s"))
        self._log.change_policy(DEFAULT_SCOPE, parse_policy({"quiet": quiet, "rules": _RULES}), "local:admin")
        self._fleet.policy_changed()
        self._fleet.after(_POLICY_CHANGES_EVERY_S, self._change_policy)

    def _clock_steps_back(self) -> None:
        self._log.clock_stepped_back(by_ms=1_500)
        self._fleet.after(_CLOCK_STEPS_EVERY_S, self._clock_steps_back)


def _decision(before: WorkspaceState, action: Action, *, opened: bool) -> ev.WriteDecision:
    """Return what the writer is answered, as ``service.record`` says it."""
    if action is Action.RECORD:
        return ev.WriteDecision.RECORDED
    if before.hold is not None:
        return ev.WriteDecision.HELD
    waits = before.restart is not None and before.restart.cycle is None
    joined = waits or opened or before.window.is_open
    return ev.WriteDecision.FOLDED if joined else ev.WriteDecision.OPENED_WINDOW
