"""Good inputs, made by the product itself, from which bad ones are made."""

from __future__ import annotations

import json
from functools import cache

from tests.audit.sealed import KEY, sealed
from tests.history import History, TestClock
from tests.memory_store.store import MemoryEventStore

_WRITE = {"path": "src/app.py", "op": "modified", "id": "save-1", "occurred_at": "2026-11-23T12:00:00Z", "size": 12}
_POLICY = {
    "quiet": "2s",
    "max_wait": "1m30s",
    "max_count": 5,
    "edge": "leading",
    "rules": [{"match": ["*.md", "!README.md"], "action": "record", "quiet": "1s"}],
}
_NESTED = 400


def seed(*names: str) -> list[bytes]:
    """Return the good inputs of these kinds."""
    return [given for name in names for given in _all()[name]]


@cache
def _all() -> dict[str, list[bytes]]:
    clock = TestClock()
    history = History(MemoryEventStore(clock), clock)
    restart = _short(history)
    log = sealed(history.store)
    write, batched = json.dumps(_WRITE).encode(), json.dumps({**_WRITE, "workspace": "ws"}).encode()
    note = log.note()
    checkpoint = note.partition("\n\n")[0] + "\n"
    return {
        "write": [write, rb'{"path": "a\ud800b"}'],
        "batch": [b"[%s,%s]" % (batched, batched)],
        "ndjson": [b"%s\n\n%s\n" % (batched, batched)],
        "policy": [json.dumps(_POLICY).encode()],
        "deep": [b"[" * _NESTED + b"]" * _NESTED, b'{"a":' * _NESTED + b"1" + b"}" * _NESTED],
        "position": [b"7", b"0" * 5_000, b"9" * 19],
        "duration": [b"1m30s", b"15s", b"0.25", b"1e3"],
        "note": [note.encode()],
        "checkpoint": [checkpoint.encode()],
        "public": [f"{KEY.public.line()}\n".encode()],
        "private": [f"# a key\n{KEY.line()}\n".encode()],
        "bundle": [log.bundle(restart).encode()],
        "export": ["".join(f"{line}\n" for line in log.lines).encode()],
    }


def _short(history: History) -> str:
    """A restart with a failure, in a log of a few events."""
    history.register(quiet="2s", min_interval="1s")
    history.write("a", "b")
    history.at(5)
    restart = history.queued()
    history.start()
    history.fail("no")
    history.at(900)
    history.start()
    history.succeed()
    return restart
