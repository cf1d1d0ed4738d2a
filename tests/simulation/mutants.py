"""Defects that a simulator must be able to find, each a patch of the product's real code, named after what it breaks.

Those that break no promise say why not: they show what the promises do not rest on.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation import mutants_of_decisions as decisions
from tests.simulation import mutants_of_service as service
from tests.simulation.planting import Plant


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """``equivalent``: why no promise breaks, in two sentences; None where one must be found broken."""

    plant: Plant
    breaks: str
    equivalent: str | None = None


MUTANTS: dict[str, Mutant] = {
    "no-fence-at-record": Mutant(plant=decisions.no_fence_at_record, breaks="a zombie's result ends another's cycle"),
    "no-fence-at-executor": Mutant(
        plant=service.no_fence_at_executor, breaks="a frozen worker acts after its successor"
    ),
    "no-claim-check": Mutant(plant=decisions.no_claim_check, breaks="a doubled message starts a second cycle"),
    "no-re-stamp": Mutant(plant=decisions.no_re_stamp, breaks="drained cycles keep the first one's stamp"),
    "pending-cleared-at-start": Mutant(
        plant=decisions.pending_cleared_at_start, breaks="a cycle that fails loses its writes"
    ),
    "pending-cleared-at-finish": Mutant(
        plant=decisions.pending_cleared_at_finish, breaks="writes of a running cycle count as covered"
    ),
    "coverage-fixed-at-finish": Mutant(
        plant=decisions.coverage_fixed_at_finish, breaks="the range is read when the cycle ends"
    ),
    "cursor-before-lock": Mutant(
        plant=service.cursor_before_lock, breaks="the range is read before the lock: a commit in between is missed"
    ),
    "no-re-send": Mutant(plant=service.no_re_send, breaks="a restart is rung for once only"),
    "no-lease-rescue": Mutant(plant=decisions.no_lease_rescue, breaks="a dead worker's cycle stays open"),
    "rescued-late": Mutant(plant=decisions.rescued_late, breaks="a dead worker's cycle is abandoned ten seconds late"),
    "folded-late": Mutant(plant=decisions.folded_late, breaks="a window is folded four seconds after it is due"),
    "leases-not-renewed": Mutant(
        plant=service.leases_not_renewed, breaks="a cycle that outlasts its lease is taken from a living worker"
    ),
    "wall-clock-of-worker": Mutant(plant=service.wall_clock_of_worker, breaks="starts are decided by a host's clock"),
    "time-may-fall": Mutant(plant=service.time_may_fall, breaks="recorded time follows the clock back"),
    "no-max-wait": Mutant(plant=decisions.no_max_wait, breaks="steady writes put the restart off for ever"),
    "no-quiet": Mutant(plant=decisions.no_quiet, breaks="a burst is cut in the middle"),
    "no-max-count": Mutant(plant=decisions.no_max_count, breaks="any number of writes waits for the quiet"),
    "no-spacing": Mutant(plant=decisions.no_spacing, breaks="restarts follow each other without min_interval"),
    "backoff-ignored": Mutant(plant=decisions.backoff_ignored, breaks="a retry starts before its retry_at"),
    "give-up-loses-writes": Mutant(plant=decisions.give_up_loses_writes, breaks="a give-up drops what it gave up"),
    "no-next-try": Mutant(plant=decisions.no_next_try, breaks="what was given up is never tried again"),
    "cancel-leaves-writes": Mutant(plant=decisions.cancel_leaves_writes, breaks="a cancelled range stays pending"),
    "removal-leaves-writes": Mutant(
        plant=decisions.removal_leaves_writes, breaks="a removed workspace keeps its writes"
    ),
    "retry-skips-act": Mutant(plant=service.retry_skips_act, breaks="a retry whose range has grown does not act again"),
    "probe-not-suppressed": Mutant(plant=decisions.probe_not_suppressed, breaks="a booting workspace is restarted"),
    "hold-ignored-by-fold": Mutant(plant=decisions.hold_ignored_by_fold, breaks="a held window is queued"),
    "hold-ignored-by-start": Mutant(plant=decisions.hold_ignored_by_start, breaks="a held workspace is started"),
    "leading-edge-drops-tail": Mutant(
        plant=decisions.leading_edge_drops_tail, breaks="after a leading restart the rest of the burst is lost"
    ),
    "shadow-acts": Mutant(plant=service.shadow_acts, breaks="a shadow cycle restarts the workspace"),
    "two-unsettled": Mutant(plant=decisions.two_unsettled, breaks="a window is queued beside an unsettled restart"),
    "capacity-ignored": Mutant(plant=service.capacity_ignored, breaks="more cycles run than are allowed"),
    "ids-forgotten": Mutant(plant=service.ids_forgotten, breaks="a write that is reported again is stored again"),
    "keys-forgotten": Mutant(plant=service.keys_forgotten, breaks="a request that is repeated is carried out again"),
    "commits-lost": Mutant(plant=service.commits_lost, breaks="an answer is given for a commit that is not kept"),
    "policy-keeps-due": Mutant(
        plant=service.policy_keeps_due, breaks="a change of policy leaves open windows as they were"
    ),
    "no-check-before-act": Mutant(
        plant=service.no_check_before_act,
        breaks="a cycle that was told to stop acts all the same",
        equivalent="The check before the act only saves work: between it and the act there is always room for a pause. "
        "What protects is the fence, compared by the executor at the act and under the row's lock at the record.",
    ),
    "lost-lease-works-on": Mutant(
        plant=service.lost_lease_works_on,
        breaks="a cycle whose lease is lost is not told so",
        equivalent="Its act carries a fence that has been overtaken and is refused; its result is recorded as late. "
        "Being told earlier only frees the slot sooner.",
    ),
    "end-recorded-once": Mutant(
        plant=service.end_recorded_once,
        breaks="the end of a cycle is not recorded again after an error",
        equivalent="A cycle whose end is not recorded is the same as one whose worker died after the act: its lease "
        "passes, it is abandoned and tried again. At-least-once holds; only time is lost, within the bound of L2.",
    ),
}
