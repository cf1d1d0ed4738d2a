"""What a retry is told of the cycles of its restart before it: DESIGN section 6, ``order.earlier``."""

from __future__ import annotations

import structlog

from orchestrator.domain import events as ev
from orchestrator.errors import Unavailable
from orchestrator.ports.executor import EarlierCycle
from orchestrator.ports.store import CoreStore, EventFilter
from orchestrator.service.claim import Claim

_log = structlog.get_logger("orchestrator")


def earlier_cycles(store: CoreStore, claim: Claim) -> tuple[EarlierCycle, ...]:
    """Return the cycles of a claim's restart that were started before, oldest first; a first one costs no statement.

    Where the database is away there are none: an executor that knows of none acts again, which is never wrong.
    """
    started = claim.started
    if started.attempt == 1:
        return ()
    wanted = EventFilter(
        after=started.from_position - 1,
        workspace=claim.state.workspace,
        correlation_id=started.restart,
        types=(ev.CycleStarted.type_name(),),
    )
    try:
        with store.read() as reader:
            found = [event.data for event in reader.events(wanted)]
    except Unavailable as error:
        _log.warning("cycle.earlier_not_read", cycle=started.cycle, error=str(error))
        return ()
    return tuple(
        EarlierCycle(cycle=one.cycle, fence=one.fence, to_position=one.to_position)
        for one in found
        if isinstance(one, ev.CycleStarted) and one.fence < started.fence
    )
