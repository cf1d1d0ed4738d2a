"""Every event has its line, which names things and lengths and gives nothing away."""

from __future__ import annotations

from datetime import timedelta

import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import capture_logs

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.event_types import EVENT_TYPES
from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.scopes import EVERYTHING, Role
from orchestrator.domain.state import Registration
from orchestrator.errors import NotFound, PermanentError, UnknownOutcome
from orchestrator.owner_key import new_key
from orchestrator.ports.executor import Order, Receipt
from orchestrator.service.absence import note_absences
from orchestrator.service.access_record import AccessRecord
from orchestrator.service.announce import _NAMES, announce
from orchestrator.service.append import Author
from orchestrator.service.change_policy import change_policy
from orchestrator.service.idempotency import RequestKey
from orchestrator.service.keys import KeyKeeper, WantedKey
from orchestrator.service.operate import Operator
from orchestrator.service.tick import look_at
from tests.history import History
from tests.service.world import IDS, Scripted, drainer, write

ME = Author(actor="me")
SECRET = "hunter2"
WEB = Registration(
    fleet="web", labels={"team": SECRET}, executor="simulated", target={"env": {"K": SECRET}}, policy=PolicyPatch()
)


def lines(logs: list[structlog.typing.EventDict], name: str) -> list[structlog.typing.EventDict]:
    return [line for line in logs if line["event"] == name]


def gone(order: Order) -> Receipt:
    raise PermanentError("there is nothing to restart")


def a_day(history: History) -> None:
    """Lead a workspace through everything that can happen to it."""
    store, operator = history.store, history.operator

    def act(order: Order) -> Receipt:
        if order.fence == 1:
            raise UnknownOutcome(f"command 'x' ended with exit code 1; its output:\n{SECRET}")
        if order.fence == 2:
            history.at(3_000)  # the lease passes and another goes on
            look_at(store, history.ids, ["ws"])
            drainer(store, Scripted(), worker="other:1").drain()
        return Receipt(output=SECRET)

    operator.register("ws", WEB, ME)
    operator.register("ws", replace(WEB, fleet="api"), ME)
    change_policy(store, history.ids, scope="default", patch=PolicyPatch(settle_ms=1), actor="me")
    history.write("a.py", "b.py")
    operator.change("ws", cmd.Hold(reason="deploy"), ME)
    history.write("c.py")
    operator.change("ws", cmd.Release(reason="done"), ME)
    history.at(30)
    history.tick()
    worker = drainer(store, Scripted(act=act))
    worker.drain()
    history.at(40)
    worker.drain()
    operator.report_exit("ws", ev.ProcessExited(exit_code=1, signal=None, respawn_after_ms=1000))
    operator.request_restart("ws", cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="please"), ME)
    operator.report_probe("ws", cmd.ReportProbe(healthy=False, detail="no answer"), ME)
    restart = history.queued()
    with store.read() as reader:
        record = reader.restart(restart)
    assert record is not None
    operator.cancel(record, "not now", ME)
    operator.request_restart("ws", cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="please"), ME)
    history.at(3_001)  # a start at the instant of the last one would wait
    history.queued()
    history.at(3_010)
    note_absences(store, history.ids, tick=timedelta(seconds=1))
    drainer(store, Scripted(act=gone)).drain()
    note_absences(store, history.ids, tick=timedelta(seconds=1))
    history.at(100)
    operator.change("ws", cmd.Remove(reason="gone"), ME)
    keeper = KeyKeeper(store, history.ids, new_key=new_key)
    keeper.create(WantedKey(name="ci", role=Role.WRITER), actor="me", within=EVERYTHING)
    keeper.revoke("ci", actor="me", reason="over")
    access = AccessRecord(store, history.ids)
    access.denied("key:ci", "revoked", "GET /v1/events", None, history.clock.now())
    access.read("key:ci", "GET /v1/events", history.clock.now())
    announce(access.flush())
    access.exported("key:ci", "export", {})


def test_every_event_has_its_line(history: History) -> None:
    with capture_logs() as logs:
        a_day(history)
    named = {line["event"] for line in logs}
    assert set(_NAMES.values()) - named == set()
    assert set(_NAMES) == set(EVENT_TYPES.values()) - {ev.FileWritten}
    assert {"write.opened_window", "write.held"} <= named


def test_nothing_is_given_away(history: History) -> None:
    with capture_logs() as logs:
        a_day(history)
    assert SECRET not in repr(logs)
    assert not any({"target", "labels", "output", "digest"} & line.keys() for line in logs)


def test_what_the_lines_say(history: History) -> None:
    with capture_logs() as logs:
        a_day(history)
    opened = lines(logs, "write.opened_window")[0]
    assert (opened["workspace"], opened["writes"], opened["path"]) == ("ws", 1, "a.py")
    folded = lines(logs, "write.folded")[0]
    assert (folded["writes"], folded["pending"], folded["restart"]) == (1, 2, None)
    queued = lines(logs, "restart.queued")[0]
    assert (queued["workspace"], queued["cause"], queued["writes"], queued["files"]) == ("ws", "quiet", 3, 3)
    assert queued["restart"].startswith("rst_")
    assert queued["window_ms"] == 15_000
    first, second, *_ = lines(logs, "cycle.started")
    assert (first["restart"], first["fence"], first["attempt"]) == (queued["restart"], 1, 1)
    assert second["since_previous_start_ms"] == 10_000
    failed = lines(logs, "cycle.failed")[0]
    assert failed["message"] == "command 'x' ended with exit code 1; its output:"
    assert failed["duration_ms"] == 0
    assert failed["log_level"] == "warning"
    assert lines(logs, "cycle.succeeded")[0]["writes"] == 3
    assert lines(logs, "restart.gave_up")[0]["attempts"] == 1
    assert lines(logs, "writes.waived")[0]["reason"] == "operator"
    assert lines(logs, "workspace.registered")[0]["workspace"] == "ws"


def test_a_batch_is_one_line_a_workspace(history: History) -> None:
    history.register("a")
    with capture_logs() as logs:
        write(history.store, "a", *(f"p{number}" for number in range(50)))
    [first, folded] = logs
    assert (first["event"], first["writes"]) == ("write.opened_window", 1)
    assert (folded["event"], folded["writes"], folded["pending"]) == ("write.folded", 49, 50)


def test_a_replay_is_not_announced_again(history: History) -> None:
    history.register()
    request = cmd.RequestRestart(trigger=ev.Trigger.MANUAL, reason="please")
    key = RequestKey(key="k", fingerprint="f")
    Operator(history.store, IDS).request_restart("ws", request, ME, key)
    with capture_logs() as logs:
        Operator(history.store, IDS).request_restart("ws", request, ME, key)
    assert logs == []


def test_nothing_is_announced_that_was_refused(history: History) -> None:
    with capture_logs() as logs, pytest.raises(NotFound):
        history.operator.change("nobody", cmd.Hold(reason="deploy"), ME)
    assert logs == []
