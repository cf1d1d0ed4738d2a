"""Starting a child that waits until its parent has written down who it is, and leaves if the parent dies first.

Between the fork and the record of the pid there is an instant in which a killed parent
would leave an orphan that nobody knows. So the child is first a small gate (our own Python,
10 to 20 ms): it reads what to become from a pipe, and a pipe that closes with less than all of
that makes it leave. ``preexec_fn`` could do the same, but is not safe in a process with threads.
"""

from __future__ import annotations

import marshal
import os
import selectors
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from orchestrator.errors import TransientError
from workers.supervision.launch import Launch, start_failure

# The environment travels through the pipe and not around the gate: a Python in the C locale
# adds LC_CTYPE to its own (PEP 538), and the program would inherit it. Python ignores
# SIGPIPE and SIGXFSZ and would hand that down as well.
_GATE = """
import marshal, os, signal, sys
orders, failures = int(sys.argv[1]), int(sys.argv[2])
with open(orders, "rb") as pipe:
    try:
        argv, env = marshal.load(pipe)
    except (EOFError, ValueError, TypeError):
        os._exit(125)
os.set_inheritable(failures, False)
for name in ("SIGPIPE", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
try:
    os.execvpe(argv[0], argv, env)
except OSError as error:
    os.write(failures, str(error.errno).encode())
os._exit(127)
"""
_OPEN_LIMIT_S = 10.0


@dataclass(frozen=True)
class GatedChild:
    """A child that leads its own session and waits at the gate. Its pid stays the same when it passes."""

    process: subprocess.Popen[bytes]
    launch: Launch
    payload: bytes
    orders: int
    failures: int

    def open(self) -> None:
        """Let it become its program.

        Raises ``PermanentError`` or ``TransientError`` if it cannot; the child has then ended or is about to.
        """
        try:
            self._send()
            self._await_program()
        finally:
            os.close(self.failures)

    def turn_away(self) -> None:
        """Close the gate: the child ends without having become anything."""
        os.close(self.orders)
        os.close(self.failures)
        self.process.wait()

    def _send(self) -> None:
        try:
            with open(self.orders, "wb") as pipe:
                pipe.write(self.payload)
        except BrokenPipeError as error:
            raise TransientError(f"the child that was to become {self.launch.argv[0]!r} was killed") from error

    def _await_program(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.failures, selectors.EVENT_READ)
            if not selector.select(_OPEN_LIMIT_S):
                raise TransientError(f"{self.launch.argv[0]!r} did not start within {_OPEN_LIMIT_S:.0f} s")
        answer = os.read(self.failures, 16)  # nothing: the program started, and the pipe closed with that
        if answer:
            code = int(answer)
            raise start_failure(self.launch.argv[0], OSError(code, os.strerror(code)))


def spawn_gated(launch: Launch, *, output: int | None) -> GatedChild:
    """Start a child that waits at the gate. ``output`` takes its stdout and stderr; None: our own.

    Raises ``PermanentError`` (no such ``cwd``) or ``TransientError``.
    """
    argv = [os.fsencode(part) for part in launch.argv]
    env = {os.fsencode(name): os.fsencode(value) for name, value in launch.env.items()}
    try:
        return _spawn(launch, marshal.dumps((argv, env)), output)
    except OSError as error:
        raise start_failure(launch.argv[0], error) from error


def _spawn(launch: Launch, payload: bytes, output: int | None) -> GatedChild:
    with ExitStack() as kept, ExitStack() as handed_on:
        orders_out, orders_in = os.pipe()
        handed_on.callback(os.close, orders_out)
        kept.callback(os.close, orders_in)
        failures_out, failures_in = os.pipe()
        handed_on.callback(os.close, failures_in)
        kept.callback(os.close, failures_out)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GATE, str(orders_out), str(failures_in)],
            cwd=launch.cwd,
            stdin=None if launch.inherits_stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(orders_out, failures_in),
            start_new_session=True,
        )
        kept.pop_all()
    return GatedChild(process=process, launch=launch, payload=payload, orders=orders_in, failures=failures_out)
