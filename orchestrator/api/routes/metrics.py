"""``/metrics`` in Prometheus' text format, computed from the database at each scrape. No workspace label."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Annotated

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from orchestrator.api.log_sums import DURATION_BOUNDS_MS, LATENESS_BOUNDS_MS, LogState, log_state
from orchestrator.api.services import Wired, needs
from orchestrator.audit.periodic_run import VERIFIED_PERIODICALLY
from orchestrator.domain.events import Cause, Suppression, WriteDecision
from orchestrator.domain.scopes import Scope
from orchestrator.domain.state import Phase
from orchestrator.errors import Unavailable, Unreadable
from orchestrator.ports.sealing import COUNTED_MOST, SealState
from orchestrator.ports.store import EventStore
from orchestrator.service.access import Permit

PREFIX = "orchestrator_"
OUTCOMES = ("succeeded", "failed", "abandoned", "late_rejected")

_log = structlog.get_logger("orchestrator")
Scraping = Annotated[Permit, needs(Scope.METRICS)]
_one_scrape = threading.Lock()

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Numbers for Prometheus",
    description="Answers also while the database is away: then `orchestrator_up` is 0 and nothing else is claimed.",
    response_class=Response,
    responses={200: {"description": "The numbers", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(desk: Wired, permit: Scraping) -> Response:
    """Return all metrics."""
    with _one_scrape:
        registry = CollectorRegistry()
        registry.register(Scrape(_state(desk.counted(permit)), is_sealed=not desk.settings.sealing_declined))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _state(store: EventStore) -> LogState | None:
    try:
        return log_state(store)
    except (Unavailable, Unreadable) as error:
        _log.warning("metrics.without_database", error=str(error))
        return None


class Scrape(Collector):
    """The metrics of one state of the log; None: the database is away. ``is_sealed``: nobody declined that."""

    def __init__(self, state: LogState | None, *, is_sealed: bool = True) -> None:
        self._state, self._is_sealed = state, is_sealed

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield _gauge("up", "1 if the database answered this scrape", 0 if self._state is None else 1)
        build = GaugeMetricFamily(f"{PREFIX}build_info", "Always 1; the label says which version", labels=["version"])
        build.add_metric([version("restart-orchestrator")], 1)
        yield build
        if self._state is not None:
            yield from _counters(self._state.sums)
            yield from _histograms(self._state.sums)
            yield from _gauges(self._state)
            yield from _seals(self._state.seals, self._state.backlog.now if self._is_sealed else None)
            yield from _verified(self._state)


def _counters(sums: Mapping[str, int]) -> Iterator[Metric]:
    decisions = [item.value for item in WriteDecision]
    yield _labelled(sums, "writes", "decision", "Accepted writes by what became of them at once", decisions)
    yield _labelled(sums, "restarts", "cause", "Restarts queued, by cause", [item.value for item in Cause])
    yield _labelled(sums, "cycles", "outcome", "Ends of cycles by outcome; rejected late results too", OUTCOMES)
    reasons = [item.value for item in Suppression]
    yield _labelled(sums, "suppressed", "reason", "Probes that asked for nothing", reasons, name="probes_suppressed")
    texts = {
        "folds": ("folds", "Times that waiting writes and requests were taken into a restart, or into a cycle's start"),
        "waived": ("writes_waived", "Writes that ended without a restart, by an operator or a removal"),
        "covered": ("writes_covered", "Writes covered by a cycle that started after them and succeeded"),
    }
    for key, (name, text) in texts.items():
        yield CounterMetricFamily(PREFIX + name, text, value=sums.get(key, 0))


def _labelled(
    sums: Mapping[str, int], key: str, label: str, text: str, values: Iterable[str], *, name: str | None = None
) -> Metric:
    family = CounterMetricFamily(PREFIX + (name or key), text, labels=[label])
    for value in values:
        family.add_metric([value], sums.get(f"{key}.{value}", 0))
    return family


def _histograms(sums: Mapping[str, int]) -> Iterator[Metric]:
    yield _histogram(
        sums, "duration", DURATION_BOUNDS_MS, "cycle_duration_seconds", "From a cycle's start to its result"
    )
    text = "From when a restart was due to the start of its first cycle"
    yield _histogram(sums, "lateness", LATENESS_BOUNDS_MS, "start_lateness_seconds", text)


def _histogram(sums: Mapping[str, int], key: str, bounds: tuple[int, ...], name: str, text: str) -> Metric:
    buckets, count = [], 0
    for bound in (*map(str, bounds), "inf"):
        count += sums.get(f"{key}.le.{bound}", 0)
        buckets.append(("+Inf" if bound == "inf" else str(int(bound) / 1000), count))
    return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=sums.get(f"{key}.sum_ms", 0) / 1000)


def _gauges(state: LogState) -> Iterator[Metric]:
    backlog = state.backlog
    yield _gauge("pending_writes", "Writes neither covered nor waived", backlog.pending_writes)
    yield _gauge("ledger_imbalance", "Accepted - covered - waived - recorded - pending; always 0", state.imbalance)
    overdue = 0.0
    if backlog.oldest_due_at is not None:
        overdue = max(0.0, (backlog.now - backlog.oldest_due_at) / timedelta(seconds=1))
    yield _gauge("oldest_due_age_seconds", "How long the oldest due workspace has waited; 0 if none is due", overdue)
    phases = GaugeMetricFamily(f"{PREFIX}workspaces", "Workspaces by state", labels=["state"])
    for phase in Phase:
        phases.add_metric([phase.value], backlog.phases.get(phase, 0))
    yield phases
    text = "Workspaces whose restart waits for an executor and pool that no worker serves"
    yield _gauge("unclaimable_workspaces", text, state.unclaimable)
    text = "Workspaces whose program died three times in a row within settle of its start"
    yield _gauge("crash_looping_workspaces", text, state.crash_looping)
    if state.last_tick_at is not None:
        age = max(0.0, (backlog.now - state.last_tick_at) / timedelta(seconds=1))
        yield _gauge("tick_age_seconds", "Since the last tick ended", age)


def _seals(state: SealState, now: datetime | None) -> Iterator[Metric]:
    """``now`` is None where sealing was declined: then nothing is late."""
    age = 0.0
    if now is not None and state.unsealed_since is not None:
        age = max(0.0, (now - state.unsealed_since) / timedelta(seconds=1))
    text = "Since the oldest event was recorded that no checkpoint proves; 0 if there is none, or sealing was declined"
    yield _gauge("oldest_unsealed_age_seconds", text, age)
    text = f"Events that no checkpoint proves yet, counted up to {COUNTED_MOST}"
    yield _gauge("unsealed_events", text, state.unsealed)
    yield _gauge("checkpoints_unexported", "Checkpoints that some place they go to has not taken", state.unexported)
    text = "Seals and exports that failed: a key, a folder, a webhook, or a tree that was altered"
    yield CounterMetricFamily(f"{PREFIX}seal_failures", text, value=state.failures)
    if state.newest is not None:
        text = "When the newest checkpoint was made"
        yield _gauge("last_checkpoint_timestamp_seconds", text, state.newest.sealed_at.timestamp())


def _verified(state: LogState) -> Iterator[Metric]:
    """What the periodic verification found.

    The counters are there from the beginning, as `increase` does not see what a series begins with. A missing age says
    that it has not run yet.
    """
    verified = state.verified
    violations = {} if verified is None else verified.violations
    text = "Promises that the log shows broken, by promise; see orchestrator audit verify"
    family = CounterMetricFamily(f"{PREFIX}violations", text, labels=["promise"])
    for promise in VERIFIED_PERIODICALLY:
        family.add_metric([promise.value], violations.get(promise.value, 0))
    yield family
    if verified is None:
        return
    age = max(0.0, (state.backlog.now - verified.verified_at) / timedelta(seconds=1))
    yield _gauge("verification_age_seconds", "Since the log was last verified", age)
    yield _gauge("verified_position", "Position up to which the log was verified", verified.position)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)
