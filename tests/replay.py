"""Promise S10 after a test: folding the log gives the rows, the restarts and the policies, byte for byte."""

from __future__ import annotations

from orchestrator.history.replay import replay
from orchestrator.ports.store import CoreStore


def check_replay(store: CoreStore) -> None:
    """Fail unless the log folds into what is stored, and every row is due when its state says."""
    assert replay(store).differences == ()
