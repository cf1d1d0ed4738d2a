"""A program that restarts itself by what it writes is told from a person who saves."""

from __future__ import annotations

from orchestrator.sources.own_writes import OwnWrites


def test_the_same_file_as_long_after_each_of_three_starts_is_named_once() -> None:
    own = OwnWrites()
    assert own.seen(7, 0.4, ["app.log", "main.py"]) == []
    assert own.seen(7, 9.0, ["app.log"]) == [], "only the first write after a start counts"
    assert own.seen(8, 0.9, ["app.log"]) == []
    assert own.seen(9, 0.3, ["other", "app.log", "app.log"]) == ["app.log"]
    assert own.seen(10, 0.3, ["app.log"]) == []


def test_a_slow_program_is_named_too() -> None:
    own = OwnWrites()
    assert [own.seen(start, after_s, ["beat"]) for start, after_s in ((1, 60.0), (2, 66.0), (3, 58.0))] == [
        [],
        [],
        ["beat"],
    ]


def test_a_person_saves_at_any_time() -> None:
    own = OwnWrites()
    for start, after_s in ((1, 2.0), (2, 9.0), (3, 4.0), (4, 20.0)):
        assert own.seen(start, after_s, ["main.py"]) == []


def test_a_restart_that_it_did_not_cause_begins_anew() -> None:
    own = OwnWrites()
    assert [own.seen(start, 0.5, ["app.log"]) for start in (1, 2, 4, 5)] == [[], [], [], []]
    assert own.seen(6, 0.5, ["app.log"]) == ["app.log"]
