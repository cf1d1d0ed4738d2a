"""A plug-in's executor that says its secret wherever it can: in what it raises, returns and calls its generation.

It is installed as what it is, a distribution with an entry point; nothing of the tests imports it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestrator.errors import InvalidTarget, PermanentError, ReadinessTimeout, TransientError, UnknownOutcome
from orchestrator.ports.executor import Order, Readiness, Receipt

METADATA = "Metadata-Version: 2.1\nName: leaky\nVersion: 1\n"
ENTRY_POINT = "[orchestrator.executors]\nleaky = leaky_plugin:Leaky\n"


class Leaky:
    """Its target: ``secret``, a reference; ``how`` it is told; ``proof``, a file for the sum of what it was told."""

    name = "leaky"
    fenced = False

    def normalise(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Take what it knows, and repeat what it refuses."""
        if set(target) - {"secret", "how", "proof"}:
            raise InvalidTarget(f"no such target: {dict(target)}", field="target")
        return dict(target)

    def inspect(self, order: Order) -> str | None:
        """Return the secret."""
        return f"generation {_told(order)}" if order.target["how"] == "returned" else None

    def restart(self, order: Order) -> Receipt:
        """Say the secret in the way that the target asks for."""
        secret = _told(order)
        with Path(order.target["proof"]).open("a") as proof:
            proof.write(f"{sha256(secret.encode()).hexdigest()}\n")
        match order.target["how"]:
            case "returned":
                return Receipt(output=f"logged in with {secret}")
            case "transient":
                raise TransientError(f"could not log in with {secret}")
            case "permanent":
                raise PermanentError(f"{secret} was refused")
            case "timeout":
                threading.Event().wait(0.1)
                raise ReadinessTimeout(f"{secret} was not looked at in time")
            case "unknown":
                raise UnknownOutcome(f"{secret} was taken, and then silence")
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise RuntimeError(f"a defect, with {secret}") from error

    def probe(self, order: Order, receipt: Receipt) -> Readiness:
        """Return READY."""
        return Readiness.READY


def _told(order: Order) -> str:
    [(kind, name)] = order.target["secret"].items()
    return os.environ[name] if kind == "env" else Path(name).read_text().strip()
