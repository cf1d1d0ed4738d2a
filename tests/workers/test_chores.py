"""Chores: one at a time in a process, none forgotten."""

from __future__ import annotations

import threading

import pytest

from tests.waiting import wait_until
from workers.chores import Chores


def test_one_that_is_asked_for_meanwhile_follows_in_the_same_thread() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[tuple[str, int]]()

    def slow() -> None:
        begun.set()
        assert go_on.wait(10)
        done.append(("slow", threading.get_ident()))

    chores = Chores({"slow": slow, "quick": lambda: done.append(("quick", threading.get_ident()))})
    at_work = threading.Thread(target=chores.run, args=("slow",))
    at_work.start()
    assert begun.wait(10)
    chores.run("quick")
    chores.run("quick")
    assert done == []
    go_on.set()
    wait_until(lambda: len(done) == 2, what="both chores")
    at_work.join(10)
    assert done == [("slow", at_work.ident), ("quick", at_work.ident)]


def test_a_chore_that_fails_keeps_no_other_from_its_turn() -> None:
    done: list[str] = []

    def fails() -> None:
        raise ValueError("no")

    chores = Chores({"fails": fails, "works": lambda: done.append("works")})
    with pytest.raises(ValueError, match="no"):
        chores.run("fails")
    chores.run("works")
    assert done == ["works"]


def test_a_name_without_a_chore_is_passed_over() -> None:
    done: list[str] = []
    chores = Chores({"works": lambda: done.append("works")})
    chores.run("seal")
    chores.run("works")
    assert done == ["works"]
