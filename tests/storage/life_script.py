"""A short life of one workspace, by the code of whatever version is on the path: ``life_script.py URL WORKSPACE``.

It is registered, written to, restarted and asked to restart; a last write waits at the end. Only what every version has
is used here. With ``migrate`` as a third word the database is brought to that version's schema first.
"""

from __future__ import annotations

import sys

from orchestrator.bootstrap import Services, build_drainer, open_services
from orchestrator.domain import commands as cmd
from orchestrator.domain.events import Trigger
from orchestrator.domain.policy import parse_policy
from orchestrator.domain.state import Registration
from orchestrator.service.append import Author
from orchestrator.service.change_policy import note_floor
from orchestrator.service.drain import Drainer
from orchestrator.service.record import Write, record_writes
from orchestrator.service.tick import look
from orchestrator.settings import load_settings
from orchestrator.storage.migrate import upgrade


class _NoBell:
    def ring(self, workspace: str) -> None:
        """Nobody is rung for: the script drains by itself."""


def live(url: str, workspace: str) -> None:
    """Live it in the database at ``url``."""
    numbers = {"quiet": "0s", "max_wait": "1s", "min_interval": "0s"}
    services = open_services(load_settings({}, database_url=url))
    store, ids, author = services.store, services.ids, Author(actor="local:ann")
    drainer = build_drainer(services)
    note_floor(store, ids, services.settings.floor)
    registered = Registration(
        fleet="default", labels={"tier": "web"}, executor="simulated", target={}, policy=parse_policy(numbers)
    )
    services.operator.register(workspace, registered, author)
    for path in ("a.py", "b.py", "a.py"):
        write = Write(workspace=workspace, path=path, source_id=f"{workspace}-{path}-{ids.new('x')}")
        record_writes(store, [write], actor="local:ann", ids=ids, auto=services.auto)
        _cover(services, drainer, workspace)
    asked = cmd.RequestRestart(trigger=Trigger.MANUAL, reason="a person asks")
    services.operator.request_restart(workspace, asked, author)
    _cover(services, drainer, workspace)
    write = Write(workspace=workspace, path="waits.py")
    record_writes(store, [write], actor="local:ann", ids=ids, auto=services.auto)
    store.ticked()
    store.close()


def _cover(services: Services, drainer: Drainer, workspace: str) -> None:
    while True:
        look(services.store, _NoBell(), services.ids, free_slots=lambda: 1)
        drainer.drain()
        with services.store.read() as reader:
            stored = reader.workspace(workspace)
        if stored is None:
            raise LookupError(workspace)
        if not stored.state.pending and stored.state.restart is None:
            return


if __name__ == "__main__":
    if sys.argv[3:] == ["migrate"]:
        upgrade(sys.argv[1])
    live(*sys.argv[1:3])
