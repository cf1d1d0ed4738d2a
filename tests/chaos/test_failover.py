"""F5: the primary is gone and what answers in its place is a standby, until that is promoted."""

from __future__ import annotations

from tests.chaos.production import ChaosProduction
from tests.chaos.steady_writer import check_accepted, pids_of, writing_all_the_while
from tests.waiting import wait_until


def test_a_standby_takes_no_write_and_no_decision_and_after_its_promotion_all_goes_on(
    production: ChaosProduction,
) -> None:
    pids, postgres = pids_of(production), production.servers.postgres
    running_one, workspace = production.register(delay="1s"), production.register(policy={"quiet": "1s"})
    production.write(running_one, "a")
    started = production.await_running(running_one).start

    with writing_all_the_while(production, workspace) as answered:
        wait_until(lambda: answered.accepted, what="a write is accepted")
        postgres.demote()
        wait_until(lambda: answered.refused, what="a write is refused")
        stored = stored_events(production)
        refused_ticks = production.tails().count("tick.skipped")
        wait_until(lambda: not production.ready(), what="/readyz says that no write can be stored")
        assert production.client.get(f"/v1/workspaces/{running_one}")["state"] == "running", "reads are served"
        # Its cycle's end, its lease and the other's window are all due by now, and nobody may decide.
        wait_until(lambda: production.tails().count("tick.skipped") > refused_ticks + 8, what="ticks try", every_s=0.1)
        assert stored_events(production) == stored
        postgres.promote()
        before = len(answered.accepted)
        wait_until(lambda: len(answered.accepted) > before, what="writes are accepted again", timeout_s=20)

    assert check_accepted(production, workspace, answered).pending == []
    history = production.settled(running_one, restarts=1)
    assert history.starts[0] == started
    assert pids_of(production) == pids, "a process did not live through it"


def stored_events(production: ChaosProduction) -> int:
    """The end of the log."""
    with production.store.read() as reader:
        return reader.last_position()
