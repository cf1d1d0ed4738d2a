"""S8: what was sealed and is no longer there as it was. Any change of any byte, any line less, more or elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint
from orchestrator.audit.verify.report import Promise, Report
from orchestrator.audit.verify.sealed_roots import SealCheck
from tests.audit.sealed import KEY, Sealed
from tests.audit.verify.logs import Log, verify

S8 = Promise.S8


@pytest.fixture
def sealed(good_lines: bytes) -> Sealed:
    return Sealed(good_lines.decode().splitlines())


def checkpoint(sealed: Sealed, size: int) -> Checkpoint:
    return open_checkpoint(sealed.note(size), [KEY.public])


def s8(lines: bytes, *checkpoints: Checkpoint) -> tuple[Report, list[tuple[int, ...]]]:
    report = verify(lines, seal=SealCheck(checkpoints))
    return report, [violation.positions for violation in report.violations if violation.promise is S8]


def test_a_sealed_log_is_good_and_says_how_far_it_is_sealed(good_lines: bytes, sealed: Sealed) -> None:
    report, found = s8(good_lines, checkpoint(sealed, 90), checkpoint(sealed, 40))
    [verdict] = [verdict for verdict in report.promises if verdict.promise is S8]

    assert (report.good, found) == (True, [])
    assert (verdict.verdict, verdict.reason) == ("good", "up to position 90, which is how far it is sealed")


def edited(log: Log) -> None:
    log.data("held", "FileWritten")["path"] = "b"


def one_deleted(log: Log) -> None:
    log.drop("probed", "ProbeSuppressed")


def a_workspace_deleted(log: Log) -> None:
    log.events = [event for event in log.events if event["workspace"] != "shadow"]


def two_swapped_and_renumbered(log: Log) -> None:
    first, second = log.of("plain", "FileWritten", 1), log.of("plain", "FileWritten", 2)
    first["data"], second["data"] = second["data"], first["data"]


def one_put_in(log: Log) -> None:
    log.put(
        log.of("ruled", "FileWritten", 1), "ProcessExited", version=False, exit_code=1, signal=None, respawn_after_ms=1
    )


@pytest.mark.parametrize("attack", [edited, one_deleted, a_workspace_deleted, two_swapped_and_renumbered, one_put_in])
def test_no_attack_on_what_is_sealed_passes(attack: Callable[[Log], None], log: Log, sealed: Sealed) -> None:
    attack(log)
    report, found = s8(log.encode(), checkpoint(sealed, 95))

    assert not report.good
    assert len(found) == 1


def test_more_checkpoints_say_closer_where_it_was(log: Log, sealed: Sealed) -> None:
    edited(log)
    _, found = s8(log.encode(), *(checkpoint(sealed, size) for size in (20, 30, 40, 50, 95)))

    assert found == [(31, 40)]


def test_a_tail_that_is_cut_off(good_lines: bytes, sealed: Sealed) -> None:
    lines = b"".join(good_lines.splitlines(keepends=True)[:80])
    _, found = s8(lines, checkpoint(sealed, 95))

    assert found == [(80,)]


def test_the_unsealed_tail_proves_nothing(log: Log, sealed: Sealed) -> None:
    """What comes after the newest checkpoint can be changed unseen, if it keeps the other promises (docs say so)."""
    log.data("last", "FileWritten", 1)["path"] = "other"
    report, found = s8(log.encode(), checkpoint(sealed, 98))

    assert (report.good, found) == (True, [])


def test_a_space_is_a_change(good_lines: bytes, sealed: Sealed) -> None:
    _, found = s8(good_lines.replace(b'{"position":50,', b'{"position": 50,'), checkpoint(sealed, 95))

    assert found == [(1, 95)]
