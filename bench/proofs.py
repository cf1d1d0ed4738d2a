"""Verifying an export, and sealing a log: each against a loop that does nothing but read and hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.ratios import Bar, LogIsNotGood, Ratio, Run
from bench.statements import DATA, change, whole_log
from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.run import Verification
from orchestrator.audit.verify.signed_note import make_key
from orchestrator.history.export import export
from orchestrator.ports.store import EventStore
from orchestrator.sealing.seal import Signing, seal_next
from orchestrator.storage.opening import open_store

_TICK_US = 1_000_000
_SLOTS = 1_000
_SIGNING = Signing(keys=(make_key("bench", bytes(32)),))
_UNSEAL = ("DELETE FROM merkle_tiles", "DELETE FROM checkpoints")


def measure_verify(run: Run) -> Iterator[Ratio]:
    """Measure the verification of a file, which is the same whatever database it is from."""
    with closing(open_store(run.url)) as store, TemporaryDirectory() as folder:
        exported = Path(folder) / "export.ndjson"
        with exported.open("w", encoding="utf-8", newline="\n") as file:
            export(store, file.write)
        times = run.in_turns([partial(_verify, exported)], [partial(_parse, exported)], rounds=run.passes)
        yield _ratio("verify a file", "file", times, "parse and hash its lines", 0.3)


def measure_seal(run: Run) -> Iterator[Ratio]:
    """Measure sealing the whole log; what it stores is taken away again."""
    unseal = partial(change, run.url, _UNSEAL)
    with closing(open_store(run.url)) as store:
        try:
            times = run.in_turns([partial(_seal, store)], [partial(_hash, run.url)], rounds=run.passes, before=unseal)
        finally:
            unseal()
        yield _ratio("seal", run.database, times, "read rows, hash their data", 0.5)


def _ratio(what: str, database: str, times: tuple[float, float], against: str, limit: float) -> Ratio:
    return Ratio(
        what=what,
        database=database,
        ours_s=times[0],
        against=against,
        other_s=times[1],
        bar=Bar.SPEED_AT_LEAST,
        limit=limit,
    )


def _verify(exported: Path) -> None:
    verification = Verification(tick_us=_TICK_US, slots=_SLOTS)
    with exported.open("rb") as file:
        verification.read(read_lines(file))
    report = verification.report(exported.name)
    if not report.good:
        raise LogIsNotGood(f"the log breaks a promise: {report.violations[0].text}")


def _parse(exported: Path) -> None:
    decode, sha256 = msgspec.json.Decoder().decode, hashlib.sha256
    with exported.open("rb") as file:
        for line in file:
            decode(line)
            sha256(line).digest()


def _seal(store: EventStore) -> None:
    while seal_next(store, _SIGNING) is not None:
        pass


def _hash(url: str) -> None:
    """Read the rows that a seal reads, and hash the stored data as it is."""
    sha256 = hashlib.sha256
    for page in whole_log(url):
        for row in page:
            sha256(row[DATA].encode()).digest()
