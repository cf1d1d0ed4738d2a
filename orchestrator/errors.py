"""Every error this product raises on purpose.

::

    OrchestratorError
    +-- InvalidInput                 the caller's words are wrong: 422, exit 2
    |   +-- InvalidTarget            an executor refuses its target
    |   +-- UnknownExecutor          no executor of that name is installed
    +-- Unauthenticated              it asks for a key, and none or a wrong one came: 401
    +-- Forbidden                    whoever asks may not do that: 403
    +-- RateExceeded                 a key has used up what it may ask for in a minute: 429
    +-- NotFound                     the thing that was named does not exist: 404
    +-- Conflict                     the thing is in a state that forbids it: 409
    |   +-- KeyReused                an idempotency key came again with another body
    |   +-- NotSealedYet             the checkpoint that would prove it comes with the next seal
    |   +-- SealRefused              what is stored is not what was sealed: nobody signs that
    +-- PreconditionFailed           If-Match names another version: 412
    +-- Unreadable                   the database holds what this version cannot read: 503
    +-- Unavailable                  try again later: 503
    |   +-- StorageUnavailable       the database is unreachable, busy or read-only
    |   |   +-- RolledBack           it answered, and refused this one: nothing of it is stored
    |   |       +-- TimedOut         one statement took too long: maybe only that one will
    |   +-- Overloaded               more waits to be committed than may wait; nothing was stored
    |   +-- MigrationsPending        the database is reachable but behind (or ahead)
    |   |   +-- BeyondMigration      too far ahead, or not this product's: no `migrate` of this version helps
    |   +-- BrokerUnavailable        the broker did not take a wake-up
    |   +-- SealKeyUnavailable       the key that signs checkpoints is missing or unreadable
    |   +-- SinkUnavailable          a place outside of the database did not take a checkpoint
    +-- ExecutionError               a restart went wrong
        +-- TransientError           worth another try inside the same cycle
        +-- PermanentError           no retry can help
        +-- UnknownOutcome           it may or may not have happened
        +-- ReadinessTimeout         not ready before the cycle's deadline
        +-- ExecutionCancelled       the worker was told to stop

An error's text is a sentence a person can act on: what is wrong, with which
thing, what to do. Decisions are return values, never exceptions.
"""

from collections.abc import Sequence


class OrchestratorError(Exception):
    """Base of all errors raised on purpose."""


class InvalidInput(OrchestratorError):
    """A value was refused. ``field`` names it as the caller wrote it, or is empty."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidTarget(InvalidInput):
    """An executor refuses the target that a workspace names."""


class UnknownExecutor(InvalidInput):
    """No executor of that name is installed in this process."""


class Unauthenticated(OrchestratorError):
    """What was asked for needs a key, and none came, or one that is not valid: ``reason``.

    ``caller`` is who came, where the key is known and over.
    """

    def __init__(self, message: str, *, reason: str = "unknown", caller: str = "unauthenticated") -> None:
        super().__init__(message)
        self.reason, self.caller = reason, caller


class Forbidden(OrchestratorError):
    """Who asks is known, and may not do this. ``needs`` is the scope that is missing; ``near``: as of ``NotFound``."""

    def __init__(self, message: str, *, needs: str = "", near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.needs, self.near = needs, near


class RateExceeded(OrchestratorError):
    """A key has used up what it may ask for now; nothing was stored. Time will help: ``retry_after_s``."""

    def __init__(self, message: str, *, retry_after_s: int, policy: str = "", left: str = "") -> None:
        super().__init__(message)
        self.retry_after_s, self.policy, self.left = retry_after_s, policy, left


class NotFound(OrchestratorError):
    """The named thing does not exist. ``near``: names that may have been meant, of what the caller may read."""

    def __init__(self, message: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.near = near


class Conflict(OrchestratorError):
    """The thing exists, in a state that forbids what was asked."""


class KeyReused(Conflict):
    """An idempotency key, or a (source, id), came again with another body."""


class NotSealedYet(Conflict):
    """The events are in the log, and the next checkpoint will prove it."""


class SealRefused(Conflict):
    """What is stored does not fit what was sealed before, so signing it would make a forgery true."""


class PreconditionFailed(OrchestratorError):
    """``If-Match`` names a version that is not the current one."""


class Unreadable(OrchestratorError):
    """The database holds something that this version cannot read: written by a newer version, or damaged.

    Not ``Unavailable``: it is about one event or one row, which ``table`` and ``id`` name; the others are served.
    """

    def __init__(self, message: str, *, table: str = "", id: str = "") -> None:
        super().__init__(message)
        self.table, self.id = table, id


class Unavailable(OrchestratorError):
    """Something this process needs does not answer now; trying again may help."""


class StorageUnavailable(Unavailable):
    """The database is unreachable, locked for too long, full or read-only."""


class RolledBack(StorageUnavailable):
    """The database answered and refused a transaction, a lock's wait that was over, say: nothing of it is stored."""


class Overloaded(Unavailable):
    """More units wait for a commit than may wait. Nothing was stored; trying again in a moment may help."""


class TimedOut(RolledBack):
    """The database answers, and has ended one statement for its time, or for its wait for a row.

    What that statement was about is slow or held by somebody; about everything else nothing is said.
    """


class MigrationsPending(Unavailable):
    """The database's schema is not the one this version was written for."""


class BeyondMigration(MigrationsPending):
    """A newer version's database, two revisions or more ahead, or one that is not this product's at all."""


class BrokerUnavailable(Unavailable):
    """The broker did not take a wake-up. Nothing is lost: the next tick rings again."""


class SealKeyUnavailable(Unavailable):
    """The key that signs checkpoints is missing or unreadable. Writes and restarts go on; the log is not sealed."""


class SinkUnavailable(Unavailable):
    """A folder or webhook did not take a checkpoint. It is offered again at the next seal."""


class ExecutionError(OrchestratorError):
    """A restart went wrong; the subclass says what may be done about it."""


class TransientError(ExecutionError):
    """Trying again inside the same cycle may help (CONTRACT section 2, ``max_attempts``)."""


class PermanentError(ExecutionError):
    """No retry can help: the restart is given up at once."""


class UnknownOutcome(ExecutionError):
    """The call may or may not have had its effect; the next attempt acts again."""


class ReadinessTimeout(ExecutionError):
    """The workspace was not ready before the cycle's deadline."""


class ExecutionCancelled(ExecutionError):
    """The worker was told to stop, or lost its lease, while the executor worked."""
