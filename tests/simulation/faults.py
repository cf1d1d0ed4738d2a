"""Every kind of fault that a run can inject; the numbers of the research (F1 to F38) are beside them."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """One kind. Counted when it strikes, not when it was planned."""

    # At any boundary, by chance or aimed at one by name.
    CRASH = "crash"  # F1, F2, F14 to F17: the process is killed
    FREEZE = "freeze"  # F18, F19: the whole process stands still, often for longer than its lease
    DELAY = "delay"  # this thread alone comes late
    ERROR_BEFORE = "error before the effect"  # F4, F28
    ERROR_INSTEAD = "error instead of the effect"  # a commit that was refused
    ERROR_AFTER = "error after the effect"  # F2: the commit is done, its answer lost
    # Of whole parts, at times.
    WORKER_KILLED = "worker killed"
    WORKER_STOPPED = "worker stopped"  # F38
    WORKER_FROZEN = "worker frozen"  # F18
    SERVER_KILLED = "server killed"
    DATABASE_AWAY = "database away"  # F4, F26
    CLOCK_BACK = "database clock back"  # F21
    CLOCK_FORWARD = "database clock forward"  # F22
    BROKER_AWAY = "broker away"  # F6, F7
    BEATS_AWAY = "beats away"  # F12
    SECOND_BEAT = "second beat"  # F13
    # Of messages.
    DROPPED = "message dropped"  # F8
    DOUBLED = "message doubled"  # F9
    LATE = "message late"  # F10: so late that others overtake it
    # Of executors.
    HANG = "executor hangs"  # F23
    DEAF = "executor hangs and hears no stop"
    TRANSIENT = "executor fails: transient"  # F24
    PERMANENT = "executor fails: permanent"
    UNKNOWN = "executor fails: unknown"
    RAISES = "executor raises anything"
    NOT_READY = "workspace is never ready"
    ENDED = "workspace ends before it is ready"


AT_BOUNDARIES = (
    Fault.CRASH,
    Fault.FREEZE,
    Fault.DELAY,
    Fault.ERROR_BEFORE,
    Fault.ERROR_INSTEAD,
    Fault.ERROR_AFTER,
)
AT_TIMES = (
    Fault.WORKER_KILLED,
    Fault.WORKER_STOPPED,
    Fault.WORKER_FROZEN,
    Fault.SERVER_KILLED,
    Fault.DATABASE_AWAY,
    Fault.CLOCK_BACK,
    Fault.CLOCK_FORWARD,
    Fault.BROKER_AWAY,
    Fault.BEATS_AWAY,
)
OF_MESSAGES = (Fault.DROPPED, Fault.DOUBLED, Fault.LATE)
OF_EXECUTORS = (
    Fault.HANG,
    Fault.DEAF,
    Fault.TRANSIENT,
    Fault.PERMANENT,
    Fault.UNKNOWN,
    Fault.RAISES,
    Fault.NOT_READY,
    Fault.ENDED,
)
