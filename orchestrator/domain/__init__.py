"""The pure core: no clock, no I/O, no framework. Time, ids and randomness are passed in.

The words (CONTRACT section 1), the same in files, tables, logs, metrics and the API:

workspace
    a thing that can be restarted: an id, a fleet, labels, an executor and its target
write
    one accepted file-write event, a fact
trigger
    what asks for a restart: a ``write``, or a request: ``mutation``, ``manual``, ``probe``
fold
    taking writes and requests into a restart: when it is queued, and again at every start of
    one of its cycles. Nothing is ever dropped
window
    the writes and requests of a workspace since the last fold
due
    the instant at which a window may be folded
restart
    the job that the coalescer folds one window into; a workspace has at most one unsettled
cycle
    one execution of a restart by a worker; a retry is another cycle of the same restart
drain loop
    the worker's loop: cycle after cycle while one is due, each start re-stamped
cover
    a write is covered when a cycle that started after it has succeeded
waive
    to end a write or request without a restart, by a named rule or person
lease, fence
    the right to run a workspace's cycle until an instant; the number that grows at every claim
tick
    one look by the coalescer, fired by Celery beat

Where to change what: ``events`` the facts and decisions; ``policy`` the numbers; ``state`` what a
workspace's events fold into; ``due`` when a window may be folded; ``decide`` the rules; ``evolve``
the fold; ``restart_projection`` the read model of one restart; ``paths`` path rules; ``explain`` the
sentence that says why.
"""
