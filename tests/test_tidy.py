"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("orchestrator", "workers", "migrations")
LONGEST_FUNCTION = 70
LONGEST_FILE = 450
LONGEST_TEST_FILE = 700
MAY_SLEEP = {"tests/waiting.py"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
WALL_CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("time", "time")}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (what it is called on, name) of every call: ``datetime.datetime.now()`` is ("datetime", "now")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield getattr(owner, "attr", getattr(owner, "id", "")), node.func.attr


def imported_names(tree: ast.AST, module: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def too_long_functions(source: str) -> list[str]:
    return [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]


def sleeps(source: str) -> bool:
    tree = ast.parse(source)
    return ("time", "sleep") in calls(tree) or "sleep" in imported_names(tree, "time")


def reads_wall_clock(source: str) -> bool:
    return any(call in WALL_CLOCKS for call in calls(ast.parse(source)))


@pytest.mark.parametrize("path", sources(*PRODUCT, "tests", "bench"), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_tidy(path: Path) -> None:
    source, name = path.read_text(), str(path.relative_to(ROOT))
    is_test = name.startswith("tests/")
    lines = len(source.splitlines())

    assert lines <= (LONGEST_TEST_FILE if is_test else LONGEST_FILE), f"{name} has {lines} lines: split it by duty"
    assert too_long_functions(source) == []
    assert path.stem not in VAGUE, f"{name}: name it after its duty"
    assert not (is_test and sleeps(source) and name not in MAY_SLEEP), f"{name}: wait on a condition (tests/waiting.py)"
    assert not (name.startswith("orchestrator/domain/") and reads_wall_clock(source)), f"{name}: time is passed in"


def test_every_module_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    placed = set(re.findall(r"[\w.]+", " ".join(layers)))
    modules = {
        f"{package}.{path.stem}"
        for package in ("orchestrator", "workers")
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"orchestrator.__init__", "workers.__init__", "orchestrator.__main__"}

    assert modules <= placed, f"no layer in pyproject.toml for {sorted(modules - placed)}"


def test_rules_find_what_they_forbid() -> None:
    long_function = "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION

    assert too_long_functions(long_function) == [f"f has {LONGEST_FUNCTION + 1} lines"]
    assert sleeps("import time\ntime.sleep(1)")
    assert sleeps("from time import sleep\nsleep(1)")
    assert not sleeps("event.wait(1)")
    assert reads_wall_clock("import datetime\ndatetime.datetime.now()")
    assert reads_wall_clock("from datetime import datetime\ndatetime.utcnow()")
    assert not reads_wall_clock("clock.now()")


PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
ROOMS = ("", "orchestrator/", "docs/")
"""Where a page's paths begin: at the root, or inside of the package that it speaks of."""


def missing_paths(page: str) -> list[str]:
    """Return the files and folders of the repository that a page names and that are not there."""
    named = re.findall(r"`((?:[\w-]+/)+(?:[\w.-]+\.(?:py|md|toml|json|yml))?)(?:::\w+)?`", page)
    linked = re.findall(r"\]\(([\w./-]+)\)", page)
    return [path for path in [*named, *linked] if not any((ROOT / room / path).exists() for room in ROOMS)]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_files_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("`site/`", "")  # the reader's own folder
    assert missing_paths(text) == []


def test_a_page_that_names_what_is_gone_is_found() -> None:
    page = "`history/why.py`, `history/gone.py`, `gone/`, [x](docs/gone.md), `tests/gone.py::test_it`, `./dev lint`"
    assert missing_paths(page) == ["history/gone.py", "gone/", "tests/gone.py", "docs/gone.md"]
