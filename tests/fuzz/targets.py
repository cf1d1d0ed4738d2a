"""Every decoder that reads what others wrote: it refuses in its own words, or it answers; all else is a finding."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.api.protocol.bodies import JSON, decode_json
from orchestrator.api.protocol.cursors import Paging
from orchestrator.api.protocol.names import check_storable
from orchestrator.api.protocol.write_bodies import NDJSON, read_write, sort_batch
from orchestrator.api.routes.stream import _start
from orchestrator.audit.verify.checkpoint import open_checkpoint, parse_checkpoint
from orchestrator.audit.verify.evidence import verify_bundle
from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.run import Verification
from orchestrator.audit.verify.signed_note import NoteRefused, parse_public_keys, parse_signing_keys
from orchestrator.domain.durations import format_duration, parse_duration
from orchestrator.domain.policy import parse_policy, render_policy
from orchestrator.errors import OrchestratorError
from tests.audit.sealed import KEY
from tests.fuzz.seeds import seed

PAGING = Paging(name="restarts", filters={"workspace": "ws"})
KEYS = [KEY.public]


@dataclass(frozen=True)
class Target:
    """A decoder, what it may raise, and inputs that it takes."""

    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Sequence[bytes]

    def try_(self, given: bytes) -> bool:
        """Return whether it was taken; raises whatever the decoder may not raise."""
        try:
            self.decode(given)
        except self.refusals:
            return False
        return True


def _text(given: bytes) -> str:
    """As a server decodes a header or a query: every byte is some character."""
    return given.decode("latin-1")


def _body(given: bytes) -> None:
    check_storable(decode_json(given))


def _duration(given: bytes) -> None:
    text = given.decode("utf-8", "surrogateescape")
    ms = parse_duration(text)
    assert parse_duration(format_duration(ms)) == ms


def _policy(given: bytes) -> None:
    plain = decode_json(given)
    if isinstance(plain, dict):
        check_storable(plain)
        patch = parse_policy(plain)
        assert parse_policy(render_policy(patch)) == patch


def _cursor(kind: type[int] | type[str]) -> Callable[[bytes], None]:
    def decode(given: bytes) -> None:
        place = PAGING.place(_text(given), kind)
        assert place is not None
        assert PAGING.place(PAGING.cursor(place), kind) == place

    return decode


def _export(given: bytes) -> None:
    verification = Verification()
    verification.read(read_lines(io.BytesIO(given)))
    msgspec.json.encode(verification.report("fuzz"))


def _bundle(given: bytes) -> None:
    msgspec.json.encode(verify_bundle(given, KEYS).findings)


TARGETS: Mapping[str, Target] = {
    "JSON body": Target(_body, (OrchestratorError,), seed("policy", "write", "deep")),
    "write": Target(lambda given: read_write(given, "ws", None), (OrchestratorError,), seed("write")),
    "batch": Target(lambda given: sort_batch(JSON, given, None), (OrchestratorError,), seed("batch")),
    "NDJSON batch": Target(lambda given: sort_batch(NDJSON, given, None), (OrchestratorError,), seed("ndjson")),
    "cursor of positions": Target(_cursor(int), (OrchestratorError,), [PAGING.cursor(7).encode()]),
    "cursor of names": Target(_cursor(str), (OrchestratorError,), [PAGING.cursor("ws").encode()]),
    "Last-Event-ID": Target(lambda given: _start(_text(given), None, 9), (OrchestratorError,), seed("position")),
    "duration": Target(_duration, (OrchestratorError,), seed("duration")),
    "policy": Target(_policy, (OrchestratorError,), seed("policy")),
    "checkpoint": Target(lambda given: open_checkpoint(given, KEYS), (NoteRefused,), seed("note")),
    "checkpoint's text": Target(lambda given: parse_checkpoint(_text(given)), (NoteRefused,), seed("checkpoint")),
    "public keys": Target(lambda given: parse_public_keys(_text(given)), (NoteRefused,), seed("public")),
    "key file": Target(lambda given: parse_signing_keys(_text(given)), (NoteRefused,), seed("private")),
    "evidence": Target(_bundle, (), seed("bundle")),
    "export": Target(_export, (), seed("export")),
}
"""By name."""
