"""A product that is written to as fast as it answers: its restarts start in time, and nobody waits for anybody else.

In virtual time nothing costs anything: what stops everybody shows only here. Bounds are the product's own promises (L1:
a tick and a second, and so many writes of the same machine at rest), or ratios to the same product at rest; they are
wide, as the machine may be busy otherwise too.
"""

from __future__ import annotations

from datetime import timedelta
from statistics import median

import pytest

from tests.load.conftest import Ran
from tests.load.judged import check_promises
from tests.system.deployment import TICK_S, Production

pytestmark = pytest.mark.xdist_group("load")

_LATE_MOST = timedelta(seconds=TICK_S + 1)
_LATE_WRITES = 60
"""A slow machine may be late by as long as so many writes take it at rest: some 0.1 s on a fast one."""
_SLOWER_MOST = 80
"""Beside 32 connections that never rest a write waits for its turn: on two processors some 20 ms instead of 1 or 2."""
_WRITE_MOST_S = 3.0
_AT_REST_MOST = {True: 0.3, False: 0.2}
"""Of one processor, for all processes together: in production there are six, and the machine may be busy."""


def test_nobody_is_refused_but_who_sends_nonsense(ran: Ran) -> None:
    """Beside bodies that are broken, half sent, or never sent."""
    assert ran.refused == []
    assert ran.busy.answered is not None
    assert ran.busy.answered.answers > 100
    assert min(ran.busy.batches, ran.busy.changes, ran.busy.held, ran.busy.poisoned) > 0


def test_restarts_start_within_a_tick_and_a_second(ran: Ran) -> None:
    slow = _LATE_WRITES * timedelta(seconds=median(ran.at_rest_s))
    assert ran.late[-1] < _LATE_MOST + slow, (ran.late, slow)


def test_a_write_waits_for_its_turn_and_for_nothing_else(ran: Ran) -> None:
    """Batches under 500 rules, changes of policy with 200 open windows, held answers: none stops it."""
    assert ran.under_load_s[-1] < _WRITE_MOST_S, ran.under_load_s
    assert median(ran.under_load_s) < _SLOWER_MOST * median(ran.at_rest_s), (ran.under_load_s, ran.at_rest_s)


def test_at_rest_it_costs_next_to_nothing_again(ran: Ran) -> None:
    assert ran.share_at_rest < _AT_REST_MOST[isinstance(ran.deployment, Production)]


def test_its_log_keeps_every_promise(ran: Ran) -> None:
    sums = check_promises(ran.deployment)
    assert ran.busy.answered is not None
    assert sums.accepted >= ran.busy.answered.writes
