"""``orchestrator policy test``: which path rule decides about a path, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.commands.policy import Fleet, OfWorkspace, check_one, read_policy_file
from orchestrator.cli.reading.choose import chosen_source
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json, ReadUrl
from orchestrator.cli.terminal.output import emit_json, say
from orchestrator.domain.durations import format_duration
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.policy import Action, Policy, parse_policy, render_policy, said_by
from orchestrator.domain.rule_verdict import RuleSaid, RuleVerdict, rule_verdict
from orchestrator.errors import InvalidInput


def verdict_command(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The rules of this policy file; else those in force.")
    ] = None,
    *,
    path: Annotated[list[str], typer.Option("--path", help="As a write names it; may be repeated.")],
    fleet: Fleet = None,
    workspace: OfWorkspace = None,
    as_json: Json = False,
    url: ReadUrl = None,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Say which rule decides about a path, and why: of a file, or of the policy in force."""
    check_one(fleet, workspace)
    if file is not None:
        if (fleet, workspace, url, database_url, data) != (None, None, None, None, None):
            raise InvalidInput(
                "FILE needs nothing else: leave --fleet, --workspace, --url, --database-url and --data out"
            )
        policy, origin = Policy(**said_by(read_policy_file(file))), str(file)
    else:
        with chosen_source(url, database_url, data) as source:
            view = source.policy(fleet, workspace)
        policy, origin = Policy(**said_by(_stored(view["in_force"]))), view["from"].get("rules", "built in")
    verdicts = [rule_verdict(policy.rules, one) for one in path]
    if as_json:
        emit_json({"rules": len(policy.rules), "from": origin, "items": [_plain(one, policy) for one in verdicts]})
        return
    for verdict in verdicts:
        say("\n".join(_told(verdict, policy, origin)))


def _stored(in_force: dict[str, Any]) -> Any:
    """Return what is in force as a layer; what a newer server adds to it is not looked at."""
    return parse_policy({name: in_force[name] for name in ("quiet", "max_wait", "rules") if name in in_force})


def _plain(verdict: RuleVerdict, policy: Policy) -> dict[str, Any]:
    rule = verdict.rule
    numbers = Policy(quiet_ms=_quiet_ms(verdict, policy), max_wait_ms=_max_wait_ms(verdict, policy))
    rendered = render_policy(numbers)
    said = [{name: getattr(one, name) for name in one.__struct_fields__} for one in verdict.said]
    action = to_plain(rule.action if rule else Action.RESTART)
    judged = {} if action == Action.RECORD else {name: rendered[name] for name in ("quiet", "max_wait")}
    return {"path": verdict.path, "action": action, "rule": verdict.decided, **judged, "said": said}


def _told(verdict: RuleVerdict, policy: Policy, origin: str) -> Iterator[str]:
    rule, count = verdict.rule, len(policy.rules)
    action = rule.action if rule else Action.RESTART
    by = f"by rule {verdict.decided} of {count}" if rule else f"as none of {count} rules matches" if count else ""
    numbers = f"quiet {format_duration(_quiet_ms(verdict, policy))}"
    numbers += f", max_wait {format_duration(_max_wait_ms(verdict, policy))}"
    ends = "it is kept in the log and restarts nothing" if action is Action.RECORD else numbers
    yield f"{verdict.path}: {action.value}, {f'{by} ({origin})' if count else 'as there are no rules'}; {ends}"
    yield from (f"  rule {said.number}: {_said_text(said)}" for said in verdict.said)


def _said_text(said: RuleSaid) -> str:
    if said.pattern is None:
        return "no pattern of it matches"
    return f"{said.pattern} matches" if said.matches else f"{said.pattern} takes it out"


def _quiet_ms(verdict: RuleVerdict, policy: Policy) -> int:
    own = verdict.rule.quiet_ms if verdict.rule else None
    return policy.quiet_ms if own is None else own


def _max_wait_ms(verdict: RuleVerdict, policy: Policy) -> int:
    own = verdict.rule.max_wait_ms if verdict.rule else None
    return policy.max_wait_ms if own is None else own
