"""The same request again gives the same answer: ``Idempotency-Key`` (CONTRACT section 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from orchestrator.domain.encoding import canonical_json
from orchestrator.errors import KeyReused
from orchestrator.ports.transaction import StoredAnswer, Transaction

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, kw_only=True)
class RequestKey:
    """The caller's key, and a fingerprint of what it was sent with (method, path and body)."""

    key: str
    fingerprint: str


def keys_of(actor: str, request: RequestKey | None) -> list[tuple[str, str]]:
    """Return what ``once`` will look up."""
    return [] if request is None else [(actor, request.key)]


def _always(answer: object) -> bool:
    return True


def once(
    tx: Transaction,
    actor: str,
    request: RequestKey | None,
    kind: type[AnswerT],
    compute: Callable[[], AnswerT],
    *,
    keep: Callable[[AnswerT], bool] = _always,
) -> tuple[AnswerT, bool]:
    """Return the answer, and whether it was given before.

    The answer is kept in the transaction that has the effect, so neither exists without the other.
    ``keep`` says whether there was an effect at all.
    Raises ``KeyReused`` if the key came before with something else.
    """
    if request is None:
        return compute(), False
    stored = tx.answer(actor, request.key)
    if stored is None:
        answer = compute()
        if keep(answer):
            kept = StoredAnswer(fingerprint=request.fingerprint, answer=canonical_json(answer))
            tx.remember(actor, request.key, kept)
        return answer, False
    if stored.fingerprint != request.fingerprint:
        raise KeyReused(f"Idempotency-Key {request.key!r} was used before with another request; use a new key")
    return msgspec.json.decode(stored.answer, type=kind), True
