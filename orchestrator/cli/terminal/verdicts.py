"""How the answers of ``audit verify`` are shown."""

from __future__ import annotations

from orchestrator.audit.verify.evidence import NOT_SHOWN
from orchestrator.audit.verify.evidence import Verdict as BundleVerdict
from orchestrator.audit.verify.report import Report, Verdict, Violation
from orchestrator.cli.terminal.output import emit_json, say, show, table
from orchestrator.domain.explain import counted


def tell(report: Report) -> None:
    """Show a report: the promises, the violations, the sums."""
    sums = report.sums
    where = f"positions {report.first_position} to {report.last_position}" if sums.events else "no position"
    say(f"{report.source}: {counted(sums.events, 'event')} of {counted(sums.workspaces, 'workspace')}, {where}")
    show(table(("PROMISE", "VERDICT", "WHAT IT SAYS"), (_cells(verdict) for verdict in report.promises)))
    for violation in report.violations:
        say(_sentence(violation))
    if report.violations_left_out:
        say(f"... and {report.violations_left_out} more")
    if report.explained:
        say(f"{report.explained} starts came later than L1's bound, each with a reason that the log shows")
    if report.passed_over:
        types = ", ".join(f"{count} {name}" for name, count in report.passed_over.items())
        say(f"passed over, of types that a newer version added: {types}")
    ledger = f"{sums.covered} covered + {sums.waived} waived + {sums.recorded} recorded + {sums.pending} pending"
    say(f"writes: {sums.accepted} accepted = {ledger}" + (f", off by {sums.imbalance}" if sums.imbalance else ""))


def _cells(verdict: Verdict) -> tuple[str, str, str]:
    word = f"VIOLATED {verdict.violations}" if verdict.violations else verdict.verdict
    said = verdict.meaning if verdict.reason is None else f"{verdict.meaning} ({verdict.reason})"
    return verdict.promise.value, word, said


def _sentence(violation: Violation) -> str:
    where = f" at {', '.join(map(str, violation.positions))}" if violation.positions else ""
    whose = f" {violation.workspace}" if violation.workspace else ""
    return f"{violation.promise.value}{whose}{where}: {violation.text}"


def tell_bundle(verdict: BundleVerdict, name: str, *, as_json: bool) -> None:
    """Show what an evidence bundle proves."""
    checkpoint = verdict.checkpoint
    if as_json:
        emit_json(
            {
                "good": not verdict.findings,
                "source": name,
                "restart": verdict.restart,
                "proven": verdict.proven,
                "checkpoint_size": checkpoint.size if checkpoint else None,
                "findings": [
                    {"fault": found.fault.value, "position": found.position, "text": found.message}
                    for found in verdict.findings
                ],
                "not_shown": list(NOT_SHOWN),
            }
        )
        return
    sealed = f"the sealed tree of {checkpoint.size} events" if checkpoint else "no tree: its checkpoint is refused"
    say(f"{name}: evidence of {verdict.restart or 'nothing'}; {verdict.proven} events are proven to be in {sealed}")
    for found in verdict.findings:
        where = f" at {found.position}" if found.position else ""
        say(f"VIOLATED {found.fault.value}{where}: {found.message}")
    if not verdict.findings:
        say("good: nothing in it was changed or left out, but for what no bundle can show:")
        for sentence in NOT_SHOWN:
            say(f"  {sentence}")
