"""Incremental: a saved state and the rest of the log give what the whole log gives."""

from __future__ import annotations

from io import BytesIO

import pytest

from orchestrator.audit.verify.ledger import Ledger, load, save
from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.report import Promise, Report
from orchestrator.audit.verify.run import Verification
from tests.audit.verify.logs import TICK_US, Log, broken, verify
from tests.audit.verify.random_days import RandomDay


def go_on(
    ledger: Ledger | None, lines: bytes, *, whole: bool = True, after: int = 0, tick_us: int | None = None
) -> tuple[Report, Ledger]:
    kept = None if ledger is None else load(save(ledger))
    verification = Verification(ledger=kept, after=after, tick_us=tick_us)
    verification.read(read_lines(BytesIO(lines)))
    verification.finish(whole=whole)
    return verification.report("part"), load(save(verification.ledger))


def test_a_log_in_parts_is_the_same_as_the_log_at_once() -> None:
    lines = RandomDay(3).play(150).export()
    each = lines.splitlines(keepends=True)
    ledger: Ledger | None = None
    for end in range(1, len(each), 5):
        report, ledger = go_on(ledger, b"".join(each[:end]), whole=False)
        assert report.violations == ()
    report, ledger = go_on(ledger, lines)
    whole, ledger_of_whole = go_on(None, lines)

    assert report.sums == whole.sums
    assert save(ledger) == save(ledger_of_whole)


def test_a_violation_is_found_by_the_part_it_is_in_and_told_once(log: Log) -> None:
    log.data("orphan", "CycleSucceeded")["fence"] = 1
    lines = log.encode()
    each = lines.splitlines(keepends=True)
    first, ledger = go_on(None, b"".join(each[:60]), whole=False)
    second, ledger = go_on(ledger, b"".join(each[:90]), whole=False)
    third, ledger = go_on(ledger, lines)

    assert [broken(report) for report in (first, second, third)] == [{}, {Promise.S3: [(85, 86)]}, {}]
    assert ledger.violations == {"S3": 1}


def test_from_a_position_only_later_violations_are_told(log: Log) -> None:
    log.data("plain", "CycleSucceeded")["fence"] = 9
    log.data("orphan", "CycleSucceeded")["fence"] = 1
    report, _ = go_on(None, log.encode(), after=50)

    assert broken(report) == {Promise.S3: [(85, 86)]}


def test_an_unreadable_line_is_told_wherever_the_reporting_begins(good_lines: bytes) -> None:
    assert broken(go_on(None, good_lines[:-9], after=99)[0]) == {Promise.LOG: [(98,)]}


def test_a_state_of_another_log_is_told(good_lines: bytes) -> None:
    each = good_lines.splitlines(keepends=True)
    _, ledger = go_on(None, b"".join(each[:60]), whole=False)
    other = RandomDay(1).play(150).export()

    [violation] = go_on(ledger, other)[0].violations
    assert violation.promise is Promise.LOG
    assert "not the log that the saved state is of" in violation.text
    [violation] = go_on(ledger, b"".join(each[:30]))[0].violations
    assert "not the log that the saved state is of" in violation.text


def test_nothing_new_is_good(good_lines: bytes) -> None:
    _, ledger = go_on(None, good_lines)

    report, _ = go_on(ledger, good_lines)
    assert report.good
    assert report.sums == verify(good_lines).sums
    assert go_on(None, good_lines, tick_us=TICK_US)[0].good


@pytest.mark.parametrize("saved", [b"", b"x" * 100, save(Ledger(format="other@1"))])
def test_what_is_no_saved_state_is_refused(saved: bytes) -> None:
    with pytest.raises(ValueError, match="saved"):
        load(saved)
