"""What the service needs around it in these tests: a doorbell that lists its rings, executors, a drainer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.domain.events import EventData, Recorded
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import DEFAULT_POOL
from orchestrator.errors import BrokerUnavailable
from orchestrator.ports.executor import Executor, Order, Readiness, Receipt
from orchestrator.ports.store import CoreStore, EventFilter, Ids
from orchestrator.service.drain import Drainer
from orchestrator.service.record import AcceptedWrite, AutoRegistration, Write, record_writes
from orchestrator.time_ordered_ids import TimeOrderedIds

IDS = TimeOrderedIds()
SIMULATED = AutoRegistration(executor="simulated", target={"delay": "0s"})
DataT = TypeVar("DataT", bound=EventData)
ResultT = TypeVar("ResultT")


@dataclass
class Bell:
    """A doorbell that keeps a list; the broker behind it may be away."""

    rung: list[str] = field(default_factory=list)
    away: bool = False

    def ring(self, workspace: str) -> None:
        if self.away:
            raise BrokerUnavailable("the broker is away")
        self.rung.append(workspace)


def _done(order: Order) -> Receipt:
    return Receipt(output="done")


def _ready(order: Order) -> Readiness:
    return Readiness.READY


@dataclass
class Scripted:
    """An executor that does what the test says, and keeps the orders it was given."""

    act: Callable[[Order], Receipt] = _done
    look: Callable[[Order], Readiness] = _ready
    generation: Callable[[], str | None] = lambda: None
    name: str = "simulated"
    fenced: bool = False
    orders: list[Order] = field(default_factory=list)

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        return dict(target)

    def inspect(self, order: Order) -> str | None:
        return self.generation()

    def restart(self, order: Order) -> Receipt:
        self.orders.append(order)
        return self.act(order)

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        return self.look(order)


def drainer(
    store: CoreStore,
    executor: Executor | None,
    *,
    slots: int = 1,
    running_most: int | None = None,
    ids: Ids = IDS,
    worker: str = "host:1",
    pools: Collection[str] = (DEFAULT_POOL,),
) -> Drainer:
    """Return a worker's side; None: a worker without the executor ``simulated``."""
    return Drainer(
        store=store,
        executors={} if executor is None else {"simulated": executor},
        ids=ids,
        worker=worker,
        slots=slots,
        jitter=lambda: 0.0,
        running_most=running_most,
        serving=Serving(executors=frozenset(() if executor is None else ("simulated",)), pools=frozenset(pools)),
    )


def events(store: CoreStore, kind: type[DataT], workspace: str | None = None) -> list[DataT]:
    """Return the data of all events of a type, in order."""
    return [event.data for event in recorded(store, kind, workspace) if isinstance(event.data, kind)]


def recorded(store: CoreStore, kind: type[EventData] | None = None, workspace: str | None = None) -> list[Recorded]:
    """Return the events of a type, or all, in order."""
    types = () if kind is None else (kind.type_name(),)
    with store.read() as reader:
        return reader.events(EventFilter(types=types, workspace=workspace, limit=100_000))


def write(store: CoreStore, workspace: str, *paths: str, auto: AutoRegistration = SIMULATED) -> list[AcceptedWrite]:
    """Record writes in one batch; all must be good."""
    writes = [Write(workspace=workspace, path=path) for path in paths]
    batch, _ = record_writes(store, writes, actor="me", ids=IDS, auto=auto)
    assert not batch.refused
    return [batch.accepted[index] for index in range(len(paths))]


def at_once(calls: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """Make all calls at the same moment, each in a thread, and return their results in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], ResultT]) -> ResultT:
        barrier.wait(timeout=10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
