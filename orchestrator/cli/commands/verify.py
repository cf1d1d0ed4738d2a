"""``orchestrator audit verify``: does the log keep every promise of CONTRACT section 4?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from orchestrator.audit.verify.checkpoint import Checkpoint, open_checkpoint
from orchestrator.audit.verify.database import Database, SourceUnavailable
from orchestrator.audit.verify.evidence import FORMAT, verify_bundle
from orchestrator.audit.verify.ledger import Ledger, load, save
from orchestrator.audit.verify.lines import read_lines
from orchestrator.audit.verify.report import Promise
from orchestrator.audit.verify.run import Verification
from orchestrator.audit.verify.sealed_roots import SealCheck
from orchestrator.audit.verify.signed_note import NoteFault, NoteRefused, PublicKey, parse_public_keys
from orchestrator.cli.reading.database import reading
from orchestrator.cli.terminal.options import Data, DatabaseUrl, Json
from orchestrator.cli.terminal.output import emit_json, note
from orchestrator.cli.terminal.progress import Bar
from orchestrator.cli.terminal.verdicts import tell, tell_bundle
from orchestrator.domain.durations import parse_duration
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.history.replay import replay
from orchestrator.replace_file import replace_file
from orchestrator.settings import load_settings

_FOUND_WRONG = 1
_HEAD = 4_096


def verify_command(  # noqa: PLR0913 (each is an option)
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|URL]",
            help="An export, `-` for stdin, an evidence bundle, or a database; else --database-url.",
        ),
    ] = None,
    *,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Signed checkpoint that the log must bear out (S8).")
    ] = None,
    pubkey: Annotated[Path | None, typer.Option(metavar="FILE", help="Public keys that sign checkpoints.")] = None,
    tick: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How often the coalescer looked: checks L1 and L2 too.")
    ] = None,
    slots: Annotated[
        int, typer.Option(min=1, metavar="N", help="Cycles at once before a start waits its turn (L1, L2).")
    ] = 1,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STATE|POSITION", help="Go on from a saved state, or report only what is later."
        ),
    ] = None,
    save_to: Annotated[
        Path | None, typer.Option("--save", metavar="STATE", help="Save where the next run goes on.")
    ] = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data: Data = None,
) -> None:
    """Check every promise that a log can show, in one pass, with nothing of the engine that wrote it.

    Exits with 1 if one is broken, or if the file is no whole log. What was not checked is listed as that.
    """
    keys = _public_keys(pubkey)
    if checkpoint and not keys:
        raise InvalidInput("--checkpoint: a checkpoint is believed only with a key; name the file by --pubkey")
    ledger, after = _beginning(begin)
    refused: list[str] = []
    checkpoints = _checkpoints(checkpoint or [], keys, refused)
    on_file = source is not None and "://" not in source
    seal = SealCheck(checkpoints) if checkpoint and (on_file or ledger is None) else None
    verification = Verification(ledger=ledger, after=after, tick_us=_microseconds(tick), slots=slots, seal=seal)
    if checkpoint and seal is None:
        verification.not_checked[Promise.S8] = "a saved state does not hold what is sealed; run without --from"
    for text in refused:
        verification.add(Promise.S8, (), text)
    if on_file:
        name = _verify_file(source or "", verification, keys, as_json=as_json)
    else:
        name = _verify_database(source or database_url, data, verification, whole=begin is None)
    verification.finish()
    report = verification.report(name)
    if save_to is not None:
        _save(verification, save_to)
    if as_json:
        emit_json(msgspec.to_builtins(report))
    else:
        tell(report)
    if not report.good:
        raise typer.Exit(_FOUND_WRONG)


def _verify_file(source: str, verification: Verification, keys: list[PublicKey], *, as_json: bool) -> str:
    with _opened(source) as (file, size, name), Bar("verifying") as bar:
        if file.seekable() and FORMAT.partition("@")[0].encode() in file.read(_HEAD):
            file.seek(0)
            _verify_bundle(file.read(), keys, name, as_json=as_json)
        if file.seekable():
            file.seek(0)
        verification.read(read_lines(file, lambda read: bar.move(read, size)))
    return name


def _verify_bundle(text: bytes, keys: list[PublicKey], name: str, *, as_json: bool) -> None:
    """Answer for an evidence bundle, and leave."""
    if not keys:
        raise InvalidInput(f"{name} is an evidence bundle, believed only with a key; name the file by --pubkey")
    verdict = verify_bundle(text, keys)
    tell_bundle(verdict, name, as_json=as_json)
    raise typer.Exit(_FOUND_WRONG if verdict.findings else 0)


@contextmanager
def _opened(source: str) -> Iterator[tuple[BinaryIO, int, str]]:
    if source == "-":
        yield sys.stdin.buffer, 0, "stdin"
        return
    try:
        with Path(source).open("rb") as file:
            yield file, Path(source).stat().st_size, source
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}") from None


def _verify_database(url: str | None, data: Path | None, verification: Verification, *, whole: bool) -> str:
    begin = max(0, verification.ledger.position - 1)
    try:
        database = Database(load_settings(database_url=url, data=data).url)
        try:
            with Bar("verifying") as bar:
                last = database.last_position()
                verification.read(database.lines(begin, last, lambda position: bar.move(position, last)))
        finally:
            database.close()
    except SourceUnavailable as error:
        raise InvalidInput(f"{error}; `orchestrator doctor` says what is wrong with a database") from None
    if whole:
        _check_replay(url, data, verification)
    else:
        verification.not_checked[Promise.S10] = "needs the whole log; run without --from"
    return database.name


def _check_replay(url: str | None, data: Path | None, verification: Verification) -> None:
    """S10 is the engine's own fold against its own tables, so the engine is asked."""
    last = (verification.ledger.position,)
    try:
        with reading(url, data) as store, Bar("replaying") as bar:
            report = replay(store, bar.move)
    except OrchestratorError as error:
        verification.not_checked[Promise.S10] = str(error)
        return
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The engine's fold trusts its own log; whatever it stumbles over, this log is not one that it can fold.
        verification.add(Promise.S10, last, f"the log cannot be folded: {type(error).__name__}: {error}")
        return
    verification.not_checked.pop(Promise.S10, None)
    for difference in report.differences:
        text = f"the row {difference.id} of {difference.table} is not what folding the log gives"
        verification.add(Promise.S10, last, text, difference.id if difference.table == "workspaces" else None)


def _public_keys(path: Path | None) -> list[PublicKey]:
    if path is None:
        return []
    try:
        return list(parse_public_keys(path.read_text()))
    except OSError as error:
        raise InvalidInput(f"--pubkey: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"--pubkey: {path}: {error}") from None


_OTHER_KEY = (
    "; if the --pubkey is the wrong one, nothing was checked against this checkpoint: give that of the key that signed"
    " it, which you have from the log's owner and not from whoever gave you the checkpoint"
)


def _checkpoints(paths: list[Path], keys: list[PublicKey], refused: list[str]) -> list[Checkpoint]:
    """Return the checkpoints that can be believed; say of the others why not."""
    found = []
    for path in paths:
        try:
            found.append(open_checkpoint(path.read_bytes(), keys))
        except OSError as error:
            raise InvalidInput(f"--checkpoint: {path} cannot be read: {error.strerror}") from None
        except NoteRefused as error:
            hint = _OTHER_KEY * (error.fault is NoteFault.WRONG_KEY)
            refused.append(f"the checkpoint {path} cannot be believed: {error}{hint}")
    return found


def _beginning(begin: str | None) -> tuple[Ledger | None, int]:
    """Return the saved state, or the position from which on violations are reported."""
    if begin is None:
        return None, 0
    if begin.isascii() and begin.isdigit():
        return None, int(begin)
    try:
        return load(Path(begin).read_bytes()), 0
    except OSError as error:
        raise InvalidInput(f"--from: {begin} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"--from: {begin}: {error}") from None


def _microseconds(tick: str | None) -> int | None:
    return None if tick is None else parse_duration(tick, field="--tick") * 1_000


def _save(verification: Verification, path: Path) -> None:
    """Save where to go on; not from a log that could not be read to its end."""
    if not verification.read_to_end:
        note(f"{path} was not written: the log could not be read to its end")
        return
    try:
        replace_file(path, save(verification.ledger))
    except OSError as error:
        raise InvalidInput(f"--save: cannot write {path}: {error.strerror}") from None
