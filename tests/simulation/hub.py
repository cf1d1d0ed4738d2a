"""One seeded heap that is scheduler and clock: simulated processes whose threads are greenlets.

A thread runs until it reaches a boundary or a wait, where it gives control back; nothing runs beside it. So one
seed gives one history, and idle time costs nothing. A killed process gets ``Killed`` thrown into each of its
threads, and every further boundary of it raises again: what ``finally`` blocks do cannot reach the world.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from greenlet import greenlet

SECOND = 1_000_000


class Killed(BaseException):
    """The process of this thread is dead. Not an ``Exception``: nothing in the product may catch it."""


class Process:
    """One incarnation of an operating-system process: killed for good, or frozen for a while."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = sum(name.encode())  # not hash(): the order of names must be the same in every run
        self.dead = False
        self.frozen = False
        self.parked: list[_Wake] = []
        self.threads: dict[Thread, None] = {}


class Thread:
    """A greenlet, and whether it waits: ``ticket`` grows with every wake-up, so that an old timer finds nobody."""

    __slots__ = ("done", "greenlet", "name", "process", "ticket", "work")

    def __init__(self, process: Process, name: str, work: Callable[[], object]) -> None:
        self.process, self.name, self.work = process, name, work
        self.greenlet: greenlet | None = None
        self.ticket = 0
        self.done = False


_Wake = tuple[int, int, Thread | None, int, bool, Callable[[], None] | None]
"""A due wake-up: when and in what order, of a thread (with its ticket and what its wait returns) or a call of the
world's own. A plain tuple: a run makes a thousand, and one with names takes ten times as long to make (measured).
"""


class Hub:
    """Time in whole microseconds since the run began."""

    def __init__(self) -> None:
        self.now = 0
        self.current: Thread | None = None
        self.raised: list[tuple[Thread, Exception]] = []
        self._heap: list[_Wake] = []
        self._order = count()
        self._until = 0
        self._home = greenlet.getcurrent()
        self._spare: list[greenlet] = []
        """Those whose threads have ended: a new one costs 8 us (measured), as its stack is mapped and unmapped."""

    def call_at(self, at: int, call: Callable[[], None]) -> None:
        """Call something of the world's at that time; it must not wait."""
        heappush(self._heap, (at if at > self.now else self.now, next(self._order), None, 0, False, call))

    def spawn(self, process: Process, work: Callable[[], object], name: str = "thread") -> Thread:
        """Start a thread of a process; it runs when the caller next gives control back."""
        thread = Thread(process, name, work)
        process.threads[thread] = None
        heappush(self._heap, (self.now, next(self._order), thread, 0, False, None))
        return thread

    def _serve(self, thread: Thread) -> None:
        """Carry out one thread after the other, all in the same greenlet."""
        while True:
            self._work(thread)
            self._spare.append(greenlet.getcurrent())
            thread = self._home.switch()

    def _work(self, thread: Thread) -> None:
        try:
            if not thread.process.dead:
                thread.work()
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 (a thread of the product that dies is a finding)
            self.raised.append((thread, error))
        finally:
            thread.done = True
            thread.process.threads.pop(thread, None)

    def run(self, until: int) -> None:
        """Run everything that is due up to that time, and set the clock to it."""
        heap, self._until = self._heap, until
        while heap and heap[0][0] <= until:
            wake = heappop(heap)
            self.now, _, thread, ticket, _, call = wake
            if thread is None:
                if call is not None:
                    call()
            elif not thread.done and thread.ticket == ticket:
                self._resume(thread, wake)
        self.now = until

    def _resume(self, thread: Thread, wake: _Wake) -> None:
        process = thread.process
        if process.frozen and not process.dead:
            process.parked.append(wake)
            return
        thread.ticket += 1
        self.current = thread
        if thread.greenlet is None:
            thread.greenlet = self._spare.pop() if self._spare else greenlet(self._serve, self._home)
            thread.greenlet.switch(thread)
        elif process.dead:
            thread.greenlet.throw(Killed)
        else:
            thread.greenlet.switch(wake[4])
        self.current = None

    def close(self) -> None:
        """Let go of the greenlets; all threads must have ended."""
        while self._spare:
            self._spare.pop().throw()

    def wait(self, timeout: int | None) -> bool:
        """Give control back until ``wake`` (True) or until ``timeout`` microseconds are over (False).

        Raises ``Killed`` if the process was killed meanwhile.
        """
        thread, heap = self.current, self._heap
        if thread is None:
            raise RuntimeError("only a simulated thread can wait")
        if thread.process.dead:
            raise Killed
        if timeout is not None:
            at = self.now + timeout
            if at <= self._until and not thread.process.frozen and (not heap or heap[0][0] > at):
                self.now = at  # nothing else is due before: the turn would come straight back
                thread.ticket += 1
                return False
            heappush(heap, (at, next(self._order), thread, thread.ticket, False, None))
        woken: bool = self._home.switch()
        if thread.process.dead:
            raise Killed
        return woken

    def wake(self, thread: Thread) -> None:
        """End the wait of a thread now."""
        heappush(self._heap, (self.now, next(self._order), thread, thread.ticket, True, None))

    def freeze(self, process: Process, length: int) -> None:
        """Let a process stand still, as ``SIGSTOP`` does. A caller that is one of its threads waits next."""
        process.frozen = True
        self.call_at(self.now + length, lambda: self.thaw(process))

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        process.frozen = False
        parked, process.parked = process.parked, []
        for _, _, thread, ticket, value, call in parked:
            heappush(self._heap, (self.now, next(self._order), thread, ticket, value, call))

    def kill(self, process: Process) -> None:
        """End a process at once, as ``kill -9`` does. A caller that is one of its threads raises ``Killed`` next."""
        process.dead = True
        for thread in process.threads:
            if thread is not self.current:
                heappush(self._heap, (self.now, next(self._order), thread, thread.ticket, False, None))

    def move(self, process: Process) -> Process:
        """Let the current thread go on inside of another process (a request in its server); return the one it left."""
        thread = self.current
        if thread is None:
            raise RuntimeError("only a simulated thread can move")
        left, thread.process = thread.process, process
        left.threads.pop(thread, None)
        process.threads[thread] = None
        return left
