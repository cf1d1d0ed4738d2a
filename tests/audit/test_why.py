"""Why did this restart happen: the sentence for every cause and state, and the facts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.events import Cause, ErrorKind, Trigger
from orchestrator.errors import NotFound
from orchestrator.history import restart_span
from orchestrator.history.restart_story import RestartStory
from orchestrator.history.views import story_view
from orchestrator.history.why import why
from tests.history import START, AuditedHistory

BURST = [f"src/f{number}.py" for number in range(9)]


def story(history: AuditedHistory, restart: str) -> RestartStory:
    with history.store.read() as reader:
        return why(reader, restart)


def test_incident_burst_is_explained_with_its_late_writes(history: AuditedHistory) -> None:
    history.register()
    for number in range(17):
        history.at(45 * number / 16)
        history.write(BURST[number % 9], actor="local:ann" if number % 2 else "key:ci")
    history.at(60)
    restart = history.queued()
    history.start()
    history.at(70)
    history.write("a", "b", "c", "d")
    history.at(80)
    history.succeed()
    history.at(130)
    later = history.queued()

    assert story(history, restart).explanation == (
        "Restarted because 17 writes to 9 files by 2 actors between 14:02:01 and 14:02:46; "
        "the window closed by quiet after 60 s; "
        f"4 writes that arrived during the cycle belong to {later}, which is queued."
    )

    history.start()
    history.at(140)
    history.succeed()

    told = story(history, restart)
    assert told.explanation.endswith(f"; 4 writes that arrived during the cycle are covered by {later}.")
    assert (told.counts.writes, told.counts.files, told.counts.actors) == (17, 9, 2)
    assert told.top_paths[0].writes == 2
    assert len(told.top_paths) == 9
    assert [(count.actor, count.events) for count in told.actors] == [("key:ci", 9), ("local:ann", 8)]
    assert told.late_writes.writes == 4
    assert told.window.first_write_at == START
    assert [(wait.reason.value, wait.ms) for wait in told.waited] == [("quiet", 60_000)]


def test_one_write_is_told_in_the_singular_and_its_spacing_named(history: AuditedHistory) -> None:
    history.register()
    history.write("a")
    history.at(15)
    first = history.queued()
    history.start()
    history.at(20)
    history.succeed()
    history.at(46)
    history.write("a")
    history.at(75)
    second = history.queued()
    history.start()
    history.at(76)
    history.succeed()

    assert story(history, first).explanation == (
        "Restarted because 1 write to 1 file by 1 actor at 14:02:01; the window closed by quiet after 15 s."
    )
    told = story(history, second)
    assert told.explanation == (
        "Restarted because 1 write to 1 file by 1 actor at 14:02:47; the window closed by quiet after 15 s; "
        "held back 14 s by min_interval."
    )
    assert told.cycles[0].previous_started_at == START + timedelta(seconds=15)


def test_window_closed_by_max_wait(history: AuditedHistory) -> None:
    history.register(quiet="15s", max_wait="30s")
    for second in range(0, 30, 5):
        history.at(second)
        history.write("a")
    history.at(30)
    restart = history.queued()

    assert story(history, restart).explanation == (
        "Queued to restart because 6 writes to 1 file by 1 actor between 14:02:01 and 14:02:26; "
        "the window closed by max_wait after 30 s; it starts as soon as a worker is free."
    )


def test_window_closed_by_max_count(history: AuditedHistory) -> None:
    history.register(max_count=3)
    history.write("a", "b")
    history.at(4)
    history.write("c", "d")
    restart = history.queued()
    history.start()

    assert story(history, restart).explanation == (
        "Restarting because 4 writes to 4 files by 1 actor between 14:02:01 and 14:02:05; "
        "the window closed by max_count of 3 after 4 s; attempt 1 has been running since 14:02:05."
    )


def test_leading_edge(history: AuditedHistory) -> None:
    history.register(edge="leading")
    history.write("a")
    restart = history.queued()

    assert "the first write of an idle workspace is due at once (edge leading)" in story(history, restart).explanation


def test_manual_request_names_who_asked_and_why(history: AuditedHistory) -> None:
    history.register()
    history.request("the config\n  was stale.")
    history.write("a", "b")
    restart = history.queued()
    history.start()
    history.at(2)
    history.succeed()

    told = story(history, restart)
    assert told.cause is Cause.MANUAL
    assert told.explanation == (
        "Restarted because local:ann asked: the config was stale, "
        "together with 2 writes to 2 files by 1 actor at 14:02:01."
    )
    assert told.counts.requests == 1


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Trigger.MUTATION, "local:ann reported a change: r"),
        (Trigger.PROBE, "local:ann reported a failed health probe: r"),
    ],
)
def test_other_requests(history: AuditedHistory, trigger: Trigger, words: str) -> None:
    history.register()
    history.probe("r") if trigger is Trigger.PROBE else history.request("r", trigger)
    restart = history.queued()

    assert story(history, restart).explanation == (
        f"Queued to restart because {words}; it starts as soon as a worker is free."
    )


def test_retry_give_up_and_the_restart_after_it(history: AuditedHistory) -> None:
    history.register(max_attempts=2)
    history.write("a")
    history.at(15)
    restart = history.queued()
    history.start()
    history.at(16)
    history.fail("port 80 is\ntaken")

    assert story(history, restart).explanation == (
        "Retrying to restart because 1 write to 1 file by 1 actor at 14:02:01; the window closed by quiet after 15 s; "
        "attempt 1 failed (port 80 is taken); the next attempt is due at 14:02:19."
    )

    history.at(20)
    history.start()
    history.at(21)
    history.fail("no luck", kind=ErrorKind.PERMANENT)

    told = story(history, restart)
    assert told.explanation == (
        "Gave up restarting after 2 attempts; it was wanted because 1 write to 1 file by 1 actor at 14:02:01; "
        "the window closed by quiet after 15 s; the last attempt failed (no luck); "
        "its writes and requests stay pending and are tried again at 2026-11-23 14:07:22."
    )
    assert [cycle.outcome.value for cycle in told.cycles] == ["failed", "failed"]
    assert [cycle.error for cycle in told.cycles] == ["port 80 is\ntaken", "no luck"]

    history.at(321)
    after = history.queued()
    history.start()
    history.at(322)
    history.succeed()

    assert story(history, after).explanation == (
        f"Restarted because {restart} had given up and its next try was due at 14:07:22; "
        "it takes over 1 write to 1 file by 1 actor at 14:02:01."
    )


def test_success_after_a_retry_says_how_many_attempts(history: AuditedHistory) -> None:
    history.register()
    history.write("a")
    history.at(15)
    restart = history.queued()
    history.start()
    history.at(16)
    history.fail("x")
    history.at(30)
    history.write("b")
    history.start()
    history.at(31)
    history.succeed()

    told = story(history, restart)
    assert told.explanation == (
        "Restarted because 2 writes to 2 files by 1 actor between 14:02:01 and 14:02:31; "
        "the window closed by quiet after 15 s; it took 2 attempts."
    )
    assert [cycle.fence for cycle in told.cycles] == [1, 2]


def test_cancelled_restart_names_who_and_why(history: AuditedHistory) -> None:
    history.register()
    history.write("a")
    history.at(15)
    restart = history.queued()
    history.cancel(restart, "wrong branch.")

    assert story(history, restart).explanation == (
        "Cancelled before it could restart; it was wanted because 1 write to 1 file by 1 actor at 14:02:01; "
        "the window closed by quiet after 15 s; cancelled by local:ann: wrong branch; what it held was waived."
    )


def test_hold_is_told_while_it_lasts_and_afterwards(history: AuditedHistory) -> None:
    history.register()
    history.write("a")
    history.at(15)
    restart = history.queued()
    history.change(cmd.Hold(reason="deploy freeze"))
    history.at(20)

    told = story(history, restart)
    assert told.explanation.endswith("; the workspace is held now (deploy freeze).")
    assert told.held == "deploy freeze"

    history.at(135)
    history.change(cmd.Release(reason="over"))
    history.at(140)
    history.start()
    history.at(141)
    history.succeed()

    assert story(history, restart).explanation == (
        "Restarted because 1 write to 1 file by 1 actor at 14:02:01; the window closed by quiet after 15 s; "
        "held back 2m by a hold (deploy freeze); waited 5 s for a free worker."
    )


def test_hold_before_the_window_keeps_it_back_once(history: AuditedHistory) -> None:
    history.register()
    history.change(cmd.Hold(reason="freeze"))
    history.at(5)
    history.write("a")
    history.at(50)
    history.change(cmd.Release(reason="over"))
    restart = history.queued()
    history.start()

    waits = [(wait.reason.value, wait.ms) for wait in story(history, restart).waited]
    assert waits == [("quiet", 15_000), ("hold", 30_000)]


def test_shadow_and_reload_say_so(history: AuditedHistory) -> None:
    history.register(mode="shadow", rules=[{"match": "*.css", "action": "reload"}])
    history.write("site.css")
    history.at(15)
    restart = history.queued()
    history.start()

    told = story(history, restart)
    assert told.explanation.startswith(
        "Would have been reloaded (shadow mode: nothing was executed) because 1 write to 1 file"
    )
    assert told.cycles[0].shadow


def test_rule_with_its_own_quiet_closes_the_window(history: AuditedHistory) -> None:
    history.register(rules=[{"match": "slow/**", "quiet": "40s"}])
    history.write("slow/a")
    history.at(10)
    history.write("b")
    history.at(40)
    restart = history.queued()

    assert "the window closed by quiet after 40 s" in story(history, restart).explanation


def test_long_range_is_cut_and_says_so(history: AuditedHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_span, "MOST_EVENTS", 4)  # the registration is one of them
    history.register()
    history.write("a", "b", "c", "d", "e")
    history.at(15)
    told = story(history, history.queued())

    assert told.truncated
    assert told.counts.writes == 5
    assert "5 writes to 5 files by at least 1 actor" in told.explanation
    assert len(told.top_paths) == 3


def test_story_as_json_begins_with_id_and_explanation(history: AuditedHistory) -> None:
    history.register()
    history.write("a")
    history.at(15)
    view = story_view(story(history, history.queued()))

    assert list(view)[:2] == ["id", "explanation"]
    assert view["window"]["due_at"] == "2026-11-23T14:02:16.000000Z"
    assert view["counts"] == {"writes": 1, "files": 1, "requests": 0, "actors": 1}


def restarted_by(history: AuditedHistory, writes: Sequence[tuple[float, str]]) -> str:
    """Write each file so many seconds after the start before it, restart 1 s later; return the last restart."""
    history.register(quiet="1s", min_interval=0)
    restart, started_s = "", 0.0
    for after_s, path in writes:
        history.at(started_s + after_s)
        history.write(path)
        started_s += after_s + 1
        history.at(started_s)
        restart = history.queued()
        history.start()
        history.succeed()
    return restart


def test_a_program_that_restarts_itself_is_named_with_the_rule_to_add(history: AuditedHistory) -> None:
    restart = restarted_by(history, [(5, "main.py"), (2, "app.log"), (2.5, "app.log"), (2.9, "app.log")])
    told = story(history, restart)
    assert told.own_writes == ["app.log"]
    assert told.explanation.endswith(
        "; the program seems to restart itself: app.log was written as long after each of its last 3 starts; "
        "if that file is its own, add /app.log to .gitignore, or give it a path rule with the action record."
    )


@pytest.mark.parametrize(
    "writes",
    [
        [(5, "main.py"), (2, "app.log"), (2, "app.log")],
        [(5, "main.py"), (2, "app.log"), (2, "main.py"), (2, "app.log")],
        [(5, "main.py"), (2, "main.py"), (9, "main.py"), (4, "main.py")],
    ],
    ids=["two rounds", "another file between", "a person at any time"],
)
def test_who_saves_is_not_taken_for_a_program_that_restarts_itself(
    history: AuditedHistory, writes: list[tuple[float, str]]
) -> None:
    told = story(history, restarted_by(history, writes))
    assert told.own_writes == []
    assert "itself" not in told.explanation


def test_unknown_restart(history: AuditedHistory) -> None:
    with pytest.raises(NotFound, match="rst_nope"):
        story(history, "rst_nope")
