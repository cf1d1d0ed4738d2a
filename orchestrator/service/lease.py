"""The leases that this process holds, and their renewal."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import structlog

from orchestrator.ports.store import CoreStore

_log = structlog.get_logger("orchestrator")


@dataclass(frozen=True, kw_only=True)
class HeldLease:
    """The right to run one workspace's cycle. ``stop`` ends the cycle's work: the lease is lost, or we stop.

    ``renew_until_s`` is on ``time.monotonic()``: an executor that has not come back by then hangs, and its
    workspace is given to others.
    """

    workspace: str
    cycle: str
    fence: int
    lease_ms: int
    stop: threading.Event
    renew_until_s: float = math.inf


class LeaseBook:
    """All leases of one process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._held: dict[str, HeldLease] = {}
        self._changed = threading.Condition()
        self._changes = 0

    def take(self, lease: HeldLease) -> None:
        """Note a lease that a ``CycleStarted`` has given us. An earlier one of the same workspace is lost by that.

        After a machine's sleep, say: the database's clock has jumped, the tick rescues the cycle of this very process
        and another slot takes its workspace up, while its executor is still at work and no renewal has told it so.
        """
        with self._changed:
            earlier = self._held.get(lease.workspace)
            self._held[lease.workspace] = lease
        if earlier is not None:
            _lose(earlier)
        self.wake()

    def drop(self, lease: HeldLease) -> None:
        """Forget a lease whose cycle has ended."""
        with self._changed:
            if self._held.get(lease.workspace) is lease:
                del self._held[lease.workspace]

    def held(self) -> list[HeldLease]:
        """Return the leases that are held now."""
        with self._changed:
            return list(self._held.values())

    def stop(self, workspace: str) -> None:
        """Tell the workspace's cycle to end, if one runs here."""
        for lease in self.held():
            if lease.workspace == workspace:
                lease.stop.set()

    def stop_all(self) -> None:
        """Tell every running cycle to end."""
        for lease in self.held():
            lease.stop.set()

    def renew(self, store: CoreStore) -> bool:
        """Renew all; a cycle whose lease is lost is told to stop. Raises ``StorageUnavailable``.

        Returns False where another transaction holds a lease's row: that one is to be tried again soon.
        """
        self._let_go_of_hung()
        leases = self.held()
        if not leases:
            return True
        renewed = store.renew_leases({lease.workspace: (lease.fence, lease.lease_ms) for lease in leases})
        known = {*renewed.kept, *renewed.held_up}
        lost = [lease for lease in leases if lease.workspace not in known]
        still_held = {id(lease) for lease in self.held()} if lost else set()
        for lease in lost:
            if id(lease) in still_held and not lease.stop.is_set():
                _lose(lease)
        if renewed.held_up:
            _log.warning("lease.held_up", workspaces=sorted(renewed.held_up), why="another transaction holds its row")
        return not renewed.held_up

    def renew_every_s(self) -> float:
        """Return how long the renewer may wait: a third of the shortest lease held, for ever while none is."""
        return min([lease.lease_ms / 3000 for lease in self.held()], default=math.inf)

    def wait_for_take(self, timeout_s: float) -> None:
        """Wait until a lease is taken, ``wake`` is called, or the time is over; what came before counts too."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes > 0, timeout=None if timeout_s == math.inf else timeout_s)
            self._changes = 0

    def wake(self) -> None:
        """End a ``wait_for_take``."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _let_go_of_hung(self) -> None:
        now_s = time.monotonic()
        for lease in self.held():
            if now_s > lease.renew_until_s:
                _log.error("lease.let_go", workspace=lease.workspace, cycle=lease.cycle, why="its executor hangs")
                lease.stop.set()
                self.drop(lease)


def _lose(lease: HeldLease) -> None:
    _log.warning("lease.lost", workspace=lease.workspace, cycle=lease.cycle, fence=lease.fence)
    lease.stop.set()
