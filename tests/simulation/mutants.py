"""Defects that a simulator must be able to find, each a patch of the product's real code, named after what it breaks.

Those that break no promise say why not: they show what the promises do not rest on.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation import mutants_of_answers as answers
from tests.simulation import mutants_of_commits as commits
from tests.simulation import mutants_of_decisions as decisions
from tests.simulation import mutants_of_ends as ends
from tests.simulation import mutants_of_numbers as numbers
from tests.simulation import mutants_of_service as service
from tests.simulation import mutants_of_starts as starts
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
    "old-judged-with-new": Mutant(
        plant=decisions.old_judged_with_new,
        breaks="a fix saved in the last attempt waits for the back-off",
    ),
    "next-try-waits-for-newer": Mutant(
        plant=decisions.next_try_waits_for_newer, breaks="a newer write with a long rule delays what was given up"
    ),
    "worker-died-is-free": Mutant(
        plant=numbers.worker_died_is_free, breaks="a restart that kills its worker is tried for ever"
    ),
    "living-called-dead": Mutant(
        plant=service.living_called_dead, breaks="a parent ends the cycles of workers that live"
    ),
    "claims-without-executor": Mutant(
        plant=service.claims_without_executor, breaks="a worker starts what only another one can carry out"
    ),
    "away-though-served": Mutant(
        plant=service.away_though_served, breaks="what waits for a free slot is said to be served by nobody"
    ),
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
    "room-off-by-one": Mutant(
        plant=service.room_off_by_one, breaks="a restart waits for ever for a fleet that has room for one more"
    ),
    "ids-forgotten": Mutant(plant=service.ids_forgotten, breaks="a write that is reported again is stored again"),
    "keys-forgotten": Mutant(plant=service.keys_forgotten, breaks="a request that is repeated is carried out again"),
    "commits-lost": Mutant(plant=service.commits_lost, breaks="an answer is given for a commit that is not kept"),
    "policy-keeps-due": Mutant(
        plant=service.policy_keeps_due, breaks="a change of policy leaves open windows as they were"
    ),
    "recomputed-in-part": Mutant(
        plant=service.recomputed_in_part, breaks="a change of policy reaches the first open windows and no other"
    ),
    "rules-of-before": Mutant(
        plant=service.rules_of_before, breaks="a path is matched by the rules that its workspace had before"
    ),
    "locked-not-recomputed": Mutant(
        plant=service.locked_not_recomputed, breaks="a window that is just being written to misses a change of policy"
    ),
    "recomputed-by-an-old-state": Mutant(
        plant=service.recomputed_by_an_old_state, breaks="a window is due by what it held before a page was locked"
    ),
    "hold-never-ends": Mutant(
        plant=numbers.hold_never_ends, breaks="a hold outlasts its end until somebody releases it"
    ),
    "hold-ends-with-cycle": Mutant(
        plant=numbers.hold_ends_with_cycle, breaks="the end of a cycle ends the hold as well, before its time"
    ),
    "manual-wakes-no-retry": Mutant(
        plant=numbers.manual_wakes_no_retry, breaks="a manual request waits for the back-off of a retry"
    ),
    "manual-waits-for-backoff": Mutant(
        plant=numbers.manual_waits_for_backoff, breaks="a cycle that fails lets a manual request wait for its back-off"
    ),
    "backoff-uncapped": Mutant(plant=numbers.backoff_uncapped, breaks="a retry waits longer than retry_backoff_max"),
    "backoff-doubled-at-once": Mutant(
        plant=numbers.backoff_doubled_at_once, breaks="the first retry waits twice its back-off"
    ),
    "permanent-error-retried": Mutant(
        plant=numbers.permanent_error_retried, breaks="an error that cannot heal is tried again"
    ),
    "late-result-unrecorded": Mutant(
        plant=numbers.late_result_unrecorded, breaks="a result that came too late leaves no trace"
    ),
    "shutdown-counts": Mutant(plant=numbers.shutdown_counts, breaks="a worker that stops uses up an attempt"),
    "shutdown-waits": Mutant(
        plant=numbers.shutdown_waits, breaks="a cycle that was given back waits before it goes on"
    ),
    "spacing-from-end": Mutant(plant=numbers.spacing_from_end, breaks="min_interval counts from the end of a cycle"),
    "ties-go-to-the-last": Mutant(
        plant=numbers.ties_go_to_the_last, breaks="of two causes at one instant the wrong one is told"
    ),
    "rule-quiet-ends-first": Mutant(
        plant=numbers.rule_quiet_ends_first, breaks="the quiet that ends first counts, not the one that ends last"
    ),
    "mode-read-at-queue": Mutant(
        plant=numbers.mode_read_at_queue, breaks="a change to shadow reaches only the next restart"
    ),
    "retry-keeps-range": Mutant(
        plant=numbers.retry_keeps_range, breaks="a retry leaves out what came since the attempt before"
    ),
    "fence-kept-by-retry": Mutant(
        plant=numbers.fence_kept_by_retry, breaks="a retry starts under the fence of the attempt before"
    ),
    "settle-from-start": Mutant(
        plant=numbers.settle_from_start, breaks="probes are believed too early after a long cycle"
    ),
    "give-ups-never-reset": Mutant(
        plant=numbers.give_ups_never_reset, breaks="a success does not end the doubling of a give-up's back-off"
    ),
    "registered-anew": Mutant(
        plant=numbers.registered_anew, breaks="a workspace that comes back begins again with fence 1"
    ),
    "id-order-cursor": Mutant(
        plant=answers.id_order_cursor, breaks="writes that commit out of the order of their ids are passed over"
    ),
    "fleet-limit-ignored": Mutant(
        plant=answers.fleet_limit_ignored, breaks="more cycles of a fleet run than max_concurrent"
    ),
    "fleet-limit-off-by-one": Mutant(
        plant=answers.fleet_limit_off_by_one, breaks="one cycle more of a fleet runs than max_concurrent"
    ),
    "lease-renewed-for-ever": Mutant(
        plant=answers.lease_renewed_for_ever, breaks="an executor that hangs keeps its workspace for ever"
    ),
    "lease-of-another-renewed": Mutant(
        plant=answers.lease_of_another_renewed, breaks="a worker that lost its lease renews its successor's"
    ),
    "lease-renewed-for-longer": Mutant(
        plant=answers.lease_renewed_for_longer, breaks="a renewal gives another lease than the policy's"
    ),
    "rescue-by-stale-lease": Mutant(
        plant=answers.rescue_by_stale_lease, breaks="a cycle is abandoned by a lease that was read before its renewal"
    ),
    "overtaken-works-on": Mutant(
        plant=answers.overtaken_works_on, breaks="a cycle that its own process overtakes is not told to stop"
    ),
    "stop-cancels-nothing": Mutant(
        plant=answers.stop_cancels_nothing, breaks="a worker that stops leaves its cycles to their leases"
    ),
    "deadline-too-late": Mutant(plant=answers.deadline_too_late, breaks="a cycle may take longer than cycle_timeout"),
    "files-counted-short": Mutant(plant=answers.files_counted_short, breaks="a restart counts too few files"),
    "decision-told-wrong": Mutant(
        plant=answers.decision_told_wrong, breaks="a write is answered that it was folded, and opened a window"
    ),
    "history-keeps-given-up-open": Mutant(
        plant=answers.history_keeps_given_up_open, breaks="history calls a given-up restart unsettled"
    ),
    "batch-saves-one-row": Mutant(
        plant=answers.batch_saves_one_row, breaks="of a batch over several workspaces one row is saved"
    ),
    "replay-answered-anew": Mutant(
        plant=answers.replay_answered_anew, breaks="a repeated write gets another answer than the first time"
    ),
    "keys-shared-by-actors": Mutant(
        plant=answers.keys_shared_by_actors, breaks="one caller gets the answer to another's key"
    ),
    "end-recorded-once": Mutant(
        plant=service.end_recorded_once, breaks="a result is lost where the database is away when a cycle ends"
    ),
    "end-recorded-twice": Mutant(
        plant=service.end_recorded_twice, breaks="an end whose commit was not answered is recorded again, as a late one"
    ),
    "answered-before-commit": Mutant(
        plant=commits.answered_before_commit, breaks="an answer is given for a commit that is then refused"
    ),
    "failing-unit-takes-others-along": Mutant(
        plant=commits.failing_unit_takes_others_along, breaks="one unit's failure refuses those that share its commit"
    ),
    "stale-states": Mutant(plant=commits.stale_states, breaks="a step sees the state from before the steps before it"),
    "split-commits-twice": Mutant(
        plant=commits.split_commits_twice, breaks="where a refused group is split, a unit is committed twice"
    ),
    "looked-claims-dropped": Mutant(
        plant=starts.looked_claims_dropped, breaks="what a look has started is carried out by nobody"
    ),
    "reserved-slots-kept": Mutant(
        plant=starts.reserved_slots_kept, breaks="slots that a look reserved and did not need stay taken"
    ),
    "started-beyond-bounds": Mutant(
        plant=starts.started_beyond_bounds, breaks="a look starts more cycles than may run at once"
    ),
    "started-though-not-ended": Mutant(
        plant=ends.started_though_not_ended, breaks="a slot goes on though the end of its cycle was not recorded"
    ),
    "end-lost-without-claim": Mutant(
        plant=ends.end_lost_without_claim, breaks="an end is not recorded where nothing can be started after it"
    ),
    "only-first-end-recorded": Mutant(
        plant=ends.only_first_end_recorded, breaks="of ends that share a commit the first one is recorded"
    ),
    "shared-end-tried-once": Mutant(
        plant=ends.shared_end_tried_once, breaks="an end is lost where the commit that it shares fails"
    ),
    "shared-end-not-asked-for": Mutant(
        plant=ends.shared_end_not_asked_for,
        breaks="an end whose shared commit was not answered is recorded again, as a late one",
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
        "Being told earlier frees the slot sooner; where an executor compares no fence, it is all there is.",
    ),
}
