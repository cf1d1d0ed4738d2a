"""``docs/faults.md`` is written by hand: everything that it names must exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.chaos.faults import faults_of
from tests.simulation.faults import Fault

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| (F\d+) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_NAMED = re.compile(r"\b(sim|chaos): ([^,|`]+?) *(?=[,|]|$)")


@cache
def functions_of(path: str) -> set[str]:
    """Return the names of a file's test functions."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def wanting(page: str) -> list[str]:
    """Return what a page names that does not exist, and which rows name nothing that tries them."""
    missing = [f"{path}::{name}" for path, name in _TEST.findall(page) if name not in functions_of(path)]
    known = {"sim": {fault.value for fault in Fault}, "chaos": set(faults_of("redis")) | set(faults_of("rabbitmq"))}
    for number, row in _ROW.findall(page):
        tried_by = row.rpartition(" | ")[2]
        named = _NAMED.findall(tried_by)
        missing += [f"{kind}: {name}" for kind, name in named if name not in known[kind]]
        if not named and not _TEST.search(tried_by):
            missing.append(f"{number} is tried by nothing")
    return missing


def test_every_fault_is_there_once_in_order() -> None:
    assert [number for number, _ in _ROW.findall(PAGE)] == [f"F{number}" for number in range(1, 44)]


def test_everything_that_is_named_exists() -> None:
    assert wanting(PAGE) == []


def test_what_does_not_exist_is_found() -> None:
    page = "| F1 | a | b | `tests/proof/test_faults_page.py::test_gone`, sim: nothing such, chaos: nor this |\n"
    assert wanting(page) == ["tests/proof/test_faults_page.py::test_gone", "sim: nothing such", "chaos: nor this"]
    assert wanting("| F2 | a | b | hope |\n") == ["F2 is tried by nothing"]
