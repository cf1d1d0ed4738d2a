"""What is kept of the periodic verification of the log, and how it is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

VERIFIED_LOG = "log"
"""The name under which the whole log's verification is kept."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """How far the log was verified, and when by the database's clock. ``violations``: all ever found, by promise.

    ``imbalance`` is that of S2 at ``position``: always 0.
    """

    position: int
    violations: Mapping[str, int]
    imbalance: int
    verified_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredVerification(Verified):
    """With ``state``, from which the next run goes on: some hundred bytes for each workspace."""

    state: bytes


class VerificationStore(Protocol):
    """Writes it."""

    def save_verification(self, found: StoredVerification, *, expected_position: int | None) -> bool:
        """Keep a verification if the kept one still is at ``expected_position`` (None: there is none yet).

        Returns whether it was: of two at once one is refused.
        """
        ...


class Verifications(Protocol):
    """Reads it."""

    def verification(self) -> StoredVerification | None:
        """Return where the next run goes on; None if the log was never verified."""
        ...

    def verified(self) -> Verified | None:
        """Return the same without its state, for whoever only asks how it went."""
        ...
