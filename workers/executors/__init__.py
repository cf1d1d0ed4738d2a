"""The executors that this process has: built in, and plug-ins of the entry-point group ``orchestrator.executors``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from orchestrator.errors import InvalidInput
from orchestrator.ports.executor import Executor
from workers.executors.bounded_run import RecordedUnder
from workers.executors.command import CommandExecutor
from workers.executors.extras import is_installed
from workers.executors.process import ProcessExecutor
from workers.executors.simulated import SimulatedExecutor
from workers.supervision.supervisor import ProcessSupervisor

PLUGIN_GROUP = "orchestrator.executors"

_METHODS = ("normalise", "inspect", "restart", "probe")


def available(supervisor: ProcessSupervisor | None, under: RecordedUnder | None = None) -> dict[str, Executor]:
    """Return the executors by name. ``process`` is there only with a supervisor (inside ``up``).
    Commands that run are recorded ``under``.

    A plug-in is an entry point that loads a factory without arguments; it is called once.
    Raises ``InvalidInput`` that names the plug-in if one is broken or takes a name that is taken.
    """
    executors: dict[str, Executor] = {}
    built_in: list[Executor] = [CommandExecutor(under), SimulatedExecutor()]
    if supervisor is not None:
        built_in.append(ProcessExecutor(supervisor, under))
    for executor in built_in:
        executors[executor.name] = executor
    for name, factory in _WITH_EXTRAS.items():
        if is_installed(name):
            executors[name] = factory()
    for entry_point in entry_points(group=PLUGIN_GROUP):
        if entry_point.name in (executors.keys() | _BUILT_IN):
            raise _broken(entry_point, "its name is taken")
        executors[entry_point.name] = _loaded(entry_point)
    return executors


_WITH_EXTRAS: Mapping[str, Callable[[], Executor]] = {}
"""Those whose library is an extra. Each factory imports it: a process without such targets never does."""
_BUILT_IN = frozenset({ProcessExecutor.name, *_WITH_EXTRAS})
"""Names that are taken in processes too that have not such an executor."""


def _loaded(entry_point: EntryPoint) -> Executor:
    try:
        executor: Executor = entry_point.load()()
    except Exception as error:
        raise _broken(entry_point, f"{type(error).__name__}: {error}") from error
    missing = [name for name in _METHODS if not callable(getattr(executor, name, None))]
    if missing:
        raise _broken(entry_point, f"it has no {', '.join(missing)}")
    if getattr(executor, "name", None) != entry_point.name or not isinstance(getattr(executor, "fenced", None), bool):
        raise _broken(entry_point, f"it must have name = {entry_point.name!r} and fenced = True or False")
    return executor


def _broken(entry_point: EntryPoint, why: str) -> InvalidInput:
    return InvalidInput(
        f"executor plug-in {entry_point.name!r} ({entry_point.value}) cannot be used: {why}; "
        "repair or uninstall the package that brings it",
        field=entry_point.name,
    )
