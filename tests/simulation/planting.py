"""Plants a defect in the product's code for as long as a block lasts: names of its modules, classes and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain import evolve
from tests.simulation.boundaries import stands_for

Undo = Callable[[], None]


@dataclass
class Planting:
    """What is planted now, and how to take it out again."""

    _undo: list[Undo] = field(default_factory=list)

    def name(self, owner: object, name: str, planted: Any) -> None:
        """Replace an attribute of a module or a class; it must be there."""
        original = vars(owner)[name]
        if isinstance(planted, FunctionType):
            whole = getattr(owner, "__qualname__", "")
            module = original.__module__ if isinstance(original, FunctionType) else ""
            path = [module.rpartition(".")[2], whole, name]
            stands_for(planted.__code__, ".".join(part for part in path if part))
        setattr(owner, name, planted)
        self._undo.append(lambda: setattr(owner, name, original))

    def effect(self, kind: type[ev.EventData], planted: Any) -> None:
        """Replace what an event of that type does to a workspace's state."""
        self.entry(evolve._DECISIONS, kind, planted)

    def entry(self, table: MutableMapping[Any, Any], kind: type[ev.EventData], planted: Any) -> None:
        """Replace what a table has for an event of that type."""
        original = table[kind]
        table[kind] = planted
        self._undo.append(lambda: table.__setitem__(kind, original))

    def take_out(self) -> None:
        while self._undo:
            self._undo.pop()()


Plant = Callable[[Planting], None]


@contextmanager
def planted(plant: Plant | None) -> Iterator[None]:
    """Run a block with a defect; None: with the product as it is."""
    planting = Planting()
    try:
        if plant is not None:
            plant(planting)
        yield
    finally:
        planting.take_out()
