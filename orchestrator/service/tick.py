"""The coalescer's look: fold what is due, release holds, rescue passed leases, ring for what may start."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

import structlog

from orchestrator.domain.events import Recorded
from orchestrator.errors import BrokerUnavailable, TimedOut, Unavailable
from orchestrator.ports.store import CoreStore, Doorbell, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import DECIDES, Unit
from orchestrator.ports.workspaces import Outlook
from orchestrator.service.announce import announce
from orchestrator.service.claim import Claim
from orchestrator.service.fold import fold_if_due
from orchestrator.service.passed_over import Lost
from orchestrator.service.recompute import recompute, save_if_moved
from orchestrator.service.start_at_once import OwnSlots, StartAtOnce

_log = structlog.get_logger("orchestrator")

PAGE = 256
"""How many workspaces a look handles before it rings for the first of them."""

_MARKED_EVERY = timedelta(seconds=3)
"""How old the kept mark of a tick may be before a new one is written; `readyz` misses a beat after 10 s."""

_SLOW_IN_A_ROW = 3
"""So many windows that take too long, one after the other, are no windows' fault."""

_TOGETHER = 64
"""How many share a transaction: a commit is most of what one costs, and others wait for its locks."""

_PAGES_A_LOOK = 4
"""How many pages of open windows a look lets follow a changed policy, before it looks for what is due again."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What one look found: workspaces in which something was recorded, failed ones, and bells rung.

    ``next_at`` is the next instant at which there is something to do, as it was known at ``now``, which was ``since_s``
    before the look's end. ``waits``: a restart is ready, even if nothing may start it; ``away``: the log says that
    something is served by nobody.
    """

    changed: int
    failed: int
    rung: int
    next_at: datetime | None
    now: datetime
    since_s: float
    waits: bool
    away: bool


class Seen(Enum):
    """What a look at one workspace came to."""

    CHANGED = "changed"
    NOTHING = "nothing"
    BUSY = "busy"
    """Another transaction holds its row."""
    FAILED = "failed"
    SLOW = "slow"
    """The database ended what was asked of it: it took too long."""


def look(
    store: CoreStore,
    doorbell: Doorbell,
    ids: Ids,
    *,
    free_slots: Callable[[], int],
    running_most: int | None = None,
    lost: Lost | None = None,
    own_slots: OwnSlots | None = None,
) -> Looked:
    """Look once. Two looks at a time are harmless: a row that one holds, the other passes over at first.

    Costs one statement where nothing is due, and a second one every few seconds: the tick's mark. ``running_most``
    bounds the cycles of all workers together: nobody is rung for what has no room. ``lost`` is what earlier looks of
    this process lost their time on. ``own_slots`` start what is folded in the same commit, as far as they are free.
    Raises ``StorageUnavailable``; the next tick finds everything again.
    """
    lost = lost or Lost()
    bells = _Bells(doorbell, most=max(2, 2 * free_slots()), running_most=running_most)
    seen: dict[str, Seen] = {}
    at_once = StartAtOnce(own_slots)
    more = True
    while True:
        resting = lost.slow.resting()
        outlook, looked_s = _look_out(store, bells, seen, resting), time.monotonic()
        at_once.is_behind = at_once.is_behind or bool(outlook.ready)
        found = [name for name in outlook.due if name not in seen and name not in resting][:PAGE]
        if not (found and more):
            break
        more = len(found) == PAGE
        for start in range(0, len(found), _TOGETHER):
            seen |= _look_at_some(store, ids, found[start : start + _TOGETHER], lost, at_once)
        if not more and outlook.next_at is not None and _all_started(found, seen, at_once):
            found = []
            break
    if _wait_for_busy(store, ids, seen, lost):
        outlook, looked_s = _look_out(store, bells, seen, resting), time.monotonic()
    if outlook.last_tick_at is None or outlook.now - outlook.last_tick_at >= _MARKED_EVERY:
        store.ticked()
    results = list(seen.values())
    is_behind = outlook.recomputes and _follow_policies(store)
    return Looked(
        changed=results.count(Seen.CHANGED),
        failed=results.count(Seen.FAILED) + results.count(Seen.SLOW),
        rung=len(bells.rung),
        next_at=outlook.now if found or is_behind else outlook.next_at,
        now=outlook.now,
        since_s=time.monotonic() - looked_s,
        waits=outlook.waits,
        away=outlook.away,
    )


def _all_started(found: Sequence[str], seen: Mapping[str, Seen], at_once: StartAtOnce) -> bool:
    """Return whether all that was due is folded and started: there is nobody to ring for, and what comes next is known.

    A window that a write has moved meanwhile is due at an instant that only another statement tells.
    """
    return not at_once.is_behind and all(seen[name] is Seen.CHANGED for name in found)


def _look_out(store: CoreStore, bells: _Bells, seen: Mapping[str, Seen], resting: Collection[str]) -> Outlook:
    """Read what there is to do, beyond what was seen and is due still, and ring for what may start."""
    passed = {name for name, result in seen.items() if result is not Seen.CHANGED} | set(resting)
    with store.read() as reader:
        outlook = reader.outlook(PAGE + len(passed), bells.most, running_most=bells.running_most)
    bells.ring(outlook.ready)
    return outlook


def _follow_policies(store: CoreStore) -> bool:
    """Go on with what changes of policies left; return whether there is more that can be done at once."""
    try:
        return recompute(store, pages=_PAGES_A_LOOK)
    except TimedOut as error:
        _log.warning("recompute.left", error=str(error))
        return False


def look_at(
    store: CoreStore,
    ids: Ids,
    workspaces: Sequence[str],
    *,
    skip_locked: bool = True,
    at_once: StartAtOnce | None = None,
) -> dict[str, Seen]:
    """Look at some workspaces in one transaction; return what each look came to.

    Without ``skip_locked`` rows that another transaction holds are waited for. What is folded is started ``at_once``
    as far as may be. Raises ``StorageUnavailable``; what may have been started then is rescued.
    """
    at_once = at_once or StartAtOnce(None)
    reserved = at_once.reserve(len(workspaces))
    claims: list[Claim] = []

    def step(tx: Transaction) -> _Held:
        return _look_at_held(tx, ids, workspaces, at_once, reserved)

    unit = Unit(
        name="look",
        workspaces=tuple(workspaces),
        step=step,
        asked=DECIDES,
        passes_over=skip_locked,
        hurried=True,
        weight=len(workspaces) + reserved,
    )
    try:
        held = store.commit(unit)
        claims = held.claims
    finally:
        at_once.go_on(claims, reserved=reserved)
    at_once.is_behind = at_once.is_behind or len(claims) < list(held.seen.values()).count(Seen.CHANGED)
    announce(held.recorded)
    return held.seen


@dataclass
class _Held:
    """What a look at some workspaces in one transaction came to."""

    seen: dict[str, Seen] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)


def _look_at_held(tx: Transaction, ids: Ids, workspaces: Sequence[str], at_once: StartAtOnce, reserved: int) -> _Held:
    held = _Held()
    policies, leases = tx.policies(), tx.leases(workspaces)
    for workspace in workspaces:
        stored = tx.workspace(workspace)
        if stored is None:
            held.seen[workspace] = Seen.BUSY
            continue
        _, folded = fold_if_due(tx, stored.state, ids, policies, lease=leases.get(workspace))
        held.recorded += folded
        held.seen[workspace] = Seen.CHANGED if folded else Seen.NOTHING
        if not folded:  # due by a policy of before, say: left as it is, every look would come to it again
            save_if_moved(tx, stored, policies)
        elif len(held.claims) < reserved:
            claim, started = at_once.start_held(tx, workspace)
            held.claims += [claim] if claim is not None else []
            held.recorded += started
    return held


def _look_at_some(
    store: CoreStore, ids: Ids, workspaces: Sequence[str], lost: Lost, at_once: StartAtOnce
) -> dict[str, Seen]:
    """Look at some together; if that fails, at each alone, so that one defect or slow window stops nobody else.

    Alone nothing is started at once: what could not be started would never be folded either.

    A database that is away is not tried again. One that lets ``_SLOW_IN_A_ROW`` of them wait is in trouble itself.
    """
    try:
        return look_at(store, ids, workspaces, at_once=at_once)
    except TimedOut as error:
        _log.warning("tick.split", workspaces=len(workspaces), error=str(error))
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 (whose it is is found and logged one by one)
        _log.warning("tick.split", workspaces=len(workspaces), error=repr(error))
    seen: dict[str, Seen] = {}
    in_a_row = 0
    for name in workspaces:
        started_s = time.monotonic()
        try:
            seen[name], in_a_row = _look_at_one(store, ids, name, skip_locked=True), 0
        except TimedOut as error:
            lost.slow.add(name, took_s=time.monotonic() - started_s)
            _log.warning("tick.passed_over", workspace=name, error=str(error))
            seen[name], in_a_row = Seen.SLOW, in_a_row + 1
            if in_a_row == _SLOW_IN_A_ROW:
                raise
    return seen


def _look_at_one(store: CoreStore, ids: Ids, workspace: str, *, skip_locked: bool) -> Seen:
    try:
        return look_at(store, ids, [workspace], skip_locked=skip_locked)[workspace]
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 (one workspace's defect must not stop every other one)
        _log.exception("tick.failed", workspace=workspace)
        return Seen.FAILED


def _wait_for_busy(store: CoreStore, ids: Ids, seen: dict[str, Seen], lost: Lost) -> bool:
    """Look again at the rows that others held, this time waiting for each; return whether anything changed.

    Measured: eight writers of one workspace keep its row locked without a gap, so that passing it over again and
    again folded its window 2 s late. A row that is held for long must not keep the tick from its end.
    """
    changed, resting = False, lost.held.resting()
    for workspace in [name for name, result in seen.items() if result is Seen.BUSY and name not in resting]:
        started_s = time.monotonic()
        try:
            seen[workspace] = _look_at_one(store, ids, workspace, skip_locked=False)
        except Unavailable as error:
            lost.held.add(workspace, took_s=time.monotonic() - started_s)
            _log.warning("tick.passed_over", workspace=workspace, error=str(error))
            break
        changed = changed or seen[workspace] is Seen.CHANGED
    return changed


@dataclass
class _Bells:
    """Rings for what may start, the longest ready first, each workspace once in a look and ``most`` in all.

    Bells expire before the next look's are sent.
    """

    doorbell: Doorbell
    most: int
    running_most: int | None = None
    rung: set[str] = field(default_factory=set)
    away: bool = False

    def ring(self, ready: Sequence[str]) -> None:
        """Ring for those of ``ready`` that were not rung for, as far as may be."""
        fresh = [name for name in ready if name not in self.rung]
        for workspace in [] if self.away else fresh[: self.most - len(self.rung)]:
            try:
                self.doorbell.ring(workspace)
            except BrokerUnavailable as error:
                self.away = True
                _log.warning("bell.not_rung", workspace=workspace, waiting=len(ready), error=str(error))
                return
            self.rung.add(workspace)
