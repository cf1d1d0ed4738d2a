"""What the tests ask of any broker."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from tests.servers.process import ServerProcess


class BrokerServer(ServerProcess):
    """A broker whose messages may be lost at any time, which the product has to bear."""

    name: ClassVar[str]
    """As the names of faults and reports have it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """As ``ORCHESTRATOR_BROKER_URL`` takes it."""

    @abstractmethod
    def flush(self) -> None:
        """Empty it: every message that still waits is lost."""
