"""The evidence of one restart: a JSON document that proves, offline and to anybody, what the log says of it.

A bundle names the log's origin and the restart, and holds a signed checkpoint and events, each as the exact line of
the export, with its leaf index and its inclusion proof. It holds, by position,

- the decision before the first one of the range (the workspace's versions are 1, 2, 3, ..., so it shows that none was
  left out at the beginning), unless the range begins with version 1;
- every event of the workspace from the range's ``from_position`` to the event that settled the restart, and to
  ``WritesWaived`` where it was cancelled. Facts that are no writes to be answered may be left out.

Whoever holds a bundle and not the signing key can change nothing in it unseen. An edited line, swapped lines or a line
of another log fail their proof. A checkpoint that is older than the events has no leaf for them. A decision left out is
a gap in the versions. A write or request left out is missing from the counts that ``RestartQueued``, ``CycleStarted``,
``CycleSucceeded`` and ``WritesWaived`` record. A cut end leaves the restart unsettled. Another restart's bundle does
not tell of the one that is named; so ask for the restart that you mean (``restart=``), since a bundle whose name was
changed together with its content is simply the honest bundle of another.

What it cannot show: that facts without a version (recorded-only writes, suppressed probes) were not left out; decisions
after the settlement (late results, which change nothing); that the checkpoint is the newest; and that the log told the
truth when it sealed the events. For the first and the last verify the whole export (CONTRACT section 4).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint
from orchestrator.audit.verify.finding import Fault, Finding
from orchestrator.audit.verify.merkle import is_included, leaf_hash
from orchestrator.audit.verify.restart_evidence import Event, check_restart
from orchestrator.audit.verify.signed_note import NoteRefused, PublicKey

FORMAT = "restart-orchestrator/evidence@1"
"""The name of the document's format; another one is refused."""

NOT_SHOWN = (
    "facts without a version, like recorded-only writes and suppressed probes, may have been left out",
    "decisions after the restart was settled, like late results, are not looked for",
    "a newer checkpoint may exist",
)
"""What no bundle can show, in sentences for a person."""


@dataclass(frozen=True)
class Exhibit:
    """One event in a bundle: its leaf index, its line of the export without the line feed, its inclusion proof."""

    index: int
    line: str
    proof: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a bundle shows. It is good if there are no findings; the first one comes first.

    ``checkpoint`` is None where its note cannot be believed. ``proven`` counts the events that are in its tree.
    """

    restart: str | None
    checkpoint: Checkpoint | None
    proven: int
    findings: tuple[Finding, ...]


class _Exhibit(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    line: str
    proof: list[str]


class _Bundle(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    origin: str
    restart: str
    checkpoint: str
    events: list[_Exhibit]


def write_bundle(origin: str, restart: str, note: str, exhibits: Iterable[Exhibit]) -> str:
    """Return the document. ``note`` is the signed checkpoint whose tree the proofs are for."""
    events = [_Exhibit(item.index, item.line, [b64encode(step).decode() for step in item.proof]) for item in exhibits]
    return msgspec.json.encode(_Bundle(FORMAT, origin, restart, note, events)).decode() + "\n"


def verify_bundle(text: str | bytes, public_keys: Iterable[PublicKey], restart: str | None = None) -> Verdict:
    """Return what is wrong with a bundle; nothing is read but its text. Never raises for a bad one.

    ``restart``: the one it must tell of; None accepts the one that it names. A bundle whose note or proofs are bad is
    not judged further, since everything else rests on them.
    """
    bundle = _parsed(text)
    if isinstance(bundle, Finding):
        return Verdict(restart=None, checkpoint=None, proven=0, findings=(bundle,))
    try:
        checkpoint = open_checkpoint(bundle.checkpoint, public_keys)
    except NoteRefused as refused:
        found = Finding(Fault(refused.fault.value), f"checkpoint: {refused}")
        return Verdict(restart=bundle.restart, checkpoint=None, proven=0, findings=(found,))
    findings = [*_names(bundle, checkpoint, restart)]
    unproven = _unproven(bundle.events, checkpoint)
    proven = len(bundle.events) - len(unproven)
    if unproven:
        findings.append(_unproven_finding(unproven, checkpoint))
    else:
        findings += _told(bundle)
    return Verdict(restart=bundle.restart, checkpoint=checkpoint, proven=proven, findings=tuple(findings))


def _parsed(text: str | bytes) -> _Bundle | Finding:
    try:
        bundle = msgspec.json.decode(text, type=_Bundle)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
        return Finding(Fault.MALFORMED, f"not a bundle of evidence: {wrong}")
    if bundle.format != FORMAT:
        return Finding(Fault.MALFORMED, f"the format is {bundle.format!r}; this program reads {FORMAT}")
    return bundle


def _names(bundle: _Bundle, checkpoint: Checkpoint, restart: str | None) -> Iterable[Finding]:
    if bundle.origin != checkpoint.origin:
        yield Finding(
            Fault.WRONG_ORIGIN,
            f"the bundle is said to be of {bundle.origin!r}, its checkpoint is of {checkpoint.origin!r}",
        )
    if restart is not None and restart != bundle.restart:
        yield Finding(Fault.WRONG_RESTART, f"the bundle tells of {bundle.restart!r}, not of {restart!r}")


def _unproven(events: Sequence[_Exhibit], checkpoint: Checkpoint) -> list[_Exhibit]:
    return [item for item in events if not _is_proven(item, checkpoint)]


def _is_proven(item: _Exhibit, checkpoint: Checkpoint) -> bool:
    try:
        proof = [b64decode(step, validate=True) for step in item.proof]
        leaf = leaf_hash(item.line.encode())
    except (binascii.Error, ValueError):
        return False
    if [b64encode(step).decode() for step in proof] != item.proof:
        return False  # another spelling of the same bytes
    return is_included(leaf, item.index, checkpoint.size, proof, checkpoint.root)


def _unproven_finding(unproven: Sequence[_Exhibit], checkpoint: Checkpoint) -> Finding:
    """Name the first event whose proof fails; its position is what its own line says, which nobody vouches for."""
    first = unproven[0]
    event = _event(first)
    position = event.position if isinstance(event, Event) else None
    more = f" (and {len(unproven) - 1} more)" if len(unproven) > 1 else ""
    if first.index >= checkpoint.size:
        message = (
            f"leaf {first.index} is not in the checkpoint, whose tree has {checkpoint.size} leaves{more}: "
            "the checkpoint is older than the event"
        )
        return Finding(Fault.NOT_SEALED, message, position)
    message = f"the line is not leaf {first.index} of the checkpoint's tree{more}: line, index or proof were altered"
    return Finding(Fault.NOT_INCLUDED, message, position)


def _told(bundle: _Bundle) -> list[Finding]:
    events: list[Event] = []
    for item in bundle.events:
        event = _event(item)
        if isinstance(event, Finding):
            return [event]
        events.append(event)
    disorder = _disorder(bundle.events, events)
    return [disorder] if disorder is not None else check_restart(bundle.restart, events)


def _event(item: _Exhibit) -> Event | Finding:
    try:
        return msgspec.json.decode(item.line, type=Event)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
        return Finding(Fault.MALFORMED, f"leaf {item.index} is not an event of the log: {wrong}")


def _disorder(exhibits: Sequence[_Exhibit], events: Sequence[Event]) -> Finding | None:
    """Find the first event that does not come after the one before it, by index, position and recorded time.

    An index is an event's rank by position, and positions may have gaps, so positions rise at least as fast.
    """
    index, position, recorded_at = -1, 0, ""
    for item, event in zip(exhibits, events, strict=True):
        if item.index <= index or event.position - position < item.index - index or event.recorded_at < recorded_at:
            message = (
                f"position {event.position} (leaf {item.index}) does not come after position {position} (leaf {index})"
            )
            return Finding(Fault.OUT_OF_ORDER, message, event.position)
        index, position, recorded_at = item.index, event.position, event.recorded_at
    return None
