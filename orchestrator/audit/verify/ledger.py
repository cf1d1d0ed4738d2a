"""What is kept of the log while it is read: a state a workspace, and what is pending. Instants are microseconds.

Structs, so that attributes are as fast as slots and the whole can be saved and gone on with.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right

import msgspec

from orchestrator.audit.verify.event_data import PolicyPatch

_FORMAT = "restart-orchestrator/verification@4"


class Cycle(msgspec.Struct):
    """The open cycle: ``position`` is that of its start."""

    id: str
    fence: int
    position: int
    started_at: int
    lease_until: int
    to_position: int
    shadow: bool
    longest_until: int | None
    """Until when at the latest it ends or is abandoned, less a tick; None where the log does not say."""
    worker: str = ""


class Restart(msgspec.Struct):
    """The unsettled restart. ``ready_at``: no cycle of it may start before."""

    id: str
    position: int
    to_position: int
    min_interval: int
    ready_at: int
    ready_position: int = 0
    retrying: bool = False
    cycles: int = 0
    adopted: bool = False
    """Met without its queue event, so its earlier cycles are not known."""
    spent: int = 0
    """Cycles that count towards ``max_attempts``."""
    open: Cycle | None = None
    may_give_up: bool | None = None
    """Whether its last failure leaves no attempt; None where the log does not say."""
    must_give_up: bool = False
    limit: int | None = None
    """Until when its first cycle must start by L1, less what it queues for capacity."""
    limit_position: int = 0
    crowded: int = 0
    """The log's crowded time when the wait for a worker began."""
    orphaned_at: int | None = None
    """When its dead worker's cycle was abandoned; it must go on at once (L2)."""


class Workspace(msgspec.Struct):
    """One workspace, folded independently of the engine.

    ``writes`` and ``times`` are position and instant of every pending write, the first ``folded`` of which are
    taken into a restart. ``ruled`` has those that a path rule gave numbers: (quiet, max_wait) or None each.
    """

    id: str
    version: int = 0
    registered: bool = False
    fleet: str = ""
    policy: PolicyPatch = PolicyPatch()
    policy_position: int = 0
    need: str = ""
    """Its executor and pool."""
    held_position: int = 0
    held_until: int | None = None
    """When the hold ends by itself, at the latest; None: not before a person ends it."""
    fence: int = 0
    settled_to: int = 0
    settled_by: int = 0
    writes: list[int] = []
    times: list[int] = []
    folded: int = 0
    ruled: dict[int, tuple[int | None, int | None]] = {}
    full_position: int = 0
    """The last write that a reload cannot serve."""
    unseen: int = 0
    """Pending writes that the events count and the log does not hold; told once."""
    unseen_requests: int = 0
    requests: list[int] = []
    request_times: list[int] = []
    manual_at: int | None = None
    mutation_at: int | None = None
    probe_at: int | None = None
    manual_position: int = 0
    opened_idle: bool = False
    changed_after: list[int] = []
    """When the window's last write had come, at each change of what may hold its ``max_count``."""
    restart: Restart | None = None
    started_to: int = 0
    start_position: int = 0
    last_start: int | None = None
    last_end: int | None = None
    next_try_at: int | None = None
    next_try_anyway: bool = False
    """It counts whatever is in the window (give-ups since schema 2), not only while no newer write is."""
    give_ups: int = 0
    """Give-ups in a row."""
    floor: int = 0
    """Since when nothing that is broken, held or changed explains a wait (L1)."""
    queues: int = 0
    """Restarts queued since the last write, request or give-up (L4)."""
    queue_position: int = 0
    stuck_position: int = 0
    stuck_at: int = 0
    stuck_told: bool = False
    waivable: int = 0
    """Up to where the cancel or removal recorded at ``waivable_at`` may waive."""
    waivable_at: int = -1

    @property
    def last_pending(self) -> int:
        """Return the position of the last write or request that waits; 0 if none does."""
        return max(self.writes[-1] if self.writes else 0, self.requests[-1] if self.requests else 0)

    @property
    def pending(self) -> bool:
        """True while anything waits."""
        return bool(self.writes or self.requests)

    def fold(self) -> None:
        """Take the window into a restart; the next write opens a new one."""
        self.folded = len(self.writes)
        self.changed_after = []
        self.manual_at = self.mutation_at = self.probe_at = None

    def note_change(self) -> None:
        """Note that ``max_count`` may have changed while this window was open."""
        if len(self.times) > self.folded and self.times[-1] not in self.changed_after[-1:]:
            self.changed_after.append(self.times[-1])

    def settle(self, to_position: int, by: int) -> int:
        """End everything up to ``to_position``; return how many writes that was."""
        ended = bisect_right(self.writes, to_position)
        del self.writes[:ended], self.times[:ended]
        asked = bisect_right(self.requests, to_position)
        del self.requests[:asked], self.request_times[:asked]
        first = self.times[0] if self.times else None
        self.changed_after = [at for at in self.changed_after if first is not None and at >= first]
        for position in [position for position in self.ruled if position <= to_position]:
            del self.ruled[position]
        self.folded, self.unseen, self.unseen_requests, self.next_try_at = 0, 0, 0, None
        if to_position > self.settled_to:
            self.settled_to, self.settled_by = to_position, by
        if not self.pending:
            self.manual_at = self.mutation_at = self.probe_at = None
        return ended


class Absence(msgspec.Struct):
    """Since when something is away, or was last started, and where the log says so."""

    position: int
    since: int


class Layer(msgspec.Struct):
    """A stored policy layer."""

    policy: PolicyPatch
    version: int
    position: int


class Ledger(msgspec.Struct):
    """Everything between two events: enough to go on from here with another reader."""

    format: str = _FORMAT
    position: int = 0
    last_id: str = ""
    at: int = 0
    events: int = 0
    first_position: int = 0
    accepted: int = 0
    covered: int = 0
    waived: int = 0
    recorded: int = 0
    stated: int = 0
    """Writes covered or waived as the events themselves count them."""
    workspaces: dict[str, Workspace] = {}
    layers: dict[str, Layer] = {}
    policy_changed_at: int = 0
    has_all_policies: bool = False
    """The log was read from its first change of a policy on; in a part of a log an earlier layer may be missing."""
    running: int = 0
    crowded_us: int = 0
    crowded_since: int = 0
    explained: int = 0
    stopped_at: int = -1
    """The position after which the log could not be read, once that is told."""
    passed_over: dict[str, int] = {}
    """Events of no workspace whose type this verifier does not know, by type."""
    away: dict[str, Absence] = {}
    """What nobody serves, by executor and pool."""
    started: dict[str, Absence] = {}
    """The last start of a cycle for each executor and pool."""
    dead_workers: dict[str, int] = {}
    """Workers that were said to have died, and where that was said."""
    cycles_of_dead: dict[str, int] = {}
    """Cycles that were abandoned by such a death, and where."""
    violations: dict[str, int] = {}
    """All that were ever found, by promise."""

    @property
    def pending(self) -> int:
        """Return how many writes wait."""
        return sum(len(workspace.writes) for workspace in self.workspaces.values())


def save(ledger: Ledger) -> bytes:
    """Return the ledger as bytes."""
    return zlib.compress(msgspec.msgpack.encode(ledger), 6)


def load(saved: bytes) -> Ledger:
    """Return a saved ledger. Raises ``ValueError`` for anything else."""
    try:
        ledger = msgspec.msgpack.decode(zlib.decompress(saved), type=Ledger)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no saved verification: {error}") from None
    if ledger.format != _FORMAT:
        raise ValueError(f"saved by another version: {ledger.format}, not {_FORMAT}")
    return ledger
