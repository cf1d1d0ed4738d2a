"""Every place at which the product meets the world has a name, and every wait is simulated."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.simulation import stand_ins
from tests.simulation.boundaries import ALL, SITES, STAGES
from tests.simulation.campaign import run_seeds

ROOT = Path(__file__).resolve().parents[2]
OF_CALLERS = {"access.py", "access_record.py", "key_book.py", "keys.py", "read_budget.py"}
"""Who may call an API: nothing there decides about a restart, and no simulated process runs it."""
SERVICE = sorted(path for path in (ROOT / "orchestrator" / "service").glob("*.py") if path.name not in OF_CALLERS)
WORKERS = [ROOT / "workers" / "tasks.py", ROOT / "workers" / "lease_renewer.py"]
WORLD = {"store", "_store", "doorbell", "_doorbell", "executor"}
"""What the service code calls the parts of the world by."""
NO_BOUNDARY = {"normalise"}
"""Pure, and called from the outside only."""
WAITS = {"threading": {"Event", "Lock", "Condition", "Thread"}, "time": {"monotonic"}}


def calls_of_the_world(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (function, operation) of each call of a method of the store, the doorbell or an executor."""
    yield from _calls(ast.parse(path.read_text()), path.stem)


def _calls(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from _calls(child, f"{where}.{child.name}")
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            owner = child.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in WORLD and child.func.attr not in NO_BOUNDARY:
                yield where, child.func.attr
        yield from _calls(child, where)


def names_used(path: Path, module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    }


def test_every_boundary_of_the_service_has_a_name() -> None:
    found = {site for path in [*SERVICE, *WORKERS] for site in calls_of_the_world(path)}

    assert found == set(SITES), "tests/simulation/boundaries.py must name each"
    assert {operation for _, operation in SITES} == set(STAGES)


def test_a_call_that_has_no_name_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "new.py"
    module.write_text("class A:\n    def f(self):\n        with self._store.write(['x']) as tx:\n            tx.now\n")

    assert list(calls_of_the_world(module)) == [("new.A.f", "write")]


def test_every_module_that_waits_is_simulated() -> None:
    simulated = {Path(str(module.__file__)) for module in stand_ins.SIMULATED}
    for path in [*SERVICE, *WORKERS]:
        for module, known in WAITS.items():
            used = names_used(path, module)
            assert used <= known, f"{path.name} uses {used - known} of {module}: tests/simulation/stand_ins.py lacks it"
            assert not used or path in simulated, f"{path.name} waits, unknown to tests/simulation/stand_ins.py"


def test_processes_are_killed_at_boundaries_of_every_kind() -> None:
    figures = run_seeds(range(120))
    points = figures.crash_points()
    hit = {name.rpartition(" ")[2] for name, times in points.items() if times}

    assert hit == {stage for stages in STAGES.values() for stage in stages}
    assert sum(times > 0 for times in points.values()) >= 0.8 * len(ALL)
    assert not figures.failures
