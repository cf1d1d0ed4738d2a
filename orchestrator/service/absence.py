"""Saying in the log what nobody serves, so that a wait is explained: by the tick, from who was seen lately."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.domain.events import ExecutorAway, ExecutorBack, NewEvent, Recorded
from orchestrator.domain.serving import PATIENCE_TICKS, Patience, absences
from orchestrator.ports.store import CoreStore, Ids
from orchestrator.ports.transaction import Transaction
from orchestrator.ports.unit import Unit
from orchestrator.service.announce import announce
from orchestrator.service.append import SYSTEM, append_all

_GONE_AFTER = timedelta(seconds=3)
"""A worker that did not note itself for so long is gone, however short the tick is: one that is busy is not."""


def note_absences(store: CoreStore, ids: Ids, *, tick: timedelta) -> bool:
    """Record what has become unserved, and what is served again; return whether anything is away.

    Two ticks at once are harmless: what is away is read again under the append lock, and nothing is said twice. Who
    stood still for a tick in between says nothing: whoever it saw away may be back, and the next tick reads anew.
    Raises ``StorageUnavailable``.
    """
    patience = Patience(waits=PATIENCE_TICKS * tick, gone_after=max(PATIENCE_TICKS * tick, _GONE_AFTER))
    with store.read() as reader:
        waiting, away = reader.waiting_for(), reader.away()
        workers = reader.workers() if waiting or away else []
        read_at = reader.clock()
        if not absences(waiting, workers, away, read_at, patience):
            return bool(away)

    def step(tx: Transaction) -> tuple[list[Recorded], int]:
        away = tx.away()
        found = absences(waiting, workers, away, read_at, patience) if tx.now - read_at <= tick else []
        events = [NewEvent(id=ids.new("evt"), workspace=None, version=None, data=data, actor=SYSTEM) for data in found]
        recorded = append_all(tx, events, ids) if events else []
        came = [
            ((event.data.executor, event.data.pool), event.data.since, event.position)
            for event in recorded
            if isinstance(event.data, ExecutorAway)
        ]
        went = [(one.executor, one.pool) for one in found if isinstance(one, ExecutorBack)]
        tx.save_away(came, went)
        return recorded, len(away) + len(came) - len(went)

    recorded, left = store.commit(Unit(name="absences", workspaces=(), step=step))
    announce(recorded)
    return left > 0
