"""The formats of an export. NDJSON is the evidence: its lines are the canonical bytes that are hashed and sealed.

JSON is one array of the same objects. CSV is for spreadsheets (RFC 4180: a header row, CRLF, quotes doubled, UTF-8).
There a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab, a line break or an apostrophe gets an apostrophe
in front: a spreadsheet would run the first ones as formulas, and paths and names come from outside. Taking one
leading apostrophe away always gives the value back.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from orchestrator.domain.canonical_line import StoredEvent, canonical_line
from orchestrator.domain.encoding import to_plain
from orchestrator.domain.restart_projection import RestartProjection

Page = Sequence[StoredEvent] | Sequence[RestartProjection]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_encoder = msgspec.json.Encoder()


class Format(StrEnum):
    """How an export is written."""

    NDJSON = "ndjson"
    CSV = "csv"
    JSON = "json"


def encoded(pages: Iterable[Page], format_: Format, columns: Sequence[str]) -> Iterator[tuple[bytes, int]]:
    """Yield the pages in a format, each piece with how many rows it holds; ``columns`` are the header of CSV."""
    if format_ is Format.NDJSON:
        return ((b"\n".join([*_lines(page), b""]), len(page)) for page in pages)
    if format_ is Format.CSV:
        return _csv(pages, columns)
    return _array(pages)


def _array(pages: Iterable[Page]) -> Iterator[tuple[bytes, int]]:
    separator = b"[\n"
    for page in pages:
        yield separator + b",\n".join(_lines(page)), len(page)
        separator = b",\n"
    yield (b"[]\n" if separator == b"[\n" else b"\n]\n"), 0


def _csv(pages: Iterable[Page], columns: Sequence[str]) -> Iterator[tuple[bytes, int]]:
    yield _csv_rows([columns]), 0
    for page in pages:
        yield _csv_rows(_cells(row) for row in page), len(page)


def _csv_rows(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _lines(page: Page) -> list[bytes]:
    return [canonical_line(row) if isinstance(row, StoredEvent) else _encoder.encode(to_plain(row)) for row in page]


def _cells(row: StoredEvent | RestartProjection) -> list[object]:
    """Return a row's cells; nothing where there is no value, true and false as JSON has them."""
    if isinstance(row, StoredEvent):
        *envelope, data = msgspec.structs.astuple(row)
        return [*map(_cell, envelope), bytes(data).decode()]
    return [_cell(value) for value in to_plain(row).values()]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
