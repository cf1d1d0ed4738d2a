"""What the log says after a run under load: every promise kept, every acknowledged write there, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.audit.verify.lines import Line, parse_line
from orchestrator.audit.verify.report import Sums
from orchestrator.audit.verify.run import Verification
from orchestrator.domain.canonical_line import canonical_line
from orchestrator.ports.store import EventFilter
from tests.load.patient_writers import PatientWriters
from tests.system.deployment import TICK_S, Deployment


def check_promises(deployment: Deployment, *, timely: bool = True) -> Sums:
    """Let the independent verifier read the log; return what it counted. Not ``timely``: something was broken."""
    verification = Verification(tick_us=int(TICK_S * 1_000_000) if timely else None, slots=4)
    verification.read(_lines(deployment))
    verification.finish()
    report = verification.report("the log")
    assert report.violations == ()
    return report.sums


def check_stored_once(deployment: Deployment, writers: PatientWriters) -> None:
    """What they were told is what is stored: none missing, none twice, each under the id that its writer was given."""
    stored = Counter[tuple[str, str]]()
    for _, event in _lines(deployment):
        if event.source == writers.source and event.type == "FileWritten":
            stored[event.source_id or "", event.id] += 1
    told = Counter((name, answer["id"]) for name, answer in writers.acknowledged.items())
    assert stored == told
    assert writers.failed == []


def _lines(deployment: Deployment) -> Iterator[Line]:
    after = 0
    with deployment.store.read() as reader:
        while page := reader.stored_events(EventFilter(after=after, limit=5_000)):
            for event in page:
                line = canonical_line(event)
                yield line, parse_line(line, f"position {event.position}")
            after = page[-1].position
